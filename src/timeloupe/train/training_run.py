"""The run folder of a training: who may write it, which recipe it holds, how far it has come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.runs import differing_keys, lock_run, snapshot_environment, write_json
from timeloupe.train.checkpoint import Progress, read_progress
from timeloupe.train.recipe import RecipePart

RECIPE = "recipe.json"


@contextmanager
def training_run(recipe: RecipePart, folder: Path, *, resume: bool) -> Iterator[Progress]:
    """Hold the run folder for this process for the time of a ``with`` block, and give how much of the run is done.

    Raises:
        ConfigError: Another process writes there, the folder holds another recipe's run, or any run and ``resume`` is
            false.
        MissingError: There is no run to resume.
        RecordError: The recipe or the progress of the run there cannot be read.
    """
    with lock_run(folder):
        path = folder / RECIPE
        if not path.exists():
            if resume:
                raise MissingError(f"no run to resume in {str(folder)!r}, expected a folder with {RECIPE}")
            yield Progress(0, 0)
            return
        if not resume:
            raise ConfigError(
                f"{str(folder)!r} already holds a run; use --resume to go on with it, or a new folder"
            )
        _refuse_other_recipe(folder, recipe.model_dump(mode="json"))
        yield read_progress(folder) or Progress(0, 0)


def _refuse_other_recipe(folder: Path, wanted: dict[str, Any]) -> None:
    path = folder / RECIPE
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict):
            raise ValueError(f"expected an object, got {type(held).__name__}")
    except ValueError as error:
        raise RecordError(
            f"{path} is damaged: {error}; put back a copy of it, or begin a new run in another folder"
        ) from error
    differing = differing_keys(held, wanted)
    if differing:
        shown = "; ".join(f"{key}: there {old}, now {new}" for key, old, new in differing[:8])
        more = f"; and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise ConfigError(
            f"{str(folder)!r} holds the run of another recipe ({shown}{more}); resume with that recipe, or use a new "
            "folder"
        )


def step_line(path: Path, number: int, line: bytes | str) -> dict[str, Any]:
    """Return a whole line of a file that a run appends its steps to.

    Raises:
        RecordError: It is damaged.
    """
    try:
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, got {type(found).__name__}")
    except ValueError as error:
        raise RecordError(
            f"{path}:{number} is damaged: {error}; mend or remove that line and resume"
        ) from error
    return found


def begin_run(recipe: RecipePart, folder: Path) -> None:
    """Make the folder a run of this recipe, in this environment.

    Call it when nothing of the recipe can be refused any more: until then it may be mended and use the folder.
    """
    write_json(folder / RECIPE, recipe.model_dump(mode="json"))
    write_json(folder / "environment.json", snapshot_environment())
