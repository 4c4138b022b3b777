"""``timeloupe diff``: why one run's score is not the other's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timeloupe.errors import ConfigError

if TYPE_CHECKING:
    from timeloupe.eval.diff import RunDiff, Scored
    from timeloupe.eval.figure_diff import FigureDiff
    from timeloupe.eval.recorded import Asked, Recorded

SHOWN_FIGURES = 12
"""Figures of a scorer that are printed; the rest is in --json."""

Line = tuple[str, str]
"""Text and its style."""


def diff(
    run1: Annotated[Path, typer.Argument(metavar="RUN1", help="A run folder.", show_default=False)],
    run2: Annotated[
        Path,
        typer.Argument(
            metavar="RUN2", help="Another one, the same, or a file of predictions.", show_default=False
        ),
    ],
    mode: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODE",
            help="strict, official:SCRIPT, ...; given twice: RUN1's and RUN2's.  [default: as the runs say]",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="The annotations.  [default: where the runs say]", show_default=False
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Changed rows to print; all are in --json.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Say what two runs did differently, what that did to the score, and which questions moved, and why.

    Differences are RUN2 minus RUN1, over the questions that both answered. Give --mode twice, and the same run twice
    if you like, to see what a scorer does: diff RUN RUN --mode strict --mode official:taro.

    Raises:
        ConfigError: The runs are of different benchmarks, or share no question, or there is no such mode (exit code 2).
        MissingError: There is no run, or no episode in it (exit code 3).
        RecordError: A line is not a valid trajectory (exit code 1).
    """
    from timeloupe.cli.score import finite
    from timeloupe.eval.diff import compare_runs, diff_facts

    modes = mode or []
    if len(modes) > 2:
        raise ConfigError(f"--mode is given once for both runs or once for each, got {modes!r}")
    one, two, asked = read_both(run1, run2, data)
    found = compare_runs(one, two, asked, modes, seed=seed)
    if as_json:
        typer.echo(json.dumps(finite(diff_facts(found)), allow_nan=False))
        return
    show(found, rows)


def read_both(run1: Path, run2: Path, data: Path | None) -> tuple[Recorded, Recorded, Asked]:
    """Return two runs and the rows that both are scored on; the second may be a file of predictions."""
    from timeloupe.eval.diff import check_comparable
    from timeloupe.eval.recorded import asked_rows, holds_trajectories, read_beside, read_recorded

    if run1.exists() and run2.exists() and not holds_trajectories(run1) and holds_trajectories(run2):
        raise ConfigError(f"RUN1 must be a run, got a file of predictions: {str(run1)!r}; name the run first")
    one = read_recorded(run1)
    if run2.exists() and not holds_trajectories(run2):
        asked = asked_rows(one, data)
        return one, read_beside(run2, one, asked), asked
    two = one if run1.resolve() == run2.resolve() else read_recorded(run2)
    check_comparable(one, two)
    asked = asked_rows(one, data)
    if asked.whole and one.questions_sha256 == two.questions_sha256:
        return one, two, asked
    other = asked_rows(two, data)
    # The run that knows all of its rows goes first, then the one that asked more.
    best = max((asked, other), key=lambda some: (bool(some.benchmark.official), some.whole, len(some.rows)))
    return one, two, best


def show(found: RunDiff, limit: int) -> None:
    """Print a comparison."""
    from rich.console import Console
    from rich.text import Text

    from timeloupe.cli.show import printable

    console = Console(highlight=False)
    for text, style in (*_heads(found), *_causes(found), *_scores(found), *_moved(found, limit)):
        console.print(Text(printable(text), style=style), soft_wrap=True)


def _heads(found: RunDiff) -> list[Line]:
    lines: list[Line] = []
    for number, run in ((1, found.one), (2, found.two)):
        count = len(run.replies)
        faults = sum(reply.is_fault for reply in run.replies.values())
        words = f"RUN{number}  {run.name}: {run.benchmark_name or 'no benchmark named'}, "
        words += f"{count} episode{'s' * (count != 1)}"
        words += f" of {len(run.repeats)} repeats" if len(run.repeats) > 1 else ""
        lines.append((words + (f", {faults} lost to machines" if faults else ""), "bold"))
    return lines + [(f"note: {note}", "yellow") for note in found.notes]


def _causes(found: RunDiff) -> list[Line]:
    """Differences of configuration, the likeliest cause first."""
    from timeloupe.eval.diff import unknown_areas

    live = [one for one in found.differences if not one.idle]
    lines: list[Line] = [("", "")]
    if not found.differences:
        lines.append(("Configuration: no difference is recorded", "bold"))
    else:
        lines.append(
            (
                f"Configuration: {len(live)} difference{'s' * (len(live) != 1)}, the likeliest cause of another score "
                "first",
                "bold",
            )
        )
    for number, one in enumerate(found.differences, 1):
        words = f" {number}  {one.area.title}: " + "; ".join(setting.words for setting in one.settings)
        if not one.settings:
            words += "the settings agree, but what the model was shown does not"
        if one.reached:
            words += f"  (shows in {one.reached} of {one.compared} episodes)"
        lines.append((words, "" if not one.idle else "dim"))
        lines.append((f"      {one.idle or one.area.why}", "dim"))
    for title, count in unknown_areas(found).items():
        lines.append(
            (
                f" ?  {title}: {count} setting{'s' * (count != 1)} that only one of the runs has recorded",
                "yellow",
            )
        )
    shown = found.reach
    if shown.same_start and shown.first:
        lines.append((
            f"    {shown.first} of {shown.same_start} episodes that began with the same words and frames have another "
            "first reply", "dim",
        ))  # fmt: skip
    return lines


def _scores(found: RunDiff) -> list[Line]:
    total = len(found.asked.rows)
    pairs = f", in {found.pairs} pairs of episodes" if found.pairs > len(found.shared) else ""
    lines: list[Line] = [
        ("", ""),
        (f"Scores over the {len(found.shared)} of {total} questions that both answered{pairs}; RUN2 - RUN1 with its "
         "95 % interval by video", "bold"),
    ]  # fmt: skip
    if not found.shared:
        lines.append((" there is none: no question has an answer of both runs in one repeat", "red"))
    partial = any(len(run.replies) > found.pairs for run in (found.one, found.two))
    for one in found.scored:
        lines += _table(one, partial or len(found.shared) < total)
    return lines


def _table(one: Scored, partial: bool) -> list[Line]:
    name = one.modes[0] if one.modes[0] == one.modes[1] else f"{one.modes[0]} -> {one.modes[1]}"
    lines: list[Line] = [(f" {name}", "")]
    for number, error in enumerate(one.errors, 1):
        if error:
            lines.append((f"   RUN{number}: the script ends with {error}", "red"))
    shown = one.figures[:SHOWN_FIGURES]
    width = max((len(figure.name) for figure in shown), default=0)
    lines += [(f"   {figure.name:<{width}}  {_figure(figure)}", "") for figure in shown]
    if len(one.figures) > len(shown):
        lines.append((f"   ... {len(one.figures) - len(shown)} more figures in --json", "dim"))
    if partial:
        lines += _as_wholes(one, [figure.name for figure in shown][:3])
    return lines


def _as_wholes(one: Scored, names: list[str]) -> list[Line]:
    """What the runs score with the rows that one of them lacks."""
    words = []
    for name in names:
        values = [[_value(figures.get(name)) for figures in whole] for whole in one.wholes]
        if all(values) and None not in values[0] + values[1]:
            first, second = (sum(some) / len(some) for some in values)  # type: ignore[arg-type]
            words.append(f"{name} {first:.4f}, {second:.4f}")
    text = "   as wholes, with what is missing counted as the scorer does: " + "; ".join(words)
    return [(text, "dim")] if words else []


def _value(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _figure(figure: FigureDiff) -> str:
    unit = {"percent": " (percent)", "points": " (points)"}.get(figure.unit, "")
    values = [" -" if value is None else f"{value:7.4f}" for value in (figure.one, figure.two)]
    words = f"{values[0]} -> {values[1]}{unit}  "
    change = figure.change
    if change is None:
        return f"{words}no mean over questions: no interval"
    if change.mean is None:
        return f"{words}-"
    words += f"{change.mean:+z.4f}"
    if change.low is None or change.high is None:
        return f"{words}  (one video: no interval)"
    span = f" [{change.low:+z.4f}, {change.high:+z.4f}]"
    told = "" if change.low > 0 or change.high < 0 else "  (may be none)"
    return f"{words}{span}  {change.num_scored} of {change.num_total}{told if change.mean else ''}"


def _moved(found: RunDiff, limit: int) -> list[Line]:
    from timeloupe.eval.row_diff import REASONS, UNPAIRED

    rows = found.rows
    lines: list[Line] = [("", "")]
    extra = rows.extra_repeats
    head = f"Rows: {len(rows.changes)} of {rows.compared} episodes differ"
    head += (
        f"; {rows.looked_elsewhere} more looked elsewhere and answered the same"
        if rows.looked_elsewhere
        else ""
    )
    lines.append((head, "bold"))
    if extra:
        lines.append(
            (f" in one run only and not compared here: repeat {', '.join(map(str, extra))}", "yellow")
        )
    for reason, count in rows.counts().items():
        some = [one for one in rows.changes if one.reason == reason]
        up, down = (sum(one.change * sign > 1e-9 for one in some) for sign in (1, -1))
        words = f" {reason:<9}{count:>5}  {REASONS[reason]}"
        if reason not in UNPAIRED:
            words += (
                f": {up} up, {down} down, {rows.effects.get(reason, 0.0):+z.4f} of the mean over questions"
            )
        lines.append((words, ""))
    for one in rows.changes[:limit]:
        value = "" if one.one is None or one.two is None else f"{one.one:.2f} -> {one.two:.2f}  "
        repeat = f" (repeat {one.repeat})" if len(set(found.one.repeats) | set(found.two.repeats)) > 1 else ""
        lines.append((f"  {one.id}{repeat}  {one.reason}  {value}{one.words}", ""))
    left = len(rows.changes) - min(limit, len(rows.changes))
    if left:
        lines.append((f"  ... {left} more: --rows {len(rows.changes)} prints all, --json holds all", "dim"))
    if rows.changes and all(run.spoken for run in (found.one, found.two)) and found.one is not found.two:
        lines.append((f"  side by side: timeloupe view {found.one.name} {found.two.name}", "dim"))
    return lines
