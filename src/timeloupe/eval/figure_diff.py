"""The figures of two runs over the questions that both answered, with paired intervals. Pure.

A figure has an interval where it is a mean over questions: each question is scored alone, and the mean of what that
gives must be the figure, as far as the script rounds it. Other figures (a mean of means, a count) stand without one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from timeloupe.eval.metrics import Interval, paired_bootstrap_difference
from timeloupe.eval.predictions import Loaded
from timeloupe.eval.recorded import Asked, Recorded
from timeloupe.eval.recorded_reply import Key
from timeloupe.eval.scoreboard import ALL, OFFICIAL, STRICT, official_table, scripts_of
from timeloupe.eval.scoring import Predictions, Row, Table

ROW_VALUE = "mean over questions"
"""The mean of what each question is worth, in [0, 1]; the one figure that two scorers always share."""


@dataclass(frozen=True)
class FigureDiff:
    """A figure of both runs.

    Attributes:
        name: Its name.
        unit: ``fraction``, ``percent`` or ``points``.
        one: Of the first run, over the questions that both have; ``None`` = there is none.
        two: Of the second.
        change: Mean of second minus first with its interval; ``None`` where the figure is no mean over questions.
    """

    name: str
    unit: str
    one: float | None
    two: float | None
    change: Interval | None


@dataclass
class Marks:
    """What a scorer makes of a run's questions one by one.

    Attributes:
        mode: The scorer.
        tables: By repeat and row id: the table of that question alone.
        figures: By repeat: the figures over all of the questions at once.
        unit: Of the figures.
        error: What the script ends with, if it does.
    """

    mode: str
    tables: dict[int, dict[str, Table]] = field(default_factory=dict)
    figures: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    unit: str = "fraction"
    error: str | None = None

    def value(self, repeat: int, id: str) -> float | None:
        """Return what one reply is worth, in [0, 1]; ``None`` = the mode does not say."""
        table = self.tables.get(repeat, {}).get(id)
        if table is None:
            return None
        if id in table.values:
            return table.values[id]
        scale = {"fraction": 1.0, "percent": 100.0}.get(self.unit)
        leading = next((one for one in table.figures.values() if isinstance(one, float)), None)
        return None if leading is None or scale is None or not table.num_scored else leading / scale

    def mean_value(self, id: str) -> float | None:
        """Return the mean over the repeats of what a question's replies are worth."""
        return _mean([self.value(repeat, id) for repeat in self.tables])

    def failures(self, repeat: int, id: str) -> tuple[str, ...]:
        """Return what the scorer could not read of a reply."""
        table = self.tables.get(repeat, {}).get(id)
        return () if table is None else tuple(sorted(why for why, count in table.failures.items() if count))

    def by_question(self, name: str, ids: Sequence[str]) -> list[float | None]:
        """Return a figure of each question, the mean over its repeats."""
        return [
            _mean([_number(one[id].figures.get(name)) for one in self.tables.values() if id in one])
            for id in ids
        ]

    def overall(self, name: str) -> float | None:
        """Return a figure over all questions, the mean over the repeats."""
        return _mean([_number(one.get(name)) for one in self.figures.values()])

    def is_mean(self, name: str) -> bool:
        """Whether a figure is the mean over the questions of what they get alone."""
        for repeat, figures in self.figures.items():
            whole = _number(figures.get(name))
            alone = _mean([_number(one.figures.get(name)) for one in self.tables[repeat].values()])
            if (whole is None) != (alone is None):
                return False
            if whole is not None and alone is not None and abs(whole - alone) > rounding(whole, self.unit):
                return False
        return bool(self.figures)


def marks(
    asked: Asked,
    mode: str,
    rows: Sequence[Row],
    run: Recorded,
    *,
    missing: bool = False,
    only: Collection[Key] | None = None,
) -> Marks:
    """Return what a scorer makes of a run's replies to some questions.

    Args:
        asked: Whose rows these are.
        mode: ``strict`` or ``official:SCRIPT``.
        rows: The questions.
        run: The run.
        missing: Also score the questions that a machine lost or nobody played, as the scorer does.
        only: Take no other replies than these, by row id and repeat; ``None`` = all.
    """
    found = Marks(mode)
    for repeat in run.repeats:
        predictions = run.predictions(repeat)
        if only is not None:
            predictions = {id: one for id, one in predictions.items() if (id, repeat) in only}
        some = [row for row in rows if missing or row.id in predictions]
        given = {row.id: {row.id: predictions[row.id]} if row.id in predictions else {} for row in some}
        if not some:
            continue
        whole = table_of(asked, mode, some, {id: one for each in given.values() for id, one in each.items()})
        found.unit, found.error = whole.unit, whole.error or found.error
        found.figures[repeat] = {} if whole.error else whole.figures
        found.tables[repeat] = {row.id: table_of(asked, mode, [row], given[row.id]) for row in some}
    return found


def table_of(asked: Asked, mode: str, rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the table of ``strict`` or ``official:SCRIPT``."""
    if mode == STRICT:
        return asked.benchmark.strict(rows, predictions)
    return official_table(asked.benchmark, mode.split(":", 1)[1], rows, Loaded(dict(predictions), ""))


def figure_differences(ones: Marks, twos: Marks, rows: Sequence[Row], seed: int) -> list[FigureDiff]:
    """Return the mean over questions of what each is worth, and the figures that both runs have.

    Args:
        ones: The first run's marks.
        twos: The second's.
        rows: The questions that both answered.
        seed: Of the intervals.
    """
    ids, videos = [row.id for row in rows], [row.video for row in rows]
    values = [[marks.mean_value(id) for id in ids] for marks in (ones, twos)]
    found = [_paired(ROW_VALUE, "fraction", values[0], values[1], videos, seed)]
    names = [name for name in _names(ones) if name in set(_names(twos))]
    if ones.unit != twos.unit:
        names = []
    for name in names:
        if ones.is_mean(name) and twos.is_mean(name):
            first, second = ones.by_question(name, ids), twos.by_question(name, ids)
            found.append(_paired(name, ones.unit, first, second, videos, seed))
        else:
            found.append(FigureDiff(name, ones.unit, ones.overall(name), twos.overall(name), None))
    first = found[0]
    twice = any((one.one, one.two, one.unit) == (first.one, first.two, first.unit) for one in found[1:])
    return found[1:] if first.one is None or twice else found


def _paired(
    name: str,
    unit: str,
    ones: Sequence[float | None],
    twos: Sequence[float | None],
    videos: Sequence[str],
    seed: int,
) -> FigureDiff:
    both = [one is not None and two is not None for one, two in zip(ones, twos, strict=True)]
    change = paired_bootstrap_difference(twos, ones, videos, seed=seed)
    first, second = (
        _mean([value for value, shared in zip(values, both, strict=True) if shared])
        for values in (ones, twos)
    )
    return FigureDiff(name, unit, first, second, change)


def modes_of(asked: Asked, mode: str | None) -> list[str]:
    """Return the single modes that a mode stands for, the strict one first; without scripts only that.

    Raises:
        ConfigError: There is no such mode.
    """
    if mode is None:
        mode = ALL
    names = [f"{OFFICIAL}:{name}" for name in scripts_of(asked.benchmark, mode)]
    return ([STRICT] if mode in (STRICT, ALL) else []) + names


def rounding(value: float, unit: str = "fraction") -> float:
    """Return how far a figure may be from the mean that it was rounded from: half of its last decimal.

    A number with many decimals was not rounded, and no script rounds to less than a tenth of a percent or a hundredth.
    """
    decimals = len(repr(value).partition(".")[2]) if "e" not in repr(value) else 16
    if decimals > 8:
        return 1e-9
    return 0.5 * 10.0 ** -max(decimals, 2 if unit == "fraction" else 1) + 1e-9


def _names(found: Marks) -> list[str]:
    names: dict[str, None] = {}
    for figures in found.figures.values():
        names |= {str(name): None for name, value in figures.items() if _number(value) is not None}
    return list(names)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
