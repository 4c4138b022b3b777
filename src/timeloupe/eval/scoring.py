"""What every benchmark hands over: its rows as they are in the files, and tables of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timeloupe.trajectory import Example, Segment, Task

Window = tuple[float, float]

Predictions = Mapping[str, Any]
"""By row id: the model's text, or what the official script takes in its place (a list of windows, a dict, ...)."""


@dataclass(frozen=True)
class Row:
    """One question of a benchmark, with the labels exactly as its file has them, faults and all.

    Attributes:
        id: Unique within the benchmark, unless the file repeats it.
        video: Video name or file, as in the annotation.
        question: The stem, without options.
        task: What is asked for.
        options: Option texts without letters.
        answer: Option letter, or the text of an open answer; ``None`` if the file has none.
        windows: True (start, end) in seconds, unmended: may be empty, reversed, of no length, past the end.
        duration_seconds: Length of the video as the annotation says, or ``None``.
        clip: (start, end) seconds of the part of the video that the row is about; ``None`` = all of it.
        groups: What tables are split by, such as ``{"duration": "short"}``.
        raw: The record as it is in the file.
    """

    id: str
    video: str
    question: str
    task: Task
    options: tuple[str, ...] = ()
    answer: str | None = None
    windows: tuple[Window, ...] = ()
    duration_seconds: float | None = None
    clip: Window | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """The figures of one way of scoring.

    Attributes:
        mode: ``strict``, or ``official:<script>``.
        figures: Name to value in the script's own unit and rounding; ``None`` = there is none.
        unit: What the figures are in: ``fraction``, ``percent``, or ``points`` of a judge.
        num_scored: Rows that are in the figures' denominator.
        num_total: Rows of the benchmark.
        failures: Reason to number of rows: ``missing``, ``unparsed``, ... Rows may count as wrong and be in here.
        values: Per row id, the row's own value in [0, 1] (IoU, or right or wrong) where the mode has one.
        error: The exception that the official script ends with, as ``KeyError: 'x'``; then there are no figures but
            those that it printed before.
    """

    mode: str
    figures: Mapping[str, Any]
    unit: str
    num_scored: int
    num_total: int
    failures: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None


Scorer = Callable[[Sequence[Row], Predictions], Table]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: Its name on the command line.
        title: Its name in papers.
        split: Which split the files hold.
        files: What ``--annotations`` is given, in words.
        load: Path of the annotation file or folder -> rows. Raises ``MissingError`` or ``RecordError``.
        official: Name of a script -> its scorer. Faults of the script are reproduced.
        strict: Scores as a user means it (``timeloupe.eval.strict``).
        read_predictions: Path of a prediction file in an official script's layout -> predictions, or ``None`` where
            the generic layouts (run folder, our jsonl, ``{id: text}``) are all there is.
        joint: Rows with options and windows ask for both, and ``strict`` takes ``qa_grounding.Halves``.
    """

    name: str
    title: str
    split: str
    files: str
    load: Callable[[Path], list[Row]]
    official: Mapping[str, Scorer]
    strict: Scorer
    read_predictions: Callable[[Path, Sequence[Row]], Predictions] | None = None
    joint: bool = False


def example_of(row: Row) -> Example:
    """Return the row as a question to ask; windows that are no segment (no length, reversed) are left out.

    Times of a row with a ``clip`` count from the start of the clip, as its video file does.
    """
    segments = tuple(
        Segment(start_seconds=start, end_seconds=end) for start, end in row.windows if 0 <= start < end
    )
    return Example(
        id=row.id, video=row.video, question=row.question, options=row.options, answer=row.answer,
        segments=segments, task=row.task, source=str(row.groups.get("source", "")),
    )  # fmt: skip
