"""``timeloupe frames``: the frames displayed at given times, as facts, hashes and pictures."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timeloupe.cli.probe import Deadline, deadline_seconds
from timeloupe.errors import ConfigError, boundary

if TYPE_CHECKING:
    import numpy as np

    from timeloupe.video.reader import Frames, VideoReader

_CHUNK_BYTES = 256 * 2**20
_MAX_FRAMES = 1_000_000


def frames(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The video file.", show_default=False)],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="SECONDS", help="Times, separated by commas, such as 0.5,12.25."),
    ] = None,
    start: Annotated[float | None, typer.Option("--from", metavar="SECONDS", help="Begin of a span.")] = None,
    end: Annotated[
        float | None, typer.Option("--to", metavar="SECONDS", help="End of a span, not included.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="Frames a second of the span; 2 if not given.")
    ] = None,
    approximate: Annotated[
        str,
        typer.Option(
            help="keyframes: the nearest keyframes instead, each once, cheap in long videos; or none."
        ),
    ] = "none",
    save: Annotated[
        Path | None, typer.Option("--save", metavar="DIR", help="Also write each frame there as a PNG.")
    ] = None,
    deadline: Deadline = 20.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array of rows on stdout.")] = False,
) -> None:
    """Show which frame is displayed at each time, with its native size and the SHA-256 of its RGB24 bytes.

    Give either --at, or --from and --to (with --fps). Times are seconds from the first frame. With --save, a
    picture is named by its frame's time; a file that is there already is never replaced.
    With --approximate keyframes the rows are those of the keyframes.
    """
    times = wanted_times(at, start, end, fps)
    if approximate not in ("none", "keyframes"):
        raise boundary("--approximate", approximate, ("none", "keyframes"))

    from timeloupe.video.reader import VideoReader

    rows: list[dict[str, Any]] = []
    written: dict[Path, bool] = {}
    with VideoReader(file, deadline_seconds=deadline_seconds(deadline)) as reader:
        if approximate == "keyframes":
            reader.check_times(times)
            times = reader.keyframes_near(times)
        for chunk in _chunks(reader, times):
            for number in range(len(chunk)):
                rows.append(_row(chunk, number))
                if save is not None:
                    target = save / f"{file.stem}_{chunk.at_seconds[number]:013.6f}s.png"
                    written[target] = _save(target, chunk.pixels[number]) or written.get(target, False)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, allow_nan=False))
    else:
        _show(rows)
    if save is not None:
        new = sum(written.values())
        old = f", {len(written) - new} were there already" if new < len(written) else ""
        typer.echo(f"saved {new} pictures in {str(save)!r}{old}", err=True)


def wanted_times(
    at: str | None, start: float | None, end: float | None, fps: float | None
) -> tuple[float, ...]:
    """Return the times that the options ask for.

    Raises:
        ConfigError: Both or neither of ``at`` and the span, half a span, or a value out of its range.
    """
    from timeloupe.video.sampling import fps_times

    span = start is not None or end is not None
    if (at is not None) == span:
        got = "both" if span else "neither"
        raise boundary("the times are not clear", got, "either --at, or --from and --to", "give one of them")
    if at is not None:
        if fps is not None:
            raise boundary("--fps goes with --from and --to", f"--at {at} --fps {fps}", "--at alone")
        return tuple(_seconds(word) for word in at.split(","))
    if start is None or end is None:
        raise boundary("a span needs both ends", f"--from {start} --to {end}", "--from SECONDS --to SECONDS")
    if fps is None:
        fps = 2.0
    if not (math.isfinite(fps) and fps > 0):
        raise boundary("--fps is out of range", fps, "a number > 0")
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise boundary("the span is not one", f"--from {start} --to {end}", "0 <= from < to, in seconds")
    if (end - start) * fps > _MAX_FRAMES:
        raise boundary(
            "the span asks for too many frames", (end - start) * fps, f"<= {_MAX_FRAMES}", "lower --fps"
        )
    return fps_times(start, end, fps)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise boundary(
            "--at holds something that is no time", word, "seconds separated by commas, such as 0.5,12.25"
        )
    return seconds


def _chunks(reader: VideoReader, times: tuple[float, ...]) -> Iterator[Frames]:
    """Read natively, a bounded amount of memory at a time."""
    width, height = reader.info.size_wh
    step = max(1, _CHUNK_BYTES // (width * height * 3))
    reader.check_times(times)
    for first in range(0, len(times), step):
        yield reader.read(times[first : first + step])


def _row(chunk: Frames, number: int) -> dict[str, Any]:
    return {
        "requested_seconds": chunk.requested_seconds[number],
        "at_seconds": chunk.at_seconds[number],
        "duration_seconds": chunk.duration_seconds[number],
        "size_wh": list(chunk.size_wh),
        "sha256": hashlib.sha256(chunk.pixels[number].tobytes()).hexdigest(),
    }


def _save(target: Path, pixels: np.ndarray) -> bool:
    """Write a picture; return whether that was needed: the same may be there already."""
    from timeloupe.video.image import to_png

    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise boundary(
            "--save needs a folder that can be made", str(folder), "a folder", str(error)
        ) from error
    picture = to_png(pixels)
    try:
        with target.open("xb") as out:
            out.write(picture)
    except FileExistsError:
        if not target.is_file() or target.read_bytes() != picture:
            name = str(target)
            raise ConfigError(f"{name!r} is there and is another file; use another --save folder") from None
        return False
    except OSError as error:
        raise boundary("--save cannot write there", str(target), "a writable folder", str(error)) from error
    return True


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for name in ("asked (s)", "frame at (s)", "shown for (s)", "size", "sha256"):
        table.add_column(name, justify="left" if name in ("size", "sha256") else "right", no_wrap=True)
    for row in rows:
        width, height = row["size_wh"]
        times = (row["requested_seconds"], row["at_seconds"], row["duration_seconds"])
        table.add_row(*(f"{time:.6f}" for time in times), f"{width}x{height}", row["sha256"][:16])
    Console().print(table)
