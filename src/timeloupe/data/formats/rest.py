"""What a record has beyond what its row holds, and putting it back.

A format's reader takes what rows have a place for. Whatever else a record holds (fields that only its format knows,
other spellings of the same value) is found by writing the row again and comparing: nothing has to be listed by hand,
and nothing can be forgotten. Only the same format puts it back; for every other one it is a loss, and told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from timeloupe.data.formats.row import ABSENT


def rest_of(record: Mapping[str, Any], written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ``record`` that ``written`` lacks or has otherwise; objects are compared field by field.

    ``ABSENT`` stands for a field that only ``written`` has. Numbers that are equal are equal, whole or not.
    """
    found: dict[str, Any] = {}
    for name, value in record.items():
        if name not in written:
            found[name] = value
        elif isinstance(value, dict) and isinstance(written[name], dict):
            if inner := rest_of(value, written[name]):
                found[name] = inner
        elif not same(value, written[name]):
            found[name] = value
    return found | {name: ABSENT for name in written if name not in record}


def put_back(written: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``written`` with the rest in it."""
    found = dict(written)
    for name, value in rest.items():
        if isinstance(value, str) and value == ABSENT:
            found.pop(name, None)
        elif isinstance(value, dict) and isinstance(found.get(name), dict):
            found[name] = put_back(found[name], value)
        else:
            found[name] = value
    return found


def named(rest: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the names of the fields in a rest, ``outer.inner``, without those that were absent or say nothing."""
    for name, value in rest.items():
        if isinstance(value, dict) and value:
            yield from named(value, f"{prefix}{name}.")
        elif value is not None and not (isinstance(value, str) and value == ABSENT):
            yield f"{prefix}{name}"


def same(one: object, other: object) -> bool:
    """Return whether two JSON values say the same; unlike ``==``, true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other
