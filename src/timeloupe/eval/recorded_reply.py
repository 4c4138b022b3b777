"""One episode in short: what comparing and reporting need of it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timeloupe.trajectory import Example, FrameRef, StopReason, Text, Trajectory

Key = tuple[str, int]
"""Row id and repeat."""

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one question in one repeat, in short.

    Attributes:
        example: The question as it was asked; ``None`` in a file of predictions.
        repeat: Which of the question's episodes, from 0.
        prediction: What is scored: the last reply, "" where the episode ended without an answer, ``None`` where the
            machine failed.
        stop: Why the episode ended; ``None`` in a file of predictions.
        problem: Why it went wrong, in words; "" if it did not.
        option: The letter that was answered.
        answered: The segments that were answered.
        looked: Start and end of every crop that was shown.
        words: Hash of all text that stood before the first reply.
        skim: Hash of the times of the first frames; "" without frames.
        skim_wh: Their size; ``None`` without frames.
        crops: Hash of times and size of each crop.
        first: Hash of the first reply's text.
        duration_seconds: Length of the video as far as a whole first look tells it.
        prompt_tokens: As counted by model or server; ``None`` if not.
        completion_tokens: Likewise.
        seconds: Wall time of the episode.
        frames_decoded: Frames that the decoder had to decode for it.
    """

    example: Example | None
    repeat: int
    prediction: Any
    stop: StopReason | None = None
    problem: str = ""
    option: str | None = None
    answered: tuple[Span, ...] = ()
    looked: tuple[Span, ...] = ()
    words: str = ""
    skim: str = ""
    skim_wh: tuple[int, int] | None = None
    crops: tuple[tuple[str, tuple[int, int]], ...] = ()
    first: str = ""
    duration_seconds: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float = 0.0
    frames_decoded: int = 0

    @property
    def is_fault(self) -> bool:
        """Whether the machine's fault ended the episode."""
        return self.stop is StopReason.INFRASTRUCTURE


def reply_of(episode: Trajectory) -> Reply:
    """Return an episode in short."""
    answer, turns = episode.answer, episode.turns
    usages = [turn.generation.usage for turn in turns]
    skims = episode.skims
    problem = episode.problem or next(
        (turn.problem for turn in reversed(turns) if turn.problem is not None), None
    )
    whole = (
        len(skims) == 1 and skims[0].start_seconds == 0 and episode.settings.get("skim_end_seconds") is None
    )
    fault = episode.stop is StopReason.INFRASTRUCTURE
    return Reply(
        example=episode.example, repeat=episode.rollout_index,
        prediction=None if fault else turns[-1].generation.text if answer is not None else "",
        stop=episode.stop, problem="" if problem is None or answer is not None else problem.message,
        option=None if answer is None else answer.option,
        answered=() if answer is None else tuple((one.start_seconds, one.end_seconds) for one in answer.segments),
        looked=tuple((one.start_seconds, one.end_seconds) for one in episode.crops),
        words=_hash([
            (message.role, [part.text for part in message.parts if isinstance(part, Text)])
            for message in episode.prompt
        ]),
        skim=_hash([_times(one) for one in skims]) if skims else "",
        skim_wh=skims[0].size_wh if skims else None,
        crops=tuple((_hash(_times(one)), one.size_wh) for one in episode.crops),
        first=_hash(turns[0].generation.text) if turns else "",
        duration_seconds=skims[0].end_seconds if whole else None,
        prompt_tokens=_total([one.prompt_tokens for one in usages]),
        completion_tokens=_total([one.completion_tokens for one in usages]),
        seconds=episode.seconds, frames_decoded=episode.frames_decoded,
    )  # fmt: skip


def _times(view: FrameRef) -> tuple[float, ...]:
    return view.at_seconds


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _total(counts: Sequence[int | None]) -> int | None:
    return None if any(count is None for count in counts) else sum(count or 0 for count in counts)
