"""Which policy the flags of a command ask for, and how it is made."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import typer

from timeloupe.errors import ConfigError, MissingError, boundary

if TYPE_CHECKING:
    from timeloupe.policy.base import Policy

DEFAULT_PROTOCOL = "videotemp"
DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"


class Chosen(NamedTuple):
    """A policy with the episode settings and the protocol that go with it."""

    policy: Policy
    episode: dict[str, Any]
    protocol: str


@dataclass(frozen=True)
class PolicyFlags:
    """The flags that belong to a policy, as given; ``None`` and ``False`` = not given."""

    model: str | None = None
    script: Path | None = None
    threads: int = 1
    base_url: str | None = None
    api_key_env: str | None = None
    send: str | None = None
    time_format: str | None = None
    image_format: str | None = None
    timeout: float | None = None
    max_request: str | None = None
    logprobs: bool = False
    settings_from: str | None = None
    no_logit_bias: bool = False


_TAKES = {
    "small": {"threads"},
    "local": {"threads", "model"},
    "scripted": {"threads", "script"},  # threads has a default: nobody can be told that it is too much
    "openai": {field.name for field in fields(PolicyFlags)} - {"script"},
}
"""Which flags go with which policy."""


def policy_name(given: str | None, flags: PolicyFlags) -> str:
    """Return the policy to use: the one that is named, else the one that the other flags need, else ``small``.

    Raises:
        ConfigError: No policy has that name, or a flag does not go with it.
    """
    needed = {"openai": flags.base_url, "scripted": flags.script, "local": flags.model}
    name = given or next((name for name, value in needed.items() if value is not None), "small")
    if name not in POLICIES:
        raise boundary("--policy", name, POLICIES)
    for field in fields(flags):
        value = getattr(flags, field.name)
        if value is not None and value is not False and field.name not in _TAKES[name]:
            flag = field.name.replace("_", "-")
            raise ConfigError(f"--{flag} does not go with --policy {name}, leave one of them out")
    return name


def _small(flags: PolicyFlags) -> Chosen:
    from timeloupe.policy.small import load_small_policy

    _set_threads(flags.threads)
    return Chosen(*load_small_policy())


def _local(flags: PolicyFlags) -> Chosen:
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

    if flags.script is None:
        raise ConfigError(
            '--policy scripted needs --script, a JSON file such as {"replies": {"*": ["first turn"]}}'
        )
    return Chosen(ScriptedPolicy(flags.script), {}, DEFAULT_PROTOCOL)


def _openai(flags: PolicyFlags) -> Chosen:
    from timeloupe.policy.openai_server import OpenAIPolicy

    options, episode, protocol = openai_options(flags)
    return Chosen(OpenAIPolicy(**options), episode, protocol)


def openai_options(flags: PolicyFlags) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the arguments of ``OpenAIPolicy`` that flags ask for, the episode settings and the protocol.

    Raises:
        ConfigError: There is no ``--base-url``, or two flags do not go together.
    """
    from timeloupe.cli.frame_cache import parse_bytes

    if flags.base_url is None:
        raise ConfigError("--policy openai needs --base-url, such as http://localhost:8000/v1")
    send = flags.send or "images"
    if flags.time_format is not None and send == "video":
        raise ConfigError("--time-format goes with --send images, a video's times are printed by the server")
    episode, protocol = _settings_of(flags.settings_from)
    given = {
        "send": send, "time_format": flags.time_format, "image_format": flags.image_format,
        "timeout_seconds": flags.timeout, "logprobs": flags.logprobs,
        "max_request_bytes": (
            None if flags.max_request is None else parse_bytes("--max-request", flags.max_request)
        ),
    }  # fmt: skip
    options = {
        "base_url": flags.base_url, "model": flags.model,
        "api_key": find_key(flags.base_url, flags.api_key_env), "never_sample": _never_sampled(flags),
    } | {key: value for key, value in given.items() if value is not None}  # fmt: skip
    return options, episode, protocol or DEFAULT_PROTOCOL


def _settings_of(checkpoint: str | None) -> tuple[dict[str, Any], str | None]:
    """Return the episode settings and the protocol of a checkpoint that is served elsewhere; ``small`` is ours."""
    if checkpoint is None:
        return {}, None
    from timeloupe.model.layout import read_episode_defaults
    from timeloupe.policy.small import SMALL_CHECKPOINT

    return read_episode_defaults(SMALL_CHECKPOINT if checkpoint == "small" else checkpoint)


def _never_sampled(flags: PolicyFlags) -> tuple[int, ...]:
    """Return the ids that a server has to be told not to sample: those of the checkpoint that it is said to run."""
    if flags.no_logit_bias and flags.settings_from is None:
        raise ConfigError(
            "--no-logit-bias goes with --settings-from: nothing is banned without it, leave it out"
        )
    if flags.settings_from is None or flags.no_logit_bias:
        return ()
    from timeloupe.model.never_sampled import read_never_sampled
    from timeloupe.policy.small import SMALL_CHECKPOINT

    folder = SMALL_CHECKPOINT if flags.settings_from == "small" else flags.settings_from
    found = read_never_sampled(folder)
    if found is None:
        typer.echo(
            f"{str(folder)!r} has no tokenizer.json: the server is not told which tokens a local policy never samples",
            err=True,
        )
    return found or ()


def find_key(base_url: str, variable: str | None) -> str | None:
    """Return the key for a server, or ``None`` if it gets none.

    Args:
        base_url: Where the server is.
        variable: The environment variable that ``--api-key-env`` names. Without it the key is that of
            ``OPENAI_API_KEY`` if there is one, but a server on this machine is not sent that.

    Raises:
        ConfigError: The variable that was named is not set.
    """
    if variable is not None:
        key = os.environ.get(variable, "").strip()
        if not key:
            raise ConfigError(
                f"--api-key-env names {variable!r}, which is not set or empty: set it to the key"
            )
        return key
    if is_loopback(base_url):
        return None
    return os.environ.get(DEFAULT_KEY_VARIABLE, "").strip() or None


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine, in any way to write that: ``0.0.0.0`` and ``127.1`` are, too."""
    try:
        host = (urlsplit(url.strip()).hostname or "").removesuffix(".")
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        # The C library reads 127.1, 0x7f000001 and 2130706433 as addresses.
        address = ip_address(host if ":" in host else socket.inet_aton(host))
    except (ValueError, OSError):
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


HASHED_BYTES = 1 << 30
"""Weights up to this size are hashed for a run's card; of larger ones the names and sizes of the files are."""


def policy_facts(policy: Policy) -> dict[str, Any]:
    """Return what identifies a policy on a run's card: name, settings, and of a local checkpoint its weights."""
    found: dict[str, Any] = {"name": policy.name} | dict(getattr(policy, "settings", None) or {})
    loaded = getattr(policy, "loaded", None)
    if loaded is not None:
        files = sorted(loaded.folder.glob("*.safetensors"))
        digest = hashlib.sha256()
        small = sum(file.stat().st_size for file in files) <= HASHED_BYTES
        for file in files:
            digest.update(file.read_bytes() if small else f"{file.name} {file.stat().st_size}".encode())
        parameters = list(loaded.model.parameters())
        found |= {
            "checkpoint": loaded.name, "weights_sha256" if small else "weight_files_sha256": digest.hexdigest(),
            "parameters": sum(one.numel() for one in parameters), "dtype": str(parameters[0].dtype),
            "device": str(parameters[0].device),
        }  # fmt: skip
    return found


POLICIES: dict[str, Callable[[PolicyFlags], Chosen]] = {
    "small": _small,
    "local": _local,
    "scripted": _scripted,
    "openai": _openai,
}


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
