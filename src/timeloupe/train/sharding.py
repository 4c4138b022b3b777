"""Weights, gradients and optimizer state cut among processes (FSDP2): for training that does not fit one device.

Asked for by launching with accelerate's FSDP configuration (``recipes/accelerate/fsdp.yaml``), not by the recipe: what
is trained stays the same. Roll-outs decode token by token, and no two processes the same number of times, so they
cannot share layers; each process plays with a whole copy of the weights, refreshed before every step. The copy is in
bfloat16 on a GPU and has no gradients and no optimizer state, an eighth of what training would hold.
"""

from __future__ import annotations

import copy
import types
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from timeloupe.errors import ConfigError
from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.model.layout import Layout
from timeloupe.model.load import LoadedModel
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.shard_settings import Sharding


def check_shardable(recipe: GrpoRecipe) -> None:
    """Check that the recipe can be trained in shards.

    Raises:
        ConfigError: It has adapters, or an optimizer that needs whole matrices.
    """
    if recipe.model.lora is not None:
        raise ConfigError(
            "model.lora does not need shards: launch without FSDP (torchrun), each process has it all"
        )
    if recipe.optimizer == "muon":
        raise ConfigError(
            "optimizer 'muon' needs whole matrices, allowed 'adamw', do set optimizer = 'adamw'"
        )


def shard(model: PreTrainedModel, sharding: Sharding, device: torch.device) -> None:
    """Cut a model among all processes, in place: text layers one by one, the rest together.

    A vision tower that is not trained stays whole in each process. From now on the model is run by ``log_probs`` only,
    by all processes equally often.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    from timeloupe.train.logprobs import SHARDED, whole_log_probs

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    inner: Any = model.base_model
    whole = {one for one in inner.visual.parameters() if not one.requires_grad}
    inner.visual.to(device)
    for buffer_owner in model.modules():
        for name, buffer in buffer_owner.named_buffers(recurse=False):
            setattr(buffer_owner, name, buffer.to(device))
    parts = [*inner.language_model.layers, model]
    for part in parts:
        root = part is model
        fully_shard(
            part, mesh=mesh, reshard_after_forward=sharding.reshard and not root, ignored_params=whole
        )
        # The loss is already a share of the whole batch: gradients are summed, not averaged.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)
    setattr(model, SHARDED, types.MethodType(whole_log_probs, model))
    register_fsdp_forward_method(model, SHARDED)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in one piece; all processes must call this for the same tensors in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor cut as ``other`` is."""
    if not isinstance(other, DTensor) or tensor.shape != other.shape:
        return tensor
    cut = distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)
    return cut.to(other.dtype)


def whole_copy(loaded: LoadedModel, device: torch.device) -> LoadedModel:
    """Return a model for roll-outs with weights of its own, in bfloat16 on a GPU; call it before ``shard``."""
    dtype = torch.bfloat16 if device.type == "cuda" else loaded.model.dtype
    model: Any = copy.deepcopy(loaded.model).requires_grad_(False).eval()
    return replace(loaded, model=model.to(device=device, dtype=dtype))


@torch.no_grad()
def refresh(playing: LoadedModel, loaded: LoadedModel) -> None:
    """Give the copy the weights of the sharded model, one tensor at a time; all processes must call this."""
    if playing is loaded:
        return
    pairs = zip(playing.model.parameters(), loaded.model.parameters(), strict=True)
    for mine, theirs in pairs:
        mine.copy_(whole(theirs))


def filler(layout: Layout) -> TokenEpisode:
    """Return a shortest episode with a clip: what a process runs while others have more to learn."""
    side = layout.size_multiple
    clip = Clip(np.zeros((1, side, side, 3), np.uint8), (0.0,))
    end = layout.eos_token_ids[0]
    return TokenEpisode(
        (TokenSegment((end, *layout.placeholder())), TokenSegment((end,), trained=True, logprobs=(0.0,))),
        (clip,),
    )
