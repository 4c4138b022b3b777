"""Muon and the schedule."""

import pytest
import torch
from torch import nn

from timeloupe.errors import ConfigError
from timeloupe.train.optimizer import build_optimizers, orthogonalised, schedule, set_learning_rate


@pytest.mark.parametrize("shape", [(8, 8), (16, 4), (4, 32)])
def test_orthogonalised_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_fits_a_linear_map() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 8)
    inputs, target = torch.randn(64, 8), torch.randn(64, 8)
    optimizers = build_optimizers(model, "muon", 0.02)
    first = last = 0.0
    for step in range(150):
        set_learning_rate(optimizers, schedule(step, 150))
        loss = (model(inputs) - target).square().mean()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        first, last = (loss.item() if step == 0 else first), loss.item()
    best = (inputs @ torch.linalg.lstsq(inputs, target).solution - target).square().mean().item()
    assert last < first
    assert last < 1.1 * best


def test_frozen_parameters_have_no_optimizer() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    held = [p for o in build_optimizers(model, "muon", 0.1) for g in o.param_groups for p in g["params"]]
    assert {id(p) for p in held} == {id(p) for p in model[1].parameters()}
    with pytest.raises(ConfigError, match="adamw"):
        build_optimizers(model, "sgd", 0.1)  # type: ignore[arg-type]


def test_schedule_warms_up_and_ends_near_zero() -> None:
    factors = [schedule(step, 100) for step in range(100)]
    assert factors[0] < 0.5
    assert max(factors) == 1
    assert factors[-1] < 0.05
    assert all(0 < factor <= 1 for factor in factors)


@pytest.mark.parametrize("bias", [False, True])
def test_muon_takes_a_model_of_matrices_alone_as_adapters_are(bias: bool) -> None:
    model = nn.Linear(4, 4, bias=bias)
    held = [p for o in build_optimizers(model, "muon", 0.1) for g in o.param_groups for p in g["params"]]
    assert {id(one) for one in held} == {id(one) for one in model.parameters()}
