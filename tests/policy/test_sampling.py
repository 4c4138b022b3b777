"""Next-token choice against distributions worked out by hand."""

from __future__ import annotations

import torch

from timeloupe.policy.base import Sampling
from timeloupe.policy.sampling import choose

LOGITS = torch.tensor([0.1, 0.4, 0.3, 0.2]).log()
NONE = torch.zeros(4, dtype=torch.bool)
DRAWS = torch.arange(0.0005, 1.0, 0.001, dtype=torch.float64)


def shares(sampling: Sampling, banned: torch.Tensor = NONE) -> list[float]:
    ids, _ = choose(LOGITS.expand(len(DRAWS), -1), banned, [sampling] * len(DRAWS), DRAWS)
    return [round((ids == token).double().mean().item(), 2) for token in range(4)]


def test_shares_follow_the_distribution() -> None:
    assert shares(Sampling(temperature=1.0)) == [0.1, 0.4, 0.3, 0.2]
    assert shares(Sampling(temperature=0.0)) == [0.0, 1.0, 0.0, 0.0]
    # Temperature 0.5 squares: 1 16 9 4 of 30.
    assert shares(Sampling(temperature=0.5)) == [0.03, 0.53, 0.3, 0.13]
    assert shares(Sampling(temperature=1.0, top_k=2)) == [0.0, 0.57, 0.43, 0.0]
    # The nucleus is the smallest set that reaches the mass: 0.4 + 0.3 reach 0.7 only together.
    assert shares(Sampling(temperature=1.0, top_p=0.65)) == [0.0, 0.57, 0.43, 0.0]
    assert shares(Sampling(temperature=1.0, top_p=0.3)) == [0.0, 1.0, 0.0, 0.0]
    assert shares(Sampling(temperature=1.0, top_p=1e-9)) == [0.0, 1.0, 0.0, 0.0]
    # Top-k first, then top-p of what is left: 4 3 2 of 9.
    assert shares(Sampling(temperature=1.0, top_k=3, top_p=0.7)) == [0.0, 0.57, 0.43, 0.0]


def test_banned_tokens_are_never_chosen() -> None:
    banned = torch.tensor([False, True, False, True])
    assert shares(Sampling(temperature=1.0), banned) == [0.25, 0.0, 0.75, 0.0]
    assert shares(Sampling(), banned) == [0.0, 0.0, 1.0, 0.0]
    assert shares(Sampling(temperature=1.0, top_k=2), banned) == [0.25, 0.0, 0.75, 0.0]
    assert shares(Sampling(temperature=1.0, top_k=4, top_p=0.999), banned) == [0.25, 0.0, 0.75, 0.0]


def test_extreme_draws_stay_possible() -> None:
    banned = torch.tensor([True, False, False, True])
    edges = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    for sampling in (
        Sampling(temperature=1.0),
        Sampling(temperature=1.0, top_k=3),
        Sampling(temperature=1e-6),
    ):
        ids, _ = choose(LOGITS.expand(2, -1), banned, [sampling] * 2, edges)
        assert set(ids.tolist()) <= {1, 2}


def test_rows_keep_their_own_settings_and_log_probabilities_are_the_models() -> None:
    samplings = [
        Sampling(),
        Sampling(temperature=1.0),
        Sampling(temperature=2.0, top_k=1),
        Sampling(temperature=0.1),
    ]
    draws = torch.tensor([0.99, 0.05, 0.99, 0.5], dtype=torch.float64)
    ids, logprobs = choose(LOGITS.expand(4, -1), NONE, samplings, draws)
    assert ids.tolist() == [1, 0, 1, 1]
    torch.testing.assert_close(logprobs, LOGITS[ids])
