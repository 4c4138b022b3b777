"""Reading prompts before a turn is decoded: what is known is not read again, what is equal is read once.

A long prompt of several rows keeps one copy of its keys and values for all of them (``SharedKeys``): each decoding step
goes over it once instead of once per row, and no row holds a copy.

Shapes: B rows, T columns of the cache, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from timeloupe.model.cache import make_cache
from timeloupe.model.decoder import Shared, can_decode
from timeloupe.model.episode import TokenEpisode, same_clips
from timeloupe.model.expand import expand
from timeloupe.model.load import LoadedModel
from timeloupe.policy.prefix_memory import Layers, Prefix, SharedKeys, rest_of

SHARE_FROM = 512
"""Tokens from which on a prompt of several rows is kept once: below, the extra products cost more than the copies."""


@dataclass
class State:
    """Rows that are being decoded: B rows, T columns of the cache, left padding included.

    Attributes:
        cache: Keys and values of the rows; without those of ``shared_B``.
        mask_BT: 0 at padding.
        next_position_B: Of the token that comes next.
        logits_BV: Of that token.
        num_read: Prompt tokens that were computed.
        shared_B: What each row looks at before its own columns; of all rows or of none.
    """

    cache: DynamicCache
    mask_BT: torch.Tensor
    next_position_B: torch.Tensor
    logits_BV: torch.Tensor
    num_read: int
    shared_B: list[SharedKeys] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.padded = not bool(self.mask_BT.all())
        self.shared = self._shared()

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order; the logits are those of the next step anyway."""
        rows_R = torch.tensor(rows, device=self.mask_BT.device)
        self.cache.batch_select_indices(rows_R)
        self.mask_BT, self.next_position_B = self.mask_BT[rows_R], self.next_position_B[rows_R]
        self.shared_B = [self.shared_B[row] for row in rows] if self.shared_B else []
        self.shared = self._shared()

    def _shared(self) -> list[Shared]:
        """Return what is shared by whom; rows ``None`` = all of them."""
        rows_of: dict[int, list[int]] = {}
        for row, one in enumerate(self.shared_B):
            rows_of.setdefault(id(one), []).append(row)
        device = self.mask_BT.device
        return [
            (self.shared_B[rows[0]].layers, None if len(rows_of) == 1 else torch.tensor(rows, device=device))
            for rows in rows_of.values()
        ]

    def prefix(self, row: int, episode: TokenEpisode, sampled: Sequence[int]) -> Prefix:
        """Return what is known of one row whose turn ended with the tokens ``sampled``."""
        columns = self.mask_BT[row].nonzero()[:, 0]
        shared = self.shared_B[row] if self.shared_B else None
        ids = (*episode.token_ids, *sampled[:-1])
        position = int(self.next_position_B[row])
        return Prefix(ids, episode.clips, _columns(self.cache, row, columns), position, shared)


def _columns(cache: DynamicCache, row: int, columns: torch.Tensor) -> Layers:
    layers: Any = cache.layers
    return tuple(
        (
            one.keys[row : row + 1].index_select(2, columns),
            one.values[row : row + 1].index_select(2, columns),
        )
        for one in layers
        if one.keys is not None
    )


def read(episodes: Sequence[TokenEpisode], known: Sequence[Prefix | None], loaded: LoadedModel) -> State:
    """Return the state of some rows before their first token.

    Args:
        episodes: What each row is shown.
        known: What was computed of it; of all rows or of none.
        loaded: The model.
    """
    prompts, prompt_of = _distinct(episodes, known)
    prefixes = [prefix for row in prompts if (prefix := known[row]) is not None]
    rests = [
        episodes[row] if (prefix := known[row]) is None else rest_of(episodes[row], prefix) for row in prompts
    ]
    batch = expand(rests, loaded.layout, pad_side="left").to(loaded.device)
    cache = make_cache(loaded.model.config.get_text_config())
    mask_BT, position_ids_3BT = batch.attention_mask_BT, batch.position_ids_3BT
    num_shared = 0
    if prefixes:
        before_BT, num_shared = _restore(cache, prefixes, loaded.device)
        mask_BT = torch.cat([before_BT, mask_BT], 1)
        first_B = torch.tensor([prefix.next_position for prefix in prefixes], device=loaded.device)
        position_ids_3BT = position_ids_3BT + first_B[None, :, None]
    inputs = batch.model_inputs() | {
        "attention_mask": _bias(mask_BT, batch.input_ids_BT.shape[1], loaded.model.dtype),
        "position_ids": position_ids_3BT,
    }
    out = loaded.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    num_read = int(batch.attention_mask_BT.sum())
    position_B = position_ids_3BT.amax(dim=(0, 2)) + 1
    if num_shared:
        shared = [prefix.shared for prefix in prefixes if prefix.shared is not None]
        return State(
            _without(cache, num_shared, loaded), mask_BT[:, num_shared:], position_B, out.logits[:, -1],
            num_read, shared,
        )  # fmt: skip
    if prefixes or len(prompts) == len(episodes):
        return State(cache, mask_BT, position_B, out.logits[:, -1], num_read)
    rows_B = torch.tensor(prompt_of, device=loaded.device)
    if int(mask_BT.sum(1).min()) >= SHARE_FROM and can_decode(loaded.model):
        kept = [SharedKeys(_columns(cache, row, mask_BT[row].nonzero()[:, 0])) for row in range(len(prompts))]
        empty = make_cache(loaded.model.config.get_text_config())
        return State(
            empty, mask_BT[rows_B, :0], position_B[rows_B], out.logits[rows_B, -1], num_read,
            [kept[prompt] for prompt in prompt_of],
        )  # fmt: skip
    cache.batch_select_indices(rows_B)
    return State(cache, mask_BT[rows_B], position_B[rows_B], out.logits[rows_B, -1], num_read)


def _distinct(
    episodes: Sequence[TokenEpisode], known: Sequence[Prefix | None]
) -> tuple[list[int], list[int]]:
    """Return the rows that have to be read, and for each row which of these it equals; known ones equal none."""
    prompts: list[int] = []
    prompt_of: list[int] = []
    for row, episode in enumerate(episodes):
        same = (
            index for index, other in enumerate(prompts)
            if known[row] is None and episodes[other].token_ids == episode.token_ids
            and same_clips(episodes[other].clips, episode.clips)
        )  # fmt: skip
        prompt_of.append(next(same, len(prompts)))
        if prompt_of[-1] == len(prompts):
            prompts.append(row)
    return prompts, prompt_of


def _bias(mask_BT: torch.Tensor, num_new: int, dtype: torch.dtype) -> torch.Tensor | None:
    """Return what is added to the scores of the last ``num_new`` columns, (B, 1, new, T); ``None`` = plain causal.

    Made once in the form that attention wants: the library's own would be converted in every layer. A padded token
    looks at itself, since a row that looks at nothing is no number.
    """
    num_columns = mask_BT.shape[1]
    if num_columns == num_new and bool(mask_BT.all()):
        return None
    columns_T = torch.arange(num_columns, device=mask_BT.device)
    own_Q = columns_T[num_columns - num_new :, None]
    seen_BQT = (mask_BT[:, None].bool() & (columns_T <= own_Q)) | (columns_T == own_Q)
    bias = torch.zeros(seen_BQT.shape, dtype=dtype, device=mask_BT.device)
    return bias.masked_fill_(~seen_BQT, -torch.inf)[:, None]


def _restore(
    cache: DynamicCache, prefixes: Sequence[Prefix], device: torch.device
) -> tuple[torch.Tensor, int]:
    """Fill an empty cache with prefixes, shared keys in columns before the rows' own, each padded on the left.

    Returns:
        The mask of the columns, int64 (B, T), and how many of these are of shared keys: 0 unless all rows have some.
    """
    all_share = all(prefix.shared is not None for prefix in prefixes)
    parts: list[list[Layers]] = [[prefix.layers for prefix in prefixes]]
    if all_share:
        parts.insert(0, [prefix.shared.layers for prefix in prefixes if prefix.shared is not None])
    else:
        parts = [[prefix.all_layers() for prefix in prefixes]]
    lengths = [[_length(layers) for layers in part] for part in parts]
    widths = [max(part) for part in lengths]
    mask_BT = torch.zeros(len(prefixes), sum(widths), dtype=torch.int64, device=device)
    for start, width, counts in zip((0, widths[0]), widths, lengths, strict=False):
        for row, count in enumerate(counts):
            mask_BT[row, start + width - count : start + width] = 1
    for index in range(len(parts[0][0])):
        joined = []
        for which in (0, 1):
            sample = parts[0][0][index][which]
            full = sample.new_zeros(len(prefixes), sample.shape[1], sum(widths), sample.shape[3])
            for start, width, part in zip((0, widths[0]), widths, parts, strict=False):
                for row, layers in enumerate(part):
                    if layers:
                        end = start + width
                        full[row, :, end - _length(layers) : end] = layers[index][which][0]
            joined.append(full)
        cache.update(joined[0], joined[1], index)
    return mask_BT, widths[0] if all_share else 0


def _length(layers: Layers) -> int:
    return layers[0][0].shape[2] if layers else 0


def _without(cache: DynamicCache, num_columns: int, loaded: LoadedModel) -> DynamicCache:
    """Return a cache without the first columns."""
    kept = make_cache(loaded.model.config.get_text_config())
    layers: Any = cache.layers
    for index, one in enumerate(layers):
        kept.update(one.keys[:, :, num_columns:].clone(), one.values[:, :, num_columns:].clone(), index)
    return kept
