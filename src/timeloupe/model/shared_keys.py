"""Attention of rows that begin with the same keys and values, which are kept once.

A decoding step goes over them once for all rows, not row by row.

Shapes: B rows, G key heads, R query heads per key head, Q queries of a row, S shared positions, T own positions, D head
size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

Shared = tuple[tuple[tuple[torch.Tensor, torch.Tensor], ...], torch.Tensor | None]
"""Keys and values (1, G, S, D) of each layer, and the rows that look at them before their own; ``None`` = all rows."""


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    bias: torch.Tensor | None,
    shared: Sequence[Shared],
    layer: int,
    scaling: float,
) -> torch.Tensor:
    """Return what the queries find, (B, G * R, Q, D); shared positions come before all own ones.

    Args:
        query: (B, G * R, Q, D).
        keys: Own ones (B, G, T, D).
        values: Likewise.
        bias: Added to the own scores, (B, 1, Q, T); ``None`` = every own position is looked at.
        shared: Every row is in one of them.
        layer: Which of their layers.
        scaling: Factor on the scores.
    """
    groups = keys.shape[1]
    found = torch.empty_like(query)
    for layers, rows in shared:
        common, worth = layers[layer]
        members = slice(None) if rows is None else rows
        asked, own, own_values = query[members], keys[members], values[members]
        piece = None if bias is None else bias[members]
        if query.shape[2] == 1:
            mixed = _both(
                asked[:, :, 0].unflatten(1, (groups, -1)) * scaling,
                common[0],
                worth[0],
                own,
                own_values,
                piece,
            )
            found[members] = mixed.flatten(1, 2)[:, :, None]
            continue
        # For many queries torch's kernel beats products with the scores in between; the copy lives for one layer.
        before = [item.expand(len(asked), -1, -1, -1) for item in (common, worth)]
        heads = [
            torch.cat(pair, 2).repeat_interleave(query.shape[1] // groups, 1)
            for pair in zip(before, (own, own_values), strict=True)
        ]
        everything = None if piece is None else F.pad(piece, (common.shape[2], 0))
        found[members] = F.scaled_dot_product_attention(asked, *heads, attn_mask=everything, scale=scaling)
    return found


def _both(
    asked_BGRD: torch.Tensor,
    common_GSD: torch.Tensor,
    worth_GSD: torch.Tensor,
    keys_BGTD: torch.Tensor,
    values_BGTD: torch.Tensor,
    bias_B11T: torch.Tensor | None,
) -> torch.Tensor:
    """Return what one query per row and head finds, (B, G, R, D): one product with the shared keys for all rows."""
    folded = asked_BGRD.shape[0:3:2]
    before = asked_BGRD.transpose(0, 1).flatten(1, 2) @ common_GSD.transpose(1, 2)
    own = asked_BGRD @ keys_BGTD.transpose(2, 3)
    if bias_B11T is not None:
        own = own + bias_B11T
    scores = torch.cat((before.unflatten(1, folded).transpose(0, 1), own), -1)
    left, right = (
        scores.softmax(-1, dtype=torch.float32).to(own.dtype).split((before.shape[-1], own.shape[-1]), -1)
    )
    seen = left.transpose(0, 1).flatten(1, 2) @ worth_GSD
    return seen.unflatten(1, folded).transpose(0, 1) + right @ values_BGTD
