"""Log-probabilities at the targets equal those of the full logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.model.tiny import tiny_loaded
from timeloupe.model import forward
from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.model.expand import expand
from timeloupe.model.forward import hidden_states, logits_at, target_logprobs, target_logprobs_and_entropy


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_target_logprobs_equal_the_full_softmax(family: str) -> None:
    loaded = tiny_loaded(family)
    layout, model = loaded.layout, loaded.model
    clip = Clip(np.full((3, layout.size_multiple, layout.size_multiple, 3), 99, np.uint8), (0.0, 0.5, 1.0))
    episodes = [
        TokenEpisode((TokenSegment((1, *layout.placeholder())), TokenSegment((2, 3, 4), True)), (clip,)),
        TokenEpisode(
            (TokenSegment((5,)), TokenSegment((6,), True), TokenSegment((7,)), TokenSegment((8,), True))
        ),
    ]
    batch = expand(episodes, layout)
    with torch.no_grad():
        full = model(**batch.model_inputs()).logits[:, :-1].log_softmax(-1)
        expected = full.gather(2, batch.input_ids_BT[:, 1:, None])[..., 0]
        found = target_logprobs(model, batch)
        hidden = hidden_states(model, batch)
        last = logits_at(model, hidden, torch.tensor([1]), torch.tensor([3]))
    mask = batch.loss_mask_BT[:, 1:]
    torch.testing.assert_close(found[:, 1:][mask], expected[mask], rtol=1e-5, atol=1e-5)
    assert not found[~batch.loss_mask_BT].any()
    torch.testing.assert_close(
        last[0].log_softmax(-1), model(**batch.model_inputs()).logits[1, 3].log_softmax(-1)
    )


def test_gradient_reaches_the_model() -> None:
    loaded = tiny_loaded("qwen3_vl")
    batch = expand([TokenEpisode((TokenSegment((5,)), TokenSegment((6, 7), True)))], loaded.layout)
    head: Any = loaded.model.get_output_embeddings()
    target_logprobs(loaded.model, batch).sum().backward()
    assert head.weight.grad is not None and head.weight.grad.abs().sum() > 0
    loaded.model.zero_grad()


def test_entropy_is_that_of_the_whole_vocabulary_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_loaded("qwen3_vl")
    segments = (TokenSegment((5, 9, 11)), TokenSegment((6, 7, 3, 4, 2), True))
    batch = expand([TokenEpisode(segments)], loaded.layout)
    logprobs, entropy = target_logprobs_and_entropy(loaded.model, batch)
    assert logprobs.requires_grad and not entropy.requires_grad
    monkeypatch.setattr(forward, "ENTROPY_ROWS", 2)
    torch.testing.assert_close(target_logprobs_and_entropy(loaded.model, batch)[1], entropy)
    logits = loaded.model(**batch.model_inputs()).logits[0, 2:7].float()
    expected = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy[0, 3:], expected.detach(), rtol=1e-5, atol=1e-5)
    assert not entropy[0, :3].any()
