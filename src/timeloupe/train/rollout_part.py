"""Where roll-outs are played: by the model that is trained, in its own process, or by an engine beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol, Self, runtime_checkable

from pydantic import Field, model_validator

from timeloupe.errors import ConfigError
from timeloupe.policy.base import Policy
from timeloupe.train.recipe import RecipePart

if TYPE_CHECKING:
    from timeloupe.model.load import LoadedModel

_OF_ENGINES = ("memory_gib", "max_model_len", "max_sequences", "eager")


class RolloutPart(RecipePart):
    """Who plays the roll-outs, and what an update compares their tokens with.

    Attributes:
        backend: ``local`` = ``policy.local``; ``vllm`` = vLLM in this process (``engines.vllm_policy``).
        memory_gib: Keys and values that vLLM keeps; its copy of the weights is not in it.
        max_model_len: Tokens of an episode at most, frames included, for vLLM; ``None`` = as many as the model has
            positions, at most 32,768.
        max_sequences: Roll-outs that vLLM decodes at a time.
        eager: vLLM without compiled graphs: slower on a GPU, starts in seconds.
        old: What the ratio of an update is taken to. ``sampled`` = the log-probabilities that were recorded while
            sampling. ``trainer`` = those that the trainer computes for the same tokens in the first pass over a batch,
            so that the ratio is 1 there and holds no rounding of another engine.
        importance_cap: With ``old = "trainer"``: multiply a token's policy loss by min(p_trainer / p_sampled, cap), the
            truncated importance sampling that corrects for an engine which samples with slightly other
            probabilities; >= 1. ``None`` = 1 everywhere.
    """

    backend: Literal["local", "vllm"] = "local"
    memory_gib: float = Field(default=4.0, gt=0)
    max_model_len: int | None = Field(default=None, gt=0)
    max_sequences: int = Field(default=64, gt=0)
    eager: bool = True
    old: Literal["sampled", "trainer"] = "sampled"
    importance_cap: float | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _every_setting_counts(self) -> Self:
        unread = [name for name in _OF_ENGINES if name in self.model_fields_set and self.backend == "local"]
        if unread:
            raise ValueError(
                f"rollout.{unread[0]} is a setting of vLLM: set rollout.backend to 'vllm', or leave it out"
            )
        if self.importance_cap is not None and self.old == "sampled":
            raise ValueError(
                "rollout.importance_cap needs rollout.old = 'trainer': the ratio to what was sampled is already in the "
                "loss otherwise"
            )
        return self


class RolloutPolicy(Policy, Protocol):
    """A policy that plays with the weights of ``loaded`` as they are at every call."""

    @property
    def loaded(self) -> LoadedModel:
        """The model that is trained."""
        ...


@runtime_checkable
class TellsFigures(Protocol):
    """A policy with figures of its own for the log of a step."""

    def take_figures(self) -> dict[str, float]:
        """Return the figures since the last call."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A policy that keeps what it has read of an episode until the episode goes on."""

    def forget(self) -> None:
        """Give that memory back."""
        ...


MakePolicy = Callable[["LoadedModel", RolloutPart], RolloutPolicy]
"""Makes the policy of the roll-outs. ``timeloupe.engines.rollouts.make_policy`` knows every backend."""


def local_policy(loaded: LoadedModel, part: RolloutPart) -> RolloutPolicy:
    """Return the policy of the backend ``local``.

    Raises:
        ConfigError: The recipe asks for another one.
    """
    if part.backend != "local":
        raise ConfigError(
            f"rollout.backend {part.backend!r} is an engine, which this call was not given, allowed 'local', "
            "do `timeloupe train grpo`, or pass make_policy=timeloupe.engines.rollouts.make_policy"
        )
    from timeloupe.policy.local import LocalPolicy

    return LocalPolicy(loaded)


def figures_of(policy: RolloutPolicy) -> dict[str, float]:
    """Return the figures of a policy since the last call, if it has any."""
    return policy.take_figures() if isinstance(policy, TellsFigures) else {}


def forget_episodes(policy: RolloutPolicy) -> None:
    """Take from a policy what it remembers of episodes that are over, so that an update has that memory."""
    if isinstance(policy, Remembers):
        policy.forget()
