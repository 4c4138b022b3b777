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
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
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

MASK_ELEMENTS = 1 << 24
"""Largest mask, 64 MiB in float32: a larger one would grow with the square of the crops, in each layer at bfloat16."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of attention that are one call.

    Attributes:
        queries_RQ: Tree index of each query; 0 at padding.
        keys_RK: Tree index of each key, in the order of the episode; 0 at padding.
        mask_R1QK: float32, 0 where a query looks and -inf where not.
        last_RQ: Index of the last key that each query looks at, for rows whose mask is too large to be kept. Without it
            and without a mask, queries and keys are the same tokens and each looks at itself and those before.
    """

    queries_RQ: torch.Tensor
    keys_RK: torch.Tensor
    mask_R1QK: torch.Tensor | None = None
    last_RQ: torch.Tensor | None = None

    def to(self, device: torch.device) -> Rows:
        """Return the rows with all tensors on ``device``."""
        there = {item.name: getattr(self, item.name) for item in fields(self)}
        return replace(self, **{name: one.to(device) for name, one in there.items() if one is not None})


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


class _Asked(NamedTuple):
    """Tokens ``first`` to ``end`` of an episode, which look at its tokens from 0 on."""

    row: int
    first: int
    end: int


def _attention_rows(
    owned: list[tuple[int, int]], lengths: list[int], path_BT: np.ndarray, count: int
) -> tuple[tuple[Rows, ...], np.ndarray]:
    """Return the calls of attention, and where the result of each tree token lies."""
    place_N = np.zeros(count, dtype=np.int64)
    found: list[Rows] = []
    at = 0
    for parts, masked in _calls(owned, lengths):
        width = max(part.end for part in parts)
        num_queries = max(part.end - part.first for part in parts)
        queries_RQ = np.zeros((len(parts), num_queries), dtype=np.int64)
        keys_RK = np.zeros((len(parts), width), dtype=np.int64)
        last_RQ = np.zeros((len(parts), num_queries), dtype=np.int64)
        for index, (row, first, end) in enumerate(parts):
            asked = path_BT[row, first:end]
            queries_RQ[index, : len(asked)] = asked
            keys_RK[index] = path_BT[row, :width]
            last_RQ[index] = np.minimum(first + np.arange(num_queries), end - 1)
            place_N[asked] = at + index * num_queries + np.arange(len(asked))
        at += queries_RQ.size
        last = torch.from_numpy(last_RQ)
        mask = _mask(last, width, torch.float32) if masked == "kept" else None
        found.append(
            Rows(
                torch.from_numpy(queries_RQ), torch.from_numpy(keys_RK), mask, last if masked == "made" else None
            )
        )  # fmt: skip
    return tuple(found), place_N


def _calls(
    owned: list[tuple[int, int]], lengths: list[int]
) -> Iterator[tuple[list[_Asked], Literal["causal", "kept", "made"]]]:
    """Yield what attends in one call, and where its mask is: whole episodes, then those that go on from another one.

    The latter are one call if their mask may be kept, else each is asked alone, in blocks of tokens.
    """
    new = [_Asked(row, same, lengths[row]) for row, same in owned if lengths[row] > same]
    if whole := [one for one in new if not one.first]:
        yield whole, "causal"
    if not (rest := [one for one in new if one.first]):
        return
    num_queries = max(one.end - one.first for one in rest)
    if len(rest) * num_queries * max(one.end for one in rest) <= MASK_ELEMENTS:
        yield rest, "kept"
        return
    for row, same, length in rest:
        block = max(1, MASK_ELEMENTS // length)
        for first in range(same, length, block):
            yield [_Asked(row, first, min(first + block, length))], "made"


def _mask(last_RQ: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    """Return (R, 1, Q, width): 0 up to each query's last key, -inf beyond."""
    hidden_RQK = torch.arange(width, device=last_RQ.device) > last_RQ[:, :, None]
    return torch.zeros(hidden_RQK.shape, dtype=dtype, device=last_RQ.device).masked_fill_(
        hidden_RQK, -torch.inf
    )[:, None]


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
        given = (module, rows, query_NHD, key_NHD, value_NHD, kwargs)
        if rows.last_RQ is None:
            results.append(_attend_rows(*given))
        else:  # its mask, queries and keys are made again on the way back, not kept
            results.append(checkpoint(_attend_rows, *given, use_reentrant=False))
    return torch.cat(results).index_select(0, pack.place_N)[None], None


def _attend_rows(
    module: torch.nn.Module,
    rows: Rows,
    query_NHD: torch.Tensor,
    key_NHD: torch.Tensor,
    value_NHD: torch.Tensor,
    kwargs: dict[str, Any],
) -> torch.Tensor:
    """Return the mixed values of all queries of some rows, (R * Q, H, D)."""
    asked, looked, taken = (
        item.index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)
        for item, index in ((query_NHD, rows.queries_RQ), (key_NHD, rows.keys_RK), (value_NHD, rows.keys_RK))
    )
    mask = rows.mask_R1QK
    if rows.last_RQ is not None:
        mask = _mask(rows.last_RQ, rows.keys_RK.shape[1], asked.dtype)
    elif mask is not None:
        mask = mask.to(asked.dtype)
    mixed, _ = sdpa_attention_forward(module, asked, looked, taken, mask, **kwargs)
    return mixed.flatten(0, 1)


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
