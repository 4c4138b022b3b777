"""Tiny random Qwen2.5-VL and Qwen3-VL checkpoints with a tokenizer built on the spot: plumbing without a
download.

As a script: ``python tests/model/tiny.py FOLDER [qwen3_vl|qwen2_5_vl] [SEED]``.
"""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from timeloupe.model.load import LoadedModel, load_model

torch.set_num_threads(1)

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
PLAIN_ADDED = ("<think>", "</think>", "<tool_call>", "</tool_call>")
CORPUS = (
    "system\nYou watch a long video at a low frame rate and look closer where it matters.",
    "user\nWhen is the circle visible in the red scene? Which digit does it carry? A. 1 B. 2 C. 3 D. 4",
    "assistant\nNot seen yet, so search here first and then answer with the option letter.",
    "<0.0 seconds><1.5 seconds><12.1 seconds><30.0 seconds><125.5 seconds><600.0 seconds>",
    '{"name": "get_video_clip_frame", "arguments": [{"start_time": 12, "end_time": 34}]}',
    "<answer>C</answer> <answer>[12, 34]</answer> from 3.2 to 45.6 seconds",
    "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 30 40 50 60 70 80 90 100",
)
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How text is cut before merging: words, single digits, runs of punctuation, line ends."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE of about 500 tokens with Qwen's special tokens; any text round-trips."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        CORPUS, BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in PLAIN_ADDED])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build_config(family: str, tokenizer: PreTrainedTokenizerFast, **vision_overrides: Any) -> Any:
    """Return a configuration of a few hundred thousand parameters: heads of 16, grouped keys, two text
    layers."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 3, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
        "pad_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "bos_token_id": None,
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": 3, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "in_channels": 3,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 64,
    }  # fmt: skip
    common: dict[str, Any] = {
        "image_token_id": ids["<|image_pad|>"], "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"], "vision_end_token_id": ids["<|vision_end|>"],
    }  # fmt: skip
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    if family == "qwen3_vl":
        text.update(head_dim=16, rope_parameters={**rope, "mrope_interleaved": True})
        vision.update(patch_size=16, num_position_embeddings=64, deepstack_visual_indexes=[0, 1])
        return Qwen3VLConfig(text_config=text, vision_config={**vision, **vision_overrides}, **common)
    text.update(rope_parameters=rope)
    vision.update(patch_size=14, window_size=56, fullatt_block_indexes=[1], tokens_per_second=2)
    return Qwen2_5_VLConfig(text_config=text, vision_config={**vision, **vision_overrides}, **common)


def tiny_checkpoint(
    folder: str | Path, family: str = "qwen3_vl", seed: int = 0, *, spread: float = 0.15, **vision: Any
) -> Path:
    """Write a tiny random checkpoint and return its folder.

    Args:
        folder: Made if it is not there.
        family: ``qwen3_vl`` or ``qwen2_5_vl``.
        seed: Of the weights.
        spread: Standard deviation of the weight matrices: large enough that logits are far from uniform.
        **vision: Overrides of the vision configuration.
    """
    folder = Path(folder)
    tokenizer = build_tokenizer()
    config = build_config(family, tokenizer, **vision)
    kind = {"qwen3_vl": Qwen3VLForConditionalGeneration, "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration}[
        family
    ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, spread)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@cache
def tiny_loaded(family: str = "qwen3_vl") -> LoadedModel:
    """Return a loaded tiny checkpoint, one for all tests of a process: do not change its weights."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(tiny_checkpoint(Path(folder) / f"tiny-{family}", family), device="cpu")


if __name__ == "__main__":
    given = dict(zip(("folder", "family", "seed"), sys.argv[1:], strict=False))
    print(tiny_checkpoint(given["folder"], given.get("family", "qwen3_vl"), int(given.get("seed", 0))))
