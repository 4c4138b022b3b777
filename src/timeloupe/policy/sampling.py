"""Choosing the next token: greedy, temperature, top-k, top-p, with one uniform number per row and step.

Each row brings its own uniform number, drawn from its own generator, and is mapped to a token by the inverse
of its cumulative distribution: what a row draws does not depend on the rows beside it.

Shapes: B rows, R sampled rows of one kind, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from timeloupe.policy.base import Sampling


def choose(
    logits_BV: torch.Tensor,
    banned_V: torch.Tensor,
    samplings: Sequence[Sampling],
    uniform_B: torch.Tensor,
    forced: Sequence[int | None] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the chosen token id and its log-probability for each row.

    Args:
        logits_BV: Of the next token.
        banned_V: bool; True for ids that are never chosen.
        samplings: Settings of each row.
        uniform_B: float64 in [0, 1); unused by greedy rows.
        forced: The id that a row must take whatever its logits are, ``None`` = it chooses; empty = all choose.

    Returns:
        Ids (B,) int64, and log-probabilities (B,) float32 under the model itself: temperature 1, nothing cut
        off or banned. These are what a teacher-forced pass gives for the same tokens.
    """
    logits_BV = logits_BV.float()
    allowed_BV = logits_BV.masked_fill(banned_V, -torch.inf)
    ids_B = allowed_BV.argmax(-1)
    for draw, rows in _groups(samplings):
        rows_R = torch.tensor(rows, device=logits_BV.device)
        drawn_R = draw(
            allowed_BV[rows_R], [samplings[row] for row in rows], uniform_B.to(rows_R.device)[rows_R]
        )
        ids_B = ids_B.index_copy(0, rows_R, drawn_R)
    given = {row: token for row, token in enumerate(forced) if token is not None}
    if given:
        rows_R, tokens_R = (
            torch.tensor(list(part), device=logits_BV.device) for part in (given, given.values())
        )
        ids_B = ids_B.index_copy(0, rows_R, tokens_R)
    logprobs_B = logits_BV.gather(1, ids_B[:, None])[:, 0] - logits_BV.logsumexp(-1)
    return ids_B, logprobs_B


Draw = Callable[[torch.Tensor, Sequence[Sampling], torch.Tensor], torch.Tensor]


def _groups(samplings: Sequence[Sampling]) -> list[tuple[Draw, list[int]]]:
    """Split the sampled rows by how they are drawn: a row's way must not depend on its neighbours'
    settings."""
    warm = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    cut = [row for row in warm if samplings[row].top_k > 0 or samplings[row].top_p < 1.0]
    plain = [row for row in warm if row not in set(cut)]
    return [(draw, rows) for draw, rows in ((_draw_plain, plain), (_draw_cut, cut)) if rows]


def _draw_plain(
    allowed_BV: torch.Tensor, samplings: Sequence[Sampling], uniform_B: torch.Tensor
) -> torch.Tensor:
    return _inverse(_scaled(allowed_BV, samplings).softmax(-1), uniform_B)


def _draw_cut(
    allowed_BV: torch.Tensor, samplings: Sequence[Sampling], uniform_B: torch.Tensor
) -> torch.Tensor:
    """Draw among the top-k, then among the smallest set of these that holds the mass top-p."""
    device, size = allowed_BV.device, allowed_BV.shape[1]
    top_k_B = torch.tensor([sampling.top_k or size for sampling in samplings], device=device)
    top_p_B = torch.tensor([sampling.top_p for sampling in samplings], device=device)
    sorted_BV, order_BV = _scaled(allowed_BV, samplings).sort(-1, descending=True)
    beyond_BV = torch.arange(size, device=device) >= top_k_B[:, None]
    probs_BV = sorted_BV.masked_fill(beyond_BV, -torch.inf).softmax(-1)
    before_BV = probs_BV.cumsum(-1) - probs_BV
    probs_BV = probs_BV.masked_fill((before_BV >= top_p_B[:, None]) & (before_BV > 0), 0.0)
    return order_BV.gather(1, _inverse(probs_BV, uniform_B)[:, None])[:, 0]


def _scaled(allowed_BV: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    temperature_B = torch.tensor([sampling.temperature for sampling in samplings], device=allowed_BV.device)
    return allowed_BV / temperature_B[:, None]


def _inverse(probs_BV: torch.Tensor, uniform_B: torch.Tensor) -> torch.Tensor:
    """Return the first index whose cumulative probability exceeds the uniform share of the total."""
    cumulative_BV = probs_BV.double().cumsum(-1)
    wanted_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
    index_B = torch.searchsorted(cumulative_BV, wanted_B1, right=True)[:, 0].clamp(max=probs_BV.shape[1] - 1)
    possible_B = probs_BV.gather(1, index_B[:, None])[:, 0] > 0
    return torch.where(possible_B, index_B, probs_BV.argmax(-1))
