"""Overlap, merging, matching and coordinates: golden values, and properties that hold for any spans."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.grounding import (
    FRACTIONS,
    THOUSANDTHS,
    Span,
    box_iou,
    giou,
    match_best,
    match_in_order,
    merge_spans,
    overlap_seconds,
    rescale_box,
    set_iou,
    tiou,
    tiou_matrix,
    union_seconds,
)
from timeloupe.trajectory import Box, Segment

seconds = st.integers(0, 4000).map(lambda quarters: quarters / 4)
spans = st.tuples(seconds, seconds).filter(lambda pair: pair[0] < pair[1])
span_lists = st.lists(spans, max_size=6)
anything = st.tuples(st.floats(), st.floats())

NO_TIME = [(5.0, 5.0), (9.0, 2.0), (0.0, math.inf), (math.nan, 3.0), (-math.inf, 3.0)]


@pytest.mark.parametrize(
    ("one", "two", "iou"),
    [
        ((0, 10), (0, 10), 1.0),
        ((0, 10), (5, 15), 1 / 3),
        ((0, 10), (2, 4), 0.2),
        ((0, 10), (10, 20), 0.0),  # half-open: they touch and share nothing
        ((0, 10), (20, 30), 0.0),
        ((68, 97), (68, 105), 29 / 37),
    ],
)
def test_tiou(one: Span, two: Span, iou: float) -> None:
    assert tiou(one, two) == pytest.approx(iou)


def test_segments_and_pairs_are_the_same() -> None:
    assert tiou(Segment(start_seconds=0, end_seconds=10), (5.0, 15.0)) == tiou((0.0, 10.0), (5.0, 15.0))


@pytest.mark.parametrize("span", NO_TIME)
def test_what_covers_no_time_overlaps_nothing(span: Span) -> None:
    for other in ((0.0, 10.0), span):
        assert (
            tiou(span, other)
            == tiou(other, span)
            == overlap_seconds(span, other)
            == set_iou([span], [other])
            == 0
        )
        assert giou(span, other) == -1
    assert merge_spans([span]) == ()


@given(one=anything, two=anything)
def test_any_floats_give_a_figure(one: Span, two: Span) -> None:
    assert 0 <= tiou(one, two) <= 1
    assert -1 <= giou(one, two) <= 1


@given(one=spans, two=spans)
def test_tiou_is_symmetric_and_one_only_for_equals(
    one: tuple[float, float], two: tuple[float, float]
) -> None:
    assert tiou(one, two) == tiou(two, one)
    assert (tiou(one, two) == 1) == (one == two)
    assert (tiou(one, two) > 0) == (overlap_seconds(one, two) > 0)


@given(one=spans, two=spans, shift=st.integers(0, 500))
def test_tiou_does_not_move_with_the_clock(
    one: tuple[float, float], two: tuple[float, float], shift: int
) -> None:
    later = [(start + shift, end + shift) for start, end in (one, two)]
    assert tiou(*later) == pytest.approx(tiou(one, two))
    doubled = [(2 * start, 2 * end) for start, end in (one, two)]
    assert tiou(*doubled) == pytest.approx(tiou(one, two))


@given(one=spans, two=spans)
def test_giou_against_its_definition(one: tuple[float, float], two: tuple[float, float]) -> None:
    hull = max(one[1], two[1]) - min(one[0], two[0])
    union = union_seconds([one, two])
    assert giou(one, two) == pytest.approx(overlap_seconds(one, two) / union - (hull - union) / hull)
    assert -1 < giou(one, two) <= tiou(one, two)


def test_merging() -> None:
    assert merge_spans([(5, 7), (0, 2), (2, 3), (6, 9), (1, 1)]) == ((0, 3), (5, 9))
    assert union_seconds([(5, 7), (0, 2), (2, 3), (6, 9)]) == 7
    assert merge_spans([]) == () and union_seconds([]) == 0


@given(some=span_lists)
def test_merged_spans_are_disjoint_and_cover_the_same(some: list[tuple[float, float]]) -> None:
    merged = merge_spans(some)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(merged))
    for quarter in range(4001):
        time = quarter / 4 + 0.125
        inside = any(start <= time < end for start, end in some)
        if inside != any(start <= time < end for start, end in merged):
            raise AssertionError(time)
    assert merge_spans(merged) == merged


@given(ones=span_lists, twos=span_lists)
def test_set_iou_counts_time_once(ones: list[tuple[float, float]], twos: list[tuple[float, float]]) -> None:
    def cells(some: list[tuple[float, float]]) -> set[int]:
        return {cell for start, end in some for cell in range(int(4 * start), int(4 * end))}

    common, union = cells(ones) & cells(twos), cells(ones) | cells(twos)
    assert set_iou(ones, twos) == pytest.approx(len(common) / len(union) if union else 0.0)
    assert set_iou(ones + ones, twos) == set_iou(ones, twos)


def test_the_matrix_has_one_row_per_first() -> None:
    table = tiou_matrix([(0, 10), (5, 15), (50, 60)], [(0, 10), (50, 55)])
    assert table == pytest.approx(np.array([[1, 0], [1 / 3, 0], [0, 0.5]]))
    assert tiou_matrix([], [(0, 1)]).shape == (0, 1) and tiou_matrix([(0, 1)], []).shape == (1, 0)


def test_matching_in_order_is_greedy_and_the_best_is_not() -> None:
    scores = np.array([[0.9, 0.8], [0.85, 0.0]])
    assert match_in_order(scores) == ((0, 0),)
    assert match_best(scores) == ((0, 1), (1, 0))


def best_by_trial(scores: np.ndarray) -> float:
    """The largest sum of any matching, by trying all."""
    small, large = sorted(scores.shape)
    table = scores if scores.shape[0] <= scores.shape[1] else scores.T
    return max(
        sum(max(0.0, table[row, column]) for row, column in enumerate(columns))
        for columns in itertools.permutations(range(large), small)
    )


@settings(max_examples=150)
@given(data=st.data(), rows=st.integers(0, 5), columns=st.integers(0, 5))
def test_matchings(data: st.DataObject, rows: int, columns: int) -> None:
    values = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([0.0, 0.5, 1.0]))
    flat = data.draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    scores = np.array(flat, dtype=np.float64).reshape(rows, columns)
    for match in (match_best, match_in_order):
        pairs = match(scores)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        assert all(scores[pair] > 0 for pair in pairs)
        assert list(pairs) == sorted(pairs)
    best = sum(scores[pair] for pair in match_best(scores))
    assert best == pytest.approx(best_by_trial(scores))
    assert sum(scores[pair] for pair in match_in_order(scores)) <= best + 1e-9


def test_many_predictions_match_quickly() -> None:
    table = np.random.default_rng(0).random((2000, 20))
    assert len(match_best(table)) == 20


def test_box_iou() -> None:
    assert box_iou((0, 0, 10, 10), (5, 5, 15, 15)) == pytest.approx(25 / 175)
    assert box_iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    box = Box(at_seconds=3, x1=0.25, y1=0.25, x2=0.5, y2=0.75)
    assert box_iou(box, (0.25, 0.25, 0.5, 0.5)) == pytest.approx(0.5)
    for nothing in ((1, 1, 1, 5), (5, 5, 1, 1), (0, 0, math.inf, 1), (math.nan, 0, 1, 1)):
        assert box_iou(nothing, nothing) == box_iou(nothing, (0, 0, 10, 10)) == 0


sides = st.tuples(st.integers(0, 99), st.integers(1, 100)).map(
    lambda side: (side[0], max(side[1], side[0] + 1))
)
boxes = st.tuples(sides, sides).map(lambda both: (both[0][0], both[1][0], both[0][1], both[1][1]))


@given(one=boxes, two=boxes)
def test_box_iou_by_counting_cells(one: tuple[int, int, int, int], two: tuple[int, int, int, int]) -> None:
    masks = np.zeros((2, 100, 100), dtype=bool)
    for mask, (x1, y1, x2, y2) in zip(masks, (one, two), strict=True):
        mask[y1:y2, x1:x2] = True
    wanted = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    assert box_iou(one, two) == pytest.approx(wanted) == pytest.approx(box_iou(two, one))


def test_coordinates() -> None:
    assert rescale_box((0.25, 0.5, 0.5, 1.0), FRACTIONS, (640, 480)) == (160, 240, 320, 480)
    assert rescale_box((160, 240, 320, 480), (640, 480), THOUSANDTHS) == (250, 500, 500, 1000)
    assert rescale_box((250, 500, 500, 1000), THOUSANDTHS, FRACTIONS) == (0.25, 0.5, 0.5, 1.0)
    with pytest.raises(ValueError, match="positive"):
        rescale_box((0, 0, 1, 1), (0, 480), FRACTIONS)


@given(one=boxes, two=boxes, size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)))
def test_coordinates_go_there_and_back_and_keep_the_iou(
    one: tuple[int, int, int, int], two: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    there = rescale_box(one, (100, 100), size)
    assert rescale_box(there, size, (100, 100)) == pytest.approx(one)
    assert box_iou(there, rescale_box(two, (100, 100), size)) == pytest.approx(box_iou(one, two))
