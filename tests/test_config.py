"""Recipes: defaults, then the file, then --set; a key that nobody reads is an error that names its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from timeloupe.config import load_recipe
from timeloupe.errors import ConfigError, MissingError


class Optimizer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = "adamw"
    lr: float = Field(default=1e-5, gt=0)


class Warm(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["warm"]
    steps: int = 10


class Main(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["main"]
    optimizer: Optimizer = Optimizer()
    masks: tuple[str, ...] = ()


class Recipe(BaseModel):
    # Extra keys would be ignored by pydantic here; the loader refuses them all the same.
    seed: int = 0
    note: str | None = None
    optimizer: Optimizer | None = None
    stages: tuple[Annotated[Warm | Main, Field(discriminator="kind")], ...] = ()
    weights: dict[str, float] = {}


TEXT = """\
seed = 3

[optimizer]
lr = 0.5

[[stages]]
kind = "warm"
steps = 7

[[stages]]
kind = "main"
masks = ["last"]

[weights]
anything = 1.5
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(TEXT)
    return path


def fails(path: Path | None, *overrides: str) -> str:
    """The message of the error."""
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides, Recipe)
    return str(caught.value)


def test_file_over_defaults(recipe: Path) -> None:
    loaded = load_recipe(recipe, [], Recipe)
    assert loaded.seed == 3
    assert loaded.optimizer == Optimizer(lr=0.5)
    assert loaded.stages == (Warm(kind="warm", steps=7), Main(kind="main", masks=("last",)))
    assert loaded.weights == {"anything": 1.5}
    assert load_recipe(None, [], Recipe) == Recipe()


def test_overrides_over_the_file_the_last_one_wins(recipe: Path) -> None:
    overrides = [
        "seed=4", "seed=5", "optimizer.name=muon", "optimizer.lr=1e-3", "stages.0.steps=9",
        "stages.1.optimizer.lr=2", 'stages.1.masks=["a", "b"]', "note=plain = text", "weights.new=2",
    ]  # fmt: skip
    loaded = load_recipe(recipe, overrides, Recipe)
    assert (loaded.seed, loaded.note) == (5, "plain = text")
    assert loaded.optimizer == Optimizer(name="muon", lr=1e-3)
    assert loaded.stages[0] == Warm(kind="warm", steps=9)
    assert loaded.stages[1] == Main(kind="main", optimizer=Optimizer(lr=2.0), masks=("a", "b"))
    assert loaded.weights == {"anything": 1.5, "new": 2.0}
    assert load_recipe(None, ["optimizer.lr=3"], Recipe).optimizer == Optimizer(lr=3)
    assert load_recipe(None, ['note="7"'], Recipe).note == "7"


def test_unknown_keys_name_place_and_legal_keys(recipe: Path) -> None:
    recipe.write_text(TEXT.replace("lr = 0.5", "lrr = 0.5").replace("steps = 7", "stps = 7") + "[nothing]\n")
    message = fails(recipe)
    assert f"{recipe}:4: unknown key 'optimizer.lrr' (did you mean 'lr'?), allowed: lr, name" in message
    assert f"{recipe}:8: unknown key 'stages.0.stps' (did you mean 'steps'?), allowed: kind, steps" in message
    assert f"{recipe}:16: unknown key 'nothing', allowed: note, optimizer, seed, stages, weights" in message


def test_unknown_override_names_itself(recipe: Path) -> None:
    assert fails(recipe, "optimizer.lrate=1").startswith(
        "--set optimizer.lrate=1: unknown key 'optimizer.lrate', allowed: lr, name"
    )
    assert "unknown key 'sed'" in fails(None, "sed=1")


def test_wrong_values_name_place_value_and_what_is_allowed(recipe: Path) -> None:
    recipe.write_text(TEXT.replace("lr = 0.5", "lr = -1"))
    assert fails(recipe) == f"{recipe}:4: optimizer.lr: Input should be greater than 0, got -1"
    assert fails(recipe, "optimizer.lr=1", "stages.0.steps=many").startswith(
        "--set stages.0.steps=many: stages.0.steps: Input should be a valid integer"
    )
    recipe.write_text('[[stages]]\nkind = "hot"\n')
    assert "'warm', 'main'" in fails(recipe)
    recipe.write_text("[[stages]]\nsteps = 1\n")
    assert "stages.0" in fails(recipe)


def test_broken_toml_names_file_and_line(recipe: Path) -> None:
    recipe.write_text("seed = 3\nnote = \n")
    assert f"{recipe}:2 is not valid TOML" in fails(recipe)
    recipe.write_text('note = """\nopen\n')
    assert f"{recipe}:" in fails(recipe)
    recipe.write_bytes(b'note = "\xff"')
    assert "UTF-8" in fails(recipe)


def test_broken_overrides(recipe: Path) -> None:
    assert "key.inner=value" in fails(recipe, "seed")
    assert "key.inner=value" in fails(recipe, "=3")
    assert "key.inner=value" in fails(recipe, "optimizer..lr=3")
    assert "allowed: 0 to 1" in fails(recipe, "stages.2.steps=3")
    assert "allowed: 0 to 1" in fails(recipe, "stages.warm.steps=3")
    assert "seed is a plain value" in fails(recipe, "seed.inner=3")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no recipe at"):
        load_recipe(tmp_path / "none.toml", [], Recipe)


def test_null_in_an_override_is_nothing_and_in_quotes_it_is_a_word() -> None:
    class Some(BaseModel):
        folder: str | None = "there"

    assert load_recipe(None, ["folder=null"], Some).folder is None
    assert load_recipe(None, ['folder="null"'], Some).folder == "null"


def test_an_error_inside_what_an_override_set_is_of_the_override(tmp_path: Path) -> None:
    class Inner(BaseModel):
        count: int = 1

    class Outer(BaseModel):
        inner: Inner = Inner()

    path = tmp_path / "some.toml"
    path.write_text("[inner]\ncount = 3\n")
    with pytest.raises(ConfigError, match="^--set inner="):
        load_recipe(path, ['inner={count = "x"}'], Outer)
