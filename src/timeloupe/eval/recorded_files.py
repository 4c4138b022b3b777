"""The JSON files of a run folder, read as what a report needs: another program may have written them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from timeloupe.errors import ConfigError
from timeloupe.eval.card import CARD
from timeloupe.runs import CONFIG, ENVIRONMENT, read_json

SESSION = "session.json"
"""Written by ``timeloupe eval``: how a run was last played."""

_OBJECTS = {
    CARD: ("benchmark", "model", "prompt", "sampling", "scorer", "environment", "cost"),
    CONFIG: ("flags", "episode", "policy"),
    SESSION: (),
    ENVIRONMENT: (),
}
"""Keys of each file that are read further, and so must be objects."""


def read_sessions(path: Path) -> list[dict[str, Any]]:
    """Return the environments of a run, one per session: a training's file is one itself."""
    found = read_json(path) if path.is_file() else {"sessions": []}
    if isinstance(found, dict) and "sessions" not in found and "packages" in found:
        found = {"sessions": [found]}
    return check_object(path, found)["sessions"]


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a run's file; empty if there is no such file."""
    return check_object(path, read_json(path)) if path.is_file() else {}


def check_object(path: Path, found: Any) -> dict[str, Any]:
    """Return the object that a run's file holds, whose parts are what they must be."""

    def demand(what: str, value: Any, kind: type, word: str) -> None:
        if not isinstance(value, kind):
            raise ConfigError(
                f"{what} of {str(path)!r} must be {word}, got {value!r:.60}; mend the file or remove it"
            )

    demand("the whole", found, dict, "a JSON object")
    for key in _OBJECTS[path.name]:
        demand(repr(key), found.get(key) or {}, dict, "an object")
    if path.name == CONFIG:
        demand("'questions'", found.get("questions", 0), int, "a number")
        demand("'benchmark'", found.get("benchmark", ""), str, "a name")
    if path.name == ENVIRONMENT:
        demand("'sessions'", found.get("sessions"), list, "a list")
        for session in found["sessions"]:
            demand("a session", session, dict, "an object")
            demand("'packages'", session.get("packages", {}), dict, "an object")
    return {key: value for key, value in found.items() if value is not None}
