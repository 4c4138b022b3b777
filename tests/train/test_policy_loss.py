"""The policy loss: against formulas by hand, in parts, at masked places, and with a ratio that is not 1."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.errors import ConfigError
from timeloupe.train.policy_loss import LossSettings, aggregate, k3, policy_loss

MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])


def tensors(seed: int, rows: int = 3, columns: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities with gradient, old ones, advantages."""
    random = torch.Generator().manual_seed(seed)
    now = -torch.rand(rows, columns, generator=random, dtype=torch.float64) * 3
    old = now + 0.6 * torch.randn(rows, columns, generator=random, dtype=torch.float64)
    return now.requires_grad_(True), old, torch.randn(rows, generator=random, dtype=torch.float64)


def gradient(settings: LossSettings, seed: int = 0, old: bool = True) -> torch.Tensor:
    """Gradient of the loss at the log-probabilities."""
    now, before, advantages = tensors(seed)
    policy_loss(now, before if old else None, advantages, MASK, settings).total.backward()
    assert now.grad is not None
    return now.grad


def test_a_clipped_token_by_hand() -> None:
    now = torch.tensor([[0.0, 0.0]], requires_grad=True)
    old = torch.tensor([[-1.0, 0.0]])  # ratios e and 1
    found = policy_loss(now, old, torch.tensor([2.0]), torch.ones(1, 2), LossSettings())
    assert found.total.item() == pytest.approx(-(2 * 1.2 + 2 * 1.0) / 2)
    assert found.clip_share == 0.5
    assert found.ratio_mean == pytest.approx((math.e + 1) / 2)
    found.total.backward()
    assert now.grad is not None and now.grad.tolist() == [[0.0, -1.0]]


def test_a_bad_token_that_became_likely_is_bounded_by_the_dual_clip() -> None:
    now, old = torch.zeros(1, 1), torch.full((1, 1), -4.0)
    free = policy_loss(now, old, torch.tensor([-1.0]), torch.ones(1, 1), LossSettings())
    bound = policy_loss(now, old, torch.tensor([-1.0]), torch.ones(1, 1), LossSettings(dual_clip=3.0))
    assert free.total.item() == pytest.approx(math.exp(4))
    assert bound.total.item() == pytest.approx(3.0)


def test_a_sequence_ratio_is_of_the_mean_and_reaches_every_token() -> None:
    now = torch.tensor([[0.1, -0.1, 0.15]], requires_grad=True)
    found = policy_loss(
        now, torch.zeros(1, 3), torch.tensor([1.0]), torch.ones(1, 3), LossSettings(importance="sequence")
    )
    assert found.total.item() == pytest.approx(-math.exp(0.05))
    found.total.backward()
    assert now.grad is not None
    assert now.grad[0].tolist() == pytest.approx([-math.exp(0.05) / 3] * 3)


def test_on_the_first_update_sequence_and_token_agree_and_then_they_do_not() -> None:
    token, sequence = LossSettings(), LossSettings(importance="sequence")
    assert torch.allclose(gradient(token, old=False), gradient(sequence, old=False))
    assert not torch.allclose(gradient(token), gradient(sequence))


@given(st.integers(0, 10_000), st.sampled_from(["token_mean", "sequence_mean", "sequence_sum"]))
def test_parts_add_up_to_the_whole(seed: int, how: str) -> None:
    now, old, advantages = tensors(seed)
    settings = LossSettings(aggregate=how, kl_weight=0.1)
    reference = old - 0.1
    whole = policy_loss(now, old, advantages, MASK, settings, reference_log_probs_BT=reference).total
    parts = [
        policy_loss(
            now[at : at + 1], old[at : at + 1], advantages[at : at + 1], MASK[at : at + 1], settings,
            reference_log_probs_BT=reference[at : at + 1], num_tokens=int(MASK.sum()), num_sequences=3,
        ).total
        for at in range(3)
    ]  # fmt: skip
    assert torch.allclose(whole, torch.stack(parts).sum(), rtol=1e-9)


@given(
    st.integers(0, 10_000),
    st.sampled_from(["token", "sequence"]),
    st.sampled_from([math.inf, -math.inf, math.nan]),
)
def test_what_stands_at_masked_places_has_no_effect(seed: int, importance: str, junk: float) -> None:
    settings = LossSettings(importance=importance, kl_weight=0.1, dual_clip=3.0)
    found = []
    for value in (0.0, junk):
        now, old, advantages = tensors(seed)
        dirty = torch.where(MASK > 0, now, torch.full_like(now, value))
        total = policy_loss(
            dirty, torch.where(MASK > 0, old, value), advantages, MASK, settings,
            reference_log_probs_BT=torch.where(MASK > 0, old, value), off_policy_B=torch.tensor([False, True, False]),
        ).total  # fmt: skip
        total.backward()
        assert now.grad is not None and bool(torch.isfinite(now.grad).all())
        found.append((total.item(), now.grad.tolist()))
    assert found[0] == found[1]


def test_rows_that_were_not_sampled_are_cloned_by_their_weight() -> None:
    now = torch.tensor([[-1.0, -2.0], [-1.0, -2.0]], requires_grad=True)
    found = policy_loss(
        now, None, torch.tensor([0.5, 0.5]), torch.ones(2, 2), LossSettings(aggregate="token_mean"),
        off_policy_B=torch.tensor([True, False]),
    )  # fmt: skip
    assert found.total.item() == pytest.approx((0.5 * 3 - 0.5 * 2) / 4)
    found.total.backward()
    assert now.grad is not None and torch.allclose(now.grad, torch.full((2, 2), -0.125))


def test_rows_that_were_not_sampled_are_in_no_figure_of_ratios() -> None:
    now = torch.tensor([[-1.0, -2.0], [-1.0, -2.0]])
    old = torch.tensor([[-1.5, -2.0], [-9.0, -9.0]])
    found = policy_loss(
        now, old, torch.tensor([0.5, 0.5]), torch.ones(2, 2), LossSettings(),
        off_policy_B=torch.tensor([False, True]),
    )  # fmt: skip
    ratio = math.exp(0.5)
    assert found.clip_share == 0.5
    assert found.ratio_mean == pytest.approx((ratio + 1) / 2)
    assert found.ratio_distance == pytest.approx((ratio - 1) / 2)


@given(st.floats(-50, 0), st.floats(-50, 0))
def test_kl_is_never_negative_and_bounded_where_asked(one: float, two: float) -> None:
    value = k3(torch.tensor(one), torch.tensor(two)).item()
    assert value >= -1e-6 and math.isfinite(value)
    assert k3(torch.tensor(one), torch.tensor(two), bound=10.0).item() <= 10


def test_nothing_to_learn_is_zero_and_no_nan() -> None:
    now, old, advantages = tensors(1)
    for how in ("token_mean", "sequence_mean", "sequence_sum"):
        total = policy_loss(now, old, advantages, torch.zeros(3, 3), LossSettings(aggregate=how)).total
        assert total.item() == 0
    assert aggregate(torch.ones(0, 3), torch.ones(0, 3), "token_mean").item() == 0


@pytest.mark.parametrize(
    "options",
    [{"importance": "word"}, {"aggregate": "max"}, {"clip_low": 2.0}, {"clip_high": -1.0}, {"dual_clip": 1.0},
     {"kl_weight": -0.1}],
)  # fmt: skip
def test_settings_that_are_none(options: dict) -> None:
    with pytest.raises(ConfigError, match="allowed"):
        LossSettings(**options)


def test_a_kl_weight_needs_a_reference() -> None:
    now, old, advantages = tensors(1)
    with pytest.raises(ConfigError, match="reference"):
        policy_loss(now, old, advantages, MASK, LossSettings(kl_weight=0.04))
