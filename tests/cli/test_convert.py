"""``timeloupe data convert`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from timeloupe.cli.main import main

ROWS: list[dict[str, Any]] = [
    {"idx": 0, "problem": "When?", "solution": [[0, 2.5]], "video": "a.mp4", "duration": 9.5, "task": "tvg"},
    {"idx": 1, "problem": "Each time?", "solution": [[0, 1], [3, 4]], "video": "b.mp4", "task": "tal"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return path


def test_in_a_process_of_its_own_it_prints_what_is_not_held(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "timeloupe", "data", "convert", str(rows), str(out), "--to", "examples"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{rows} (museg) -> {out} (examples): 2 of 2 rows",
        "  not held: extra.duration_seconds, left out in 1 of 2 rows",
    ]
    assert [json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()] == ["0", "1"]


def test_json_has_the_same_and_nothing_else_is_on_stdout(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with rows.open("a", encoding="utf-8") as file:
        file.write('{"problem": "no more"}\n')
    words = ["data", "convert", str(rows), str(tmp_path / "out"), "--from", "museg", "--to", "taro_eval"]
    assert main([*words, "--skip-bad", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "source": "museg", "target": "taro_eval", "read": 3, "written": 2, "bad": 1,
        "first_bad": [f"{rows}:3: field 'task' is missing"],
        "losses": {}, "references": 0, "relative": 0, "late": {},
    }  # fmt: skip
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == f"timeloupe: {rows}:3: field 'task' is missing\n"


def test_nothing_lost_is_said_too(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sub").mkdir()
    assert main(["data", "convert", str(rows), str(tmp_path / "sub" / "out"), "--to", "museg"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "nothing is lost",
        f"2 rows name videos relative to {str(tmp_path)!r}, where they were read",
    ]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--to", "jsonl"], 2, "format of rows, got 'jsonl', allowed: examples, trajectories"),
        (["--to", "museg", "--from", "x"], 2, "got 'x'"),
        (["--to", "museg", "--protocol", "x"], 2, "protocol, got 'x', allowed: videotemp"),
        (
            ["--to", "museg", "--write-clips", "clips"],
            2,
            "'museg', allowed: swift_sft, trl, openai, leave out",
        ),
        (["--to", "swift_rl", "--from", "taro"], 1, "in.jsonl:1: field 'extra_info' is missing"),
        (["--to", "openo3", "--skip-bad"], 0, ""),
    ],
)
def test_exit_codes(
    words: list[str], code: int, says: str, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["data", "convert", str(rows), str(out), *words]) == code
    assert says in capsys.readouterr().err
    assert out.exists() == (code == 0) and not (tmp_path / "clips").exists()
    assert main(["data", "convert", str(tmp_path / "none"), str(out), "--to", "museg"]) == 3
