"""Figures of where something is, and of what, when and where taken together. Pure functions.

Boxes of a video are given by frame, all in the same coordinates. Sources: Cheng et al. 2025, "V-STaR", section 4.2
(vIoU, AP@vIoU, AM, LGM and their means over the two chains of questions), in the reading of V-STaR's eval.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from timeloupe.grounding import Corners, box_iou

LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)

LEAST_REST = 1e-6
"""What is left to perfect is at least this in ``log_geometric_mean``, so that a perfect score stays finite."""


def frame_ious(truth: Mapping[str, Corners], answer: Mapping[str, Sequence[Corners]]) -> dict[str, float]:
    """Return the best IoU of the boxes answered for each true frame, in [0, 1]; 0 for a frame without one.

    Boxes answered for frames that are not true ones are not looked at: only the labelled frames say anything.

    Args:
        truth: (x1, y1, x2, y2) by frame.
        answer: Boxes by frame.
    """
    return {
        frame: max((box_iou(box, other) for other in answer.get(frame, ())), default=0.0)
        for frame, box in truth.items()
    }


def viou(ious: Sequence[float]) -> float:
    """Return the mean overlap over the labelled frames of a video; 0 without frames."""
    return math.fsum(ious) / len(ious) if ious else 0.0


def ap_at(ious: Sequence[float], levels: Sequence[float] = LEVELS) -> list[float]:
    """Return V-STaR's "AP": the share of labelled frames whose IoU reaches each level (>=); 0 without frames."""
    return [sum(iou >= level for iou in ious) / len(ious) if ious else 0.0 for level in levels]


def arithmetic_mean(accuracy: float, tiou: float, spatial: float) -> float:
    """Return AM, the mean of what, when and where."""
    return (accuracy + tiou + spatial) / 3


def log_geometric_mean(accuracy: float, tiou: float, spatial: float, least_rest: float = LEAST_REST) -> float:
    """Return LGM = -(ln(1 - what) + ln(1 - when) + ln(1 - where)) / 3, which is 0 at nothing and has no upper end.

    Args:
        accuracy: Share of right answers, in [0, 1].
        tiou: Mean temporal IoU, in [0, 1].
        spatial: Mean overlap of boxes, in [0, 1].
        least_rest: Each ``1 - x`` is at least this; 0 does as the script, which cannot take a perfect share.

    Raises:
        ValueError: ``least_rest`` is 0 and a share is 1 or more.
    """
    return -sum(math.log(max(1 - share, least_rest)) for share in (accuracy, tiou, spatial)) / 3
