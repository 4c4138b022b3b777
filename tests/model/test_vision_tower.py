"""The quick vision tower gives the library's numbers and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.model.tiny import tiny_checkpoint
from timeloupe.model.load import load_model

# Equal frames; frames of three sizes, which Qwen2.5-VL cuts into windows of unequal length.
GRIDS = {"equal": [[4, 2, 2], [3, 2, 2]], "mixed": [[2, 2, 4], [3, 6, 10], [1, 2, 4], [1, 4, 4]]}


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("name", GRIDS)
def test_same_features_and_gradients_as_the_library(tmp_path: Any, family: str, name: str) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny", family)
    grid = torch.tensor(GRIDS[name])
    results = []
    for fast in (False, True):
        loaded = load_model(folder, device="cpu", fast_vision=fast)
        tower: Any = loaded.model.model.visual  # type: ignore[union-attr]
        width = tower.patch_embed.proj.weight.flatten(1).shape[1]
        patches = torch.randn(int(grid.prod(1).sum()), width, generator=torch.Generator().manual_seed(1))
        features = tower(patches, grid_thw=grid).pooler_output
        features.square().mean().backward()
        results.append(
            (features.detach(), [item.grad for item in tower.parameters() if item.grad is not None])
        )
    (slow, slow_grads), (fast_, fast_grads) = results
    torch.testing.assert_close(fast_, slow, rtol=1e-5, atol=1e-5)
    assert len(slow_grads) == len(fast_grads) > 10
    for one, other in zip(slow_grads, fast_grads, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_merged_grids_give_the_same_features(tmp_path: Any) -> None:
    loaded = load_model(tiny_checkpoint(tmp_path / "tiny"), device="cpu")
    tower: Any = loaded.model.model.visual  # type: ignore[union-attr]
    patches = torch.randn(24, tower.patch_embed.proj.weight.flatten(1).shape[1])
    with torch.no_grad():
        apart = tower(patches, grid_thw=torch.tensor([[2, 2, 2], [4, 2, 2]])).pooler_output
        merged = tower(patches, grid_thw=torch.tensor([[6, 2, 2]])).pooler_output
    assert torch.equal(apart, merged)
