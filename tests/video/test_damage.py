"""Damage is found, named by its time range, and clean files are clean."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tests.video.painting import Clip, paint, read_number
from tests.video.test_bad_files import damage
from timeloupe.cli.probe import probe
from timeloupe.errors import VideoError
from timeloupe.video import gaps
from timeloupe.video.container import open_video, read_packets
from timeloupe.video.damage import damaged_ranges
from timeloupe.video.index import _indices, load_index
from timeloupe.video.reader import VideoReader

GetClip = Callable[[str], Clip]

app = typer.Typer()
app.command()(probe)


@pytest.mark.parametrize("deadline", [None, 60.0])
def test_each_damaged_part_is_listed(clip: GetClip, tmp_path: Path, deadline: float | None) -> None:
    once, twice = tmp_path / "once.mp4", tmp_path / "twice.mp4"
    damage(clip("constant.mp4").path, once, 10, 0)
    damage(once, twice, 50, 0)
    seen: list[float] = []
    spans = damaged_ranges(
        twice, deadline_seconds=deadline, on_progress=lambda at, end: seen.append(at / end)
    )
    assert len(spans) == 2
    assert spans[0] == pytest.approx((0.9, 2.4)) and spans[1] == pytest.approx((4.9, 6.0))
    assert seen[-1] == pytest.approx(1.0)
    with VideoReader(twice, deadline_seconds=deadline) as reader:
        with pytest.raises(
            VideoError, match="2 of 3 wanted.*in 2 places of which this is the first"
        ) as caught:
            reader.read([1.55, 3.05, 5.55])
        assert read_number(reader.read([3.05]).pixels[0]) == 30
    assert (caught.value.at_seconds, caught.value.until_seconds) == pytest.approx((0.9, 2.4))


@pytest.mark.parametrize(
    "name", ["open_gop.mkv", "uneven.mkv", "open_gop.ts", "raw.h264", "hevc.mp4", "mpeg4.avi"]
)
def test_a_clean_file_has_none(clip: GetClip, name: str) -> None:
    assert damaged_ranges(clip(name).path) == []


def test_packets_that_the_demuxer_lost(clip: GetClip, tmp_path: Path) -> None:
    """Overwritten block headers: the packets are gone without a word, and the one before must not be shown."""
    source = clip("lossless.mkv")
    container, stream = open_video(source.path)
    with container:
        positions = [packet.pos for packet in read_packets(container, stream)]
    data = bytearray(source.path.read_bytes())
    start = positions[20] or 0
    data[start : start + 20] = b"\x01" * 20
    path = tmp_path / "lost.mkv"
    path.write_bytes(data)
    with VideoReader(path) as reader:
        shown = 0
        for number, seconds in enumerate(source.seconds):
            if seconds + 0.05 > reader.info.duration_seconds:
                continue
            try:
                assert read_number(reader.read([seconds + 0.05]).pixels[0]) == number
                shown += 1
            except VideoError as error:
                assert error.at_seconds is not None and error.until_seconds is not None
                assert error.at_seconds <= seconds + 0.051 < error.until_seconds + 0.05
        assert shown >= 20


def test_transparency_is_no_lost_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies beside the pictures in the file, where a loss would be looked for."""
    path = tmp_path / "alpha.webm"
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libvpx-vp9", rate=10, options={"deadline": "realtime", "cpu-used": "8"}
        )
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 128
        stream.pix_fmt = "yuva420p"
        stream.codec_context.time_base = Fraction(1, 10)
        for number in range(40):
            alpha = noise.integers(0, 256, (128, 128, 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate([paint(number), alpha], axis=2), "rgba")
            frame.pts, frame.time_base = number + number // 10 * 3, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with monkeypatch.context() as patch:
        patch.setattr(gaps, "_has_additions", lambda *_: False)
        holes: list[int] = []
        find = gaps._holes
        patch.setattr(gaps, "_holes", lambda *a: (found := find(*a), holes.extend(found.tolist()))[0])
        assert not len(load_index(path).lost_packets) and len(holes) > 20  # so many cannot be losses
    _indices._kept.clear()
    assert len(load_index(path).times_N) == 40 and damaged_ranges(path) == []


def test_the_command_lists_them_and_ends_with_1(clip: GetClip, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    damage(clip("constant.mp4").path, path, 30, 0)
    for more in ((), ("--deadline", "0")):
        result = CliRunner().invoke(app, [str(path), "--full", "--json", *more])
        assert result.exit_code == 1 and "decoded 6 of 6 s" in result.stderr
        assert json.loads(result.stdout)["damaged_seconds"] == [pytest.approx([2.9, 4.8])]
    result = CliRunner().invoke(app, [str(path), "--full"])
    assert result.exit_code == 1 and "2.900 to 4.800 s" in result.stdout
    assert CliRunner().invoke(app, [str(path)]).exit_code == 0
    clean = CliRunner().invoke(app, [str(clip("constant.mp4").path), "--full"])
    assert clean.exit_code == 0 and "nothing that a decoder notices" in clean.stdout
    assert CliRunner().invoke(app, [str(path), "--deadline", "-1"]).exit_code != 0
