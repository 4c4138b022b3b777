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
from timeloupe.model.decoder import can_decode
from timeloupe.model.episode import TokenEpisode, same_clips
from timeloupe.model.expand import expand
from timeloupe.model.load import LoadedModel
from timeloupe.model.packing import use_packed_attention
from timeloupe.model.shared_keys import Shared
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
        self.shared = shared_groups(self.shared_B, self.mask_BT.device)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order; the logits are those of the next step anyway."""
        rows_R = torch.tensor(rows, device=self.mask_BT.device)
        self.cache.batch_select_indices(rows_R)
        self.mask_BT, self.next_position_B = self.mask_BT[rows_R], self.next_position_B[rows_R]
        self.shared_B = [self.shared_B[row] for row in rows] if self.shared_B else []
        self.shared = shared_groups(self.shared_B, self.mask_BT.device)

    def prefix(self, row: int, episode: TokenEpisode, sampled: Sequence[int]) -> Prefix:
        """Return what is known of one row whose turn ended with the tokens ``sampled``."""
        columns = self.mask_BT[row].nonzero()[:, 0]
        shared = self.shared_B[row] if self.shared_B else None
        ids = (*episode.token_ids, *sampled[:-1])
        position = int(self.next_position_B[row])
        return Prefix(ids, episode.clips, _columns(self.cache, row, columns), position, shared)


def shared_groups(shared_B: Sequence[SharedKeys], device: torch.device) -> list[Shared]:
    """Return what is shared by which rows; ``None`` = by all of them."""
    rows_of: dict[int, list[int]] = {}
    for row, one in enumerate(shared_B):
        rows_of.setdefault(id(one), []).append(row)
    return [
        (shared_B[rows[0]].layers, None if len(rows_of) == 1 else torch.tensor(rows, device=device))
        for rows in rows_of.values()
    ]


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
    shared_B: list[SharedKeys] = []
    extra: dict[str, Any] = {}
    if prefixes:
        shared_B = [prefix.shared for prefix in prefixes if prefix.shared is not None]
        if len(shared_B) < len(prefixes):
            shared_B = []
        before_BT = _restore(
            cache, [prefix.layers if shared_B else prefix.all_layers() for prefix in prefixes], loaded.device
        )
        mask_BT = torch.cat([before_BT, mask_BT], 1)
        first_B = torch.tensor([prefix.next_position for prefix in prefixes], device=loaded.device)
        position_ids_3BT = position_ids_3BT + first_B[None, :, None]
    if shared_B:
        use_packed_attention(loaded.model)
        extra = {"shared": shared_groups(shared_B, loaded.device)}
    bias = _bias(mask_BT, batch.input_ids_BT.shape[1], loaded.model.dtype, needed=bool(shared_B))
    inputs = batch.model_inputs() | {"attention_mask": bias, "position_ids": position_ids_3BT} | extra
    out = loaded.model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    num_read = int(batch.attention_mask_BT.sum())
    position_B = position_ids_3BT.amax(dim=(0, 2)) + 1
    if prefixes or len(prompts) == len(episodes):
        return State(cache, mask_BT, position_B, out.logits[:, -1], num_read, shared_B)
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


def _bias(
    mask_BT: torch.Tensor, num_new: int, dtype: torch.dtype, *, needed: bool = False
) -> torch.Tensor | None:
    """Return what is added to the scores of the last ``num_new`` columns, (B, 1, new, T).

    Where all is plain causal it is ``None``, unless it is ``needed``.

    Made once in the form that attention wants: the library's own would be converted in every layer. A padded token
    looks at itself, since a row that looks at nothing is no number.
    """
    num_columns = mask_BT.shape[1]
    if not needed and num_columns == num_new and bool(mask_BT.all()):
        return None
    columns_T = torch.arange(num_columns, device=mask_BT.device)
    own_Q = columns_T[num_columns - num_new :, None]
    seen_BQT = (mask_BT[:, None].bool() & (columns_T <= own_Q)) | (columns_T == own_Q)
    bias = torch.zeros(seen_BQT.shape, dtype=dtype, device=mask_BT.device)
    return bias.masked_fill_(~seen_BQT, -torch.inf)[:, None]


def _restore(cache: DynamicCache, prefixes: Sequence[Layers], device: torch.device) -> torch.Tensor:
    """Fill an empty cache with keys and values, padded on the left; return the mask of its columns, int64 (B, T)."""
    lengths = [layers[0][0].shape[2] if layers else 0 for layers in prefixes]
    width = max(lengths)
    mask_BT = torch.zeros(len(prefixes), width, dtype=torch.int64, device=device)
    for row, count in enumerate(lengths):
        mask_BT[row, width - count :] = 1
    longest = prefixes[lengths.index(width)]
    for index in range(len(longest)):
        joined = []
        for which in (0, 1):
            sample = longest[index][which]
            full = sample.new_zeros(len(prefixes), sample.shape[1], width, sample.shape[3])
            for row, layers in enumerate(prefixes):
                if layers:
                    full[row, :, width - lengths[row] :] = layers[index][which][0]
            joined.append(full)
        cache.update(joined[0], joined[1], index)
    return mask_BT
