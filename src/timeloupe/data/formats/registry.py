"""The formats there are, by name: the one place that knows them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from timeloupe.data.formats import (
    examples,
    museg,
    museg_eval,
    openai,
    openo3,
    swift_rl,
    swift_sft,
    taro,
    taro_eval,
    trajectories,
    trl,
    verl,
)
from timeloupe.data.formats.row import Format
from timeloupe.errors import RecordError, boundary

MODULES: dict[str, ModuleType] = {
    "examples": examples,
    "trajectories": trajectories,
    "swift_sft": swift_sft,
    "swift_rl": swift_rl,
    "trl": trl,
    "openai": openai,
    "verl": verl,
    "museg": museg,
    "museg_eval": museg_eval,
    "taro": taro,
    "taro_eval": taro_eval,
    "openo3": openo3,
}


def format_named(name: str) -> Format:
    """Return the format of a name.

    Raises:
        ConfigError: There is none.
    """
    if name not in MODULES:
        raise boundary("format of rows", name, MODULES)
    return MODULES[name].FORMAT


def recognised(records: Sequence[Mapping[str, Any]], where: str) -> Format:
    """Return the one format that more than half of the records look like; the others of them will be bad rows.

    Raises:
        RecordError: They look like none or like several; the message names the fields that they have.
    """
    found = [
        name
        for name, module in MODULES.items()
        if 2 * sum(map(module.FORMAT.recognises, records)) > len(records)
    ]
    if len(found) == 1:
        return format_named(found[0])
    fields = sorted({name for record in records for name in record})[:12]
    what = f"looks like {' and '.join(found)}" if found else "is in no known format"
    raise RecordError(
        f"{where} {what}, its first rows have the fields {fields}; name it with --from, one of {', '.join(MODULES)}"
    )
