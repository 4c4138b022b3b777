"""``timeloupe probe``: what is in a video file."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from timeloupe.errors import boundary

if TYPE_CHECKING:
    from timeloupe.video.probe import VideoInfo

Deadline = Annotated[
    float,
    typer.Option(
        "--deadline",
        metavar="SECONDS",
        help="End the decoder when it gives no sign of life for so long; 0 = never, decode in this process.",
    ),
]


def probe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The video file.", show_default=False)],
    full: Annotated[
        bool, typer.Option("--full", help="Also decode all of it and list the parts that are damaged.")
    ] = False,
    deadline: Deadline = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show length, frame rate, size, codec and start of a video.

    With --full, exit code 1 says that some of it is damaged.
    """
    from timeloupe.video.damage import damaged_ranges
    from timeloupe.video.probe import probe as probe_video

    limit = deadline_seconds(deadline)
    info = probe_video(file, deadline_seconds=limit)
    spans = None
    if full:
        spans = damaged_ranges(file, deadline_seconds=limit, on_progress=_progress)
        typer.echo("", err=True)
    if as_json:
        facts = dataclasses.asdict(info) | {"sample_aspect_ratio": float(info.sample_aspect_ratio)}
        if spans is not None:
            facts["damaged_seconds"] = spans
        typer.echo(json.dumps(facts, indent=2, allow_nan=False))
    else:
        _show(info, spans)
    if spans:
        raise typer.Exit(1)


def deadline_seconds(option: float) -> float | None:
    """Return what --deadline says: seconds, or ``None`` for 0.

    Raises:
        ConfigError: It is below 0 or no finite number.
    """
    if not (math.isfinite(option) and option >= 0):
        raise boundary("--deadline is out of range", option, "seconds > 0, or 0 for none")
    return option or None


def _progress(through: float, seconds: float) -> None:
    typer.echo(f"\rdecoded {through:.0f} of {seconds:.0f} s", nl=False, err=True)


def _show(info: VideoInfo, spans: list[tuple[float, float]] | None) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width, height = info.size_wh
    rate = "constant" if info.constant_rate else "variable"
    rows = {
        "file": info.path,
        "duration": f"{info.duration_seconds:.3f} s",
        "frames": f"{info.num_frames} at {info.fps:.3f} fps ({rate} rate), {info.num_keyframes} keyframes",
        "size": f"{width} x {height}",
        "codec": f"{info.codec} {info.pixel_format} in {info.container}",
    }
    if info.rotation_degrees:
        rows["rotation"] = f"{info.rotation_degrees} degrees counter-clockwise, applied to every frame"
    if info.sample_aspect_ratio != 1:
        rows["pixel shape"] = (
            f"{info.sample_aspect_ratio} wide for high, shown at {info.square_wh} it is undistorted"
        )
    if info.start_seconds:
        rows["start"] = f"first frame at {info.start_seconds:.6f} s of the file's clock; times count from it"
    if spans is not None:
        text = ", ".join(f"{start:.3f} to {end:.3f} s" for start, end in spans)
        rows["damaged"] = text or "nothing that a decoder notices"
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(table)
