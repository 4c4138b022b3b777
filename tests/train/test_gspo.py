"""GSPO and GRPO in the trainer: one update is the same for both, later ones are judged by what sampling stored."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from timeloupe.cli.main import main
from timeloupe.environment.settings import make_settings
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.base import Context
from timeloupe.train import grpo
from timeloupe.train.batch import Sample, make_samples
from timeloupe.train.grpo import members, roll_out, train_grpo
from timeloupe.train.grpo_log import step_figures
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.parallel import Parallel
from timeloupe.train.update import update
from timeloupe.trajectory import read_examples
from timeloupe.video.cache import FrameCache


def recipe(world: Path, **changes: Any) -> GrpoRecipe:
    """A run of a few steps over one short video."""
    values: dict[str, Any] = {
        "model": {"checkpoint": str(SMALL_CHECKPOINT), "device": "cpu"},
        "data": {"examples": [str(world / "examples.jsonl")], "tasks": ["grounding"]},
        "episode": {"temperature": 2.0, "tools": False},
        "steps": 3, "prompts": 1, "group": 4, "lr": 1e-3, "checkpoint_every": 3,
    }  # fmt: skip
    return GrpoRecipe.model_validate(values | changes)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of one minute."""
    folder = tmp_path_factory.mktemp("world")
    words = [
        "world",
        "make",
        str(folder),
        "--seed",
        "5",
        "--videos",
        "1",
        "--minutes",
        "1",
        "--tasks",
        "grounding",
    ]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def samples(world: Path) -> list[Sample]:
    """Roll-outs of one example with advantages of both signs."""
    loaded, chosen, cache = load_model(SMALL_CHECKPOINT, device="cpu"), recipe(world), FrameCache(1 << 26)
    settings = make_settings(loaded.layout.details["episode"], {"temperature": 2.0, "tools": False})
    drawn = members(chosen, list(read_examples(world / "examples.jsonl")), 0)
    played = roll_out(chosen, drawn, 0, LocalPolicy(loaded), PROTOCOLS["small"], settings, cache)
    return make_samples(played, [0.0, 1.0, 0.3, 0.6], loaded, cache)


def shifted(samples: list[Sample], nats: float) -> list[Sample]:
    """The same roll-outs as if a policy had sampled them that gave every token ``nats`` more."""
    found: list[Sample] = []
    for one in samples:
        segments = tuple(
            part
            if part.logprobs is None
            else replace(part, logprobs=tuple(value + nats for value in part.logprobs))
            for part in one.episode.segments
        )
        found.append(replace(one, episode=replace(one.episode, segments=segments)))
    return found


def after(
    samples: list[Sample], chosen: GrpoRecipe, passes: int = 1, lr: float = 0.1
) -> tuple[list[dict[str, float]], torch.Tensor]:
    """Figures of each pass over a batch, and how all weights of a fresh model have changed."""
    loaded: LoadedModel = load_model(SMALL_CHECKPOINT, device="cpu")
    before = torch.cat([weight.detach().flatten().clone() for weight in loaded.model.parameters()])
    optimizers = [torch.optim.SGD(loaded.model.parameters(), lr=lr)]
    figures = [update(samples, loaded, None, optimizers, chosen, Parallel()) for _ in range(passes)]
    return figures, torch.cat([weight.detach().flatten() for weight in loaded.model.parameters()]) - before


def test_with_one_update_gspo_is_grpo_up_to_rounding(world: Path, samples: list[Sample]) -> None:
    changes = []
    for importance in ("token", "sequence"):
        (figures,), change = after(samples, recipe(world, loss={"importance": importance}))
        assert figures["ratio"] == pytest.approx(1, abs=1e-5) and figures["ratio_distance"] < 1e-5
        assert figures["clip_share"] == 0
        changes.append(change)
    assert changes[0].norm() > 1e-3
    assert (changes[0] - changes[1]).norm() < 1e-4 * changes[0].norm()


@pytest.mark.parametrize("importance", ["token", "sequence"])
def test_the_ratio_is_to_what_was_stored_while_sampling(
    world: Path, samples: list[Sample], importance: str
) -> None:
    # As if the sampler had given every token 0.1 nats less: the ratio of all tokens, and so of replies, is exp(0.1).
    chosen = recipe(world, loss={"importance": importance, "clip_low": 0.05, "clip_high": 0.05})
    (figures,), change = after(shifted(samples, -0.1), chosen)
    assert figures["ratio"] == pytest.approx(math.exp(0.1), abs=1e-4)
    assert figures["ratio_distance"] == pytest.approx(math.exp(0.1) - 1, abs=1e-4)
    # Above the clip only what was better than its group stands still.
    tokens = sum(one.num_tokens for one in samples)
    better = sum(one.num_tokens for one in samples if one.advantage > 0)
    assert figures["clip_share"] == pytest.approx(better / tokens, abs=1e-6)
    (figures,), wide = after(shifted(samples, -0.1), recipe(world, loss={"importance": importance}))
    assert figures["clip_share"] == 0 and (change - wide).norm() > 1e-3 * wide.norm()


def test_later_updates_stray_and_a_narrow_clip_stops_them(world: Path, samples: list[Sample]) -> None:
    narrow = {"importance": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}
    free, far = after(samples, recipe(world, loss={"importance": "sequence"}), passes=3, lr=0.005)
    kept, near = after(samples, recipe(world, loss=narrow), passes=3, lr=0.005)
    assert free[0] == pytest.approx(kept[0], abs=1e-5) and free[0]["ratio_distance"] < 1e-5
    assert 4e-4 < free[1]["ratio_distance"] < free[2]["ratio_distance"]
    assert free[2]["clip_share"] == 0 < kept[1]["clip_share"]
    assert near.norm() < far.norm()


def test_a_step_logs_clipping_and_ratio_of_every_update() -> None:
    passes = [{"clip_share": 0.0, "ratio_distance": 0.0}, {"clip_share": 0.5, "ratio_distance": 0.02}]
    figures = step_figures([], [], passes)
    assert figures["clip_share"] == 0.25 and figures["clip_share/1"] == 0 and figures["clip_share/2"] == 0.5
    assert figures["ratio_distance/2"] == 0.02
    assert not any("/" in name for name in step_figures([], [], passes[:1]))
    assert "clip_share" not in step_figures([], [], [{}, {}])


def test_rewards_are_told_how_much_is_done_and_how_long_a_step_is(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Context] = []
    real = grpo.score_all

    def score_all(trajectories: Any, reward: Any, contexts: Any) -> Any:
        seen.extend(contexts[:1])
        return real(trajectories, reward, contexts)

    monkeypatch.setattr(grpo, "score_all", score_all)
    train_grpo(recipe(world), tmp_path / "run")
    # Phases turn at what is done; Open-o3's schedule counts the step itself, (step + 1) / steps.
    assert [context.progress for context in seen] == pytest.approx([0, 1 / 3, 2 / 3])
    assert [context.progress + context.step for context in seen] == pytest.approx([1 / 3, 2 / 3, 1])
