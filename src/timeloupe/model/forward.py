"""The forward passes that training needs, at the cost of the positions that count.

A vocabulary-wide row of logits per prompt token is most of the cost of a small model and most of the memory
of a large one; only the columns that predict a target are computed here.

Shapes: B rows, T tokens, H hidden size, V vocabulary, N target tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from timeloupe.model.expand import ModelBatch

ENTROPY_ROWS = 256
"""Rows of logits whose entropy is computed at a time."""


def hidden_states(model: PreTrainedModel, batch: ModelBatch) -> torch.Tensor:
    """Return the last hidden state of every token, (B, T, H), with gradient where the caller enabled it."""
    return model.base_model(**batch.model_inputs(), use_cache=False).last_hidden_state


def logits_at(
    model: PreTrainedModel, hidden_BTH: torch.Tensor, rows_N: torch.Tensor, columns_N: torch.Tensor
) -> torch.Tensor:
    """Return float32 logits (N, V) at the given places: each is about the token that FOLLOWS the place."""
    head: Any = model.get_output_embeddings()
    return head(hidden_BTH[rows_N, columns_N]).float()


def target_logprobs(
    model: PreTrainedModel, batch: ModelBatch, *, hidden_BTH: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the log-probability of each target token under the model.

    Args:
        model: The model.
        batch: Its ``loss_mask_BT`` says which tokens are targets; a target in column 0 has no predictor.
        hidden_BTH: Reuse of ``hidden_states(model, batch)``.

    Returns:
        float32 (B, T), natural logarithms, temperature 1, no token banned; 0 where ``loss_mask_BT`` is False.
    """
    return target_logprobs_and_entropy(model, batch, hidden_BTH=hidden_BTH)[0]


def target_logprobs_and_entropy(
    model: PreTrainedModel, batch: ModelBatch, *, hidden_BTH: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ``target_logprobs`` and, without gradient, the entropy of each target's distribution.

    Both are float32 (B, T) and 0 where ``loss_mask_BT`` is False; the entropy is in nats, over the whole vocabulary.
    """
    if hidden_BTH is None:
        hidden_BTH = hidden_states(model, batch)
    rows_N, columns_N = batch.loss_mask_BT[:, 1:].nonzero(as_tuple=True)
    logits_NV = logits_at(model, hidden_BTH, rows_N, columns_N)
    chosen_N, entropy_N = chosen_and_entropy(logits_NV, batch.input_ids_BT[rows_N, columns_N + 1])
    empty_BT = chosen_N.new_zeros(batch.input_ids_BT.shape)
    places = (rows_N, columns_N + 1)
    return empty_BT.index_put(places, chosen_N), empty_BT.index_put(places, entropy_N)


def chosen_and_entropy(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probability of each target, and the entropy of its distribution without gradient; both (N,)."""
    normaliser_N = logits_NV.logsumexp(-1)
    chosen_N = logits_NV.gather(1, targets_N[:, None])[:, 0] - normaliser_N
    return chosen_N, _entropy(logits_NV.detach(), normaliser_N.detach())


def _entropy(logits_NV: torch.Tensor, normaliser_N: torch.Tensor) -> torch.Tensor:
    """Return the entropy of each row, nats; in pieces, since a second vocabulary-wide table would cost memory."""
    pieces = zip(logits_NV.split(ENTROPY_ROWS), normaliser_N.split(ENTROPY_ROWS), strict=True)
    found = [normaliser - ((row - normaliser[:, None]).exp() * row).sum(-1) for row, normaliser in pieces]
    return torch.cat(found).clamp(min=0)
