"""What an update's ratio is taken to, and the weights that correct for an engine that samples a little differently."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from timeloupe.errors import ConfigError, TimeloupeError
from timeloupe.model.episode import TokenEpisode, TokenSegment
from timeloupe.model.expand import ModelBatch
from timeloupe.train.batch import Sample
from timeloupe.train.old_log_probs import OldLogProbs
from timeloupe.train.parallel import Parallel
from timeloupe.train.policy_loss import LossSettings, policy_loss
from timeloupe.train.rollout_part import RolloutPart, local_policy

LOG_PROBS = st.lists(st.floats(-8, 0, width=32), min_size=3, max_size=3)


def sample(*, off_policy: bool = False) -> Sample:
    """A roll-out; only whose it is matters here."""
    return Sample(TokenEpisode((TokenSegment((1, 2, 3), True),)), 1.0, off_policy)


def batch(sampled: list[list[float]] | None, learnt: list[list[bool]] | None = None) -> ModelBatch:
    """One row per roll-out, three tokens."""
    rows = len(sampled) if sampled is not None else 1
    ids = torch.ones(rows, 3, dtype=torch.int64)
    mask = torch.ones(rows, 3, dtype=torch.bool) if learnt is None else torch.tensor(learnt)
    known = None if sampled is None else torch.tensor(sampled)
    return ModelBatch(ids, ids, mask, ids.expand(3, -1, -1), known)


@given(LOG_PROBS, LOG_PROBS, LOG_PROBS)
def test_by_default_the_ratio_is_to_what_was_sampled(
    sampled: list[float], trainer: list[float], later: list[float]
) -> None:
    old, samples = OldLogProbs(RolloutPart()), [sample()]
    for now in (trainer, later):
        found, weights = old(samples, torch.tensor([now]), batch([sampled]))
        assert found is not None and found.tolist() == torch.tensor([sampled]).tolist() and weights is None
    figures = old.figures(Parallel())
    gap = (torch.tensor(trainer) - torch.tensor(sampled)).abs()
    # Of the first pass: later the trainer has moved on.
    assert figures == {"gap_max": float(gap.max()), "gap_mean": pytest.approx(float(gap.sum()) / 3)}


@given(LOG_PROBS, LOG_PROBS, LOG_PROBS, st.floats(1, 4))
def test_the_trainers_own_are_kept_over_the_passes(
    sampled: list[float], trainer: list[float], later: list[float], cap: float
) -> None:
    old = OldLogProbs(RolloutPart(old="trainer", importance_cap=cap))
    samples = [sample()]
    expected = (torch.tensor(trainer) - torch.tensor(sampled)).exp().clamp(max=cap)
    for now in (trainer, later):
        found, weights = old(samples, torch.tensor([now], requires_grad=True), batch([sampled]))
        assert found is not None and weights is not None
        assert found.tolist() == torch.tensor([trainer]).tolist() and not found.requires_grad
        assert torch.allclose(weights[0], expected)
    capped = sum(ratio > cap for ratio in (torch.tensor(trainer) - torch.tensor(sampled)).exp().tolist())
    assert old.figures(Parallel())["capped"] == pytest.approx(capped / 3)


def test_only_learnt_tokens_of_own_roll_outs_are_compared() -> None:
    old = OldLogProbs(RolloutPart(old="trainer", importance_cap=2.0))
    now = torch.tensor([[-1.0, -1.0, -9.0], [-1.0, -1.0, -1.0]])
    known = batch([[-1.5, -1.0, 0.0], [-7.0, -7.0, -7.0]], [[True, True, False], [True] * 3])
    _, weights = old([sample(), sample(off_policy=True)], now, known)
    assert weights is not None
    assert weights.tolist() == [[pytest.approx(1.6487, abs=1e-4), 1.0, 1.0], [1.0, 1.0, 1.0]]
    assert old.figures(Parallel()) == {"gap_max": 0.5, "gap_mean": 0.25, "capped": 0.0}


def test_roll_outs_without_recorded_log_probabilities_are_no_ratio_of_one() -> None:
    now = torch.tensor([[-1.0, -2.0, -3.0]])
    for part in (RolloutPart(), RolloutPart(old="trainer", importance_cap=2.0)):
        with pytest.raises(TimeloupeError, match="came without log-probabilities"):
            OldLogProbs(part)([sample(), sample(off_policy=True)], now, batch(None))
    # They are not compared with anything here, so they need not be known.
    own = OldLogProbs(RolloutPart(old="trainer"))
    found, weights = own([sample()], now, batch(None))
    assert found is not None and torch.equal(found, now) and weights is None
    plain = OldLogProbs(RolloutPart())
    assert plain([sample(off_policy=True)], now, batch(None)) == (None, None)
    assert plain.figures(Parallel()) == own.figures(Parallel()) == {}


@pytest.mark.parametrize("part", [RolloutPart(), RolloutPart(old="trainer")])
@pytest.mark.parametrize(("now", "then"), [(float("nan"), -1.0), (-1.0, float("nan")), (-1.0, -float("inf"))])
def test_a_gap_that_is_no_number_ends_the_run(part: RolloutPart, now: float, then: float) -> None:
    trainer, known = torch.tensor([[-1.0, now, -1.0]]), batch([[-1.0, then, -1.0]])
    with pytest.raises(TimeloupeError, match="which is no number"):
        OldLogProbs(part)([sample()], trainer, known)
    ignored = batch([[-1.0, then, -1.0]], [[True, False, True]])  # a token that is not learnt is not compared
    OldLogProbs(part)([sample()], trainer, ignored)


@given(LOG_PROBS, st.floats(-2, 2).filter(bool))
def test_weights_scale_the_policy_term_of_their_token_and_not_the_kl(
    values: list[float], advantage: float
) -> None:
    log_probs, mask = torch.tensor([values]), torch.ones(1, 3)
    settings = LossSettings(kl_weight=0.1)
    common: dict[str, Any] = {"reference_log_probs_BT": log_probs - 0.3}

    def loss(weights: torch.Tensor | None, **changes: Any) -> float:
        chosen = replace(settings, **changes)
        advantages = torch.tensor([advantage])
        return float(
            policy_loss(log_probs, log_probs, advantages, mask, chosen, weights_BT=weights, **common).total
        )

    assert loss(None) == loss(torch.ones(1, 3))
    kl = loss(torch.zeros(1, 3))
    assert kl > 0
    assert loss(torch.tensor([[2.0, 0.0, 0.5]])) - kl == pytest.approx(-advantage * 2.5 / 3, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"memory_gib": 1.0}, "setting of vLLM"),
        ({"max_model_len": 100, "backend": "local"}, "setting of vLLM"),
        ({"importance_cap": 2.0}, "needs rollout.old = 'trainer'"),
        ({"importance_cap": 0.5, "old": "trainer"}, "greater than or equal to 1"),
        ({"backend": "sglang"}, "'local' or 'vllm'"),
        ({"backend": "vllm", "memory_gib": 0}, "greater than 0"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        RolloutPart.model_validate(values)


def test_an_engine_has_to_be_given() -> None:
    with pytest.raises(ConfigError, match=r"timeloupe\.engines\.rollouts\.make_policy"):
        local_policy(None, RolloutPart(backend="vllm"))  # type: ignore[arg-type]
