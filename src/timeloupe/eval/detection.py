"""Figures of found segments and ranked clips: average precision, the first window's overlap, hits at one. Pure.

Windows are (start, end) in seconds as they were written: official scripts do not mend them, so neither does this. The
overlap here is the intersection over the sum of both lengths less the intersection; a reversed window has a negative
length, and two windows of no length give NaN, which counts as reaching every threshold, as it does in the scripts. Only
``segment_f1`` is none of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timeloupe.eval.scoring import Window
from timeloupe.grounding import Span, match_best, tiou_matrix

ScoredWindow = tuple[float, float, float]
"""Start, end and score; a higher score stands first."""

Floats = NDArray[np.floating[Any]]


def overlap_table(ones: Floats, twos: Floats) -> Floats:
    """Return the overlap of every pair: (..., N, 2) and (..., M, 2) -> (..., N, M) in the dtype of the inputs."""
    left = np.maximum(ones[..., :, None, 0], twos[..., None, :, 0])
    right = np.minimum(ones[..., :, None, 1], twos[..., None, :, 1])
    common = np.maximum(right - left, 0)
    lengths_one, lengths_two = ones[..., 1] - ones[..., 0], twos[..., 1] - twos[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return common / (lengths_one[..., :, None] + lengths_two[..., None, :] - common)


def average_precisions(
    truths: Sequence[Sequence[Window]],
    predictions: Sequence[Sequence[ScoredWindow]],
    thresholds: Sequence[float],
) -> NDArray[np.float64]:
    """Return the average precision of each question at each threshold: (questions, thresholds), in [0, 1].

    Pascal VOC 2011 (Everingham and Winn, development kit, section 3.4.1) in one dimension, as in
    jayleicn/moment_detr@b7e553ac standalone_eval/utils.py: windows in the order of falling score (equal scores keep
    their order) take the free true window that they overlap most, if they reach the threshold; precision is made
    monotone from the right and summed over the steps of recall. A question without answers has 0, one with answers
    and no true window has NaN.

    Deviation: 1. of true windows with equal overlap the last one is taken; the script leaves that to its sort.
    """
    num_questions, levels = len(truths), np.asarray(thresholds, dtype=np.float64)
    most = max((len(windows) for windows in predictions), default=0)
    if not most:
        return np.zeros((num_questions, len(levels)))
    ranked = [sorted(windows, key=lambda window: -window[2]) for windows in predictions]
    answers, answered = _padded([[window[:2] for window in windows] for windows in ranked])
    true, labelled = _padded(truths)
    overlaps = overlap_table(answers, true)
    overlaps = np.where(labelled[:, None, :], overlaps, -np.inf)
    hits = _matched(overlaps, answered, levels)
    counts = labelled.sum(axis=1)
    found = np.cumsum(hits, axis=2)
    precision = found / np.arange(1, most + 1)
    envelope = _best_from(precision, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = found / counts[:, None, None]
    steps = np.diff(recall, axis=2, prepend=0.0)
    areas = np.sum(steps * envelope, axis=2)
    return np.where(answered.any(axis=1, keepdims=True), areas, 0.0)


def first_window_overlaps(
    firsts: Sequence[Window], truths: Sequence[Sequence[Window]]
) -> NDArray[np.float64]:
    """Return the overlap of each question's first window with the true window that it overlaps most: (questions,).

    The true window is chosen by ``overlap_table`` (the first of equal ones, a NaN before all), but the value is the
    intersection over the hull of the two, 0 where the hull has no length. Source: jayleicn/moment_detr@b7e553ac
    standalone_eval/eval.py compute_mr_r1, which ReXTime took over.

    Args:
        firsts: One per question.
        truths: At least one window per question.
    """
    true, labelled = _padded(truths)
    answers = np.array([[window] for window in firsts], dtype=np.float64).reshape(-1, 1, 2)
    overlaps = np.where(labelled, overlap_table(answers, true)[:, 0], -np.inf)
    chosen = true[np.arange(len(true)), np.argmax(overlaps, axis=1)]
    answer = answers[:, 0]
    common = np.maximum(0, np.minimum(answer[:, 1], chosen[:, 1]) - np.maximum(answer[:, 0], chosen[:, 0]))
    hull = np.maximum(answer[:, 1], chosen[:, 1]) - np.minimum(answer[:, 0], chosen[:, 0])
    return np.divide(common, hull, out=np.zeros_like(common), where=hull != 0)


def segment_f1(answer: Sequence[Span], truth: Sequence[Span], levels: Sequence[float]) -> dict[float, float]:
    """Return the F1 of found segments at each level of IoU, in [0, 1]; 0 where nothing is named or true.

    Segments are paired one to one so that the pairs' total IoU is greatest, and a pair with IoU >= level is a hit:
    F1 = 2 hits / (named + true). Official scripts differ: there one segment may hit many (``scripts.grounding``).
    """
    table = tiou_matrix(answer, truth)
    overlaps = [float(table[one, two]) for one, two in match_best(table)]
    count = max(len(answer) + len(truth), 1)
    return {level: 2 * sum(overlap >= level for overlap in overlaps) / count for level in levels}


def ranked_average_precisions(labels: NDArray[np.bool_], scores: Floats) -> NDArray[np.float64]:
    """Return the average precision of one ranking against each of several labellings: (labellings,), in [0, 1].

    The mean, over the numbers of positives that some threshold on the score finds, of the greatest precision at that
    recall or more; clips of equal score are found together. 0 where no clip is positive, 1 where all are. Source:
    jayleicn/moment_detr@b7e553ac standalone_eval/utils.py get_ap.

    Args:
        labels: (clips, labellings).
        scores: (clips,); only their order counts.

    Raises:
        ValueError: A score is not finite where a ranking is needed, or there is no clip.
    """
    num_clips = len(labels)
    if not num_clips:
        raise ValueError("a ranking needs at least one clip, got none")
    positives = labels.sum(axis=0)
    mixed = (positives > 0) & (positives < num_clips)
    plain = np.where(positives > 0, 1.0, 0.0)
    if not mixed.any():
        return plain
    if not np.isfinite(scores).all():
        raise ValueError("scores of a ranking must be finite")
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), num_clips - 1)
    found = np.cumsum(labels[order], axis=0)[ends]
    precision = found / (ends + 1)[:, None]
    envelope = _best_from(precision, axis=0)
    rises = np.diff(found, axis=0, prepend=0) > 0
    means = (envelope * rises).sum(axis=0) / np.maximum(rises.sum(axis=0), 1)
    return np.where(mixed, means, plain)


def hits_at_one(labels: NDArray[np.bool_], scores: Floats) -> NDArray[np.bool_]:
    """Return whether the clip with the highest score is positive, by labelling; beyond the labelled clips it is not.

    Args:
        labels: (clips, labellings).
        scores: (any number,), at least one; of equal scores the first counts.
    """
    best = int(np.argmax(scores))
    return labels[best] if best < len(labels) else np.zeros(labels.shape[1], dtype=bool)


def _best_from(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Return the greatest value from each place on to the end."""
    return np.flip(np.maximum.accumulate(np.flip(values, axis), axis=axis), axis)


def _padded(lists: Sequence[Sequence[Sequence[float]]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return windows as (questions, most windows of one, 2), and which of them there are."""
    most = max((len(windows) for windows in lists), default=0)
    table = np.zeros((len(lists), most, 2))
    there = np.zeros((len(lists), most), dtype=bool)
    for at, windows in enumerate(lists):
        if windows:
            table[at, : len(windows)] = windows
            there[at, : len(windows)] = True
    return table, there


def _matched(
    overlaps: NDArray[Any], answered: NDArray[np.bool_], levels: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return which answers take a true window: (questions, thresholds, answers).

    All questions and thresholds go side by side; only places in the two rankings are walked.
    """
    num_questions, num_answers, num_true = overlaps.shape
    # NaN sorts last, so it comes first here, and is below no threshold.
    order = np.argsort(overlaps, axis=2, kind="stable")[:, :, ::-1]
    taken = np.zeros((num_questions, len(levels), num_true), dtype=bool)
    hits = np.zeros((num_questions, len(levels), num_answers), dtype=bool)
    every = np.arange(num_questions)
    for answer in range(num_answers):
        seeking = np.repeat(answered[:, answer, None], len(levels), axis=1)
        for rank in range(num_true):
            true = order[:, answer, rank]
            seeking &= ~(overlaps[every, answer, true][:, None] < levels)
            if not seeking.any():
                break
            now = seeking & ~taken[every, :, true]
            taken[every, :, true] |= now
            hits[:, :, answer] |= now
            seeking &= ~now
    return hits
