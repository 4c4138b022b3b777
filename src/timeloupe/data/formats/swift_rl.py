"""VideoTemp-o3's rows of reinforcement learning, in ms-swift's form: one JSON object a line.

``messages`` (system and user), ``videos``, ``data_type`` (``qa`` or ``grounding``), ``solution`` (of ``qa``: its first
letter counts) and ``timestamp``: the true [[start, end], ...].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timeloupe.data.formats.chat import example_of, full_chat, split_chat
from timeloupe.data.formats.row import Context, Format, Row, read_segments, read_text, refused, write_segments
from timeloupe.data.formats.swift_sft import read_chat, write_chat
from timeloupe.eval.files.records import Record

TYPES = ("qa", "grounding")
GROUNDING_TASKS = ("grounding", "multi_segment")


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has messages, videos and what a reward needs."""
    return {"messages", "videos", "data_type"} <= fields.keys()


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a record: its prompt, and the question with its truth.

    Raises:
        RecordError: A field is missing or not valid, or there is a reply.
    """
    kind = record.value("data_type")
    if kind not in TYPES:
        raise record.fault("data_type", f"must be one of {', '.join(TYPES)}, got {kind!r:.80}")
    chat = read_chat(record)
    if split_chat(chat)[1]:
        raise record.fault("messages", "must end before the first reply, got a message of role assistant")
    segments = read_segments(record, "timestamp") if record.has("timestamp") or kind == "grounding" else ()
    if kind == "qa":
        example = example_of(chat, number, context, answer=read_text(record, "solution"), segments=segments)
    else:
        task = "multi_segment" if len(segments) > 1 else "grounding"
        example = example_of(chat, number, context, segments=segments, task=task)
    return Row(example, chat, numbered=True)


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the record of a row; replies are left out.

    Raises:
        RecordError: The row has no truth that its reward needs, or a text in it holds a placeholder.
    """
    example = row.example
    record = write_chat(row, split_chat(full_chat(row, context, tools=True))[0])
    if example.task in GROUNDING_TASKS:
        if not example.segments:
            raise refused("segments", "at least one for a row of type grounding", [])
        record["data_type"] = "grounding"
    else:
        if example.answer is None:
            raise refused("answer", "known for a row of type qa", None)
        record |= {"data_type": "qa", "solution": example.answer}
    return record | {"timestamp": write_segments(example.segments)}


FORMAT = Format(
    "swift_rl", "VideoTemp-o3's rows of reinforcement learning (ms-swift)", "jsonl", recognises, read, write
)
