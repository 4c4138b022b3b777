"""Whether the videos that annotation rows name are there, can be read, and are as long as annotated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from timeloupe.data.check import Fault, Finding, findings, video_key
from timeloupe.errors import MissingError, VideoError
from timeloupe.eval.scoring import Row
from timeloupe.video.probe import probe

TOLERANCE_SECONDS = 1.0
DEADLINE_SECONDS = 20.0

OnVideo = Callable[[int, int], None]
"""Called after each video with how many are done, and how many there are."""


def check_videos(rows: Sequence[Row], folder: Path, on_video: OnVideo | None = None) -> list[Finding]:
    """Return which videos are missing, unreadable or of another length; each is looked at once.

    A row's video is the file of that path below ``folder``, else the file of that name anywhere below it, with or
    without a video suffix. A row with a clip needs a video that reaches the clip's end.

    Raises:
        MissingError: There is no such folder.
    """
    if not folder.is_dir():
        raise MissingError(f"no folder of videos at {str(folder)!r}")
    by_key: dict[str, Path] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            by_key.setdefault(video_key(file.name), file)
            by_key.setdefault(file.name, file)
    of_video: dict[str, list[Row]] = {}
    for row in rows:
        of_video.setdefault(row.video, []).append(row)
    faults: dict[str, list[Fault]] = {"missing_video": [], "unreadable_video": [], "duration_mismatch": []}
    for number, (video, some) in enumerate(of_video.items(), 1):
        path = _file(video, folder, by_key)
        if path is None:
            faults["missing_video"].append((video, f"not below {folder}"))
        else:
            _look(video, path, some, faults)
        if on_video is not None:
            on_video(number, len(of_video))
    return findings(faults)


def _file(video: str, folder: Path, by_key: dict[str, Path]) -> Path | None:
    named = folder / video
    if video and named.is_file():
        return named
    name = Path(video).name
    return by_key.get(name) or by_key.get(video_key(video))


def _look(video: str, path: Path, rows: Sequence[Row], faults: dict[str, list[Fault]]) -> None:
    try:
        seconds = probe(path, deadline_seconds=DEADLINE_SECONDS).duration_seconds
    except VideoError as error:
        faults["unreadable_video"].append((video, error.reason))
        return
    wrong = next((why for row in rows if (why := _wrong_length(row, seconds))), None)
    if wrong:
        faults["duration_mismatch"].append((video, f"is {seconds:.2f} s long, {wrong}"))


def _wrong_length(row: Row, seconds: float) -> str | None:
    if row.clip is not None:
        return f"clip ends at {row.clip[1]:.2f} s" if row.clip[1] > seconds + TOLERANCE_SECONDS else None
    annotated = row.duration_seconds
    if annotated is None or abs(annotated - seconds) <= TOLERANCE_SECONDS:
        return None
    return f"annotated as {annotated:.2f} s"
