"""Advantages: how much better a roll-out did than the others of its group. Pure functions of numbers.

A group is the roll-outs of one example. A member whose reward is ``None`` could not be scored (the machine's fault): it
is in no mean, gets the advantage 0, and must not count in a loss's denominators either.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal, get_args

import numpy as np

from timeloupe.errors import boundary

Scale = Literal["std", "mean", "leave_one_out"]
"""How a group's rewards are compared.

- ``std``: (r - mean) / (std + epsilon), std with n - 1 (GRPO, Shao et al. 2024; as VideoTemp-o3, MUSEG, TaRO, Open-o3)
- ``mean``: r - mean (Liu et al. 2025, "Dr. GRPO": no division by the spread)
- ``leave_one_out``: r - mean of the others (RLOO, Ahmadian et al. 2024)
"""

OffPolicy = Literal["mask", "awr", "clone", "raft"]
"""Weight of a roll-out that the policy did not sample itself, by TaRO's names (``core_algos.py``).

- ``mask``: max(A, 0), the advantage-weighted behaviour cloning of the paper (AW-BC)
- ``awr``: exp(A / beta)
- ``clone``: 1 where A > 0, else 0
- ``raft``: 1 for every best reward of the group, else 0
"""


def group_advantages(
    rewards: Sequence[float | None],
    groups: Sequence[Hashable],
    *,
    scale: Scale = "std",
    epsilon: float = 1e-4,
    single: Literal["zero", "reward"] = "zero",
) -> np.ndarray:
    """Return the advantage of each roll-out: (N,) float64, 0 for unscored ones.

    Args:
        rewards: One per roll-out; ``None`` = unscored.
        groups: The example of each.
        scale: See ``Scale``.
        epsilon: Added to the standard deviation; 1e-4 in MUSEG and Open-o3, 1e-6 in TaRO. In [0, 1].
        single: What a group with one scored member gets: 0, since there is nothing to compare with, or the reward
            itself, as TaRO's release has it (mean 0, std 1).

    Raises:
        ConfigError: An option is none of those allowed.
        ValueError: The lengths differ, or a reward is not finite.
    """
    if scale not in get_args(Scale):
        raise boundary("scale of advantages", scale, get_args(Scale))
    if not 0 <= epsilon <= 1:
        raise boundary("epsilon of advantages", epsilon, "0 <= epsilon <= 1")
    if len(rewards) != len(groups):
        raise ValueError(f"need one group per reward, got {len(groups)} for {len(rewards)}")
    advantages = np.zeros(len(rewards), dtype=np.float64)
    for places in _members(rewards, groups).values():
        values = np.array([rewards[place] for place in places], dtype=np.float64)
        if len(places) == 1:
            advantages[places] = values if single == "reward" else 0.0
        elif scale == "std":
            # The spread of equal rewards is 0 only up to rounding, and 1e-17 / epsilon is no signal.
            spread = 0.0 if np.all(values == values[0]) else float(values.std(ddof=1))
            advantages[places] = (values - values.mean()) / (spread + epsilon) if spread else 0.0
        elif scale == "mean":
            advantages[places] = values - values.mean()
        else:
            advantages[places] = (values - values.mean()) * len(places) / (len(places) - 1)
    return advantages


def off_policy_weights(
    advantages: np.ndarray,
    rewards: Sequence[float | None],
    groups: Sequence[Hashable],
    off_policy: Sequence[bool],
    *,
    mode: OffPolicy = "mask",
    beta: float = 1.0,
) -> np.ndarray:
    """Return ``advantages`` with those of off-policy roll-outs replaced by their weights: (N,) float64.

    Args:
        advantages: (N,) of ``group_advantages``; groups mix on- and off-policy members.
        rewards: One per roll-out; an unscored one keeps the weight 0.
        groups: The example of each.
        off_policy: Whether the policy did not sample the roll-out itself.
        mode: See ``OffPolicy``.
        beta: Temperature of ``awr``, > 0.

    Raises:
        ConfigError: An option is none of those allowed.
    """
    if mode not in get_args(OffPolicy):
        raise boundary("mode of off-policy weights", mode, get_args(OffPolicy))
    if beta <= 0:
        raise boundary("beta of off-policy weights", beta, "> 0")
    weights = advantages.astype(np.float64).copy()
    for places in _members(rewards, groups).values():
        best = max(rewards[place] or 0.0 for place in places)
        for place in places:
            if not off_policy[place]:
                continue
            advantage = advantages[place]
            weights[place] = {
                "mask": max(advantage, 0.0),
                "awr": math.exp(min(advantage / beta, 50.0)),
                "clone": float(advantage > 0),
                "raft": float(rewards[place] == best),
            }[mode]
    return weights


def difficulty_weights(
    rewards: Sequence[float | None], groups: Sequence[Hashable], *, solved: float, least: float = 0.1
) -> np.ndarray:
    """Return a weight per roll-out that falls with the share of its group that solved the example: (N,) in [least, 1].

    ``weight = max(least, 1 - share of scored members with reward >= solved)``, so that what all can do counts little
    in the spirit of the difficulty-aware GRPO of VITAL (arXiv 2508.04416), by a rule of our own.

    Args:
        rewards: One per roll-out; ``None`` = unscored, which gets the group's weight.
        groups: The example of each.
        solved: Reward from which a roll-out counts as right.
        least: Weight of an example that every roll-out solves, in [0, 1].

    Raises:
        ConfigError: ``least`` is out of range.
    """
    if not 0 <= least <= 1:
        raise boundary("least of difficulty weights", least, "0 <= least <= 1")
    shares = {
        group: float(np.mean([(rewards[place] or 0.0) >= solved for place in places]))
        for group, places in _members(rewards, groups).items()
    }
    return np.array([max(least, 1 - shares.get(group, 0.0)) for group in groups], dtype=np.float64)


def _members(rewards: Sequence[float | None], groups: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    """Places of the scored members of each group."""
    found: dict[Hashable, list[int]] = {}
    for place, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        if reward is None:
            continue
        if not math.isfinite(reward):
            raise ValueError(f"a reward must be finite, or None where there is none, got {reward}")
        found.setdefault(group, []).append(place)
    return found
