"""The plan's formulas against what really is: parameters, cache, and the memory of an update of the small model."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train.test_grpo import recipe
from timeloupe.cli.main import main
from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.errors import ConfigError, MissingError
from timeloupe.model.cache import make_cache
from timeloupe.model.expand import expand
from timeloupe.model.packing import pack
from timeloupe.model.sizes import ModelSizes, key_value_bytes, model_sizes
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.train.batch import make_samples
from timeloupe.train.grpo import members, roll_out
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.optimizer import build_optimizers
from timeloupe.train.parallel import Parallel
from timeloupe.train.placement import place
from timeloupe.train.plan import (
    Assumptions,
    activation_bytes,
    episode_settings,
    lengths_of,
    memory_plan,
    optimizer_numbers,
    plan,
    trainable_parameters,
)
from timeloupe.train.update import update
from timeloupe.trajectory import read_examples
from timeloupe.video.cache import FrameCache

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "grpo" / "videotemp-7b.toml"
SMALL = {"checkpoint": str(SMALL_CHECKPOINT), "device": "cpu"}


def test_parameters_are_those_of_the_public_checkpoints() -> None:
    assert model_sizes("qwen2.5-vl-7b").parameters == 8_292_166_656
    assert model_sizes("qwen3-vl-8b").parameters == 8_767_123_696
    with pytest.raises(MissingError, match="qwen3-vl-8b"):
        model_sizes("runs/nothing")


QKV = ("q_proj", "qkv", "proj", "linear_fc1")
PARTS = [
    {}, {"freeze_vision": False}, {"lora": {"rank": 4}}, {"lora": {"rank": 4}, "freeze_vision": False},
    {"lora": {"rank": 4, "target_modules": QKV}}, {"lora": {"rank": 4, "target_modules": QKV}, "freeze_vision": False},
]  # fmt: skip


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_parameters_of_the_small_model_are_counted_right(part: dict[str, Any], tmp_path: Path) -> None:
    chosen = recipe(tmp_path, model=SMALL | part)
    model = place(chosen, Parallel()).loaded.model
    sizes = model_sizes(SMALL_CHECKPOINT)
    adapters = trainable_parameters(chosen, sizes) if "lora" in part else 0
    assert sizes.parameters + adapters == sum(one.numel() for one in model.parameters())
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert trainable_parameters(chosen, sizes) == trained > 0
    for name in ("adamw", "muon"):
        optimizers = build_optimizers(model, name, 1e-4)
        for one in model.parameters():
            one.grad = torch.zeros_like(one) if one.requires_grad else None
        for optimizer in optimizers:
            optimizer.step()
        kept = [value for one in optimizers for entry in one.state.values() for value in entry.values()]
        with_it = chosen.model_copy(update={"optimizer": name})
        assert optimizer_numbers(with_it, sizes) == sum(one.numel() for one in kept if one.ndim)


def test_adapters_of_the_vision_tower_are_counted() -> None:
    # gate_proj and its like are names in Qwen2.5-VL's vision tower too: 32 layers of 1280 and 3420, thrice.
    chosen, sizes = recipe(Path("x"), model=SMALL | {"lora": {"rank": 2}}), model_sizes("qwen2.5-vl-7b")
    thawed = recipe(Path("x"), model=SMALL | {"lora": {"rank": 2}, "freeze_vision": False})
    more = trainable_parameters(thawed, sizes) - trainable_parameters(chosen, sizes)
    assert more == 2 * 32 * 3 * (1280 + 3420)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of three minutes with a question of each kind."""
    folder = tmp_path_factory.mktemp("world")
    assert main(["world", "make", str(folder), "--seed", "5", "--videos", "1", "--minutes", "3"]) == 0
    return folder


@pytest.mark.parametrize("checkpointing", [False, True])
def test_cache_and_update_take_what_was_computed(world: Path, checkpointing: bool) -> None:
    chosen = recipe(
        world, prompts=1, group=8, micro_batch=8, loss={"kl_weight": 0.04},
        model=SMALL | {"gradient_checkpointing": checkpointing},
    )  # fmt: skip
    placed, sizes = place(chosen, Parallel()), model_sizes(SMALL_CHECKPOINT)
    loaded, cache = placed.loaded, FrameCache(1 << 28)
    settings = make_settings(loaded.layout.details["episode"], {"temperature": 2.0})
    examples = list(read_examples(world / "examples.jsonl"))
    played = roll_out(
        chosen, members(chosen, examples, 0), 0, LocalPolicy(loaded), PROTOCOLS["small"], settings, cache
    )
    samples = make_samples(played, [float(index) for index in range(8)], loaded, cache)

    batch = expand([one.episode for one in samples], loaded.layout)
    memory = make_cache(loaded.model.config.get_text_config())
    with torch.no_grad():
        loaded.model(**batch.model_inputs(), past_key_values=memory, use_cache=True, logits_to_keep=1)
    layers: Any = memory.layers
    held = sum(one.keys.nbytes + one.values.nbytes for one in layers)
    assert held == key_value_bytes(sizes, batch.input_ids_BT.numel(), 4)

    optimizers = build_optimizers(loaded.model, "adamw", 1e-4)
    update(samples, loaded, placed.reference, optimizers, chosen, Parallel())
    kept = [value for one in optimizers for entry in one.state.values() for value in entry.values()]
    trained = trainable_parameters(chosen, sizes)
    assert sum(one.nbytes for one in kept if one.ndim) == 2 * 4 * trained
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        update(samples, loaded, placed.reference, optimizers, chosen, Parallel())
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]  # type: ignore[union-attr]
    now = peak = 0
    for one in sorted(events, key=lambda one: one.start_ns()):
        now += one.nbytes()
        peak = max(peak, now)
    tokens = pack([one.episode for one in samples], loaded.layout).num_tokens
    learnt = sum(one.num_tokens for one in samples)
    computed = activation_bytes(sizes, tokens, learnt, checkpointing=checkpointing, width=4) + 4 * trained
    ratio = peak / computed
    print(f"measured {peak} bytes, computed {computed}, ratio {ratio:.2f}")
    # Gradients come while activations go: the sum is above the peak, the more so the smaller activations are.
    assert 0.6 < ratio < 1.2


def test_a_plan_in_shards_holds_a_share_of_everything_that_is_trained() -> None:
    from timeloupe.config import load_recipe
    from timeloupe.train.grpo_recipe import GrpoRecipe

    chosen, sizes = load_recipe(RECIPE, [], GrpoRecipe), model_sizes("qwen2.5-vl-7b")
    settings = episode_settings(chosen, sizes)
    whole = plan(chosen, sizes, settings, Assumptions(gpus=1, sharded=False))
    cut = plan(chosen, sizes, settings, Assumptions(gpus=8))
    assert whole["note"] == "computed, not measured" and not whole["fits"] and cut["fits"]
    ones, eights = whole["memory_bytes"], cut["memory_bytes"]
    assert ones["weights"] == 4 * sizes.parameters and ones["rollout_copy"] == 0
    assert eights["optimizer"] == pytest.approx(ones["optimizer"] / 8)
    assert eights["rollout_copy"] == 2 * sizes.parameters
    assert cut["tokens"]["skim"] == 512 // 2 * (50176 // 28**2)
    assert whole["time"]["step_seconds"] > 4 * cut["time"]["step_seconds"]
    with pytest.raises(ConfigError, match="gpu, got 'b200'"):
        Assumptions(gpu="b200")


def test_what_training_refuses_is_not_planned_and_an_engine_is_counted() -> None:
    sizes = model_sizes(SMALL_CHECKPOINT)

    def planned(given: Assumptions, **changes: Any) -> dict[str, Any]:
        chosen = recipe(Path("x"), **changes)
        return plan(chosen, sizes, episode_settings(chosen, sizes), given)["memory_bytes"]

    alone = Assumptions(gpus=1, sharded=False)
    engine = {"rollout": {"backend": "vllm", "memory_gib": 3}}
    for changes, words in (
        ({"model": SMALL | {"lora": {}}}, "launch without FSDP"),
        ({"optimizer": "muon"}, "adamw"),
        (engine, "--gpus 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            planned(Assumptions(gpus=2), **changes)
    local, beside = planned(alone), planned(alone, **engine)
    assert beside["key_values"] == 3 * 2**30 and beside["rollout_copy"] == 2 * sizes.parameters
    more = beside["key_values"] + beside["rollout_copy"]
    assert beside["peak_update"] == pytest.approx(local["peak_update"] + more)


def test_vllm_decodes_as_many_at_once_as_its_own_memory_holds() -> None:
    sizes = model_sizes("qwen2.5-vl-7b")

    def seconds(given: Assumptions, **rollout: Any) -> float:
        chosen = recipe(Path("x"), prompts=8, group=8, rollout={"backend": "vllm"} | rollout)
        return plan(chosen, sizes, episode_settings(chosen, sizes), given)["time"]["decode_seconds"]

    alone, narrow = (Assumptions(gpus=1, sharded=False, batch_tokens=tokens) for tokens in (65_536, 8_192))
    # What the local policy would decode at once says nothing of vLLM.
    assert seconds(alone, memory_gib=20) == seconds(narrow, memory_gib=20)
    assert seconds(alone, memory_gib=20) < seconds(alone, memory_gib=2)
    assert seconds(alone, memory_gib=20) < seconds(alone, memory_gib=20, max_sequences=2)


@cache
def small_plan(checkpointing: bool) -> tuple[ModelSizes, GrpoRecipe, EpisodeSettings]:
    """Sizes, recipe and episodes of the small model, read once."""
    sizes = model_sizes(SMALL_CHECKPOINT)
    chosen = recipe(Path("x"), model=SMALL | {"gradient_checkpointing": checkpointing})
    return sizes, chosen, episode_settings(chosen, sizes)


@given(st.integers(1, 16), st.integers(0, 2), st.integers(1, 400), st.booleans())
def test_more_of_anything_never_takes_less(gpus: int, looks: int, reply: int, checkpointing: bool) -> None:
    sizes, chosen, settings = small_plan(checkpointing)

    def peak(given: Assumptions) -> float:
        return memory_plan(chosen, sizes, lengths_of(settings, sizes, given), given)["peak"]

    here = Assumptions(gpus=gpus, looks=looks, reply_tokens=reply)
    assert peak(Assumptions(gpus=gpus, looks=looks + 1, reply_tokens=reply)) >= peak(here)
    assert peak(Assumptions(gpus=gpus, looks=looks, reply_tokens=reply + 9)) >= peak(here)
    assert peak(Assumptions(gpus=gpus + 1, looks=looks, reply_tokens=reply)) <= peak(here)


def test_the_command_prints_and_says_that_nothing_was_measured(capsys: Any) -> None:
    assert main(["train", "plan", str(RECIPE), "--model", "qwen2.5-vl-7b"]) == 0
    assert "COMPUTED, NOT MEASURED" in capsys.readouterr().out
    assert main(["train", "plan", str(RECIPE), "--model", "qwen3-vl-8b", "--gpu", "h200", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["assumptions"]["gpu"] == "h200"
    assert main(["train", "plan", str(RECIPE)]) == 3
    assert "--model" in capsys.readouterr().err


def test_a_plan_reads_the_settings_of_the_checkpoint_and_shows_no_crop_without_the_tool(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = RECIPE.parents[2]
    monkeypatch.chdir(root)
    assert main(["train", "plan", str(root / "recipes/grpo/small.toml"), "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert tokens["skim"] < 100  # 16 frames of 32 x 32
    small = str(root / "src/timeloupe/policy/small_checkpoint")
    taro = str(root / "recipes/grpo/taro-small.toml")
    assert main(["train", "plan", taro, "--model", small]) == 0
    shown = capsys.readouterr().out
    assert "crops" not in shown
    assert "left out: the two passes of [sensitivity]" in shown
