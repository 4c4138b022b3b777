"""Fields of annotation and prediction files that hold times, and ids that must differ: beside ``files.records``."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

from timeloupe.errors import RecordError
from timeloupe.eval.files.records import Record
from timeloupe.eval.scoring import Window


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number and no bool."""
    # An int may be too large for `math.isfinite`; a comparison is exact, and false for NaN.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def windows(record: Record, name: str) -> tuple[Window, ...]:
    """Return a field that must be a list of [start, end]; they may be reversed, of no length, or past the end.

    Raises:
        RecordError: It is something else.
    """
    value = record.value(name)
    if not isinstance(value, list) or not all(_numbers(item, 2, 2) for item in value):
        raise record.fault(name, f"must be a list of [start, end] in seconds, got {value!r:.80}")
    return tuple((float(start), float(end)) for start, end in value)


def scored_windows(record: Record, name: str) -> list[list[float]]:
    """Return a field that must be a list of [start, end] or [start, end, score], as it is.

    Raises:
        RecordError: It is something else.
    """
    value = record.value(name)
    if not isinstance(value, list) or not all(_numbers(item, 2, 3) for item in value):
        raise record.fault(name, f"must be a list of [start, end, score], got {value!r:.80}")
    return value


def numbers(record: Record, name: str) -> list[float]:
    """Return a field that must be a list of finite numbers, as it is.

    Raises:
        RecordError: It is something else.
    """
    value = record.value(name)
    if not _numbers(value, 0, math.inf):
        raise record.fault(name, f"must be a list of numbers, got {value!r:.80}")
    return value


def finite(record: Record, name: str) -> float:
    """Return a field that must be a finite number.

    Raises:
        RecordError: It is something else.
    """
    value = record.value(name)
    if not is_number(value):
        raise record.fault(name, f"must be a finite number, got {value!r:.80}")
    return float(value)


def best_of_ranking(given: Any) -> Any:
    """Return the one window that a ranked list stands for, as a list of one: the best by score, else the first.

    Of equal scores the first counts. What is no list, or an empty one, is returned as it is.
    """
    if not isinstance(given, list) or not given:
        return given
    scored = [one for one in given if isinstance(one, list | tuple) and len(one) > 2 and is_number(one[2])]
    return [max(scored, key=lambda window: window[2])] if len(scored) == len(given) else given[:1]


def each_once(records: Sequence[Record], name: str) -> dict[str, Record]:
    """Return the records by the text of a field.

    Raises:
        RecordError: Two records have the same, or there is no record.
    """
    found: dict[str, Record] = {}
    for record in records:
        id = record.text(name)
        if id in found:
            raise record.fault(name, f"is {id!r} as in {found[id].where}, each may be there once")
        found[id] = record
    if not found:
        raise RecordError("the file holds no record")
    return found


def _numbers(value: Any, fewest: int, most: float) -> bool:
    return isinstance(value, list) and fewest <= len(value) <= most and all(map(is_number, value))
