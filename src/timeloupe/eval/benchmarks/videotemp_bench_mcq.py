"""VideoTemp-Bench, multiple choice: questions on videos from seconds to over twenty minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timeloupe.eval import strict
from timeloupe.eval.extractors.letters import videotemp_first
from timeloupe.eval.files.records import (
    Places,
    Record,
    existing,
    option_letter,
    read_records,
    reply_of,
    split_options,
)
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table, Window
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.letters import VIDEOTEMP_O3, marks, printed_percent

PARTS = (("Part1", 180.0), ("Part2", 600.0), ("Part3", 1200.0), ("Part4", float("inf")))
"""Name of a part and the length in seconds that its videos are shorter than."""

FILES = "data.jsonl of Kwai-Keye/VideoTemp-Bench"


def part_of(duration_seconds: float) -> str:
    """Return the part that a video belongs to by its length."""
    return next((name for name, below in PARTS if duration_seconds < below), PARTS[-1][0])


def load(path: Path) -> list[Row]:
    """Return the rows of data.jsonl, or of a JSON list of such records.

    A row's id is the record's ``id``, or its place in the file from 0.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid; the message names the line and the field.
    """
    return [_row(record, at) for at, record in enumerate(read_records(existing(path, FILES)))]


def _row(record: Record, at: int) -> Row:
    stem, options = split_options(record.text("question"))
    duration = record.number("duration")
    return Row(
        id=record.text("id") if record.has("id") else str(at), video=video_of(record), question=stem,
        task="multiple_choice", options=options, answer=option_letter(record.text("answer")),
        windows=windows_of(record), duration_seconds=duration, groups={"part": part_of(duration)},
        raw=record.fields,
    )  # fmt: skip


def video_of(record: Record) -> str:
    """Return the first of ``videos``.

    Raises:
        RecordError: It names none.
    """
    videos = record.texts("videos")
    if not videos:
        raise record.fault("videos", "must name a video, got none")
    return videos[0]


def windows_of(record: Record) -> tuple[Window, ...]:
    """Return the true windows: ``timestamp`` is one ``[start, end]``, or a list of them; none if it is not there.

    Raises:
        RecordError: It is something else.
    """
    if not record.has("timestamp"):
        return ()
    value = record.value("timestamp")
    pairs = value if isinstance(value, list) and value and isinstance(value[0], list) else [value]
    try:
        return tuple((float(start), float(end)) for start, end in pairs)
    except (TypeError, ValueError):
        raise record.fault("timestamp", f"must be [start, end] in seconds, got {value!r:.80}") from None


def official(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return correct, total and percent of each part and of all, as ``score.py videotemp`` prints them.

    Source: VideoTemp-o3 eval/score.py, ``eval_videotemp``, at Kwai-Keye/VideoTemp-o3@e30b4d98. The first character of
    the reply counts if it is one of ABCDE, any other reply is an "A"; it is compared with the first character of
    ``answer``. A part without questions has 0.00 %.

    Raises:
        OfficialError: No row has a prediction, or an answer is empty.
    """

    def mark(row: Row, text: str) -> bool:
        answer = str(row.raw["answer"])
        if not answer:
            raise OfficialError("IndexError", "string index out of range")
        return answer[0] == videotemp_first(text)

    found = marks(rows, predictions, mark)
    figures: dict[str, float] = {}
    for name, _ in PARTS:
        count = found.count(lambda row, name=name: row.groups["part"] == name)
        figures |= {f"{name} correct": count.right, f"{name} total": count.total}
        figures[f"{name} Acc"] = printed_percent(count.share(if_none=0.0), 2)
    everything = found.count()
    figures |= {"Overall correct": everything.right, "Overall total": everything.total}
    figures["Overall Acc"] = printed_percent(everything.share(), 2)
    return found.table(VIDEOTEMP_O3, figures, "percent", ("Overall Acc",))


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the predictions of the output of ``videotemp.py``: the records of data.jsonl with a ``response``.

    Its threads write in any order, so a line is found by its ``id``, or else by video and question; lines that are
    equal in both belong to the rows in order.

    Raises:
        RecordError: A line has no ``response``, or is of no row.
    """
    places = Places((_key(row.raw), row.id) for row in rows)
    found: dict[str, str] = {}
    for record in read_records(path):
        id = record.text("id") if record.has("id") else places.take(_key(record.fields), record.where)
        found[id] = reply_of(record)
    return found


def _key(fields: Mapping[str, Any]) -> tuple[str, str]:
    return str(fields.get("videos")), str(fields.get("question"))


BENCHMARK = Benchmark(
    name="videotemp_bench_mcq",
    title="VideoTemp-Bench (multiple choice)",
    split="test",
    files=f"{FILES}, or a JSON list of its records",
    load=load,
    official={VIDEOTEMP_O3: official},
    strict=strict.multiple_choice,
    read_predictions=read_predictions,
)
