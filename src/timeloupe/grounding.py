"""Geometry of time and space: overlap of spans and boxes, matching, changes of coordinates. Pure functions.

A span is a ``Segment`` or a pair ``(start, end)`` in seconds. A pair that a model wrote may be anything: one that is
reversed, empty or not finite covers no time and overlaps nothing.

A box is a ``Box`` or ``(x1, y1, x2, y2)``; both of a call must be in the same coordinates, and a reversed, empty or
non-finite one covers nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from timeloupe.trajectory import Box, Segment

Span = Segment | tuple[float, float]
Corners = tuple[float, float, float, float]

FRACTIONS = (1.0, 1.0)
"""Width and height of a frame in fractions, the coordinates of records."""

THOUSANDTHS = (1000.0, 1000.0)
"""Width and height of a frame in Qwen3-VL's coordinates."""


def ends(span: Span) -> tuple[float, float] | None:
    """Return start and end in seconds, or ``None`` if the span covers no time."""
    start, end = (span.start_seconds, span.end_seconds) if isinstance(span, Segment) else span
    covers = math.isfinite(start) and math.isfinite(end) and start < end
    return (float(start), float(end)) if covers else None


def overlap_seconds(one: Span, two: Span) -> float:
    """Return how long two spans have in common, >= 0."""
    first, second = ends(one), ends(two)
    if first is None or second is None:
        return 0.0
    return max(0.0, min(first[1], second[1]) - max(first[0], second[0]))


def tiou(one: Span, two: Span) -> float:
    """Return the temporal intersection over union of two spans, in [0, 1]."""
    common = overlap_seconds(one, two)
    first, second = ends(one), ends(two)
    if not common or first is None or second is None:
        return 0.0
    # Spans that overlap have their hull as union; a difference of ends keeps more digits than a sum of lengths.
    return min(1.0, common / (max(first[1], second[1]) - min(first[0], second[0])))


def giou(one: Span, two: Span) -> float:
    """Return the generalized IoU of two spans, in (-1, 1]: the IoU less the share of the hull that neither covers.

    A span that covers no time gives -1. (Rezatofighi et al. 2019, in one dimension.)
    """
    first, second = ends(one), ends(two)
    if first is None or second is None:
        return -1.0
    hull = max(first[1], second[1]) - min(first[0], second[0])
    gap = max(0.0, max(first[0], second[0]) - min(first[1], second[1]))
    return tiou(one, two) - gap / hull


def merge_spans(spans: Sequence[Span]) -> tuple[tuple[float, float], ...]:
    """Return the union of spans as disjoint (start, end) pairs in order; spans that touch become one."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(pair for span in spans if (pair := ends(span)) is not None):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def union_seconds(spans: Sequence[Span]) -> float:
    """Return how long the union of spans is."""
    return math.fsum(end - start for start, end in merge_spans(spans))


def set_iou(ones: Sequence[Span], twos: Sequence[Span]) -> float:
    """Return the IoU of two sets of spans, each taken as the union of its members, in [0, 1]; 0 if both are empty."""
    common = _common_seconds(merge_spans(ones), merge_spans(twos))
    union = union_seconds([*ones, *twos])
    return min(1.0, common / union) if union > 0 else 0.0


def _common_seconds(ones: Sequence[tuple[float, float]], twos: Sequence[tuple[float, float]]) -> float:
    """Overlap of two lists of disjoint spans in order."""
    common: list[float] = []
    one = two = 0
    while one < len(ones) and two < len(twos):
        common.append(overlap_seconds(ones[one], twos[two]))
        if ones[one][1] <= twos[two][1]:
            one += 1
        else:
            two += 1
    return math.fsum(common)


def tiou_matrix(ones: Sequence[Span], twos: Sequence[Span]) -> np.ndarray:
    """Return the IoU of every pair: (len(ones), len(twos)) float64."""
    table = np.array([[tiou(one, two) for two in twos] for one in ones], dtype=np.float64)
    return table.reshape(len(ones), len(twos))


def match_in_order(scores: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return (row, column) pairs: each row in order takes its best free column, if it has one with a score > 0.

    Args:
        scores: (rows, columns); of equal scores the first column is taken.
    """
    free = np.ones(scores.shape[1], dtype=bool)
    pairs: list[tuple[int, int]] = []
    for row in range(scores.shape[0]):
        if not free.any():
            break
        column = int(np.argmax(np.where(free, scores[row], -np.inf)))
        if scores[row, column] > 0:
            free[column] = False
            pairs.append((row, column))
    return tuple(pairs)


def match_best(scores: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return the (row, column) pairs, by row, whose scores have the largest sum; pairs that score <= 0 are left out.

    The Hungarian method with potentials, in O(small side squared x large side).

    Args:
        scores: (rows, columns), finite.
    """
    if scores.shape[0] > scores.shape[1]:
        return tuple(sorted((row, column) for column, row in match_best(scores.T)))
    num_rows, num_columns = scores.shape
    costs = -np.maximum(scores, 0.0)
    # One-based, as the method is usually written: row 0 and column 0 stand for "none yet".
    row_of = np.zeros(num_columns + 1, dtype=np.int64)
    row_price, column_price = np.zeros(num_rows + 1), np.zeros(num_columns + 1)
    for row in range(1, num_rows + 1):
        row_of[0] = row
        column = 0
        slack = np.full(num_columns + 1, np.inf)
        came_from = np.zeros(num_columns + 1, dtype=np.int64)
        done = np.zeros(num_columns + 1, dtype=bool)
        while row_of[column]:
            done[column] = True
            here = row_of[column]
            reduced = costs[here - 1] - row_price[here] - column_price[1:]
            better = ~done[1:] & (reduced < slack[1:])
            slack[1:][better] = reduced[better]
            came_from[1:][better] = column
            following = int(np.argmin(np.where(done, np.inf, slack)))
            step = slack[following]
            row_price[row_of[done]] += step
            column_price[done] -= step
            slack[~done] -= step
            column = following
        while column:
            row_of[column] = row_of[came_from[column]]
            column = int(came_from[column])
    pairs = ((int(row_of[column]) - 1, column - 1) for column in range(1, num_columns + 1) if row_of[column])
    return tuple(sorted(pair for pair in pairs if scores[pair] > 0))


def corners(box: Box | Corners) -> Corners | None:
    """Return (x1, y1, x2, y2), or ``None`` if the box covers nothing."""
    x1, y1, x2, y2 = (box.x1, box.y1, box.x2, box.y2) if isinstance(box, Box) else box
    covers = all(math.isfinite(value) for value in (x1, y1, x2, y2)) and x1 < x2 and y1 < y2
    return (float(x1), float(y1), float(x2), float(y2)) if covers else None


def box_iou(one: Box | Corners, two: Box | Corners) -> float:
    """Return the intersection over union of two boxes in the same coordinates, in [0, 1]. Times are not compared."""
    first, second = corners(one), corners(two)
    if first is None or second is None:
        return 0.0
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (first, second)]
    union = sum(areas) - common
    return min(1.0, common / union) if union > 0 else 0.0


def rescale_box(box: Corners, from_wh: tuple[float, float], to_wh: tuple[float, float]) -> Corners:
    """Return a box in other coordinates of the same frame.

    Args:
        box: (x1, y1, x2, y2) in a frame of ``from_wh``.
        from_wh: Width and height in the present coordinates: ``FRACTIONS``, ``THOUSANDTHS``, or the frame's pixels.
        to_wh: The same in the wanted coordinates.

    Raises:
        ValueError: A size is not positive.
    """
    if min(*from_wh, *to_wh) <= 0:
        raise ValueError(f"frame sizes must be positive, got {from_wh} and {to_wh}")
    (from_width, from_height), (to_width, to_height) = from_wh, to_wh
    x1, y1, x2, y2 = box
    return (
        x1 / from_width * to_width,
        y1 / from_height * to_height,
        x2 / from_width * to_width,
        y2 / from_height * to_height,
    )
