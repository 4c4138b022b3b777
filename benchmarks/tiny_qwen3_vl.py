"""A random Qwen3-VL of half a million parameters in the published layout: two frames a group, ``<12.1 seconds>``.

It has learnt nothing. It is there because the embedded small model is not in that layout, and a server must print the
times of clips as this process does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from timeloupe.train.from_scratch import SPECIAL_TOKENS, build_tokenizer
from timeloupe.train.serving_files import write_serving_files

SPREAD = 0.15
"""Standard deviation of the weight matrices: large enough that the logits are far from uniform."""


def write_tiny_qwen3_vl(
    folder: Path,
    *,
    seed: int = 0,
    max_pixels: int = 128 * 128,
    text_sizes: Mapping[str, int] = MappingProxyType({}),
    vision_sizes: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """Write the checkpoint, with what a server needs, and return its folder.

    ``text_sizes`` and ``vision_sizes`` replace entries of its configuration.

    The rows of the output head that belong to special tokens are zero: a greedy reply never takes one of them, so that
    it does not matter that a server knows no ban.
    """
    tokenizer = build_tokenizer(max_seconds=100)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        # vLLM's attention for the CPU has no heads below 32.
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 4096,
        "pad_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"],
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True,
        },
    }  # fmt: skip
    text |= text_sizes
    vision: dict[str, Any] = {
        "depth": 3, "hidden_size": 64, "num_heads": 2, "intermediate_size": 96, "in_channels": 3, "patch_size": 16,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64, "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }  # fmt: skip
    vision |= {"out_hidden_size": text["hidden_size"]} | dict(vision_sizes)
    config = Qwen3VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=False,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, SPREAD)
        head: Any = model.get_output_embeddings()
        head.weight[[index for index, token in tokenizer.added_tokens_decoder.items() if token.special]] = 0.0
    model.save_pretrained(folder)
    write_serving_files(
        folder, tokenizer, model.config.vision_config, wrap_frames=True, max_pixels=max_pixels
    )
    tokenizer.save_pretrained(folder)
    return folder
