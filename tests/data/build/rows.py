"""The rows of a build without what differs from one making of them to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timeloupe.data.build.record import BuiltRow
from timeloupe.runs import read_appended

MACHINE_FIELDS = "seconds (how long it took) and tries (how many calls a reply needed)"
"""What of a row depends on the machine, and on nothing else."""


def steady(value: Any) -> Any:
    """Return a row as plain data without those fields, at whatever depth they stand."""
    if isinstance(value, BuiltRow):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: steady(inner) for key, inner in value.items() if key not in ("seconds", "tries")}
    if isinstance(value, list | tuple):
        return [steady(inner) for inner in value]
    return value


def steady_rows(folder: Path) -> dict[tuple[str, str], Any]:
    """Return the rows of all stages of a build by stage and id.

    Raises:
        AssertionError: A row is there twice.
    """
    found: dict[tuple[str, str], Any] = {}
    for path in sorted(folder.glob("*/rows.jsonl")):
        for row in read_appended(path, BuiltRow):
            key = (path.parent.name, row.id)
            assert key not in found, f"{key} is there twice"
            found[key] = steady(row)
    return found


def steady_products(folder: Path) -> dict[str, Any]:
    """Return what others read of a build, line by line."""
    import json

    found: dict[str, Any] = {}
    for path in [*folder.glob("*.jsonl"), *folder.glob("*/kept.jsonl")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        found[str(path.relative_to(folder))] = [steady(json.loads(line)) for line in lines]
    return found
