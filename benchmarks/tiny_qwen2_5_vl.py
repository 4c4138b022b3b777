"""A random Qwen2.5-VL of half a million parameters in the published layout: positions instead of printed times.

It has learnt nothing; see ``tiny_qwen3_vl``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tiny_qwen3_vl import SPREAD
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from timeloupe.train.from_scratch import SPECIAL_TOKENS, build_tokenizer
from timeloupe.train.serving_files import write_serving_files


def write_tiny_qwen2_5_vl(folder: Path, *, seed: int = 0) -> Path:
    """Write the checkpoint, with what vLLM needs, and return its folder; frames are multiples of 28 pixels."""
    tokenizer = build_tokenizer(max_seconds=100)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "pad_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "bos_token_id": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5]},
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": 3, "hidden_size": 64, "num_heads": 2, "intermediate_size": 96, "in_channels": 3, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 128, "window_size": 56,
        "fullatt_block_indexes": [1], "tokens_per_second": 2,
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=False,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, SPREAD)
    model.save_pretrained(folder)
    write_serving_files(folder, tokenizer, model.config.vision_config, wrap_frames=True, max_pixels=112 * 112)
    for name, more in (
        ("preprocessor_config", {}),
        ("video_preprocessor_config", {"video_processor_type": "Qwen2VLVideoProcessor"}),
    ):
        path = folder / f"{name}.json"
        found = (
            json.loads(path.read_text(encoding="utf-8")) | more | {"processor_class": "Qwen2_5_VLProcessor"}
        )
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    return folder
