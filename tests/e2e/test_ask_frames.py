"""``timeloupe ask``: which frames are decoded, kept on disk, approximated, and when a video is given up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environment.clips import write_clip
from timeloupe.cli.frame_cache import parse_bytes
from timeloupe.cli.main import main
from timeloupe.errors import ConfigError
from timeloupe.trajectory import StopReason, Trajectory

COMMAND = Path(sys.executable).with_name("timeloupe")
REPLIES = [
    '<think>Closer.</think><tool_call>{"name":"get_video_clip_frame","arguments":'
    '[{"start_time":12,"end_time":15.5}]}</tool_call>',
    "<think>There.</think><answer>[12.5, 14]</answer>",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    write_clip(folder / "pond.mp4", "blue", 24)
    (folder / "script.json").write_text(json.dumps({"replies": {"*": REPLIES}}))
    return folder


def words(folder: Path, *options: str) -> list[str]:
    script = str(folder / "script.json")
    return ["ask", str(folder / "pond.mp4"), "When?", "--script", script, "--frames", "8", *options]


def installed(folder: Path, *options: str, **environment: str) -> tuple[Trajectory, str]:
    if not COMMAND.exists():
        pytest.skip("the timeloupe command is not installed beside this Python")
    done = subprocess.run(
        [COMMAND, *words(folder, "--json", *options)], capture_output=True, text=True, timeout=120,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Trajectory.model_validate_json(done.stdout), done.stderr


def test_a_second_question_decodes_nothing(folder: Path, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    first, told = installed(folder, "--cache-dir", kept)
    assert first.frames_decoded > 0 and first.stop is StopReason.ANSWERED
    assert f"{first.frames_decoded} frames decoded, {first.frames_cached} from the cache" in told
    second, told = installed(folder, TIMELOUPE_CACHE_DIR=kept)
    shown = {at for ref in (*first.skims, *first.crops) for at in ref.at_seconds}
    assert (second.frames_decoded, second.frames_cached) == (0, 8 + 6)
    assert len(shown) <= 14 and "0 frames decoded, 14 from the cache" in told
    assert (second.skims, second.crops) == (first.skims, first.crops)
    third, _ = installed(folder)
    assert (third.frames_decoded, third.frames_cached) == (first.frames_decoded, first.frames_cached)


def test_the_cache_on_disk_is_bounded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    options = ("--cache-dir", str(kept), "--cache-bytes", "1MB")
    assert main(words(folder, *options, "--frames", "24")) == 0
    assert 0 < sum(path.stat().st_size for path in kept.iterdir()) <= 1_000_000
    assert main(words(folder, "--cache-bytes", "1MB")) == 2
    assert "--cache-bytes goes with --cache-dir" in capsys.readouterr().err
    assert main(words(folder, "--cache-dir", str(kept), "--cache-bytes", "lots")) == 2
    assert "--cache-bytes, got 'lots', allowed: bytes, such as" in capsys.readouterr().err
    assert main(words(folder, "--cache-dir", str(folder / "pond.mp4"))) == 2
    assert "the frame cache needs a folder" in capsys.readouterr().err


def test_a_skim_by_keyframes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(folder, "--approximate", "keyframes", "--json")) == 0
    found = Trajectory.model_validate_json(capsys.readouterr().out)
    assert found.settings["skim_approximate"] == "keyframes"
    assert all(at == int(at) for at in found.skims[0].at_seconds)  # one keyframe a second
    assert any(at != int(at) for at in found.crops[0].at_seconds)
    assert main(words(folder, "--approximate", "roughly")) == 2
    assert "skim_approximate" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "stands"), [(None, 60.0), ("5", 5.0), ("0", None)])
def test_the_deadline_stands_in_the_record(
    folder: Path, given: str | None, stands: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    options = () if given is None else ("--deadline", given)
    assert main(words(folder, "--json", *options)) == 0
    assert (
        Trajectory.model_validate_json(capsys.readouterr().out).settings["video_deadline_seconds"] == stands
    )
    assert main(words(folder, "--deadline", "-1")) == 2
    assert "video_deadline_seconds: Input should be greater than 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1000000", 10**6),
        ("500MB", 5 * 10**8),
        ("2GiB", 2**31),
        ("1.5 kib", 1536),
        ("3k", 3000),
        ("7B", 7),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_bytes("--cache-bytes", text) == expected


@pytest.mark.parametrize("text", ["", "MB", "-1", "1e9", "2iB", "5 apples", "1.2.3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="--cache-bytes"):
        parse_bytes("--cache-bytes", text)
