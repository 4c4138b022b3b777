"""TaRO's rows (oceanflowlab/TaRO@143a234f, ``data``): one JSON list, in verl's fields.

``data_source, prompt`` (one message with ``<video>``), ``videos`` (one path), ``video_start, video_end`` (null, or the
part of the video that the question is about: the truth then counts from its start), ``ability`` (``vtg``),
``reward_model.ground_truth`` [start, end], ``extra_info`` (split, index, duration). Training rows also have ``query``
and ``captions``: one text for each thing that happens, with its times, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from timeloupe.data.formats.chat import (
    asked,
    full_chat,
    is_partial,
    read_placeholders,
    split_chat,
    write_placeholders,
)
from timeloupe.data.formats.museg import is_whole_number
from timeloupe.data.formats.row import (
    CAPTIONS,
    CLIP,
    DURATION,
    SPLIT,
    Context,
    Format,
    Row,
    View,
    read_seconds,
    read_segment,
    read_text,
    refused,
)
from timeloupe.eval.files.records import Record
from timeloupe.trajectory import Example, Segment


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has verl's fields and asks for a time."""
    return {"prompt", "videos", "reward_model"} <= fields.keys() and fields.get("ability") == "vtg"


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a record; the true segment counts in seconds of the whole video.

    Raises:
        RecordError: A field is missing or not valid, such as a truth that does not end after it begins.
    """
    part = read_clip(record)
    info = _inner(record, "extra_info")
    extra: dict[str, Any] = {
        name: info.fields[name] for name in (SPLIT,) if isinstance(info.fields.get(name), str)
    }
    if part is not None:
        extra[CLIP] = part
    if info.has("duration"):
        extra[DURATION] = read_seconds(info, "duration")
    if record.has("captions"):
        extra[CAPTIONS] = list(record.texts("captions"))
    videos = record.texts("videos")
    if len(videos) != 1:
        raise record.fault("videos", f"must be one path, got {len(videos)}")
    start, end = part or (0.0, extra.get(DURATION))
    chat = read_placeholders(record, "prompt", [View(videos[0], "skim", start, end)], [])
    truth = read_segment(
        record, "reward_model.ground_truth", _inner(record, "reward_model").value("ground_truth")
    )
    question, _, _ = asked(chat, context.protocol)
    example = Example(
        id=info.text("index") if info.has("index") else str(number), video=videos[0],
        question=read_text(record, "query") if record.has("query") else question,
        segments=shifted((truth,), start), task="grounding", source=read_text(record, "data_source"),
    )  # fmt: skip
    return Row(example, chat, extra=extra, numbered=not info.has("index"))


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the record of a row.

    Raises:
        RecordError: The row does not ask for one segment of one video, or nobody knows how long that is.
    """
    example = row.example
    if example.task != "grounding" or len(example.segments) != 1:
        raise refused("segments", "one segment of a task of grounding", (example.task, len(example.segments)))
    prompt, _ = split_chat(full_chat(row, context, tools=False))
    views = [view for one in prompt for view in one.views]
    if len(views) != 1 or views[0].view == "image":
        raise refused("prompt", "with one video in it", f"{len(views)} views")
    part: tuple[float, float] | None = row.extra.get(CLIP)
    if part is None and is_partial(row, views[0]):
        start, end = views[0].start_seconds, views[0].end_seconds
        if start is None or end is None:
            raise refused("prompt", "with a part of the video whose start and end are known", (start, end))
        part = (start, end)
    record: dict[str, Any] = {
        "data_source": example.source,
        "prompt": write_placeholders(prompt),
        "videos": [example.video],
        "video_start": part[0] if part else None,
        "video_end": part[1] if part else None,
        "ability": "vtg",
        "reward_model": {
            "style": "rule",
            "ground_truth": list(_pair(shifted(example.segments, -part[0] if part else 0.0)[0])),
        },
        "extra_info": {
            "split": row.extra.get(SPLIT, "train"),
            "index": int(example.id) if is_whole_number(example.id) else number,
            "duration": row.extra.get(DURATION) or _duration(views[0], part, context),
        },
    }
    if example.question != asked(prompt, context.protocol)[0] or SPLIT not in row.extra:
        record["query"] = example.question
    if CAPTIONS in row.extra:
        record["captions"] = row.extra[CAPTIONS]
    return record


def read_clip(record: Record) -> tuple[float, float] | None:
    """Return the part of the video in ``video_start`` and ``video_end``, ``None`` if both are null or missing.

    Raises:
        RecordError: They are no span.
    """
    if not record.has("video_start") and not record.has("video_end"):
        return None
    span = [record.fields.get("video_start"), record.fields.get("video_end")]
    return _pair(read_segment(record, "video_start, video_end", span))


def shifted(segments: tuple[Segment, ...], seconds: float) -> tuple[Segment, ...]:
    """Return segments later by so many seconds, added as decimals: what is added can be taken off again.

    Raises:
        RecordError: A segment would begin before 0.
    """
    if not seconds:
        return segments
    found: list[Segment] = []
    for one in segments:
        start, end = (float(Decimal(repr(at)) + Decimal(repr(seconds))) for at in _pair(one))
        if not 0 <= start < end:
            raise refused(
                "segments", f"inside the part of the video that begins at {-seconds:g} s", _pair(one)
            )
        found.append(replace_times(one, start, end))
    return tuple(found)


def replace_times(segment: Segment, start: float, end: float) -> Segment:
    """Return a segment with other times."""
    return segment.model_copy(update={"start_seconds": start + 0.0, "end_seconds": end})


def _pair(segment: Segment) -> tuple[float, float]:
    return segment.start_seconds, segment.end_seconds


def _duration(view: View, part: tuple[float, float] | None, context: Context) -> float:
    """Return how long the video, or the part of it, is; the video tells if the row does not."""
    if part is not None:
        return float(Decimal(repr(part[1])) - Decimal(repr(part[0])))
    if view.end_seconds is not None:
        return view.end_seconds
    return context.frames(replace(view, at_seconds=None)).end_seconds


def _inner(record: Record, name: str) -> Record:
    value = record.value(name)
    if not isinstance(value, dict):
        raise record.fault(name, f"must be an object, got {value!r:.80}")
    return Record(f"{record.where}: in {name!r}", value)


FORMAT = Format("taro", "TaRO's rows", "json", recognises, read, write, protocol="taro")
