"""Records in and out of files: pieces, lines, faults, and what is there when something goes wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.data.formats import files
from timeloupe.data.formats.files import read_records, write_records
from timeloupe.errors import MissingError, RecordError
from timeloupe.eval.files.records import Record

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
records = st.lists(st.dictionaries(texts, values, max_size=4), max_size=6)
blanks = st.text(" \t\r\n", max_size=3)


def found(path: Path) -> list[Any]:
    """Fields of the records, the text of the faults."""
    return [one.fields if isinstance(one, Record) else str(one) for one in read_records(path)]


@pytest.mark.parametrize("container", ["jsonl", "json"])
@settings(max_examples=40)
@given(records=records)
def test_what_is_written_is_read(
    container: str, records: list[dict[str, Any]], tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("files") / "rows"
    with write_records(path, container) as add:
        for record in records:
            add(record)
    assert found(path) == records
    text = path.read_text(encoding="utf-8")
    read = json.loads(text) if container == "json" else [json.loads(line) for line in text.split("\n")[:-1]]
    assert read == records
    assert [one.name for one in path.parent.iterdir()] == ["rows"]


@settings(max_examples=60)
@given(records=records, piece=st.integers(1, 40), data=st.data())
def test_a_list_is_read_in_pieces_of_any_size(
    records: list[dict[str, Any]], piece: int, data: st.DataObject, tmp_path_factory: Any
) -> None:
    """Every record is named by the line that it begins on, however the list is laid out."""
    path = tmp_path_factory.mktemp("files") / "rows.json"
    text, lines = data.draw(blanks) + "[" + data.draw(blanks), []
    for at, record in enumerate(records):
        text += ("," if at else "") + data.draw(blanks)
        lines.append(text.count("\n") + 1)
        text += json.dumps(record, indent=data.draw(st.none() | st.just(1))) + data.draw(blanks)
    path.write_bytes((text + "]" + data.draw(blanks)).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "PIECE", piece)
        read = list(read_records(path))
    assert [one.fields for one in read if isinstance(one, Record)] == records
    assert [one.where for one in read if isinstance(one, Record)] == [f"{path}:{line}" for line in lines]


def test_faults_of_single_lines_are_told_and_the_next_ones_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('\ufeff{"a": 1}\r\n\n{"a": \n[1]\n"x"\n{"a": "\u2028"}'.encode())
    first, second, third, fourth, last = found(path)
    assert (first, last) == ({"a": 1}, {"a": "\u2028"})
    assert second.startswith(f"{path}:3 is not JSON") and third == f"{path}:4 is no object: [1]"
    assert fourth == f"{path}:5 is no object: 'x'"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1}', r":1 must have ',' here, got ''"),
        ('[{"a": 1} {"a": 2}]', r":1 must have ',' here, got '{'"),
        ('[\n{"a": 1},\n{"a": }]', r":3 is not JSON"),
        ('[{"a": 1}] more', r":1 goes on after the list, with 'm'"),
        ("[{" + '"a":[' * 100_000, r"(nested too deep|not JSON)"),
        ('[{"a": 1},', r":1 is not JSON"),
    ],
)
def test_a_broken_list_is_named_by_its_line(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=says):
        found(path)


def test_what_is_no_text_and_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(MissingError, match=r"rows\.jsonl"):
        found(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(RecordError, match="UTF-8"):
        found(path)


@pytest.mark.parametrize("container", ["jsonl", "json"])
def test_a_failure_leaves_the_old_file_and_nothing_else(container: str, tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), write_records(path, container) as add:
        add({"a": 1})
        raise KeyboardInterrupt
    for bad in (float("nan"), "\ud800"):
        with pytest.raises(RecordError, match="cannot be written"), write_records(path, container) as add:
            add({"a": bad})
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_a_long_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """Both ways: what is held grows with a record and a piece, not with the file."""
    import tracemalloc

    record = {"text": "x" * 1000}
    peaks = []
    for container in ("jsonl", "json"):
        path = tmp_path / container
        tracemalloc.start()
        with write_records(path, container) as add:
            for _ in range(20_000):
                add(record)
        count = sum(1 for _ in read_records(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == 20_000 and path.stat().st_size > 20_000_000
    assert max(peaks) < 12_000_000, peaks


# -- parquet -----------------------------------------------------------------------------------------------------------


def columns() -> Any:
    import pyarrow as pa

    return pa.schema([("text", pa.string()), ("spans", pa.list_(pa.list_(pa.float64()))), ("n", pa.int64())])


def test_parquet_is_written_in_groups_and_read_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="parquet files need pyarrow")
    monkeypatch.setattr(files, "ROWS_PER_GROUP", 4)
    path = tmp_path / "rows.any"
    rows = [
        {"text": None if n == 3 else f"é{n}", "spans": [[0.1, n + 0.5]] * (n % 3), "n": n} for n in range(10)
    ]
    with write_records(path, "parquet", columns) as add:
        for row in rows:
            add(row)
    assert found(path) == rows
    assert parquet.ParquetFile(path).num_row_groups == 3
    first = path.read_bytes()
    with write_records(path, "parquet", columns) as add:
        for row in rows:
            add(row)
    assert path.read_bytes() == first
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(RecordError, match="parquet"):
        found(path)


def test_an_empty_parquet_file_has_its_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="parquet files need pyarrow")
    path = tmp_path / "rows.parquet"
    with write_records(path, "parquet", columns):
        pass
    assert parquet.read_schema(path).names == ["text", "spans", "n"]


def test_without_pyarrow_parquet_is_missing_and_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "rows.parquet"
    with (
        pytest.raises(MissingError, match=r"pip install 'timeloupe\[parquet\]'"),
        write_records(path, "parquet", columns),
    ):
        pass
    path.write_bytes(b"PAR1PAR1")
    with pytest.raises(MissingError, match="pyarrow"):
        found(path)
    assert list(tmp_path.iterdir()) == [path]
