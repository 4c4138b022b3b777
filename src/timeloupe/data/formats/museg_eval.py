"""MUSEG's files of grounding evaluation (``data/eval/grounding``): one JSON list of ``video, question, groundtruth``.

A file does not say whether one moment or every time is asked for: a row with one segment is read as the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timeloupe.data.formats.row import (
    Context,
    Format,
    Row,
    check_times,
    read_segments,
    read_text,
    write_segments,
)
from timeloupe.eval.files.records import Record
from timeloupe.trajectory import Example


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has these fields."""
    return {"video", "question", "groundtruth"} <= fields.keys()


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a record.

    Raises:
        RecordError: A field is missing or not valid.
    """
    segments = read_segments(record, "groundtruth")
    example = Example(
        id=str(number), video=read_text(record, "video"), question=read_text(record, "question"),
        segments=segments, task="grounding" if len(segments) < 2 else "multi_segment",
    )  # fmt: skip
    return Row(example, numbered=True)


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the record of a row.

    Raises:
        RecordError: The row asks for something else than times, or has none.
    """
    example = row.example
    check_times(example)
    return {
        "video": example.video, "question": example.question, "groundtruth": write_segments(example.segments),
    }  # fmt: skip


FORMAT = Format("museg_eval", "MUSEG's files of grounding evaluation", "json", recognises, read, write)
