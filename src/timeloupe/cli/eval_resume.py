"""The flags of a run of ``timeloupe eval`` that is taken up again."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from timeloupe.cli.eval_session import MACHINE_FLAGS, plain, read_session
from timeloupe.errors import ConfigError

PATH_FLAGS = ("data", "videos", "run", "script", "system_prompt", "cache_dir")


def absolute_checkpoints(flags: Mapping[str, Any], served: bool) -> dict[str, Any]:
    """Return ``model`` and ``settings_from``, those that name a folder by its absolute path: a run may be resumed from
    another one. The name of a served model is none."""
    found: dict[str, Any] = {}
    for key in ("settings_from",) if served else ("settings_from", "model"):
        value = flags[key]
        if value is not None and value != "small" and Path(value).is_dir():
            found[key] = str(Path(value).absolute())
    return found


def resumed(flags: dict[str, Any], given: Set[str]) -> dict[str, Any]:
    """Return the flags of the run that is resumed; only those that change no episode may be given anew.

    Args:
        flags: All flags as they stand now, with the run as ``resume``.
        given: Keys of those that the user gave.

    Raises:
        MissingError: There is no such run.
        ConfigError: It is of another command, or a flag that was given differs.
    """
    from timeloupe.runs import open_run

    folder = flags["resume"]
    config = open_run(folder).config
    if config.get("command") != "eval":
        raise ConfigError(f"{str(folder)!r} is a run of `timeloupe {config.get('command')}`, none of eval")
    return merged(flags, given, dict(config["flags"]), read_session(folder), folder)


def merged(
    flags: dict[str, Any], given: Set[str], stored: dict[str, Any], session: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Return stored flags with those of this call that change no episode.

    Args:
        flags: All flags as they stand now.
        given: Keys of those that the user gave.
        stored: What an episode depends on.
        session: The other flags as they were last.
        folder: The run.

    Raises:
        ConfigError: A flag that was given differs.
    """
    flags = flags | absolute_checkpoints(flags, stored.get("policy") == "openai")
    changed = [
        f"{key}: there {stored.get(key)}, now {plain(flags[key])}"
        for key in sorted(given - {"resume", "as_json", "dry_run", *MACHINE_FLAGS})
        if plain(flags[key]) != stored.get(key, False if key == "no_logit_bias" else None)
    ]
    if changed:
        raise ConfigError(
            f"run folder {str(folder)!r} holds another configuration ({'; '.join(changed)}); leave these flags out, or "
            "start a new run"
        )
    kept = {key: flags[key] if key in given else session.get(key, flags[key]) for key in MACHINE_FLAGS}
    found = flags | stored | kept | {"run": folder}
    if "vote" in given and flags["vote"] != "evidence":  # the scorer of an earlier vote is none of this one
        found |= {key: flags[key] for key in ("scorer_base_url", "scorer_model")}
    for key in PATH_FLAGS:
        found[key] = None if found.get(key) is None else Path(found[key])
    return found
