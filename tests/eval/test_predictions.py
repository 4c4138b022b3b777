"""Predictions in every layout, and what is odd about a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.eval import strict
from timeloupe.eval.predictions import read_predictions
from timeloupe.eval.registry import MODULES, benchmark
from timeloupe.eval.scoreboard import score
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.sources import SOURCES
from timeloupe.runs import create_run
from timeloupe.trajectory import Answer, Example, Generation, Problem, StopReason, Trajectory, Turn, to_line

ROWS = [
    Row(id, f"{id}.mp4", "When?", "grounding", windows=((1.0, 2.0),), duration_seconds=9.0) for id in "abc"
]


def failing(rows: Sequence[Row], predictions: Predictions) -> Table:
    """A script that divides by nothing."""
    raise OfficialError("ZeroDivisionError", "division by zero")


BENCH = Benchmark("toy", "Toy", "test", "a file", lambda path: ROWS, {"Broken": failing}, strict.grounding)


def episode(id: str, text: str | None, stop: StopReason = StopReason.ANSWERED) -> Trajectory:
    """An episode of one turn."""
    turn = Turn(
        generation=Generation(text=text or ""),
        answer=Answer(text=text) if text is not None else None,
        problem=None if text is not None else Problem(reason="tags_missing", message="no"),
    )
    return Trajectory(
        example=Example(id=id, video="a.mp4", question="When?"), policy="scripted", protocol="videotemp",
        turns=(turn,), stop=stop,
    )  # fmt: skip


def test_a_run_folder_says_which_episodes_have_no_answer(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", {"seed": 0})
    run.append(episode("a", "1-2"))
    run.append(episode("b", None, StopReason.FORMAT))
    run.append(episode("c", None, StopReason.INFRASTRUCTURE))
    loaded = read_predictions(tmp_path / "run", BENCH, ROWS)
    assert loaded.by_id == {"a": "1-2", "b": ""}
    assert loaded.faults == {"format": 1, "machine": 1}
    board = score(BENCH, ROWS, loaded)
    assert (board.num_missing, board.num_empty) == (1, 1)
    assert board.tables[-1].failures == {"unparsed": 1, "missing": 1}


@pytest.mark.parametrize("key", ["id", "qid", "question_id", "uid"])
def test_lines_and_what_is_odd_about_them(key: str, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    lines = [
        {key: "a", "prediction": "1-2"},
        {key: "a", "prediction": "3-4"},
        {key: "zz", "prediction": "5-6"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    loaded = read_predictions(path, BENCH, ROWS)
    assert loaded.by_id == {"a": "3-4", "zz": "5-6"}
    assert (loaded.unknown, loaded.repeated) == (("zz",), 1)
    board = score(BENCH, ROWS, loaded, "strict")
    assert board.warnings(board.tables[0]) == [
        "1 with an id that the benchmark does not have", "1 repeated, the last one stands",
    ]  # fmt: skip


def test_one_object_and_a_file_of_trajectories(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"a": "1-2", "b": null}', encoding="utf-8")
    assert read_predictions(tmp_path / "p.json", BENCH, ROWS).by_id == {"a": "1-2", "b": None}
    (tmp_path / "t.jsonl").write_text(to_line(episode("a", "1-2")) + "\n", encoding="utf-8")
    assert read_predictions(tmp_path / "t.jsonl", BENCH, ROWS).by_id == {"a": "1-2"}


def test_what_cannot_be_read_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no predictions at"):
        read_predictions(tmp_path / "none.jsonl", BENCH, ROWS)
    path = tmp_path / "p.jsonl"
    for text, message in (
        ('{"id": "a", "prediction": "1-2"}\n{"id": "b"}\n', "p.jsonl:2 has keys"),
        ('{"id": "a", "prediction": "1-2"}\n[1]\n', "p.jsonl:2 is no JSON object"),
        ('{"id": "a", "prediction": "1-2"}\n{"id"', "p.jsonl:2 is not JSON"),
        ("", "in no layout that is known"),
        ('{"x": 1}', "in no layout that is known"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RecordError, match=message):
            read_predictions(path, BENCH, ROWS)
    path.write_text('{"id": "q", "prediction": "1-2"}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="of one benchmark and split"):
        read_predictions(path, BENCH, ROWS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="in no layout"):
        read_predictions(tmp_path / "empty", BENCH, ROWS)


def test_a_script_that_fails_says_so_and_the_others_are_scored(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"a": "1-2", "b": "1-2", "c": "1-2"}', encoding="utf-8")
    loaded = read_predictions(path, BENCH, ROWS)
    broken, strictly = score(BENCH, ROWS, loaded).tables
    assert (broken.mode, broken.error) == ("official:Broken", "ZeroDivisionError: division by zero")
    assert strictly.figures["mIoU"] == 1.0
    with pytest.raises(ConfigError, match="official:Broken"):
        score(BENCH, ROWS, loaded, "official:other")


@pytest.mark.parametrize("name", MODULES)
def test_every_benchmark_is_there_and_says_what_it_is(name: str) -> None:
    found = benchmark(name)
    assert found.name == name
    assert found.title and found.split and found.files
    assert found.official.keys() <= SOURCES.keys()
    assert benchmark(name.replace("_", "-").upper()) is found


def test_an_unknown_benchmark_names_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match="charades_sta"):
        benchmark("charade")


NO_ANNOTATIONS = {
    "empty.json": "",
    "blank.jsonl": "\n \n",
    "list.json": "[]",
    "records.json": '[{"a": 1}]',
    "object.json": '{"a": {"b": 1}}',
    "number.json": "3",
    "deep.json": "[" * 100_000,
    "header.csv": "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n",
    "binary.json": "\udcff\udcfe\x00",
}


@pytest.mark.parametrize("name", MODULES)
def test_annotations_that_hold_no_question_are_refused_and_never_scored(name: str, tmp_path: Path) -> None:
    for file, text in NO_ANNOTATIONS.items():
        path = tmp_path / file
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises((RecordError, MissingError)) as caught:
            benchmark(name).load(path)
        assert "\n" not in str(caught.value)


def test_files_that_break_a_reader_are_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    for text in ("[" * 100_000, '{"a":' * 100_000, '{"id": "a", "prediction": ' + "[" * 100_000, "9" * 5000):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(RecordError):
            read_predictions(path, BENCH, ROWS)
    for text in ('{"a": "1-2"}', '{"id": "a", "prediction": "1-2"}'):
        path.write_text(text, encoding="utf-8-sig")
        assert read_predictions(path, BENCH, ROWS).by_id == {"a": "1-2"}


def test_a_number_too_large_for_a_float_is_no_time() -> None:
    for huge in (10**400, -(10**400), float("nan"), float("inf")):
        table = strict.grounding(ROWS[:1], {"a": [[1.0, huge]]})
        assert (table.figures["mIoU"], table.failures) == (0.0, {"unparsed": 1})


@pytest.mark.parametrize("name", MODULES)
def test_a_folder_that_is_no_run_is_refused_with_what_is_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises((RecordError, MissingError), match="every benchmark takes a run folder"):
        read_predictions(tmp_path, benchmark(name), ROWS)
