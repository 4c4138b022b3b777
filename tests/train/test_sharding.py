"""A model cut among two real processes learns what one process learns, and what is stored is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.model.tiny import tiny_loaded
from tests.train.ranks import train_in_two
from tests.train.test_grpo import recipe
from timeloupe.cli.main import main
from timeloupe.config import load_recipe
from timeloupe.errors import ConfigError
from timeloupe.model.expand import expand
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.train.grpo import train_grpo
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.parallel import Parallel
from timeloupe.train.shard_settings import Sharding, read_sharding
from timeloupe.train.sharding import check_shardable, filler

CONFIG = Path(__file__).resolve().parents[2] / "recipes" / "accelerate" / "fsdp.yaml"
ASKED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}


def write_recipe(world: Path, path: Path, *, vision: bool) -> Path:
    """Two steps of three groups: two processes have unequally much to learn."""
    path.write_text(
        "steps = 2\nprompts = 3\ngroup = 4\nlr = 1e-3\nmicro_batch = 2\ncheckpoint_every = 1\n"
        f"[episode]\ntemperature = 2.0\n[model]\nfreeze_vision = {str(not vision).lower()}\n"
        f'checkpoint = "{SMALL_CHECKPOINT}"\ndevice = "cpu"\n[data]\nexamples = ["{world}/examples.jsonl"]\n'
        "[loss]\nkl_weight = 0.04\n",
        encoding="utf-8",
    )
    return path


def launch(path: Path, out: Path) -> None:
    """Train in two processes by the configuration that is shipped, but for their number."""
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG), "--num_processes", "2",
        "--main_process_port", "0", "-m", "timeloupe", "train", "grpo", str(path), "--out", str(out),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]


def rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl without what the clock or a frame cache says."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k and "frames" not in k} for row in found]


def assert_the_same(one: Path, two: Path) -> None:
    """The same figures and weights within rounding."""
    for mine, theirs in zip(rows(one), rows(two), strict=True):
        assert theirs == {name: pytest.approx(value, abs=2e-4) for name, value in mine.items()}
    ones, twos = (load_file(folder / "model" / "model.safetensors") for folder in (one, two))
    assert set(ones) == set(twos)
    assert max(float((ones[name] - twos[name]).abs().max()) for name in ones) < 1e-4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of three minutes with a question of each kind."""
    folder = tmp_path_factory.mktemp("world")
    assert main(["world", "make", str(folder), "--seed", "5", "--videos", "2", "--minutes", "3"]) == 0
    return folder


@pytest.mark.slow
def test_two_shards_train_as_one_process(world: Path, tmp_path: Path) -> None:
    path = write_recipe(world, tmp_path / "recipe.toml", vision=False)
    train_grpo(load_recipe(path, [], GrpoRecipe), tmp_path / "one")
    launch(path, tmp_path / "two")
    assert_the_same(tmp_path / "one", tmp_path / "two")
    start = load_file(SMALL_CHECKPOINT / "model.safetensors")
    end = load_file(tmp_path / "two" / "model" / "model.safetensors")
    assert set(start) == set(end) and any((start[name] != end[name]).any() for name in start)


@pytest.mark.slow
def test_shards_take_over_a_run_of_one_process(world: Path, tmp_path: Path) -> None:
    path = write_recipe(world, tmp_path / "recipe.toml", vision=True)
    chosen = load_recipe(path, [], GrpoRecipe)
    train_grpo(chosen, tmp_path / "one")

    class Killed(Exception):
        pass

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 1:
            raise Killed

    with pytest.raises(Killed):
        train_grpo(chosen, tmp_path / "two", on_log=kill)
    train_in_two("grpo", path, "--out", tmp_path / "two", "--resume", env=ASKED)
    assert_the_same(tmp_path / "one", tmp_path / "two")
    for name in ("model", "optimizer"):
        ones, twos = (
            load_file(tmp_path / run / "checkpoint" / f"{name}.safetensors") for run in ("one", "two")
        )
        assert {key: value.shape for key, value in ones.items()} == {k: v.shape for k, v in twos.items()}


def test_what_accelerate_was_told_is_read_or_refused() -> None:
    assert read_sharding({}) is None
    assert read_sharding(ASKED) == Sharding(reshard=True)
    assert read_sharding(ASKED | {"FSDP_RESHARD_AFTER_FORWARD": "false"}) == Sharding(reshard=False)
    for changed, option in (
        ({"FSDP_VERSION": "1"}, "fsdp_version"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, "fsdp_cpu_ram_efficient_loading"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "mixed_precision"),
        ({"FSDP_RESHARD_AFTER_FORWARD": "FULL_SHARD"}, "fsdp_reshard_after_forward"),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed"),
    ):
        with pytest.raises(ConfigError, match=option):
            read_sharding(ASKED | changed)


def test_one_process_has_nothing_to_share_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ASKED.items():
        monkeypatch.setenv(name, value)
    assert Parallel("cpu").sharding is None
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(ConfigError, match="fsdp_offload_params"):
        Parallel("cpu")


def test_several_processes_are_not_sent_to_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ConfigError, match=r"model\.device with 2 processes, got 'cuda:1', allowed: cuda, cpu"
    ):
        Parallel("cuda:1")


def test_processes_wait_longer_than_a_world_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class State:
        process_index, num_processes = 1, 2

        def __init__(self, **given: Any) -> None:
            asked.update(given)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.PartialState", State)
    assert not Parallel("cpu").is_main
    assert asked["timeout"] >= timedelta(hours=12)


def test_what_cannot_be_sharded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without FSDP"):
        check_shardable(recipe(tmp_path, model={"checkpoint": "x", "lora": {}}))
    with pytest.raises(ConfigError, match="muon"):
        check_shardable(recipe(tmp_path, optimizer="muon"))


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_the_filler_touches_every_part_of_a_model(family: str) -> None:
    layout = tiny_loaded(family).layout
    batch = expand([filler(layout)], layout)
    assert batch.pixel_values_videos is not None and int(batch.loss_mask_BT.sum()) == 1
