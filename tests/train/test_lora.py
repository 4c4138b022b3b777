"""Adapters: nothing at first, trained alone, taken off for the reference, merged at the end, resumed exactly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from tests.model.tiny import tiny_checkpoint
from tests.train.test_grpo import recipe
from tests.train.test_trackers import tensorboard_scalars
from tests.train.tiny import tiny_recipe
from timeloupe.cli.main import main
from timeloupe.errors import ConfigError
from timeloupe.model.episode import TokenEpisode, TokenSegment
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.model.packing import pack
from timeloupe.policy.base import GenerationRequest, Sampling
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.train.grpo import train_grpo
from timeloupe.train.logprobs import log_probs, without_adapters
from timeloupe.train.lora import adapter_weights, adapters_off, add_adapters, choose_trainable
from timeloupe.train.recipe import LoraPart, SftRecipe
from timeloupe.train.sft import export, train_sft
from timeloupe.trajectory import Message, Text

EPISODE = TokenEpisode((TokenSegment((5, 9, 11, 20, 7)), TokenSegment((6, 7, 3, 4, 2), True)))


def scores(loaded: LoadedModel) -> torch.Tensor:
    """Log-probabilities of one short text."""
    with torch.no_grad():
        return log_probs(loaded.model, pack([EPISODE], loaded.layout))[0]


def adapted(
    checkpoint: Path | str, *, vision: bool = False, dtype: str | None = None, **part: Any
) -> LoadedModel:
    """A checkpoint with adapters that already do something."""
    loaded = load_model(checkpoint, device="cpu", dtype=dtype)
    before = scores(loaded)
    add_adapters(loaded.model, LoraPart(**part), vision=vision, seed=3)
    assert torch.equal(scores(loaded), before)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in loaded.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
    assert (scores(loaded) - before).abs().max() > 1e-3
    return loaded


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("vision", [False, True])
def test_the_exported_checkpoint_computes_what_the_adapters_did(
    tmp_path: Path, family: str, vision: bool
) -> None:
    source = tiny_checkpoint(tmp_path / "source", family)
    names = ("q_proj", "v_proj", "down_proj", "qkv", "proj")
    loaded = adapted(source, vision=vision, rank=4, target_modules=names)
    assert any("visual" in name for name in adapter_weights(loaded.model)) == vision
    export(loaded, tmp_path / "merged")
    again = load_model(tmp_path / "merged", device="cpu")
    torch.testing.assert_close(scores(again), scores(loaded), rtol=0, atol=1e-5)
    ones, twos = (load_file(path / "model.safetensors") for path in (source, tmp_path / "merged"))
    assert set(ones) == set(twos)
    changed = {name for name in ones if not torch.equal(ones[name], twos[name])}
    assert changed and all(name.split(".")[-2] in names for name in changed)
    assert any("visual" in name for name in changed) == vision


def test_without_adapters_it_is_the_model_it_was_and_they_still_train_afterwards() -> None:
    loaded = adapted(SMALL_CHECKPOINT)
    choose_trainable(loaded.model, vision=False)
    trainable = {name for name, one in loaded.model.named_parameters() if one.requires_grad}
    assert trainable == set(adapter_weights(loaded.model))
    base, adapters = scores(load_model(SMALL_CHECKPOINT, device="cpu")), scores(loaded)
    packed = pack([EPISODE], loaded.layout)
    assert torch.equal(without_adapters(loaded.model)(packed), base)
    with pytest.raises(KeyError), adapters_off(loaded.model):
        raise KeyError
    assert torch.equal(scores(loaded), adapters)
    log_probs(loaded.model, packed)[0].sum().backward()
    moved = {name for name, one in loaded.model.named_parameters() if one.grad is not None}
    assert moved == trainable


def test_the_policy_forgets_what_it_remembered_when_adapters_change() -> None:
    loaded = adapted(SMALL_CHECKPOINT)
    choose_trainable(loaded.model, vision=False)
    policy = LocalPolicy(loaded)
    message = Message(role="user", parts=(Text(text="When?"),))
    ask = GenerationRequest((message,), sampling=Sampling(temperature=1.0, max_new_tokens=6), seed=4)
    first = policy.generate([ask])[0]
    follow = GenerationRequest(
        (message, Message(role="assistant", parts=(Text(text=first.text),)), message),
        sampling=ask.sampling, seed=4, generations=(first,),
    )  # fmt: skip
    optimizer = torch.optim.SGD([one for one in loaded.model.parameters() if one.requires_grad], lr=1.0)
    log_probs(loaded.model, pack([EPISODE], loaded.layout))[0].mean().backward()
    optimizer.step()
    remembered, fresh = policy.generate([follow])[0], LocalPolicy(loaded).generate([follow])[0]
    assert remembered.token_ids == fresh.token_ids and remembered.logprobs == pytest.approx(fresh.logprobs)


def test_no_layer_of_the_name_is_told() -> None:
    loaded = load_model(SMALL_CHECKPOINT, device="cpu")
    with pytest.raises(ConfigError, match="lora.target_modules"):
        add_adapters(loaded.model, LoraPart(target_modules=("nothing",)), vision=False, seed=0)


def test_recipes_that_make_no_sense_with_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="trained as a whole"):
        SftRecipe.model_validate(tiny_recipe() | {"model": {"from_scratch": {}, "lora": {}}})
    with pytest.raises(ValidationError, match="vision tower as a whole"):
        SftRecipe.model_validate(tiny_recipe() | {"model": {"checkpoint": "x", "lora": {}}})
    with pytest.raises(ValidationError, match="dropout must be 0"):
        recipe(tmp_path, model={"checkpoint": "x", "lora": {"dropout": 0.1}})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of three minutes with a question of each kind."""
    folder = tmp_path_factory.mktemp("world")
    assert main(["world", "make", str(folder), "--seed", "5", "--videos", "1", "--minutes", "3"]) == 0
    return folder


class Killed(Exception):
    """Stands for a kill."""


def figures(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without what the clock or the frame cache says."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k and "frames" not in k} for row in rows]


def test_reinforcement_learning_moves_the_adapters_alone_and_resumes(world: Path, tmp_path: Path) -> None:
    model = {
        "checkpoint": str(SMALL_CHECKPOINT),
        "device": "cpu",
        "lora": {"rank": 4},
        "gradient_checkpointing": True,
    }
    chosen = recipe(world, model=model, loss={"kl_weight": 0.04}, steps=2, lr=0.01, trackers=["tensorboard"])
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_grpo(chosen, whole)

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 1:
            raise Killed

    with pytest.raises(Killed):
        train_grpo(chosen, cut, on_log=kill)
    train_grpo(chosen, cut, resume=True)
    assert figures(cut) == figures(whole)
    first, second = figures(whole)
    sent = tensorboard_scalars(cut)
    assert [step for step, _ in sent["kl"]] == [0, 1]
    assert dict(sent["reward"]) == {row["step"]: pytest.approx(row["reward"]) for row in figures(cut)}
    assert first["kl"] == pytest.approx(0, abs=1e-9) and second["kl"] > 0 and first["norm"] > 0
    kept = load_file(whole / "checkpoint" / "model.safetensors")
    assert kept and all("lora_" in name for name in kept)
    ones, twos = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    start = load_file(SMALL_CHECKPOINT / "model.safetensors")
    assert set(ones) == set(start) and all(torch.equal(ones[name], twos[name]) for name in ones)
    changed = {name for name in ones if not torch.equal(ones[name], start[name])}
    assert changed and all("_proj" in name and "visual" not in name for name in changed)


def sft_recipe(**model: Any) -> dict[str, Any]:
    """A world stage of the small model."""
    values = tiny_recipe(steps=20, optimizer="adamw", lr=0.001, readout_weight=0.0)
    return values | {
        "stages": values["stages"][1:],
        "model": {"checkpoint": str(SMALL_CHECKPOINT), "device": "cpu"} | model,
    }


def test_supervised_training_with_dropout_resumes_to_the_same_adapters(tmp_path: Path) -> None:
    values = sft_recipe(lora={"rank": 4, "dropout": 0.2}) | {"trackers": ["tensorboard"]}
    chosen = SftRecipe.model_validate(values)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_sft(chosen, whole)

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 20:
            raise Killed

    with pytest.raises(Killed):
        train_sft(chosen, cut, on_log=kill)
    assert len(figures(cut)) == 2
    train_sft(chosen, cut, resume=True)
    assert figures(cut) == figures(whole) and len(figures(whole)) == 2
    assert [step for step, _ in tensorboard_scalars(cut)["loss"]] == [10, 20]
    ones, twos = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(ones[name], twos[name]) for name in ones)


def test_bfloat16_weights_train_in_both_loops_to_finite_numbers(world: Path, tmp_path: Path) -> None:
    model = {"checkpoint": str(SMALL_CHECKPOINT), "device": "cpu", "dtype": "bfloat16"}
    train_grpo(recipe(world, model=model, loss={"kl_weight": 0.04}, steps=2), tmp_path / "rl")
    train_grpo(recipe(world, model=model | {"lora": {}}, steps=1), tmp_path / "rl-lora")
    stages = sft_recipe()["stages"]
    train_sft(
        SftRecipe.model_validate(sft_recipe(dtype="bfloat16") | {"stages": [stages[0] | {"steps": 10}]}),
        tmp_path / "sft",
    )
    for name in ("rl", "rl-lora", "sft"):
        rows = figures(tmp_path / name)
        assert rows and all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
        assert any(row["norm"] > 0 for row in rows)
        weights = load_file(tmp_path / name / "model" / "model.safetensors")
        assert {one.dtype for one in weights.values()} == {torch.bfloat16}
        assert all(one.isfinite().all() for one in weights.values())
    adapters = load_file(tmp_path / "rl-lora" / "checkpoint" / "model.safetensors")
    assert {one.dtype for one in adapters.values()} == {torch.float32}
