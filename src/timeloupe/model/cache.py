"""A key-value cache with spare room, so that a decoded token does not copy everything that came before it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Positions allocated ahead."""


class _RoomyLayer(DynamicLayer):
    """The library's growing layer; keys and values are views of larger buffers that new positions are written to.

    A cache must not be copied shallowly and then continued in both copies: they would write to the same room.
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to the cache; returns all keys and values, (rows, heads, positions, head size)."""
        if not self.is_initialized or self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        else:
            self.keys, self.values = _append(self.keys, key_states), _append(self.values, value_states)
        return self.keys, self.values


def _append(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Return ``old`` and ``new`` joined along positions, written into the buffer behind ``old`` if it has room."""
    rows, heads, used, size = old.shape
    total = used + new.shape[2]
    buffer = getattr(old, "_roomy_buffer", None)
    if buffer is None or buffer.shape[2] < total:
        buffer = old.new_empty(rows, heads, total + ROOM, size)
        buffer[:, :, :used] = old
    buffer[:, :, used:total] = new
    joined = buffer[:, :, :total]
    joined._roomy_buffer = buffer  # type: ignore[attr-defined]
    return joined


def make_cache(config: PretrainedConfig) -> DynamicCache:
    """Return an empty cache for a text model; layers with sliding windows stay the library's own."""
    cache = DynamicCache(config=config)
    cache.layers = [_RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
