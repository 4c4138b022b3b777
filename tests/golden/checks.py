"""How replayed values are compared, and the closing line of both replay commands."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

TOLERANCE = 1e-7


@dataclass(frozen=True)
class Check:
    """One comparison; ``why`` is empty where it passed."""

    id: str
    why: str = ""


def difference(got: Any, expected: Any, tolerance: float = TOLERANCE, where: str = "") -> str:
    """Return where and how ``got`` differs from ``expected``, or "" if it does not.

    Numbers are equal within ``tolerance`` (absolute); ``{"__float__": "nan"}``, "NaN" and NaN are one value; tuples are
    lists; keys of dicts are compared as strings; True and 1 are equal, True and "True" are not.
    """
    got, expected = _plain(got), _plain(expected)
    if isinstance(expected, dict) and isinstance(got, dict):
        mine = {str(key): value for key, value in got.items()}
        theirs = {str(key): value for key, value in expected.items()}
        if mine.keys() != theirs.keys():
            return f"{where or 'value'}: keys {sorted(mine)[:12]} for {sorted(theirs)[:12]}"
        found = (difference(mine[key], theirs[key], tolerance, f"{where}.{key}") for key in theirs)
        return next((one for one in found if one), "")
    if isinstance(expected, list) and isinstance(got, list):
        if len(got) != len(expected):
            return f"{where or 'value'}: {len(got)} items for {len(expected)}: {got!r:.120} for {expected!r:.120}"
        pairs = enumerate(zip(got, expected, strict=True))
        found = (difference(one, two, tolerance, f"{where}[{at}]") for at, (one, two) in pairs)
        return next((one for one in found if one), "")
    if _is_number(got) and _is_number(expected):
        if got == expected or (math.isnan(got) and math.isnan(expected)):
            return ""
        if math.isfinite(got) and math.isfinite(expected) and abs(got - expected) <= tolerance:
            return ""
    elif type(got) is type(expected) and got == expected:
        return ""
    return f"{where or 'value'}: {got!r:.160} for {expected!r:.160}"


def compare(id: str, got: Any, expected: Any, tolerance: float = TOLERANCE) -> Check:
    """Return the check of one value."""
    return Check(id, difference(got, expected, tolerance))


def finish(checks: Iterable[Check]) -> int:
    """Print each failure and ``N passed, M failed``; return the exit code."""
    passed = failed = 0
    for check in checks:
        if check.why:
            failed += 1
            print(f"FAILED {check.id}: {check.why}")
        else:
            passed += 1
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, dict) and value.keys() == {"__float__"}:
        return float(value["__float__"])
    return math.nan if value == "NaN" else value
