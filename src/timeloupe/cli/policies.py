"""Which policy the flags of a command ask for, and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from timeloupe.errors import ConfigError, MissingError, boundary

if TYPE_CHECKING:
    from timeloupe.policy.base import Policy

DEFAULT_PROTOCOL = "videotemp"


class Chosen(NamedTuple):
    """A policy with the episode settings and the protocol that go with it."""

    policy: Policy
    episode: dict[str, Any]
    protocol: str


@dataclass(frozen=True)
class PolicyFlags:
    """The flags that belong to a policy, as given; ``None`` = not given."""

    model: str | None = None
    script: Path | None = None
    threads: int = 1


def policy_name(given: str | None, flags: PolicyFlags) -> str:
    """Return the policy to use: the one that is named, else the one that the other flags need, else ``small``.

    Raises:
        ConfigError: No policy has that name.
    """
    name = given or (
        "scripted" if flags.script is not None else "local" if flags.model is not None else "small"
    )
    if name not in POLICIES:
        raise boundary("--policy", name, POLICIES)
    return name


def _small(flags: PolicyFlags) -> Chosen:
    from timeloupe.policy.small import load_small_policy

    _refuse("--policy small", model=flags.model, script=flags.script)
    _set_threads(flags.threads)
    return Chosen(*load_small_policy())


def _local(flags: PolicyFlags) -> Chosen:
    _refuse("--policy local", script=flags.script)
    if flags.model is None:
        raise ConfigError(
            "--policy local needs --model, the folder or hub id of a Qwen2.5-VL or Qwen3-VL checkpoint"
        )
    _set_threads(flags.threads)
    from timeloupe.model.load import load_model
    from timeloupe.policy.local import LocalPolicy

    loaded = load_model(flags.model)
    details = loaded.layout.details
    episode = {"size_multiple": loaded.layout.size_multiple, **details.get("episode", {})}
    return Chosen(LocalPolicy(loaded), episode, details.get("protocol", DEFAULT_PROTOCOL))


def _scripted(flags: PolicyFlags) -> Chosen:
    from timeloupe.policy.scripted import ScriptedPolicy

    _refuse("--policy scripted", model=flags.model)
    if flags.script is None:
        raise ConfigError(
            '--policy scripted needs --script, a JSON file such as {"replies": {"*": ["first turn"]}}'
        )
    return Chosen(ScriptedPolicy(flags.script), {}, DEFAULT_PROTOCOL)


POLICIES: dict[str, Callable[[PolicyFlags], Chosen]] = {
    "small": _small,
    "local": _local,
    "scripted": _scripted,
}


def _refuse(where: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} does not go with {where}, leave one of them out")


def _set_threads(threads: int) -> None:
    try:
        import torch
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingError(
            f"a model in this process needs {error.name!r}, install it with `pip install torch==2.13.0` and then "
            f"`pip install 'timeloupe[local]'`"
        ) from error
    torch.set_num_threads(threads)
