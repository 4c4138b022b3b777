"""``timeloupe probe``: what is in a video file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer


def probe(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The video file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Show length, frame rate, size, codec and start of a video."""
    from timeloupe.video.probe import probe as probe_video

    info = probe_video(file)
    if as_json:
        facts = dataclasses.asdict(info) | {"sample_aspect_ratio": float(info.sample_aspect_ratio)}
        typer.echo(json.dumps(facts, indent=2, allow_nan=False))
        return

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
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    Console().print(table)
