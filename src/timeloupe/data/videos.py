"""Whether the videos that annotation rows name are there, can be read, and are as long as annotated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from timeloupe.data.check import Fault, Finding, findings
from timeloupe.errors import VideoError
from timeloupe.eval.files.find_videos import VideoFolder
from timeloupe.eval.scoring import Row
from timeloupe.video.probe import probe

TOLERANCE_SECONDS = 1.0
DEADLINE_SECONDS = 20.0

OnVideo = Callable[[int, int], None]
"""Called after each video with how many are done, and how many there are."""


def check_videos(rows: Sequence[Row], folder: Path, on_video: OnVideo | None = None) -> list[Finding]:
    """Return which videos are missing, unreadable or of another length; each is looked at once.

    Files are found as ``VideoFolder`` finds them. A row with a clip needs a video that reaches the clip's end.

    Raises:
        MissingError: There is no such folder.
    """
    videos = VideoFolder(folder)
    of_video: dict[str, list[Row]] = {}
    for row in rows:
        of_video.setdefault(row.video, []).append(row)
    faults: dict[str, list[Fault]] = {
        "missing_video": [], "ambiguous_video": [], "unreadable_video": [], "duration_mismatch": [],
    }  # fmt: skip
    for number, (video, some) in enumerate(of_video.items(), 1):
        match videos.candidates(video):
            case []:
                faults["missing_video"].append((video, f"not below {folder}"))
            case [path]:
                _look(video, path, some, faults)
            case [one, two, *_]:
                faults["ambiguous_video"].append((video, f"may be {one} or {two}"))
        if on_video is not None:
            on_video(number, len(of_video))
    return findings(faults)


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
