"""Read the files of multiple-choice benchmarks: JSON, JSONL and CSV records, errors that name file, line and field."""

from __future__ import annotations

import csv
import io
import json
import re
import warnings
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timeloupe.errors import MissingError, RecordError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_STRING_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|,(?=\s*[\]}])', re.DOTALL)
_MARK_OF_LINE = re.compile(r"^[ \t]{0,8}\(?([A-Z])[.):](?=\s|$)[ \t]{0,8}", re.MULTILINE)
_MARK = re.compile(r"(?<!\S)\(?([A-Z])[.):](?=\s|$)\s{0,8}")


@dataclass(frozen=True)
class Record:
    """One record of a file.

    Attributes:
        where: File and line (or number of the record), for messages.
        fields: The record as it is in the file.
    """

    where: str
    fields: dict[str, Any]

    def has(self, name: str) -> bool:
        """Return whether the field is there and not null."""
        return self.fields.get(name) is not None

    def value(self, name: str) -> Any:
        """Return a field of any kind.

        Raises:
            RecordError: It is not there.
        """
        if name not in self.fields:
            raise self.fault(name, "is missing")
        return self.fields[name]

    def text(self, name: str) -> str:
        """Return a text; numbers are taken as they are printed.

        Raises:
            RecordError: The field is not there, or something else.
        """
        value = self.value(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.fault(name, f"must be a text, got {value!r:.80}")
        return value

    def number(self, name: str) -> float:
        """Return a number.

        Raises:
            RecordError: The field is not there, or no number.
        """
        value = self.value(name)
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            raise self.fault(name, f"must be a number, got {value!r:.80}") from None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts; numbers are taken as they are printed.

        Raises:
            RecordError: The field is not there, or something else.
        """
        value = self.value(name)
        if not isinstance(value, list) or not all(isinstance(one, str | int | float) for one in value):
            raise self.fault(name, f"must be a list of texts, got {value!r:.80}")
        return tuple(str(one) for one in value)

    def records(self, name: str) -> list[Record]:
        """Return a list of records inside this one.

        Raises:
            RecordError: The field is not there, or something else.
        """
        value = self.value(name)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.fault(name, f"must be a list of objects, got {value!r:.80}")
        return [Record(f"{self.where}, {name}[{at}]", one) for at, one in enumerate(value)]

    def fault(self, name: str, what: str) -> RecordError:
        """Return the error that says what is wrong with a field."""
        return RecordError(f"{self.where}: field {name!r} {what}")


def existing(path: Path, what: str) -> Path:
    """Return ``path`` if there is something.

    Raises:
        MissingError: There is nothing; the message says what is wanted.
    """
    if not path.exists():
        raise MissingError(f"no annotations at {str(path)!r}, expected {what}")
    return path


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: It is not JSON, or nested deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def read_json(path: Path) -> Any:
    """Return what a JSON file holds. Commas before a closing bracket are no JSON: they are read with a warning.

    Raises:
        RecordError: It is not JSON.
    """
    text = _text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        mended = _STRING_OR_COMMA.sub(lambda found: found.group() if found.group()[0] == '"' else "", text)
        try:
            value = parse_json(mended)
        except ValueError:
            raise RecordError(f"{path} is not JSON: {error}") from None
        count = len(text) - len(mended)
        warnings.warn(
            f"{path} is not valid JSON: {count} commas stand before a closing bracket, the first fault is at "
            f"{str(error).split(':', 1)[-1].strip()}; it is read without them, `json.load` would refuse it",
            stacklevel=2,
        )
        return value


def read_records(path: Path) -> list[Record]:
    """Return the records of a JSON list, or of JSONL lines, whichever the file holds.

    Raises:
        RecordError: It is neither, an entry is no object, or there is no record.
    """
    text = _text(path)
    if text.lstrip()[:1] == "[":
        return records_of(read_json(path), str(path))
    found: list[Record] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            fields = parse_json(line)
        except ValueError as error:
            raise RecordError(f"{path}:{number} is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise RecordError(f"{path}:{number} is no JSON object: {fields!r:.80}")
        found.append(Record(f"{path}:{number}", fields))
    return _some(found, str(path))


def records_of(values: Any, where: str) -> list[Record]:
    """Return the records of a list of objects.

    Raises:
        RecordError: It is no list, an entry is no object, or there is none.
    """
    if not isinstance(values, list):
        raise RecordError(f"{where} holds no list of records but {values!r:.80}")
    for number, value in enumerate(values, 1):
        if not isinstance(value, dict):
            raise RecordError(f"{where}, record {number} is no JSON object: {value!r:.80}")
    return _some(
        [Record(f"{where}, record {number}", value) for number, value in enumerate(values, 1)], where
    )


def read_csv(path: Path) -> list[Record]:
    """Return the records of a CSV file with a header.

    Raises:
        RecordError: A line has fewer or more cells than the header, or there is no line but that.
    """
    # Not ``splitlines``: a cell may hold what that also takes for the end of a line, such as U+2028.
    lines = csv.DictReader(io.StringIO(_text(path), newline=""))
    found: list[Record] = []
    for line in lines:
        if None in line or None in line.values():
            raise RecordError(f"{path}:{lines.line_num} does not have the cells of the header: {line!r:.120}")
        found.append(Record(f"{path}:{lines.line_num}", dict(line)))
    return _some(found, f"{path}, read as CSV with a header,")


def split_options(question: str) -> tuple[str, tuple[str, ...]]:
    """Return the stem and the options of a question that holds both, as ``A. x``, ``(A) x`` or ``A: x``.

    Options start with A and follow the alphabet, each on its own line or, failing that, all in one. A question without
    such a row of at least two is all stem.
    """
    for pattern in (_MARK_OF_LINE, _MARK):
        marks = _row_of_letters(pattern.finditer(question))
        if len(marks) > 1:
            ends = [mark.start() for mark in marks[1:]] + [len(question)]
            options = tuple(question[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True))
            return question[: marks[0].start()].strip(), options
    return question, ()


def option_letter(answer: str) -> str:
    """Return the letter of an answer such as ``B. a cat`` or ``(B)``; any other answer as it is."""
    found = re.match(r"\s{0,8}\(?([A-Z])(?:[.):]|\s*$)", answer)
    return found.group(1) if found else answer


def bare_options(options: Sequence[str]) -> tuple[str, ...]:
    """Return the options without their letters, if every one of them has its own in front (``A. x``, ``(A) x``)."""
    found = [re.match(r"\s{0,8}\(?([A-Z])[.):]\s{0,8}", option) for option in options]
    if all(mark and mark.group(1) == letter for mark, letter in zip(found, LETTERS, strict=False)):
        return tuple(
            option[mark.end() :] if mark else option for option, mark in zip(options, found, strict=True)
        )
    return tuple(options)


class Places:
    """Which row a line of an output is about, where lines have no id: rows by what a line says of its question.

    Rows that are alike in it are taken in order; a further line of that kind is of the last of them.
    """

    def __init__(self, keys: Iterable[tuple[Hashable, str]]) -> None:
        self._ids: dict[Hashable, list[str]] = {}
        self._taken: dict[Hashable, int] = {}
        for key, id in keys:
            self._ids.setdefault(key, []).append(id)

    def take(self, key: Hashable, where: str) -> str:
        """Return the id of the next row of that key.

        Raises:
            RecordError: There is none.
        """
        ids = self._ids.get(key)
        if ids is None:
            raise RecordError(f"{where}: the annotations have no such question, looked for {key!r:.200}")
        at = self._taken.get(key, 0)
        self._taken[key] = at + 1
        return ids[min(at, len(ids) - 1)]


def reply_of(record: Record, name: str = "response") -> str:
    """Return the reply of a line; null is an empty reply.

    Raises:
        RecordError: There is no such field, or it is no text.
    """
    return "" if record.value(name) is None else record.text(name)


def lmms_eval_samples(records: Sequence[Record], metric: str, id_field: str) -> dict[str, str] | None:
    """Return the texts by id of a ``*_samples_*.jsonl`` of lmms-eval; ``None`` if the records are none.

    Args:
        records: The lines.
        metric: What the task's own result is called in a line, such as ``videomme_perception_score``.
        id_field: The field of that result which tells the question.

    Raises:
        RecordError: A line has no such result, or no reply.
    """
    if not records or "filtered_resps" not in records[0].fields:
        return None
    found: dict[str, str] = {}
    for record in records:
        result = record.value(metric)
        if not isinstance(result, dict):
            raise record.fault(metric, f"must be an object, got {result!r:.80}")
        reply = record.value("filtered_resps")
        while isinstance(reply, list) and reply:
            reply = reply[0]
        if not isinstance(reply, str):
            raise record.fault("filtered_resps", f"must hold a text, got {reply!r:.80}")
        found[Record(f"{record.where}, {metric}", result).text(id_field)] = reply
    return found


def letter_of(options: Sequence[str], answer: str) -> str:
    """Return the letter of the LAST option that is the answer, as the scripts do; the text itself if none is."""
    found = [at for at, option in enumerate(options) if option == answer]
    return LETTERS[found[-1]] if found and found[-1] < len(LETTERS) else answer


def _some(found: list[Record], where: str) -> list[Record]:
    """Return the records; without any there is nothing to score, which must not pass as a score of nothing."""
    if not found:
        raise RecordError(f"{where} holds no record")
    return found


def _row_of_letters(marks: Iterator[re.Match[str]]) -> list[re.Match[str]]:
    row: list[re.Match[str]] = []
    for mark in marks:
        if mark.group(1) == "A" and len(row) < 2:
            row = [mark]
        elif row and len(row) < len(LETTERS) and mark.group(1) == LETTERS[len(row)]:
            row.append(mark)
    return row


def _text(path: Path) -> str:
    if not path.is_file():
        raise MissingError(f"no file at {str(path)!r}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        hint = "; a parquet file is read after `DataFrame.to_json(orient='records')`"
        raise RecordError(
            f"{path} is not UTF-8 text: {error}{hint if path.suffix == '.parquet' else ''}"
        ) from error
