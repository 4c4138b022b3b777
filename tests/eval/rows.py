"""The episodes of a run folder without what differs from one playing of them to the next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MACHINE_FIELDS = (
    "seconds, turns[].seconds, turns[].generation.seconds (how long it took), frames_decoded and frames_cached (what "
    "others had decoded before), settings.policy.base_url (where the server was)"
)
"""What of an episode depends on the machine, and on nothing else."""

Key = tuple[str, int]
"""Example id and which repeat."""


def steady_rows(folder: Path) -> dict[Key, dict[str, Any]]:
    """Return what was shown and said in each episode of a run.

    Raises:
        AssertionError: An episode is there twice.
    """
    found: dict[Key, dict[str, Any]] = {}
    with (folder / "trajectories.jsonl").open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            row = json.loads(line)
            key = (row["example"]["id"], row["rollout_index"])
            assert key not in found, f"{key} is there twice"
            for name in ("seconds", "frames_decoded", "frames_cached"):
                del row[name]
            for turn in row["turns"]:
                del turn["seconds"], turn["generation"]["seconds"]
            row["settings"].get("policy", {}).pop("base_url", None)
            found[key] = row
    return found
