"""What a model is trained on, to keep it out of what the model is measured on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from timeloupe.data.check import question_key
from timeloupe.data.sources import Source, read_sources
from timeloupe.errors import MissingError, RecordError
from timeloupe.eval.files.find_videos import video_key
from timeloupe.trajectory import Example

LEAK_VIDEO, LEAK_QUESTION = "leak_video", "leak_question"
OF_A_BUILD = ("trajectories.jsonl", "examples.jsonl")


@dataclass
class Training:
    """Videos and questions of training rows.

    Two videos are the same if their files have the same name without folder and suffix, or the same content.

    Attributes:
        questions: What is asked of each video, by its path, without regard to case, blanks and closing marks.
        absent: Videos whose file is not there; they are compared by name alone.
    """

    questions: dict[str, set[str]] = field(default_factory=dict)
    absent: int = 0
    _named: dict[str, list[str]] = field(default_factory=dict)
    _sized: dict[int, list[str]] = field(default_factory=dict)

    def add(self, video: str, question: str) -> None:
        """Take in a question on a video, which is named by its path."""
        if video not in self.questions:
            self.questions[video] = set()
            self._named.setdefault(video_key(video), []).append(video)
            size = _size(video)
            if size is None:
                self.absent += 1
            else:
                self._sized.setdefault(size, []).append(video)
        self.questions[video].add(question_key(question))

    def leak(self, example: Example, *, share_videos: bool) -> str | None:
        """Return what of an example is trained on: ``leak_question``, ``leak_video``, or ``None``.

        Args:
            example: With a video that can be read.
            share_videos: Whether other questions on the same video may be trained on.
        """
        same = self._same(example.video)
        if any(question_key(example.question) in self.questions[video] for video in same):
            return LEAK_QUESTION
        return LEAK_VIDEO if same and not share_videos else None

    def sha256(self) -> str:
        """Return a hash of what is asked of which videos, wherever these lie, 16 hex digits."""
        rows = sorted((video_key(video), sorted(asked)) for video, asked in self.questions.items())
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def _same(self, video: str) -> list[str]:
        """Return the training videos that are this one."""
        named = self._named.get(video_key(video), [])
        size = _size(video)
        alike = [one for one in self._sized.get(-1 if size is None else size, ()) if one not in named]
        return [*named, *(one for one in alike if _content(one) == _content(video))]


@lru_cache(maxsize=8)
def training(paths: tuple[Path, ...]) -> Training:
    """Return what the rows of these files or folders train on; read once in a process.

    Args:
        paths: Files of rows in any format that ``data check`` reads, folders of them, or folders of builds, of which
            the episodes and examples are read and nothing else.

    Raises:
        MissingError: There is nothing at a path, or nothing that can be read.
        RecordError: A row cannot be read: what it trains on would go unseen.
    """
    found = Training()
    for path in paths:
        for source in _sources(path):
            if source.faults:
                first, *others = source.faults
                more = f"; so are {len(others)} more" if others else ""
                raise RecordError(f"training rows that cannot be read: {first}{more}")
            for row in source.rows:
                beside = source.path.parent / row.video
                found.add(str(beside if beside.is_file() else row.video), row.question)
    return found


def _sources(path: Path) -> Sequence[Source]:
    there = [path / name for name in OF_A_BUILD if (path / name).is_file()]
    if not there:
        return read_sources(path)[0]
    # A build has an empty file where its stages make no episodes, or nothing but episodes.
    filled = [file for file in there if file.stat().st_size]
    if not filled:
        raise MissingError(f"no training rows in {str(path)!r}: {' and '.join(OF_A_BUILD)} are empty")
    return [source for file in filled for source in read_sources(file)[0]]


def _size(video: str) -> int | None:
    try:
        return Path(video).stat().st_size
    except OSError:
        return None


@lru_cache(maxsize=65536)
def _content(video: str) -> str:
    """Return the hash of a file, of which only those are asked for that have the size of another one."""
    with open(video, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
