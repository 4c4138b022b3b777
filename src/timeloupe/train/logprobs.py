"""Log-probabilities as an update needs them: of the policy with gradient, of the reference without."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from timeloupe.model.expand import ModelBatch
from timeloupe.model.forward import hidden_states, target_logprobs_and_entropy

Reference = Callable[[ModelBatch], torch.Tensor]
"""Log-probabilities (B, T) under the policy as it was before the first step."""


def log_probs(model: PreTrainedModel, batch: ModelBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probability and entropy of every target token, float32 (B, T); bfloat16 autocast on a GPU."""
    with torch.autocast(batch.input_ids_BT.device.type, torch.bfloat16, enabled=batch.input_ids_BT.is_cuda):
        hidden_BTH = hidden_states(model, batch)
    return target_logprobs_and_entropy(model, batch, hidden_BTH=hidden_BTH)


def frozen_copy(model: PreTrainedModel) -> Reference:
    """Return the reference of a model that is trained as a whole: a second model, as the first is now."""
    frozen = copy.deepcopy(model).eval().requires_grad_(False)

    def reference(batch: ModelBatch) -> torch.Tensor:
        with torch.no_grad():
            return log_probs(frozen, batch)[0]

    return reference
