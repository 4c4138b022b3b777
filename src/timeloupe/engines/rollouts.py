"""Policies of reinforcement learning by the backend that a recipe names."""

from __future__ import annotations

from timeloupe.model.load import LoadedModel
from timeloupe.train.rollout_part import RolloutPart, RolloutPolicy, local_policy


def make_policy(loaded: LoadedModel, part: RolloutPart) -> RolloutPolicy:
    """Return the policy that plays the roll-outs with the weights of ``loaded``.

    Raises:
        MissingError: The engine is not installed.
        ConfigError: It cannot play this model, or not in these processes.
    """
    if part.backend == "local":
        return local_policy(loaded, part)
    from timeloupe.engines.vllm_policy import VllmPolicy

    return VllmPolicy(loaded, part)
