"""The two ways to an index agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.video.conftest import KINDS
from tests.video.painting import Clip, read_number, write_clip
from timeloupe.video import packets
from timeloupe.video.container import identify, open_video
from timeloupe.video.reader import VideoReader
from timeloupe.video.sample_table import composition_offsets

MP4 = [name for name in KINDS if name.endswith(".mp4")]


def gather(path: Path) -> packets.Packets:
    container, stream = open_video(path)
    with container:
        return packets.gather_packets(str(path), identify(path)[1], container, stream)


def same_packets(path: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Compare the sample table with full demuxing; return whether the table was used."""
    from_table = gather(path)
    with monkeypatch.context() as patch:
        patch.setattr(packets, "_from_sample_table", lambda *_: None)
        demuxed = gather(path)
    assert (from_table.pts, from_table.dts) == (demuxed.pts, demuxed.dts)
    assert (from_table.keys, from_table.hidden) == (demuxed.keys, demuxed.hidden)
    if from_table.durations:
        assert from_table.durations == demuxed.durations[-len(from_table.durations) :]
    return len(from_table.durations) != len(demuxed.durations)


@pytest.mark.parametrize("name", MP4)
def test_sample_table_agrees_with_demuxing(
    clip: Callable[[str], Clip], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = same_packets(clip(name).path, monkeypatch)
    if name in ("constant.mp4", "bframes.mp4", "open_gop.mp4", "uneven.mp4"):
        assert used


def test_sample_table_agrees_on_real_files(shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        p for p in sorted((shared_dir / "evaldata" / "videos").glob("*.m*")) if p.suffix in (".mp4", ".mov")
    ]
    assert files
    assert sum(same_packets(path, monkeypatch) for path in files) >= 5


def test_files_without_a_sample_table_have_no_offsets(clip: Callable[[str], Clip], tmp_path: Path) -> None:
    assert composition_offsets(clip("fragmented.mp4").path, 1) is None
    assert composition_offsets(clip("open_gop.mkv").path, 1) is None
    assert composition_offsets(clip("constant.mp4").path, 7) is None
    whole = clip("bframes.mp4").path.read_bytes()
    at = whole.index(b"moov")
    for cut in range(at, len(whole), 97):
        (tmp_path / "cut.mp4").write_bytes(whole[:cut])
        assert composition_offsets(tmp_path / "cut.mp4", 1) is None
    for spoiled in range(at, len(whole), 61):
        (tmp_path / "spoiled.mp4").write_bytes(whole[:spoiled] + b"\xff\xff\xff\xff" + whole[spoiled + 4 :])
        composition_offsets(tmp_path / "spoiled.mp4", 1)  # anything but an exception


def test_an_empty_sample_leaves_the_frame_before_it(tmp_path: Path) -> None:
    source = write_clip(
        tmp_path / "a.mov", codec="mjpeg", num_frames=40, size_wh=(64, 64), pixel_format="yuvj420p"
    )
    data = bytearray(source.path.read_bytes())
    at = data.index(b"stsz") + 16 + 4 * 30
    assert 0 < int.from_bytes(data[at : at + 4], "big") < 20_000
    data[at : at + 4] = bytes(4)
    # The sample before takes the bytes, so that those behind stay where they are.
    before, own = (int.from_bytes(source.path.read_bytes()[at + n : at + n + 4], "big") for n in (-4, 0))
    data[at - 4 : at] = (before + own).to_bytes(4, "big")
    source.path.write_bytes(data)
    with VideoReader(source.path) as reader:
        assert reader.info.num_frames == 39
        shown = reader.read([n / 10 + 0.05 for n in (0, 29, 30, 31, 39)]).pixels
    assert [read_number(picture) for picture in shown] == [0, 29, 29, 31, 39]
