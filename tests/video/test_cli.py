"""``timeloupe probe`` and ``timeloupe frames``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from tests.video.painting import Clip, read_number, write_clip
from timeloupe.cli.frames import frames
from timeloupe.cli.probe import probe
from timeloupe.errors import ConfigError, TimeloupeError, VideoError
from timeloupe.video.reader import VideoReader

GetClip = Callable[[str], Clip]

app = typer.Typer()
app.command()(probe)
app.command()(frames)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def failure(*words: object) -> TimeloupeError:
    result = call(*words)
    assert isinstance(result.exception, TimeloupeError), result.output
    assert result.stdout == ""
    return result.exception


def test_probe_json(clip: GetClip) -> None:
    path = clip("late_start.mp4").path
    facts = json.loads(call("probe", path, "--json").stdout)
    assert facts["path"] == str(path)
    assert facts["duration_seconds"] == pytest.approx(6.0)
    assert facts["start_seconds"] == pytest.approx(0.5)
    assert (facts["fps"], facts["num_frames"], facts["size_wh"], facts["codec"]) == (
        10.0,
        60,
        [128, 128],
        "h264",
    )
    assert facts["rotation_degrees"] == 0 and facts["sample_aspect_ratio"] == 1.0


def test_probe_for_people(clip: GetClip, tmp_path: Path) -> None:
    odd = tmp_path / "[bold]x.mp4"
    odd.write_bytes(clip("uneven.mp4").path.read_bytes())
    text = call("probe", odd).stdout
    assert "128 x 128" in text and "variable rate" in text and "[bold]x" in "".join(text.split())


def test_frames_json_rows(clip: GetClip) -> None:
    path = clip("bframes.mp4").path
    result = call("frames", path, "--at", "0.5, 2.75,0.5", "--json")
    rows = json.loads(result.stdout)
    assert [set(row) for row in rows] == [
        {"requested_seconds", "at_seconds", "duration_seconds", "size_wh", "sha256"}
    ] * 3
    assert [row["requested_seconds"] for row in rows] == [0.5, 2.75, 0.5]
    assert [row["at_seconds"] for row in rows] == pytest.approx([15 / 30, 82 / 30, 15 / 30])
    assert rows[0] == rows[2]
    with VideoReader(path) as reader:
        pixels = reader.read([2.75]).pixels[0]
    assert rows[1]["sha256"] == hashlib.sha256(pixels.tobytes()).hexdigest()
    assert rows[1]["size_wh"] == [128, 128] and rows[1]["duration_seconds"] == pytest.approx(1 / 30)


def test_frames_of_a_span(clip: GetClip) -> None:
    path = clip("constant.mp4").path
    rows = json.loads(call("frames", path, "--from", 1, "--to", 3, "--fps", 4, "--json").stdout)
    assert [row["requested_seconds"] for row in rows] == [1 + n / 4 for n in range(8)]
    assert len(json.loads(call("frames", path, "--from", 0, "--to", 6, "--json").stdout)) == 12
    text = call("frames", path, "--at", "1.05").stdout
    assert "1.050000" in text and "1.000000" in text and "128x128" in text


def test_frames_saved_by_time(clip: GetClip, tmp_path: Path) -> None:
    path = clip("constant.mp4").path
    folder = tmp_path / "deep" / "out"
    result = call("frames", path, "--at", "1.05,2.5", "--save", folder, "--json")
    assert len(json.loads(result.stdout)) == 2
    assert sorted(file.name for file in folder.iterdir()) == [
        "constant_000001.000000s.png",
        "constant_000002.500000s.png",
    ]
    picture = np.asarray(Image.open(folder / "constant_000002.500000s.png"))
    assert read_number(picture) == 25
    assert "saved 2 pictures in" in result.stderr and "already" not in result.stderr
    again = call("frames", path, "--at", "2.5,4,4.01", "--save", folder)  # the same picture again is fine
    assert again.exit_code == 0
    assert "saved 1 pictures in" in again.stderr and "1 were there already" in again.stderr
    other = folder / "constant_000003.000000s.png"
    other.write_bytes(b"mine")
    assert isinstance(failure("frames", path, "--at", "3", "--save", folder), ConfigError)
    assert other.read_bytes() == b"mine"
    assert isinstance(failure("frames", path, "--at", "3", "--save", other), ConfigError)


def test_frames_of_one_millisecond_have_names_of_their_own(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "fast.mp4", fps=4000, num_frames=12).path
    result = call("frames", path, "--from", 0, "--to", 0.003, "--fps", 4000, "--save", tmp_path / "out")
    assert result.exit_code == 0 and "saved 12 pictures" in result.stderr
    assert len(list((tmp_path / "out").iterdir())) == 12


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--at", "1", "--from", "1", "--to", "2"),
        ("--at", "1", "--fps", "2"),
        ("--from", "1"),
        ("--to", "1"),
        ("--fps", "1"),
        ("--from", "1", "--to", "2", "--fps", "0"),
        ("--from", "1", "--to", "2", "--fps", "-3"),
        ("--from", "1", "--to", "2", "--fps", "nan"),
        ("--from", "2", "--to", "2"),
        ("--from", "-1", "--to", "2"),
        ("--from", "0", "--to", "inf"),
        ("--from", "0", "--to", "5", "--fps", "1e9"),
        ("--at", "soon"),
        ("--at", "1,,2"),
        ("--at", ""),
        ("--at", "nan"),
        ("--at", "1;2"),
    ],
)
def test_bad_usage_is_exit_code_2(clip: GetClip, words: tuple[str, ...]) -> None:
    error = failure("frames", clip("constant.mp4").path, *words)
    assert error.exit_code == 2 and "allowed" in str(error)


def test_unreadable_videos_and_times_are_exit_code_1(clip: GetClip, tmp_path: Path) -> None:
    assert failure("probe", tmp_path / "none.mp4", "--json").exit_code == 1
    assert failure("frames", tmp_path / "none.mp4", "--at", "1", "--json").exit_code == 1
    folder = tmp_path / "out"
    error = failure("frames", clip("constant.mp4").path, "--at", "1,7", "--save", folder, "--json")
    assert isinstance(error, VideoError) and "allowed: 0 to 6.0" in str(error)
    assert not folder.exists()
