"""The roomy cache holds what the library's growing cache holds."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from tests.model.tiny import tiny_loaded
from timeloupe.model.cache import ROOM, make_cache


def test_equal_to_the_growing_cache_through_appends_and_selections() -> None:
    config = tiny_loaded().model.config.get_text_config()
    random = torch.Generator().manual_seed(0)
    caches = (make_cache(config), DynamicCache(config=config))
    selections = {2: [1, 0, 1], 30: [2, 0]}
    rows = 3
    for step, length in enumerate([5, *[1] * (ROOM + 3), 7, 1]):
        keys, values = (torch.randn(rows, 2, length, 16, generator=random) for _ in range(2))
        ours, theirs = (cache.update(keys, values, 0) for cache in caches)
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
        assert caches[0].get_seq_length() == caches[1].get_seq_length()
        if step in selections:
            rows = len(selections[step])
            for cache in caches:
                cache.batch_select_indices(torch.tensor(selections[step]))
