"""Frames that rows do not name, told by the videos, and views written as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.video.painting import write_clip
from timeloupe.data.formats.convert import Report, convert
from timeloupe.data.formats.frames import VideoFrames
from timeloupe.data.formats.row import View
from timeloupe.errors import RecordError
from timeloupe.trajectory import read_trajectories
from timeloupe.video.reader import VideoReader

SFT: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "<video>Which?\nA. a cat\nB. a dog"},
        {
            "role": "assistant",
            "content": "<think>Closer.</think><tool_call>"
            '{"name": "get_video_clip_frame", "arguments": [{"start_time": 1, "end_time": 3}]}</tool_call>',
        },
        {"role": "user", "content": "<video>There."},
        {"role": "assistant", "content": "<think>Seen.</think><answer>B</answer>"},
    ],
    "videos": ["clip.mp4", "clip_1_3.mp4"],
    "tool_params": [[1, 3]],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a video of four seconds and a row of supervised training over it."""
    write_clip(tmp_path / "clip.mp4", num_frames=40, fps=10)
    (tmp_path / "in.jsonl").write_text(json.dumps(SFT) + "\n", encoding="utf-8")
    return tmp_path


def run(folder: Path, to: str, source: str = "in.jsonl", **more: Any) -> tuple[Report, list[dict[str, Any]]]:
    out = folder / f"out.{to}"
    report = convert(folder / source, out, source_format="auto", target_format=to, **more)
    return report, [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_an_episode_gets_the_frames_that_it_would_have_been_shown(folder: Path) -> None:
    report, _ = run(folder, "trajectories")
    [episode] = read_trajectories(folder / "out.trajectories")
    [skim], [crop] = episode.skims, episode.crops
    with VideoReader(folder / "clip.mp4") as reader:
        duration = reader.info.duration_seconds
        assert reader.read(skim.at_seconds).at_seconds == skim.at_seconds
        assert reader.read(crop.at_seconds).at_seconds == crop.at_seconds
    assert (skim.start_seconds, skim.end_seconds, len(skim.at_seconds)) == (0.0, duration, 8)
    assert (crop.start_seconds, crop.end_seconds, len(crop.at_seconds)) == (1.0, 3.0, 4)
    assert all(1.0 <= at < 3.0 for at in crop.at_seconds)
    assert episode.example.options == ("a cat", "a dog") and episode.answer is not None
    assert (
        episode.answer.option == "B"
        and episode.stop == "answered"
        and episode.example.task == "multiple_choice"
    )
    # The clip's own file has no place in an episode: its frames are named by the original video.
    assert set(report.losses) == {"views.files"}


def test_back_from_the_episode_the_clip_is_named_by_reference(folder: Path) -> None:
    run(folder, "trajectories")
    report, [row] = run(folder, "swift_sft", "out.trajectories")
    assert row == SFT | {"videos": ["clip.mp4", "clip.mp4#t=1.0,3.0&fps=2.0"]}
    assert report.references == 1


def test_crops_are_written_as_videos_of_their_true_frames(folder: Path) -> None:
    run(folder, "trajectories")
    report, [row] = run(folder, "swift_sft", "out.trajectories", clips=folder / "clips")
    main, clip = row["videos"]
    assert main == "clip.mp4" and report.references == 0 and row["tool_params"] == [[1, 3]]
    [episode] = read_trajectories(folder / "out.trajectories")
    [crop] = episode.crops
    with VideoReader(folder / "clip.mp4") as original, VideoReader(clip) as written:
        wanted = original.read(crop.at_seconds, crop.size_wh)
        times = [at - crop.at_seconds[0] for at in crop.at_seconds]
        got = written.read(times)
    assert got.at_seconds == pytest.approx(times, abs=1e-6) and got.size_wh == crop.size_wh
    assert np.abs(got.pixels.astype(int) - wanted.pixels.astype(int)).mean() < 4
    made = Path(clip).stat().st_mtime_ns
    assert run(folder, "swift_sft", "out.trajectories", clips=folder / "clips")[1] == [row]
    assert Path(clip).stat().st_mtime_ns == made and [one.name for one in (folder / "clips").iterdir()] == [
        Path(clip).name
    ]


@pytest.mark.parametrize("name", ["trl", "openai"])
def test_frames_are_written_as_pictures_with_the_same_pixels(name: str, folder: Path) -> None:
    _, [row] = run(folder, name, clips=folder / "clips")
    parts = [
        part for one in row["messages"] if not isinstance(one["content"], str) for part in one["content"]
    ]
    images = (
        row["images"] if name == "trl" else [p["image_url"]["url"] for p in parts if p["type"] == "image_url"]
    )
    assert len(images) == 8 + 4 and len(set(images)) == 12
    frames = VideoFrames(folder)(View("clip.mp4", "skim", 0.0))
    with VideoReader(folder / "clip.mp4") as reader:
        crop = VideoFrames(folder)(View("clip.mp4", "crop", 1.0, 3.0))
        shown = (*frames.at_seconds, *crop.at_seconds)
        pixels = reader.read(shown, frames.size_wh).pixels
    for path, picture in zip(images, pixels, strict=True):
        assert (np.asarray(Image.open(path)) == picture).all()


def test_a_video_that_is_not_there_is_a_bad_row(folder: Path) -> None:
    (folder / "clip.mp4").rename(folder / "other.mp4")
    with pytest.raises(RecordError, match=r"in.jsonl:1 .*'videos': no 'clip.mp4' below .*--videos"):
        run(folder, "trajectories")
    (folder / "videos").mkdir()
    (folder / "other.mp4").rename(folder / "videos" / "clip.mp4")
    assert run(folder, "trajectories", videos=folder / "videos")[0].written == 1
    (folder / "videos" / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(RecordError, match=r"cannot read video"):
        run(folder, "trajectories")


def test_views_of_every_kind_are_placed_in_their_video(folder: Path) -> None:
    frames = VideoFrames(folder)
    assert len(frames(View("clip.mp4", "skim", 1.0, 3.0, 4.0)).at_seconds) == 8
    assert frames(View("clip.mp4", "image", 2.0)).view == "image"
    named = frames(View("clip.mp4", "crop", at_seconds=(1.0, 1.5, 2.0)))
    assert (named.start_seconds, named.end_seconds) == (0.75, 2.25) and len(named.at_seconds) == 3
    with pytest.raises(RecordError, match="begins at 90"):
        frames(View("clip.mp4", "crop", 90.0, 95.0))
