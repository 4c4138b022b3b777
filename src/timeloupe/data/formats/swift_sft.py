"""VideoTemp-o3's rows of supervised training, in ms-swift's form: one JSON object a line.

``messages`` with ``<video>`` where a video stands, ``videos`` with one path for each (the whole video first, then the
clips that were asked for), and, in rows with calls of the tool, ``tool_params``: [start, end] of every clip, in seconds
of the whole video. A row has no truth beside its replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from timeloupe.data.formats.chat import (
    dereference,
    example_of,
    first_video,
    full_chat,
    is_partial,
    read_placeholders,
    reference,
    until_last_reply,
    write_placeholders,
)
from timeloupe.data.formats.image_chat import picture_name, still
from timeloupe.data.formats.row import Context, Format, Row, Said, View, read_segments
from timeloupe.eval.files.records import Record
from timeloupe.prompt.parse import parse_reply
from timeloupe.trajectory import Segment, Task


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has messages and videos, replies among them, and nothing of a reward."""
    messages = fields.get("messages")
    return (
        "videos" in fields
        and not {"data_type", "solution"} & fields.keys()
        and isinstance(messages, list)
        and any(isinstance(one, dict) and one.get("role") == "assistant" for one in messages)
    )


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a record: a chat whose question is read from its prompt.

    Raises:
        RecordError: A field is missing or not valid; placeholders and files, or clips and ``tool_params``, do not
            match.
    """
    chat = read_chat(record)
    task = answered_task(chat, context)
    return Row(example_of(chat, number, context, task=task), chat, numbered=True)


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the record of a row.

    Raises:
        RecordError: It has no reply, or a text in it holds a placeholder.
    """
    return write_chat(row, until_last_reply(full_chat(row, context, tools=True)))


def read_chat(record: Record) -> tuple[Said, ...]:
    """Return the messages of a record of ms-swift, with the clips where they belong."""
    videos = [View(path, "skim") for path in record.texts("videos")] if record.has("videos") else []
    images = [still(path) for path in record.texts("images")] if record.has("images") else []
    chat = read_placeholders(record, "messages", videos, images)
    asked = read_segments(record, "tool_params") if record.has("tool_params") else None
    main = dereference(first_video(chat))[0]
    clips = len(_clips(chat))
    if asked and len(asked) != clips:
        raise record.fault(
            "tool_params", f"must have one [start, end] for each of {clips} clips, got {len(asked)}"
        )
    waiting = list(asked or ())
    replied = False
    placed: list[Said] = []
    for one in chat:
        replied = replied or one.role == "assistant"
        parts: list[str | View] = []
        for part in one.parts:
            if isinstance(part, View) and part.view != "image":
                part = (
                    _clip(main, part.video, waiting.pop(0) if waiting else None)
                    if replied
                    else _whole(part.video)
                )
            parts.append(part)
        placed.append(replace(one, parts=tuple(parts)))
    return tuple(placed)


def write_chat(row: Row, chat: Sequence[Said]) -> dict[str, Any]:
    """Return messages, videos, images and tool_params of a chat."""
    record: dict[str, Any] = {"messages": write_placeholders(chat), "videos": []}
    clips = _clips(chat)
    for one in chat:
        for view in one.views:
            if view.view == "image":
                record.setdefault("images", []).append(picture_name(view))
            else:
                whole = not any(view is clip for clip in clips) and not is_partial(row, view)
                record["videos"].append(reference(view, whole=whole))
    if clips and all(clip.start_seconds is not None and clip.end_seconds is not None for clip in clips):
        record["tool_params"] = [[clip.start_seconds, clip.end_seconds] for clip in clips]
    return record


def answered_task(chat: Sequence[Said], context: Context) -> Task | None:
    """Return what the last reply of a chat answers: times, or nothing that can be told."""
    replies = [one.text for one in chat if one.role == "assistant"]
    answer = parse_reply(replies[-1], context.protocol).answer if replies else None
    if answer is None or not answer.segments:
        return None
    return "grounding" if len(answer.segments) == 1 else "multi_segment"


def _clips(chat: Sequence[Said]) -> list[View]:
    """Return the views that follow a reply."""
    first = next((at for at, one in enumerate(chat) if one.role == "assistant"), len(chat))
    return [view for one in chat[first:] for view in one.views if view.view != "image"]


def _whole(path: str) -> View:
    video, start, end, fps = dereference(path)
    return View(video, "skim", start or 0.0, end, fps)


def _clip(main: str, path: str, asked: Segment | None) -> View:
    video, start, end, fps = dereference(path)
    if start is not None:
        return View(video, "crop", start, end, fps)
    if asked is None:
        return View(main, "crop", files=(path,))
    return View(main, "crop", asked.start_seconds, asked.end_seconds, files=(path,))


FORMAT = Format(
    "swift_sft",
    "VideoTemp-o3's rows of supervised training (ms-swift)",
    "jsonl",
    recognises,
    read,
    write,
    clips="video",
)
