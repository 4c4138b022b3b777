"""``timeloupe data``: look at annotation files before they are used."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from timeloupe.data.check import Finding
    from timeloupe.data.sources import Source

    Report = tuple[Source, dict[str, Any], list[Finding]]


def check(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="An annotation file, or a folder of them.", show_default=False),
    ],
    benchmark: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Whose annotations these are, 'grounding' for the layouts that several share, or a format of training "
            "rows, such as 'examples'. Without it each file is recognised by what is in it.",
            show_default=False,
        ),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also look at the videos, in this folder.", show_default=False),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Also look for videos and questions that these train on.", show_default=False
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all row ids on stdout.")
    ] = False,
) -> None:
    """Find faults in annotations: labels, options, answers, ids, videos, overlap with training data.

    Exit code 1 says that there are errors. Warnings may be meant so.

    Raises:
        ConfigError: There is no such benchmark (exit code 2).
        MissingError: There is nothing at a path (exit code 3).
        RecordError: A file is in no known layout (exit code 1).
    """
    from timeloupe.data.check import ERROR, check_overlap, check_rows, coverage, reader_findings
    from timeloupe.data.sources import read_sources
    from timeloupe.data.videos import check_videos

    sources, others = read_sources(path, benchmark)
    train_rows = [row for source in read_sources(train)[0] for row in source.rows] if train else []
    reports: list[Report] = []
    for source in sources:
        found = reader_findings(source.faults, source.warnings) + check_rows(source.rows)
        if videos is not None:
            found += check_videos(source.rows, videos, None if as_json else _progress)
        found += check_overlap(source.rows, train_rows)
        reports.append((source, coverage(source.rows), found))
    if as_json:
        typer.echo(json.dumps(_facts(reports, others), indent=2, allow_nan=False))
    else:
        _show(reports, others)
    if any(one.severity == ERROR for _, _, found in reports for one in found):
        raise typer.Exit(1)


def _progress(done: int, total: int) -> None:
    typer.echo(f"\rvideo {done} of {total}", nl=done == total, err=True)


def _facts(reports: Sequence[Report], others: Sequence[Path]) -> dict[str, Any]:
    from timeloupe.data.check import CHECKS

    return {
        "sources": [
            {
                "path": str(source.path),
                "layout": source.layout,
                "coverage": covered,
                "findings": [
                    {
                        "check": one.check,
                        "severity": one.severity,
                        "meaning": CHECKS[one.check][1],
                        "count": len(one.rows),
                        "example": one.example,
                        "rows": one.rows,
                    }
                    for one in found
                ],
            }
            for source, covered, found in reports
        ],
        "not_read": [str(path) for path in others],
    }


def _show(reports: Sequence[Report], others: Sequence[Path]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for source, covered, found in reports:
        console.print(Text(str(source.path), style="bold"), Text(f"({source.layout})"))
        console.print(Text("  " + _coverage_line(covered)))
        table = Table(box=None, padding=(0, 2), show_header=bool(found))
        for name in ("", "check", "rows", "the first of them"):
            table.add_column(name, overflow="fold", justify="right" if name == "rows" else "left")
        for one in found:
            style = "red" if one.severity == "error" else "yellow"
            count = str(len(one.rows))
            table.add_row(Text(one.severity, style=style), Text(one.check), count, Text(one.example))
        console.print(table if found else Text("  nothing found"))
    if others:
        shown = ", ".join(path.name for path in others[:8])
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        console.print(Text(f"not annotations of a known layout: {shown}{more}"))


def _coverage_line(covered: dict[str, Any]) -> str:
    """Return the figures of a file's coverage in words."""
    rows = covered["rows"]
    parts = [f"{rows} rows, {covered['videos']} videos"]
    parts += [f"{number} {task}" for task, number in covered["tasks"].items()]
    for name, words in (
        ("with_answer", "an answer"),
        ("with_window", "a window"),
        ("with_duration", "a duration"),
    ):
        if 0 < covered[name] < rows:
            parts.append(f"{covered[name]} with {words}")
    if covered["with_several_windows"]:
        parts.append(f"{covered['with_several_windows']} with 2 to {covered['most_windows']} windows")
    if covered["with_clip"]:
        parts.append(f"{covered['with_clip']} on part of a video")
    parts += [f"{name!r} in {number}" for name, number in covered["fields"].items()]
    return "; ".join(parts)
