"""Does the answer depend on the evidence? The last turn of answered episodes asked again, with other frames.

The history is held fixed: the prompt, the model's earlier replies token by token, and the tool's texts. Only the frames
that were shown, in the first view and in crops, are changed as ``eval.perturb`` says, and the model is asked for its
last turn again, at temperature 0. What is compared is the reply under changed frames with the reply under the same
frames (``again``), not with the recorded one, so that sampling and a server's moods are in neither. What the model
would have looked at instead is not asked: an audit is about the answer, given what was looked at.

For a model in this process, the log-probability of the recorded last reply (thought and answer, nats) under the changed
frames is computed too: it moves before the answer does.

Limits: frames that are cut leave a gap in time, which a model that is told only a frame rate (Qwen2.5-VL, or video sent
to a server that prints no times) cannot see; send images to a server. Cutting the evidence of an episode that looked
closer takes its crop away, of which the control, a stretch of the first view, has none: ``only`` and ``shuffled``,
where the crop stays, are the fairer conditions there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from timeloupe.environment.replay import read_clips, trajectory_messages
from timeloupe.environment.rollout import derive_seed
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import PolicyError, VideoError
from timeloupe.eval.perturb import CONDITIONS, Shown, Span, change, evidence_spans
from timeloupe.grounding import set_iou
from timeloupe.policy.base import GenerationRequest, Policy
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import Protocol
from timeloupe.runs import episode_key, read_appended, write_atomic
from timeloupe.trajectory import Answer, Generation, Record, Trajectory, Usage, to_line
from timeloupe.video.cache import FrameCache
from timeloupe.world.script import generator

AUDIT = "audit.jsonl"

SAME_TIOU = 0.5
"""Two answers that are segments are the same from this overlap on."""

ReplyLogprobs = Callable[
    [Sequence[GenerationRequest], Sequence[Generation]], Sequence[tuple[float, ...] | None]
]
"""Log-probabilities of given replies; see ``policy.forced``."""


Spans = Callable[[Trajectory], tuple[Span, ...]]


class AuditRow(Record):
    """One answered episode under one condition.

    Attributes:
        audit: What was asked of whom, hashed: rows of other audits of the run have another value.
        condition: One of ``perturb.CONDITIONS``.
        outcome: ``answer``; ``look`` = a call of the tool instead; ``none`` = neither could be read; ``not_asked``,
            with the reason; ``fault`` = the machine failed.
        reason: Why there is no answer, or why it was not asked.
        score: Letter right, or overlap of the segments with the true ones; ``None`` where the truth is not known.
        num_frames: Frames shown.
        num_changed: Frames that were cut out or show another picture.
        logprob: Of the recorded last reply under these frames, nats; ``None`` = not measured.
        num_tokens: Tokens of that reply.
    """

    audit: str
    id: str
    rollout_index: int
    video: str
    task: str
    condition: str
    outcome: Literal["answer", "look", "none", "not_asked", "fault"]
    reason: str = ""
    reply: str = ""
    answer: Answer | None = None
    score: float | None = None
    num_frames: int = 0
    num_changed: int = 0
    logprob: float | None = None
    num_tokens: int = 0
    usage: Usage = Usage()
    seconds: float = 0.0

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells the row from others of its audit."""
        return self.id, self.rollout_index, self.condition


@dataclass(frozen=True)
class Auditor:
    """Asks again.

    Attributes:
        audit: Name of the audit, for its rows.
        policy: Who is asked.
        protocols: By the name that trajectories record.
        seed: Draws the places and orders of changed frames, per episode and condition.
        cache: Decoded frames.
        logprobs: How likely given replies are; ``None`` where nobody can say.
        spans: The evidence of an episode, one of ``perturb.EVIDENCE``.
    """

    audit: str
    policy: Policy
    protocols: Mapping[str, Protocol]
    seed: int
    cache: FrameCache
    logprobs: ReplyLogprobs | None = None
    spans: Spans = evidence_spans

    def ask(self, trajectories: Sequence[Trajectory], done: frozenset[Any] = frozenset()) -> list[AuditRow]:
        """Return the rows of some answered episodes with evidence, but for those whose keys are in ``done``."""
        rows: list[AuditRow] = []
        asked: list[tuple[Trajectory, str, Shown]] = []
        for one in trajectories:
            wanted = [name for name in CONDITIONS if (*episode_key(one), name) not in done]
            if not wanted:
                continue
            try:
                shown = shown_before_last_turn(one, self.cache)
            except VideoError as error:
                rows += [self._row(one, name, "fault", reason=str(error)) for name in wanted]
                continue
            for name in wanted:
                random = generator("audit", self.seed, *episode_key(one), name)
                changed = change(shown, self.spans(one), name, random)
                if isinstance(changed, str):
                    rows.append(self._row(one, name, "not_asked", reason=changed))
                else:
                    asked.append((one, name, changed))
        return rows + self._rows(asked)

    def _rows(self, asked: Sequence[tuple[Trajectory, str, Shown]]) -> list[AuditRow]:
        if not asked:
            return []
        requests = [self._request(one, shown) for one, _, shown in asked]
        began = time.perf_counter()
        try:
            generations = self.policy.generate(requests)
        except PolicyError as error:
            generations = [Generation(text="", finish="error", error=str(error)) for _ in requests]
        seconds = (time.perf_counter() - began) / len(requests)
        recorded = [one.turns[-1].generation for one, _, _ in asked]
        found = [None] * len(asked) if self.logprobs is None else self.logprobs(requests, recorded)
        rows: list[AuditRow] = []
        for (one, name, shown), generation, values in zip(asked, generations, found, strict=True):
            rows.append(
                self._read(one, name, generation).model_copy(
                    update={
                        "num_frames": shown.num_frames, "num_changed": shown.num_changed, "seconds": seconds,
                        "logprob": _total(values),
                        "num_tokens": len(values or ()), "usage": generation.usage,
                    }
                )
            )  # fmt: skip
        return rows

    def _request(self, one: Trajectory, shown: Shown) -> GenerationRequest:
        known = {key: one.settings[key] for key in EpisodeSettings.model_fields if key in one.settings}
        settings = EpisodeSettings.model_validate(known | {"temperature": 0.0})
        key = episode_key(one)
        return GenerationRequest(
            messages=shown.messages, clips=shown.clips,
            generations=tuple(turn.generation for turn in one.turns[:-1]),
            seed=derive_seed(self.seed, *key, len(one.turns) - 1),
            sampling=settings.sampling(tuple(self.protocols[one.protocol].stop)), example_id=one.example.id,
        )  # fmt: skip

    def _read(self, one: Trajectory, name: str, generation: Generation) -> AuditRow:
        """The row of a reply, without what was measured."""
        if generation.finish == "error":
            return self._row(one, name, "fault", reason=generation.error or "the policy gave no reason")
        parsed = parse_reply(
            generation.text, self.protocols[one.protocol], num_options=len(one.example.options),
            closed=generation.finish == "length",
        )  # fmt: skip
        row = self._row(one, name, "none", reply=generation.text)
        if parsed.answer is not None:
            return row.model_copy(
                update={"outcome": "answer", "answer": parsed.answer, "score": score(one, parsed.answer)}
            )
        if parsed.call is not None:
            return row.model_copy(update={"outcome": "look", "reason": "call", "score": score(one, None)})
        reason = parsed.problem.reason if parsed.problem is not None else "empty"
        return row.model_copy(update={"reason": reason, "score": score(one, None)})

    def _row(
        self, one: Trajectory, condition: str, outcome: Any, *, reason: str = "", reply: str = ""
    ) -> AuditRow:
        example = one.example
        return AuditRow(
            audit=self.audit, id=example.id, rollout_index=one.rollout_index, video=example.video,
            task=example.task, condition=condition, outcome=outcome, reason=reason, reply=reply,
        )  # fmt: skip


def _total(values: Sequence[float] | None) -> float | None:
    total = math.fsum(values) if values else math.nan
    return total if math.isfinite(total) else None


def shown_before_last_turn(trajectory: Trajectory, cache: FrameCache) -> Shown:
    """Return the chat that an episode's last reply answered, with its frames read again.

    Raises:
        VideoError: A video cannot be read any more.
    """
    messages = trajectory_messages(trajectory)[:-1]
    deadline = trajectory.settings.get("video_deadline_seconds")
    return Shown(messages, read_clips(messages, cache, deadline_seconds=deadline))


def score(trajectory: Trajectory, answer: Answer | None) -> float | None:
    """Return 1 or 0 for an option letter, the overlap with the true segments for a time; ``None`` without a truth."""
    example = trajectory.example
    if example.options:
        return (
            None if example.answer is None else float(answer is not None and answer.option == example.answer)
        )
    if example.task in ("grounding", "multi_segment"):
        return (
            set_iou(answer.segments if answer is not None else (), example.segments)
            if example.segments
            else None
        )
    return None


def same_answer(one: Answer, two: Answer) -> bool:
    """Return whether two answers to one question say the same.

    The option letters are equal; or, without letters, the overlap of their segments is at least ``SAME_TIOU``; or,
    without both, the texts are equal but for case and blanks.
    """
    if one.option is not None or two.option is not None:
        return one.option == two.option
    if one.segments or two.segments:
        return set_iou(one.segments, two.segments) >= SAME_TIOU
    return " ".join(one.text.casefold().split()) == " ".join(two.text.casefold().split())


def read_rows(path: Path, audit: str) -> dict[tuple[str, int, str], AuditRow]:
    """Return the rows of one audit by their keys, faults left out; a torn last line is none.

    Raises:
        RecordError: A whole line is no valid row.
    """
    return {row.key: row for row in all_rows(path, audit) if row.outcome != "fault"}


def all_rows(path: Path, audit: str) -> list[AuditRow]:
    """Return the rows of one audit, faults with them.

    Raises:
        RecordError: A whole line is no valid row.
    """
    return [row for row in read_appended(path, AuditRow) if row.audit == audit]


def drop_faults(path: Path, audit: str) -> int:
    """Take the faults of one audit out of the file, and a torn last line; return how many they were."""
    if not path.is_file():
        return 0
    rows = list(read_appended(path, AuditRow))
    kept = [row for row in rows if row.audit != audit or row.outcome != "fault"]
    write_atomic(path, "".join(to_line(row) + "\n" for row in kept).encode())
    return len(rows) - len(kept)


def auditable(
    trajectories: Sequence[Trajectory], spans: Spans = evidence_spans
) -> tuple[list[Trajectory], dict[str, int]]:
    """Return the episodes that can be asked again, and how many cannot, by reason.

    ``no_answer``: the episode did not answer. ``no_evidence``: it answered and has none. ``no_frames``: it was shown no
    frame.
    """
    answered = [one for one in trajectories if one.answer is not None]
    seeing = [one for one in answered if one.skims or one.crops]
    found = [one for one in seeing if spans(one)]
    left = (len(trajectories) - len(answered), len(seeing) - len(found), len(answered) - len(seeing))
    return found, dict(zip(("no_answer", "no_evidence", "no_frames"), left, strict=True))
