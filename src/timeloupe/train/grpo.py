"""Reinforcement learning of a model that looks: roll-outs, rewards, advantages, update. Read it top to bottom.

One step draws some examples, plays each ``group`` times with the policy as it is, scores the episodes, compares every
one with the others of its example, and raises the probability of the tokens of those that did better. Everything that
is drawn derives from the recipe's seed and the step, so a run that was killed and resumed goes on to the same numbers.

Sources: GRPO, DeepSeekMath (arXiv 2402.03300); GSPO (arXiv 2507.18071); the multi-turn form of VideoTemp-o3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from timeloupe.environment.rollout import derive_seed, play
from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.errors import ConfigError, MissingError, TimeloupeError, boundary
from timeloupe.model.load import LoadedModel, check_device
from timeloupe.prompt.protocol import PROTOCOLS, Protocol
from timeloupe.reward.base import Context
from timeloupe.reward.compose import Reward, load_reward
from timeloupe.train.batch import make_samples
from timeloupe.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from timeloupe.train.exploration import make_explorer, thought_figures
from timeloupe.train.grpo_log import StepLog, phase_seconds, step_figures
from timeloupe.train.grpo_recipe import GrpoRecipe, WorldData
from timeloupe.train.old_log_probs import OldLogProbs
from timeloupe.train.optimizer import build_optimizers, schedule, set_learning_rate
from timeloupe.train.parallel import Parallel
from timeloupe.train.placement import place
from timeloupe.train.rollout_part import MakePolicy, RolloutPolicy, figures_of, forget_episodes, local_policy
from timeloupe.train.sensitivity import check_reward, drop_figures, step_drops
from timeloupe.train.sft import export
from timeloupe.train.trackers import Trackers, check_trackers
from timeloupe.train.training_run import begin_run, training_run
from timeloupe.train.update import update
from timeloupe.trajectory import Example, Task, Trajectory, read_examples
from timeloupe.video.cache import FrameCache
from timeloupe.world.encode import WorldVideo, make_videos, plan_videos, refuse_other_world, write_world
from timeloupe.world.script import generator

CACHE_BYTES = 1 << 30

Log = Callable[[dict[str, Any]], None]
OnVideo = Callable[[int, int], None]


def train_grpo(
    recipe: GrpoRecipe,
    folder: str | Path,
    *,
    resume: bool = False,
    on_log: Log | None = None,
    on_video: OnVideo | None = None,
    make_policy: MakePolicy = local_policy,
) -> Path:
    """Train as the recipe says and return the folder of the finished checkpoint (``folder/model``).

    ``folder`` gets recipe.json, environment.json, metrics.jsonl (a line per step), trajectories.jsonl (the roll-outs),
    and every ``checkpoint_every`` steps a checkpoint.

    Args:
        recipe: What to do.
        folder: Run folder.
        resume: Go on where the run in ``folder`` stopped.
        on_log: Called with every step's figures.
        on_video: Called with how many videos of the recipe's world are there, and how many there will be.
        make_policy: Makes the policy that plays; the default knows the backend ``local``.

    Raises:
        ConfigError: Another process writes ``folder``, or it holds another recipe's run, or any run and ``resume`` is
            false; the data has no row that the reward can score; there is no such device.
        RecordError: A file of the run to be resumed is damaged.
        OSError: A file cannot be written, as on a full disk.
        MissingError: Videos of the examples are not there.
        TimeloupeError: No roll-out of two steps in a row has a reward; a gradient is no number.
    """
    folder = Path(folder)
    check_device(recipe.model.device or "cpu")
    parallel = Parallel(recipe.model.device)
    check_trackers(recipe.trackers)
    with parallel.in_main(training_run(recipe, folder, resume=resume)) as progress:
        return _train(recipe, folder, progress.step, parallel, on_log, on_video, make_policy)


def _train(
    recipe: GrpoRecipe,
    folder: Path,
    progress: int,
    parallel: Parallel,
    on_log: Log | None,
    on_video: OnVideo | None,
    make_policy: MakePolicy,
) -> Path:
    """The run itself, from step ``progress`` on."""
    reward = load_reward(recipe.reward)
    check_reward(recipe, reward)
    placed = place(recipe, parallel)
    loaded, reference = placed.loaded, placed.reference
    protocol, settings = _speech(recipe, loaded)
    examples = parallel.from_main(lambda: _examples(recipe, reward, folder, on_video))
    explorer = make_explorer(recipe, examples, settings)
    optimizers = build_optimizers(loaded.model, recipe.optimizer, recipe.lr, recipe.weight_decay)
    if progress:
        load_checkpoint(folder, loaded, optimizers)
    torch.manual_seed(recipe.seed)
    policy = make_policy(placed.playing, recipe.rollout)
    cache = FrameCache(CACHE_BYTES)
    if parallel.is_main:
        begin_run(recipe, folder)
    trackers = Trackers(recipe.trackers, folder, recipe.model_dump(mode="json")) if parallel.is_main else None
    log = StepLog(folder, progress, on_log, trackers) if parallel.is_main else None
    lost = 0
    for step in range(progress, recipe.steps):
        rate = schedule(step, recipe.steps, warmup=recipe.warmup, decay=recipe.decay)
        set_learning_rate(optimizers, rate)
        began = time.perf_counter()
        mine = parallel.share(members(recipe, examples, step), lambda member: member[0].id)
        prefixes = explorer.prefixes(mine, step) if explorer else ()
        placed.refresh()
        trajectories = roll_out(recipe, mine, step, policy, protocol, settings, cache, prefixes)
        rolled = time.perf_counter()
        drops = step_drops(recipe, trajectories, placed.playing, cache, step)
        measured = time.perf_counter()
        trajectories = score_all(
            trajectories, reward,
            [one.context(progress=step / recipe.steps, step=1 / recipe.steps) for one in drops],
        )  # fmt: skip
        rewards = [one.score.parts.get("reward") for one in trajectories]
        samples = make_samples(
            trajectories, rewards, loaded, cache,
            learn=recipe.learn, scale=recipe.scale, epsilon=recipe.epsilon,
            exploration=recipe.exploration, difficulty=recipe.difficulty,
        )  # fmt: skip
        prepared = time.perf_counter()
        old = OldLogProbs(recipe.rollout)
        updates = [
            update(samples, loaded, reference, optimizers, recipe, parallel, old)
            for _ in range(recipe.updates)
        ]
        seen = figures_of(policy) | old.figures(parallel)
        everything = parallel.gather(trajectories)
        lost = _lost_steps(everything, lost)
        lengths = parallel.gather([one.num_tokens for one in samples])
        drops = parallel.gather(drops)
        if log is not None:
            figures = step_figures(everything, lengths, updates) | {"lr": rate * recipe.lr} | seen
            figures |= thought_figures(everything)
            if recipe.sensitivity is not None:
                figures |= drop_figures(drops) | {"sensitivity_seconds": measured - rolled}
            seconds = phase_seconds(figures, began, rolled, prepared, time.perf_counter())
            log(step, figures | seconds, everything if recipe.keep_rollouts else ())
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            save_checkpoint(folder, loaded, optimizers, Progress(0, step + 1), write=parallel.is_main)
    if trackers is not None:
        trackers.close()
    placed.refresh()
    placed.playing.model.eval()
    return parallel.from_main(lambda: export(placed.playing, folder / "model"))


Member = tuple[Example, int]
"""An example to be played, and which roll-out of it this is."""


def members(recipe: GrpoRecipe, examples: Sequence[Example], step: int) -> list[Member]:
    """Return what is played in one step, the members of a group side by side.

    Epoch after epoch in a fresh order: prompt number n of the run is example n mod N of epoch n div N. A batch may hold
    an example twice, at the end of an epoch: its roll-outs are then one larger group.
    """
    found: list[Member] = []
    counts: dict[str, int] = {}
    for number in range(step * recipe.prompts, (step + 1) * recipe.prompts):
        epoch, place = divmod(number, len(examples))
        order = generator("grpo-epoch", recipe.seed, epoch).permutation(len(examples))
        example = examples[int(order[place])]
        first = counts.get(example.id, 0)
        found += [(example, first + index) for index in range(recipe.group)]
        counts[example.id] = first + recipe.group
    return found


def roll_out(
    recipe: GrpoRecipe,
    chosen: Sequence[Member],
    step: int,
    policy: RolloutPolicy,
    protocol: Protocol,
    settings: EpisodeSettings,
    cache: FrameCache,
    prefixes: Sequence[str] = (),
) -> list[Trajectory]:
    """Return the roll-outs of some members of one step, in order; ``prefixes`` are how their replies begin.

    The policy keeps nothing of them: the next step's weights are others.
    """
    policy.loaded.model.eval()
    seed = derive_seed(recipe.seed, "grpo-step", 0, step)
    examples, indices = [example for example, _ in chosen], [index for _, index in chosen]
    found = play(
        examples, policy, protocol, settings, seed=seed, rollout_index=indices, cache=cache,
        reply_prefixes=prefixes,
    )  # fmt: skip
    forget_episodes(policy)
    return found


def score_all(
    trajectories: Sequence[Trajectory], reward: Reward, contexts: Sequence[Context]
) -> list[Trajectory]:
    """Return the roll-outs with their scores, each in its own context."""
    return [
        one.model_copy(update={"score": reward.score(one, context)})
        for one, context in zip(trajectories, contexts, strict=True)
    ]


def _lost_steps(trajectories: Sequence[Trajectory], before: int) -> int:
    """Return how many steps in a row have now had no reward at all, ``before`` without this one: 0 or 1.

    Raises:
        TimeloupeError: It is the second: going on would teach nothing.
    """
    if any(one.score.parts.get("reward") is not None for one in trajectories):
        return 0
    if not before:
        return 1
    first = trajectories[0]
    reasons = "; ".join(f"{name}: {reason}" for name, reason in first.score.reasons.items())
    problem = f" ({first.problem.message})" if first.problem is not None else ""
    raise TimeloupeError(
        f"no roll-out of two steps in a row has a reward, got {reasons}{problem}; choose a reward that can score these "
        "examples, or, if the machine failed, mend it and resume the run"
    )


def _speech(recipe: GrpoRecipe, loaded: LoadedModel) -> tuple[Protocol, EpisodeSettings]:
    """The protocol, and the settings of the checkpoint with the recipe's changes."""
    details = loaded.layout.details
    name = recipe.protocol or details.get("protocol")
    if name not in PROTOCOLS:
        raise boundary("protocol", name, PROTOCOLS, "set protocol in the recipe")
    multiple = {"size_multiple": loaded.layout.size_multiple}
    return PROTOCOLS[name], make_settings(
        multiple, {"temperature": 1.0}, details.get("episode", {}), {"temperature": 1.0}, recipe.episode
    )


def _examples(
    recipe: GrpoRecipe, reward: Reward, folder: Path, on_video: OnVideo | None = None
) -> list[Example]:
    """Return the questions that the recipe's tasks and the reward cover, ids unique."""
    data = recipe.data
    paths = [Path(path) for path in data.examples]
    if data.world is not None:
        paths = [_world(data.world, data.tasks, folder, on_video) / "examples.jsonl"]
    by_path = {
        path: [example for example in read_examples(path) if example.task in data.tasks] for path in paths
    }
    found = [example for path in paths for example in by_path[path]]
    kept = [example for example in found if example.task in reward.composite.tasks]
    if not kept:
        raise ConfigError(
            f"no example to learn from: {len(found)} of tasks {', '.join(data.tasks)}, and reward {reward.name!r} "
            f"scores {', '.join(reward.composite.tasks)}"
        )
    ids = [example.id for example in kept]
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise ConfigError(f"two examples have the id {twice!r}: the roll-outs of one id are one group")
    for path, rows in by_path.items():
        _refuse_missing(path, {row.video for row in rows if row.task in reward.composite.tasks})
    return kept


def _refuse_missing(path: Path, videos: Collection[str]) -> None:
    """Do nothing if all these videos of a file of examples are there.

    Raises:
        MissingError: Some are not: their roll-outs would have no reward, and a run would learn from the rest unasked.
    """
    gone = sorted(video for video in videos if not Path(video).exists())
    if gone:
        check = f"timeloupe data check {path} --videos {path.parent}"
        raise MissingError(
            f"{len(gone)} of {len(videos)} videos are not there, such as {', '.join(map(repr, gone[:3]))}; mend the "
            f"paths in {path}, or leave these rows out (`{check}` lists them)"
        )


def _world(world: WorldData, tasks: Sequence[Task], folder: Path, on_video: OnVideo | None) -> Path:
    """Return the folder of the world's videos and questions, made on first use."""
    where = Path(world.folder or folder / "world")
    # Before any video is made: those of another world in a shared folder have the same names.
    refuse_other_world(where, list(plan_videos(where, **world.plan(tasks))))
    made = make_videos(where, **world.plan(tasks))
    write_world(where, made if on_video is None else _told(made, world.num_videos, on_video))
    return where


def _told(videos: Iterator[WorldVideo], total: int, on_video: OnVideo) -> Iterator[WorldVideo]:
    on_video(0, total)
    for done, video in enumerate(videos, 1):
        on_video(done, total)
        yield video
