"""Fields that begin late in a file, which Hugging Face's reader of JSON fails on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from tests.data.formats.test_files import records
from timeloupe.cli.main import main
from timeloupe.data.formats.late import LateFields


def late(head_bytes: int, *rows: dict[str, Any]) -> dict[str, int]:
    noted = LateFields(head_bytes)
    for number, row in enumerate(rows):
        noted.take(number, row)
    return noted.first


@pytest.mark.parametrize(
    ("row", "places"),
    [
        ({"a": 1}, []),
        ({"b": 1}, ["b"]),
        ({"b": None, "c": []}, []),
        ({"c": [{"d": 1}]}, ["c[]"]),
        ({"a": 1.5}, ["a"]),
        ({"f": 2}, []),
        ({"o": {"x": [[1.5], ["y"]], "y": 1}}, ["o.x[][]", "o.y"]),
    ],
)
def test_a_field_is_late_that_the_beginning_has_no_kind_for(row: dict[str, Any], places: list[str]) -> None:
    head = {"a": 1, "c": [], "f": 1.5, "o": {"x": [[1, 2]]}}
    assert late(0, head, row, {"a": 2}, row) == dict.fromkeys(places, 1)


def test_the_row_in_which_the_beginning_ends_belongs_to_it() -> None:
    size = len(json.dumps({"a": 1})) + 1
    assert late(size - 1, {"a": 1}, {"b": 1}) == {"b": 1}
    assert late(size, {"a": 1}, {"b": 1}, {"c": 1}) == {"c": 2}


@settings(max_examples=30)
@given(records)
def test_a_short_file_has_none_and_rows_like_the_first_neither(rows: list[dict[str, Any]]) -> None:
    assert late(1 << 20, *rows) == {}
    size = sum(len(json.dumps(row, ensure_ascii=False).encode()) + 1 for row in rows)
    assert late(size - 1, *rows, *rows) == {}


def test_the_command_says_which_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(answer: str, solution: dict[str, str]) -> str:
        chat = [{"role": "user", "content": f"<video>\n{answer}"}]
        kind = {"data_type": "qa" if solution else "grounding", "timestamp": [[1.0, 2.0]]}
        return json.dumps({"messages": chat, "videos": ["v.mp4"], **kind, **solution}) + "\n"

    source = tmp_path / "in.jsonl"
    source.write_text(row("?" * 600_000, {}) * 18 + row("Why?", {"solution": "A"}), encoding="utf-8")
    assert main(["data", "convert", str(source), str(tmp_path / "out.jsonl"), "--to", "swift_rl"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "begins in row" in line]
    assert len(said) == 1 and said[0].startswith("'solution' begins in row 19, after the first 10 MiB")
