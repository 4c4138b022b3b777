"""What a training recipe may say. Recipes are TOML files under ``recipes/``; unknown keys are errors."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from timeloupe.train.masking import Mask
from timeloupe.train.optimizer import OptimizerName
from timeloupe.train.trackers import TrackerName
from timeloupe.train.world_rows import RowMix
from timeloupe.world.script import training_seed

Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
"""What torch's generator takes."""


class RecipePart(BaseModel):
    """Base of every part: frozen, no unknown keys, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class FromScratch(RecipePart):
    """Sizes of a small Qwen3-VL built from nothing; see ``train.from_scratch.SmallModelSize``."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    vision_hidden: int = 96
    vision_layers: int = 1
    frame_size: int = 32
    skim_frames: int = 16
    crop_frames: int = 12


class LoraPart(RecipePart):
    """Low-rank adapters: only they are trained, and the finished checkpoint has them merged (``train.lora``).

    Attributes:
        rank: Of each adapter.
        alpha: Its output is scaled by alpha / rank.
        dropout: Of an adapter's input, in supervised training only.
        target_modules: Last names of the linear layers that get one.
    """

    rank: int = Field(default=16, gt=0)
    alpha: int = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )


class ModelPart(RecipePart):
    """Where the model comes from: a checkpoint folder (or hub id), or sizes.

    Attributes:
        checkpoint: Folder or hub id.
        from_scratch: Sizes of a model to be built.
        device: ``cpu`` or ``cuda``; default: ``cuda`` if there is one and the model is a checkpoint.
        dtype: Precision of the weights that the optimizer updates. In bfloat16 an update at 1e-5 is rounded away, so
            the default is float32; on a GPU the forward pass runs under bfloat16 autocast all the same.
        freeze_vision: Leave the vision tower as it is, but for alignment stages.
        gradient_checkpointing: Recompute activations in the backward pass: less memory, more time.
        new_tokens: Text that becomes one token each before a supervised training begins (``train.new_tokens``).
        lora: Train low-rank adapters instead of the weights; they are float32 whatever ``dtype`` is.
    """

    checkpoint: str | None = None
    from_scratch: FromScratch | None = None
    device: str | None = None
    dtype: str = "float32"
    freeze_vision: bool = True
    gradient_checkpointing: bool = False
    new_tokens: tuple[str, ...] = ()
    lora: LoraPart | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.checkpoint is None) == (self.from_scratch is None):
            raise ValueError("model needs exactly one of checkpoint and from_scratch")
        if self.new_tokens and self.from_scratch is not None:
            raise ValueError("model.new_tokens needs a checkpoint, whose tokenizer they are added to")
        if self.lora is not None and self.from_scratch is not None:
            raise ValueError(
                "model.lora needs a checkpoint: a model built from nothing is trained as a whole"
            )
        return self


class OptimizedStage(RecipePart):
    """What every stage has.

    Attributes:
        name: Unique in the recipe.
        steps: Optimizer steps.
        batch: Rows per step.
        lr: Peak learning rate.
        optimizer: ``adamw``, or ``muon`` for training from nothing.
        decay: Share of the steps, at the end, over which the rate falls to 0.
        clip_norm: Gradient norm limit.
        stop_when: End the stage before its last step once every named figure of metrics.jsonl is at least this high.
    """

    name: str
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    lr: float = Field(gt=0)
    optimizer: OptimizerName = "adamw"
    decay: float = Field(0.4, ge=0, le=1)
    clip_norm: float = Field(1.0, gt=0)
    stop_when: dict[str, float] = {}


class AlignmentStage(OptimizedStage):
    """Visual tokens learn to name colour, shape and digit of a frame by the tied word embeddings.

    Attributes:
        world_seed: Root seed of the frames; evaluation seeds are refused.
        boxes: They also learn to name left and top of the shape's box.
    """

    kind: Literal["alignment"]
    world_seed: int
    boxes: bool = False

    @field_validator("world_seed")
    @classmethod
    def _not_evaluation(cls, seed: int) -> int:
        return training_seed(seed)


class RowStage(OptimizedStage):
    """What stages over rows have.

    Attributes:
        mask: Which assistant turns are trained.
        micro_batch: Rows per forward pass; gradients add up to the batch. ``None`` = the whole batch.
    """

    mask: Mask = "last_two_turns"
    micro_batch: int | None = Field(None, gt=0)


class WorldStage(RowStage):
    """Rows that the teacher plays in fresh world videos.

    Attributes:
        world_seed: Root seed of the videos; evaluation seeds are refused.
        pixels: ``rendered``, or ``mp4``: encoded and read back through the reader.
        num_videos: Size of the MP4 set.
        world_folder: Where the MP4 set lies, made on first use; runs may share it. ``None`` = in the run folder.
        min_seconds: Shortest video.
        max_seconds: Longest video.
        num_scenes: Scenes per video; with fewer, an event fills more frames of a skim.
        mix: Shares of row kinds.
        readout_weight: Weight of the relevance read-out (``train.supervision``); 0 = no read-outs. The other
            read-outs weigh half of it.
        readout_layer: Text layer after which they are read.
    """

    kind: Literal["world"]
    world_seed: int
    pixels: Literal["rendered", "mp4"] = "rendered"
    num_videos: int = Field(48, gt=0)
    world_folder: str | None = None
    min_seconds: float = 60.0
    max_seconds: float = 2400.0
    num_scenes: int = Field(4, gt=0)
    mix: RowMix = RowMix()
    readout_weight: float = Field(1.0, ge=0)
    readout_layer: int = Field(2, gt=0)

    @field_validator("world_seed")
    @classmethod
    def _not_evaluation(cls, seed: int) -> int:
        return training_seed(seed)


class TrajectoryStage(RowStage):
    """Rows from recorded trajectories (``trajectories.jsonl``) over video files.

    Attributes:
        path: The JSONL file or a run folder.
    """

    kind: Literal["trajectories"]
    path: str


class TimelineStage(RowStage):
    """Rows for TaRO in the world (``train.timeline_rows``), rendered, in one pass without a tool.

    Attributes:
        world_seed: Root seed of the videos; evaluation seeds are refused.
        min_seconds: Shortest video.
        max_seconds: Longest video.
        skim_frames: Frames that are shown.
        captions: Share of rows that ask for the timeline first.
        timed: Share of the others whose thought holds lines of it.
    """

    kind: Literal["timeline"]
    world_seed: int
    min_seconds: float = 60.0
    max_seconds: float = 100.0
    skim_frames: int = Field(24, ge=2)
    captions: float = Field(0.5, ge=0, le=1)
    timed: float = Field(0.05, ge=0, le=1)

    @field_validator("world_seed")
    @classmethod
    def _not_evaluation(cls, seed: int) -> int:
        return training_seed(seed)


Stage = Annotated[AlignmentStage | WorldStage | TimelineStage | TrajectoryStage, Field(discriminator="kind")]


class SftRecipe(RecipePart):
    """A whole SFT run.

    Attributes:
        seed: Seeds initial weights; rows have their stages' seeds.
        model: Where the model comes from.
        stages: Played in order.
        checkpoint_every: Steps between checkpoints, a multiple of 10 so that a resumed run logs the same averages.
        trackers: Where the figures of metrics.jsonl are shown besides (``train.trackers``), by steps of the whole run.
    """

    seed: Seed = 0
    model: ModelPart
    stages: tuple[Stage, ...] = Field(min_length=1)
    checkpoint_every: int = Field(200, gt=0, multiple_of=10)
    trackers: tuple[TrackerName, ...] = ()

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) != len(names):
            raise ValueError(f"stage names must be unique, got {names}")
        if self.model.lora is not None and any(stage.kind == "alignment" for stage in self.stages):
            raise ValueError("an alignment stage trains the vision tower as a whole: leave model.lora out")
        return self
