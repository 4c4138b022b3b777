"""A recipe's model, in place: loaded, adapters in it, the right weights trainable, cut among processes where asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from timeloupe.model.load import LoadedModel, load_model
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.logprobs import Reference, frozen_copy, without_adapters
from timeloupe.train.lora import add_adapters, choose_trainable
from timeloupe.train.parallel import Parallel
from timeloupe.train.sharding import check_shardable, refresh, shard, whole_copy


@dataclass(frozen=True, eq=False)
class Placement:
    """Models of a run.

    Attributes:
        loaded: The one that is trained.
        playing: The one that plays and measures; the same, but for sharded training.
        reference: Of the KL term, ``None`` where the loss has none.
    """

    loaded: LoadedModel
    playing: LoadedModel
    reference: Reference | None

    def refresh(self) -> None:
        """Let ``playing`` have the weights of ``loaded``; all processes must call this."""
        refresh(self.playing, self.loaded)


def place(recipe: GrpoRecipe, parallel: Parallel) -> Placement:
    """Return the models of a run before its first step.

    Raises:
        MissingError: The checkpoint, or peft, is not there.
        ConfigError: The recipe cannot be trained as it was launched.
    """
    part, sharding = recipe.model, parallel.sharding
    if sharding is not None:
        check_shardable(recipe)
    # What is sharded passes through the processor's memory: whole, it might not fit the device.
    device = part.device if sharding is None else "cpu"
    loaded = load_model(str(part.checkpoint), device=device, dtype=part.dtype)
    vision = not part.freeze_vision
    if part.lora is not None:
        add_adapters(loaded.model, part.lora, vision=vision, seed=recipe.seed)
    choose_trainable(loaded.model, vision=vision)
    if part.gradient_checkpointing:
        # The other form gives no gradient where the checkpointed input needs none, as below adapters.
        loaded.model.gradient_checkpointing_enable({"use_reentrant": False})
    reference: Reference | None = None
    if sharding is None:
        if recipe.loss.kl_weight:
            reference = (frozen_copy if part.lora is None else without_adapters)(loaded.model)
        return Placement(loaded, loaded, reference)
    target = torch.device(part.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    playing = whole_copy(loaded, target)
    if recipe.loss.kl_weight:
        reference = frozen_copy(loaded.model, lambda model: shard(model, sharding, target))
    shard(loaded.model, sharding, target)
    return Placement(loaded, playing, reference)
