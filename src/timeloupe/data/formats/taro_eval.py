"""TaRO's files of grounding evaluation (``standalone_eval/annotations``), in QVHighlights' fields: one object a line.

``qid, query, duration, vid, relevant_windows``, perhaps ``video_file``, and ``video_start, video_end`` where the
question is about a part of the video: windows and duration then count from its start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timeloupe.data.formats.museg import is_whole_number
from timeloupe.data.formats.row import (
    CLIP,
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
from timeloupe.data.formats.taro import read_clip, shifted
from timeloupe.eval.files.find_videos import video_key
from timeloupe.eval.files.records import Record
from timeloupe.trajectory import Example


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has these fields."""
    return {"qid", "query", "vid", "relevant_windows"} <= fields.keys()


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a record; its segments count in seconds of the whole video.

    Raises:
        RecordError: A field is missing or not valid, such as a window that does not end after it begins.
    """
    part = read_clip(record)
    segments = shifted(read_segments(record, "relevant_windows"), part[0] if part else 0.0)
    example = Example(
        id=record.text("qid"), video=read_text(record, "video_file" if record.has("video_file") else "vid"),
        question=read_text(record, "query"), segments=segments,
        task="grounding" if len(segments) < 2 else "multi_segment",
    )  # fmt: skip
    extra: dict[str, Any] = {} if part is None else {CLIP: part}
    if record.has("duration"):
        extra[DURATION] = read_seconds(record, "duration")
    return Row(example, extra=extra)


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the record of a row.

    Raises:
        RecordError: The row asks for something else than times, or has none.
    """
    example = row.example
    check_times(example)
    part = row.extra.get(CLIP)
    number_as_id = int(example.id) if is_whole_number(example.id) else example.id
    record: dict[str, Any] = {"qid": number_as_id, "query": example.question}
    if part is not None:
        record |= {"video_start": part[0], "video_end": part[1]}
    if DURATION in row.extra:
        record["duration"] = row.extra[DURATION]
    windows = write_segments(shifted(example.segments, -part[0] if part else 0.0))
    return record | {
        "vid": video_key(example.video),
        "relevant_windows": windows,
        "video_file": example.video,
    }


FORMAT = Format("taro_eval", "TaRO's files of grounding evaluation", "jsonl", recognises, read, write)
