"""Test-time scaling: several replies to one multiple-choice question vote, each with the weight of its evidence.

Source: Open-o3 Video, arXiv 2510.20579v2, appendix A.10, and its release (marinero4972/Open-o3-Video@1eb6ecae,
``eval/tts.py`` and ``eval/test/test_videomme.py``). A scorer looks at the crops that a reply's thought points at and
says how relevant each is to the question: 2, 1 or 0. The reply's vote weighs the mean over its crops; the largest sum
wins. Majority voting is the same with weights of 1.

Deviations from the release:

1. It asks its scorer once for all crops of a reply; ``evidence_weight`` takes one score or one per crop, as the paper.
2. Its claims may run into each other (``reward.openo3_parse``), and are read by it here too, so that figures compare.
3. A time before the video starts is no frame; the release counts it from the end of the video (``wraps=True``).
4. Where no vote weighs anything there is no answer; the release answers A (``when_empty="A"``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from timeloupe.grounding import Corners
from timeloupe.reward.openo3_parse import block, raw_claims

LETTERS = ("A", "B", "C", "D")
LOWEST_WEIGHT = 0.2
MAX_CROPS = 10

_WEIGHTS = {2: 1.0, 1: 0.6, 0: LOWEST_WEIGHT}


@dataclass(frozen=True)
class Evidence:
    """One object that a thought points at: a box (x1, y1, x2, y2) in the model's coordinates, at a time in seconds."""

    label: str
    box: Corners
    at_seconds: float


@dataclass(frozen=True)
class Ballot:
    """What one reply says.

    Attributes:
        letter: Its answer; ``None`` unless that is exactly one of the letters, or if there is no thought before it.
        evidence: What its thought points at.
    """

    letter: str | None
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Vote:
    """The sum of weights of each letter, and the letter with the largest, the first of equals."""

    scores: Mapping[str, float]
    answer: str | None


def read_ballot(reply: str, letters: Sequence[str] = LETTERS) -> Ballot:
    """Return the answer of a reply and the evidence in its thought."""
    letter, thought = (block(reply, "answer") or "").strip(), block(reply, "think")
    if letter not in letters or thought is None:
        return Ballot(None)
    return Ballot(letter, read_evidence(thought.strip()))


def read_evidence(thought: str) -> tuple[Evidence, ...]:
    """Return the evidence of a thought, times rounded to 0.01 s; claims without exactly one sound box are left out."""
    found: list[Evidence] = []
    for label, written, time in raw_claims(thought):
        box = read_box(written.removeprefix("<box>").removesuffix("</box>"))
        try:
            at_seconds = round(float(time.strip()), 2)
        except ValueError:
            continue
        if box is not None:
            found.append(Evidence(label.strip(), box, at_seconds))
    return tuple(found)


def read_box(text: str) -> Corners | None:
    """Return the box that a text spells, brackets left aside; ``None`` if it is reversed or not four numbers."""
    try:
        x1, y1, x2, y2 = (float(part) for part in text.translate(_NO_BRACKETS).split(","))
    except ValueError:
        return None
    return (x1, y1, x2, y2) if x2 >= x1 and y2 >= y1 else None


_NO_BRACKETS = str.maketrans("", "", " []")


def frame_index(num_frames: int, fps: float, at_seconds: float, *, wraps: bool = False) -> int | None:
    """Return which of ``num_frames`` frames, sampled at ``fps``, shows a time best; ``None`` if it is outside them.

    Args:
        num_frames: Frames there are.
        fps: Frames per second.
        at_seconds: The time from the first frame.
        wraps: The release's way: a time before the first frame counts from the end, and errors are not caught.

    Raises:
        IndexError, OverflowError, ValueError: With ``wraps`` only: further back than there are frames, or not finite.
    """
    if wraps:
        index = round(at_seconds * fps)
        return range(num_frames)[index] if index < num_frames else None
    place = at_seconds * fps
    if not math.isfinite(place):
        return None
    return round(place) if 0 <= round(place) < num_frames else None


def relevance_weight(score: int | None) -> float:
    """Return what a relevance of 2, 1 or 0 weighs: 1.0, 0.6, 0.2; 0.2 for anything else."""
    return LOWEST_WEIGHT if score is None else _WEIGHTS.get(score, LOWEST_WEIGHT)


def evidence_weight(scores: Sequence[int | None], num_crops: int | None = None) -> float:
    """Return what a reply's vote weighs, in [0.2, 1]: the mean of the weights of its crops' scores.

    0.2 without crops, and with more than ten of them (who points at everything points at nothing).

    Args:
        scores: One score per crop, or one for all of them.
        num_crops: How many crops there are, if not one per score.
    """
    count = len(scores) if num_crops is None else num_crops
    if not scores or not 0 < count <= MAX_CROPS:
        return LOWEST_WEIGHT
    return math.fsum(relevance_weight(score) for score in scores) / len(scores)


def vote(
    answers: Sequence[str | None],
    weights: Sequence[float],
    letters: Sequence[str] = LETTERS,
    *,
    when_empty: str | None = None,
) -> Vote:
    """Return the sums of the weights of each letter and the winner.

    Args:
        answers: One letter per reply; ``None`` = it has no valid answer and no vote.
        weights: One weight per reply, >= 0.
        letters: The letters that can win; of equal ones the first does.
        when_empty: The answer if no vote weighs anything.

    Raises:
        ValueError: Not one weight per answer, or an answer that is none of the letters.
    """
    if len(answers) != len(weights):
        raise ValueError(f"need one weight per answer, got {len(weights)} for {len(answers)}")
    if strange := {answer for answer in answers if answer is not None} - set(letters):
        raise ValueError(
            f"answers {sorted(strange)} are none of {', '.join(letters)}; give None for no answer"
        )
    scores: dict[str, float] = dict.fromkeys(letters, 0)
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            scores[answer] += weight
    best = max(letters, key=lambda letter: scores[letter])
    return Vote(scores, best if scores[best] > 0 else when_empty)
