"""``timeloupe view``: the episodes of a run as one page to open in a browser."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class ExportKind(StrEnum):
    """Forms in which a run can be shown."""

    HTML = "html"


def view(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run folder, or a JSONL file of trajectories.", show_default=False
        ),
    ],
    export: Annotated[ExportKind, typer.Option(help="The form.")] = ExportKind.HTML,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write.  [default: RUN/index.html]", show_default=False),
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Put thumbnails of the frames on the page.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write ONE self-contained page: questions, answers, a timeline with thumbnails, every turn, raw text folded.

    The page loads nothing from anywhere and opens from a file. A video that is not there any more costs its
    thumbnails, nothing else.

    Raises:
        MissingError: There is nothing to show (exit code 3).
        RecordError: A line is not a valid trajectory (exit code 1).
    """
    from rich.console import Console
    from rich.progress import Progress

    from timeloupe.serve.export import export_page
    from timeloupe.serve.thumbnails import MAX_PICTURES

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=as_json) as progress:
        bar = progress.add_task("reading frames", total=None)
        done = export_page(
            run,
            out,
            max_pictures=MAX_PICTURES if pictures else 0,
            on_video=lambda count, total: progress.update(bar, completed=count, total=total),
        )
    notes = dict(done.gallery.notes)
    if as_json:
        facts = {
            "page": str(done.path),
            "episodes": done.num_episodes,
            "bytes": done.num_bytes,
            "pictures": len(done.gallery.pictures),
            "pictures_left_out": done.gallery.left_out,
            "videos_without_pictures": notes,
        }
        typer.echo(json.dumps(facts))
        return
    for video, reason in notes.items():
        console.print(f"no thumbnails of {video}: {reason}", style="yellow", markup=False, highlight=False)
    if done.gallery.left_out and pictures:
        left = f"{done.gallery.left_out} frames have no thumbnail: the page holds {MAX_PICTURES} at most"
        console.print(left, style="yellow", highlight=False)
    size = f"{done.num_episodes} episodes, {len(done.gallery.pictures)} thumbnails, {done.num_bytes / 1e6:.1f} MB"
    console.print(size, highlight=False)
    typer.echo(str(done.path))
