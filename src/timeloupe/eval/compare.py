"""Looking closer against a single pass: the same questions, the same skim, and controls that show what is trivial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from timeloupe.environment.rollout import play
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.eval.metrics import recall_at
from timeloupe.grounding import tiou
from timeloupe.policy.base import Policy
from timeloupe.prompt.protocol import Protocol
from timeloupe.trajectory import Example, Segment, StopReason, Trajectory
from timeloupe.video.cache import FrameCache
from timeloupe.video.probe import probe
from timeloupe.world.script import generator

THRESHOLDS = (0.3, 0.5, 0.7)

SECTIONS = ("agentic", "single_pass", "question_only", "whole_video", "middle", "random")
"""The first three are the model's; the last three look at nothing."""


@dataclass(frozen=True)
class Outcome:
    """What came of one question: the IoU of a grounding answer or whether an option was right, else ``None``.

    A reply that could not be read scores 0, never ``None``. Both are ``None`` where the machine failed (``stop`` is
    ``infrastructure``): such an episode has no score and leaves the means.
    """

    example: Example
    tiou: float | None = None
    right: float | None = None
    crops: int = 0
    frames_decoded: int = 0
    frames_cached: int = 0
    unscored: bool = False


def outcome(trajectory: Trajectory) -> Outcome:
    """Return the outcome of an episode: first answered segment against the first true one; option letter against the
    true letter."""
    example, answer = trajectory.example, trajectory.answer
    unscored = trajectory.stop is StopReason.INFRASTRUCTURE
    overlap = right = None
    if not unscored and example.task == "multiple_choice":
        right = float(answer is not None and answer.option == example.answer)
    elif not unscored:
        overlap = _best(answer.segments[0] if answer is not None and answer.segments else None, example)
    return Outcome(
        example,
        overlap,
        right,
        len(trajectory.crops),
        trajectory.frames_decoded,
        trajectory.frames_cached,
        unscored,
    )


def evidence_tiou(trajectory: Trajectory) -> float:
    """Return the IoU of the segments an episode stands on (its last crop, or its answer) with the true segment."""
    return _best(trajectory.evidence[0] if trajectory.evidence else None, trajectory.example)


def _best(segment: Segment | None, example: Example) -> float:
    if segment is None or not example.segments:
        return 0.0
    return tiou(segment, example.segments[0])


def control(name: str, example: Example, duration_seconds: float, seed: int) -> Outcome:
    """Return what a rule that looks at nothing gets.

    ``whole_video`` answers [0, duration); ``middle`` the middle fifth; ``random`` a random fifth, and a random letter.
    """
    span = duration_seconds / 5
    random = generator("control", seed, example.id)
    starts = {"whole_video": 0.0, "middle": 2 * span, "random": float(random.uniform(0, 4 * span))}
    start = starts[name]
    end = duration_seconds if name == "whole_video" else start + span
    if example.task == "multiple_choice":
        if name != "random":
            return Outcome(example)
        letter = chr(ord("A") + int(random.integers(len(example.options))))
        return Outcome(example, right=float(letter == example.answer))
    return Outcome(example, tiou=_best(Segment(start_seconds=start, end_seconds=end), example))


def summarise(outcomes: Sequence[Outcome], seconds: float) -> dict[str, float | int | None]:
    """Return the figures of one section.

    Returns:
        ``n`` questions asked; ``miou`` and ``recall_at_*`` (IoU >= threshold) over grounding questions; ``accuracy``
        by option letter over multiple-choice questions; crops, seconds of wall time, decoded frames and frames from
        the cache per question. Questions that a machine's fault left without a score are in ``n`` and in no mean.
        ``None`` where a section has no such question.
    """
    overlaps = [one.tiou for one in outcomes if one.tiou is not None]
    rights = [one.right for one in outcomes if one.right is not None]
    figures: dict[str, float | int | None] = {"n": len(outcomes), "miou": _mean(overlaps)}
    for threshold in THRESHOLDS:
        figures[f"recall_at_{threshold}"] = recall_at(overlaps, threshold) if overlaps else None
    figures["accuracy"] = _mean(rights)
    figures["crops_per_question"] = _mean([float(one.crops) for one in outcomes])
    figures["seconds_per_question"] = seconds / len(outcomes) if outcomes else None
    figures["frames_decoded_per_question"] = _mean([float(one.frames_decoded) for one in outcomes])
    figures["frames_cached_per_question"] = _mean([float(one.frames_cached) for one in outcomes])
    return figures


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Section:
    """One way of answering all questions."""

    name: str
    outcomes: tuple[Outcome, ...]
    seconds: float
    trajectories: tuple[Trajectory, ...] = ()


def compare(
    examples: Sequence[Example],
    policy: Policy,
    protocol: Protocol,
    settings: EpisodeSettings,
    *,
    seed: int,
    batch: int = 32,
    sections: Sequence[str] = SECTIONS,
    on_progress: Callable[[str, int], None] | None = None,
) -> dict[str, Section]:
    """Answer every example in every way and return the sections by name.

    Every section has a frame cache of its own, so that its decoded frames are its own cost.

    Args:
        examples: World questions (grounding and multiple choice), videos readable.
        policy: The model.
        protocol: Its protocol.
        settings: Settings of the agentic run; the single pass has the same skim and no tool.
        seed: Seeds sampling (if any) and the random control.
        batch: Episodes per lockstep batch.
        sections: Which of ``SECTIONS``.
        on_progress: Called with the section's name and how many questions were just answered.
    """
    changes = {
        "agentic": {},
        "single_pass": {"tools": False},
        "question_only": {"question_only": True, "tools": False},
    }
    durations = {
        video: probe(video).duration_seconds for video in dict.fromkeys(one.video for one in examples)
    }
    found: dict[str, Section] = {}
    for name in sections:
        if name not in changes:
            rows = tuple(control(name, example, durations[example.video], seed) for example in examples)
            found[name] = Section(name, rows, 0.0)
            continue
        ways = settings.model_copy(update=changes[name])
        played: list[Trajectory] = []
        seconds = 0.0
        cache = FrameCache(256 * 2**20)
        for at in range(0, len(examples), batch):
            part = play(examples[at : at + batch], policy, protocol, ways, seed=seed, cache=cache)
            seconds += max(trajectory.seconds for trajectory in part)
            played.extend(part)
            if on_progress is not None:
                on_progress(name, len(part))
        found[name] = Section(
            name, tuple(outcome(trajectory) for trajectory in played), seconds, tuple(played)
        )
    return found
