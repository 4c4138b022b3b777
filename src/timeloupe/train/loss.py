"""The loss of supervised training, as a function of a batch and a model's hidden states.

Shapes: B rows, T tokens, H hidden size, V vocabulary, N targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from timeloupe.model.expand import ModelBatch
from timeloupe.model.forward import logits_at


@dataclass(frozen=True, eq=False)
class TokenLoss:
    """Cross-entropy over target tokens.

    Attributes:
        total: Sum over targets, nats, with gradient.
        targets_N: Target ids.
        before_N: The token before each target.
        right_N: Whether the likeliest token was the target.
    """

    total: torch.Tensor
    targets_N: torch.Tensor
    before_N: torch.Tensor
    right_N: torch.Tensor


def token_loss(model: PreTrainedModel, batch: ModelBatch, hidden_BTH: torch.Tensor) -> TokenLoss:
    """Return the next-token loss at the targets of ``batch.loss_mask_BT``; every target token weighs the same."""
    rows_N, columns_N = batch.loss_mask_BT[:, 1:].nonzero(as_tuple=True)
    logits_NV = logits_at(model, hidden_BTH, rows_N, columns_N)
    targets_N = batch.input_ids_BT[rows_N, columns_N + 1]
    total = F.cross_entropy(logits_NV, targets_N, reduction="sum")
    right_N = logits_NV.detach().argmax(-1) == targets_N
    return TokenLoss(total, targets_N, batch.input_ids_BT[rows_N, columns_N], right_N)
