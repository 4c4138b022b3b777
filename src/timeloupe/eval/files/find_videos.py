"""Which file is meant by the video name of an annotation row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from timeloupe.errors import ConfigError, MissingError


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
        self._named: dict[str, list[Path]] = {}
        self._keyed: dict[str, list[Path]] = {}
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self._named.setdefault(file.name, []).append(file)
                self._keyed.setdefault(video_key(file.name), []).append(file)

    def candidates(self, video: str) -> list[Path]:
        """Return the files that may be meant: the one of that path below the folder, with or without a video suffix,
        else those of that name anywhere below it. Of several those are left that have most of the path's last folders;
        links to one file are one.
        """
        named = self.folder / video
        if video and is_file(named):
            return [named]
        *folders, name = video.replace("\\", "/").split("/")
        keyed = self._keyed.get(video_key(name), [])
        here = [file for file in keyed if file.parent == named.parent]
        if len(here) == 1:
            return here
        once: dict[Path, Path] = {}
        for file in self._named.get(name) or keyed:
            once.setdefault(file.resolve(), file)
        found = list(once.values())
        alike = [_common_tail(file.absolute().parts[:-1], folders) for file in found]
        return [file for file, length in zip(found, alike, strict=True) if length == max(alike)]

    def find(self, video: str) -> Path | None:
        """Return the file that is meant; ``None`` if there is none.

        Raises:
            ConfigError: It may be one of several.
        """
        found = self.candidates(video)
        if len(found) > 1:
            raise ConfigError(
                f"{len(found)} files below {str(self.folder)!r} may be the video {video!r}: {str(found[0])!r} and "
                f"{str(found[1])!r} are two; name a folder with one of them by --videos (source.videos of a recipe) "
                "or give its path below the folder in the annotations; `timeloupe data check --videos` lists all such"
            )
        return found[0] if found else None


def _common_tail(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many parts two paths have in common, from their ends."""
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return length
