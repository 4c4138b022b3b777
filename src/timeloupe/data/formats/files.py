"""Records in and out of files: lines of JSON, one JSON list, parquet. Read and written a piece at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from timeloupe.errors import MissingError, RecordError
from timeloupe.eval.files.records import Record, parse_json

PIECE = 1 << 20
"""Characters of a JSON list that are read at a time."""

ROWS_PER_GROUP = 1_000
"""Rows of a parquet file that are held at a time."""

Fault = RecordError
Found = Record | Fault
"""A record, or why there is none in its place; what comes after it can still be read."""


def read_records(path: Path) -> Iterator[Found]:
    """Yield the records of a file in order, whichever of the three kinds it is: told by what is in it.

    Raises:
        MissingError: There is no such file, or it is parquet and pyarrow is not installed.
        RecordError: The rest of it cannot be read: a JSON list that is broken, or no text.
    """
    if not path.is_file():
        raise MissingError(f"no file of rows at {str(path)!r}")
    with path.open("rb") as file:
        head = file.read(4)
    if head == b"PAR1":
        yield from _parquet_records(path)
        return
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        try:
            first = file.read(1)
            while first.isspace():
                first = file.read(1)
            file.seek(0)
            yield from _listed(path, file) if first == "[" else _lines(path, file)
        except UnicodeDecodeError as error:
            raise RecordError(f"{path} is not UTF-8 text: {error}") from error


def _lines(path: Path, file: IO[str]) -> Iterator[Found]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield _record(f"{path}:{number}", line)


def _record(where: str, text: str) -> Found:
    try:
        value = parse_json(text)
    except ValueError as error:
        return RecordError(f"{where} is not JSON: {error}")
    return _object(where, value)


def _object(where: str, value: object) -> Found:
    return (
        Record(where, value)
        if isinstance(value, dict)
        else RecordError(f"{where} is no object: {value!r:.80}")
    )


def _listed(path: Path, file: IO[str]) -> Iterator[Found]:
    """Yield the records of one JSON list; ``where`` names the line on which each begins."""
    text = _Text(path, file)
    text.skip("[")
    first = True
    while True:
        if text.peek() == "]":
            text.skip("]")
            break
        if not first:
            text.skip(",")
            text.peek()
        where = f"{path}:{text.line}"
        yield _object(where, text.value())
        first = False
    if text.peek():
        raise RecordError(f"{path}:{text.line} goes on after the list, with {text.peek()!r}")


class _Text:
    """The text of a JSON list, of which little more than one record is held."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path = path
        self.line = 1
        self._file = file
        self._held = ""
        self._at = 0
        self._ended = False
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Return the next character that is no blank, empty at the end."""
        while True:
            while self._at < len(self._held) and self._held[self._at] in " \t\r\n":
                self.line += self._held[self._at] == "\n"
                self._at += 1
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more():
                return ""

    def skip(self, wanted: str) -> None:
        """Go past one character.

        Raises:
            RecordError: Another one stands there.
        """
        if self.peek() != wanted:
            raise RecordError(f"{self.path}:{self.line} must have {wanted!r} here, got {self.peek()!r}")
        self._at += 1

    def value(self) -> Any:
        """Return the value that begins here, and go past it.

        Raises:
            RecordError: There is none that can be read.
        """
        wanted = PIECE
        while True:
            try:
                value, end = self._decoder.raw_decode(self._held, self._at)
                # A number at the end of what is held may go on in what is not.
                if end < len(self._held) or self._ended:
                    self.line += self._held.count("\n", self._at, end)
                    self._at = end
                    return value
                fault = None
            except ValueError as error:
                fault = str(error)  # the error itself holds on to all of the text
            except RecursionError:
                raise RecordError(f"{self.path}:{self.line} is nested too deep") from None
            # Asking for twice as much each time keeps the work linear in the length of the value.
            if not self._more(wanted):
                if fault is None:
                    continue
                raise RecordError(f"{self.path}:{self.line} is not JSON: {fault}") from None
            wanted *= 2

    def _more(self, wanted: int = PIECE) -> bool:
        piece = self._file.read(wanted)
        if not piece:
            went_on = not self._ended
            self._ended = True
            return went_on and self._at < len(self._held)
        self._held = self._held[self._at :] + piece
        self._at = 0
        return True


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingError(
            "parquet files need pyarrow, which is not installed; install it with: pip install 'timeloupe[parquet]'"
        ) from error
    return pyarrow


def _parquet_records(path: Path) -> Iterator[Found]:
    pyarrow = _pyarrow()
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=ROWS_PER_GROUP):
                for fields in batch.to_pylist():
                    yield _object(f"{path}, row {number}", fields)
                    number += 1
    except pyarrow.ArrowException as error:
        raise RecordError(f"{path} is not parquet that can be read: {error}") from error


Add = Callable[[dict[str, Any]], None]


@contextmanager
def write_records(path: Path, container: str, columns: Callable[[], Any] | None = None) -> Iterator[Add]:
    """Give a function that adds a record to the file at ``path``, which appears whole at the end or not at all.

    Args:
        path: Where; the folder must exist.
        container: ``jsonl``, ``json`` or ``parquet``.
        columns: For parquet, returns the types of the columns.

    Raises:
        MissingError: ``container`` is parquet and pyarrow is not installed.
    """
    if container == "parquet":
        _pyarrow()
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            if container == "parquet":
                assert columns is not None
                with _parquet_writer(file, columns()) as add:
                    yield add
            else:
                with _json_writer(file, listed=container == "json") as add:
                    yield add
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _json_writer(file: IO[bytes], *, listed: bool) -> Iterator[Add]:
    between = b""

    def add(record: dict[str, Any]) -> None:
        nonlocal between
        file.write(between + encoded(record))
        between = b",\n" if listed else b"\n"

    file.write(b"[" if listed else b"")
    yield add
    file.write(b"]\n" if listed else between)


def encoded(record: dict[str, Any]) -> bytes:
    """Return a record as one line of strict JSON.

    Raises:
        RecordError: It holds a number that is not finite, or a text that has no UTF-8.
    """
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # UnicodeEncodeError is one
        raise RecordError(f"the row cannot be written: {error}") from error


@contextmanager
def _parquet_writer(file: IO[bytes], schema: Any) -> Iterator[Add]:
    pyarrow = _pyarrow()
    held: list[dict[str, Any]] = []
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:

        def flush() -> None:
            if held:
                writer.write_table(pyarrow.Table.from_pylist(held, schema=schema))
                held.clear()

        def add(record: dict[str, Any]) -> None:
            encoded(record)  # what has no UTF-8 must fail here, not with the whole group
            held.append(record)
            if len(held) >= ROWS_PER_GROUP:
                flush()

        yield add
        flush()
