"""The figures of a report: means over repeats, with intervals over questions and the spread between repeats. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timeloupe.eval.figure_diff import Marks, modes_of, rounding, table_of
from timeloupe.eval.metrics import Interval, bootstrap_interval
from timeloupe.eval.recorded import Asked, Recorded
from timeloupe.eval.scoreboard import STRICT
from timeloupe.eval.scoring import Row, Table

INTERVALS = 4
"""Figures of an official script that get an interval: its first ones, which papers quote."""


@dataclass(frozen=True)
class Figure:
    """A figure of an entry.

    Attributes:
        name: Its name.
        unit: ``fraction``, ``percent`` or ``points``.
        mean: Over all repeats of all its runs; ``None`` = there is none.
        interval: Over questions, by video; ``None`` where the figure is no mean over questions.
        spread: Standard deviation between repeats; ``None`` for one alone.
        least: Smallest of the repeats.
        most: Largest.
    """

    name: str
    unit: str
    mean: float | None
    interval: Interval | None = None
    spread: float | None = None
    least: float | None = None
    most: float | None = None


def strict_figures(found: Sequence[Marks], rows: Sequence[Row], seed: int) -> tuple[Figure, ...]:
    """Return the figures of all runs of an entry, each the mean over their repeats, from their marks."""
    ids, videos = [row.id for row in rows], [row.video for row in rows]
    figures: list[Figure] = []
    for name in next(iter(found[0].figures.values()), {}):
        values = [_number(one.get(name)) for each in found for one in each.figures.values()]
        interval = None
        if all(one.is_mean(name) for one in found):
            columns = [one.by_question(name, ids) for one in found]
            interval = bootstrap_interval(
                [mean_of(list(some)) for some in zip(*columns, strict=True)], videos, seed=seed
            )
        if any(value is not None for value in values):
            figures.append(_figure(str(name), found[0].unit, values, interval))
    return tuple(figures)


def official_figures(
    runs: Sequence[Recorded], asked: Asked, seed: int
) -> dict[str, tuple[Figure, ...] | str]:
    """Return the figures of the scripts that the first run was scored by, or what a script ends with."""
    if not asked.benchmark.official:
        return {}
    found: dict[str, tuple[Figure, ...] | str] = {}
    for mode in modes_of(asked, runs[0].mode):
        if mode == STRICT:
            continue
        tables = [
            table_of(asked, mode, asked.rows, run.predictions(repeat))
            for run in runs
            for repeat in run.repeats
        ]
        error = next((table.error for table in tables if table.error), None)
        if error is not None:
            found[mode] = f"the script ends with {error}"
            continue
        figures: list[Figure] = []
        for name in tables[0].figures:
            values = [_number(table.figures.get(name)) for table in tables]
            if any(value is not None for value in values):
                interval = _interval_of(tables, name, asked.rows, seed) if len(figures) < INTERVALS else None
                figures.append(_figure(str(name), tables[0].unit, values, interval))
        found[mode] = tuple(figures)
    return found


def _interval_of(tables: Sequence[Table], name: str, rows: Sequence[Row], seed: int) -> Interval | None:
    """The interval of an official figure that is the mean of what the script makes of each question."""
    scale = {"fraction": 1.0, "percent": 100.0}.get(tables[0].unit, 0.0)
    for table in tables:
        value, mean = _number(table.figures.get(name)), mean_of(list(table.values.values()))
        if value is None or mean is None or abs(value - scale * mean) > rounding(value, table.unit):
            return None
    worth = [mean_of([table.values.get(row.id) for table in tables]) for row in rows]
    scaled = [None if value is None else scale * value for value in worth]
    return bootstrap_interval(scaled, [row.video for row in rows], seed=seed)


def _figure(name: str, unit: str, values: Sequence[float | None], interval: Interval | None) -> Figure:
    known = [value for value in values if value is not None]
    spread = statistics.stdev(known) if len(known) > 1 else None
    several = len(known) > 1
    return Figure(
        name,
        unit,
        mean_of(known),
        interval,
        spread,
        min(known) if several else None,
        max(known) if several else None,
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that there are; ``None`` without any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
