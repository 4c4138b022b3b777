"""Views: the skim and the crops, by their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.environment.clips import colour_of, seconds_of
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import View, crop_video, margin_for, skim_video
from timeloupe.errors import ConfigError
from timeloupe.trajectory import FrameRef, Problem
from timeloupe.video.reader import VideoReader

SMALL = EpisodeSettings(skim_frames=10, crop_fps=2.0, crop_max_frames=16, frame_size_wh=(64, 64))


def crop(path: str, start: float, end: float, settings: EpisodeSettings = SMALL, margin: float = 0.0) -> View:
    with VideoReader(path) as reader:
        view = crop_video(reader, start, end, settings, margin_seconds=margin)
    assert isinstance(view, View)
    return view


def test_a_skim_spans_the_video_and_carries_true_times(clips: dict[str, str]) -> None:
    with VideoReader(clips["red"]) as reader:
        view = skim_video(reader, SMALL)
    assert (view.ref.view, view.ref.start_seconds, view.ref.end_seconds) == ("skim", 0.0, 20.0)
    assert view.ref.at_seconds == pytest.approx([1, 3, 5, 7, 9, 11, 13, 15, 17, 19])
    assert colour_of(view.pixels) == "red"
    assert seconds_of(view.pixels) == [int(at) for at in view.ref.at_seconds]
    assert view.interval_seconds == pytest.approx(2.0)
    assert view.ref.video == clips["red"] and view.ref.size_wh == (64, 64)


def test_a_skim_of_a_part(clips: dict[str, str]) -> None:
    part = SMALL.model_copy(update={"skim_start_seconds": 5.0, "skim_end_seconds": 10.0})
    with VideoReader(clips["red"]) as reader:
        view = skim_video(reader, part)
        assert (view.ref.start_seconds, view.ref.end_seconds) == (5.0, 10.0)
        assert view.ref.at_seconds == pytest.approx([5.2, 5.7, 6.2, 6.7, 7.2, 7.7, 8.2, 8.7, 9.2, 9.7])
        to_the_end = skim_video(
            reader, SMALL.model_copy(update={"skim_start_seconds": 19.0, "skim_end_seconds": 99.0})
        )
        assert to_the_end.ref.end_seconds == 20.0
        with pytest.raises(ConfigError, match=r"begins at 20.0 s.*is 20.00 s long"):
            skim_video(reader, SMALL.model_copy(update={"skim_start_seconds": 20.0}))


def test_a_crop_shows_the_segment_at_a_higher_rate(clips: dict[str, str]) -> None:
    view = crop(clips["green"], 4.0, 8.0)
    assert view.ref.view == "crop" and (view.ref.start_seconds, view.ref.end_seconds) == (4.0, 8.0)
    assert len(view.ref.at_seconds) == 8
    assert all(4.0 <= at < 8.0 for at in view.ref.at_seconds)
    assert colour_of(view.pixels) == "green"
    assert seconds_of(view.pixels) == [4, 4, 5, 5, 6, 6, 7, 7]


def test_times_count_from_the_original_video_whatever_was_cropped_before(clips: dict[str, str]) -> None:
    with VideoReader(clips["red"]) as reader:
        crop_video(reader, 10.0, 16.0, SMALL)
        inner = crop_video(reader, 12.0, 14.0, SMALL)
        before = crop_video(reader, 2.0, 4.0, SMALL)
    assert isinstance(inner, View) and isinstance(before, View)
    assert seconds_of(inner.pixels) == [12, 12, 13, 13]
    assert seconds_of(before.pixels) == [2, 2, 3, 3]


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (-1.0, 5.0, "segment_negative"),
        (5.0, 5.0, "segment_empty"),
        (6.0, 5.0, "segment_empty"),
        (20.0, 25.0, "segment_beyond_end"),
        (1e9, 2e9, "segment_beyond_end"),
        (float("nan"), 5.0, "segment_not_finite"),
        (0.0, float("inf"), "segment_not_finite"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_a_reason(
    clips: dict[str, str], start: float, end: float, reason: str
) -> None:
    with VideoReader(clips["red"]) as reader:
        found = crop_video(reader, start, end, SMALL, margin_seconds=5.0)
        assert isinstance(found, Problem) and found.reason == reason
        assert reader.frames_decoded == 0


def test_a_segment_over_the_end_is_cut_there(clips: dict[str, str]) -> None:
    view = crop(clips["red"], 18.0, 1e9)
    assert (view.ref.start_seconds, view.ref.end_seconds) == (18.0, 20.0)
    assert max(view.ref.at_seconds) < 20.0
    sliver = crop(clips["red"], 19.999, 30.0)
    assert seconds_of(sliver.pixels) == [19] * len(sliver.ref.at_seconds)


def test_the_margin_widens_within_the_video(clips: dict[str, str]) -> None:
    view = crop(clips["red"], 5.0, 6.0, margin=2.0)
    assert (view.ref.start_seconds, view.ref.end_seconds) == (3.0, 8.0)
    view = crop(clips["red"], 1.0, 19.5, margin=2.0)
    assert (view.ref.start_seconds, view.ref.end_seconds) == (0.0, 20.0)


def view_of(start: float, end: float, num_frames: int) -> View:
    ref = FrameRef(
        video="a.mp4", view="crop", start_seconds=start, end_seconds=end,
        at_seconds=tuple(np.linspace(start, end, num_frames, endpoint=False)), size_wh=(28, 28),
    )  # fmt: skip
    return View(ref, np.zeros((num_frames, 28, 28, 3), np.uint8))


def test_the_margin_is_an_interval_of_the_view_that_the_times_were_read_from() -> None:
    coarse, fine = view_of(0.0, 100.0, 10), view_of(40.0, 50.0, 10)
    assert margin_for(42.0, 44.0, [coarse], 1.0) == pytest.approx(10.0)
    assert margin_for(42.0, 44.0, [coarse], 0.5) == pytest.approx(5.0)
    assert margin_for(42.0, 44.0, [coarse], 0.0) == 0.0
    assert margin_for(42.0, 44.0, [], 1.0) == 0.0
    assert margin_for(42.0, 44.0, [coarse, fine], 1.0) == pytest.approx(1.0), "the latest of equals"
    assert margin_for(42.0, 60.0, [coarse, fine], 1.0) == pytest.approx(10.0), "the one that overlaps most"
    assert margin_for(200.0, 210.0, [coarse, fine], 1.0) == pytest.approx(10.0), "the nearest if none does"


def test_frames_fit_the_pixel_budget_and_the_multiple(clips: dict[str, str]) -> None:
    settings = EpisodeSettings(skim_frames=2, skim_pixels=128 * 128, crop_pixels=96 * 96, size_multiple=32)
    with VideoReader(clips["red"]) as reader:
        skim = skim_video(reader, settings)
    assert skim.ref.size_wh == (64, 64) and skim.pixels.shape == (2, 64, 64, 3)
    large = crop(clips["red"], 0.0, 1.0, EpisodeSettings(min_pixels=100 * 100))
    assert large.ref.size_wh == (128, 128)


def test_cropping_writes_no_file(
    clips: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = sorted(Path(clips["red"]).parent.iterdir())
    crop(clips["red"], 2.0, 9.0)
    assert sorted(Path(clips["red"]).parent.iterdir()) == before
    assert list(tmp_path.iterdir()) == []


def test_a_view_cannot_be_changed_by_whoever_gets_it(clips: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        crop(clips["red"], 2.0, 3.0).pixels[0] = 0
