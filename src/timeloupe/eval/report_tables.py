"""A report as tables of text: what Markdown, a page and a terminal have in common. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from timeloupe.eval.metrics import Interval
from timeloupe.eval.report import BenchReport, Entry
from timeloupe.eval.report_figures import Figure
from timeloupe.eval.scripts.sources import source_of

MAX_COLUMNS = 8
"""Strict figures of the first table; the rest is in --json."""

MAX_OFFICIAL = 4
"""Figures of a script that are shown; the rest is in --json."""


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: Above it.
        head: Names of the columns.
        rows: Cells, as many as ``head``.
        note: Below it; may be empty.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def heading(bench: BenchReport) -> str:
    """``Video-MME, test: 2700 questions``"""
    return f"{bench.title}, {bench.split}: {bench.rows} questions"


def grids(bench: BenchReport) -> list[Grid]:
    """Return the tables of a benchmark, those without anything to say left out."""
    found = [
        _strict(bench),
        _official(bench),
        *_by_category(bench),
        _by_length(bench),
        _outcomes(bench),
        _costs(bench),
    ]
    return [grid for grid in found if grid is not None and grid.rows]


def warnings(bench: BenchReport) -> list[str]:
    """Return what must be known before a figure is quoted."""
    return [*(_not_whole(entry) for entry in bench.entries if not entry.is_whole), *bench.notes]


def _not_whole(entry: Entry) -> str:
    words = (
        f"{entry.label} is not whole: {entry.lost} of {entry.wanted} episodes are missing or lost to machines"
    )
    if not entry.not_begun:
        return f"{words}; its figures count them as wrong"
    repeats = entry.samples + entry.not_begun
    words += f"; {entry.not_begun} of {repeats} repeats were not begun and are in no figure"
    counted = entry.lost > entry.not_begun * entry.wanted // repeats
    return f"{words}, the other missing ones count as wrong" if counted else words


def _strict(bench: BenchReport) -> Grid:
    names = list(
        dict.fromkeys(
            figure.name for entry in bench.entries for figure in entry.strict if "=" not in figure.name
        )
    )
    left = len(names) - len(names[:MAX_COLUMNS])
    names = names[:MAX_COLUMNS]
    rows = [(entry.label, str(_samples(entry)), _interval(entry.overall), *_cells(entry.strict, names))
            for entry in bench.entries]  # fmt: skip
    rows += [
        (f"without looking: {name}", "", "", *_cells(figures, names))
        for name, figures in bench.trivial.items()
    ]
    note = "Fractions, with 95 % intervals by bootstrap over videos"
    note += (
        "; ± is the standard deviation between repeats"
        if any(entry.samples > 1 for entry in bench.entries)
        else ""
    )
    note += f"; {left} more figures are in --json" if left else ""
    return Grid("Strict scores", ("", "repeats", "mean over questions", *names), tuple(rows), note + ".")


def _official(bench: BenchReport) -> Grid | None:
    rows: list[tuple[str, ...]] = []
    for entry in bench.entries:
        for mode, figures in entry.official.items():
            script = f"{mode.removeprefix('official:')} ({source_of(mode)})"
            if isinstance(figures, str):
                rows.append((entry.label, script, figures))
                continue
            unit = " (percent)" if figures and figures[0].unit == "percent" else ""
            words = "; ".join(f"{one.name} {_figure(one)}" for one in figures[:MAX_OFFICIAL])
            rows.append((entry.label, script, words + unit))
    return Grid("As official scripts score", ("", "script", "figures"), tuple(rows)) if rows else None


def _by_category(bench: BenchReport) -> list[Grid]:
    found = []
    for name in bench.entries[0].categories:
        values = bench.entries[0].categories[name]
        rows = tuple(
            (
                value,
                str(values[value].num_total),
                *(_interval(entry.categories[name][value]) for entry in bench.entries),
            )
            for value in values
        )
        head = (name.replace("_", " "), "questions", *(entry.label for entry in bench.entries))
        found.append(Grid(f"By {name.replace('_', ' ')}", head, rows, "Strict mean over questions."))
    return found


def _by_length(bench: BenchReport) -> Grid | None:
    bins = bench.entries[0].durations
    if not bins:
        return None
    rows = tuple(
        (name, str(bins[name].num_total), *(_interval(entry.durations[name]) for entry in bench.entries))
        for name in bins
    )
    head = ("length of the video", "questions", *(entry.label for entry in bench.entries))
    return Grid("By length", head, rows, "Strict mean over questions.")


def _outcomes(bench: BenchReport) -> Grid:
    rows = tuple(
        (
            entry.label, f"{entry.wanted - entry.lost} of {entry.wanted}", str(entry.lost), _counts(entry.failures),
            _counts(entry.stops),
        )
        for entry in bench.entries
    )  # fmt: skip
    head = ("", "episodes played", "missing or lost", "could not be scored as meant", "ended")
    return Grid("Failures", head, rows)


def _costs(bench: BenchReport) -> Grid:
    rows = tuple(
        (
            entry.label, _number(entry.cost.tokens, 0), _number(entry.cost.wall_seconds, 3),
            _number(entry.cost.seconds, 3), _number(entry.cost.frames, 1), _number(entry.cost.crops, 2),
        )
        for entry in bench.entries
    )  # fmt: skip
    head = ("", "tokens", "seconds of the run", "seconds of an episode", "frames decoded", "looks closer")
    return Grid(
        "Cost per episode",
        head,
        rows,
        "A question costs as many episodes as it has repeats. A dash: not counted. An episode's seconds are longer "
        "where many play at once.",
    )


def _samples(entry: Entry) -> int:
    return entry.samples


def _cells(figures: Sequence[Figure], names: Sequence[str]) -> list[str]:
    by_name = {figure.name: figure for figure in figures}
    return [_figure(by_name[name]) if name in by_name else "" for name in names]


def _figure(figure: Figure) -> str:
    if figure.mean is None:
        return "-"
    digits = 1 if figure.unit == "percent" else 3
    words = f"{figure.mean:.{digits}f}"
    if figure.spread is not None:
        words += f" ± {figure.spread:.{digits}f}"
    one = figure.interval
    if one is not None and one.low is not None and one.high is not None:
        words += f" [{one.low:.{digits}f}, {one.high:.{digits}f}]"
    return words


def _interval(one: Interval) -> str:
    if one.mean is None:
        return "-"
    return f"{one.mean:.3f}" + (
        "" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]"
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in counts.items()) or "none"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
