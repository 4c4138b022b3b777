"""Reading by nearest keyframe: which ones, at what cost, and what a video without enough of them says."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video.painting import Clip, read_number, write_clip
from timeloupe.cli.main import main
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import View, crop_video, skim_video
from timeloupe.errors import VideoError
from timeloupe.video.reader import VideoReader
from timeloupe.video.sampling import nearest_keyframes, skim_times, uniform_times

GetClip = Callable[[str], Clip]
seconds = st.floats(0, 1e4)

KEYFRAMES = EpisodeSettings(
    skim_frames=64, skim_approximate="keyframes", frame_size_wh=(64, 64), video_deadline_seconds=None
)


@given(st.lists(seconds, max_size=30), st.lists(seconds, min_size=1, max_size=30, unique=True).map(sorted))
def test_nearest_keyframes_are_nearest_and_each_once(times: list[float], keyframes: list[float]) -> None:
    found = nearest_keyframes(times, keyframes)
    assert list(found) == sorted(set(found)) and set(found) <= set(keyframes)
    best = [min(abs(keyframe - time) for keyframe in keyframes) for time in times]
    assert all(
        min(abs(at - time) for at in found) == distance for time, distance in zip(times, best, strict=True)
    )
    assert all(
        any(abs(at - time) == distance for time, distance in zip(times, best, strict=True)) for at in found
    )


def test_nearest_keyframes_examples() -> None:
    assert nearest_keyframes([0.4, 0.6, 1.4, 9.0], [0.0, 1.0, 2.0]) == (0.0, 1.0, 2.0)
    assert nearest_keyframes([0.5], [0.0, 1.0]) == (0.0,)
    with pytest.raises(ValueError, match="at least one time"):
        nearest_keyframes([1.0], [])


@pytest.mark.parametrize(
    ("name", "keyframes"),
    [
        ("constant.mp4", [0, 24, 48]),
        ("bframes.mp4", [0, 24, 48, 72]),
        ("uneven.mkv", [0, 24, 48, 72]),
        ("all_intra.mp4", list(range(30))),
    ],
)
def test_one_decoded_frame_for_each_one_shown(clip: GetClip, name: str, keyframes: list[int]) -> None:
    truth = clip(name)
    with VideoReader(truth.path) as reader:
        times = reader.keyframes_near(uniform_times(0, reader.info.duration_seconds, 200))
        found = reader.read(times)
        assert [read_number(one) for one in found.pixels] == keyframes
        assert found.at_seconds == found.requested_seconds == times
        assert reader.frames_decoded == len(keyframes)


@pytest.mark.parametrize("name", ["open_gop.mp4", "open_gop.ts", "gradual_refresh.mp4"])
def test_keyframes_that_need_more_than_themselves_are_still_right(clip: GetClip, name: str) -> None:
    truth = clip(name)
    with VideoReader(truth.path) as reader:
        found = reader.read(reader.keyframes_near(uniform_times(0, reader.info.duration_seconds, 50)))
        assert len(found) > 3
        assert [read_number(one) for one in found.pixels] == [truth.number_at(at) for at in found.at_seconds]


def test_a_skim_by_keyframes_has_true_times_and_crops_are_exact(clip: GetClip) -> None:
    truth = clip("constant.mp4")  # 10 frames a second, keyframes at 0, 2.4 and 4.8 s
    with VideoReader(truth.path) as reader:
        skim = skim_video(reader, KEYFRAMES)
        assert skim.ref.at_seconds == pytest.approx((0.0, 2.4, 4.8))
        assert (skim.ref.start_seconds, skim.ref.end_seconds) == (0.0, 6.0)
        assert [read_number(one) for one in skim.pixels] == [0, 24, 48]
        part = KEYFRAMES.model_copy(update={"skim_start_seconds": 1.0, "skim_end_seconds": 5.0})
        assert skim_video(reader, part).ref.at_seconds == pytest.approx((2.4, 4.8))
        crop = crop_video(reader, 3.0, 4.0, KEYFRAMES)
        assert isinstance(crop, View)
        assert [read_number(one) for one in crop.pixels] == [
            int(at * 10 + 1e-6) for at in crop.ref.at_seconds
        ]
        assert min(crop.ref.at_seconds) >= 3.0 and max(crop.ref.at_seconds) < 4.0


def test_too_few_keyframes_are_an_error_that_says_so(clip: GetClip) -> None:
    says = r"has 1 keyframes between 0 and 10.00 s, and 2 are needed"
    with VideoReader(clip("single_keyframe.mp4").path) as one, pytest.raises(VideoError, match=says):
        skim_video(one, KEYFRAMES)
    with VideoReader(clip("constant.mp4").path) as reader:
        with pytest.raises(VideoError, match="has 1 keyframes between 2 and 4"):
            reader.keyframes_near([3.0], 2.0, 4.0)
        assert reader.frames_decoded == 0


def test_a_stream_without_times_says_so(tmp_path: Path) -> None:
    raw = write_clip(tmp_path / "raw.h264", options={"g": "10"})
    with VideoReader(raw.path) as reader, pytest.raises(VideoError, match="no presentation times"):
        reader.keyframes_near([1.0])


def write_hour(path: Path) -> None:
    """Write an hour of video, 5 frames a second, by laying the same stretch of 40 seconds end to end."""
    stretch = write_clip(
        path.with_suffix(".part.mp4"),
        fps=5,
        num_frames=200,
        size_wh=(64, 64),
        options={"g": "50", "bf": "2", "sc_threshold": "0"},
    )
    with av.open(io.BytesIO(stretch.path.read_bytes())) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        base = stream.time_base
        assert base is not None
        copy, length = target.add_stream_from_template(stream), round(40 / base)
        for turn in range(90):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = (packet.pts or 0) + turn * length, (packet.dts or 0) + turn * length
                again.time_base, again.is_keyframe, again.stream = base, packet.is_keyframe, copy
                target.mux(again)


def test_an_hour_is_skimmed_for_one_decoded_frame_each(tmp_path: Path) -> None:
    write_hour(tmp_path / "hour.mp4")
    with VideoReader(tmp_path / "hour.mp4") as reader:
        assert reader.info.duration_seconds == pytest.approx(3600, abs=1)
        skim = skim_video(reader, KEYFRAMES)
        assert reader.frames_decoded == len(skim.ref.at_seconds) == 64
        wanted = skim_times(reader.info.duration_seconds, fps=2.0, max_frames=64)
        assert all(abs(at - time) <= 5.01 for at, time in zip(skim.ref.at_seconds, wanted, strict=True))
        numbers = [read_number(one) for one in skim.pixels]
        assert numbers == [round(at % 40 * 5) for at in skim.ref.at_seconds]
        assert {number % 50 for number in numbers} == {0}


def test_on_the_command_line(clip: GetClip, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(clip("constant.mp4").path)
    words = ["frames", path, "--from", "0", "--to", "6", "--fps", "4", "--json", "--approximate"]
    assert main([*words, "keyframes"]) == 0
    assert [row["at_seconds"] for row in json.loads(capsys.readouterr().out)] == pytest.approx([0, 2.4, 4.8])
    assert main([*words, "none"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 24
    assert main([*words, "roughly"]) == 2
    assert "--approximate, got 'roughly', allowed: none, keyframes" in capsys.readouterr().err
    assert main(["frames", path, "--at", "7", "--approximate", "keyframes"]) == 1
    assert "outside the video" in capsys.readouterr().err
    assert (
        main(["frames", str(clip("single_keyframe.mp4").path), "--at", "7", "--approximate", "keyframes"])
        == 1
    )
    assert "2 are needed" in capsys.readouterr().err
