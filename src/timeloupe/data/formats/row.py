"""A row on its way from one format to another: the question, the chat if it has one, and what goes with them.

Every format reads into a ``Row`` and writes from one. A row holds what any two formats share; what only its own format
knows stays in ``rest`` and is written back by that format alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from timeloupe.errors import RecordError
from timeloupe.eval.files.records import Record
from timeloupe.prompt.protocol import PROTOCOLS, Protocol
from timeloupe.trajectory import Box, Example, FrameRef, Segment, Trajectory

DURATION = "duration_seconds"
CLIP = "clip_seconds"
CAPTIONS = "captions"
SPLIT = "split"
IMAGE_SIZE = "image_size_wh"
EXTRAS = (DURATION, CLIP, CAPTIONS, SPLIT, IMAGE_SIZE)
"""What ``Row.extra`` may hold. ``CLIP`` is the part of the video that the question is about, as (start, end), and
``DURATION`` the length of that part, or of the whole video where there is none;
``IMAGE_SIZE`` says that the video is one picture, of that width and height."""

ABSENT = "\0absent"
"""In ``Row.rest``: a field that the format would write and this row did not have."""

Clips = Literal["video", "pictures"]
"""What a format wants files of: its crops as videos, or all its frames as pictures."""

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class View:
    """Frames of one video by reference; ``None`` = the format does not say.

    Attributes:
        video: Path of the original video; empty where only ``files`` are known.
        view: ``skim``, ``crop`` or ``image``, as in ``FrameRef``.
        start_seconds: Where it begins in the original video.
        end_seconds: Where it ends.
        fps: Frames a second.
        at_seconds: Time of each frame.
        size_wh: Width and height of the frames.
        files: Files that hold just these frames: one video, or a picture of each.
    """

    video: str
    view: Literal["skim", "crop", "image"]
    start_seconds: float | None = None
    end_seconds: float | None = None
    fps: float | None = None
    at_seconds: tuple[float, ...] | None = None
    size_wh: tuple[int, int] | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """One message of a chat: texts and views in order."""

    role: Role
    parts: tuple[str | View, ...]

    @property
    def text(self) -> str:
        """The texts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def views(self) -> tuple[View, ...]:
        """The views, in order."""
        return tuple(part for part in self.parts if isinstance(part, View))


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        example: The question and its truth.
        chat: The messages, if the row has any; empty = those of ``trajectory``.
        trajectory: The record of an episode, if the row is one.
        extra: Values by name, one of ``EXTRAS``.
        numbered: Whether the example's id is only the number of the row, which had none.
        rest: What the row's own format has beyond all that, as nested fields; see ``formats/rest.py``.
    """

    example: Example
    chat: tuple[Said, ...] = ()
    trajectory: Trajectory | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    numbered: bool = False
    rest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def video_seconds(self) -> float | None:
        """How long the whole video is, if the row says so."""
        return None if CLIP in self.extra else self.extra.get(DURATION)


@dataclass(frozen=True)
class Context:
    """What reading and writing need beside the row.

    Attributes:
        protocol: How a prompt is worded where a row has none, and how replies and prompts are read.
        frames: Returns the frames of a view whose times the row does not say; it reads the video.
    """

    protocol: Protocol
    frames: Callable[[View], FrameRef]


@dataclass(frozen=True)
class Format:
    """A format of rows.

    Attributes:
        name: What the command line calls it.
        summary: What it is, in a line.
        container: What a file of it is: lines of JSON, one JSON list, or parquet. All are read; one is written.
        recognises: Whether a record looks like this format.
        read: Returns the row of a record, which is the n-th from 0; raises ``RecordError``.
        write: Returns the record of a row, likewise.
        protocol: Name of the prompt protocol where none is asked for.
        columns: Types of the columns of a parquet file, as a function since its library is an extra.
        clips: What its readers want files of; ``None`` = they cut views out of the videos, or show none.
    """

    name: str
    summary: str
    container: Literal["jsonl", "json", "parquet"]
    recognises: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Record, int, Context], Row]
    write: Callable[[Row, int, Context], dict[str, Any]]
    protocol: str = "videotemp"
    columns: Callable[[], Any] | None = None
    clips: Clips | None = None

    def context(self, protocol: Protocol | None, frames: Callable[[View], FrameRef]) -> Context:
        """Return what reading and writing need; without a protocol, this format's own."""
        return Context(protocol or PROTOCOLS[self.protocol], frames)


def refused(field: str, allowed: str, got: object) -> RecordError:
    """Return the error of a row that a format cannot hold; the caller puts the place in front."""
    return RecordError(f"field {field!r} must be {allowed}, got {got!r:.80}")


def check_times(example: Example, tasks: Collection[str] = ("grounding", "multi_segment")) -> None:
    """Do nothing if an example asks for times, in one of these tasks, and has them.

    Raises:
        RecordError: It asks for something else, or has no segment.
    """
    if example.task not in tasks:
        raise refused("task", " or ".join(tasks), example.task)
    if not example.segments:
        raise refused("segments", "at least one", [])


def is_number(value: object) -> bool:
    """Return whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_seconds(record: Record, name: str) -> float:
    """Return a field that is a time or length in seconds.

    Raises:
        RecordError: It is missing, or no finite number from 0.
    """
    value = record.value(name)
    if not is_number(value) or value < 0:
        raise record.fault(name, f"must be a number of seconds >= 0, got {value!r:.80}")
    return float(value)


def read_segment(record: Record, name: str, value: object) -> Segment:
    """Return ``value``, which stands in field ``name``, as a segment.

    Raises:
        RecordError: It is not [start, end] with 0 <= start < end.
    """
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(map(is_number, value))
        and 0 <= value[0] < value[1]
    ):
        return Segment(start_seconds=float(value[0]) + 0.0, end_seconds=float(value[1]))
    raise record.fault(name, f"must be [start, end] in seconds with 0 <= start < end, got {value!r:.80}")


def read_segments(record: Record, name: str) -> tuple[Segment, ...]:
    """Return a field that is a list of segments.

    Raises:
        RecordError: It is missing, no list, or one of them is none.
    """
    value = record.value(name)
    if not isinstance(value, list):
        raise record.fault(name, f"must be a list of [start, end] in seconds, got {value!r:.80}")
    return tuple(read_segment(record, f"{name}[{at}]", one) for at, one in enumerate(value))


def write_segments(segments: tuple[Segment, ...]) -> list[list[float]]:
    """Return segments as lists of two numbers."""
    return [[one.start_seconds, one.end_seconds] for one in segments]


def read_text(record: Record, name: str) -> str:
    """Return a field that is a text, and not a number.

    Raises:
        RecordError: It is missing or something else.
    """
    value = record.value(name)
    if not isinstance(value, str):
        raise record.fault(name, f"must be a text, got {value!r:.80}")
    return value


def read_box(record: Record, name: str, corners: object, at_seconds: float, label: str) -> Box:
    """Return a box given as [x1, y1, x2, y2] in fractions of the frame.

    Raises:
        RecordError: It is none.
    """
    if isinstance(corners, list) and len(corners) == 4 and all(map(is_number, corners)):
        x1, y1, x2, y2 = (float(value) + 0.0 for value in corners)
        if 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1:
            return Box(at_seconds=at_seconds, x1=x1, y1=y1, x2=x2, y2=y2, label=label)
    allowed = "[x1, y1, x2, y2] in fractions of the frame with x1 < x2 and y1 < y2"
    raise record.fault(name, f"must be {allowed}, got {corners!r:.80}")


def invalid(record: Record, error: ValidationError) -> RecordError:
    """Return the error of a record that is none of ours, naming the first field that is wrong."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in first["loc"]) or "the line"
    return record.fault(where, f"is not valid: {first['msg']}, got {first['input']!r:.80}")
