"""The training loop: learns, resumes to the same numbers, and does not care how a batch is cut."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.model.tiny import tiny_checkpoint
from tests.train.tiny import tiny_recipe
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import make_settings
from timeloupe.environment.teacher_policy import TeacherPolicy
from timeloupe.errors import ConfigError, MissingError
from timeloupe.model.load import load_model
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.scripted import ScriptedPolicy
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.runs import create_run, lock_run
from timeloupe.train import sft
from timeloupe.train.recipe import SftRecipe
from timeloupe.trajectory import Example, Generation
from timeloupe.world.encode import make_videos
from timeloupe.world.script import ScriptSettings


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_from_nothing_ends_in_a_model_that_plays(tmp_path: Path) -> None:
    recipe = SftRecipe(**tiny_recipe(steps=20, mp4=True))
    model = sft.train_sft(recipe, tmp_path / "run")
    rows = metrics(tmp_path / "run")
    assert rows[-1]["step"] == 20
    assert rows[-1]["loss"] < rows[-2]["loss"]
    loaded = load_model(model, device="cpu")
    (video,) = make_videos(tmp_path, seed=3, num_videos=1, settings=ScriptSettings(60, 61))
    examples = [example.model_copy(update={"video": str(video.path)}) for example in video.examples]
    settings = make_settings(loaded.layout.details["episode"])
    played = play(
        examples, LocalPolicy(loaded), PROTOCOLS[loaded.layout.details["protocol"]], settings, seed=0
    )
    assert all(trajectory.stop != "infrastructure" and trajectory.turns for trajectory in played)


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = SftRecipe(**tiny_recipe(steps=13))
    sft.train_sft(recipe, tmp_path / "whole")

    class Killed(Exception):
        pass

    real, calls = sft.token_loss, []

    def dies(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 12:
            raise Killed
        return real(*arguments)

    monkeypatch.setattr(sft, "token_loss", dies)
    with pytest.raises(Killed):
        sft.train_sft(recipe, tmp_path / "killed")
    monkeypatch.setattr(sft, "token_loss", real)
    with pytest.raises(ConfigError, match="--resume"):
        sft.train_sft(recipe, tmp_path / "killed")
    other = SftRecipe(**tiny_recipe(steps=14))
    with pytest.raises(ConfigError, match="another recipe"):
        sft.train_sft(other, tmp_path / "killed", resume=True)
    sft.train_sft(recipe, tmp_path / "killed", resume=True)
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    steps = [
        [(row["stage"], row["step"]) for row in metrics(tmp_path / name)] for name in ("whole", "killed")
    ]
    assert steps[0] == steps[1]
    assert whole.keys() == resumed.keys()
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(ConfigError, match="being written"):
        sft.train_sft(SftRecipe(**tiny_recipe()), tmp_path)
    with pytest.raises(MissingError, match="no run to resume"):
        sft.train_sft(SftRecipe(**tiny_recipe()), tmp_path / "mistyped", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_resuming_a_finished_run_writes_the_trained_weights_again(tmp_path: Path) -> None:
    recipe = SftRecipe(**tiny_recipe(steps=2))
    sft.train_sft(recipe, tmp_path)
    trained = weights(tmp_path)
    # As if the process had died while it put the new checkpoint in the old one's place, before the export.
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    shutil.rmtree(tmp_path / "model")
    sft.train_sft(recipe, tmp_path, resume=True)
    assert all(torch.equal(value, trained[key]) for key, value in weights(tmp_path).items())


def test_a_half_replaced_checkpoint_resumes_to_the_same_weights(tmp_path: Path) -> None:
    recipe = SftRecipe(**tiny_recipe(steps=12))
    sft.train_sft(recipe, tmp_path / "whole")
    # The run as it stands after step 10 and the rename of its only checkpoint.
    cut = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "save_checkpoint", _stop_after(sft.save_checkpoint))
        with pytest.raises(KeyboardInterrupt):
            sft.train_sft(recipe, cut)
    (cut / "checkpoint").rename(cut / "checkpoint.old")
    sft.train_sft(recipe, cut, resume=True)
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(value, whole[key]) for key, value in weights(cut).items())


def _stop_after(save: Any) -> Any:
    def saves_once(folder: Path, loaded: Any, optimizers: Any, progress: Any) -> None:
        save(folder, loaded, optimizers, progress)
        if progress.step == 10:
            raise KeyboardInterrupt

    return saves_once


def test_same_seed_same_numbers_other_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        sft.train_sft(SftRecipe(**(tiny_recipe(steps=2) | {"seed": seed})), tmp_path / name)
    one, same, other = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert any(not torch.equal(value, other[key]) for key, value in one.items())


def test_one_batch_of_eight_is_eight_of_one(tmp_path: Path) -> None:
    for name, micro in (("whole", None), ("cut", 1)):
        recipe = tiny_recipe(steps=1, batch=8, micro_batch=micro, readout_weight=0.0, optimizer="adamw")
        sft.train_sft(SftRecipe(**recipe), tmp_path / name)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    for key, value in whole.items():
        torch.testing.assert_close(value, cut[key], atol=2e-3, rtol=0, msg=key)
    first, second = (load_gradient_norm(tmp_path / name) for name in ("whole", "cut"))
    assert first == pytest.approx(second, rel=1e-3)


def load_gradient_norm(folder: Path) -> float:
    state = load_file(folder / "checkpoint" / "optimizer.safetensors")
    moments = [value for key, value in state.items() if key.endswith("exp_avg")]
    return float(torch.cat([value.flatten() for value in moments]).norm())


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_a_foreign_checkpoint_learns_recorded_trajectories(tmp_path: Path, family: str) -> None:
    (video,) = make_videos(tmp_path, seed=3, num_videos=1, settings=ScriptSettings(60, 61))
    examples = [example.model_copy(update={"video": str(video.path)}) for example in video.examples]
    policy = TeacherPolicy({example.id: (video.script, example) for example in examples})
    settings = make_settings(
        {
            "skim_frames": 4,
            "crop_max_frames": 4,
            "frame_size_wh": [64, 64] if family == "qwen3_vl" else [56, 56],
        }
    )
    run = create_run(tmp_path / "teacher", {"command": "test"})
    for trajectory in play(examples, policy, PROTOCOLS["videotemp"], settings, seed=0):
        run.append(trajectory)
    with run.trajectories_path.open("ab") as file:
        file.write(b'{"torn')
    tiny_checkpoint(tmp_path / "tiny", family)
    stage = {
        "name": "sft", "kind": "trajectories", "path": str(tmp_path / "teacher"), "steps": 20, "batch": 2, "lr": 3e-3,
        "mask": "last_two_turns", "micro_batch": 1,
    }  # fmt: skip
    recipe = {"model": {"checkpoint": str(tmp_path / "tiny"), "device": "cpu"}, "stages": [stage]}
    sft.train_sft(SftRecipe(**recipe), tmp_path / "run")
    rows = metrics(tmp_path / "run")
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    assert load_model(tmp_path / "run" / "model", device="cpu").layout.family == family


def test_what_a_machines_fault_ended_is_not_learnt_and_is_counted(tmp_path: Path) -> None:
    dead = Generation(text="", finish="error", error="the server is gone")
    replies = {"good": ["<think>.</think><answer>B</answer>"], "dead": [dead]}
    examples = [Example(id=name, video="none.mp4", question="Which?", options=("x", "y")) for name in replies]
    settings = make_settings({"question_only": True})
    policy = ScriptedPolicy.from_replies(replies)
    run = create_run(tmp_path / "run", {"command": "test"})
    for trajectory in play(examples, policy, PROTOCOLS["videotemp"], settings, seed=0):
        run.append(trajectory)
    with pytest.warns(UserWarning, match="1 of 2"):
        kept = sft._recorded(run.path)
    assert [one.example.id for one in kept] == ["good"]
    run.trajectories_path.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="among the 0"):
        sft._recorded(run.path)


def test_a_wrong_recipe_leaves_no_run_behind(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=2)
    wrong = recipe | {"model": {"checkpoint": str(tmp_path / "nowhere")}}
    with pytest.raises(MissingError, match="nowhere"):
        sft.train_sft(SftRecipe(**wrong), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"leter_right.*letter_right"):
        sft.train_sft(SftRecipe(**tiny_recipe(stop_when={"leter_right": 0.9})), tmp_path / "run")
    sft.train_sft(SftRecipe(**recipe), tmp_path / "run")


def test_a_stage_ends_when_its_gate_is_reached(tmp_path: Path) -> None:
    sft.train_sft(SftRecipe(**tiny_recipe(steps=30, stop_when={"first_word_right": 0.0})), tmp_path / "run")
    assert metrics(tmp_path / "run")[-1]["step"] == 10


def test_figures_of_a_cut_batch_are_means_over_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([1.0, 0.0, 1.0, 1.0])
    monkeypatch.setattr(sft, "_gates", lambda *arguments: {"letter_right": next(shares)})
    recipe = SftRecipe(**tiny_recipe(batch=4, micro_batch=1))
    loaded = sft._load(recipe, tmp_path)
    update = sft._RowUpdate(recipe.stages[1], loaded, tmp_path, seed=0)  # type: ignore[arg-type]
    _, figures = update(recipe.stages[1], loaded, 0)
    assert figures["letter_right"] == 0.75


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process"):
        sft.train_sft(SftRecipe.model_validate(tiny_recipe()), tmp_path)
    assert not list(tmp_path.iterdir())
