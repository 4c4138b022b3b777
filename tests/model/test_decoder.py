"""A decoding step of ours gives the library's numbers, and steps aside for models that it does not know."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from tests.model.tiny import tiny_loaded
from timeloupe.model.cache import make_cache
from timeloupe.model.decoder import Decoder, can_decode


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
def test_steps_equal_a_pass_over_everything(family: str, padded: bool) -> None:
    model: Any = tiny_loaded(family).model
    generator = torch.Generator().manual_seed(3)
    ids_BT = torch.randint(10, 200, (3, 12), generator=generator)
    mask_BT = torch.ones_like(ids_BT)
    if padded:
        mask_BT[1, :4] = 0
        mask_BT[2, :2] = 0
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    positions_3BT = positions_BT[None].expand(3, -1, -1)
    with torch.inference_mode():
        whole = model(input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_3BT).logits
        cache = make_cache(model.config.get_text_config())
        model(
            input_ids=ids_BT[:, :7], attention_mask=mask_BT[:, :7], position_ids=positions_3BT[:, :, :7],
            past_key_values=cache, use_cache=True,
        )  # fmt: skip
        decoder = Decoder(model)
        for column in range(7, 12):
            mask = mask_BT[:, : column + 1] if padded else None
            found = decoder.step(ids_BT[:, column], positions_BT[:, column], cache, mask)
            torch.testing.assert_close(found, whole[:, column], rtol=1e-4, atol=2e-5)


def test_what_it_does_not_know_is_left_to_the_library() -> None:
    model: Any = tiny_loaded("qwen3_vl").model
    assert can_decode(model)
    hooked = copy.deepcopy(model)
    hooked.base_model.language_model.layers[1].register_forward_pre_hook(lambda *_: None)
    assert not can_decode(hooked)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    assert not can_decode(eager)

    class Sharded(type(model)):
        """As a sharding wrapper renames a class."""

    sharded = copy.deepcopy(model)
    sharded.__class__ = Sharded
    assert not can_decode(sharded)
