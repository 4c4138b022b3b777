"""Annotation files as rows: of any benchmark or format of training rows, told by what is in them."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timeloupe.data.formats.convert import read_row, told
from timeloupe.data.formats.files import read_records
from timeloupe.data.formats.frames import VideoFrames
from timeloupe.data.formats.registry import MODULES as FORMATS
from timeloupe.data.formats.registry import format_named
from timeloupe.data.formats.row import CLIP, DURATION, Format
from timeloupe.data.formats.row import Row as TrainingRow
from timeloupe.errors import MissingError, RecordError, TimeloupeError, boundary
from timeloupe.eval.files import grounding as grounding_files
from timeloupe.eval.files.records import parse_json
from timeloupe.eval.registry import MODULES, benchmark
from timeloupe.eval.scoring import Row

EXAMPLES = "examples"
GROUNDING = "grounding"
SUFFIXES = (".json", ".jsonl", ".csv", ".txt")
_FIRST_RECORDS = 5

# The layouts of these are all the same ones; a file of theirs is told from other benchmarks', not among them.
_OF_ONE_FAMILY = (
    *("activitynet_captions", "charades_sta", "museg_grounding", "qvhighlights", "timelens", "tvgbench"),
    "videotemp_bench_grounding",
)
_TOLD_BY_CONTENT = tuple(name for name in MODULES if name not in (*_OF_ONE_FAMILY, "world"))


@dataclass(frozen=True)
class Source:
    """What was read from one file, or from a folder that a benchmark reads as one.

    Attributes:
        path: The file or folder.
        layout: Name of the benchmark whose reader took it, ``grounding`` for the layouts that several share, or
            that of a format of training rows, such as ``examples``.
        rows: Its rows; none where the reader stopped at a fault.
        faults: Why records, or the whole file, could not be read.
        warnings: What the reader had to overlook.
    """

    path: Path
    layout: str
    rows: tuple[Row, ...]
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_sources(path: Path, layout: str | None = None) -> tuple[list[Source], list[Path]]:
    """Return what there is at ``path``, and the files of a folder that no reader takes (predictions, notes, ...).

    Args:
        path: An annotation file, or a folder: then all files below it with one of ``SUFFIXES``.
        layout: Name of a benchmark, of a format of training rows, or ``grounding``; ``None`` = told by what is in each
            file.

    Raises:
        ConfigError: There is no such layout.
        MissingError: There is nothing at ``path``, or nothing that a reader takes.
        RecordError: ``path`` is one file, in no known layout.
    """
    if layout is not None and layout != GROUNDING and layout not in FORMATS:
        layout = benchmark(layout).name
    if not path.exists():
        raise MissingError(f"no annotations at {str(path)!r}")
    if path.is_file():
        found = _wanted(path, layout) if layout else _told(path)
        if found is None:
            raise RecordError(
                f"{path} is in no known layout; with --benchmark NAME its reader says what is wrong, "
                f"NAME is one of {', '.join(names())}"
            )
        return [found], []
    if layout and (whole := _named(path, layout)).rows:
        return [whole], []
    sources: list[Source] = []
    others: list[Path] = []
    for file in _files(path):
        found = _wanted(file, layout) if layout else _told(file)
        if found is None or not found.rows:
            others.append(file)
        else:
            sources.append(found)
    if not sources:
        raise MissingError(
            f"no file below {str(path)!r} is in a known layout, looked at {len(others)} with {', '.join(SUFFIXES)}"
        )
    return sources, others


def names() -> list[str]:
    """Return all that ``layout`` of ``read_sources`` may be."""
    return [*MODULES, GROUNDING, *FORMATS]


def _files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix in SUFFIXES and file.is_file() and not hidden:
            yield file


def _named(path: Path, layout: str) -> Source:
    """Return what the reader of that name makes of a file or folder; what it raises is a fault."""
    if layout in FORMATS:
        return _training_rows(path, format_named(layout))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            if layout == GROUNDING:
                rows = grounding_files.load_rows(path, "an annotation file of temporal grounding")
            else:
                rows = benchmark(layout).load(path)
            faults = () if rows else (f"{path} holds no rows",)
        except TimeloupeError as error:
            rows, faults = [], (str(error),)
    return Source(path, layout, tuple(rows), faults, tuple(str(one.message) for one in caught))


def _wanted(path: Path, layout: str) -> Source:
    """Return what the reader of that name makes of a file, record by record where it does not take all of it."""
    source = _named(path, layout)
    if source.faults and layout not in FORMATS and len(records := _records(path)) > 1:
        return _record_by_record(path, layout, records)
    return source


def _told(path: Path) -> Source | None:
    """Return what the first reader that takes the file makes of it, ``None`` if none does.

    Where none takes all of it, the reader that takes one of the first records is the one, and what it refuses are
    faults.
    """
    format = _format_of(path)
    if format is not None and format.name == EXAMPLES:
        return _training_rows(path, format)
    layouts = (*_TOLD_BY_CONTENT, GROUNDING)
    found = (_named(path, layout) for layout in layouts)
    if (source := next((source for source in found if source.rows), None)) is not None:
        return source
    records = _records(path)
    with tempfile.TemporaryDirectory() as folder:
        for record in records[:_FIRST_RECORDS]:
            alone = _written([record], Path(folder) / path.name)
            for layout in layouts:
                if _named(alone, layout).rows:
                    return _record_by_record(path, layout, records)
    return None if format is None else _training_rows(path, format)


def _record_by_record(path: Path, layout: str, records: list[Any]) -> Source:
    """Return the rows of all records that the reader takes one by one, and a fault for each other one."""
    faults: list[str] = []
    good: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, record in enumerate(records, 1):
            alone = _written([record], Path(folder) / path.name)
            source = _named(alone, layout)
            if source.rows:
                good.append(record)
            else:
                why = source.faults[0].removeprefix(str(alone)).removeprefix(":1").removeprefix(", record 1")
                faults.append(f"{path}, record {number}{why}")
        together = _written(good, Path(folder) / path.name)
        source = _named(together, layout)
        faults += (fault.replace(str(together), str(path)) for fault in source.faults if good)
    return Source(path, layout, source.rows, tuple(faults), source.warnings)


def _records(path: Path) -> list[Any]:
    """Return the values of a JSON list, or of JSON lines (a line that is none as its text); nothing of other files."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    first = text.lstrip()[:1]
    if first == "[":
        try:
            return parse_json(text)
        except ValueError:
            return []
    return [_value(line) for line in text.split("\n") if line.strip()] if first == "{" else []


def _value(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return line


def _written(records: list[Any], file: Path) -> Path:
    """Write a JSON list, or one record a line where the name says so, and return the file."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    text = "\n".join(lines) if file.suffix == ".jsonl" else f"[{','.join(lines)}]"
    file.write_text(text, encoding="utf-8")
    return file


def _format_of(path: Path) -> Format | None:
    """Return the format of training rows that the first records of a file are in, ``None`` if they are in none."""
    try:
        return told(path)
    except (RecordError, MissingError):  # a parquet file, and nothing that reads it
        return None


def _training_rows(path: Path, format: Format) -> Source:
    """Return the rows of a file of training rows; a record that is none is a fault and the next one is read."""
    if not path.is_file():
        raise boundary(f"annotations of layout {format.name}", str(path), f"a file of {format.summary}")
    context = format.context(None, VideoFrames(path.parent))
    rows: list[Row] = []
    faults: list[str] = []
    try:
        for number, found in enumerate(read_records(path)):
            try:
                if isinstance(found, RecordError):
                    raise found
                rows.append(_row(read_row(format, found, number, context), path.parent, found.fields))
            except RecordError as error:
                faults.append(str(error))
    except RecordError as error:  # nothing after it can be read
        faults.append(str(error))
    if not rows and not faults:
        faults.append(f"{path} holds no rows")
    return Source(path, format.name, tuple(rows), tuple(faults))


def _row(row: TrainingRow, folder: Path, fields: Mapping[str, Any]) -> Row:
    """Return a training row as annotations are checked; windows on a part of a video count from its start."""
    example, clip = row.example, row.extra.get(CLIP)
    start = clip[0] if clip else 0.0
    return Row(
        id=example.id, video=str(folder / example.video), question=example.question, task=example.task,
        options=example.options, answer=example.answer,
        windows=tuple((one.start_seconds - start, one.end_seconds - start) for one in example.segments),
        duration_seconds=row.extra.get(DURATION), clip=clip, groups={"source": example.source}, raw=dict(fields),
    )  # fmt: skip
