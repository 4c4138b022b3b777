"""``timeloupe data convert``: rows of training data from one format into another."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from timeloupe.data.formats.convert import Report


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="File of rows to read.", show_default=False)],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="File to write; replaced when all is written.", show_default=False
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="What to write.", show_default=False)],
    source_format: Annotated[
        str, typer.Option("--from", metavar="FORMAT", help="What IN is; auto = told by its first rows.")
    ] = "auto",
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How prompts are worded where rows have none, and replies are read.  [default: the formats' own]",
            show_default=False,
        ),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where videos are, for rows that do not say which frames they show.  [default: IN's folder]",
            show_default=False,
        ),
    ] = None,
    write_clips: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a file for every view that FORMAT's readers open one for: crops as MP4 (swift_sft), frames as "
            "PNG (trl, openai).  [default: rows name them as VIDEO#t=START,END, and no file is written]",
            show_default=False,
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out rows that cannot be read or written, and count them."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all losses on stdout.")
    ] = False,
) -> None:
    """Convert rows of training data, and say field by field what the other format cannot hold.

    Formats: examples, trajectories (ours), swift_sft, swift_rl (VideoTemp-o3, ms-swift), trl, openai (messages with
    images), verl (parquet), museg, museg_eval, taro, taro_eval, openo3. docs/formats.md says what each holds.

    Raises:
        ConfigError: There is no such format or protocol (exit code 2).
        MissingError: There is nothing at a path, or a library is not installed (exit code 3).
        RecordError: A row cannot be read or written; nothing is written then (exit code 1).
    """
    from timeloupe.data.formats.convert import convert as convert_rows

    report = convert_rows(
        source, target, source_format=source_format, target_format=to, protocol=protocol, videos=videos,
        clips=write_clips, skip_bad=skip_bad,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2, allow_nan=False))
    else:
        _show(report, source, target)


def _show(report: Report, source: Path, target: Path) -> None:
    typer.echo(
        f"{source} ({report.source}) -> {target} ({report.target}): {report.written} of {report.read} rows"
    )
    if not report.losses:
        typer.echo("nothing is lost")
    for name, count in sorted(report.losses.items()):
        numbers = {"left out": count.left_out, "changed": count.changed}
        said = ", ".join(f"{what} in {n} of {report.written} rows" for what, n in numbers.items() if n)
        typer.echo(f"  not held: {name}, {said}")
    if report.references:
        typer.echo(
            f"{report.references} views are named as VIDEO#t=START,END: no files were written for them"
        )
    if report.relative:
        typer.echo(
            f"{report.relative} rows name videos relative to {str(source.parent)!r}, where they were read"
        )
    for name, row in report.late.items():
        typer.echo(
            f"{name!r} begins in row {row + 1}, after the first 10 MiB: Hugging Face's reader (ms-swift, TRL) fails on "
            "such a file; shuffle its rows, or write those with and without it into two files"
        )
    if report.bad:
        typer.echo(f"{report.bad} rows were left out:")
        for line in report.first_bad:
            typer.echo(f"  {line}")
        if report.bad > len(report.first_bad):
            typer.echo(f"  and {report.bad - len(report.first_bad)} more")
