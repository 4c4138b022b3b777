"""Figures over many questions, with intervals. Pure functions.

A value is ``None`` where a question could not be scored (the machine's fault): it leaves the mean and is counted.
A question that the model failed has the value 0, never ``None``; a mean over a set therefore always goes with
``count_scored``, n of N.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from timeloupe.errors import boundary

Values = Sequence[float | None]

RESAMPLES_PER_CHUNK = 2_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its interval.

    Attributes:
        mean: Mean over the scored questions; ``None`` if there is none.
        low: Lower end of the interval; ``None`` with fewer than two groups, which say nothing about spread.
        high: Upper end.
        num_scored: Questions in the mean.
        num_total: Questions asked.
        num_groups: Groups (videos) with at least one scored question.
    """

    mean: float | None
    low: float | None
    high: float | None
    num_scored: int
    num_total: int
    num_groups: int

    def __str__(self) -> str:
        """``0.532 [0.471, 0.590] (48 of 50 scored, 12 videos)``"""
        mean = "-" if self.mean is None else f"{self.mean:.3f}"
        span = "" if self.low is None or self.high is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{mean}{span} ({self.num_scored} of {self.num_total} scored, {self.num_groups} videos)"


def count_scored(values: Values) -> tuple[int, int]:
    """Return how many values are scored, and how many there are."""
    return len(_scored(values)), len(values)


def mean_tiou(ious: Values) -> float | None:
    """Return the mean of IoUs over the scored questions; ``None`` if there is none.

    Raises:
        ValueError: A value is outside [0, 1].
    """
    scored = _scored(ious)
    for iou in scored:
        if not 0 <= iou <= 1:
            raise ValueError(f"an IoU must be in [0, 1], got {iou}")
    return _mean(scored)


def recall_at(ious: Values, threshold: float, strict: bool = False) -> float | None:
    """Return the share of scored questions whose IoU reaches ``threshold``: R@1, IoU >= m.

    Args:
        ious: IoU of each question's first answered segment.
        threshold: In (0, 1].
        strict: Demand IoU > threshold, as VideoTemp-o3's and Time-R1's scorers do.

    Raises:
        ConfigError: ``threshold`` is out of range.
    """
    if not 0 < threshold <= 1:
        raise boundary("threshold of recall_at", threshold, "0 < threshold <= 1")
    return _mean([float(iou > threshold if strict else iou >= threshold) for iou in _scored(ious)])


def accuracy(rights: Sequence[bool | float | None]) -> float | None:
    """Return the share of scored questions that are right; ``None`` if none is scored.

    Raises:
        ValueError: A value is neither 0 nor 1.
    """
    scored = _scored(rights)
    for right in scored:
        if right not in (0, 1):
            raise ValueError(f"right or wrong must be 1 or 0, got {right}")
    return _mean(scored)


def bootstrap_interval(
    values: Values,
    groups: Sequence[Hashable],
    *,
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the mean of ``values`` with its percentile bootstrap interval, resampled by group.

    Questions about one video are not independent, so whole videos are drawn with replacement, as many as there are, and
    the mean is taken over all their questions (Efron and Tibshirani 1993, chapters 8 and 13).

    Args:
        values: One per question; ``None`` = could not be scored.
        groups: The video of each question.
        seed: Same seed, same interval.
        num_resamples: At least 100.
        level: Coverage, in (0, 1).

    Raises:
        ConfigError: ``num_resamples`` or ``level`` is out of range.
        ValueError: The lengths differ, or a value is not finite.
    """
    sums, counts = _by_group(values, groups)
    return _interval(sums, counts, len(values), seed, num_resamples, level)


def paired_bootstrap_difference(
    ones: Values,
    twos: Values,
    groups: Sequence[Hashable],
    *,
    seed: int,
    num_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return the mean of ``ones - twos`` with its interval, both answered on the same questions, resampled by video.

    A question counts where both are scored. An interval that leaves out 0 says that the two differ.

    Args:
        ones: Values of one system, by question.
        twos: Values of the other, in the same order.
        groups: The video of each question.
        seed: Same seed, same interval.
        num_resamples: At least 100.
        level: Coverage, in (0, 1).

    Raises:
        ConfigError: ``num_resamples`` or ``level`` is out of range.
        ValueError: The lengths differ, or a value is not finite.
    """
    if len(ones) != len(twos):
        raise ValueError(f"paired values must be as many, got {len(ones)} and {len(twos)}")
    pairs = zip(ones, twos, strict=True)
    differences = [None if one is None or two is None else one - two for one, two in pairs]
    return bootstrap_interval(differences, groups, seed=seed, num_resamples=num_resamples, level=level)


def _scored(values: Sequence[float | bool | None]) -> list[float]:
    scored = [float(value) for value in values if value is not None]
    for value in scored:
        if not math.isfinite(value):
            raise ValueError(f"a score must be finite, or None where there is none, got {value}")
    return scored


def _mean(scored: Sequence[float]) -> float | None:
    return math.fsum(scored) / len(scored) if scored else None


def _by_group(values: Values, groups: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of scored values of each group that has any: two (V,) float64 arrays."""
    if len(values) != len(groups):
        raise ValueError(f"need one group per value, got {len(groups)} for {len(values)}")
    _scored(values)
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        if value is not None:
            members.setdefault(group, []).append(float(value))
    sums = np.array([math.fsum(member) for member in members.values()], dtype=np.float64)
    counts = np.array([len(member) for member in members.values()], dtype=np.float64)
    return sums, counts


def _interval(
    sums: np.ndarray, counts: np.ndarray, num_total: int, seed: int, num_resamples: int, level: float
) -> Interval:
    if num_resamples < 100:
        raise boundary("num_resamples of a bootstrap", num_resamples, ">= 100")
    if not 0 < level < 1:
        raise boundary("level of an interval", level, "0 < level < 1")
    num_groups, num_scored = len(sums), int(counts.sum())
    if not num_groups:
        return Interval(None, None, None, 0, num_total, 0)
    mean = math.fsum(sums) / num_scored
    if num_groups < 2:
        return Interval(mean, None, None, num_scored, num_total, num_groups)
    # Episodes may have a seed below zero, and NumPy knows none.
    random = np.random.default_rng(seed if seed >= 0 else seed % 2**64)
    means: list[np.ndarray] = []
    left = num_resamples
    while left:
        size = min(left, max(1, RESAMPLES_PER_CHUNK // num_groups))
        drawn = random.integers(num_groups, size=(size, num_groups))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
        left -= size
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), num_scored, num_total, num_groups)
