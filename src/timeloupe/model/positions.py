"""Three-dimensional positions (time, height, width) of text and visual tokens.

Sources: M-RoPE, Qwen2-VL (arXiv:2409.12191, section 2.1), its absolute-time form, Qwen2.5-VL
(arXiv:2502.13923, section 2.1.1), and the text-timestamp form of Qwen3-VL (arXiv:2511.21631). Text tokens
count up by one on all three axes; the tokens of one grid spread from the position where the grid starts; text
goes on at the greatest position so far plus one.

Two faults of the library for Qwen2.5-VL are not repeated here, so its ``get_rope_index`` is never relied on:

1. transformers 5.3 to 5.23 go on after a video at ``start + max(height, width)``, ignoring its temporal
   extent: text after a long video gets positions that the video already used.
2. transformers up to 5.17 truncate the seconds per frame group to whole seconds: above 2 frames a second
   (groups of two) all frames get the same time.

The model must always be handed these positions: a pass that continues a cache and brings a new video would
otherwise count from ``rope_deltas``, which is state of the last generation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Block:
    """Visual tokens that share one grid.

    Attributes:
        start: Index of the first of them in the expanded row.
        times: Temporal position of each slice, relative to the first; ascending from 0.
        rows: Visual tokens per column.
        columns: Visual tokens per row.
    """

    start: int
    times: tuple[int, ...]
    rows: int
    columns: int

    @property
    def num_tokens(self) -> int:
        """Tokens of the block."""
        return len(self.times) * self.rows * self.columns


def positions(num_tokens: int, blocks: Sequence[Block], *, first: int = 0) -> np.ndarray:
    """Return int64 positions of shape (3, T): time, height, width of each token of one row.

    Args:
        num_tokens: T, tokens of the row.
        blocks: The row's grids in order; every other token is text.
        first: Position of the first token.
    """
    advance_T = np.ones(num_tokens, dtype=np.int64)
    offset_3T = np.zeros((3, num_tokens), dtype=np.int64)
    for block in blocks:
        end = block.start + block.num_tokens
        advance_T[block.start : end - 1] = 0
        advance_T[end - 1] = max(block.times[-1] + 1, block.rows, block.columns)
        offset_3T[:, block.start : end] = _grid_offsets(block.times, block.rows, block.columns)
    return offset_3T + (first + np.cumsum(advance_T) - advance_T)


def grid_times(num_groups: int, seconds_per_group: float, tokens_per_second: float) -> tuple[int, ...]:
    """Return the temporal position of each frame group of a Qwen2.5-VL clip: the floor of its time x rate.

    Rounded to 4 decimals before the floor, so that times a hair below a whole number do not fall short.
    """
    step = seconds_per_group * tokens_per_second
    return tuple(math.floor(round(index * step, 4)) for index in range(num_groups))


@lru_cache(maxsize=512)
def _grid_offsets(times: tuple[int, ...], rows: int, columns: int) -> np.ndarray:
    grid = np.meshgrid(np.asarray(times), np.arange(rows), np.arange(columns), indexing="ij")
    return np.stack(grid).reshape(3, -1)
