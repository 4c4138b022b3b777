"""Episodes that begin alike, in one forward pass that computes every common token once.

The members of a group share system text, question and skim, often a first reply and its crop too. Here the tokens of
some episodes become one tree: a token that follows the same tokens and frames as another is the same token. All layers
but attention see the tree as one row without padding. Attention is computed row by row: a row asks for the tokens that
no row before it had, and they look at all that came before them in their own episode. Positions are those of the
episodes, and a token depends on nothing but what came before it, so the numbers are those of the episodes one by one,
up to rounding; gradients of shared tokens add up by themselves.

Shapes: B episodes, T tokens of the longest, N tokens of the tree, R rows of attention, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from timeloupe.errors import boundary
from timeloupe.model.episode import Clip, TokenEpisode, same_clips
from timeloupe.model.expand import ModelBatch, clip_pixels, expand
from timeloupe.model.forward import chosen_and_entropy, logits_at
from timeloupe.model.layout import Layout
from timeloupe.model.shared_keys import Shared, attend

ATTENTION = "timeloupe_packed"
"""Name under which the library knows the attention of this module; without a pack it is the library's SDPA."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of attention that are one call.

    Attributes:
        queries_RQ: Tree index of each query; 0 at padding.
        keys_RK: Tree index of each key, in the order of the episode; 0 at padding.
        mask_R1QK: float32, 0 where a query looks and -inf where not; ``None`` = queries and keys are the same tokens
            and each looks at itself and those before.
    """

    queries_RQ: torch.Tensor
    keys_RK: torch.Tensor
    mask_R1QK: torch.Tensor | None

    def to(self, device: torch.device) -> Rows:
        """Return the rows with all tensors on ``device``."""
        mask = None if self.mask_R1QK is None else self.mask_R1QK.to(device)
        return Rows(self.queries_RQ.to(device), self.keys_RK.to(device), mask)


@dataclass(frozen=True, eq=False)
class Pack:
    """One forward pass over a tree.

    Attributes:
        tree: The tree as a batch of one row: ids, positions, and the pixels of each clip once. ``loss_mask_BT`` is True
            at tokens that are a target of some episode.
        episodes: The episodes as they are: ids, masks, recorded log-probabilities; without pixels.
        path_BT: int64 tree index of each token of each episode; 0 at padding.
        parent_N: int64 tree index of the token before; any at the first of an episode.
        rows: How attention is computed.
        place_N: int64, where each tree token's result lies among all rows' queries, flattened call after call.
    """

    tree: ModelBatch
    episodes: ModelBatch
    path_BT: torch.Tensor
    parent_N: torch.Tensor
    rows: tuple[Rows, ...]
    place_N: torch.Tensor

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed."""
        return self.parent_N.shape[0]

    def to(self, device: torch.device) -> Pack:
        """Return the pack with all tensors on ``device``."""
        moved = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "rows"}
        return replace(
            self,
            rows=tuple(one.to(device) for one in self.rows),
            **{k: v.to(device) for k, v in moved.items()},
        )

    def model_inputs(self) -> dict[str, Any]:
        """Return the keyword arguments of ``model(...)``, for a model that ``use_packed_attention`` was called on."""
        inputs = self.tree.model_inputs()
        del inputs["attention_mask"]
        return inputs | {"pack": self}


def pack(episodes: Sequence[TokenEpisode], layout: Layout) -> Pack:
    """Return some episodes as one tree.

    Args:
        episodes: Segments with one placeholder per clip, at least one episode.
        layout: The checkpoint's layout.
    """
    if not episodes:
        raise boundary("episodes of a pack", len(episodes), ">= 1")
    whole = expand(episodes, layout, pixels=False)
    lengths = whole.attention_mask_BT.sum(1).tolist()
    kinds = _kinds_of_clips(episodes)
    symbols = _symbols(whole, lengths, kinds, layout)
    order = sorted(range(len(episodes)), key=lambda row: symbols[row])
    path_BT = np.zeros(whole.input_ids_BT.shape, dtype=np.int64)
    owned: list[tuple[int, int]] = []
    parents: list[np.ndarray] = []
    count, before = 0, -1
    for row in order:
        # In sorted order no other row shares a longer start than the one before.
        same = 0 if before < 0 else _common(symbols[before], symbols[row])
        new = np.arange(count, count + lengths[row] - same)
        path_BT[row, :same] = path_BT[before, :same]
        path_BT[row, same : lengths[row]] = new
        parents.append(path_BT[row, max(same - 1, 0) : lengths[row] - 1] if same else np.maximum(new - 1, 0))
        owned.append((row, same))
        count, before = count + len(new), row
    rows, place_N = _attention_rows(owned, lengths, path_BT, count)
    return Pack(
        _tree(whole, episodes, path_BT, lengths, owned, kinds, layout), whole, torch.from_numpy(path_BT),
        torch.from_numpy(np.concatenate(parents)), rows, torch.from_numpy(place_N),
    )  # fmt: skip


def _common(one: list[int], two: list[int]) -> int:
    """Length of the common start."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))


def _kinds_of_clips(episodes: Sequence[TokenEpisode]) -> list[list[int]]:
    """Return a number for each clip of each episode: equal numbers are equal clips."""
    distinct: list[Clip] = []
    kinds: list[list[int]] = []
    for episode in episodes:
        found = []
        for clip in episode.clips:
            same = (number for number, one in enumerate(distinct) if _same_clip(one, clip))
            found.append(next(same, len(distinct)))
            if found[-1] == len(distinct):
                distinct.append(clip)
        kinds.append(found)
    return kinds


def _same_clip(one: Clip, two: Clip) -> bool:
    if (one.is_image, one.frame_seconds, one.pixels.shape) != (
        two.is_image,
        two.frame_seconds,
        two.pixels.shape,
    ):
        return False
    return same_clips([one], [two])


def _symbols(
    whole: ModelBatch, lengths: list[int], kinds: list[list[int]], layout: Layout
) -> list[list[int]]:
    """Return each episode as numbers: those of text are its ids, those of visual tokens name their clip."""
    ids_BT = whole.input_ids_BT.numpy().copy()
    for span in whole.spans:
        for start in span.group_starts:
            kind = kinds[span.row][span.clip_index]
            ids_BT[span.row, start : start + span.tokens_per_group] = -1 - kind
    return [row[:length].tolist() for row, length in zip(ids_BT, lengths, strict=True)]


def _tree(
    whole: ModelBatch, episodes: Sequence[TokenEpisode], path_BT: np.ndarray, lengths: list[int],
    owned: list[tuple[int, int]], kinds: list[list[int]], layout: Layout,
) -> ModelBatch:  # fmt: skip
    """Return the tree as a batch of one row, each clip's pixels once, in the order of their tokens."""
    own = [(row, slice(same, lengths[row])) for row, same in owned]
    ids_1N = torch.cat([whole.input_ids_BT[row, part] for row, part in own])[None]
    positions_31N = torch.cat([whole.position_ids_3BT[:, row, part] for row, part in own], 1)[:, None]
    targets_N = np.zeros(ids_1N.shape[1], dtype=bool)
    targets_N[path_BT[whole.loss_mask_BT.numpy()]] = True
    clips = [
        episodes[row].clips[span.clip_index]
        for row, same in owned
        for span in whole.spans
        if span.row == row and span.group_starts[0] >= same
    ]
    return ModelBatch(
        ids_1N, torch.ones_like(ids_1N), torch.from_numpy(targets_N)[None], positions_31N,
        None, (), *clip_pixels(clips, layout),
    )  # fmt: skip


def _attention_rows(
    owned: list[tuple[int, int]], lengths: list[int], path_BT: np.ndarray, count: int
) -> tuple[tuple[Rows, ...], np.ndarray]:
    """Return the calls of attention, and where the result of each tree token lies."""
    place_N = np.zeros(count, dtype=np.int64)
    found: list[Rows] = []
    at = 0
    for members in _alike(owned, lengths):
        width = max(lengths[row] for row, _ in members)
        num_queries = max(lengths[row] - same for row, same in members)
        queries_RQ = np.zeros((len(members), num_queries), dtype=np.int64)
        keys_RK = np.zeros((len(members), width), dtype=np.int64)
        last_RQ = np.zeros((len(members), num_queries), dtype=np.int64)
        for index, (row, same) in enumerate(members):
            tail = path_BT[row, same : lengths[row]]
            queries_RQ[index, : len(tail)] = tail
            keys_RK[index] = path_BT[row, :width]
            last_RQ[index] = np.minimum(same + np.arange(num_queries), lengths[row] - 1)
            place_N[tail] = at + index * num_queries + np.arange(len(tail))
        at += queries_RQ.size
        mask = None
        if any(same for _, same in members):
            hidden_RQK = torch.from_numpy(np.arange(width) > last_RQ[:, :, None])
            mask = torch.zeros(hidden_RQK.shape).masked_fill_(hidden_RQK, -torch.inf)[:, None]
        found.append(Rows(torch.from_numpy(queries_RQ), torch.from_numpy(keys_RK), mask))
    return tuple(found), place_N


def _alike(owned: list[tuple[int, int]], lengths: list[int]) -> Iterator[list[tuple[int, int]]]:
    """Yield the rows that attend in one call: whole episodes, then those that go on from another one."""
    new = [(row, same) for row, same in owned if lengths[row] > same]
    for members in ([one for one in new if not one[1]], [one for one in new if one[1]]):
        if members:
            yield members


def use_packed_attention(model: PreTrainedModel) -> None:
    """Let the text layers of a model take packs; passes without a pack stay as they were.

    Raises:
        ConfigError: The layers do not run the library's SDPA, or attend in a sliding window.
    """
    config = model.config.get_text_config()
    if config._attn_implementation == ATTENTION:
        return
    kinds = {config._attn_implementation, *(getattr(config, "layer_types", None) or ())}
    if kinds - {"sdpa", "full_attention"}:
        raise boundary(
            "attention of a model that is trained on packs", sorted(kinds), ("sdpa", "full_attention")
        )
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, sdpa_mask)
    config._attn_implementation = ATTENTION


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    pack: Pack | None = None,
    shared: Sequence[Shared] = (),
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as ``Rows`` say, (1, H, N, D) to (1, N, H, D); or over shared keys first; or as the library does."""
    if shared:
        layer: Any = module.layer_idx
        found = attend(query, key, value, attention_mask, shared, layer, kwargs["scaling"])
        return found.transpose(1, 2), None
    if pack is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    query_NHD, key_NHD, value_NHD = (item[0].transpose(0, 1).contiguous() for item in (query, key, value))
    results = []
    for rows in pack.rows:
        asked, looked, taken = (
            item.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)
            for item, index in (
                (query_NHD, rows.queries_RQ),
                (key_NHD, rows.keys_RK),
                (value_NHD, rows.keys_RK),
            )
        )
        mask = None if rows.mask_R1QK is None else rows.mask_R1QK.to(asked.dtype)
        mixed, _ = sdpa_attention_forward(module, asked, looked, taken, mask, **kwargs)
        results.append(mixed.flatten(0, 1))
    return torch.cat(results).index_select(0, pack.place_N)[None], None


def packed_hidden_states(model: PreTrainedModel, pack: Pack) -> torch.Tensor:
    """Return the last hidden state of every token of the tree, (1, N, H).

    ``use_packed_attention`` must have been called on the model.
    """
    return model.base_model(**pack.model_inputs(), use_cache=False).last_hidden_state


def packed_logprobs_and_entropy(
    model: PreTrainedModel, pack: Pack, *, hidden_1NH: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what ``forward.target_logprobs_and_entropy`` does for the episodes, (B, T) each.

    Args:
        model: ``use_packed_attention`` was called on it.
        pack: The episodes; a target in column 0 has no predictor.
        hidden_1NH: Reuse of ``packed_hidden_states(model, pack)``.
    """
    if hidden_1NH is None:
        hidden_1NH = packed_hidden_states(model, pack)
    targets_M = pack.tree.loss_mask_BT[0].nonzero()[:, 0]
    places_M = pack.parent_N[targets_M]
    logits_MV = logits_at(model, hidden_1NH, torch.zeros_like(places_M), places_M)
    found = chosen_and_entropy(logits_MV, pack.tree.input_ids_BT[0, targets_M])
    learnt_BT = pack.episodes.loss_mask_BT.clone()
    learnt_BT[:, 0] = False
    chosen_BT, entropy_BT = (
        torch.where(
            learnt_BT, one_M.new_zeros(pack.num_tokens).index_put((targets_M,), one_M)[pack.path_BT], 0.0
        )
        for one_M in found
    )
    return chosen_BT, entropy_BT
