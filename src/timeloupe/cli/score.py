"""``timeloupe score``: predictions of a benchmark, as official scripts score them and strictly, side by side."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from timeloupe.eval.scoreboard import Scoreboard
    from timeloupe.eval.scoring import Table

SHOWN = 8
"""Figures of a mode that are printed; the rest is in --json and --all-figures."""


def score(
    bench: Annotated[str, typer.Argument(metavar="BENCH", help="Name of the benchmark.", show_default=False)],
    annotations: Annotated[
        Path, typer.Option(metavar="PATH", help="Its annotation file or folder.", show_default=False)
    ],
    predictions: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help='A run folder, JSONL of {"id", "prediction"}, JSON of {id: text}, or what its scripts read.',
            show_default=False,
        ),
    ],
    mode: Annotated[str, typer.Option(help="strict, official, official:SCRIPT or all.")] = "all",
    seed: Annotated[int, typer.Option(help="Of the interval and the random baseline.")] = 0,
    all_figures: Annotated[bool, typer.Option("--all-figures", help="Print every figure.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Score predictions in every way the field has, with n of N, failures by reason, and what is trivial.

    official:SCRIPT returns what that script returns, faults and all. strict means what a user means: all forms of
    times are read, an unreadable or missing answer is wrong, windows are cut to the video, IoU >= m.

    Raises:
        ConfigError: No such benchmark or mode, or predictions of another benchmark (exit code 2).
        MissingError: A file is not there (exit code 3).
        RecordError: A file is in no known layout (exit code 1).
    """
    from timeloupe.eval.predictions import read_predictions
    from timeloupe.eval.registry import benchmark
    from timeloupe.eval.scoreboard import score as score_all
    from timeloupe.eval.scoreboard import scripts_of

    chosen = benchmark(bench)
    scripts_of(chosen, mode)
    rows = chosen.load(annotations)
    board = score_all(chosen, rows, read_predictions(predictions, chosen, rows), mode, seed=seed)
    if as_json:
        typer.echo(json.dumps(facts(board), allow_nan=False))
        return
    show(board, all_figures)


def facts(board: Scoreboard) -> dict[str, Any]:
    """Return a scoreboard as JSON: figures that are NaN become ``null``."""
    return {
        "benchmark": board.benchmark.name,
        "split": board.benchmark.split,
        "rows": board.num_rows,
        "missing": board.num_missing,
        "empty": board.num_empty,
        "faults": board.loaded.faults,
        "unknown_ids": len(board.loaded.unknown),
        "repeated_ids": board.loaded.repeated,
        "layout": board.loaded.layout,
        "interval": None if board.interval is None else asdict(board.interval),
        "modes": [_table_facts(table) for table in board.tables],
        "trivial": {name: _table_facts(table) for name, table in board.trivial.items()},
    }


def _table_facts(table: Table) -> dict[str, Any]:
    from timeloupe.eval.scripts.sources import source_of

    return {
        "mode": table.mode,
        "source": source_of(table.mode) or None,
        "unit": table.unit,
        "figures": {str(name): finite(value) for name, value in table.figures.items()},
        "scored": table.num_scored,
        "total": table.num_total,
        "failures": dict(table.failures),
        "error": table.error,
    }


def finite(value: Any) -> Any:
    """Return JSON data with ``None`` for every number that is not finite."""
    if isinstance(value, dict):
        return {str(key): finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(board: Scoreboard, all_figures: bool) -> None:
    """Print a scoreboard."""
    from rich.console import Console
    from rich.text import Text

    from timeloupe.cli.show import printable
    from timeloupe.eval.scripts.sources import source_of

    console = Console(highlight=False)
    title = f"{board.benchmark.title}, {board.benchmark.split}: {board.num_rows} questions"
    console.print(Text(printable(title), style="bold"), soft_wrap=True)
    console.print(Text(f"predictions: {board.loaded.layout}"), soft_wrap=True)
    for reason, count in board.loaded.faults.items():
        console.print(Text(f"{count} episodes without an answer: {reason}", style="yellow"))
    if board.num_missing and any(table.mode == "strict" for table in board.tables):
        words = (
            f"{board.num_missing} of {board.num_rows} questions have no prediction: wrong in strict mode; to score a "
            "part of the benchmark alone, give annotations of that part"
        )
        console.print(Text(words, style="yellow"), soft_wrap=True)
    width = max(len(table.mode) for table in board.tables) if board.tables else 0
    for table in board.tables:
        counted = _counted(table, board.warnings(table))
        line = f"{table.mode:<{width}}  {_words(table, all_figures)}  [{counted}]  {source_of(table.mode)}"
        console.print(Text(printable(line), style="red" if table.error else ""), soft_wrap=True)
    if board.trivial:
        console.print(Text("without looking, strict:", style="dim"))
    for name, table in board.trivial.items():
        line = f"  {name:<15}  {_words(table, False)}  [{_counted(table, [])}]"
        console.print(Text(printable(line), style="dim"), soft_wrap=True)
    if board.interval is not None:
        words = f"strict, {_mean_of(board)} with a 95 % interval by video: {board.interval}"
        console.print(Text(words), soft_wrap=True)


def _mean_of(board: Scoreboard) -> str:
    """The name of the figure that the interval is of."""
    figures = board.tables[-1].figures
    mean = None if board.interval is None else board.interval.mean
    same = (
        name for name, value in figures.items()
        if mean is not None and isinstance(value, float) and math.isclose(value, mean, abs_tol=1e-9)
    )  # fmt: skip
    return next(same, "mean over all rows")


def _words(table: Table, all_figures: bool) -> str:
    """A table's figures on one line."""
    if table.error is not None:
        return f"the script ends with {table.error}"
    items = list(table.figures.items())
    # A part with figures of its own is no figure: it would fill the line.
    shown = items if all_figures else [item for item in items if not isinstance(item[1], dict)][:SHOWN]
    words = "  ".join(f"{name} {_number(value)}" for name, value in shown)
    left = len(items) - len(shown)
    unit = " (percent)" if table.unit == "percent" else ""
    return words + unit + (f"  ... {left} more with --all-figures" if left else "")


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _counted(table: Table, warnings: list[str]) -> str:
    """n of N, failures by reason, and what is missing: in the same line as the score."""
    failures = [f"{count} {reason}" for reason, count in table.failures.items()]
    return "; ".join([f"{table.num_scored} of {table.num_total} in the denominator", *failures, *warnings])
