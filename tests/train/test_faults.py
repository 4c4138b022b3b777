"""What a user or a machine can break: one line each that names the file or key, and what to do."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.servers import warm
from timeloupe.cli.main import main
from timeloupe.policy.small import SMALL_CHECKPOINT

RECIPE = f"""
steps = 2
prompts = 1
group = 2
lr = 1e-4
checkpoint_every = 1
[model]
checkpoint = "{SMALL_CHECKPOINT}"
device = "cpu"
[episode]
max_new_tokens = 4
[data.world]
seed = 6
num_videos = 1
min_seconds = 40
max_seconds = 41
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe, and the folder of a finished run of it."""
    folder = tmp_path_factory.mktemp("faults")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    assert main(["train", "grpo", str(folder / "recipe.toml"), "--out", str(folder / "run")]) == 0
    return folder / "recipe.toml", folder / "run"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("lr=inf", "lr: Input should be a finite number"),
        ("loss.clip_high=inf", "loss.clip_high: Input should be a finite number"),
        ("loss.kl_weight=1e400", "loss.kl_weight: Input should be a finite number"),
        ("difficulty.solved=nan", "difficulty.solved: Input should be a finite number"),
        ("episode.temperature=inf", "episode.temperature must be a finite number"),
        (f"seed={10**30}", "seed: Input should be less than"),
        ("seed=-1", "seed: Input should be greater than or equal to 0"),
        ("model.device=tpu", "device, got 'tpu', allowed: cpu"),
        ("model.device=cuda:99", "device, got 'cuda:99', allowed: cpu"),
        ("model.device=cuda:x", "device, got 'cuda:x', allowed: cpu"),
    ],
)
def test_a_value_that_cannot_be_is_2_and_leaves_no_folder(
    run: tuple[Path, Path], tmp_path: Path, override: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "grpo", str(run[0]), "--out", str(tmp_path / "new"), "--set", override]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "new").exists()


def cut(path: Path) -> None:
    """Leave half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_line(path: Path) -> None:
    """Damage the first line of several."""
    first, *others = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first[: len(first) // 2] + b"\n", *others]))


def stepless(path: Path) -> None:
    """Take the step out of the first line."""
    path.write_bytes(b"{}\n" + path.read_bytes())


@pytest.mark.parametrize(
    ("name", "damage", "remedy"),
    [
        ("recipe.json", cut, "put back a copy of it, or begin a new run"),
        ("checkpoint/state.json", cut, "delete the folder"),
        ("checkpoint/state.json", stepless, "delete the folder"),
        ("checkpoint/state.json", Path.unlink, "delete the folder"),
        ("checkpoint/model.safetensors", cut, "delete the folder"),
        ("checkpoint/model.safetensors", Path.unlink, "delete the folder"),
        ("checkpoint/optimizer.safetensors", cut, "delete the folder"),
        ("trackers.json", cut, "or delete it"),
        ("metrics.jsonl", break_line, "mend or remove that line"),
        ("metrics.jsonl", stepless, "mend or remove that line"),
        ("trajectories.jsonl", break_line, "mend or remove that line"),
    ],
)
def test_a_damaged_file_of_a_run_is_named_with_a_remedy(
    run: tuple[Path, Path],
    tmp_path: Path,
    name: str,
    damage: Any,
    remedy: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe, whole = run
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "trackers.json").write_text(json.dumps({"run_id": "a", "sent": {}}), encoding="utf-8")
    damage(folder / name)
    assert main(["train", "grpo", str(recipe), "--out", str(folder), "--resume"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"timeloupe: {folder / name}") and remedy in line


def test_what_the_remedy_says_works(run: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run[1], folder)
    shutil.rmtree(folder / "checkpoint")
    assert main(["train", "grpo", str(run[0]), "--out", str(folder), "--resume"]) == 0

    def rewards(of: Path) -> list[Any]:
        return [json.loads(line)["reward"] for line in (of / "metrics.jsonl").read_text().splitlines()]

    assert rewards(folder) == rewards(run[1])


def test_another_recipe_is_refused_by_its_keys(
    run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "grpo", str(run[0]), "--out", str(run[1]), "--resume"]
    assert main([*words, "--set", "lr=2e-4", "--set", "loss.clip_high=0.3"]) == 2
    said = capsys.readouterr().err
    assert "loss.clip_high: there 0.2, now 0.3; lr: there 0.0001, now 0.0002" in said


def test_a_checkpoint_that_cannot_be_written_says_how_to_go_on(
    run: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, whole = run
    folder = tmp_path / "run"
    shutil.copytree(whole / "world", folder / "world")
    with (tmp_path / "said").open("w") as said:
        process = warm.start("train", "grpo", recipe, "--out", folder, stderr=said.fileno())
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (300_000, 300_000))
        code = process.wait(300)
    told = (tmp_path / "said").read_text(encoding="utf-8")
    assert code == 1 and "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith("timeloupe: cannot write ") and str(folder / "checkpoint.part") in last
    assert f"go on with: timeloupe train grpo {recipe} --out {folder}" in last and "--resume" in last
    assert not (folder / "checkpoint.part").exists()
    assert main(["train", "grpo", str(recipe), "--out", str(folder), "--resume"]) == 0
