"""The rows that a build begins with, and who it asks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from timeloupe.data.build.recipe import BuildRecipe, LabellerPart, SourcePart
from timeloupe.data.build.stages.bench import BenchStage
from timeloupe.data.build.stages.leaks import training
from timeloupe.data.build.stages.registry import stage_name
from timeloupe.data.formats.convert import AUTO, read_row, told
from timeloupe.data.formats.files import read_records
from timeloupe.data.formats.frames import VideoFrames
from timeloupe.data.formats.registry import format_named
from timeloupe.environment.oracle_policy import OraclePolicy
from timeloupe.errors import MissingError, RecordError, boundary
from timeloupe.eval.files.find_videos import is_file
from timeloupe.trajectory import Example, to_line
from timeloupe.world.labeller import read_truth


def read_source(part: SourcePart, limit: int | None = None) -> list[Example]:
    """Return the rows that a recipe begins with, their videos by absolute path.

    Args:
        part: Where they are.
        limit: The first so many; ``None`` = all.

    Raises:
        ConfigError: The limit is < 1, or two rows have one id.
        MissingError: The file is not there, or none of the videos.
        RecordError: A record cannot be read, or none is left.
    """
    if limit is not None and limit < 1:
        raise boundary("--limit", limit, ">= 1")
    path = part.path
    if path.is_file() and next(iter(read_records(path)), None) is None:
        raise RecordError(f"{path} holds no row")
    format = told(path) if part.format == AUTO else format_named(part.format)
    folder = (part.videos or path.parent).resolve()
    context = format.context(None, VideoFrames(folder))
    found: dict[str, Example] = {}
    for number, record in enumerate(read_records(path)):
        if isinstance(record, RecordError):
            raise record
        example = read_row(format, record, number, context).example
        if part.tasks and example.task not in part.tasks:
            continue
        if example.id in found:
            raise boundary(f"ids of {str(path)!r}", example.id, "unique ids", "see `timeloupe data check`")
        found[example.id] = example.model_copy(update={"video": str(folder / example.video)})
        if limit is not None and len(found) == limit:
            break
    if not found:
        what = f" of the tasks {', '.join(part.tasks)}" if part.tasks else ""
        raise RecordError(f"{path} holds no row{what}")
    examples = list(found.values())
    missing = missing_videos(examples)
    if len(missing) == len({example.video for example in examples}):
        cut = len(examples) == limit
        rows = f"the first {limit} rows of " if cut else ""
        raise MissingError(
            f"none of the videos of {rows}{str(path)!r} is there ({len(missing)} are named, such as {missing[0]!r}); "
            f"name their folder with source.videos{', or raise --limit' if cut else ''}"
        )
    return examples


def missing_videos(examples: Sequence[Example]) -> list[str]:
    """Return the videos that are not there, in the order in which they come: their rows will end with that reason."""
    videos = dict.fromkeys(example.video for example in examples)
    return [video for video in videos if not is_file(Path(video))]


def rows_sha256(examples: Sequence[Example]) -> str:
    """Return a hash of rows, less where their videos lie, 16 hex digits.

    A build knows its rows by their ids: rows with other labels or questions would be taken for those that it has made.
    """
    found = hashlib.sha256()
    for one in examples:
        found.update(to_line(one.model_copy(update={"video": Path(one.video).name})).encode() + b"\n")
    return found.hexdigest()[:16]


def files_sha256(recipe: BuildRecipe) -> dict[str, str]:
    """Return a hash of what else is read from files that a recipe names, by their keys, 16 hex digits each.

    Raises:
        MissingError: A file is not there.
        RecordError: Training rows cannot be read.
    """
    labeller = recipe.labeller
    named = {"labeller.script": labeller.script}
    if labeller.policy == "oracle":
        named["labeller.truth"] = labeller.truth or recipe.source.path.parent / "truth.jsonl"
    found = {key: _sha256(key, path) for key, path in named.items() if path is not None}
    for part in recipe.stages:
        if isinstance(part, BenchStage) and part.train:
            found[f"{stage_name(part)}.train"] = training(part.train).sha256()
    return found


def _sha256(key: str, path: Path) -> str:
    if not is_file(path):
        raise MissingError(f"{key}: no file at {str(path)!r}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def make_oracle(labeller: LabellerPart, source: SourcePart, examples: list[Example]) -> OraclePolicy:
    """Return the oracle of the world that the rows are of.

    Raises:
        MissingError: There is no ``truth.jsonl``.
        ConfigError: A row is of another video.
        RecordError: The truth cannot be read.
    """
    path = labeller.truth or source.path.parent / "truth.jsonl"
    scripts = read_truth(path)
    for example in examples:
        if Path(example.video).name not in scripts:
            raise boundary(
                f"video of row {example.id!r}", example.video, f"one of the world in {str(path)!r}"
            )
    return OraclePolicy({one.id: (scripts[Path(one.video).name], one) for one in examples}, labeller.oracle)
