"""``timeloupe data check`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from timeloupe.cli.main import main


def line(id: str, window: list[float], **more: Any) -> str:
    record = {"qid": id, "query": f"{id}?", "vid": f"v{id}", "duration": 10, "relevant_windows": [window]}
    return json.dumps(record | more)


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Two good rows, one that ends late, one without length."""
    path = tmp_path / "moments.jsonl"
    lines = [line("a", [1, 2]), line("b", [3, 4]), line("c", [9, 11]), line("d", [5, 5])]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_errors_end_in_exit_code_1(annotations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(annotations)]) == 1
    out = capsys.readouterr().out
    assert "4 rows, 4 videos" in out
    assert any({"error", "label_no_length", "1", "d:"} <= set(found.split()) for found in out.splitlines())
    assert any({"warning", "label_past_end", "1", "c:"} <= set(found.split()) for found in out.splitlines())


def test_warnings_do_not(annotations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = annotations.read_text(encoding="utf-8").splitlines()
    annotations.write_text("\n".join(lines[:3]), encoding="utf-8")
    assert main(["data", "check", str(annotations), "--benchmark", "qvhighlights"]) == 0
    assert "(qvhighlights)" in capsys.readouterr().out
    annotations.write_text("\n".join(lines[:2]), encoding="utf-8")
    assert main(["data", "check", str(annotations)]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_json_of_a_folder_in_a_process_of_its_own(annotations: Path) -> None:
    folder = annotations.parent
    (folder / "videos").mkdir()
    (folder / "predictions.json").write_text("[1]", encoding="utf-8")
    (folder / "train").mkdir()
    train = folder / "train" / "train.jsonl"
    train.write_text(line("b", [0, 1], query="Else?"), encoding="utf-8")
    words = [str(annotations), "--videos", str(folder / "videos"), "--train", str(train), "--json"]
    command = [sys.executable, "-m", "timeloupe", "data", "check", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    [source] = json.loads(done.stdout)["sources"]
    found = {one["check"]: (one["severity"], one["rows"]) for one in source["findings"]}
    assert found == {
        "label_no_length": ("error", ["d"]),
        "missing_video": ("error", ["va", "vb", "vc", "vd"]),
        "train_video": ("error", ["b"]),
        "label_past_end": ("warning", ["c"]),
    }
    assert source["coverage"]["rows"] == 4


def test_files_that_are_no_annotations_are_named(
    annotations: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (annotations.parent / "predictions.json").write_text("[1]", encoding="utf-8")
    assert main(["data", "check", str(annotations.parent)]) == 1
    assert "not annotations of a known layout: predictions.json" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nowhere.json"], 3, "nowhere.json"),
        (["FILE", "--benchmark", "nosuch"], 2, "nosuch"),
        (["FILE", "--videos", "nowhere"], 3, "nowhere"),
        (["FILE", "--train", "nowhere"], 3, "nowhere"),
        (["OTHER"], 1, "no known layout"),
    ],
)
def test_wrong_use(
    annotations: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    other = annotations.parent / "other.json"
    other.write_text("[1]", encoding="utf-8")
    places = {"FILE": str(annotations), "OTHER": str(other)}
    assert main(["data", "check", *(places.get(word, word) for word in words)]) == code
    assert message in capsys.readouterr().err
