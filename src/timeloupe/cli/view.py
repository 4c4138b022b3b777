"""``timeloupe view``: the episodes of a run, or of two side by side, in a browser."""

from __future__ import annotations

import json
import os
import webbrowser
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from timeloupe.errors import ConfigError


class ExportKind(StrEnum):
    """Forms in which a run can be kept."""

    HTML = "html"


def view(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run folder, or a JSONL file of trajectories.", show_default=False
        ),
    ],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="RUN2", help="Another run, side by side.", show_default=False),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Where to listen; wider than loopback needs a token.  [default: 127.0.0.1]"),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port.  [default: a free one]")] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What a browser has to show.  [default: $TIMELOUPE_TOKEN, else none on loopback, a new one elsewhere]",
        ),
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    follow_links: Annotated[
        bool, typer.Option("--follow-links", help="Show videos that are symbolic links too.")
    ] = False,
    export: Annotated[
        ExportKind | None,
        typer.Option(help="Write one file instead, to keep or send.  [default: serve]", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where --export writes.  [default: RUN/index.html]",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Show thumbnails of the frames.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show questions, answers, the video, a timeline of what the model saw, every turn, two runs side by side.

    Serves a page on this machine until Ctrl-C; nothing is loaded from anywhere else. Episodes that a run gains
    meanwhile are there after a reload. With --export html, writes ONE page that holds everything but the videos.

    Raises:
        MissingError: There is nothing to show (exit code 3).
        ConfigError: Options that do not go together, or a host or port that cannot be used (exit code 2).
        RecordError: A line is not a valid trajectory (exit code 1).
    """
    if export is None:
        if out is not None:
            raise ConfigError(f"--out names the file of an export, got {str(out)!r}; add --export html")
        _serve(
            [run] if other is None else [run, other],
            host or "127.0.0.1",
            port or 0,
            token,
            open_browser=open_browser,
            follow_links=follow_links,
            pictures=pictures,
            as_json=as_json,
        )
        return
    given = {"--host": host, "--port": port, "--token": token, "--open": open_browser or None}
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"{name} is for the server, and --export starts none; leave out one of the two")
    _export(run, other, out, follow_links=follow_links, pictures=pictures, as_json=as_json)


def _serve(
    runs: list[Path], host: str, port: int, token: str | None,
    *, open_browser: bool, follow_links: bool, pictures: bool, as_json: bool,
) -> None:  # fmt: skip
    from timeloupe.serve.guard import checked_token
    from timeloupe.serve.pictures import PictureDesk
    from timeloupe.serve.server import Viewer, make_server
    from timeloupe.serve.shelf import Shelf

    token = os.environ.get("TIMELOUPE_TOKEN") if token is None else token
    token = None if token is None else checked_token(token)
    shelves = [Shelf(run) for run in runs]
    viewer = Viewer(shelves, PictureDesk() if pictures else PictureDesk(0), follow_links)
    server = make_server(viewer, host, port, token)
    try:
        counts = [len(shelf.entries()) for shelf in shelves]
        again = [shelf.num_lines - count for shelf, count in zip(shelves, counts, strict=True)]
        if as_json:
            typer.echo(json.dumps({"url": server.url, "episodes": counts}))
        else:
            typer.echo(server.url)
            typer.echo(f"{' and '.join(map(str, counts))} episodes; Ctrl-C ends the viewer", err=True)
            for run, count, more in zip(runs, counts, again, strict=True):
                if more > 0:
                    words = f"{run}: {count} of {count + more} lines shown, the last of each episode"
                    typer.echo(words, err=True)
        if open_browser and not webbrowser.open(server.url):
            typer.echo("no browser is to be had here: open the address above in yours", err=True)
        server.serve_forever()
    except KeyboardInterrupt:
        pass  # the ordinary end of a viewer
    finally:
        server.server_close()


def _export(
    run: Path, other: Path | None, out: Path | None, *, follow_links: bool, pictures: bool, as_json: bool
) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from timeloupe.serve.export import export_page
    from timeloupe.serve.thumbnails import MAX_PICTURES
    from timeloupe.serve.video_file import LINK

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=as_json) as progress:
        bar = progress.add_task("reading frames", total=None)
        done = export_page(
            run,
            out,
            beside=other,
            max_pictures=MAX_PICTURES if pictures else 0,
            follow_links=follow_links,
            on_video=lambda count, total: progress.update(bar, completed=count, total=total),
        )
    notes = {video: reason for gallery in done.galleries for video, reason in gallery.notes.items()}
    num_pictures = sum(len(gallery.pictures) for gallery in done.galleries)
    left_out = sum(gallery.left_out for gallery in done.galleries)
    if as_json:
        facts = {
            "page": str(done.path),
            "episodes": done.num_episodes,
            "bytes": done.num_bytes,
            "pictures": num_pictures,
            "pictures_left_out": left_out,
            "videos_without_pictures": notes,
        }
        typer.echo(json.dumps(facts))
        return
    for video, reason in notes.items():
        console.print(f"no thumbnails of {video}: {reason}", style="yellow", markup=False, highlight=False)
    if LINK in notes.values():
        console.print("add --follow-links if you trust this run", style="yellow", highlight=False)
    if left_out and pictures:
        left = f"{left_out} frames have no thumbnail: the page holds {MAX_PICTURES} at most"
        console.print(left, style="yellow", highlight=False)
    size = f"{done.num_episodes} episodes, {num_pictures} thumbnails, {done.num_bytes / 1e6:.1f} MB"
    console.print(size, highlight=False)
    typer.echo(str(done.path))
