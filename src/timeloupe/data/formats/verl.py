"""verl's rows of reinforcement learning (``RLHFDataset``, verl 0.9): a parquet file, one question a row.

``data_source``, ``prompt`` (messages with ``<video>``), ``videos`` (each an object as qwen-vl-utils takes it:
``video, video_start, video_end, fps``), ``images``, ``ability`` (our task), ``reward_model`` (``rule``, and the truth
as text: a letter or text, or [[start, end], ...]), ``extra_info``: verl hands it to the reward, and all of the question
is in it. Columns and their types are always these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError

from timeloupe.data.formats.chat import (
    example_of,
    full_chat,
    read_placeholders,
    split_chat,
    write_placeholders,
)
from timeloupe.data.formats.image_chat import picture_name, still
from timeloupe.data.formats.row import (
    DURATION,
    SPLIT,
    Context,
    Format,
    Row,
    View,
    invalid,
    read_seconds,
    read_segment,
    write_segments,
)
from timeloupe.eval.files.records import Record, parse_json
from timeloupe.trajectory import Example, Segment, Task

SOURCE = "timeloupe"
"""``data_source`` of a row without a source of its own: verl must have one."""

FPS = 2.0
"""What qwen-vl-utils takes where nothing is said; it fails on null, which is what a parquet row without it has."""

_OWN = ("id", "video", "question", "options", "answer", "segments", "boxes", "task", "source")


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has verl's fields, and is none of TaRO's."""
    return {"data_source", "prompt", "reward_model"} <= fields.keys() and fields.get("ability") != "vtg"


def columns() -> Any:
    """Return the columns of a file."""
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    box = pa.struct(
        [("at_seconds", number), *((side, number) for side in ("x1", "y1", "x2", "y2")), ("label", text)]
    )
    info = [
        ("index", pa.int64()), ("split", text), ("id", text), ("video", text), ("question", text),
        ("options", pa.list_(text)), ("answer", text), ("segments", pa.list_(pa.list_(number))),
        ("boxes", pa.list_(box)), ("task", text), ("source", text), ("duration", number),
    ]  # fmt: skip
    video = pa.struct([("video", text), ("video_start", number), ("video_end", number), ("fps", number)])
    return pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("videos", pa.list_(video)),
            ("images", pa.list_(pa.struct([("image", text)]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct(info)),
        ]
    )


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a record; without our question in ``extra_info`` it is read from the prompt.

    Raises:
        RecordError: A field is missing or not valid.
    """
    videos = [_view(record, at, one) for at, one in enumerate(_files(record, "videos"))]
    images = [_picture(record, at, one) for at, one in enumerate(_files(record, "images"))]
    chat = read_placeholders(record, "prompt", videos, images)
    info = Record(f"{record.where}: in 'extra_info'", record.fields.get("extra_info") or {})
    extra: dict[str, Any] = {}
    if isinstance(info.fields.get("split"), str):
        extra[SPLIT] = info.fields["split"]
    if info.has("duration"):
        extra[DURATION] = read_seconds(info, "duration")
    if all(info.has(name) for name in ("id", "question", "task")):
        fields = {name: info.fields[name] for name in _OWN if info.fields.get(name) is not None}
        fields["segments"] = [
            read_segment(info, f"segments[{at}]", one) for at, one in enumerate(fields.get("segments", []))
        ]
        try:
            return Row(Example.model_validate(fields), chat, extra=extra)
        except ValidationError as error:
            raise invalid(info, error) from error
    ability = record.fields.get("ability")
    task: Task | None = ability if ability in get_args(Task) else None
    answer, segments = _truth(record)
    example = example_of(
        chat, number, context, answer=answer, segments=segments, task=task, source=record.text("data_source")
    )
    return Row(example, chat, extra=extra, numbered=True)


def _files(record: Record, name: str) -> list[Any]:
    value = record.fields.get(name) or []
    if not isinstance(value, list):
        raise record.fault(name, f"must be a list, got {value!r:.80}")
    return value


def _view(record: Record, at: int, value: Any) -> View:
    if isinstance(value, str):
        return View(value, "skim", 0.0)
    if not isinstance(value, dict) or not isinstance(value.get("video"), str):
        raise record.fault(
            f"videos[{at}]", f"must be a path or an object with one in 'video', got {value!r:.80}"
        )
    inner = Record(f"{record.where}: in videos[{at}]", value)
    start, end = (
        read_seconds(inner, name) if inner.has(name) else None for name in ("video_start", "video_end")
    )
    fps = inner.number("fps") if inner.has("fps") else None
    return View(value["video"], "skim", start or 0.0, end, fps)


def _picture(record: Record, at: int, value: Any) -> View:
    path = value.get("image") if isinstance(value, dict) else value
    if not isinstance(path, str):
        raise record.fault(
            f"images[{at}]", f"must be a path or an object with one in 'image', got {value!r:.80}"
        )
    return still(path)


def _truth(record: Record) -> tuple[str | None, tuple[Segment, ...]]:
    """Return the truth that the reward gets: a text, or segments where it is written as such."""
    model = record.value("reward_model")
    truth = model.get("ground_truth") if isinstance(model, dict) else None
    value: Any = truth
    if isinstance(truth, str) and truth.startswith("["):
        try:
            value = parse_json(truth)
        except ValueError:
            value = truth
    if isinstance(value, list) and value:
        spans = value if isinstance(value[0], list) else [value]
        where = "reward_model.ground_truth"
        return None, tuple(read_segment(record, f"{where}[{at}]", one) for at, one in enumerate(spans))
    return (truth if isinstance(truth, str) else None), ()


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the record of a row; replies are left out.

    Raises:
        RecordError: A text of the prompt holds a placeholder.
    """
    example = row.example
    prompt, _ = split_chat(full_chat(row, context, tools=True))
    views = [view for one in prompt for view in one.views]
    truth = example.answer or ""
    if example.task in ("grounding", "multi_segment"):
        truth = json.dumps(write_segments(example.segments))
    own = example.model_dump(mode="json") | {"segments": write_segments(example.segments)}
    return {
        "data_source": example.source or SOURCE,
        "prompt": write_placeholders(prompt),
        "videos": [_video(view) for view in views if view.view != "image"],
        "images": [{"image": picture_name(view)} for view in views if view.view == "image"],
        "ability": example.task,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"index": number, "split": row.extra.get(SPLIT, "train")}
        | own
        | {"duration": row.video_seconds},
    }


def _video(view: View) -> dict[str, Any]:
    """Return a video as qwen-vl-utils takes it; the whole of it has neither start nor end."""
    start = None if not view.start_seconds and view.end_seconds is None else view.start_seconds
    return {"video": view.video, "video_start": start, "video_end": view.end_seconds, "fps": view.fps or FPS}


FORMAT = Format(
    "verl",
    "verl's rows of reinforcement learning (parquet)",
    "parquet",
    recognises,
    read,
    write,
    columns=columns,
)
