"""TaRO's rewards: form, tIoU with boundary factors, the bonus for looking at the video, and their sum.

Source: oceanflowlab/TaRO@143a234f, ``src/rewards.py`` (arXiv 2606.09248). What the release does is the default here.
The drop of log-probability that the bonus is paid for comes from ``taro_sensitivity``.

The window is the last ``12.5s to 14s`` or ``12.5s and 14s`` of the last answer: one blank around the word, each time
followed by ``s``; upper case and other scripts' digits count. ``1:12.5s to 1:14s`` therefore reads as 12.5 to 1.

Deviations, each with the option that undoes it:

1. A reward that is not finite is 0 (``guard=False``: NaN). 400 digits before the ``s`` are infinite seconds.
2. Of several true windows the one with the highest reward counts; the release's training rows have one each.
3. The search takes linear time; its results are those of the release's regular expression.

Faults of the release that are the default, each with the option that mends it:

1. The boundary factors are not clamped, so an end far behind the video makes the reward negative (``lowest=0``).
2. A reply without the form keeps the other two terms.
3. A drop above a more negative mean of the group is paid for, though the frames did not help.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from timeloupe.reward.base import Context, Part, check_constant
from timeloupe.reward.think_answer import answer_blocks, final_reply, split_think_answer
from timeloupe.trajectory import Trajectory

Window = tuple[float, float]

IOU_GATE = 0.7
BONUS = 0.3

# Matches what `(\d+\.?\d*)s (to|and) (\d+\.?\d*)s` does. That pattern tries every split of a long row of digits from
# every digit of it; here a number begins where its digits do and gives none of them back.
_WINDOW = re.compile(r"(?<!\d)(\d++\.?+\d*+)s (?:to|and) (\d++\.?+\d*+)s", re.IGNORECASE)


def read_window(text: str) -> Window | None:
    """Return the (start, end) in seconds that a reply names, or ``None`` (``parse_timestamp_output`` of the release).

    It may be reversed, empty or infinite; it is never negative or NaN.
    """
    blocks = answer_blocks(text)
    found = _WINDOW.findall(blocks[-1]) if blocks else []
    return (float(found[-1][0]), float(found[-1][1])) if found else None


def score_format(text: str, *, think: bool = True) -> float:
    """Return 1 where a reply has the form, else 0 (``format_reward`` of the release).

    Args:
        text: The reply; blanks around it do not matter.
        think: Whether the form is ``<think>...</think><answer>...</answer>``, each tag once; else it is
            ``<answer>...</answer>``, with anything between the first and the last tag.
    """
    if think:
        return float(split_think_answer(text) is not None)
    text = text.strip()
    opening, closing = "<answer>", "</answer>"
    whole = len(text) >= len(opening) + len(closing)
    return float(whole and text.startswith(opening) and text.endswith(closing))


def score_tiou(
    window: Window | None,
    truth: Window,
    duration_seconds: float,
    *,
    boundary_factors: bool = True,
    guard: bool = True,
) -> tuple[float, float]:
    """Return the reward of a window and its IoU (``iou_timestamp_reward_v2`` of the release, which is Time-R1's).

    The truth is cut to [0, duration]: S, E. IoU = overlap / hull, 0 for an empty hull. The reward is
    ``IoU * (1 - |S - s| / T) * (1 - |E - e| / T)`` on the train split and the IoU elsewhere. It lies in (-1, 1].

    Args:
        window: (start, end) in seconds as read from the reply; ``None`` has 0.
        truth: True (start, end) in seconds, as annotated.
        duration_seconds: T, length of the video.
        boundary_factors: Whether the two factors are multiplied in, as the release does on its train split only.
        guard: Whether a reward that is not finite is 0.

    Raises:
        TypeError: A number is ``None``.
        ValueError: The truth is no pair.
        ZeroDivisionError: There is a window and the duration is 0.
    """
    start, end = truth
    start, end = max(start, 0), min(end, duration_seconds)
    if window is None:
        return 0.0, 0.0
    common = max(0, min(window[1], end) - max(window[0], start))
    hull = max(window[1], end) - min(window[0], start)
    iou = common / hull if hull > 0 else 0.0
    off_start = abs(start / duration_seconds - window[0] / duration_seconds)
    off_end = abs(end / duration_seconds - window[1] / duration_seconds)
    reward = iou * (1 - off_start) * (1 - off_end) if boundary_factors else iou
    return (reward if math.isfinite(reward) or not guard else 0.0), iou


def score_sensitivity(drop: float, threshold: float, *, bonus: float = BONUS, margin: float = 0.0) -> float:
    """Return ``bonus`` where the drop is above threshold + margin, else 0 (``temporal_reward`` of the release)."""
    return bonus if drop > threshold + margin else 0.0


@dataclass(frozen=True)
class VtgScore:
    """What ``score_reply`` returns; the names are the release's.

    Attributes:
        score: The sum.
        format_score: 0 or 1.
        iou_score: tIoU, with boundary factors on the train split.
        temp_score: The bonus before the gate, 0 where no drop was measured.
        iou: Plain IoU, which opens the gate.
    """

    score: float
    format_score: float
    iou_score: float
    temp_score: float
    iou: float


def score_reply(
    text: str,
    truth: Window,
    duration_seconds: float,
    *,
    drop: float | None = None,
    threshold: float | None = None,
    boundary_factors: bool = True,
    think: bool = True,
    iou_gate: float = IOU_GATE,
    bonus: float = BONUS,
    margin: float = 0.0,
    guard: bool = True,
) -> VtgScore:
    """Return format + tIoU + bonus where the plain IoU is >= ``iou_gate`` (``compute_vtg_score`` of the release).

    Args:
        text: The reply.
        truth: True (start, end) in seconds.
        duration_seconds: Length of the video.
        drop: Fall of the reply's log-probability on shuffled frames; ``None`` = not measured, no bonus.
        threshold: What the drop is compared with.
        boundary_factors: As in ``score_tiou``.
        think: As in ``score_format``.
        iou_gate: The paper's tau.
        bonus: The paper's alpha.
        margin: Added to the threshold.
        guard: As in ``score_tiou``.

    Raises:
        TypeError: A number is ``None``: the duration, a part of the truth, or the threshold of a drop.
        ValueError: The truth is no pair.
        ZeroDivisionError: There is a window and the duration is 0.
    """
    form = score_format(text, think=think)
    reward, iou = score_tiou(
        read_window(text), truth, duration_seconds, boundary_factors=boundary_factors, guard=guard
    )
    paid = 0.0
    if drop is not None:
        if threshold is None:
            raise TypeError("a drop needs a threshold to be compared with")
        paid = score_sensitivity(drop, threshold, bonus=bonus, margin=margin)
    total = form + reward + (paid if iou >= iou_gate else 0.0)
    return VtgScore(total, form, reward, paid, iou)


def format_reward(trajectory: Trajectory, context: Context, /, *, think: bool = True) -> float | None:
    """Return the format reward of the final reply, 0 or 1; ``None`` where no window is asked for.

    ``think`` as in ``score_format``.
    """
    text = _reply(trajectory)
    return None if text is None else score_format(text, think=think)


def tiou(
    trajectory: Trajectory, context: Context, /, *, boundary_factors: bool = True, lowest: float = -1.0
) -> float | None:
    """Return the tIoU reward of the final reply, in [-1, 1]; ``None`` without a true window or a view of the video.

    Args:
        trajectory: What is scored. The length of the video is that of the first view.
        context: Not looked at.
        boundary_factors: As in ``score_tiou``; without them it is the plain IoU, in [0, 1].
        lowest: What lower rewards are raised to, in [-1, 1].

    Raises:
        ConfigError: ``lowest`` is out of range.
    """
    check_constant("lowest", lowest, lowest=-1.0)
    scored = _tiou(trajectory, boundary_factors)
    return None if scored is None else min(max(scored[0], lowest), 1.0)


def sensitivity(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    iou_gate: float = IOU_GATE,
    bonus: float = BONUS,
    margin: float = 0.0,
) -> float | None:
    """Return the bonus for a reply that depends on its frames, 0 or ``bonus``; ``None`` unless the drop was measured.

    Args:
        trajectory: What is scored; ``None`` without a true window or a view of the video.
        context: Its drop and threshold, per roll-out; ``taro_sensitivity.shared_by_group`` makes the release's.
        iou_gate: 0 where the plain IoU is lower; 0 = no gate.
        bonus: What is paid, in [0, 1].
        margin: Added to the threshold.

    Raises:
        ConfigError: ``bonus`` is out of range.
    """
    check_constant("bonus", bonus)
    measured = _measured(context)
    scored = _tiou(trajectory, True)
    if measured is None or scored is None:
        return None
    return score_sensitivity(*measured, bonus=bonus, margin=margin) if scored[1] >= iou_gate else 0.0


def vtg_score(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    boundary_factors: bool = True,
    think: bool = True,
    lowest: float = -1.0,
    iou_gate: float = IOU_GATE,
    bonus: float = BONUS,
    margin: float = 0.0,
) -> float | None:
    """Return the release's whole reward, in [-1, 2 + bonus]; ``None`` without a true window or a view of the video.

    The sum of the three parts with their constants. As in the release a drop that was not measured adds nothing.

    Raises:
        ConfigError: ``bonus`` or ``lowest`` is out of range.
    """
    form = format_reward(trajectory, context, think=think)
    window = tiou(trajectory, context, boundary_factors=boundary_factors, lowest=lowest)
    paid = sensitivity(trajectory, context, iou_gate=iou_gate, bonus=bonus, margin=margin)
    if form is None or window is None:
        return None
    return form + window + (paid or 0.0)


TARO_PARTS: dict[str, tuple[Part, tuple[float, float]]] = {
    "format": (format_reward, (0.0, 1.0)),
    "tiou": (tiou, (-1.0, 1.0)),
    "sensitivity": (sensitivity, (0.0, 1.0)),
    "vtg_score": (vtg_score, (-1.0, 3.0)),
}
"""Name to the part and the range of its scores with any legal constants."""

READ_DROPS = frozenset({"taro.sensitivity", "taro.vtg_score"})
"""Parts, by their names in composites, that read ``Context.log_prob_drop``."""


def _reply(trajectory: Trajectory) -> str | None:
    """The reply, or ``None`` where the question asks for something else than a window."""
    return final_reply(trajectory) if trajectory.example.task == "grounding" else None


def _measured(context: Context) -> tuple[float, float] | None:
    drop, threshold = context.log_prob_drop, context.log_prob_drop_threshold
    if drop is None or threshold is None or not (math.isfinite(drop) and math.isfinite(threshold)):
        return None
    return drop, threshold


def _tiou(trajectory: Trajectory, boundary_factors: bool) -> tuple[float, float] | None:
    """Reward and IoU of the best true window; times count from the start of what was shown, as the release's do."""
    text = _reply(trajectory)
    truth, skims = trajectory.example.segments, trajectory.skims
    if text is None or not truth or not skims:
        return None
    zero = min(view.start_seconds for view in skims)
    duration = max(view.end_seconds for view in skims) - zero
    if duration <= 0:
        return None
    window = read_window(text)
    if window is not None:
        window = (window[0] - zero, window[1] - zero)
    return max(
        score_tiou(
            window, (segment.start_seconds - zero, segment.end_seconds - zero), duration,
            boundary_factors=boundary_factors,
        )
        for segment in truth
    )  # fmt: skip
