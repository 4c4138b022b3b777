"""Real videos against FFmpeg's own frame lists and frames that other tools decoded."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from timeloupe.errors import VideoError
from timeloupe.video.container import decode_or_none, open_video, read_packets
from timeloupe.video.image import orientation_of, upright
from timeloupe.video.index import load_index
from timeloupe.video.probe import probe
from timeloupe.video.reader import VideoReader

DAMAGED = "corrupted.mp4"
_LONGEST_SECONDS = 45.0


@pytest.fixture(scope="module")
def videos(shared_dir: Path) -> Path:
    folder = shared_dir / "evaldata" / "videos"
    if not folder.is_dir():
        pytest.skip(f"no videos at {str(folder)!r}")
    return folder


def truth_files(videos: Path) -> list[Path]:
    return sorted((videos / "frame_truth" / "pts").glob("*.json"))


def test_presentation_times_are_ffprobes(videos: Path) -> None:
    files = truth_files(videos)
    assert len(files) >= 25
    for file in files:
        truth = json.loads(file.read_text())
        if truth["video"] == DAMAGED:
            continue
        stamps = np.array([float(frame["pts_time"]) for frame in truth["frames"]])
        index = load_index(videos / truth["video"])
        assert len(index.times_N) == len(stamps), truth["video"]
        assert np.abs(index.times_N - (stamps - stamps[0])).max() < 2e-6, truth["video"]
        assert index.start_seconds == pytest.approx(stamps[0], abs=1e-6)
        # A time as printed by ffprobe finds its frame.
        assert index.frames_at((stamps - stamps[0]).tolist()) == list(range(len(stamps))), truth["video"]


def test_random_access_gives_the_pixels_of_sequential_decoding(videos: Path) -> None:
    compared = 0
    for file in truth_files(videos):
        path = videos / json.loads(file.read_text())["video"]
        info = probe(path)
        if path.name == DAMAGED or info.duration_seconds > _LONGEST_SECONDS:
            continue
        index = load_index(path)
        rng = random.Random(path.name)
        wanted = sorted(rng.sample(range(info.num_frames), min(info.num_frames, 10)))
        by_pts = {int(index.pts_N[frame]): frame for frame in wanted}
        truth: dict[int, np.ndarray] = {}
        container, stream = open_video(path)
        with container:
            for packet in (*read_packets(container, stream), None):
                for frame in decode_or_none(stream, packet) or ():
                    if frame.pts in by_pts:
                        pixels = frame.to_ndarray(format="rgb24")
                        truth[by_pts[frame.pts]] = upright(pixels, orientation_of(frame))
        assert sorted(truth) == wanted, path.name
        shuffled = wanted[:]
        rng.shuffle(shuffled)
        with VideoReader(path) as reader:
            starts = [index.frame_seconds(frame) for frame in shuffled]
            got = reader.read([start + rng.random() * stays * 0.99 for start, stays in starts])
            for frame, picture in zip(shuffled, got.pixels, strict=True):
                assert np.array_equal(picture, truth[frame]), f"{path.name} frame {frame}"
                compared += 1
    assert compared > 200


def test_frames_that_torchcodec_ships(videos: Path) -> None:
    with np.load(videos / "frame_truth" / "nasa_13013_torchcodec_frames.npz") as shipped:
        stream3 = {name: shipped[name] for name in shipped.files if name.startswith("stream3.frame")}
    assert stream3
    path = videos / "nasa_13013.mp4"
    index = load_index(path)
    assert index.stream_index == 3
    with VideoReader(path) as reader:
        for name, pixels in stream3.items():
            frame = int(name.removeprefix("stream3.frame"))
            assert np.array_equal(reader.read([float(index.times_N[frame])]).pixels[0], pixels), name


def test_burnt_in_numbers(videos: Path) -> None:
    with VideoReader(videos / "counter.mp4") as reader:
        for number in (1, 2, 10, 15, 30):
            truth = np.asarray(
                Image.open(videos / "frame_truth" / "counter" / f"frame{number:03d}.png").convert("RGB")
            )
            near = {
                other: np.abs(reader.read([(other - 0.5) / 10]).pixels[0].astype(int) - truth).mean()
                for other in range(max(1, number - 1), min(30, number + 1) + 1)
            }
            assert min(near, key=lambda other: near[other]) == number and near[number] < 2


def test_rotations(videos: Path) -> None:
    found = {
        name: (probe(videos / name).size_wh, probe(videos / name).rotation_degrees)
        for name in ("rotation_0.mov", "rotation_90.mov", "rotation_180.mov")
    }
    assert found["rotation_0.mov"] == ((568, 320), 0)
    assert found["rotation_90.mov"][0] == (320, 568)
    assert found["rotation_180.mov"] == ((568, 320), 180)


def test_the_damaged_file_is_reported_where_it_is_damaged(videos: Path) -> None:
    path = videos / DAMAGED
    index = load_index(path)
    clean = refused = 0
    for seconds in index.times_N.tolist()[::4]:
        with VideoReader(path) as reader:
            try:
                reader.read([seconds], (64, 36))
                clean += 1
                assert not refused  # one keyframe only: all that follows the damage depends on it
            except VideoError as error:
                refused += 1
                assert error.at_seconds is not None and error.until_seconds is not None
                assert error.at_seconds <= seconds <= error.until_seconds
    assert clean and refused
