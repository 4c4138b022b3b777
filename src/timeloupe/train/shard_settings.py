"""How ``accelerate launch`` asks for sharding: its FSDP options, as far as they are ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from timeloupe.errors import ConfigError, boundary


@dataclass(frozen=True)
class Sharding:
    """How weights are cut.

    Attributes:
        reshard: Give a layer's weights back after its forward pass and gather them again for the backward pass.
    """

    reshard: bool = True


_LEFT_ALONE = {
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", ("false",)),
    "FSDP_ACTIVATION_CHECKPOINTING": ("fsdp_activation_checkpointing", ("false",)),
    # With it the library would load nothing in all processes but one.
    "FSDP_CPU_RAM_EFFICIENT_LOADING": ("fsdp_cpu_ram_efficient_loading", ("false",)),
    "ACCELERATE_MIXED_PRECISION": ("mixed_precision", ("no",)),
    "FSDP_AUTO_WRAP_POLICY": ("fsdp_auto_wrap_policy", ("TRANSFORMER_BASED_WRAP",)),
}
"""Options of accelerate that are the recipe's or fixed here: any other value is refused, not passed over."""


def read_sharding(environment: Mapping[str, str] = os.environ) -> Sharding | None:
    """Return what ``accelerate launch`` was configured to, or ``None`` without FSDP.

    Raises:
        ConfigError: An option that is not read here is set.
    """
    if environment.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        raise ConfigError("DeepSpeed is not supported; launch with recipes/accelerate/fsdp.yaml")
    if environment.get("ACCELERATE_USE_FSDP", "false") != "true":
        return None
    if environment.get("FSDP_VERSION") != "2":
        raise boundary("fsdp_version", environment.get("FSDP_VERSION"), "2")
    for name, (option, allowed) in _LEFT_ALONE.items():
        value = environment.get(name, allowed[0])
        if value not in allowed:
            raise boundary(option, value, allowed, "leave it as in recipes/accelerate/fsdp.yaml")
    reshard = environment.get("FSDP_RESHARD_AFTER_FORWARD", "true")
    if reshard not in ("true", "false"):
        raise boundary("fsdp_reshard_after_forward", reshard, ("true", "false"))
    return Sharding(reshard == "true")
