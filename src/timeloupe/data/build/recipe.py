"""What is built, from what and by whom. Recipes are TOML files under ``recipes/data``; unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from timeloupe.data.build.recipe_part import RecipePart
from timeloupe.data.build.stages.registry import Stage
from timeloupe.world.labeller import OracleErrors

PolicyName = Literal["small", "local", "scripted", "openai", "oracle"]

WAY = {"base_url", "api_key_env", "timeout", "tries", "batch"}
"""Settings of a labeller that say how it is reached and change no row: another session may have others."""


class SourcePart(RecipePart):
    """The rows that the build begins with.

    Attributes:
        path: A file of rows in any format that ``data convert`` reads; ``examples.jsonl`` of a world is one.
        format: Its format; ``auto`` = told by its first records.
        videos: Folder of the videos; default: where the file is.
        tasks: Only rows of these tasks; empty = all.
    """

    path: Path
    format: str = "auto"
    videos: Path | None = None
    tasks: tuple[str, ...] = ()


class LabellerPart(RecipePart):
    """Who is asked.

    Attributes:
        policy: ``small``, ``local``, ``openai`` (a served model), ``scripted``, or ``oracle``: the truth of a world,
            with stated errors, for measuring.
        model: Checkpoint of a local model, or name of a served one.
        base_url: Of a served model.
        api_key_env: Environment variable that holds its key.
        send: How a served model is sent frames, ``images`` or ``video``.
        settings_from: Checkpoint whose episode settings a served model is asked with.
        script: Replies of a scripted labeller, by ``purpose:example id``.
        timeout: Seconds for one reply of a served model.
        price: US dollars for a million prompt and completion tokens.
        tries: Calls for one reply at most; those that fail are made again.
        batch: Items of a batch, for a model in this process.
        oracle: Error rates of the oracle.
        truth: ``truth.jsonl`` of the world that the oracle knows; default: beside the source.
    """

    policy: PolicyName = "small"
    model: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    send: Literal["images", "video"] | None = None
    settings_from: str | None = None
    script: Path | None = None
    timeout: float | None = Field(default=None, gt=0)
    price: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    tries: int = Field(default=5, ge=1)
    batch: int = Field(default=16, ge=1)
    oracle: OracleErrors = OracleErrors()
    truth: Path | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        needs = {"local": "model", "openai": "base_url", "scripted": "script"}.get(self.policy)
        if needs is not None and getattr(self, needs) is None:
            raise ValueError(f"labeller.policy {self.policy!r} needs labeller.{needs}")
        takes = {
            "small": set(), "local": {"model"}, "scripted": {"script"}, "oracle": {"truth"},
            "openai": {"model", "base_url", "api_key_env", "send", "settings_from", "timeout"},
        }[self.policy]  # fmt: skip
        for name in (
            "model",
            "base_url",
            "api_key_env",
            "send",
            "settings_from",
            "script",
            "timeout",
            "truth",
        ):
            if getattr(self, name) is not None and name not in takes:
                raise ValueError(f"labeller.{name} does not go with labeller.policy {self.policy!r}")
        if self.policy != "oracle" and self.oracle != OracleErrors():
            raise ValueError(f"labeller.oracle does not go with labeller.policy {self.policy!r}")
        return self


class BuildRecipe(RecipePart):
    """A whole build.

    Attributes:
        seed: Root seed: of what is sampled, and of the oracle's errors.
        source: What to begin with.
        labeller: Who is asked.
        prompts: ``labeller`` = the templates of ``data/build/prompts``, for a model that follows instructions;
            ``protocol`` = as in an episode, for a model that was trained on nothing else; or a folder with templates of
            those names.
        protocol: How the model that will learn from the rows is prompted; default: the labeller's own.
        episode: Overrides of ``EpisodeSettings``, on top of the labeller's own.
        min_iou: From which overlap with its labelled segments on a grounding is right.
        min_rouge: From which likeness on a free answer is right.
        stages: Played in order.
    """

    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    source: SourcePart
    labeller: LabellerPart = LabellerPart()
    prompts: str = "protocol"
    protocol: str | None = None
    episode: dict[str, Any] = {}
    min_iou: float = Field(default=0.5, gt=0, le=1)
    min_rouge: float = Field(default=0.5, gt=0, le=1)
    stages: tuple[Stage, ...]

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        if (
            not self.stages
        ):  # here and not as a bound of the field, which is also said of a stage that is wrong
            raise ValueError("stages must name at least 1 stage, as in [[stages]] with kind = 'direct'")
        known = {"source"}
        for stage in self.stages:
            name = stage.name or stage.kind
            if name in known:
                raise ValueError(f"stage names must be unique, got {name!r} twice; give one of them a name")
            if stage.reads not in known:
                raise ValueError(
                    f"stage {name!r} reads {stage.reads!r}, allowed: {', '.join(sorted(known))} (what comes before it)"
                )
            known.add(name)
        return self
