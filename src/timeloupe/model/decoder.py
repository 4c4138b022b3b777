"""One decoding step of the text layers, without what the library does around its products.

A step of a few rows is a handful of small products: on a CPU most of its time goes into Python and into copies. Here
the modules that hold weights are called as they are (adapters in their place work), and what lies between them is
written out. Text tokens only, one per row, all layers with full attention. Numbers are those of the library up to
rounding.

Shapes: B rows, T cached positions, H query heads, G key heads, R query heads per key head, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import DynamicCache, PreTrainedModel
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.models.qwen3_vl import modeling_qwen3_vl

from timeloupe.model.packing import ATTENTION
from timeloupe.model.shared_keys import Shared, attend

_MODELS = (
    modeling_qwen2_5_vl.Qwen2_5_VLForConditionalGeneration,
    modeling_qwen3_vl.Qwen3VLForConditionalGeneration,
)
_LAYERS = (modeling_qwen2_5_vl.Qwen2_5_VLDecoderLayer, modeling_qwen3_vl.Qwen3VLTextDecoderLayer)


class Decoder:
    """Steps of one model, as its weights are.

    Args:
        model: ``can_decode`` holds for it.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        text: Any = model.base_model.language_model
        self.embed: Any = model.get_input_embeddings()
        self.head: Any = model.get_output_embeddings()
        self.rotary, self.norm, self.layers = text.rotary_emb, text.norm, list(text.layers)
        self.head_norms = [_head_norms(layer.self_attn) for layer in self.layers]

    def step(
        self,
        ids_B: torch.Tensor,
        positions_B: torch.Tensor,
        cache: DynamicCache,
        mask_BT: torch.Tensor | None = None,
        shared: Sequence[Shared] = (),
    ) -> torch.Tensor:
        """Return the logits (B, V) that follow one more token of each row, and put its keys and values in the cache.

        Args:
            ids_B: The tokens; text, never a placeholder.
            positions_B: Their positions, on all three axes.
            cache: What came before.
            mask_BT: 0 at columns of the cache, the new one included, that a row must not look at; ``None`` = none.
            shared: What rows have in common before the cache; no row, or every row in one of them.
        """
        hidden_BH = self.embed(ids_B)
        angles = self._angles(hidden_BH, positions_B)
        bias = None
        if mask_BT is not None:
            bias = torch.zeros(mask_BT.shape, dtype=hidden_BH.dtype, device=mask_BT.device)
            bias = bias.masked_fill_(mask_BT == 0, -torch.inf)[:, None, None]
        for index, layer in enumerate(self.layers):
            attention, mlp = layer.self_attn, layer.mlp
            normal_BH = _norm(hidden_BH, layer.input_layernorm)
            value = attention.v_proj(normal_BH).unflatten(1, (-1, attention.head_dim))
            both = torch.cat((attention.q_proj(normal_BH), attention.k_proj(normal_BH)), 1)
            both = both.unflatten(1, (-1, attention.head_dim))
            if (weight := self.head_norms[index]) is not None:
                both = _scaled(both, attention.q_norm.variance_epsilon) * weight
            both = _turn(both, *angles)
            query, key = both[:, : -value.shape[1]], both[:, -value.shape[1] :]
            keys, values = cache.update(key[:, :, None], value[:, :, None], index)
            if shared:
                mixed = attend(query[:, :, None], keys, values, bias, shared, index, attention.scaling)
            else:
                # The queries of one key head stand side by side, as if they were tokens: nothing has to be repeated.
                asked_BGRD = query.unflatten(1, (keys.shape[1], -1))
                mixed = F.scaled_dot_product_attention(
                    asked_BGRD, keys, values, attn_mask=bias, scale=attention.scaling
                )
            hidden_BH = hidden_BH + attention.o_proj(mixed.flatten(1))
            normal_BH = _norm(hidden_BH, layer.post_attention_layernorm)
            gate = mlp.act_fn(mlp.gate_proj(normal_BH))
            hidden_BH = hidden_BH + mlp.down_proj(gate * mlp.up_proj(normal_BH))
        return self.head(_norm(hidden_BH, self.norm))

    def _angles(self, like: torch.Tensor, positions_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosine, and sine with the sign of the rotation's first half, (B, 1, D) each."""
        found = self.rotary(like[:, None], positions_B[None, :, None].expand(3, -1, 1))
        # Qwen2.5-VL gives all three axes, which agree for text.
        cos, sin = (item if item.ndim == 3 else item[0] for item in found)
        low, high = sin.chunk(2, -1)
        return cos, torch.cat((-low, high), -1)


def _head_norms(attention: Any) -> torch.Tensor | None:
    """Return the weights of the norms of queries and keys, one row per head, (H + G, D); ``None`` = no such norms."""
    if not hasattr(attention, "q_norm"):
        return None
    groups = attention.num_key_value_groups
    keys = attention.config.num_key_value_heads
    return torch.cat(
        (
            attention.q_norm.weight.expand(keys * groups, -1),
            attention.k_norm.weight.expand(keys, -1),
        )
    )


def can_decode(model: PreTrainedModel) -> bool:
    """Whether ``Decoder`` knows a model: its very classes (a sharded one has others), SDPA, no window, no hooks."""
    if type(model) not in _MODELS:
        return False
    config = model.config.get_text_config()
    layers = list(model.base_model.language_model.layers)  # type: ignore[union-attr,operator]
    return (
        config._attn_implementation in ("sdpa", ATTENTION)
        and "sliding_attention" not in (getattr(config, "layer_types", None) or ())
        and all(type(layer) in _LAYERS for layer in layers)
        and not any(one._forward_hooks or one._forward_pre_hooks for one in (model, *layers))
    )


def _norm(hidden: torch.Tensor, module: Any) -> torch.Tensor:
    return _scaled(hidden, module.variance_epsilon) * module.weight


def _scaled(hidden: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Return vectors by their root mean square, computed in float32 as the library does."""
    return F.rms_norm(hidden.float(), hidden.shape[-1:], None, epsilon).to(hidden.dtype)


def _turn(heads: torch.Tensor, cos_B1D: torch.Tensor, signed_sin_B1D: torch.Tensor) -> torch.Tensor:
    """Rotate the pairs (d, d + D / 2) of (B, heads, D) by the angles of the positions."""
    return torch.addcmul(heads * cos_B1D, heads.roll(heads.shape[-1] // 2, -1), signed_sin_B1D)
