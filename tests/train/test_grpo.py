"""Reinforcement learning on real episodes of the small model: the same numbers however a batch is cut or a run ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.train.ranks import train_in_two
from timeloupe.cli.main import main
from timeloupe.data.build.ledger import write_products
from timeloupe.data.build.record import BuiltRow
from timeloupe.environment.settings import make_settings
from timeloupe.errors import ConfigError, MissingError, TimeloupeError
from timeloupe.model.expand import expand
from timeloupe.model.forward import target_logprobs
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.base import Context
from timeloupe.reward.compose import load_reward
from timeloupe.runs import lock_run
from timeloupe.train.batch import Sample, make_samples, token_episode
from timeloupe.train.grpo import _examples as examples_of
from timeloupe.train.grpo import members, roll_out, score_all, train_grpo
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.parallel import Parallel
from timeloupe.train.update import update
from timeloupe.trajectory import Problem, StopReason, Trajectory, read_examples
from timeloupe.video.cache import FrameCache


def recipe(world: Path, **changes: Any) -> GrpoRecipe:
    """A run of a few steps over two short videos."""
    values: dict[str, Any] = {
        "model": {"checkpoint": str(SMALL_CHECKPOINT), "device": "cpu"},
        "data": {"examples": [str(world / "examples.jsonl")]},
        # Hot enough that the members of a group differ.
        "episode": {"temperature": 2.0},
        "steps": 3, "prompts": 2, "group": 4, "lr": 1e-3, "micro_batch": 4, "checkpoint_every": 1,
    }  # fmt: skip
    return GrpoRecipe.model_validate(values | changes)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of three minutes with a question of each kind."""
    folder = tmp_path_factory.mktemp("world")
    assert main(["world", "make", str(folder), "--seed", "5", "--videos", "2", "--minutes", "3"]) == 0
    return folder


@pytest.fixture(scope="module")
def played(world: Path) -> tuple[LoadedModel, list[Trajectory], FrameCache]:
    """The roll-outs of one step."""
    chosen = recipe(world, prompts=4)
    loaded = load_model(SMALL_CHECKPOINT, device="cpu")
    cache = FrameCache(1 << 28)
    details = loaded.layout.details
    settings = make_settings(details["episode"], {"temperature": 2.0})
    examples = list(read_examples(world / "examples.jsonl"))
    found = roll_out(
        chosen,
        members(chosen, examples, 0),
        0,
        LocalPolicy(loaded),
        PROTOCOLS[details["protocol"]],
        settings,
        cache,
    )
    return loaded, score_all(found, load_reward("videotemp_paper"), [Context()] * len(found)), cache


def test_the_rows_that_a_build_hands_on_are_the_ones_to_learn_from(world: Path, tmp_path: Path) -> None:
    examples = list(read_examples(world / "examples.jsonl"))
    built = [
        BuiltRow(stage="difficulty", id=one.id, example=one, kept=True, reason="kept", labeller="small")
        for one in examples[1:]
    ]
    write_products(tmp_path, {"difficulty": built})
    chosen = recipe(tmp_path)
    assert examples_of(chosen, load_reward("videotemp_paper"), tmp_path) == examples[1:]


def rewards_of(trajectories: list[Trajectory]) -> list[float | None]:
    """Totals."""
    return [one.score.parts["reward"] for one in trajectories]


def test_the_trainer_computes_the_log_probabilities_that_were_sampled(played: Any) -> None:
    loaded, trajectories, cache = played
    assert any(len(one.turns) > 1 for one in trajectories)
    batch = expand([token_episode(one, loaded, cache) for one in trajectories], loaded.layout)
    with torch.no_grad():
        forced = target_logprobs(loaded.model, batch)
    assert batch.logprobs_BT is not None
    assert int(batch.loss_mask_BT.sum()) == sum(
        len(turn.generation.token_ids or ()) for one in trajectories for turn in one.turns
    )
    assert (forced - batch.logprobs_BT).abs().max() < 1e-4


def test_only_sampled_tokens_are_learnt_and_only_the_last_turns_if_asked(played: Any) -> None:
    loaded, trajectories, cache = played
    for one in trajectories:
        whole, last = (token_episode(one, loaded, cache, learn) for learn in ("all_turns", "last_turn"))
        learnt = [segment.token_ids for segment in whole.segments if segment.trained]
        assert learnt == [turn.generation.token_ids for turn in one.turns]
        assert [segment.token_ids for segment in last.segments if segment.trained] == learnt[-1:]


def test_an_unscored_episode_is_left_out(played: Any) -> None:
    loaded, trajectories, cache = played
    broken = trajectories[0].model_copy(
        update={"stop": StopReason.INFRASTRUCTURE, "problem": Problem(reason="policy", message="no")}
    )
    scored = score_all([broken, *trajectories[1:4]], load_reward("videotemp_paper"), [Context()] * 4)
    rewards = rewards_of(scored)
    assert rewards[0] is None
    samples = make_samples(scored, rewards, loaded, cache)
    others = make_samples(scored[1:], rewards[1:], loaded, cache)
    assert [one.advantage for one in samples] == [one.advantage for one in others] and len(samples) == 3


def after_update(world: Path, samples: list[Sample], **changes: Any) -> tuple[dict[str, float], torch.Tensor]:
    """Figures of one update of a fresh model, and all its weights."""
    loaded = load_model(SMALL_CHECKPOINT, device="cpu")
    chosen = recipe(world, **changes)
    optimizers = [torch.optim.SGD(loaded.model.parameters(), lr=0.1)]
    figures = update(samples, loaded, None, optimizers, chosen, Parallel())
    return figures, torch.cat([weight.detach().flatten() for weight in loaded.model.parameters()])


@pytest.mark.parametrize("importance", ["token", "sequence"])
@pytest.mark.parametrize("aggregate", ["token_mean", "sequence_mean", "sequence_sum"])
def test_one_batch_of_eight_equals_eight_of_one(
    world: Path, played: Any, importance: str, aggregate: str
) -> None:
    loaded, trajectories, cache = played
    samples = make_samples(trajectories[:8], rewards_of(trajectories[:8]), loaded, cache)
    assert any(one.advantage for one in samples)
    loss = {"importance": importance, "aggregate": aggregate}
    whole, weights = after_update(world, samples, micro_batch=8, loss=loss)
    parts, others = after_update(world, samples, micro_batch=1, loss=loss)
    assert whole["norm"] > 0 and "kl" not in whole  # there is no reference: nothing was measured
    assert whole == {name: pytest.approx(value, rel=1e-3, abs=1e-5) for name, value in parts.items()}
    assert (weights - others).abs().max() < 1e-5


def test_nothing_to_learn_leaves_the_weights(world: Path, played: Any) -> None:
    loaded, trajectories, cache = played
    samples = make_samples(trajectories[:4], [1.0] * 4, loaded, cache)
    figures, weights = after_update(world, samples)
    before = torch.cat(
        [weight.detach().flatten() for weight in load_model(SMALL_CHECKPOINT).model.parameters()]
    )
    assert figures == {} and torch.equal(weights, before)


def test_a_gradient_that_is_no_number_ends_the_run_before_it_reaches_the_weights(
    world: Path, played: Any
) -> None:
    loaded, trajectories, cache = played
    samples = make_samples(trajectories[:4], [0.0, 1.0, 0.0, 1.0], loaded, cache)
    broken = [replace(one, advantage=float("inf")) for one in samples]
    fresh = load_model(SMALL_CHECKPOINT, device="cpu")
    optimizers = [torch.optim.SGD(fresh.model.parameters(), lr=0.1)]
    with pytest.raises(TimeloupeError, match=r"gradient of an update is no number.*lower lr"):
        update(broken, fresh, None, optimizers, recipe(world), Parallel())
    assert all(bool(weight.isfinite().all()) for weight in fresh.model.parameters())


def test_a_run_that_was_cut_off_goes_on_to_the_same_numbers(world: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    chosen = recipe(world, loss={"kl_weight": 0.04}, updates=2)
    train_grpo(chosen, whole)

    class Killed(Exception):
        pass

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 1:  # its line is written, its checkpoint is not
            raise Killed

    with pytest.raises(Killed):
        train_grpo(chosen, cut, on_log=kill)
    with pytest.raises(ConfigError, match="already holds a run"):
        train_grpo(chosen, cut)
    with pytest.raises(ConfigError, match="another recipe"):
        train_grpo(recipe(world, seed=9), cut, resume=True)
    train_grpo(chosen, cut, resume=True)

    def figures(folder: Path) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        # How long it took, and what was decoded rather than remembered, is not the run's doing.
        return [{k: v for k, v in row.items() if "second" not in k and "frames" not in k} for row in rows]

    assert figures(cut) == figures(whole) and len(figures(whole)) == 3
    assert len((cut / "trajectories.jsonl").read_text().splitlines()) == 3 * 2 * 4
    ones, twos = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(ones[name], twos[name]) for name in ones)
    start = load_file(SMALL_CHECKPOINT / "model.safetensors")
    assert any(not torch.equal(ones[name], start[name]) for name in ones)


def test_tasks_that_the_reward_does_not_know_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no example to learn from"):
        train_grpo(
            recipe(world, data={"examples": [str(world / "examples.jsonl")], "tasks": ["open"]}), tmp_path
        )


def test_videos_that_are_not_there_are_counted_before_anything_is_trained(
    world: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (world / "examples.jsonl").read_text().splitlines()]
    for row in rows:
        row["video"] = str(world / row["video"])
    gone = [row | {"id": row["id"] + "-gone", "video": f"{row['id']}.mp4"} for row in rows[:1]]
    path = tmp_path / "half.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + gone), encoding="utf-8")
    with pytest.raises(
        MissingError, match=rf"^1 of 3 videos are not there, such as '.*\.mp4'.*{path}"
    ) as said:
        train_grpo(recipe(world, data={"examples": [str(path)]}), tmp_path / "run")
    assert f"data check {path} --videos {tmp_path}" in str(said.value)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_was_refused_may_be_mended_in_the_same_folder(world: Path, tmp_path: Path) -> None:
    data = {"examples": [str(world / "examples.jsonl")]}
    with pytest.raises(ConfigError, match="no example to learn from"):
        train_grpo(recipe(world, data=data | {"tasks": ["open"]}), tmp_path)
    assert not (tmp_path / "recipe.json").exists()
    train_grpo(recipe(world, steps=1, prompts=1, group=2, episode={"max_new_tokens": 4}), tmp_path)
    assert len(lines(tmp_path)) == 1


def test_an_update_has_the_memory_of_the_roll_outs(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policies: list[LocalPolicy] = []
    given_back: list[int] = []
    held: list[int] = []

    class Watched(LocalPolicy):
        def forget(self) -> None:
            given_back.append(self.memory.num_bytes)
            super().forget()

    def make(loaded: LoadedModel, part: Any) -> LocalPolicy:
        policies.append(Watched(loaded))
        return policies[-1]

    def spied(*arguments: Any) -> Any:
        held.append(policies[0].memory.num_bytes)
        return update(*arguments)

    monkeypatch.setattr("timeloupe.train.grpo.update", spied)
    short = {"steps": 2, "group": 2, "episode": {"temperature": 2.0, "max_new_tokens": 40}}
    train_grpo(recipe(world, **short), tmp_path, make_policy=make)
    assert len(given_back) == 2 and min(given_back) > 0
    assert held == [0, 0]


def test_two_runs_do_not_write_into_one_folder(world: Path, tmp_path: Path) -> None:
    with lock_run(tmp_path):  # as another process would
        with pytest.raises(ConfigError, match="being written"):
            train_grpo(recipe(world), tmp_path)
        with pytest.raises(ConfigError, match="being written"):
            train_grpo(recipe(world), tmp_path, resume=True)

    def other(row: dict[str, Any]) -> None:  # while one trains, a second starts
        with pytest.raises(ConfigError, match="being written"):
            train_grpo(recipe(world), tmp_path, resume=True)

    small = {"steps": 1, "prompts": 1, "group": 2, "episode": {"max_new_tokens": 4}}
    train_grpo(recipe(world, **small), tmp_path, on_log=other)
    assert len(lines(tmp_path)) == 1 and not (tmp_path / ".lock").exists()


def test_a_run_that_is_not_there_leaves_no_folder(world: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no run to resume"):
        train_grpo(recipe(world), tmp_path / "mistyped", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_shared_world_of_other_settings_is_left_as_it_is(world: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (world / "videos").iterdir()}
    other = {"world": {"seed": 6, "num_videos": 2, "max_seconds": 181, "folder": str(world)}}
    with pytest.raises(ConfigError, match="lists other examples"):
        train_grpo(recipe(world, data=other), tmp_path)
    assert before == {path: path.read_bytes() for path in (world / "videos").iterdir()}


def test_a_world_is_told_of_while_it_is_made(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done == total:
            raise KeyboardInterrupt

    data = {"world": {"seed": 6, "num_videos": 2, "min_seconds": 40, "max_seconds": 41}}
    with pytest.raises(KeyboardInterrupt):
        train_grpo(recipe(tmp_path, data=data), tmp_path / "run", on_video=stop)
    assert told == [(0, 2), (1, 2), (2, 2)] and not (tmp_path / "run" / "recipe.json").exists()


def test_a_run_that_cannot_be_scored_ends(world: Path, tmp_path: Path) -> None:
    reward = tmp_path / "judged.toml"
    reward.write_text(
        'title = "A judge that training does not have"\nsource = "this test"\nprotocol = "small"\ntools = true\n'
        'tasks = ["multiple_choice"]\n[[parts]]\n'
        'part = "accuracy.judged"\nname = "judged"\n'
    )
    data = {"examples": [str(world / "examples.jsonl")]}
    chosen = recipe(world, reward=str(reward), data=data, prompts=1, group=2, episode={"max_new_tokens": 4})
    with pytest.raises(TimeloupeError, match="no roll-out of two steps in a row has a reward.*judge"):
        train_grpo(chosen, tmp_path / "run")
    assert [row["scored"] for row in lines(tmp_path / "run")] == [0]


def test_the_command_trains_and_its_model_answers(world: Path, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "recipe.toml"
    text = f'steps = 1\nprompts = 1\ngroup = 2\nlr = 1e-4\n[model]\ncheckpoint = "{SMALL_CHECKPOINT}"\ndevice = "cpu"\n'
    path.write_text(text + f'[data]\nexamples = ["{world}/examples.jsonl"]\n', encoding="utf-8")
    assert main(["train", "grpo", str(path), "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr()
    assert out.out.strip() == str(tmp_path / "run" / "model") and "reward" in out.err
    assert load_model(tmp_path / "run" / "model", device="cpu").layout.details["protocol"]
    assert main(["train", "grpo", str(path), "--set", "group=1", "--dry-run"]) == 2
    assert "greater than or equal to 2" in capsys.readouterr().err


def test_two_processes_train_as_one(world: Path, tmp_path: Path) -> None:
    text = (
        f"steps = 2\nprompts = 3\ngroup = 4\nlr = 1e-3\n[episode]\ntemperature = 2.0\n[model]\n"
        f'checkpoint = "{SMALL_CHECKPOINT}"\ndevice = "cpu"\n[data]\nexamples = ["{world}/examples.jsonl"]\n'
        "[loss]\nkl_weight = 0.04\n"
    )
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    assert main(["train", "grpo", str(path), "--out", str(tmp_path / "one")]) == 0
    two = tmp_path / "two"
    train_in_two("grpo", path, "--out", two)
    for mine, theirs in zip(lines(tmp_path / "one"), lines(two), strict=True):
        for name, value in mine.items():
            if "second" not in name and "frames" not in name:
                assert theirs[name] == pytest.approx(value, abs=2e-4), name
    ones, twos = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "one", two))
    assert max(float((ones[name] - twos[name]).abs().max()) for name in ones) < 1e-4
    assert len((two / "trajectories.jsonl").read_text().splitlines()) == 2 * 3 * 4


def lines(folder: Path) -> list[dict[str, Any]]:
    """The steps of a run."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
