"""The questions of a benchmark, ready to be asked: annotation rows with the video files they mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from timeloupe.errors import boundary
from timeloupe.eval.files.find_videos import VideoFolder, is_file
from timeloupe.eval.scoring import Benchmark, Row, example_of
from timeloupe.trajectory import Example


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Attributes:
        benchmark: The benchmark.
        rows: Its rows, as far as they are asked.
        examples: One per row, with the absolute path of its video file: what is made of the episodes later, an audit or
            clips, may be asked for from another folder. Where none was found it is the path where it was looked for
            first, never a file of that name that happens to lie in the working folder: the episode ends with the
            reason.
        num_rows: Rows of the files, asked or not.
        missing: Names of videos that were not found.
        sha256: Of the rows that are asked, labels included.
    """

    benchmark: Benchmark
    rows: tuple[Row, ...]
    examples: tuple[Example, ...]
    num_rows: int
    missing: tuple[str, ...]
    sha256: str


def load_questions(
    benchmark: Benchmark, annotations: Path, videos: Path | None = None, limit: int | None = None
) -> Questions:
    """Return the questions of a benchmark.

    Args:
        benchmark: The benchmark.
        annotations: Its annotation file or folder.
        videos: Folder of the videos; default: where the annotations are.
        limit: The first so many rows; ``None`` = all.

    Raises:
        MissingError: A file or folder is not there.
        RecordError: The annotations are in no known layout.
        ConfigError: The limit is < 1, or ids are not unique.
    """
    if limit is not None and limit < 1:
        raise boundary("--limit", limit, ">= 1")
    rows = benchmark.load(annotations)
    asked = tuple(rows if limit is None else rows[:limit])
    ids = [row.id for row in asked]
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise boundary(f"ids of {str(annotations)!r}", twice, "unique ids", "see `timeloupe data check`")
    folder = VideoFolder(videos or (annotations if annotations.is_dir() else annotations.parent))
    found = {row.video: _file(row.video, folder) for row in asked}
    named = {video: str((file or folder.folder / video).absolute()) for video, file in found.items()}
    examples = tuple(example_of(row).model_copy(update={"video": named[row.video]}) for row in asked)
    missing = tuple(video for video, file in found.items() if file is None)
    return Questions(benchmark, asked, examples, len(rows), missing, digest_rows(asked))


def _file(video: str, folder: VideoFolder) -> Path | None:
    named = Path(video)
    if named.is_absolute() and is_file(named):
        return named
    return folder.find(video)


def digest_rows(rows: Sequence[Row]) -> str:
    """Hash of everything that a row asks and counts as right; where its video lies does not matter."""
    digest = hashlib.sha256()
    for row in rows:
        facts = asdict(replace(row, raw={})) | {"raw": None, "video": Path(row.video).name}
        digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    return digest.hexdigest()
