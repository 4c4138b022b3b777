"""Every recipe that is shipped loads, says where it comes from, and names only what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from timeloupe.cli.train import default_folder
from timeloupe.config import load_recipe
from timeloupe.data.build.recipe import BuildRecipe
from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.compose import load_reward
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.recipe import SftRecipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
KINDS = {"data": BuildRecipe, "grpo": GrpoRecipe, "sft": SftRecipe}
FOLDERS = {*KINDS, "accelerate", "rewards"}


def test_every_folder_of_recipes_is_known() -> None:
    assert {path.name for path in RECIPES.iterdir()} <= FOLDERS
    assert {path.suffix for kind in KINDS for path in (RECIPES / kind).iterdir()} == {".toml"}


@pytest.mark.parametrize(
    "path",
    sorted(path for kind in KINDS for path in (RECIPES / kind).glob("*.toml")),
    ids=lambda path: path.stem,
)
def test_a_recipe_loads_and_means_something(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(RECIPES.parent)  # recipes name files of ours as seen from the repository
    recipe = load_recipe(path, [], KINDS[path.parent.name])
    if isinstance(recipe, GrpoRecipe):
        tasks = load_reward(recipe.reward).composite.tasks
        assert set(recipe.data.tasks) & set(tasks), (
            f"reward {recipe.reward} scores none of {recipe.data.tasks}"
        )
    if isinstance(recipe, GrpoRecipe | BuildRecipe):
        assert recipe.protocol is None or recipe.protocol in PROTOCOLS
        assert isinstance(make_settings({"size_multiple": 28}, recipe.episode), EpisodeSettings)


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*-7b*.toml")), ids=lambda path: path.stem)
def test_a_recipe_for_large_machines_says_what_it_needs_and_that_it_was_not_run(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line for line in lines[:3] if line.startswith("#")).lower()
    assert "arxiv" in lines[0].lower()
    assert "not run by us" in comment
    assert any(word in comment for word in ("hours", " h ", "days")) and "gpu" in comment or "x " in comment


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"kl_bound": 10.0}},
        {"loss": {"kl_log_ratio_bound": 10.0}},
        {"scale": "mean", "epsilon": 1e-6},
        {"exploration": {"beta": 0.5}},
        {"exploration": {"epochs": 1.0, "until": 0.5}},
    ],
    ids=str,
)
def test_an_option_that_nothing_reads_is_refused(changes: dict[str, Any]) -> None:
    recipe = {"model": {"checkpoint": "x"}, "data": {"world": {"seed": 5}}, "steps": 2, "lr": 1e-5}
    GrpoRecipe.model_validate(recipe)
    with pytest.raises(ValidationError, match="does nothing here"):
        GrpoRecipe.model_validate(recipe | changes)


@pytest.mark.parametrize("greedy", [{"temperature": 0}, {"temperature": 0.0}, {"top_k": 1}], ids=str)
def test_a_group_whose_members_are_all_alike_is_refused(greedy: dict[str, Any]) -> None:
    recipe = {"model": {"checkpoint": "x"}, "data": {"world": {"seed": 5}}, "steps": 2, "lr": 1e-5}
    GrpoRecipe.model_validate(recipe | {"episode": {"temperature": 0.9, "top_k": 2}})
    with pytest.raises(ValidationError, match="all roll-outs of an example alike"):
        GrpoRecipe.model_validate(recipe | {"episode": greedy})


NOT_SHIPPED = {
    "runs/museg/base/model": "benchmarks/ablations/museg.py makes it",
    "runs/openo3-7b-sft/model": "stage 1 of the paper has no recipe here",
}
"""Checkpoints that no shipped recipe makes, and why."""


def test_each_recipe_has_a_folder_of_its_own_and_a_chain_of_recipes_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(RECIPES.parent)
    paths = [path for kind in ("grpo", "sft") for path in sorted((RECIPES / kind).glob("*.toml"))]
    folders = [default_folder(path.parent.name, path) for path in paths]
    assert len(set(folders)) == len(paths)
    made = {str(folder / "model") for folder in folders}
    for path, folder in zip(paths, folders, strict=True):
        checkpoint = load_recipe(path, [], KINDS[path.parent.name]).model.checkpoint
        if checkpoint is None:
            continue  # from scratch
        name = str(checkpoint)
        known = name.startswith("Qwen/") or Path(name, "config.json").is_file()
        assert known or name in made or name in NOT_SHIPPED, (
            f"{path.name} starts from {name}, which nothing makes"
        )
        assert name != str(folder / "model")
