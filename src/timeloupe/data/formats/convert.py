"""Rows from one format into another, one at a time, with an account of what the other cannot hold."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from timeloupe.data.formats.chat import chat_of, full_chat
from timeloupe.data.formats.clips import ClipWriter
from timeloupe.data.formats.files import Add, Found, read_records, write_records
from timeloupe.data.formats.frames import VideoFrames
from timeloupe.data.formats.late import LateFields
from timeloupe.data.formats.losses import losses
from timeloupe.data.formats.registry import MODULES, format_named, recognised
from timeloupe.data.formats.rest import put_back, rest_of
from timeloupe.data.formats.row import Context, Format, Row
from timeloupe.errors import ConfigError, MissingError, RecordError, boundary
from timeloupe.eval.files.records import Record
from timeloupe.prompt.protocol import PROTOCOLS

AUTO = "auto"
FIRST_RECORDS = 5
BAD_SHOWN = 20

OWN = ("examples", "trajectories")
"""Formats that no other library reads."""


@dataclass
class Count:
    """In how many rows a field is not what it was."""

    left_out: int = 0
    changed: int = 0


@dataclass
class Report:
    """What became of the rows.

    Attributes:
        source: Name of the format that was read.
        target: Name of the format that was written.
        read: Records that were read.
        written: Rows that were written.
        bad: Records that could not be read or written and were left out.
        first_bad: What was wrong with the first of them.
        losses: Fields that are not in the rows written as they were in the rows read.
        references: Views that the rows written name as a part of a video, and not as a file of their own.
        relative: Rows written into another folder than they were read from, whose video is a relative path.
        late: In lines of JSON for other libraries: fields that begin after the first 10 MiB, to the first row, from 0,
            that has them. Hugging Face's reader fails on such a file.
    """

    source: str
    target: str
    read: int = 0
    written: int = 0
    bad: int = 0
    first_bad: list[str] = field(default_factory=list)
    losses: dict[str, Count] = field(default_factory=dict)
    references: int = 0
    relative: int = 0
    late: dict[str, int] = field(default_factory=dict)


def convert(
    source: Path,
    target: Path,
    *,
    source_format: str,
    target_format: str,
    protocol: str | None = None,
    videos: Path | None = None,
    clips: Path | None = None,
    skip_bad: bool = False,
) -> Report:
    """Write the rows of one file into another and return what became of them.

    The file appears when all of it is written. Rows are held one at a time, as far as the formats allow.

    Args:
        source: File to read.
        target: File to write; replaced if it is there.
        source_format: A name of ``MODULES``, or ``auto``: told by the first records.
        target_format: A name of ``MODULES``.
        protocol: How prompts are worded where a row has none, and replies are read; ``None`` = as each format has it.
        videos: Where videos are looked for when a row does not say which frames it shows; ``None`` = beside
            ``source``.
        clips: Folder for files of the views that ``target_format`` wants files of; ``None`` = rows name them as parts
            of their videos, and no file is written.
        skip_bad: Leave out records that cannot be read or written, and count them, instead of stopping.

    Raises:
        ConfigError: There is no such format or protocol, ``source`` is ``target``, or ``target_format`` wants no files.
        MissingError: There is no such file or folder, or a library for it is not installed.
        RecordError: A record is not valid, or the target cannot hold it; nothing is written.
    """
    if target.exists() and source.exists() and target.samefile(source):
        raise boundary("file to write", str(target), "another than the one that is read")
    if not target.parent.is_dir():
        raise MissingError(f"no folder {str(target.parent)!r} to write {target.name!r} to; make it first")
    if protocol is not None and protocol not in PROTOCOLS:
        raise boundary("protocol", protocol, PROTOCOLS)
    from_format = told(source) if source_format == AUTO else format_named(source_format)
    to_format = format_named(target_format)
    frames = VideoFrames(videos or source.parent)
    asked = None if protocol is None else PROTOCOLS[protocol]
    step = _Step(
        from_format, to_format, from_format.context(asked, frames), to_format.context(asked, frames),
        Report(from_format.name, to_format.name), skip_bad, target.parent.resolve() != source.parent.resolve(),
        None if clips is None else _clip_writer(clips, to_format, frames),
    )  # fmt: skip
    with write_records(target, to_format.container, to_format.columns) as add:
        for found in read_records(source):
            step.take(found, add)
        if not step.report.read:
            raise RecordError(f"{source} holds no row")
    if to_format.container == "jsonl" and to_format.name not in OWN:
        step.report.late = step.late.first
    return step.report


def told(path: Path) -> Format:
    """Return the format that the first records of a file are in.

    Raises:
        MissingError: There is no such file.
        RecordError: They are in none, or in several.
    """
    first = list(islice(read_records(path), FIRST_RECORDS))
    records = [one.fields for one in first if isinstance(one, Record)]
    if first and not records and isinstance(first[0], RecordError):
        raise first[0]
    return recognised(records, str(path))


def read_row(format: Format, record: Record, number: int, context: Context) -> Row:
    """Return the row of a record, with the rest that only its own format puts back.

    Raises:
        RecordError: The record is not valid; the message names file, line and field.
    """
    try:
        row = format.read(record, number, context)
        return replace(row, rest=rest_of(record.fields, format.write(row, number, context)))
    except RecordError as error:
        raise _at(record.where, error) from error
    except ConfigError as error:  # such as a question with more options than letters
        raise RecordError(f"{record.where}: {error}") from error


def write_row(format: Format, row: Row, number: int, context: Context, *, own: bool) -> dict[str, object]:
    """Return the record of a row; ``own``: the row was read from this format, and gets its rest back.

    Raises:
        RecordError: The format cannot hold the row.
    """
    try:
        written = format.write(row, number, context)
    except ConfigError as error:
        raise RecordError(str(error)) from error
    return put_back(written, row.rest) if own else written


@dataclass
class _Step:
    """One record after the other."""

    source: Format
    target: Format
    reading: Context
    writing: Context
    report: Report
    skip_bad: bool
    moves: bool
    clips: ClipWriter | None
    late: LateFields = field(default_factory=LateFields)

    def take(self, found: Found, add: Add) -> None:
        """Convert one record, or note what is wrong with it.

        Raises:
            RecordError: Something is, and bad records are not to be skipped.
        """
        number = self.report.read
        self.report.read += 1
        try:
            if isinstance(found, RecordError):
                raise found
            row = read_row(self.source, found, number, self.reading)
            try:
                self._write(row, add)
            except RecordError as error:
                raise _at(f"{found.where} cannot be written as {self.target.name}", error) from error
        except RecordError as error:
            if not self.skip_bad:
                raise
            self.report.bad += 1
            if len(self.report.first_bad) < BAD_SHOWN:
                self.report.first_bad.append(str(error))

    def _write(self, row: Row, add: Add) -> None:
        number = self.report.written
        # Columns of parquet have their types before the first row is read: unknown ones cannot be put back.
        own = self.source is self.target and self.target.container != "parquet"
        shown = row
        if self.clips is not None:
            chat = full_chat(row, self.writing, tools=True)
            shown = replace(row, chat=self.clips.with_files(chat))
        record = write_row(self.target, shown, number, self.writing, own=own)
        back = read_row(self.target, Record("the row as written", record), number, self.writing)
        add(record)
        self.late.take(number, record)
        self.report.written += 1
        for name, loss in losses(row, back, self.source.name, self.reading).items():
            count = self.report.losses.setdefault(name, Count())
            count.left_out += loss == "left out"
            count.changed += loss == "changed"
        video = row.example.video
        self.report.relative += self.moves and not ("://" in video or Path(video).is_absolute())
        if self.target.name not in OWN:
            views = (view for one in chat_of(back) for view in one.views)
            self.report.references += sum(not view.files and bool(view.start_seconds) for view in views)


def _clip_writer(folder: Path, format: Format, frames: VideoFrames) -> ClipWriter:
    if format.clips is None:
        wanting = ", ".join(name for name, module in MODULES.items() if module.FORMAT.clips)
        raise boundary("format to write files of views for", format.name, wanting, "leave out --write-clips")
    return ClipWriter(folder, format.clips, frames)


def _at(where: str, error: RecordError) -> RecordError:
    """Return the error with the place in front, once."""
    text = str(error)
    return error if text.startswith(where) else RecordError(f"{where}: {text}")
