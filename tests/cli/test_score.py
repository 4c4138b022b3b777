"""``timeloupe score`` as a user runs it, on the world's own questions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timeloupe.cli.main import main


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Questions and truth as ``world make`` writes them, without the videos."""
    rows = [
        {"id": f"g{n}", "video": "videos/w.mp4", "question": "When?", "task": "grounding",
         "segments": [{"start_seconds": 10.0, "end_seconds": 20.0}]}
        for n in range(4)
    ]  # fmt: skip
    rows.append({"id": "m", "video": "videos/w.mp4", "question": "Which?", "task": "multiple_choice",
                 "options": ["1", "2"], "answer": "B"})  # fmt: skip
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    truth = {"video": "videos/w.mp4", "duration_seconds": 100.0}
    (tmp_path / "truth.jsonl").write_text(json.dumps(truth) + "\n", encoding="utf-8")
    return tmp_path


def predict(folder: Path, predictions: dict[str, str]) -> Path:
    """A file of predictions."""
    path = folder / "predictions.jsonl"
    lines = [json.dumps({"id": id, "prediction": text}) for id, text in predictions.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_score_says_what_is_missing_in_the_same_line(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = predict(world, {"g0": "10-20", "g1": "0:10 to 0:15", "g2": "who knows", "m": "B"})
    assert main(["score", "world", "--annotations", str(world), "--predictions", str(path)]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("strict "))
    assert "grounding mIoU 0.3750" in line and "multiple_choice accuracy 1.0000" in line
    assert "5 of 5 in the denominator; 1 unparsed; 1 missing" in line
    assert "whole video" in out and "constant letter" in out


def test_json_is_one_object_with_all_figures(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = predict(world, {"g0": "10-20"})
    assert main(["score", "world", "--annotations", str(world), "--predictions", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["missing"]) == (5, 4)
    assert found["modes"][0]["figures"]["grounding mIoU"] == 0.25
    assert found["trivial"]["whole video"]["figures"]["grounding mIoU"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["wrld"], 2, "allowed: activitynet_captions"),
        (["world", "--mode", "official:x"], 2, "allowed: strict, official, all"),
        (["world", "--annotations", "/nowhere"], 3, "world make"),
        (["world", "--predictions", "/nowhere"], 3, "no predictions at"),
    ],
)
def test_what_is_wrong_is_said_with_what_is_allowed(
    words: list[str], code: int, message: str, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = predict(world, {"g0": "10-20"})
    flags = ["--annotations", str(world), "--predictions", str(path)]
    assert main(["score", words[0], *flags, *words[1:]]) == code
    assert message in capsys.readouterr().err


def test_predictions_that_no_script_can_take_are_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record where a text or windows belong used to end the command with a traceback."""
    row = {"qid": "q", "vid": "v", "query": "sits", "duration": 30.0, "relevant_windows": [[1.0, 5.0]]}
    annotations, path = tmp_path / "charades.jsonl", tmp_path / "predictions.jsonl"
    lines = [row | {"video_file": "v.mp4"}, row | {"qid": "other", "query": "runs", "video_file": "v.mp4"}]
    annotations.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    path.write_text(json.dumps({"id": "q", "prediction": {"start": 1}}), encoding="utf-8")
    words = ["score", "charades_sta", "--annotations", str(annotations), "--predictions", str(path)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "1 of 2 questions have no prediction" in out
    (taro,) = [line for line in out.splitlines() if line.startswith("official:taro ")]
    assert "the script ends with KeyError" in taro
    (strict,) = [line for line in out.splitlines() if line.startswith("strict ")]
    assert "mIoU 0.0000" in strict and "1 unparsed; 1 missing" in strict


def test_a_file_in_no_layout_is_told_which_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, path = tmp_path / "annotations.jsonl", tmp_path / "predictions.json"
    row = {"qid": "q", "vid": "v", "query": "sits", "duration": 30.0, "relevant_windows": [[1.0, 5.0]]}
    annotations.write_text(json.dumps(row | {"video_file": "v.mp4"}), encoding="utf-8")
    path.write_text(json.dumps([{"what": 1}]), encoding="utf-8")
    words = ["score", "charades_sta", "--annotations", str(annotations), "--predictions", str(path)]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "the scripts of charades_sta" in err and 'JSONL of {"id": ..., "prediction": "text"}' in err
