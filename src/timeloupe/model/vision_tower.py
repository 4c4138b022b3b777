"""A vision tower that is quick with many small frames: the library's, with two parts computed differently.

1. The library attends each frame alone, in a Python loop over frames when flash attention is absent. Here
   frames (or windows) of equal length are one batch of one attention call.
2. The library cuts patches with a 3-D convolution whose stride is its kernel. That is one matrix product, and
   several times slower as a convolution, backward above all.

Both give the same numbers up to rounding. Parameters, their names and checkpoints stay as they are.
"""

from __future__ import annotations

import types
from typing import Any

import torch
import torch.nn.functional as F
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.models.qwen3_vl import modeling_qwen3_vl

_ROTATIONS = {
    modeling_qwen2_5_vl.Qwen2_5_VLVisionAttention: modeling_qwen2_5_vl.apply_rotary_pos_emb_vision,
    modeling_qwen3_vl.Qwen3VLVisionAttention: modeling_qwen3_vl.apply_rotary_pos_emb_vision,
}


_PATCH_EMBEDS = (modeling_qwen2_5_vl.Qwen2_5_VisionPatchEmbed, modeling_qwen3_vl.Qwen3VLVisionPatchEmbed)


def speed_up_vision(model: torch.nn.Module) -> int:
    """Change the vision tower of ``model`` as the module says, and return the number of changed parts.

    Attention that does not run the library's SDPA (eager, flash) is left alone.
    """
    changed = 0
    for module in model.modules():
        if type(module) in _ROTATIONS and module.config._attn_implementation == "sdpa":  # type: ignore[union-attr]
            module.forward = types.MethodType(_attention_forward, module)  # type: ignore[method-assign]
            changed += 1
        elif isinstance(module, _PATCH_EMBEDS):
            module.forward = types.MethodType(_patch_forward, module)  # type: ignore[method-assign]
            changed += 1
    return changed


def _patch_forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """Embed flat patches: (P, values per patch) to (P, hidden)."""
    weight = self.proj.weight
    return F.linear(hidden_states.to(weight.dtype), weight.flatten(1), self.proj.bias)


def _attention_forward(
    self: Any,
    hidden_states: torch.Tensor,
    cu_seqlens: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """Attend within each span of ``cu_seqlens``; (P, hidden) to (P, hidden)."""
    num_patches = hidden_states.shape[0]
    query, key, value = self.qkv(hidden_states).reshape(num_patches, 3, self.num_heads, -1).unbind(1)
    if position_embeddings is not None:
        query, key = _ROTATIONS[type(self)](query, key, *position_embeddings)
    lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
    distinct = sorted(set(lengths))
    if len(distinct) == 1:
        mixed = _attend(query, key, value, distinct[0], self.scaling)
    else:
        mixed = torch.empty_like(query)
        starts = torch.tensor([0, *lengths[:-1]]).cumsum(0)
        of_length = torch.tensor(lengths)
        for length in distinct:
            rows = (starts[of_length == length, None] + torch.arange(length)).flatten().to(query.device)
            mixed = mixed.index_copy(
                0, rows, _attend(query[rows], key[rows], value[rows], length, self.scaling)
            )
    return self.proj(mixed.reshape(num_patches, -1))


def _attend(
    query_PHD: torch.Tensor, key_PHD: torch.Tensor, value_PHD: torch.Tensor, length: int, scaling: float
) -> torch.Tensor:
    """Attend within consecutive runs of ``length`` patches; the shape stays (patches, heads, head size)."""
    shape = query_PHD.shape
    query, key, value = (
        item.reshape(-1, length, *shape[1:]).transpose(1, 2) for item in (query_PHD, key_PHD, value_PHD)
    )
    mixed = F.scaled_dot_product_attention(query, key, value, scale=scaling)
    return mixed.transpose(1, 2).reshape(shape)
