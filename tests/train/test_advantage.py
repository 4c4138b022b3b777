"""Advantages: what a group's members get, and what an unscored one must not touch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.errors import ConfigError
from timeloupe.train.advantage import difficulty_weights, group_advantages, off_policy_weights

REWARDS = st.lists(st.one_of(st.none(), st.floats(-10, 10)), min_size=2, max_size=8)


@given(REWARDS, REWARDS, st.sampled_from(["std", "mean", "leave_one_out"]))
def test_a_group_sums_to_nothing_and_knows_no_other(ones: list, twos: list, scale: str) -> None:
    groups = ["a"] * len(ones) + ["b"] * len(twos)
    both = group_advantages([*ones, *twos], groups, scale=scale)
    alone = group_advantages(ones, groups[: len(ones)], scale=scale)
    assert np.array_equal(both[: len(ones)], alone)
    assert abs(alone.sum()) < 1e-6
    assert np.all(np.isfinite(both))


@given(REWARDS, st.sampled_from(["std", "mean", "leave_one_out"]))
def test_an_unscored_member_changes_nothing_for_the_others(rewards: list, scale: str) -> None:
    scored = [one for one in rewards if one is not None]
    alone = group_advantages(scored, ["a"] * len(scored), scale=scale)
    among = group_advantages(rewards, ["a"] * len(rewards), scale=scale)
    assert np.array_equal(among[[one is not None for one in rewards]], alone)
    assert np.all(among[[one is None for one in rewards]] == 0)


@given(st.floats(-1e6, 1e6), st.integers(2, 9))
def test_equal_rewards_teach_nothing(reward: float, size: int) -> None:
    assert np.all(group_advantages([reward] * size, ["a"] * size) == 0)


def test_the_three_ways_by_hand() -> None:
    rewards, groups = [0.0, 1.0, 2.0], ["a"] * 3
    assert group_advantages(rewards, groups, epsilon=0).tolist() == [-1, 0, 1]
    assert group_advantages(rewards, groups, scale="mean").tolist() == [-1, 0, 1]
    assert group_advantages(rewards, groups, scale="leave_one_out").tolist() == [-1.5, 0, 1.5]
    assert group_advantages([3.0, None], ["a", "a"]).tolist() == [0, 0]
    assert group_advantages([3.0, None], ["a", "a"], single="reward").tolist() == [3, 0]


def test_weights_of_rows_that_the_policy_did_not_sample() -> None:
    rewards, groups, off = [0.0, 1.0, 1.0, None], ["a"] * 4, [True, True, False, True]
    advantages = group_advantages(rewards, groups, scale="mean")
    found = {
        mode: off_policy_weights(advantages, rewards, groups, off, mode=mode).tolist()
        for mode in ("mask", "awr", "clone", "raft")
    }
    third = pytest.approx(1 / 3)
    assert found["mask"] == [0, third, third, 0]
    assert found["awr"] == [pytest.approx(np.exp(-2 / 3)), pytest.approx(np.exp(1 / 3)), third, 0]
    assert found["clone"] == [0, 1, third, 0]
    assert found["raft"] == [0, 1, third, 0]


def test_examples_that_all_solve_count_least() -> None:
    rewards = [1.0, 1.0, 1.0, 0.0, None, 0.0]
    groups = ["easy", "easy", "half", "half", "none", "hard"]
    assert difficulty_weights(rewards, groups, solved=0.5).tolist() == [0.1, 0.1, 0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    "options", [{"scale": "max"}, {"epsilon": -1.0}, {"epsilon": 2.0}]
)  # fmt: skip
def test_options_that_are_none(options: dict) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        group_advantages([1.0], ["a"], **options)


def test_numbers_that_are_none() -> None:
    with pytest.raises(ValueError, match="finite"):
        group_advantages([float("nan")], ["a"])
    with pytest.raises(ValueError, match="one group per reward"):
        group_advantages([1.0], [])
    with pytest.raises(ConfigError, match="beta"):
        off_policy_weights(np.zeros(1), [1.0], ["a"], [True], beta=0.0)
    with pytest.raises(ConfigError, match="least"):
        difficulty_weights([1.0], ["a"], solved=1.0, least=2.0)
