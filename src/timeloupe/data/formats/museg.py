"""MUSEG's training rows (THUNLP-MT/MUSEG@889565e7, ``data/train``): one JSON object a line.

``idx, problem, solution [[start, end], ...], video, task``, and ``duration`` where it is known. ``task`` is ``tvg``
(one moment) or ``tal`` (every time). A row holds no prompt: the trainer adds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timeloupe.data.formats.row import (
    DURATION,
    Context,
    Format,
    Row,
    check_times,
    read_seconds,
    read_segments,
    read_text,
    write_segments,
)
from timeloupe.eval.files.records import Record
from timeloupe.trajectory import Example, Task

TASKS: dict[str, Task] = {"tvg": "grounding", "tal": "multi_segment"}
NAMES = {task: name for name, task in TASKS.items()}


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has MUSEG's fields."""
    return {"problem", "solution", "video", "task"} <= fields.keys()


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a training record; ``idx`` becomes the id.

    Raises:
        RecordError: A field is missing or not valid, such as a segment that does not end after it begins.
    """
    task = record.value("task")
    if task not in TASKS:
        raise record.fault("task", f"must be one of {', '.join(TASKS)}, got {task!r:.80}")
    example = Example(
        id=record.text("idx") if record.has("idx") else str(number), video=read_text(record, "video"),
        question=read_text(record, "problem"), segments=read_segments(record, "solution"), task=TASKS[task],
    )  # fmt: skip
    extra = {DURATION: read_seconds(record, "duration")} if record.has("duration") else {}
    return Row(example, extra=extra, numbered=not record.has("idx"))


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the training record of a row.

    Raises:
        RecordError: The row asks for something else than times, or has none.
    """
    example = row.example
    check_times(example, NAMES)
    record: dict[str, Any] = {
        "idx": int(example.id) if is_whole_number(example.id) else number,
        "problem": example.question,
        "solution": write_segments(example.segments),
        "video": example.video,
    }
    if row.video_seconds is not None:
        record["duration"] = row.video_seconds
    return record | {"task": NAMES[example.task]}


def is_whole_number(id: str) -> bool:
    """Return whether an id is a number that is written back as it is."""
    return id.isascii() and id.isdigit() and len(id) < 16 and str(int(id)) == id


FORMAT = Format("museg", "MUSEG training rows", "jsonl", recognises, read, write)
