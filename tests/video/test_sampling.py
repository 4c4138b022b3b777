"""Sampling times are pure; these are their laws."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.video.sampling import crop_times, fps_times, skim_times, uniform_times

seconds = st.floats(min_value=0, max_value=1e5, allow_nan=False)
lengths = st.floats(min_value=0.01, max_value=2e4)
rates = st.floats(min_value=0.05, max_value=60)


def inside_and_ascending(times: tuple[float, ...], start: float, end: float) -> bool:
    return all(start <= t < end for t in times) and all(
        a <= b for a, b in zip(times, times[1:], strict=False)
    )


@given(seconds, lengths, st.integers(1, 600))
def test_uniform_times_are_the_centres_of_equal_cells(start: float, length: float, count: int) -> None:
    end = start + length
    times = uniform_times(start, end, count)
    assert len(times) == count
    assert inside_and_ascending(times, start, end)
    cell = (end - start) / count
    for number, time in enumerate(times):
        assert time == pytest.approx(start + (number + 0.5) * cell, rel=1e-9)


def test_uniform_times_examples() -> None:
    assert uniform_times(0, 8, 4) == (1.0, 3.0, 5.0, 7.0)
    assert uniform_times(10, 12, 1) == (11.0,)


@given(seconds, st.floats(min_value=0.01, max_value=500), rates)
def test_fps_times_step_by_one_over_fps_from_start(start: float, length: float, fps: float) -> None:
    end = start + length
    times = fps_times(start, end, fps)
    assert times[0] == start
    assert inside_and_ascending(times, start, end)
    assert all(t == pytest.approx(start + n / fps) for n, t in enumerate(times))
    assert times[-1] + 1 / fps >= end - 1e-5


def test_fps_times_leave_out_the_end_and_do_not_drift() -> None:
    assert fps_times(10, 20, 4) == tuple(10 + n / 4 for n in range(40))
    assert len(fps_times(0, 0.3, 10)) == 3  # 0.3 * 10 is a little more than 3 in floating point
    assert len(fps_times(0, 3600, 30)) == 108_000
    assert fps_times(5, 5.01, 1) == (5,)


@given(lengths, rates, st.integers(2, 600))
def test_skims_are_even_and_bounded(duration: float, fps: float, max_frames: int) -> None:
    times = skim_times(duration, fps=fps, max_frames=max_frames)
    assert len(times) % 2 == 0 and 2 <= len(times) <= max_frames
    assert inside_and_ascending(times, 0, duration)
    assert len(times) <= max(2, fps * duration + 1e-3)


def test_skim_examples() -> None:
    assert len(skim_times(1200, fps=2, max_frames=256)) == 256
    assert len(skim_times(10, fps=2, max_frames=256)) == 20
    assert len(skim_times(9.5, fps=1, max_frames=256)) == 8
    assert len(skim_times(9.5, fps=1, max_frames=256, even=False)) == 9
    assert skim_times(0.1, fps=1, max_frames=1, even=False) == (0.05,)


@given(seconds, lengths, rates, st.integers(2, 16), st.integers(0, 100), st.none() | rates)
def test_crops_are_even_and_bounded(
    start: float, length: float, fps: float, fewest: int, more: int, native: float | None
) -> None:
    end = start + length
    times = crop_times(start, end, fps=fps, min_frames=fewest, max_frames=fewest + more, native_fps=native)
    assert len(times) % 2 == 0 and 2 <= len(times) <= fewest + more
    assert inside_and_ascending(times, start, end)
    if native is not None:
        assert len(times) <= max(2, round((end - start) * native))


@pytest.mark.parametrize(
    ("length", "native_fps", "expected"),
    [
        (10, 30, 20),
        (60, 30, 64),
        (1, 30, 4),
        (0.1, 30, 2),
        (2.6, 25, 4),
        (3.4, 25, 6),
        (32.5, 25, 64),
        (0.02, 30, 2),
    ],
)
def test_crops_follow_the_frame_rule_of_videotemp(length: float, native_fps: float, expected: int) -> None:
    times = crop_times(50, 50 + length, fps=2, min_frames=4, max_frames=64, native_fps=native_fps)
    assert len(times) == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda: uniform_times(1, 1, 4),
        lambda: uniform_times(-1, 1, 4),
        lambda: uniform_times(0, 1, 0),
        lambda: uniform_times(0, math.inf, 4),
        lambda: uniform_times(math.nan, 1, 4),
        lambda: fps_times(0, 1, 0),
        lambda: fps_times(0, 1, -2),
        lambda: fps_times(3, 2, 1),
        lambda: skim_times(0, fps=1, max_frames=4),
        lambda: skim_times(5, fps=1, max_frames=1),
        lambda: crop_times(0, 1, fps=2, min_frames=8, max_frames=4),
        lambda: crop_times(0, 1, fps=2, min_frames=4, max_frames=8, native_fps=0),
    ],
)
def test_numbers_out_of_range_are_named(call) -> None:
    with pytest.raises(ValueError, match="got|need"):
        call()
