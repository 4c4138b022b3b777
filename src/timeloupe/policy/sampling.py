"""Choosing the next token: greedy, temperature, top-k, top-p, with one uniform number per row and step.

Each row brings its own uniform number, drawn from its own generator, and is mapped to a token by the inverse of its
cumulative distribution: what a row draws does not depend on the rows beside it.

Shapes: B rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from timeloupe.policy.base import Sampling


def choose(
    logits_BV: torch.Tensor, banned_V: torch.Tensor, samplings: Sequence[Sampling], uniform_B: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the chosen token id and its log-probability for each row.

    Args:
        logits_BV: Of the next token.
        banned_V: bool; True for ids that are never chosen.
        samplings: Settings of each row.
        uniform_B: float64 in [0, 1); unused by greedy rows.

    Returns:
        Ids (B,) int64, and log-probabilities (B,) float32 under the model itself: temperature 1, nothing cut off or
        banned. These are what a teacher-forced pass gives for the same tokens.
    """
    logits_BV = logits_BV.float()
    allowed_BV = logits_BV.masked_fill(banned_V, -torch.inf)
    ids_B = allowed_BV.argmax(-1)
    sampled = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if sampled:
        rows = torch.tensor(sampled, device=logits_BV.device)
        drawn = _draw(allowed_BV[rows], [samplings[row] for row in sampled], uniform_B.to(rows.device)[rows])
        ids_B = ids_B.index_copy(0, rows, drawn)
    logprobs_B = logits_BV.gather(1, ids_B[:, None])[:, 0] - logits_BV.logsumexp(-1)
    return ids_B, logprobs_B


def _draw(allowed_BV: torch.Tensor, samplings: Sequence[Sampling], uniform_B: torch.Tensor) -> torch.Tensor:
    device, size = allowed_BV.device, allowed_BV.shape[1]
    temperature_B = torch.tensor([sampling.temperature for sampling in samplings], device=device)
    scaled_BV = allowed_BV / temperature_B[:, None]
    if all(sampling.top_k == 0 and sampling.top_p >= 1.0 for sampling in samplings):
        return _inverse(scaled_BV.softmax(-1), uniform_B)
    top_k_B = torch.tensor([sampling.top_k or size for sampling in samplings], device=device)
    top_p_B = torch.tensor([sampling.top_p for sampling in samplings], device=device)
    sorted_BV, order_BV = scaled_BV.sort(-1, descending=True)
    beyond_BV = torch.arange(size, device=device) >= top_k_B[:, None]
    probs_BV = sorted_BV.masked_fill(beyond_BV, -torch.inf).softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV
    probs_BV = probs_BV.masked_fill((before_BV >= top_p_B[:, None]) & (before_BV > 0), 0.0)
    return order_BV.gather(1, _inverse(probs_BV, uniform_B)[:, None])[:, 0]


def _inverse(probs_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """Return the first index whose cumulative probability exceeds the uniform share of the total."""
    cumulative_BV = probs_BV.double().cumsum(-1)
    wanted_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    index_B = torch.searchsorted(cumulative_BV, wanted_B1, right=True)[:, 0].clamp(max=probs_BV.shape[1] - 1)
    possible_B = probs_BV.gather(1, index_B[:, None])[:, 0] > 0
    return torch.where(possible_B, index_B, probs_BV.argmax(-1))
