"""Which file is meant by the video name of an annotation row."""

from __future__ import annotations

from pathlib import Path

from timeloupe.errors import MissingError


def video_key(video: str) -> str:
    """Return a video's name without folder and video suffix."""
    name = video.replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and suffix.lower() in {"mp4", "mkv", "webm", "avi", "mov", "m4v", "flv"} else name


def is_file(path: Path) -> bool:
    """Return whether a file is there; a name that none can have, such as one of 300 characters, is none."""
    try:
        return path.is_file()
    except OSError:
        return False


class VideoFolder:
    """A folder whose videos are found by the names that annotations have for them.

    Args:
        folder: Looked through once, with all folders below it.

    Raises:
        MissingError: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise MissingError(f"no folder of videos at {str(folder)!r}")
        self.folder = folder
        self._by_key: dict[str, Path] = {}
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self._by_key.setdefault(video_key(file.name), file)
                self._by_key.setdefault(file.name, file)

    def find(self, video: str) -> Path | None:
        """Return the file of that path below the folder, else the file of that name anywhere below it, with or
        without a video suffix; ``None`` if there is none."""
        named = self.folder / video
        if video and is_file(named):
            return named
        return self._by_key.get(Path(video).name) or self._by_key.get(video_key(video))
