"""A real vLLM on the CPU plays the roll-outs of a training: `make vllm-env` builds the environment it needs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.engines.test_vllm_policy import recipe_file
from tests.engines.test_vllm_server import PYTHON, ROOT, pytestmark  # noqa: F401
from timeloupe.cli.main import main
from timeloupe.policy.small import SMALL_CHECKPOINT


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python with vLLM."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([PYTHON, *words], env=environment, capture_output=True, text=True, timeout=900)


def lines(folder: Path) -> list[dict[str, Any]]:
    """The steps of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_command_trains_and_goes_on_after_a_stop(tmp_path: Path) -> None:
    world, out = tmp_path / "world", tmp_path / "run"
    assert main(["world", "make", str(world), "--seed", "5", "--videos", "1", "--minutes", "3"]) == 0
    path = recipe_file(
        tmp_path / "recipe.toml", world, 'old = "trainer"\nimportance_cap = 2.0\nmemory_gib = 0.25\n'
    )
    command = ("-m", "timeloupe", "train", "grpo", path, "--out", out, "--set", "checkpoint_every=1")
    done = run(*command)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = lines(out)
    assert len(rows) == 3 and all(row["scored"] == 8 and row["looks"] > 0 for row in rows)
    for row in rows:
        assert row.get("gap_max", 0.0) < 1e-4 and row.get("capped", 0.0) == 0, row
    assert any("gap_max" in row for row in rows)
    moved = [row for row in rows if "probe_moved" in row]
    assert moved and all(row["probe_gap"] < 1e-4 for row in moved), rows
    ones, twos = (load_file(folder / "model.safetensors") for folder in (SMALL_CHECKPOINT, out / "model"))
    assert any(not torch.equal(ones[name], twos[name]) for name in ones)
    # As if it had been killed after its first step: the engine starts from the checkpoint's weights.
    state = out / "checkpoint" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"step": 1}), encoding="utf-8")
    done = run(*command, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(lines(out)) == 3 and lines(out)[0] == rows[0] and lines(out)[1]["probe_gap"] < 1e-4


def test_vllm_and_trainer_agree_while_the_weights_change(tmp_path: Path) -> None:
    found = tmp_path / "found.json"
    done = run(ROOT / "benchmarks" / "vllm_training.py", "--steps", "2", "--model", "random", "--json", found)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    one = json.loads(found.read_text())["random"]
    assert all(row["crops"] == 2 and row["turns"] == 3 for row in one["steps"]["vllm"])
    assert one["greedy"]["same"] == one["greedy"]["tokens"] > 0
    assert set(one["controls"]) == {"reload", "prefix cache", "encoder cache"}
    assert "did not take the new weights" in one["controls"]["reload"] + one["controls"]["prefix cache"]
