"""MUSEG's rewards: form with and without timestamps, global and local matching of segments, and the phases.

Source: THUNLP-MT/MUSEG@889565e7, ``src/train.py`` (arXiv 2505.20715). The release trains on format + segment matching,
each with weight 1: 400 steps with the timestamp reward, then 500 without. What the release does is the default here.

An answer is blank-separated items ``start-end`` in seconds. An item is split at its dashes and its first two fields are
read by ``float()``: exponents, underscores, other scripts' digits, ``inf`` and ``nan`` are numbers, more fields are
ignored, and blanks around the dash, commas, ``to`` and unit letters are unreadable.

Deviations, each with the option that undoes it:

1. A score that is not finite is 0 (``guard=False``: NaN). In the release one ``0-inf`` makes the whole group NaN.
2. The search for timestamps in the thought and the merging of predictions take linear time; results are the same.

Faults of the release that are the default, each with the option that mends it:

1. Overlapping true segments are counted twice, so the global score may reach 2 (``merge_truth=True``).
2. The global score is an F1 of lengths; second-hand text of the paper has an IoU of unions (``measure="iou"``).
3. Segments are paired in the order of the answer (``pairing="sorted"`` or ``"best"``).
4. ``9.2`` is named by a thought that says ``9.25`` (``match="number"``).
5. An answer without segments has the full format reward (``require_segment=True``).
6. Global + local reaches 2 where the paper's mean reaches 1: give ``segment_matching`` the weight 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from timeloupe.grounding import match_best, merge_spans, set_iou
from timeloupe.reward.base import Context, Part, check_constant
from timeloupe.reward.museg_mentions import mentions_as_number, mentions_as_pattern
from timeloupe.reward.think_answer import answer_blocks, final_reply, split_think_answer
from timeloupe.trajectory import Trajectory

Pair = tuple[float, float]
Measure = Literal["f1", "iou"]
Pairing = Literal["order", "sorted", "best"]
Match = Literal["pattern", "number"]

EPSILON = 1e-6
FAR_AWAY = (1e9, 1e9 + 1)
"""What a segment without a partner is compared with."""

FIRST_PHASE = 400 / 900
"""Share of the training steps that the release spends in the phase with timestamps."""

TASKS = ("grounding", "multi_segment")

_UNSCORABLE = (ArithmeticError, LookupError, TypeError, ValueError)
_COUNTS = {"pattern": mentions_as_pattern, "number": mentions_as_number}


def read_items(inside: str) -> list[Pair] | None:
    """Return the (start, end) of each item of an answer's inside, or ``None`` if one cannot be read.

    They may be reversed, empty, infinite or NaN; without items the list is empty.
    """
    pairs: list[Pair] = []
    for item in inside.split():
        fields = item.split("-", 2)
        try:
            pairs.append((float(fields[0]), float(fields[1])))
        except (ValueError, IndexError):
            return None
    return pairs


def read_segments(text: str) -> list[Pair] | None:
    """Return the segments of the one answer of ``text``, or ``None`` if there is none that can be matched.

    Each tag of the answer must stand there once; all items must be readable, with ``0 <= start < end`` (the end may be
    infinite). What stands around the answer does not matter.
    """
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return None
    blocks = answer_blocks(text)
    pairs = read_items(blocks[0]) if blocks else None
    if pairs is None or not all(start >= 0 and end >= 0 and start < end for start, end in pairs):
        return None
    return pairs


def score_format(
    text: str,
    *,
    timestamps: bool,
    match: Match = "pattern",
    max_mentions: int = 10,
    unreadable: float = 0.2,
    unnamed: float = 0.6,
    require_segment: bool = False,
) -> float:
    """Return the format reward of a reply (``_reward_format`` of the release): 0, ``unreadable``, ``unnamed`` or 1.

    0 where the form is not ``<think>...</think><answer>...</answer>``; ``unreadable`` where an item of the answer is.

    Args:
        text: The reply.
        timestamps: Whether each start and end must be named in the thought, else the score is ``unnamed``.
        match: What naming is: ``pattern`` as the release has it, ``number`` = an equal number of the thought.
        max_mentions: A time that is named more often than this counts as not named.
        unreadable: Score of an answer that cannot be read, in [0, 1].
        unnamed: Score of an answer whose times are not all named, in [0, 1].
        require_segment: Whether an answer without segments counts as unreadable. In the release it has 1.

    Raises:
        ConfigError: ``unreadable`` or ``unnamed`` is out of range.
    """
    check_constant("unreadable", unreadable)
    check_constant("unnamed", unnamed)
    blocks = split_think_answer(text)
    if blocks is None:
        return 0.0
    thought, inside = blocks
    pairs = read_items(inside)
    if pairs is None or (require_segment and not pairs):
        return unreadable
    if timestamps:
        mentions = _COUNTS[match](thought, (time for pair in pairs for time in pair))
        if not all(1 <= number <= max_mentions for number in mentions.values()):
            return unnamed
    return 1.0


def score_global(
    text: str, truth: Any, *, measure: Measure = "f1", merge_truth: bool = False, guard: bool = True
) -> float:
    """Return how well predicted and true time overlap in all (``reward_global_matching``); 0 if it cannot be said.

    Predictions that overlap or touch are merged. With I the summed overlap of all pairs, P = I / (predicted + 1e-6),
    R = I / (true + 1e-6), the score is 2PR / (P + R + 1e-6); a perfect one is 0.9999994.

    Args:
        text: The reply.
        truth: Pairs (start, end) in seconds, unmended. Flat integers ``[start, end]`` are one pair, as in the release.
        measure: ``f1`` as above; ``iou``: overlap of the two unions over their union, which merges the truth too.
        merge_truth: Whether true segments that overlap are merged before an ``f1``. They are not in the release, so
            that the score may reach 2; a reversed one gives any number.
        guard: Whether a score that is not finite is 0.
    """
    predicted = read_segments(text)
    if predicted is None:
        return 0.0
    score_of = {"f1": _global_f1, "iou": _global_iou}[measure]
    try:
        score = score_of(predicted, [truth] if isinstance(truth[0], int) else truth, merge_truth)
    except _UNSCORABLE:
        return 0.0
    return score if math.isfinite(score) or not guard else 0.0


def _global_iou(predicted: list[Pair], truth: Any, merge_truth: bool) -> float:
    # A union is merged either way.
    return set_iou(predicted, [(pair[0], pair[1]) for pair in truth])


def _global_f1(predicted: list[Pair], truth: Any, merge_truth: bool) -> float:
    if merge_truth:
        truth = merge_spans([(pair[0], pair[1]) for pair in truth])
    merged = _merge(predicted)
    all_true = sum(pair[1] - pair[0] for pair in truth)
    all_predicted = sum(end - start for start, end in merged)
    common = 0.0
    for pair in truth:
        for start, end in merged:
            common += max(0, min(end, pair[1]) - max(start, pair[0]))
    precision, recall = common / (all_predicted + EPSILON), common / (all_true + EPSILON)
    return 2 * precision * recall / (precision + recall + EPSILON)


def _merge(pairs: list[Pair]) -> list[Pair]:
    """Union of pairs; unlike ``merge_spans`` it keeps an end that is infinite, as the release does."""
    merged: list[Pair] = []
    for start, end in sorted(pairs):
        if merged and merged[-1][1] >= start:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def score_local(text: str, truth: Any, *, pairing: Pairing = "order", guard: bool = True) -> float:
    """Return the mean likeness of paired segments (``reward_local_matching``); 0 if it cannot be said.

    Likeness is (1 + GIoU) / 2: 1 for the same segment, 1/3 for 0-10 beside 20-30. The shorter list is padded with
    ``FAR_AWAY``, so a segment without partner adds about 5e-9.

    Args:
        text: The reply.
        truth: Pairs (start, end) in seconds, unmended.
        pairing: ``order``: the k-th of the answer with the k-th of the truth; ``sorted``: both by start first;
            ``best``: one to one with the largest sum, where a segment without partner adds 0.
        guard: Whether a score that is not finite is 0.
    """
    predicted = read_segments(text)
    if predicted is None:
        return 0.0
    score_of = {"order": _local_in_order, "sorted": _local_sorted, "best": _local_best}[pairing]
    try:
        score = score_of(predicted, list(truth))
    except _UNSCORABLE:
        return 0.0
    return score if math.isfinite(score) or not guard else 0.0


def _local_in_order(predicted: list[Pair], truth: list[Any]) -> float:
    length = max(len(predicted), len(truth))
    truth = truth + [FAR_AWAY] * (length - len(truth))
    predicted = predicted + [FAR_AWAY] * (length - len(predicted))
    return sum(_likeness(one, two) for one, two in zip(truth, predicted, strict=True)) / length


def _local_sorted(predicted: list[Pair], truth: list[Any]) -> float:
    return _local_in_order(sorted(predicted), sorted(truth))


def _local_best(predicted: list[Pair], truth: list[Any]) -> float:
    scores = np.array([[_likeness(one, two) for two in predicted] for one in truth], dtype=np.float64)
    scores = scores.reshape(len(truth), len(predicted))
    if not np.isfinite(scores).all():
        return math.nan
    return math.fsum(scores[pair] for pair in match_best(scores)) / max(scores.shape)


def _likeness(true: Sequence[float], predicted: Sequence[float]) -> float:
    """(1 + GIoU) / 2 in the release's order of operations, so that a reversed or empty truth has its score."""
    common = max(0, min(true[1], predicted[1]) - max(true[0], predicted[0]))
    union = true[1] - true[0] + predicted[1] - predicted[0] - common
    hull = max(true[1], predicted[1]) - min(true[0], predicted[0])
    return (1 + common / union - (hull - union) / hull) / 2


def score_segments(
    text: str,
    truth: Any,
    *,
    measure: Measure = "f1",
    merge_truth: bool = False,
    pairing: Pairing = "order",
    guard: bool = True,
) -> float:
    """Return global + local matching (``reward_segment_matching``); options as in ``score_global``, ``score_local``."""
    whole = score_global(text, truth, measure=measure, merge_truth=merge_truth, guard=guard)
    return whole + score_local(text, truth, pairing=pairing, guard=guard)


def format_with_timestamp(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    match: Match = "pattern",
    max_mentions: int = 10,
    unreadable: float = 0.2,
    unnamed: float = 0.6,
    require_segment: bool = False,
) -> float | None:
    """Return the first phase's format reward of the final reply, in [0, 1]; ``None`` where no segment is asked for.

    Constants as in ``score_format``.
    """
    text = _reply(trajectory)
    return None if text is None else score_format(
        text, timestamps=True, match=match, max_mentions=max_mentions, unreadable=unreadable, unnamed=unnamed,
        require_segment=require_segment,
    )  # fmt: skip


def format_without_timestamp(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    unreadable: float = 0.2,
    require_segment: bool = False,
) -> float | None:
    """Return the second phase's format reward of the final reply, in [0, 1]; ``None`` where no segment is asked for.

    Constants as in ``score_format``.
    """
    text = _reply(trajectory)
    return None if text is None else score_format(
        text, timestamps=False, unreadable=unreadable, require_segment=require_segment
    )  # fmt: skip


def format_by_phase(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    first_phase: float = FIRST_PHASE,
    match: Match = "pattern",
    max_mentions: int = 10,
    unreadable: float = 0.2,
    unnamed: float = 0.6,
    require_segment: bool = False,
) -> float | None:
    """Return the format reward of the phase that training is in, in [0, 1]; ``None`` where no segment is asked for.

    Args:
        trajectory: What is scored.
        context: Its ``progress`` says which phase it is.
        first_phase: Share of training with timestamps: before it ``format_with_timestamp``, from it on without.
        match: This and the rest as in ``score_format``.
        max_mentions: Only the first phase looks at it.
        unreadable: Both phases do.
        unnamed: Only the first phase.
        require_segment: Both phases.
    """
    text = _reply(trajectory)
    return None if text is None else score_format(
        text, timestamps=context.progress < first_phase, match=match, max_mentions=max_mentions,
        unreadable=unreadable, unnamed=unnamed, require_segment=require_segment,
    )  # fmt: skip


def global_matching(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    measure: Measure = "f1",
    merge_truth: bool = False,
) -> float | None:
    """Return the global matching of the final reply, in [0, 2]; ``None`` without true segments.

    Above 1 only where true segments overlap and are not merged. Constants as in ``score_global``.
    """
    scored = _reply_and_truth(trajectory)
    return None if scored is None else _between(
        score_global(*scored, measure=measure, merge_truth=merge_truth), 2.0
    )  # fmt: skip


def local_matching(
    trajectory: Trajectory, context: Context, /, *, pairing: Pairing = "order"
) -> float | None:
    """Return the local matching of the final reply, in [0, 1]; ``None`` without true segments.

    Constants as in ``score_local``.
    """
    scored = _reply_and_truth(trajectory)
    return None if scored is None else _between(score_local(*scored, pairing=pairing), 1.0)


def segment_matching(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    measure: Measure = "f1",
    merge_truth: bool = False,
    pairing: Pairing = "order",
) -> float | None:
    """Return global + local matching of the final reply, in [0, 3]; ``None`` without true segments.

    Above 2 only where true segments overlap and are not merged. Constants as in ``score_global``, ``score_local``.
    """
    scored = _reply_and_truth(trajectory)
    return None if scored is None else _between(
        score_segments(*scored, measure=measure, merge_truth=merge_truth, pairing=pairing), 3.0
    )  # fmt: skip


MUSEG_PARTS: dict[str, tuple[Part, tuple[float, float]]] = {
    "format_with_timestamp": (format_with_timestamp, (0.0, 1.0)),
    "format_without_timestamp": (format_without_timestamp, (0.0, 1.0)),
    "format_by_phase": (format_by_phase, (0.0, 1.0)),
    "global_matching": (global_matching, (0.0, 2.0)),
    "local_matching": (local_matching, (0.0, 1.0)),
    "segment_matching": (segment_matching, (0.0, 3.0)),
}
"""Name to the part and the range of its scores."""


def _reply(trajectory: Trajectory) -> str | None:
    """The reply, or ``None`` where the question asks for something else than segments."""
    return final_reply(trajectory) if trajectory.example.task in TASKS else None


def _reply_and_truth(trajectory: Trajectory) -> tuple[str, list[Pair]] | None:
    text = _reply(trajectory)
    if text is None or not trajectory.example.segments:
        return None
    truth = sorted((segment.start_seconds, segment.end_seconds) for segment in trajectory.example.segments)
    return text, truth


def _between(score: float, high: float) -> float:
    """Take off what rounding adds."""
    return min(max(score, 0.0), high)
