"""Average precision of windows and rankings, beside the textbook's loops and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.eval.detection import (
    ScoredWindow,
    average_precisions,
    first_window_overlaps,
    hits_at_one,
    ranked_average_precisions,
    segment_f1,
)
from timeloupe.eval.scoring import Window

LEVELS = (0.5, 0.75, 0.95)

times = st.floats(0, 100)
spans = st.tuples(times, st.floats(0.5, 30)).map(lambda pair: (pair[0], pair[0] + pair[1]))
scored = st.tuples(spans, st.floats(-5, 5)).map(lambda pair: (*pair[0], pair[1]))
questions = st.lists(
    st.tuples(st.lists(spans, min_size=1, max_size=5), st.lists(scored, max_size=7)), min_size=1, max_size=4
)


def by_loops(truth: list[Window], answers: list[ScoredWindow], level: float) -> float:
    """VOC average precision of one question, one step after the other; equal overlaps are not expected."""
    free = list(range(len(truth)))
    found, curve = 0, [(0.0, 0.0)]
    for place, (start, end, _) in enumerate(sorted(answers, key=lambda answer: -answer[2]), 1):
        ious = []
        for one in free:
            common = max(0.0, min(end, truth[one][1]) - max(start, truth[one][0]))
            ious.append((common / (end - start + truth[one][1] - truth[one][0] - common), one))
        best = max(ious, default=(0.0, -1))
        if best[0] >= level:
            free.remove(best[1])
            found += 1
        curve.append((found / len(truth), found / place))
    steps = zip(curve, curve[1:], strict=False)
    return sum(
        (new - old) * max(precision for recall, precision in curve if recall >= new)
        for (old, _), (new, _) in steps
        if new > old
    )


@given(questions)
def test_all_questions_at_once_are_the_loops_one_by_one(
    some: list[tuple[list[Window], list[ScoredWindow]]],
) -> None:
    table = average_precisions([truth for truth, _ in some], [answers for _, answers in some], LEVELS)
    assert table.shape == (len(some), len(LEVELS))
    for row, (truth, answers) in zip(table, some, strict=True):
        wanted = [by_loops(truth, answers, level) for level in LEVELS]
        assert row == pytest.approx(wanted, abs=1e-12)


def test_average_precision_by_hand() -> None:
    truth = [(0.0, 10.0), (20.0, 30.0)]
    # Right, wrong, right again: recall 1/2 at precision 1, recall 1 at precision 2/3.
    answers = [(20.0, 30.0, 0.1), (0.0, 10.0, 0.9), (50.0, 60.0, 0.5)]
    assert average_precisions([truth], [answers], [0.5])[0, 0] == pytest.approx(0.5 + 0.5 * 2 / 3)
    twice = [(0.0, 10.0, 0.9), (0.0, 10.0, 0.8), (20.0, 30.0, 0.7)]
    assert average_precisions([truth], [twice], [0.5])[0, 0] == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert average_precisions([truth], [[]], [0.5])[0, 0] == 0
    assert average_precisions([truth, truth], [[], answers], [0.5])[0, 0] == 0


def test_the_threshold_itself_is_reached_and_equal_scores_keep_their_order() -> None:
    truth = [(0.0, 10.0)]
    assert average_precisions([truth], [[(0.0, 5.0, 1.0)]], [0.5])[0, 0] == 1
    first_right = [(0.0, 10.0, 0.5), (50.0, 60.0, 0.5)]
    assert average_precisions([truth], [first_right], [0.5])[0, 0] == 1
    assert average_precisions([truth], [first_right[::-1]], [0.5])[0, 0] == 0.5


def test_one_window_on_two_equal_truths_takes_the_last() -> None:
    truth = [(0.0, 1.0), (1.0, 2.0)]
    then_first, then_last = [(0.0, 2.0, 0.9), (0.0, 1.0, 0.8)], [(0.0, 2.0, 0.9), (1.0, 2.0, 0.8)]
    assert average_precisions([truth], [then_first], [0.5])[0, 0] == 1
    assert average_precisions([truth], [then_last], [0.5])[0, 0] == 0.5


def test_windows_that_cover_nothing() -> None:
    on_nothing = average_precisions([[(5.0, 5.0)]], [[(5.0, 5.0, 1.0)]], LEVELS)
    assert on_nothing.tolist() == [[1.0, 1.0, 1.0]]  # 0/0 is below no threshold, as in the script
    reversed_one = average_precisions([[(0.0, 10.0)]], [[(9.0, 1.0, 1.0)]], LEVELS)
    assert reversed_one.tolist() == [[0.0, 0.0, 0.0]]
    assert math.isnan(average_precisions([[]], [[(0.0, 1.0, 1.0)]], [0.5])[0, 0])
    assert average_precisions([[]], [[]], [0.5]).tolist() == [[0.0]]
    assert average_precisions([], [], [0.5]).shape == (0, 1)


@given(questions)
def test_average_precision_is_a_share_and_falls_with_the_threshold(
    some: list[tuple[list[Window], list[ScoredWindow]]],
) -> None:
    table = average_precisions([truth for truth, _ in some], [answers for _, answers in some], LEVELS)
    assert ((table >= 0) & (table <= 1 + 1e-12)).all()
    perfect = average_precisions(
        [truth for truth, _ in some], [[(*one, 1.0) for one in truth] for truth, _ in some], [1e-9]
    )
    assert (perfect > 0).all()


def test_the_first_window_is_compared_with_the_truth_that_it_overlaps_most_over_the_hull() -> None:
    truths = [[(0.0, 2.0), (8.0, 20.0)], [(50.0, 60.0)], [(3.0, 3.0)], [(0.0, 10.0)]]
    firsts = [(8.0, 14.0), (0.0, 10.0), (3.0, 3.0), (8.0, 2.0)]
    # Apart: no overlap. No length on no length: the hull is 0. Reversed: no overlap.
    assert first_window_overlaps(firsts, truths).tolist() == [0.5, 0.0, 0.0, 0.0]


def ranked_by_sets(labels: list[bool], scores: list[float]) -> float:
    """Mean over the reachable numbers of positives of the best precision with as many or more."""
    points = []
    for level in set(scores):
        chosen = [label for label, score in zip(labels, scores, strict=True) if score >= level]
        points.append((sum(chosen), sum(chosen) / len(chosen)))
    counts = {count for count, _ in points if count}
    return sum(max(best for count, best in points if count >= one) for one in counts) / len(counts)


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=12))
def test_a_ranking_is_scored_by_all_its_thresholds(clips: list[tuple[bool, int]]) -> None:
    labels, scores = [label for label, _ in clips], [float(score) for _, score in clips]
    got = ranked_average_precisions(np.array(labels)[:, None], np.array(scores))[0]
    if all(labels) or not any(labels):
        assert got == float(all(labels))
    else:
        assert got == pytest.approx(ranked_by_sets(labels, scores))
        assert 0 < got <= 1


def test_rankings_of_several_labellings_at_once_and_what_cannot_be_ranked() -> None:
    labels = np.array([[True, False, True], [False, False, True], [True, False, True]])
    got = ranked_average_precisions(labels, np.array([0.9, 0.8, 0.7]))
    assert got.tolist() == pytest.approx([(1 + 2 / 3) / 2, 0.0, 1.0])
    with pytest.raises(ValueError, match="finite"):
        ranked_average_precisions(labels, np.array([0.9, math.nan, 0.7]))
    assert ranked_average_precisions(labels[:, 1:], np.array([math.nan] * 3)).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="at least one clip"):
        ranked_average_precisions(np.zeros((0, 3), dtype=bool), np.array([]))


def test_the_best_clip_hits_or_lies_beyond_the_labels() -> None:
    labels = np.array([[True, False], [False, True]])
    assert hits_at_one(labels, np.array([1.0, 1.0])).tolist() == [True, False]
    assert hits_at_one(labels, np.array([0.0, 0.0, 9.0])).tolist() == [False, False]


SEGMENTS = st.lists(
    st.tuples(st.floats(0, 50), st.floats(0.1, 20)).map(lambda pair: (pair[0], sum(pair))), max_size=5
)


@given(SEGMENTS, SEGMENTS)
def test_f1_of_segments_is_fair_and_falls_with_the_level(answer: list, truth: list) -> None:
    found = segment_f1(answer, truth, (0.1, 0.5, 1.0))
    assert 0 <= found[1.0] <= found[0.5] <= found[0.1] <= 1
    assert segment_f1(truth, truth, (1.0,))[1.0] == (1.0 if truth else 0.0)


def test_one_segment_hits_one_true_one() -> None:
    truth = [(0.0, 10.0), (10.0, 20.0)]
    assert segment_f1([(0.0, 20.0)], truth, (0.5,)) == {0.5: pytest.approx(2 / 3)}
    assert segment_f1([(0.0, 10.0)] * 2, truth, (0.5,)) == {0.5: 0.5}
    assert segment_f1([], [], (0.5,)) == {0.5: 0.0}
