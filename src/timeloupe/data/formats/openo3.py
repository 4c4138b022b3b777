"""Open-o3 Video's rows (STGR-SFT and STGR-RL; read by marinero4972/Open-o3-Video@1eb6ecae): one JSON list.

``task, source, question, answer, video_path``; ``key_frames`` [{idx, time, path}] and ``key_items``
{idx: {object: [[x1, y1, x2, y2], ...]}} in fractions of the frame; in rows of supervised training also
``reasoning_process``, the thought before the answer. ``visual QA`` is about a picture: ``image_path``, ``image_size``,
a box in its pixels.

==============================  ================================  =========================
task of a row                   ``answer``                        our task
==============================  ================================  =========================
temporal-spatial free-form QA   a text                            what_when_where
visual QA                       ``<obj>..</obj><box>..</box>``    what_when_where, a picture
temporal QA                     ``[start, end]``                  grounding
temporal QA (MCQ)               letter, line, ``[start, end]``    multiple_choice
General video QA MCQ            letter                            multiple_choice
General video QA Free-form      a text                            open
==============================  ================================  =========================
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from timeloupe.data.formats.chat import chat_of
from timeloupe.data.formats.image_chat import picture_name
from timeloupe.data.formats.row import (
    IMAGE_SIZE,
    Context,
    Format,
    Row,
    Said,
    View,
    is_number,
    read_box,
    read_seconds,
    read_segment,
    read_text,
    refused,
)
from timeloupe.eval.files.records import Record, parse_json, split_options
from timeloupe.prompt.build import question_block
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.segments import parse_tagged_segments
from timeloupe.reward.openo3_release import CHOICE, FREE_FORM, SPATIAL, TEMPORAL, TEMPORAL_CHOICE, VISUAL
from timeloupe.trajectory import Box, Example, Segment, Task

TASKS: dict[str, Task] = {
    SPATIAL: "what_when_where", VISUAL: "what_when_where", TEMPORAL: "grounding",
    TEMPORAL_CHOICE: "multiple_choice", CHOICE: "multiple_choice", FREE_FORM: "open",
}  # fmt: skip
_BOX = re.compile(r"<obj>([^<>]*)</obj><box>(\[[^\]]*\])</box>")


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has Open-o3's fields."""
    paths = {"video_path", "image_path"} & fields.keys()
    return {"task", "question", "answer"} <= fields.keys() and bool(paths)


# -- reading -----------------------------------------------------------------------------------------------------------


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a record; a thought becomes a reply, without a prompt before it.

    Raises:
        RecordError: A field is missing or not valid.
    """
    name = record.value("task")
    if name not in TASKS:
        raise record.fault("task", f"must be one of {', '.join(TASKS)}, got {name!r:.80}")
    written = read_text(record, "answer")
    answer, segments = _truth(record, name, written)
    question, options = read_text(record, "question"), ()
    if TASKS[name] == "multiple_choice":
        question, options = split_options(question)
    extra: dict[str, Any] = {}
    if name == VISUAL:
        extra[IMAGE_SIZE] = _size(record)
        boxes = _picture_boxes(record, written, extra[IMAGE_SIZE])
    else:
        boxes = _boxes(record)
    example = Example(
        id=str(number), video=read_text(record, "image_path" if name == VISUAL else "video_path"),
        question=question, options=options, answer=answer, segments=segments, boxes=boxes, task=TASKS[name],
        source=read_text(record, "source") if record.has("source") else "",
    )  # fmt: skip
    chat: tuple[Said, ...] = ()
    if record.has("reasoning_process"):
        thought = read_text(record, "reasoning_process")
        chat = (Said("assistant", (f"<think>{thought}</think>\n<answer>{written}</answer>",)),)
    return Row(example, chat, extra=extra, numbered=True)


def _truth(record: Record, name: str, written: str) -> tuple[str | None, tuple[Segment, ...]]:
    """Return what the answer field says: a text or letter, and segments."""
    if name == VISUAL:
        return None, ()
    if name not in (TEMPORAL, TEMPORAL_CHOICE):
        return written, ()
    letter, line, span = written.partition("\n") if name == TEMPORAL_CHOICE else (None, "\n", written)
    segments = parse_tagged_segments(span)
    if not segments:
        try:
            segments = (read_segment(record, "answer", parse_json(span)),)
        except ValueError:
            allowed = "[start, end] or From <t>start</t>s to <t>end</t>s"
            raise record.fault("answer", f"must name {allowed}, got {written!r:.80}") from None
    return letter, segments


def _boxes(record: Record) -> tuple[Box, ...]:
    if not record.has("key_items"):
        return ()
    items = record.value("key_items")
    if not isinstance(items, dict):
        raise record.fault("key_items", f"must be an object of key frames, got {items!r:.80}")
    times = {one.text("idx"): read_seconds(one, "time") for one in record.records("key_frames")}
    boxes: list[Box] = []
    for index, objects in items.items():
        if objects is None:
            continue
        if index not in times or not isinstance(objects, dict):
            raise record.fault(f"key_items.{index}", f"must be the objects of one of {len(times)} key frames")
        for label, corners in objects.items():
            for at, box in enumerate(corners if isinstance(corners, list) else [corners]):
                boxes.append(read_box(record, f"key_items.{index}.{label}[{at}]", box, times[index], label))
    return tuple(boxes)


def _size(record: Record) -> tuple[int, int]:
    size = record.value("image_size")
    if isinstance(size, list) and len(size) == 2 and all(isinstance(one, int) and one > 0 for one in size):
        return (size[0], size[1])
    raise record.fault("image_size", f"must be [width, height] in pixels, got {size!r:.80}")


def _picture_boxes(record: Record, written: str, size_wh: tuple[int, int]) -> tuple[Box, ...]:
    boxes: list[Box] = []
    for label, text in _BOX.findall(written):
        try:
            corners = parse_json(text)
        except ValueError:
            corners = None
        if isinstance(corners, list) and len(corners) == 4 and all(map(is_number, corners)):
            corners = [value / size_wh[at % 2] for at, value in enumerate(corners)]
        boxes.append(read_box(record, "answer", corners, 0.0, label))
    if not boxes:
        raise record.fault(
            "answer", f"must hold <obj>..</obj><box>[x1, y1, x2, y2]</box>, got {written!r:.80}"
        )
    return tuple(boxes)


# -- writing -----------------------------------------------------------------------------------------------------------


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the record of a row; of a chat only the last reply's thought.

    Raises:
        RecordError: None of Open-o3's tasks is that of the row, or it lacks what that task is scored by.
    """
    example = row.example
    name = VISUAL if IMAGE_SIZE in row.extra else task_name(example)
    question = question_block(example) if example.options else example.question
    record: dict[str, Any] = {
        "task": name, "source": example.source, "question": question, "answer": _answer(row, name),
    }  # fmt: skip
    if name == VISUAL:
        record |= {"image_path": example.video, "image_size": list(row.extra[IMAGE_SIZE])}
    else:
        record["video_path"] = example.video
    if example.boxes and name != VISUAL:
        record |= _key_frames(example)
    replies = [one.text for one in chat_of(row) if one.role == "assistant"]
    if replies and (read := parse_reply(replies[-1], context.protocol)).answer is not None:
        record["reasoning_process"] = read.thought
    return record


def task_name(example: Example) -> str:
    """Return what Open-o3 calls the task of an example.

    Raises:
        RecordError: It has none for it.
    """
    if example.task == "multiple_choice":
        return TEMPORAL_CHOICE if len(example.segments) == 1 else CHOICE
    names: dict[str, str] = {"what_when_where": SPATIAL, "grounding": TEMPORAL, "open": FREE_FORM}
    if example.task not in names:
        raise refused("task", f"one of {', '.join(names)} or multiple_choice", example.task)
    return names[example.task]


def _answer(row: Row, name: str) -> str:
    example = row.example
    if name == VISUAL:
        return "".join(_pixels(box, row.extra[IMAGE_SIZE]) for box in example.boxes)
    if name == TEMPORAL:
        if len(example.segments) != 1:
            raise refused("segments", "one segment", len(example.segments))
        return _span(example.segments[0])
    if example.answer is None:
        raise refused("answer", f"known for task {name!r}", None)
    return f"{example.answer}\n{_span(example.segments[0])}" if name == TEMPORAL_CHOICE else example.answer


def _span(segment: Segment) -> str:
    return json.dumps([segment.start_seconds, segment.end_seconds])


def _pixels(box: Box, size_wh: tuple[int, int]) -> str:
    corners = [round(side * size_wh[at % 2]) for at, side in enumerate((box.x1, box.y1, box.x2, box.y2))]
    return f"<obj>{box.label}</obj><box>{json.dumps(corners)}</box>"


def _key_frames(example: Example) -> dict[str, Any]:
    """Return a key frame for each time at which there is a box, and the boxes in them by object."""
    frames: list[dict[str, Any]] = []
    items: dict[str, dict[str, list[list[float]]]] = {}
    for index, seconds in enumerate(sorted({box.at_seconds for box in example.boxes}), 1):
        path = picture_name(View(example.video, "image", seconds))
        frames.append({"idx": index, "time": seconds, "path": path})
        for box in example.boxes:
            if box.at_seconds == seconds:
                objects = items.setdefault(str(index), {})
                objects.setdefault(box.label, []).append([box.x1, box.y1, box.x2, box.y2])
    return {"key_frames": frames, "key_items": items}


FORMAT = Format("openo3", "Open-o3 Video's rows", "json", recognises, read, write, protocol="openo3_pixels")
