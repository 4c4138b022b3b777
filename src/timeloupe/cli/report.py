"""``timeloupe report``: what several runs came to, as Markdown, as one page, or as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timeloupe.errors import ConfigError, MissingError, boundary

if TYPE_CHECKING:
    from timeloupe.eval.report import BenchReport

ENDINGS = (".md", ".html")


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run folders of `timeloupe eval`, or of a training.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A page (.html) or Markdown with pictures beside it (.md).  [default: Markdown on stdout]",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="The annotations.  [default: where the runs say]", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the intervals and the random baseline.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Put runs side by side: figures with 95 % intervals, categories, lengths, failures, cost, and what needs no look.

    Runs that differ in the seed alone are one line: their mean, with the spread between them. Those that differ in the
    server, the code or the packages too are lines of their own, and the report says in what.

    Raises:
        ConfigError: The file's ending is none of .md and .html, or a run is no run (exit code 2).
        MissingError: There is no run, no episode in it, or no folder to write to (exit code 3).
        RecordError: A line is not a valid trajectory (exit code 1).
    """
    from timeloupe.cli.score import finite
    from timeloupe.eval.recorded import asked_rows, read_recorded
    from timeloupe.eval.report import report as make
    from timeloupe.eval.report import report_facts

    if out is not None:
        _check(out)
    named = [path.resolve() for path in runs]
    if len(set(named)) < len(named):
        twice = next(path for path in named if named.count(path) > 1)
        raise ConfigError(f"a run is named twice, got {str(twice)!r}; name each once")
    recorded = [read_recorded(path) for path in runs]
    found = make([(run, asked_rows(run, data)) for run in recorded], seed=seed)
    if out is not None:
        written = _write(found, out)
        if not as_json:
            for path in written:
                typer.echo(str(path))
    if as_json:
        typer.echo(json.dumps(finite(report_facts(found)), allow_nan=False))
    elif out is None:
        from timeloupe.eval.report_markdown import markdown

        typer.echo(markdown(found), nl=False)


def _check(out: Path) -> None:
    if out.suffix.lower() not in ENDINGS:
        raise boundary("ending of --out", out.suffix, ENDINGS)
    if out.is_dir():
        raise ConfigError(f"--out needs a file, got the folder {str(out)!r}")
    if not out.parent.is_dir():
        raise MissingError(
            f"no folder {str(out.parent)!r} to write the report to; make it, or name another --out"
        )


def _write(found: list[BenchReport], out: Path) -> list[Path]:
    """Write the report, and return the files that were written, the report first."""
    from timeloupe.eval.report_markdown import markdown
    from timeloupe.eval.report_plots import plots
    from timeloupe.runs import write_atomic
    from timeloupe.serve.report_page import render_report

    if out.suffix.lower() == ".html":
        made = f"made {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by timeloupe report"
        write_atomic(out, render_report(found, made).encode())
        return [out]
    pictures = []
    written = [out]
    for number, bench in enumerate(found, 1):
        some = []
        for plot in plots(bench):
            path = out.with_name(f"{out.stem}-{number}-{plot.name}.svg")
            write_atomic(path, plot.file().encode())
            some.append((path.name.replace(" ", "%20"), plot))
            written.append(path)
        pictures.append(some)
    write_atomic(out, markdown(found, pictures).encode())
    return written
