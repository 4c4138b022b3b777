"""Means, recalls and intervals by video."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.errors import ConfigError
from timeloupe.eval.metrics import (
    Interval,
    accuracy,
    bootstrap_interval,
    count_scored,
    mean_tiou,
    paired_bootstrap_difference,
    recall_at,
)

values = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=30)


def test_means() -> None:
    assert mean_tiou([0.0, 0.5, 1.0]) == 0.5
    assert accuracy([True, False, 1.0, 0]) == 0.5


def test_recall_at_the_threshold_itself() -> None:
    """>= is the rule of most official scorers, > that of VideoTemp-o3 and Time-R1."""
    ious = [0.5, 0.49, 0.7, 0.0]
    assert recall_at(ious, 0.5) == 0.5
    assert recall_at(ious, 0.5, strict=True) == 0.25


def test_unscored_is_not_zero() -> None:
    ious = [1.0, None, 0.0, None]
    assert count_scored(ious) == (2, 4)
    assert mean_tiou(ious) == recall_at(ious, 0.3) == accuracy(ious) == 0.5
    assert bootstrap_interval(ious, "abcd", seed=0).num_scored == 2


def test_nothing_scored_has_no_figure() -> None:
    for nothing in ([], [None, None]):
        assert mean_tiou(nothing) is recall_at(nothing, 0.5) is accuracy(nothing) is None
        found = bootstrap_interval(nothing, "ab"[: len(nothing)], seed=0)
        assert found == Interval(None, None, None, 0, len(nothing), 0)
        assert str(found).startswith("- (0 of")


def test_what_is_no_score_is_an_error() -> None:
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="finite"):
            mean_tiou([0.5, wrong])
        with pytest.raises(ValueError, match="finite"):
            bootstrap_interval([0.5, wrong], "ab", seed=0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        mean_tiou([53.0])
    with pytest.raises(ValueError, match="1 or 0"):
        accuracy([0.5])
    with pytest.raises(ConfigError, match="threshold"):
        recall_at([0.5], 50)


@given(values)
def test_recall_falls_with_the_threshold(ious: list[float | None]) -> None:
    recalls = [recall_at(ious, threshold) for threshold in (0.1, 0.3, 0.5, 0.7, 0.9)]
    if recalls[0] is None:
        assert count_scored(ious)[0] == 0
    else:
        known = [recall for recall in recalls if recall is not None]
        assert known == sorted(known, reverse=True) and len(known) == 5
        strict = recall_at(ious, 0.5, strict=True)
        assert strict is not None and strict <= known[2]


@settings(max_examples=50)
@given(values, st.integers(0, 5))
def test_the_interval_holds_its_mean_and_stays_within_the_values(some: list[float | None], seed: int) -> None:
    groups = [index % 4 for index in range(len(some))]
    found = bootstrap_interval(some, groups, seed=seed, num_resamples=200)
    scored = [value for value in some if value is not None]
    assert (found.num_scored, found.num_total) == (len(scored), len(some))
    if found.low is not None and found.high is not None and found.mean is not None:
        assert min(scored) - 1e-9 <= found.low <= found.high <= max(scored) + 1e-9
        assert found.mean == pytest.approx(sum(scored) / len(scored))
    assert found == bootstrap_interval(some, groups, seed=seed, num_resamples=200)


def test_one_video_says_nothing_about_spread() -> None:
    found = bootstrap_interval([0.1, 0.9, 0.5], ["v", "v", "v"], seed=0)
    assert (found.mean, found.low, found.high, found.num_groups) == (pytest.approx(0.5), None, None, 1)
    assert str(found) == "0.500 (3 of 3 scored, 1 videos)"


def test_the_seed_decides() -> None:
    some = list(np.random.default_rng(1).random(40))
    groups = list(range(40))
    assert bootstrap_interval(some, groups, seed=3) == bootstrap_interval(some, groups, seed=3)
    assert bootstrap_interval(some, groups, seed=3) != bootstrap_interval(some, groups, seed=4)


def test_a_seed_below_zero_is_a_seed() -> None:
    values, groups = [0.0, 1.0, 1.0, 0.5], ["a", "b", "c", "d"]
    below = bootstrap_interval(values, groups, seed=-1)
    assert below == bootstrap_interval(values, groups, seed=-1) and below.low is not None
    assert paired_bootstrap_difference(values, values, groups, seed=-1).mean == 0.0


def test_the_interval_of_independent_questions_is_the_textbooks() -> None:
    some = np.random.default_rng(7).random(400)
    found = bootstrap_interval(list(some), list(range(400)), seed=0)
    half = 1.96 * some.std() / math.sqrt(400)
    assert found.low == pytest.approx(some.mean() - half, abs=0.004)
    assert found.high == pytest.approx(some.mean() + half, abs=0.004)


def test_questions_of_one_video_count_as_one() -> None:
    """Ten copies of every question do not make the interval narrower."""
    some = list(np.random.default_rng(2).random(30))
    once = bootstrap_interval(some, list(range(30)), seed=0)
    copies = bootstrap_interval(
        [value for value in some for _ in range(10)], [v for v in range(30) for _ in range(10)], seed=0
    )
    assert (copies.mean, copies.low, copies.high) == pytest.approx((once.mean, once.low, once.high))
    as_if_independent = bootstrap_interval(
        [value for value in some for _ in range(10)], list(range(300)), seed=0
    )
    assert as_if_independent.high is not None and once.high is not None and as_if_independent.high < once.high


def test_coverage() -> None:
    """Of 200 draws of 40 videos with 3 questions each, about 95 % of the intervals hold the true mean."""
    random = np.random.default_rng(5)
    held = 0
    for draw in range(200):
        of_video = random.random(40)
        some = [
            float(np.clip(level + 0.1 * random.standard_normal(), -1, 2))
            for level in of_video
            for _ in range(3)
        ]
        found = bootstrap_interval(
            some, [v for v in range(40) for _ in range(3)], seed=draw, num_resamples=400
        )
        assert found.low is not None and found.high is not None
        held += found.low <= 0.5 <= found.high
    assert 0.90 <= held / 200 <= 0.98


def test_paired_differences() -> None:
    random = np.random.default_rng(3)
    ones = random.random(60)
    twos = np.clip(ones - 0.05 + 0.02 * random.standard_normal(60), 0, 1)
    groups = [index // 2 for index in range(60)]
    found = paired_bootstrap_difference(list(ones), list(twos), groups, seed=0)
    assert found.low is not None and found.low > 0  # a small difference shows, as the questions are the same
    assert found.mean == pytest.approx(float((ones - twos).mean()))
    back = paired_bootstrap_difference(list(twos), list(ones), groups, seed=0)
    assert (back.mean, back.low, back.high) == pytest.approx((-found.mean, -found.high, -found.low))
    same = paired_bootstrap_difference(list(ones), list(ones), groups, seed=0)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_a_pair_counts_where_both_are_scored() -> None:
    found = paired_bootstrap_difference([1.0, None, 0.5, 1.0], [0.0, 1.0, None, 0.5], "abcd", seed=0)
    assert (found.mean, found.num_scored, found.num_total, found.num_groups) == (0.75, 2, 4, 2)


def test_many_videos_fit_in_memory() -> None:
    found = bootstrap_interval([0.5] * 20_000, list(range(20_000)), seed=0, num_resamples=200)
    assert (found.low, found.high) == (0.5, 0.5)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="one group per value"):
        bootstrap_interval([0.5], "ab", seed=0)
    with pytest.raises(ValueError, match="as many"):
        paired_bootstrap_difference([0.5], [0.5, 0.5], "a", seed=0)
    with pytest.raises(ConfigError, match="num_resamples"):
        bootstrap_interval([0.5], "a", seed=0, num_resamples=10)
    with pytest.raises(ConfigError, match="level"):
        bootstrap_interval([0.5], "a", seed=0, level=95)
