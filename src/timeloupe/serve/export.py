"""A run folder or a file of trajectories as one HTML page on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timeloupe.errors import MissingError
from timeloupe.runs import TRAJECTORIES, RunFolder, runs_below, write_atomic
from timeloupe.serve.page import fill
from timeloupe.serve.page_data import run_data
from timeloupe.serve.thumbnails import MAX_PICTURES, Gallery, make_gallery
from timeloupe.serve.video_file import check_video
from timeloupe.trajectory import Trajectory, read_trajectories

PAGE = "index.html"


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: The page.
        num_episodes: Episodes on it.
        num_bytes: Its size.
        galleries: The pictures on it, one gallery per run, with the reasons for those that are missing.
    """

    path: Path
    num_episodes: int
    num_bytes: int
    galleries: tuple[Gallery, ...]


def read_run(run: str | Path) -> list[Trajectory]:
    """Return the episodes of a run folder, the last one written of each (per step of a training), or all of a file.

    Raises:
        MissingError: There is no such folder or file, or it holds no episode.
        RecordError: A line is not a valid trajectory.
    """
    run = Path(run)
    if run.is_dir():
        if not (run / TRAJECTORIES).is_file():
            wanted = f"a folder with {TRAJECTORIES}{runs_below(run)}"
            raise MissingError(f"no episodes at {str(run)!r}, expected {wanted}")
        found = RunFolder(run, {}).latest()
    else:
        found = list(read_trajectories(run))
    if not found:
        raise MissingError(f"no episodes in {str(run)!r}: it is empty so far; run it first, then view it")
    return found


def export_page(
    run: str | Path,
    out: str | Path | None = None,
    *,
    beside: str | Path | None = None,
    max_pictures: int = MAX_PICTURES,
    follow_links: bool = False,
    on_video: Callable[[int, int], None] | None = None,
) -> Export:
    """Write the page of a run and return what was written.

    Args:
        run: A run folder, or a JSONL file of trajectories.
        out: Where to write; ``None`` = ``index.html`` in the run folder, or beside the file under its name.
        beside: Another run, to be shown side by side with the first.
        max_pictures: Pictures of frames at most; 0 = none.
        follow_links: Whether pictures may come from a video that is a symbolic link; without, it gets a note.
        on_video: Called with (videos done, videos in all), for each run anew.

    Raises:
        MissingError: There is nothing to show, or no folder to write to.
        RecordError: A line is not a valid trajectory.
    """
    run = Path(run)
    target = Path(out) if out is not None else run / PAGE if run.is_dir() else run.with_suffix(".html")
    runs = [run] if beside is None else [run, Path(beside)]
    episodes = [read_run(one) for one in runs]
    if not target.parent.is_dir():
        raise MissingError(
            f"no folder {str(target.parent)!r} to write the page to; make it, or name another --out"
        )
    data: list[dict[str, Any]] = []
    galleries: list[Gallery] = []
    for one, trajectories in zip(runs, episodes, strict=True):
        folder = one if one.is_dir() else one.parent
        gallery = make_gallery(
            trajectories,
            locate=lambda video, folder=folder: _allowed(locate_video(video, folder), follow_links),
            max_pictures=max_pictures // len(runs),
            on_video=on_video,
        )
        data.append(run_data(trajectories, gallery, title_of(one)))
        galleries.append(gallery)
    page = fill(data).encode()
    write_atomic(target, page)
    return Export(target, sum(len(found) for found in episodes), len(page), tuple(galleries))


def export_html(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the page of a run and return its path; see :func:`export_page`."""
    return export_page(run, out).path


def _allowed(path: str, follow_links: bool) -> str:
    check_video(path, follow_links)
    return path


def locate_video(video: str, folder: Path) -> str:
    """Return the path of a video: as named, else beside the run, else as named (and then it is missing)."""
    for path in (Path(video), folder / video, folder.parent / video):
        try:
            if path.is_file():
                return str(path)
        except OSError:  # a name too long for a file
            break
    return video


def title_of(run: Path) -> str:
    """Return the name that people know the run by."""
    resolved = run.resolve()
    return (
        resolved.parent.name
        if resolved.name == TRAJECTORIES
        else resolved.stem
        if run.is_file()
        else resolved.name
    )
