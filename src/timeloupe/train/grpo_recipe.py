"""What a recipe of reinforcement learning may say. Recipes are TOML files under ``recipes/grpo``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from timeloupe.reward.taro_sensitivity import OPENING, RADIUS_SECONDS
from timeloupe.train.advantage import OffPolicy, Scale
from timeloupe.train.optimizer import OptimizerName
from timeloupe.train.policy_loss import Aggregate, Importance
from timeloupe.train.recipe import ModelPart, RecipePart, Seed
from timeloupe.train.rollout_part import RolloutPart
from timeloupe.train.trackers import TrackerName
from timeloupe.trajectory import Task
from timeloupe.world.script import ScriptSettings, training_seed


def refuse_idle(part: RecipePart, names: Sequence[str], why: str) -> None:
    """Do nothing unless one of these options of a recipe was changed, although nothing reads it.

    Raises:
        ValueError: One was.
    """
    for name in names:
        value = getattr(part, name)
        if value != type(part).model_fields[name].default:
            raise ValueError(f"{name} = {value!r} does nothing here: {why}; leave it out")


class WorldData(RecipePart):
    """Questions about world videos, made as MP4 on first use.

    Attributes:
        seed: Root seed of the videos; evaluation seeds are refused.
        num_videos: How many.
        per_task: Questions of each task per video.
        min_seconds: Shortest video.
        max_seconds: Longest video.
        num_scenes: Scenes per video; with fewer, an event fills more frames of a skim.
        return_rate: How often a shape returns in another scene (``ScriptSettings.return_rate``).
        folder: Where they lie; runs may share it. ``None`` = in the run folder.
    """

    seed: int
    num_videos: int = Field(default=48, gt=0)
    per_task: int = Field(default=1, gt=0)
    min_seconds: float = Field(default=180.0, gt=0)
    max_seconds: float = Field(default=2400.0, gt=0)
    num_scenes: int = Field(default=4, gt=0)
    return_rate: float = Field(default=0.0, ge=0, le=1)
    folder: str | None = None

    @field_validator("seed")
    @classmethod
    def _not_evaluation(cls, seed: int) -> int:
        return training_seed(seed)

    def plan(self, tasks: Sequence[Task]) -> dict[str, Any]:
        """Return what ``world.encode`` makes or plans its videos by, but for their folder."""
        settings = ScriptSettings(
            min_seconds=self.min_seconds, max_seconds=self.max_seconds, num_scenes=self.num_scenes,
            return_rate=self.return_rate,
        )  # fmt: skip
        return {
            "seed": self.seed, "num_videos": self.num_videos, "settings": settings, "tasks": list(tasks),
            "per_task": self.per_task,
        }  # fmt: skip


class DataPart(RecipePart):
    """What is asked.

    Attributes:
        examples: JSONL files of ``Example`` rows.
        world: Questions of the world instead.
        tasks: Only rows of these tasks; for the world, the tasks that are made.
    """

    examples: tuple[str, ...] = ()
    world: WorldData | None = None
    tasks: tuple[Task, ...] = ("grounding", "multiple_choice")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.examples) == (self.world is not None):
            raise ValueError("data needs exactly one of examples and world")
        if not self.tasks:
            raise ValueError("data needs at least one task")
        return self


class LossPart(RecipePart):
    """The loss; see ``train.policy_loss.LossSettings``."""

    importance: Importance = "token"
    aggregate: Aggregate = "sequence_mean"
    clip_low: float = Field(default=0.2, ge=0, le=1)
    clip_high: float = Field(default=0.2, ge=0)
    dual_clip: float | None = Field(default=None, gt=1)
    kl_weight: float = Field(default=0.0, ge=0)
    kl_log_ratio_bound: float = Field(default=20.0, gt=0)
    kl_bound: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _read(self) -> Self:
        if not self.kl_weight:
            refuse_idle(self, ("kl_bound", "kl_log_ratio_bound"), "kl_weight is 0")
        return self


class ExplorationPart(RecipePart):
    """TaRO's constructive exploration: roll-outs whose thought begins with captions (``train.exploration``).

    Attributes:
        captions: JSONL file of captions; needed unless the data is the world, which has its own.
        until: Share of the run's steps that is the warm-up, from its start.
        epochs: The warm-up in passes over the examples instead.
        probability: Of a roll-out to be constructed while the warm-up lasts.
        linear: The probability falls linearly to 0 over the warm-up.
        opening: Line before the captions, ``{query}`` stands for the question; empty = none.
        weights: What a constructed roll-out weighs, see ``train.advantage.OffPolicy``.
        beta: Temperature of the weights ``awr``.
    """

    captions: str | None = None
    until: float = Field(default=1 / 3, gt=0, le=1)
    epochs: float | None = Field(default=None, gt=0)
    probability: float = Field(default=1.0, gt=0, le=1)
    linear: bool = False
    opening: str = OPENING
    weights: OffPolicy = "mask"
    beta: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.weights != "awr":
            refuse_idle(self, ("beta",), f"weights are {self.weights!r}, only 'awr' has a temperature")
        if self.epochs is not None:
            refuse_idle(self, ("until",), "epochs says how long the warm-up lasts")
        return self


class SensitivityPart(RecipePart):
    """TaRO's temporal sensitivity, given to the reward (``train.sensitivity``).

    Attributes:
        radius_seconds: Frames at most so far from a true boundary are mixed.
        span: Tokens that are compared: those of the ``thought`` (the paper), or all of the ``response`` (the release).
        threshold: What the drop of a roll-out is compared with, nats per token; ``None`` = the mean of its group.
        shared_by_group: Every roll-out has the drop of the last of its group, as in the release by mistake.
    """

    radius_seconds: float = Field(default=RADIUS_SECONDS, gt=0)
    span: Literal["thought", "response"] = "thought"
    threshold: float | None = None
    shared_by_group: bool = False


class DifficultyPart(RecipePart):
    """Weights of the advantages that fall with the share of a group that solved the example, in the spirit of VITAL.

    Attributes:
        solved: Reward from which a roll-out counts as right.
        least: Weight of an example that every roll-out solves.
    """

    solved: float
    least: float = Field(default=0.1, ge=0, le=1)


class GrpoRecipe(RecipePart):
    """A whole run.

    Attributes:
        seed: Root of everything that is drawn.
        model: The checkpoint to start from, which is also the reference of the KL term.
        data: What is asked.
        reward: A preset's name, or the path of a composite (``timeloupe reward list``).
        protocol: How the model is spoken to; default: the one that its checkpoint names.
        episode: Changes to the episode settings of the checkpoint. Roll-outs are sampled at temperature 1 unless this
            says otherwise.
        steps: Batches of roll-outs.
        prompts: Examples per batch.
        group: Roll-outs per example, >= 2.
        updates: Passes over a batch, each one optimizer step; from the second on the ratio to the sampling policy is
            no longer 1.
        micro_batch: Roll-outs per forward pass of an update; the gradients add up to the same.
        learn: ``all_turns`` = every sampled token; ``last_turn`` = those of the last turn.
        scale: How rewards of a group are compared.
        epsilon: Added to their standard deviation.
        rollout: Who plays the roll-outs.
        loss: The loss.
        exploration: Roll-outs whose thought was begun for the policy; ``None`` = it always speaks for itself.
        sensitivity: Measure how much replies depend on the frames around the true boundaries; ``None`` = do not.
        difficulty: Weigh examples by how many of their roll-outs solve them; ``None`` = all alike.
        lr: Peak learning rate.
        optimizer: ``adamw`` or ``muon``.
        warmup: Share of the steps over which the rate rises.
        decay: Share of the steps, at the end, over which it falls to 0.
        weight_decay: Of AdamW.
        clip_norm: Gradient norm limit.
        checkpoint_every: Steps between checkpoints.
        keep_rollouts: Write every roll-out to trajectories.jsonl of the run.
        trackers: Where the figures of metrics.jsonl are shown besides (``train.trackers``).
    """

    seed: Seed = 0
    model: ModelPart
    data: DataPart
    reward: str = "videotemp_paper"
    protocol: str | None = None
    episode: dict[str, Any] = {}
    steps: int = Field(gt=0)
    prompts: int = Field(default=9, gt=0)
    group: int = Field(default=8, ge=2)
    updates: int = Field(default=1, ge=1)
    micro_batch: int = Field(default=8, gt=0)
    learn: Literal["all_turns", "last_turn"] = "all_turns"
    scale: Scale = "std"
    epsilon: float = Field(1e-4, ge=0, le=1)
    rollout: RolloutPart = RolloutPart()
    loss: LossPart = LossPart()
    exploration: ExplorationPart | None = None
    sensitivity: SensitivityPart | None = None
    difficulty: DifficultyPart | None = None
    lr: float = Field(gt=0)
    optimizer: OptimizerName = "adamw"
    warmup: float = Field(default=0.03, ge=0, le=1)
    decay: float = Field(default=0.0, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    checkpoint_every: int = Field(default=50, gt=0)
    keep_rollouts: bool = True
    trackers: tuple[TrackerName, ...] = ()

    @model_validator(mode="after")
    def _starts_somewhere(self) -> Self:
        if self.model.checkpoint is None:
            raise ValueError("model needs a checkpoint: reinforcement learning starts from a trained model")
        if self.model.new_tokens:
            raise ValueError("model.new_tokens must be taught first: name them in the recipe of `train sft`")
        if self.model.lora is not None and self.model.lora.dropout:
            raise ValueError(
                "model.lora.dropout must be 0: the network that is updated is the one that sampled"
            )
        return self

    @model_validator(mode="after")
    def _draws(self) -> Self:
        for name, value in self.episode.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"episode.{name} must be a finite number, got {value!r}")
        for name, greedy in (("temperature", 0), ("top_k", 1)):
            if self.episode.get(name) == greedy:
                raise ValueError(
                    f"episode.{name} = {self.episode[name]!r} makes all roll-outs of an example alike, which teaches "
                    "nothing: the policy must draw; leave it out for temperature 1"
                )
        return self

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.scale != "std":
            refuse_idle(self, ("epsilon",), f"scale is {self.scale!r}, only 'std' divides")
        return self

    @model_validator(mode="after")
    def _has_captions(self) -> Self:
        if self.exploration is not None and self.exploration.captions is None and self.data.world is None:
            raise ValueError("exploration needs captions: set exploration.captions to a JSONL file")
        return self
