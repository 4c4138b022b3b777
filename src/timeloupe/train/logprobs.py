"""Log-probabilities as an update needs them: of the policy with gradient, of the reference without."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from timeloupe.model.packing import (
    Pack,
    packed_hidden_states,
    packed_logprobs_and_entropy,
    use_packed_attention,
)
from timeloupe.train.lora import adapters_off

Reference = Callable[[Pack], torch.Tensor]
"""Log-probabilities (B, T) under the policy as it was before the first step."""


SHARDED = "sharded_log_probs"
"""Name of the method by which a sharded model is run (``train.sharding``)."""


def log_probs(model: PreTrainedModel, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probability and entropy of every target token, float32 (B, T); bfloat16 autocast on a GPU."""
    return getattr(model, SHARDED)(pack) if hasattr(model, SHARDED) else whole_log_probs(model, pack)


def whole_log_probs(model: PreTrainedModel, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``log_probs`` of a model whose weights are at hand."""
    use_packed_attention(model)
    device = pack.path_BT.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        hidden_1NH = packed_hidden_states(model, pack)
    return packed_logprobs_and_entropy(model, pack, hidden_1NH=hidden_1NH)


def without_adapters(model: PreTrainedModel) -> Reference:
    """Return the reference of a model that trains adapters: itself, with them off."""

    def reference(pack: Pack) -> torch.Tensor:
        with torch.no_grad(), adapters_off(model):
            return log_probs(model, pack)[0]

    return reference


def frozen_copy(model: PreTrainedModel, place: Callable[[PreTrainedModel], None] | None = None) -> Reference:
    """Return the reference of a model that is trained as a whole: a second model, as the first is now.

    ``place`` does to it what has to be done before it can run.
    """
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    if place is not None:
        place(frozen)

    def reference(pack: Pack) -> torch.Tensor:
        with torch.no_grad():
            return log_probs(frozen, pack)[0]

    return reference
