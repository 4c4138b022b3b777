"""Bad files end in one VideoError that says what is wrong; damage is never shown as a picture."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.video.painting import Clip, read_number, write_clip
from timeloupe.errors import VideoError
from timeloupe.video.container import open_video
from timeloupe.video.index import load_index
from timeloupe.video.probe import probe
from timeloupe.video.reader import VideoReader

GetClip = Callable[[str], Clip]


def write_sound(path: Path, cover: np.ndarray | None = None) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        pictures = None
        if cover is not None:
            pictures = container.add_stream("mjpeg", rate=1)
            assert isinstance(pictures, av.VideoStream)
            pictures.width, pictures.height, pictures.pix_fmt = cover.shape[1], cover.shape[0], "yuvj420p"
            pictures.disposition = Disposition.attached_pic
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
        if pictures is not None and cover is not None:
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(cover, "rgb24")))
            container.mux(pictures.encode(None))


def expect(path: Path, words: str) -> VideoError:
    with pytest.raises(VideoError, match=words) as caught:
        probe(path)
    assert repr(str(path)) in str(caught.value)
    assert caught.value.hint in str(caught.value) and caught.value.exit_code == 1
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own bytes
    return caught.value


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    expect(tmp_path / "nothing.mp4", "no such file")
    expect(tmp_path, "folder")
    (tmp_path / "empty.mp4").touch()
    expect(tmp_path / "empty.mp4", "empty")
    (tmp_path / "text.mp4").write_text("this is no video\n" * 200)
    expect(tmp_path / "text.mp4", "not a video container")
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    expect(tmp_path / "noise.mp4", "not a video container")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    expect(tmp_path / "picture.png", "not a video container")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile /etc/hostname\n")
    expect(tmp_path / "list.mp4", "not a video container")
    os.mkfifo(tmp_path / "pipe.mp4")
    expect(tmp_path / "pipe.mp4", "pipe")
    write_sound(tmp_path / "sound.mp4")
    expect(tmp_path / "sound.mp4", "no video stream, it holds: audio")
    expect(tmp_path / "nul\0byte.mp4", "cannot be reached")


def test_a_name_like_a_protocol_is_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = write_clip(tmp_path / "plain.mp4", num_frames=3)
    written.path.rename(tmp_path / "concat:a|b.mp4")
    assert probe("concat:a|b.mp4").num_frames == 3
    with pytest.raises(VideoError, match="no such file"):
        probe("https://127.0.0.1:9/a.mp4")


def test_cut_off_header(clip: GetClip, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    whole = clip("constant.mp4").path.read_bytes()  # its index lies at the end
    path.write_bytes(whole[: len(whole) // 2])
    expect(path, "header is damaged or cut off")


def test_cut_off_body_gives_what_is_there(clip: GetClip, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    whole = clip("header_first.mp4").path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.7)])
    with VideoReader(path) as reader:
        info = reader.info
        assert 20 < info.num_frames < 58
        assert read_number(reader.read([1.25]).pixels[0]) == 12
        with pytest.raises(VideoError, match="announces 6.000 s"):
            reader.read([info.duration_seconds + 0.3])


def test_the_largest_real_video_stream_is_taken(tmp_path: Path) -> None:
    small, large = tmp_path / "small.mp4", tmp_path / "large.mp4"
    write_clip(small, size_wh=(64, 64), num_frames=20)
    write_clip(large, size_wh=(96, 128), num_frames=10)
    both = tmp_path / "both.mkv"
    with av.open(str(small)) as a, av.open(str(large)) as b, av.open(str(both), "w") as out:
        streams = [out.add_stream_from_template(source.streams.video[0]) for source in (a, b)]
        for source, stream in zip((a, b), streams, strict=True):
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
    info = probe(both)
    assert (info.size_wh, info.num_frames) == ((96, 128), 10)
    with VideoReader(both) as reader:
        assert read_number(reader.read([0.55]).pixels[0]) == 5


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    write_sound(path, np.full((64, 64, 3), 200, np.uint8))
    expect(path, "cover")


def damage(source: Path, target: Path, packet_number: int, kept_bytes: int) -> None:
    """Copy a video with one packet overwritten from its byte ``kept_bytes`` on."""
    data = bytearray(source.read_bytes())
    container, stream = open_video(source)
    with container:
        packet = [p for p in container.demux(stream) if p.size][packet_number]
        assert packet.pos is not None
        data[packet.pos + kept_bytes : packet.pos + packet.size] = b"\x01" * (packet.size - kept_bytes)
    target.write_bytes(data)


@pytest.mark.parametrize("kept_bytes", [0, 4, 12])
@pytest.mark.parametrize("packet_number", [24, 30, 47])
def test_damage_is_reported_and_never_shown(
    clip: GetClip, tmp_path: Path, packet_number: int, kept_bytes: int
) -> None:
    path = tmp_path / "damaged.mp4"
    damage(clip("constant.mp4").path, path, packet_number, kept_bytes)
    index = load_index(path)
    refused = 0
    for number, seconds in enumerate(index.times_N.tolist()):
        with VideoReader(path) as reader:
            try:
                assert read_number(reader.read([seconds]).pixels[0]) == number
            except VideoError as error:
                refused += 1
                # All frames from the damaged one to the next keyframe are lost; where damage begins inside a
                # packet is not known, so the one before it is not trusted either.
                assert error.at_seconds is not None and error.until_seconds == pytest.approx(4.8)
                assert max(2.4, packet_number / 10 - 0.1) - 1e-6 <= error.at_seconds <= packet_number / 10
                assert f"between {error.at_seconds:.3f} s and 4.800 s" in str(error)
                assert packet_number <= number < 48 and "damaged" in str(error)
    assert refused == 48 - packet_number
    with VideoReader(path) as reader, pytest.raises(VideoError, match=r"1 of 3 wanted frames are"):
        reader.read([0.5, 4.75, 5.5])
    with VideoReader(path) as reader:
        assert [read_number(picture) for picture in reader.read([0.55, 5.5]).pixels] == [5, 55]


def test_giant_pictures_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    """In the header, in a frame's own header, and where the size changes inside the stream."""
    plain = write_clip(tmp_path / "ffv1.avi", codec="ffv1", num_frames=4).path.read_bytes()
    small, wide = ((side).to_bytes(4, "little") * 2 for side in (128, 100_000))
    assert small in plain
    (tmp_path / "header.avi").write_bytes(plain.replace(small, wide))
    expect(tmp_path / "header.avi", "67,108,864 pixels")
    jpeg = write_clip(
        tmp_path / "a.mov", codec="mjpeg", num_frames=6, pixel_format="yuvj420p"
    ).path.read_bytes()
    mark, huge = b"\x08\x00\x80\x00\x80\x03", b"\x08\xff\xdc\xff\xdc\x03"
    assert jpeg.count(mark) == 6
    (tmp_path / "all.mov").write_bytes(jpeg.replace(mark, huge))
    expect(tmp_path / "all.mov", "67,108,864 pixels")
    (tmp_path / "later.mov").write_bytes(huge.join(jpeg.rsplit(mark, 3)))
    with VideoReader(tmp_path / "later.mov") as reader:
        assert read_number(reader.read([0.05]).pixels[0]) == 0
        with pytest.raises(VideoError, match="between .* damaged or missing"):
            reader.read([0.55])


def test_a_read_of_too_many_bytes_names_the_numbers(clip: GetClip) -> None:
    with VideoReader(clip("constant.mp4").path) as reader:
        with pytest.raises(VideoError, match="50 frames of 8000 x 8000 are 9,600,000,000 bytes.*fewer times"):
            reader.read([0.0] * 50, (8000, 8000))
        assert reader.frames_decoded == 0


@pytest.mark.parametrize("deadline_seconds", [None, 60.0])
def test_a_picture_larger_than_any_is_not_asked_for(clip: GetClip, deadline_seconds: float | None) -> None:
    with VideoReader(clip("constant.mp4").path, deadline_seconds=deadline_seconds) as reader:
        for size in ((30_000, 30_000), (2**31, 1), (1, 2**16 + 1), (8193, 8192)):
            with pytest.raises(ValueError, match="ask for a smaller size_wh"):
                reader.read([1.0], size)
        for size in ((2**16, 128), (128, 2**16)):
            assert read_number(reader.read([1.0], size).pixels[0]) == 10


@pytest.mark.parametrize("count", [61, 100_000, 2**31 - 1])
def test_a_header_that_promises_more_frames_than_there_are(clip: GetClip, tmp_path: Path, count: int) -> None:
    source = clip("header_first.mp4")
    data = source.path.read_bytes()
    at = data.index(b"stsz") + 12
    assert int.from_bytes(data[at : at + 4], "big") == 60
    path = tmp_path / "promise.mp4"
    path.write_bytes(data[:at] + count.to_bytes(4, "big") + data[at + 4 :])
    try:
        with VideoReader(path) as reader:
            assert reader.info.num_frames <= 61
            for number, seconds in enumerate(source.seconds):
                assert read_number(reader.read([seconds + 0.05]).pixels[0]) == number
    except VideoError as error:
        assert "header" in str(error) or error.until_seconds is not None


@pytest.mark.parametrize("kind", ["open_gop.ts", "uneven.mkv", "mpeg2.ts"])
def test_files_put_one_behind_the_other(clip: GetClip, tmp_path: Path, kind: str) -> None:
    whole = clip(kind).path.read_bytes()
    path = tmp_path / f"twice_{kind}"
    path.write_bytes(whole + whole)
    expect(path, f"clock starts again at packet {len(clip(kind).seconds)} of {2 * len(clip(kind).seconds)}")


@pytest.mark.parametrize("options", [{"g": "1"}, {"g": "12", "bf": "0"}])
def test_of_two_packets_with_one_time_the_first_is_shown(tmp_path: Path, options: dict[str, str]) -> None:
    """Whatever else is asked for."""
    source = write_clip(tmp_path / "plain.mkv", options=options, num_frames=40)
    path = tmp_path / "doubled.mkv"
    with av.open(str(source.path)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is None or packet.pts is None:
                continue
            packet.stream = stream
            if packet.pts in (1000, 2400):  # frames 10 and 24, one of them a keyframe
                packet.pts -= 100
                packet.dts = min(packet.dts, packet.pts)
            new.mux(packet)
    with VideoReader(path) as reader:
        assert reader.info.num_frames == 38
        numbers = [n for n in range(40) if n not in (10, 24)]
        assert [read_number(picture) for picture in reader.read([n / 10 for n in numbers]).pixels] == numbers
    for number in (9, 11, 23, 25):
        for others in ([], [3.9], [number / 10 + 0.2], [0.0]):
            with VideoReader(path) as reader:
                assert read_number(reader.read([number / 10, *others]).pixels[0]) == number
