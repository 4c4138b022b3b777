"""Read the annotation files of temporal grounding, in every layout that they are handed round in.

The layout is told by what is in the file, never by its name:

1. JSONL of ``qid, query, vid, duration, relevant_windows`` (moment_detr, TaRO), perhaps ``video_start, video_end``
2. JSON list of ``video, question, groundtruth`` (MUSEG)
3. JSON ``{"annotations": [image_id, caption, timestamp, id]}`` (TimeChat, TimeSuite)
4. lines ``video start end##sentence`` (Charades-STA as first released)
5. JSON list of ``path, question, answer "s-e", start, end, duration`` (Time-R1)
6. JSON by video of ``duration, timestamps, sentences`` (ActivityNet Captions) or ``duration, spans, queries``
7. JSON or JSONL with keys ``video>>>query>>>window`` (TimeLens, lmms-eval): the truth stands in the key
8. records of ``video, caption, timestamp`` or ``video_path, query, span`` (data sets of lmms-eval)
9. records of ``duration, timestamp`` with ``question`` and ``videos`` (VideoTemp-Bench)

A file without ids has the numbers of its rows as ids, from 0; Time-R1's has ``test0``, ``test1``, ..., the ids that
TaRO gives the same rows.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from timeloupe.errors import MissingError, RecordError
from timeloupe.eval.files.records import Record, existing, parse_json, read_records, records_of
from timeloupe.eval.files.windows import finite, is_number, windows
from timeloupe.eval.scoring import Row, Window
from timeloupe.eval.scripts.grounding import part_of
from timeloupe.trajectory import Task

LAYOUTS = "qid + relevant_windows, video + question + groundtruth, annotations, path + answer, timestamps + sentences, "
LAYOUTS += "spans + queries, video>>>query>>>window, video + caption + timestamp, video_path + query + span, "
LAYOUTS += "duration + timestamp, or lines `video start end##sentence`"

_LINE = re.compile(r"(\S+) (\S+) (\S+?)##(.*)")
_SPAN = re.compile(r"([0-9.]+(?:e[-+]?\d+)?)-([0-9.]+(?:e[-+]?\d+)?)")


def load_rows(path: Path, what: str, task: Task = "grounding") -> list[Row]:
    """Return the rows of an annotation file, in its order.

    Args:
        path: The file.
        what: What is expected, in words, for the message when there is none.
        task: What the rows ask for.

    Raises:
        MissingError: There is no such file, or it is a folder.
        RecordError: It is in no known layout, or a record is not valid; the message names line and field.
    """
    if existing(path, what).is_dir():
        raise MissingError(f"{str(path)!r} is a folder, expected one file: {what}")
    rows = [_row(record, at, task) for at, record in enumerate(annotation_records(path))]
    if not rows:
        raise RecordError(f"{path} holds no rows")
    return rows


def loader(what: str, task: Task = "grounding") -> Callable[[Path], list[Row]]:
    """Return the ``load`` of a benchmark whose files are in these layouts; see ``load_rows``."""
    return functools.partial(load_rows, what=what, task=task)


def annotation_records(path: Path) -> list[Record]:
    """Return the records of a file of any layout; what is nested is unfolded, and lines become records.

    Raises:
        RecordError: The file is neither JSON, JSONL, nor such lines.
    """
    whole = whole_json(path)
    if isinstance(whole, dict):
        return list(_of_object(path, whole))
    if isinstance(whole, list):
        records = records_of(whole, str(path))
    elif _first_letter(path) == "{":
        records = read_records(path)
    else:
        return list(_of_lines(path))
    return [one for record in records for one in unfolded(record)]


def whole_json(path: Path) -> Any:
    """Return what the file holds as one JSON value, or ``None`` if it is not one.

    Raises:
        RecordError: It begins like a JSON list and is none, or is no UTF-8.
    """
    try:
        return parse_json(_text(path))
    except ValueError as error:
        if _first_letter(path) == "[":
            raise RecordError(f"{path} is not JSON: {error}") from None
        return None


def only_record(path: Path, whole: dict[str, Any]) -> Record:
    """Return a file's one object as a record: what is one line of JSON may be meant as lines of JSON."""
    return Record(str(path) if any(">>>" in key for key in whole) else f"{path}:1", whole)


def unfolded(record: Record) -> list[Record]:
    """Return one record per ``video>>>query>>>window`` key; a record without such keys is itself."""
    if not record.fields or not all(">>>" in key for key in record.fields):
        return [record]
    found = []
    for key, value in record.fields.items():
        parts = key.split(">>>")
        # A query may hold the mark; a video's name and the window do not.
        video, query, span = parts[0], ">>>".join(parts[1:-1]), parts[-1]
        fields = {"key": key, "video": video, "query": query, "span": _json(span), "prediction": value}
        found.append(Record(f"{record.where}, key {key!r:.60}", fields))
    return found


def _of_object(path: Path, whole: dict[str, Any]) -> Iterator[Record]:
    if isinstance(whole.get("annotations"), list):
        yield from records_of(whole["annotations"], str(path))
    elif whole and all(isinstance(value, dict) for value in whole.values()) and not any(
        ">>>" in key for key in whole
    ):  # fmt: skip
        for video, fields in whole.items():
            yield from _of_video(Record(f"{path}, video {video!r:.60}", fields), video)
    else:
        yield from unfolded(only_record(path, whole))


def _of_video(record: Record, video: str) -> Iterator[Record]:
    named = ("spans", "queries") if record.has("spans") else ("timestamps", "sentences")
    spans, queries = windows(record, named[0]), record.texts(named[1])
    if len(spans) != len(queries):
        raise record.fault(named[1], f"must be as long as {named[0]!r}, got {len(queries)} for {len(spans)}")
    for at, (span, query) in enumerate(zip(spans, queries, strict=True)):
        fields = {"id": f"{video}_{at}", "video": video, "caption": query, "timestamp": list(span)}
        if record.has("duration"):
            fields["duration"] = finite(record, "duration")
        yield Record(f"{record.where}, {named[1]}[{at}]", fields)


def _of_lines(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.rstrip("\r"))
        if match is None:
            raise RecordError(
                f"{path}:{number} must be `video start end##sentence` or JSON, got {line!r:.80}"
            )
        video, start, end, sentence = match.groups()
        where = f"{path}:{number}"
        span = [_number(where, "start", start), _number(where, "end", end)]
        yield Record(where, {"video": video, "caption": sentence, "timestamp": span})


# -- from record to row ------------------------------------------------------------------------------------------------


def _row(record: Record, at: int, task: Task) -> Row:
    for needed, read in _READERS:
        if all(name in record.fields for name in needed):
            return read(record, at, task)
    raise RecordError(f"{record.where} has fields {sorted(record.fields)[:10]}, known layouts have {LAYOUTS}")


def _moment(record: Record, at: int, task: Task) -> Row:
    clip = None
    if record.has("video_start") or record.has("video_end"):
        clip = (finite(record, "video_start"), finite(record, "video_end"))
    return Row(
        id=record.text("qid"), video=record.text("video_file" if record.has("video_file") else "vid"),
        question=record.text("query"), task=task, windows=windows(record, "relevant_windows"),
        duration_seconds=_duration(record), clip=clip, raw=record.fields,
    )  # fmt: skip


def _museg(record: Record, at: int, task: Task) -> Row:
    return Row(
        id=str(at), video=record.text("video"), question=record.text("question"), task=task,
        windows=windows(record, "groundtruth"), duration_seconds=_duration(record), raw=record.fields,
    )  # fmt: skip


def _captioned(record: Record, at: int, task: Task) -> Row:
    video = record.text("image_id" if "image_id" in record.fields else "video")
    return Row(
        id=record.text("id") if record.has("id") else str(at), video=video,
        question=record.text("caption"), task=task, windows=(_window(record, "timestamp"),),
        duration_seconds=_duration(record), raw=record.fields,
    )  # fmt: skip


def _time_r1(record: Record, at: int, task: Task) -> Row:
    match = _SPAN.fullmatch(record.text("answer"))
    if match is None:
        raise record.fault("answer", f"must be 'start-end' in seconds, got {record.fields['answer']!r:.80}")
    start, end = (_number(record.where, "answer", part) for part in match.groups())
    clip = None
    if record.has("start") or record.has("end"):
        clip = (finite(record, "start"), finite(record, "end"))
    names = {"source": "dataset_name", "semantics": "qsemtype"}
    groups = {group: record.text(name) for group, name in names.items() if record.has(name)}
    return Row(
        id=record.text("qid") if record.has("qid") else f"test{at}", video=record.text("path"),
        question=record.text("question"), task=task, windows=((start, end),),
        duration_seconds=_duration(record), clip=clip, groups=groups, raw=record.fields,
    )  # fmt: skip


def _keyed(record: Record, at: int, task: Task) -> Row:
    video = record.text("video_path" if "video_path" in record.fields else "video")
    span = record.value("span")
    nested = isinstance(span, list) and bool(span) and isinstance(span[0], list)
    return Row(
        id=record.text("key") if record.has("key") else str(at), video=video, question=record.text("query"),
        task=task, windows=windows(record, "span") if nested else (_window(record, "span"),),
        duration_seconds=_duration(record) or _duration_of_prediction(record), raw=record.fields,
    )  # fmt: skip


def _videotemp(record: Record, at: int, task: Task) -> Row:
    duration = finite(record, "duration")
    videos = record.texts("videos") if record.has("videos") else ()
    return Row(
        id=record.text("id") if record.has("id") else str(at),
        video=videos[0] if videos else record.text("video") if record.has("video") else "",
        question=record.text("question") if record.has("question") else "", task=task,
        answer=record.text("answer") if record.has("answer") else None,
        windows=(_window(record, "timestamp"),), duration_seconds=duration,
        groups={"duration": part_of(duration)}, raw=record.fields,
    )  # fmt: skip


_READERS: tuple[tuple[tuple[str, ...], Callable[[Record, int, Task], Row]], ...] = (
    (("qid", "query", "relevant_windows"), _moment),
    (("video", "question", "groundtruth"), _museg),
    (("image_id", "caption", "timestamp"), _captioned),
    (("video", "caption", "timestamp"), _captioned),
    (("path", "question", "answer"), _time_r1),
    (("video", "query", "span"), _keyed),
    (("video_path", "query", "span"), _keyed),
    (("duration", "timestamp"), _videotemp),
)


def _window(record: Record, name: str) -> Window:
    value = record.value(name)
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)):
        raise record.fault(name, f"must be [start, end] in seconds, got {value!r:.80}")
    return (float(value[0]), float(value[1]))


def _duration(record: Record) -> float | None:
    return finite(record, "duration") if record.has("duration") else None


def _duration_of_prediction(record: Record) -> float | None:
    """TimeLens writes a video's length beside its prediction."""
    prediction = record.fields.get("prediction")
    seconds: Any = prediction.get("duration") if isinstance(prediction, dict) else None
    return float(seconds) if is_number(seconds) else None


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RecordError(f"{where}: field {name!r} must be a number of seconds, got {text!r:.40}")
    return value


def _json(text: str) -> Any:
    """A key's window as a value; tuples as Python prints them are lists; what cannot be read stays a text."""
    try:
        return parse_json(text.replace("(", "[").replace(")", "]"))
    except ValueError:
        return text


def _first_letter(path: Path) -> str:
    return _text(path).lstrip()[:1]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 text: {error}") from error
