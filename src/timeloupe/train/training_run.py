"""The run folder of a training: who may write it, which recipe it holds, how far it has come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from timeloupe.errors import ConfigError, MissingError
from timeloupe.runs import lock_run, snapshot_environment, write_json
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
        if json.loads(path.read_text(encoding="utf-8")) != recipe.model_dump(mode="json"):
            raise ConfigError(
                f"{str(folder)!r} holds the run of another recipe; resume with that recipe, or use a new folder"
            )
        yield read_progress(folder) or Progress(0, 0)


def begin_run(recipe: RecipePart, folder: Path) -> None:
    """Make the folder a run of this recipe, in this environment.

    Call it when nothing of the recipe can be refused any more: until then it may be mended and use the folder.
    """
    write_json(folder / RECIPE, recipe.model_dump(mode="json"))
    write_json(folder / "environment.json", snapshot_environment())
