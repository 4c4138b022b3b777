"""Which runs of a report are repeats of one another, how they are named, and why others are not. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from timeloupe.eval.config_diff import NOTHING, Setting, area_of, known_settings
from timeloupe.eval.recorded import Recorded

_SURROUNDINGS = ("server.", "code.", "packages.", "decoder.")
_ADDRESS = "server.address"
"""Where a server was decides no reply."""


def same_but_seeds(runs: Sequence[Recorded]) -> list[list[Recorded]]:
    """Return runs that differ in nothing but the seed together, in the order in which they come.

    What may differ beside it is where the server was, the machine, and how fast was played. Runs of one seed are not
    put together: they are no draws of their own.
    """
    found: dict[tuple[str, str, int], list[Recorded]] = {}
    for run in runs:
        base, around = _configuration(run), json.dumps(_around(run), sort_keys=True, default=str)
        at = 0
        while any(seed_of(other) == seed_of(run) for other in found.get((base, around, at), [])):
            at += 1
        found.setdefault((base, around, at), []).append(run)
    return list(found.values())


def apart_notes(groups: Sequence[Sequence[Recorded]], labels: Sequence[str]) -> list[str]:
    """Return what keeps groups of one configuration apart: server, code, packages, weights or scorer, in words.

    Args:
        groups: As ``same_but_seeds`` has them.
        labels: What each is called.
    """
    notes: list[str] = []
    firsts: dict[str, int] = {}
    for at, group in enumerate(groups):
        first = firsts.setdefault(_configuration(group[0]), at)
        one, two = groups[first][0], group[0]
        apart = f"{labels[at]} stands apart from {labels[first]}, which was asked for alike"
        if bool(one.card) != bool(two.card):
            if not {seed_of(run) for run in group} & {seed_of(run) for run in groups[first]}:
                lacking = labels[first] if two.card else labels[at]
                notes.append(
                    f"{apart}: {lacking} has no card, so scorer, weights and server cannot be compared"
                )
            continue
        differ: dict[str, list[str]] = {}
        ones, twos = _around(one), _around(two)
        for key in sorted(ones.keys() | twos.keys()):
            setting = Setting(key, ones.get(key, NOTHING), twos.get(key, NOTHING))
            if setting.one != setting.two:
                differ.setdefault(area_of(key).title, []).append(setting.words)
        if differ:
            words = "; ".join(f"{title}: {', '.join(some)}" for title, some in differ.items())
            notes.append(f"{apart}; what differs is {words}")
    return notes


def seed_of(run: Recorded) -> int | None:
    """Return a run's root seed as its episodes have it."""
    return run.spoken.get("seed")


def short_names(names: Sequence[str]) -> list[str]:
    """Return the last parts of paths, as many as tell them apart."""
    for count in range(1, 8):
        found = ["/".join(name.rstrip("/").split("/")[-count:]) for name in names]
        if len(set(found)) == len(set(names)):
            return found
    return list(names)


def _configuration(run: Recorded) -> str:
    """What was asked for, but for the seed; a run without configuration is alone."""
    if not run.config.get("episode"):
        return f"alone: {run.name}"
    config = dict(run.config)
    config["flags"] = {
        key: value for key, value in config.get("flags", {}).items() if key not in ("seed", "repeats")
    }
    return json.dumps(config, sort_keys=True, default=str)


def _around(run: Recorded) -> dict[str, Any]:
    """What no flag says and yet may decide a score, by dotted name."""
    return {
        key: value for key, value in known_settings(run).items()
        if key == "scorer.mode" or (key.startswith("model.") and key.endswith("sha256"))
        or (key.startswith(_SURROUNDINGS) and key != _ADDRESS)
    }  # fmt: skip
