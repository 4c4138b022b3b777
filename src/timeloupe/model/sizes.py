"""Sizes of a model from its configuration alone, and what it costs to run: computed, not measured.

The model is built on the ``meta`` device, where a parameter has no numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from timeloupe.errors import ConfigError, MissingError, boundary
from timeloupe.model.load import MODEL_CLASSES

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """Published figures of a GPU: dense bfloat16 peak, memory bandwidth, memory."""

    flops_per_second: float
    bytes_per_second: float
    memory_bytes: float


GPUS = {
    "a100": Gpu(312e12, 2.04e12, 80e9),
    "h100": Gpu(989e12, 3.35e12, 80e9),
    "h200": Gpu(989e12, 4.8e12, 141e9),
}

PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen2.5-vl-7b": {
        "model_type": "qwen2_5_vl", "tie_word_embeddings": False,
        "text_config": {
            "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
            "num_attention_heads": 28, "num_key_value_heads": 4,
        },
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    },
    "qwen3-vl-8b": {
        "model_type": "qwen3_vl", "tie_word_embeddings": False,
        "text_config": {
            "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
            "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        },
        "vision_config": {
            "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096,
            "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24],
        },
    },
}  # fmt: skip
"""Dimensions of public checkpoints, as their config.json has them: nothing is downloaded for a plan."""


VISION = "visual."
"""What the names of the vision tower's weights and layers hold, and no others."""


@dataclass(frozen=True)
class ModelSizes:
    """What a plan needs to know of a model; parameters are counts.

    Attributes:
        name: Of the configuration.
        parameters: All, tied weights once.
        vision_parameters: Of the vision tower.
        layer_parameters: Of one text layer.
        head_parameters: Embeddings and output head, tied ones once.
        layers: Text layers.
        hidden: Width of the text model.
        intermediate: Width of its feed-forward part.
        query: Heads x head size.
        key_value: Key (or value) heads x head size.
        vocabulary: Rows of the output head.
        token_pixels: Pixels of one frame that are one visual token.
        group_frames: Frames that share visual tokens.
        patches: Patches per visual token.
        vision_hidden: Width of the vision tower.
        vision_layers: Its layers.
        matrix_parameters: In 2-D weights that are no embeddings.
        vision_matrix_parameters: Of these, in the vision tower.
        targets: Input width plus output width of every linear layer that may be adapted, by its full name.
    """

    name: str
    parameters: int
    vision_parameters: int
    layer_parameters: int
    head_parameters: int
    layers: int
    hidden: int
    intermediate: int
    query: int
    key_value: int
    vocabulary: int
    token_pixels: int
    group_frames: int
    patches: int
    vision_hidden: int
    vision_layers: int
    matrix_parameters: int
    vision_matrix_parameters: int
    targets: dict[str, int]


def model_sizes(source: str | Path) -> ModelSizes:
    """Return the sizes of a published model by its name, or of the checkpoint in a folder (weights are not read).

    A config.json may be named in place of its folder.

    Raises:
        MissingError: Neither.
        ConfigError: The configuration is no JSON, of another architecture, or no model can be built of it.
    """
    folder = Path(source).parent if Path(source).is_file() else Path(source)
    if str(source) in PUBLISHED:
        values = PUBLISHED[str(source)]
    elif Path(source).is_file() or (folder / "config.json").is_file():
        values = _read(Path(source) if Path(source).is_file() else folder / "config.json")
    else:
        raise MissingError(
            f"no config.json in {str(source)!r}; name a checkpoint's folder or a published model with --model "
            f"(train plan) or --model-config (plan): {', '.join(PUBLISHED)}"
        )
    kind = MODEL_CLASSES[values["model_type"]]
    config: Any = kind.config_class
    try:
        config = config.from_dict(values)
        with torch.device("meta"):
            model: Any = kind(config)
    except Exception as error:  # the library's own checks raise whatever they like
        said = " ".join(str(error).split())[:300]
        raise ConfigError(f"no model can be built of the config.json of {str(source)!r}: {said}") from error
    model.tie_weights()
    inner, text, vision = model.base_model, config.get_text_config(), config.vision_config
    layer = inner.language_model.layers[0]
    head = {id(one): one.numel() for one in (inner.language_model.embed_tokens.weight, model.lm_head.weight)}
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    linear = {
        name: one.in_features + one.out_features
        for name, one in model.named_modules()
        if isinstance(one, torch.nn.Linear)
    }
    matrices = {
        name: one.numel() for name, one in model.named_parameters() if one.ndim == 2 and "embed" not in name
    }
    merge, group = vision.spatial_merge_size, vision.temporal_patch_size
    return ModelSizes(
        name=str(source) if str(source) in PUBLISHED else folder.resolve().name,
        parameters=_count(model), vision_parameters=_count(inner.visual),
        layer_parameters=_count(layer), head_parameters=sum(head.values()), layers=text.num_hidden_layers,
        hidden=text.hidden_size, intermediate=text.intermediate_size, query=text.num_attention_heads * size,
        key_value=text.num_key_value_heads * size, vocabulary=model.lm_head.weight.shape[0],
        token_pixels=(vision.patch_size * merge) ** 2, group_frames=group, patches=merge * merge,
        vision_hidden=vision.hidden_size, vision_layers=vision.depth, matrix_parameters=sum(matrices.values()),
        vision_matrix_parameters=sum(count for name, count in matrices.items() if VISION in name), targets=linear,
    )  # fmt: skip


def _read(file: Path) -> dict[str, Any]:
    """Return a configuration of an architecture that we know."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{str(file)!r} is not valid JSON: {error}") from error
    found = values.get("model_type") if isinstance(values, dict) else None
    if found not in MODEL_CLASSES:
        raise boundary(f"model_type of {str(file)!r}", found, MODEL_CLASSES)
    return values


def _count(module: torch.nn.Module) -> int:
    return sum(one.numel() for one in {id(one): one for one in module.parameters()}.values())


def key_value_bytes(sizes: ModelSizes, tokens: int, width: int) -> int:
    """Return the cache of so many tokens, all layers; ``width`` = bytes of a number."""
    return 2 * sizes.layers * sizes.key_value * tokens * width


def forward_flops(sizes: ModelSizes, tokens: int, *, before: int = 0, heads: int = 0) -> float:
    """Return the multiply-adds, times two, of the text model over ``tokens`` new tokens after ``before`` others.

    ``heads`` of them get logits. Attention is causal: a token meets those before it.
    """
    linear = 2.0 * tokens * sizes.layers * sizes.layer_parameters
    attention = 4.0 * sizes.layers * sizes.query * tokens * (before + tokens / 2)
    return linear + attention + 2.0 * heads * sizes.vocabulary * sizes.hidden


def vision_flops(sizes: ModelSizes, visual_tokens: int) -> float:
    """Return the floating-point operations of the vision tower, without its attention."""
    return 2.0 * visual_tokens * sizes.patches * sizes.vision_parameters
