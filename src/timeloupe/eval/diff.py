"""Two runs compared: what was configured differently, what that did to the figures, and which questions moved. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from timeloupe.errors import ConfigError
from timeloupe.eval.config_diff import Difference, Reach, differences, known_settings, reach
from timeloupe.eval.figure_diff import FigureDiff, Marks, figure_differences, marks, modes_of, table_of
from timeloupe.eval.questions import digest_rows
from timeloupe.eval.recorded import Asked, Recorded
from timeloupe.eval.row_diff import RowChange, RowChanges, row_changes
from timeloupe.eval.scoreboard import STRICT
from timeloupe.eval.scoring import Row


@dataclass(frozen=True)
class Scored:
    """The figures of one way of scoring each run.

    Attributes:
        modes: How the first and the second run are scored.
        figures: Over the episodes that both answered.
        wholes: The same figures of each run as a whole, where what a machine lost or nobody played counts as the
            scorer has it: by repeat, then the figure's name.
        errors: What the official script ends with, for each run; "" if it does not.
    """

    modes: tuple[str, str]
    figures: tuple[FigureDiff, ...]
    wholes: tuple[tuple[Mapping[str, Any], ...], tuple[Mapping[str, Any], ...]]
    errors: tuple[str, str]


@dataclass(frozen=True)
class RunDiff:
    """Two runs compared.

    Attributes:
        one: The first run.
        two: The second.
        asked: The rows that both are scored on.
        shared: Questions that both answered in the same repeat.
        pairs: Episodes of these that both have; scores and their difference are over them alone.
        differences: What was configured differently, the likeliest cause first.
        reach: What was shown differently.
        same: Areas whose settings both runs have, and have alike.
        unknown: Settings that only one of the runs has recorded, by area.
        scored: The figures, one entry per pair of scorers; the first one is what ``rows`` are scored by.
        rows: The replies that differ.
        notes: What could not be compared, and why.
    """

    one: Recorded
    two: Recorded
    asked: Asked
    shared: tuple[Row, ...]
    pairs: int
    differences: tuple[Difference, ...]
    reach: Reach
    scored: tuple[Scored, ...]
    rows: RowChanges
    notes: tuple[str, ...]


def compare_runs(
    one: Recorded, two: Recorded, asked: Asked, modes: Sequence[str] = (), *, seed: int = 0
) -> RunDiff:
    """Return two runs compared.

    Args:
        one: The first run.
        two: The second, or the same.
        asked: The rows of the benchmark.
        modes: How to score: none = as the runs say; one = both so; two = each in its own.
        seed: Of the intervals.

    Raises:
        ConfigError: The runs are of different benchmarks, have no question in common, or there is no such mode.
    """
    check_comparable(one, two)
    notes = [
        f"{name} {note}" for name, run in (("first run", one), ("second run", two)) for note in run.notes
    ]
    if not asked.whole:
        notes.append(f"both are scored on {asked.source}")
    if not set(one.repeats) & set(two.repeats):
        notes.append("the runs have no repeat in common: nothing of them can be paired")
    known = {row.id for row in asked.rows}
    answered = [
        {key for key, reply in run.replies.items() if reply.prediction is not None and key[0] in known}
        for run in (one, two)
    ]
    both = answered[0] & answered[1]
    ids = {id for id, _ in both}
    shared = tuple(row for row in asked.rows if row.id in ids)
    pairs, told = mode_pairs(one, two, asked, modes)
    notes += dict.fromkeys(told)
    scored: list[Scored] = []
    rows: RowChanges | None = None
    for pair in pairs:
        ones = marks(asked, pair[0], shared, one, only=both)
        twos = marks(asked, pair[1], shared, two, only=both)
        if rows is None:
            rows = row_changes(one, two, [row.id for row in asked.rows], ones, twos)
        scored.append(
            Scored(
                pair, tuple(figure_differences(ones, twos, shared, seed)),
                (_wholes(one, asked, pair[0]), _wholes(two, asked, pair[1])), (ones.error or "", twos.error or ""),
            )
        )  # fmt: skip
    assert rows is not None
    given = modes if len(modes) == 2 else (modes[0], modes[0]) if modes else None
    shares = all(pair[0] == pair[1] for pair in pairs)
    found = differences(one, two, None if given is None else (given[0], given[1]), shares_scorer=shares)
    return RunDiff(
        one,
        two,
        asked,
        shared,
        len(both),
        tuple(found),
        reach(one.replies, two.replies),
        tuple(scored),
        rows,
        tuple(notes),
    )


def check_comparable(one: Recorded, two: Recorded) -> None:
    """Raise unless two runs may be compared.

    Raises:
        ConfigError: They are of different benchmarks, or have no question in common.
    """
    names = one.benchmark_name, two.benchmark_name
    if None not in names and names[0] != names[1]:
        raise ConfigError(
            f"runs of different benchmarks cannot be compared, got {names[0]!r} ({one.name}) and {names[1]!r} "
            f"({two.name}); play both over the same one, or see both in `timeloupe report`"
        )
    ids = [{id for id, _ in run.replies} for run in (one, two)]
    if not ids[0] & ids[1]:
        shown = [min(some, default="none") for some in ids]
        raise ConfigError(
            f"the runs have no question in common, got {len(ids[0])} such as {shown[0]!r} ({one.name}) and "
            f"{len(ids[1])} such as {shown[1]!r} ({two.name}); compare runs over the same questions"
        )


def mode_pairs(
    one: Recorded, two: Recorded, asked: Asked, modes: Sequence[str]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return how both runs are scored, pair by pair, and what is to be said of that.

    Scorers that both use are compared with themselves. Where they share none, each of the first run stands against each
    of the second, and then the strict one against itself: what is left of the difference there is not the scorer's.

    Raises:
        ConfigError: There is no such mode.
    """
    wanted = list(modes) if len(modes) == 2 else [modes[0]] * 2 if modes else [one.mode, two.mode]
    notes: list[str] = []
    found: list[list[str]] = []
    for number, mode in enumerate(wanted):
        if not modes and mode is not None and not asked.benchmark.official and mode != STRICT:
            mode = None  # recorded questions have no scripts: their name is not known here
        some = modes_of(asked, mode)
        if not some:
            notes.append(
                f"{asked.benchmark.name} has no official script, so {wanted[number]!r} is scored as 'strict'"
            )
        found.append(some or [STRICT])
    both = [mode for mode in found[0] if mode in found[1]]
    if both:
        return [(mode, mode) for mode in both], notes
    crossed = [(first, second) for first in found[0] for second in found[1]]
    return [*crossed, (STRICT, STRICT)], notes


def _wholes(run: Recorded, asked: Asked, mode: str) -> tuple[Mapping[str, Any], ...]:
    """The figures of every repeat over all rows that this run asked: another may have asked more (``--limit``)."""
    first = asked.rows[: run.config.get("questions", len(asked.rows))]
    rows = first if digest_rows(first) == run.questions_sha256 else asked.rows
    tables = [table_of(asked, mode, rows, run.predictions(repeat)) for repeat in run.repeats]
    return tuple({} if table.error else table.figures for table in tables)


def unknown_areas(diff: RunDiff) -> dict[str, int]:
    """Return areas of which only one run has recorded settings, with the number of settings."""
    from timeloupe.eval.config_diff import area_of

    ones, twos = known_settings(diff.one), known_settings(diff.two)
    found: dict[str, int] = {}
    for key in ones.keys() ^ twos.keys():
        title = area_of(key).title
        found[title] = found.get(title, 0) + 1
    listed = {item.area.title for item in diff.differences}
    return {title: count for title, count in sorted(found.items()) if title not in listed}


def diff_facts(diff: RunDiff) -> dict[str, Any]:
    """Return the comparison as JSON data (figures may be NaN nowhere)."""
    return {
        "runs": [
            {"name": run.name, "layout": run.layout, "benchmark": run.benchmark_name, "episodes": len(run.replies),
             "faults": sum(reply.is_fault for reply in run.replies.values()), "repeats": len(run.repeats),
             "mode": run.mode}
            for run in (diff.one, diff.two)
        ],
        "questions": {
            "asked": len(diff.asked.rows), "both": len(diff.shared), "pairs": diff.pairs, "source": diff.asked.source,
        },
        "differences": [
            {"area": one.area.name, "title": one.area.title, "why": one.area.why, "idle": one.idle or None,
             "reached": one.reached, "compared": one.compared,
             "settings": [asdict(setting) | {"words": setting.words} for setting in one.settings]}
            for one in diff.differences
        ],
        "shown": asdict(diff.reach),
        "unknown": unknown_areas(diff),
        "scores": [
            {"modes": list(one.modes), "errors": list(one.errors),
             "figures": [
                 {"name": figure.name, "unit": figure.unit, "one": figure.one, "two": figure.two,
                  "change": None if figure.change is None else asdict(figure.change)}
                 for figure in one.figures
             ],
             "wholes": [[dict(figures) for figures in whole] for whole in one.wholes]}
            for one in diff.scored
        ],
        "rows": {
            "scored_by": list(diff.scored[0].modes), "compared": diff.rows.compared, "same": diff.rows.same,
            "same_but_looked_elsewhere": diff.rows.looked_elsewhere, "changed": len(diff.rows.changes),
            "reasons": diff.rows.counts(), "effects": dict(diff.rows.effects),
            "extra_repeats": list(diff.rows.extra_repeats),
            "changes": [_change_facts(one) for one in diff.rows.changes],
        },
        "notes": list(diff.notes),
    }  # fmt: skip


def _change_facts(change: RowChange) -> dict[str, Any]:
    return asdict(change) | {"change": change.change}


__all__ = ["Marks", "RunDiff", "Scored", "check_comparable", "compare_runs", "diff_facts", "mode_pairs"]
