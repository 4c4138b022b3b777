"""Which times to read: pure functions from numbers to seconds.

All spans are half-open ``[start, end)``, all results ascend and lie inside their span.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence


def uniform_times(start: float, end: float, num_frames: int) -> tuple[float, ...]:
    """Return the centres of ``num_frames`` equal cells of ``[start, end)``, in seconds.

    Raises:
        ValueError: Not ``0 <= start < end`` with finite numbers, or ``num_frames < 1``.
    """
    _check_span(start, end)
    if num_frames < 1:
        raise ValueError(f"num_frames must be >= 1, got {num_frames!r}")
    cell = (end - start) / num_frames
    latest = math.nextafter(end, start)
    return tuple(min(start + cell * (number + 0.5), latest) for number in range(num_frames))


def fps_times(start: float, end: float, fps: float) -> tuple[float, ...]:
    """Return ``start, start + 1/fps, start + 2/fps, ...`` before ``end``, in seconds; at least ``start``.

    Raises:
        ValueError: Not ``0 <= start < end`` with finite numbers, or not ``fps > 0``.
    """
    _check_span(start, end)
    _check_positive("fps", fps)
    # A grid point that misses the end by rounding alone counts as the end.
    num_frames = max(1, math.ceil((end - start) * fps - 1e-6))
    times = (start + number / fps for number in range(num_frames))
    return tuple(time for time in times if time < end)


def skim_times(
    duration_seconds: float, *, fps: float, max_frames: int, even: bool = True
) -> tuple[float, ...]:
    """Return the times of a skim: the whole video at ``fps``, thinned evenly to at most ``max_frames``.

    Args:
        duration_seconds: Length of the video, > 0.
        fps: Frames a second while that stays within ``max_frames``.
        max_frames: Upper bound, >= 2 if ``even`` else >= 1.
        even: Make the number of frames even and at least 2, as models that merge pairs of frames need.

    Raises:
        ValueError: A number is out of its range.
    """
    _check_span(0.0, duration_seconds)
    _check_positive("fps", fps)
    step = 2 if even else 1
    if max_frames < step:
        raise ValueError(f"max_frames must be >= {step}, got {max_frames!r}")
    num_frames = min(int(fps * duration_seconds + 1e-6), max_frames)
    return uniform_times(0.0, duration_seconds, max(step, num_frames // step * step))


def crop_times(
    start: float,
    end: float,
    *,
    fps: float,
    min_frames: int,
    max_frames: int,
    native_fps: float | None = None,
) -> tuple[float, ...]:
    """Return the times of a crop of ``[start, end)``: an even number of frames at ``fps``.

    The number is that of VideoTemp-o3 (Qwen's frame rule): with ``F`` native frames in the segment and ``r``
    their rate, ``n = floor_even(min(max(fps * F / r, min_frames), floor_even(min(max_frames, F)), F))``, at
    least 2. The frames are the centres of ``n`` equal cells.

    Args:
        start: Seconds of the original video.
        end: Seconds of the original video, already clamped to its duration.
        fps: Wanted rate.
        min_frames: Lower bound, as far as the segment has that many frames.
        max_frames: Upper bound, >= 2.
        native_fps: The video's own rate; ``None`` = do not bound by it.

    Raises:
        ValueError: A number is out of its range.
    """
    _check_span(start, end)
    _check_positive("fps", fps)
    if not 2 <= min_frames <= max_frames:
        raise ValueError(f"need 2 <= min_frames <= max_frames, got {min_frames!r} and {max_frames!r}")
    length = end - start
    lowest = -(-min_frames // 2) * 2
    upper = max_frames
    if native_fps is not None:
        _check_positive("native_fps", native_fps)
        upper = min(upper, max(1, round(length * native_fps)))
    num_frames = int(min(max(fps * length, lowest), upper // 2 * 2) + 1e-6)
    return uniform_times(start, end, max(2, num_frames // 2 * 2))


def nearest_keyframes(times: Sequence[float], keyframe_times: Sequence[float]) -> tuple[float, ...]:
    """Return the keyframe time nearest to each of ``times``, ascending and each once; the earlier of two as near.

    Args:
        times: Seconds.
        keyframe_times: Seconds, ascending, at least one.

    Raises:
        ValueError: There are no keyframes.
    """
    if not keyframe_times:
        raise ValueError("keyframe_times must hold at least one time, got none")
    found: set[float] = set()
    for time in times:
        after = bisect_left(keyframe_times, time)
        around = keyframe_times[max(after - 1, 0) : after + 1]
        found.add(min(around, key=lambda keyframe: abs(keyframe - time)))
    return tuple(sorted(found))


def _check_span(start: float, end: float) -> None:
    if not (math.isfinite(start) and math.isfinite(end) and 0.0 <= start < end):
        raise ValueError(f"need 0 <= start < end in seconds, got start {start!r} and end {end!r}")


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be > 0, got {value!r}")
