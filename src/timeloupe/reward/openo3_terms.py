"""The formulas of Open-o3 Video's rewards: adaptive temporal proximity, temporal gate, IoU with a key frame.

Source: paper, arXiv 2510.20579v2, its section on rewards; where the release differs
(marinero4972/Open-o3-Video@1eb6ecae, ``reward_func.py``), both are here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from timeloupe.errors import boundary
from timeloupe.grounding import Corners, box_iou


@dataclass(frozen=True)
class Gate:
    """When a claim's time is near enough to a key frame's for its boxes to be compared.

    Attributes:
        kind: ``absolute`` = how far apart they are, either way (the paper); ``signed`` = how much the claim comes
            before the key frame, so that a claim may come any time after it (the release).
        tau: The bound in seconds, >= 0: 3 in the paper, 1 in the release.
        inclusive: Whether a distance of exactly ``tau`` is near enough: in the paper, not in the release.
    """

    kind: Literal["absolute", "signed"] = "absolute"
    tau: float = 3.0
    inclusive: bool = True

    def __post_init__(self) -> None:
        if not self.tau >= 0:
            raise boundary("tau of a temporal gate", self.tau, ">= 0 seconds")

    def lets_in(self, claimed: float, true: float) -> bool:
        """Return whether a claim at ``claimed`` is compared with a key frame at ``true``; never for NaN."""
        distance = abs(true - claimed) if self.kind == "absolute" else true - claimed
        return distance <= self.tau if self.inclusive else distance < self.tau


def sigma_at(progress: float, first: float = 4.0, last: float = 1.0, until: float = 0.75) -> float:
    """Return the width of the temporal proximity in seconds: from ``first`` to ``last`` in a line, then constant.

    With the default constants it is 4 (1 - progress), and 1 from three quarters on.

    Args:
        progress: Share of the training that is done, in [0, 1].
        first: At the start, > 0.
        last: At the end, > 0.
        until: From which progress on it is constant, in (0, 1].

    Raises:
        ConfigError: A constant is out of range.
    """
    if not (first > 0 and last > 0 and math.isfinite(first + last)):
        raise boundary("first and last sigma", (first, last), "seconds > 0")
    if not 0 < until <= 1:
        raise boundary("until of the sigma schedule", until, "0 < until <= 1")
    return last if progress >= until else first + (last - first) * progress / until


def proximity(times: Sequence[float], key_times: Sequence[float], sigma: float) -> float:
    """Return how near times are to key times: the mean of exp(-d^2 / (2 sigma^2)), in [0, 1].

    d is the distance in seconds to the nearest key time. A time that is not finite counts as 0.

    Raises:
        ValueError: There are no times or no key times.
    """
    if not times:
        raise ValueError("proximity of no times; give at least one")
    near = (min(abs(time - key) for key in key_times) / sigma for time in times)
    # d * d, for d ** 2 raises where it overflows
    return math.fsum(math.exp(-far * far / 2) if math.isfinite(far) else 0.0 for far in near) / len(times)


def nearest_frame(claimed: float, key_times: Sequence[float], gate: Gate) -> int | None:
    """Return the index of the nearest key time that the gate lets in, the first of equally near ones, or ``None``."""
    found = [at for at, true in enumerate(key_times) if gate.lets_in(claimed, true)]
    near = min(found, key=lambda at: abs(key_times[at] - claimed), default=None)
    return near if near is not None and math.isfinite(key_times[near] - claimed) else None


def frame_iou(boxes: Sequence[Corners], objects: Iterable[Sequence[Corners]]) -> float:
    """Return how well claimed boxes fit the objects of a key frame, in [0, 1]: the best object's value.

    An object's value is the mean, over its true boxes, of the best IoU with a claimed box. Names are not compared.
    """
    best = 0.0
    for true in objects:
        if true and boxes:
            best = max(best, math.fsum(max(box_iou(one, box) for box in boxes) for one in true) / len(true))
    return best
