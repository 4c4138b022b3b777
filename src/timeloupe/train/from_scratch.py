"""A Qwen3-VL of a few million parameters, and its tokenizer, to be trained from nothing.

The architecture is transformers' ``Qwen3VLForConditionalGeneration`` with small numbers. The tokenizer is a byte-level
BPE without merges that knows whole words: any text goes in and comes back unchanged, the words of the world and every
whole second from 0 to ``max_seconds`` are one token each, and everything else falls apart into bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from timeloupe.train.serving_files import write_serving_files
from timeloupe.world.script import COLOURS, SHAPES
from timeloupe.world.teacher import RELEVANCE_LABELS

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
RELEVANCE_TOKENS = tuple(f"<|{label}|>" for label in RELEVANCE_LABELS)
"""Targets of the dense relevance supervision; never inputs, never sampled."""

GRAMMAR_TOKENS = (
    "<think>", "</think>", "<answer>", "</answer>", "<tool_call>", "</tool_call>",
    '{"name":"get_video_clip_frame","arguments":[{"start_time":', ',"end_time":', '},{"start_time":', "}]}",
)  # fmt: skip

OPTION_LETTERS = "ABCDEFGH"
_WORDS = (
    "When What Which List Where How is are the a in at of and then visible scene digit does do carry every time which "
    "it when where Look closer then answer Answer now The Seen look Not seen search here Found No event video moment "
    "shape system user assistant many times first last after before appear appears from to"
)
_PUNCTUATION = (
    "\n",
    "\n\n",
    ". ",
    ", ",
    "? ",
    ".\n",
    "?\n",
    ".",
    ",",
    "?",
    "[",
    "]",
    "(",
    ")",
    ":",
    "-",
    " ",
)
_PATTERN = r" \(\p{Lu}\)|\p{N}+|(?: ?\p{L}+)|[.,?] |\n+| +|."


@dataclass(frozen=True)
class SmallModelSize:
    """Sizes of the small model.

    Attributes:
        hidden: Width of the text model.
        layers: Text layers.
        heads: Attention heads, of ``hidden / heads`` each; that must be even.
        feed_forward: Width of the text MLP.
        vision_hidden: Width of the vision tower.
        vision_layers: Its depth.
        frame_size: Width and height in pixels of one frame; one visual token a frame.
        max_seconds: Largest whole second with a token of its own.
    """

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    feed_forward: int = 384
    vision_hidden: int = 96
    vision_layers: int = 1
    frame_size: int = 32
    max_seconds: int = 2400


def build_tokenizer(max_seconds: int = 2400) -> PreTrainedTokenizerFast:
    """Return the word tokenizer; ``decode(encode(text)) == text`` for any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*_WORDS.split(), *COLOURS, *SHAPES, *OPTION_LETTERS]
    pieces = [
        *words,
        *(f" {word}" for word in words),
        *(f" ({letter})" for letter in OPTION_LETTERS),
        *_PUNCTUATION,
    ]
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    encoded = [level.pre_tokenize_str(piece)[0][0] for piece in pieces]
    numbers = [str(number) for number in range(max_seconds + 1)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*alphabet, *numbers, *encoded]))}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], ignore_merges=True, fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"), level]
    )  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token in (*SPECIAL_TOKENS, *RELEVANCE_TOKENS)]
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in GRAMMAR_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def build_config(size: SmallModelSize, tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """Return the Qwen3-VL configuration of the small model."""
    head = size.hidden // size.heads
    third = head // 2 // 3
    known = tokenizer.get_vocab()
    ids = {token: known[token] for token in SPECIAL_TOKENS}
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": size.hidden, "intermediate_size": size.feed_forward,
        "num_hidden_layers": size.layers, "num_attention_heads": size.heads, "num_key_value_heads": size.heads,
        "head_dim": head, "max_position_embeddings": 8192, "tie_word_embeddings": True,
        "pad_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"],
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "mrope_interleaved": True,
            "mrope_section": [head // 2 - 2 * third, third, third],
        },
    }  # fmt: skip
    vision: dict[str, Any] = {
        "depth": size.vision_layers, "hidden_size": size.vision_hidden, "num_heads": 4, "in_channels": 3,
        "intermediate_size": 2 * size.vision_hidden, "patch_size": size.frame_size // 2, "spatial_merge_size": 2,
        "temporal_patch_size": 1, "out_hidden_size": size.hidden, "num_position_embeddings": 4,
        "deepstack_visual_indexes": [],
    }  # fmt: skip
    return Qwen3VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True,
        image_token_id=ids["<|image_pad|>"], video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip


def build_checkpoint(
    folder: str | Path,
    *,
    size: SmallModelSize | None = None,
    seed: int = 0,
    skim_frames: int = 16,
    crop_frames: int = 12,
) -> None:
    """Write an untrained small model with its tokenizer to ``folder``.

    The folder holds config.json, model.safetensors, the tokenizer's files, timeloupe.json (how frames are printed in
    the prompt, and the episode settings the model is made for), and what a server needs: a chat template and
    processor files.
    """
    size = size or SmallModelSize()
    folder = Path(folder)
    tokenizer = build_tokenizer(size.max_seconds)
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(build_config(size, tokenizer))
    # Copying a time from the prompt into the answer needs embeddings of about unit length: at the library's 0.02 the
    # logits of 2,400 seconds stay near equal for thousands of steps.
    embeddings: Any = model.get_input_embeddings()
    torch.nn.init.normal_(embeddings.weight, std=0.1)
    model.save_pretrained(folder)
    write_serving_files(
        folder, tokenizer, model.config.vision_config, wrap_frames=False, max_pixels=size.frame_size**2
    )
    tokenizer.save_pretrained(folder)
    write_episode_defaults(
        folder, frame_size=size.frame_size, skim_frames=skim_frames, crop_frames=crop_frames
    )


def write_episode_defaults(
    folder: str | Path, *, frame_size: int, skim_frames: int = 16, crop_frames: int = 12
) -> None:
    """Write ``timeloupe.json`` beside a small checkpoint."""
    settings = {
        "timestamp_format": "{:.0f}",
        "wrap_frames": False,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "protocol": "small",
        "episode": {
            "max_turns": 3, "skim_fps": 2.0, "skim_frames": skim_frames, "crop_fps": 2.0, "crop_min_frames": 4,
            "crop_max_frames": crop_frames, "frame_size_wh": [frame_size, frame_size], "max_new_tokens": 48,
        },
    }  # fmt: skip
    (Path(folder) / "timeloupe.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
