"""A run as the server holds it: a light line per episode in memory, the episodes themselves left in their file.

The file may grow while it is shown, and a resumed run may rewrite it: every look begins with what has changed.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from timeloupe.errors import MissingError, RecordError
from timeloupe.runs import CONFIG, TRAJECTORIES, RolloutKey, rollout_key, runs_below
from timeloupe.serve.export import locate_video, title_of
from timeloupe.serve.page_data import entry_data
from timeloupe.serve.thumbnails import Gallery
from timeloupe.trajectory import Trajectory

_TAIL_BYTES = 512


@dataclass
class _Line:
    """Where an episode stands in the file, and its line in the list."""

    offset: int
    length: int
    entry: dict[str, Any]


class Shelf:
    """The episodes of one run folder or JSONL file, each the last one written; of a training, those of every step.

    Safe to use from several threads.

    Args:
        run: A run folder, which may have no episode yet, or a JSONL file of trajectories.

    Attributes:
        title: Name of the run.

    Raises:
        MissingError: There is no such run.
        RecordError: A whole line is not a valid trajectory.
    """

    def __init__(self, run: str | Path) -> None:
        run = Path(run)
        begun = run.is_dir() and ((run / TRAJECTORIES).is_file() or (run / CONFIG).is_file())
        if not begun and not run.is_file():
            wanted = f"a folder with {TRAJECTORIES}, or a JSONL file of trajectories"
            raise MissingError(f"no episodes at {str(run)!r}, expected {wanted}{runs_below(run)}")
        self.title = title_of(run)
        self._path = run / TRAJECTORIES if run.is_dir() else run
        self._folder = run if run.is_dir() else run.parent
        self._lock = threading.RLock()
        # Numbers outlive what they were given for: a page that is open may still ask for them.
        self._videos: list[str] = []
        self._numbers: dict[str, int] = {}
        self._forget()
        self.refresh()

    def entries(self) -> list[dict[str, Any]]:
        """Return the lines of the list, in the order in which the episodes first came.

        Raises:
            RecordError: A whole line that was added is not a valid trajectory.
        """
        with self._lock:
            self.refresh()
            return [line.entry for line in self._lines.values()]

    @property
    def num_lines(self) -> int:
        """Whole lines of the file at the last look: more than episodes where some were played again."""
        return self._count

    def episode(self, key: RolloutKey) -> Trajectory | None:
        """Return an episode, or ``None`` if the run has none of that key.

        Raises:
            RecordError: A whole line is not a valid trajectory.
        """
        with self._lock:
            self.refresh()
            for _ in range(2):
                line = self._lines.get(key)
                if line is None:
                    return None
                found = self._read(line)
                if found is not None and rollout_key(found) == key:
                    return found
                self._forget()  # another file stands there now
                self.refresh()
            return None

    def video_path(self, number: int) -> str | None:
        """Return the path of a video by its number, or ``None`` if no record lists one of that number."""
        with self._lock:
            return locate_video(self._videos[number], self._folder) if number < len(self._videos) else None

    def video_number(self, video: str) -> int | None:
        """Return the number of a video that a record lists as ``video``."""
        with self._lock:
            return self._numbers.get(video)

    def refresh(self) -> None:
        """Take in what was written since the last look.

        Raises:
            RecordError: A whole line is not a valid trajectory.
        """
        with self._lock:
            try:
                file = self._path.open("rb")
            except FileNotFoundError:
                self._forget()
                return
            with file:
                facts = os.fstat(file.fileno())
                stamp = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
                if stamp == self._stamp:
                    return
                replaced = facts.st_ino != self._stamp[0] or facts.st_size <= self._stamp[1]
                if replaced or facts.st_size < self._taken or not self._goes_on(file):
                    self._forget()
                self._take(file)
                self._stamp = stamp

    def _forget(self) -> None:
        self._lines: dict[RolloutKey, _Line] = {}
        self._taken = 0  # bytes of whole lines taken in
        self._count = 0  # whole lines taken in
        self._tail = b""  # how the last of them ends
        self._stamp = (0, 0, 0)

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether what was taken in still ends as it did: a file made anew may have the number of the one before."""
        file.seek(self._taken - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _take(self, file: BinaryIO) -> None:
        file.seek(self._taken)
        for raw in file:
            whole = raw.endswith(b"\n")
            if raw.strip():
                try:
                    self._add(Trajectory.model_validate_json(raw), self._taken, len(raw))
                except ValidationError as error:
                    if not whole:
                        return  # being written, or torn by a kill: no episode yet
                    first = error.errors()[0]
                    where = ".".join(str(step) for step in first["loc"]) or "line"
                    raise RecordError(
                        f"{self._path}:{self._count + 1} is not a valid Trajectory: {where}: {first['msg']}; "
                        f"fix or remove that line"
                    ) from error
            if whole:
                self._taken += len(raw)
                self._count += 1
                self._tail = raw[-_TAIL_BYTES:]

    def _add(self, trajectory: Trajectory, offset: int, length: int) -> None:
        self._lines[rollout_key(trajectory)] = _Line(offset, length, entry_data(trajectory, Gallery()))
        video = trajectory.example.video
        if video not in self._numbers:
            self._numbers[video] = len(self._videos)
            self._videos.append(video)

    def _read(self, line: _Line) -> Trajectory | None:
        try:
            with self._path.open("rb") as file:
                file.seek(line.offset)
                return Trajectory.model_validate_json(file.read(line.length))
        except (OSError, ValidationError):
            return None
