"""Low-rank adapters (LoRA, Hu et al. 2021) by peft: a model that is trained by a thousandth of its numbers.

The adapters stand inside the model; its class, its forward passes and its names of layers stay. A finished checkpoint
has them merged into the weights and is like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from timeloupe.errors import ConfigError, MissingError
from timeloupe.train.recipe import LoraPart

ADAPTER = "default"
MARK = "lora_"


def add_adapters(model: PreTrainedModel, part: LoraPart, *, vision: bool, seed: int) -> None:
    """Put untrained adapters into a model, in float32 whatever its own precision; its outputs stay as they are.

    Args:
        model: Changed in place.
        part: Sizes and places.
        vision: Whether layers of the vision tower with a wanted name get one too.
        seed: Of the adapters' first weights.

    Raises:
        MissingError: peft is not installed.
        ConfigError: No layer has a wanted name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise MissingError(
            "model.lora needs peft; install it with `pip install 'timeloupe[train]'`"
        ) from error
    # The first layer of the vision tower is computed from its weight alone (model.vision_tower): never adapted.
    excluded = r".*visual\.patch_embed\..*" if vision else r".*visual\..*"
    config = LoraConfig(
        r=part.rank, lora_alpha=part.alpha, lora_dropout=part.dropout, target_modules=list(part.target_modules),
        exclude_modules=excluded,
    )  # fmt: skip
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    try:
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(seed)
            inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    except ValueError as error:
        raise ConfigError(
            f"no adapter could be placed: {error}; name layers in lora.target_modules"
        ) from error
    for name, parameter in model.named_parameters():
        if MARK in name:
            parameter.data = parameter.data.float()


def has_adapters(model: nn.Module) -> bool:
    """Whether ``add_adapters`` was called on the model."""
    return any(MARK in name for name, _ in model.named_parameters())


def choose_trainable(model: PreTrainedModel, *, vision: bool) -> None:
    """Let the adapters train, and nothing else; without adapters everything, the vision tower only if wanted."""
    if has_adapters(model):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(MARK in name)
        return
    model.requires_grad_(True)
    if not vision:
        visual: Any = model.base_model.visual
        visual.requires_grad_(False)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Make the model what it was before the adapters, for the time of a ``with`` block."""
    layers = list(_layers(model))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter in trainable:
            parameter.requires_grad_(True)


def adapter_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the adapters' weights by name."""
    return {name: value for name, value in model.state_dict().items() if MARK in name}


def merged_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of the model without adapters that computes the same, by the names of such a model.

    In bfloat16 the sum is rounded: what adapters changed by less than a 256th of a weight is lost in part.
    """
    places = {name: layer for name, layer in model.named_modules() if layer in set(_layers(model))}
    merged: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if MARK in name:
            continue
        owner, _, rest = name.partition(".base_layer.")
        if not rest:
            merged[name] = value
            continue
        if rest == "weight":
            layer: Any = places[owner]
            value = (value.float() + layer.get_delta_weight(ADAPTER).float()).to(value.dtype)
        merged[f"{owner}.{rest}"] = value
    return merged


def _layers(model: nn.Module) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in model.modules() if isinstance(module, BaseTunerLayer))
