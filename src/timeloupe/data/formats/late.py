"""Fields that begin late in a file of lines, on which readers that tell types from its beginning fail.

Hugging Face's reader of JSON, which ms-swift and TRL load their rows with, takes the columns and their types from the
first ten mebibytes of a file. A column that none of these rows has, a list that is empty in all of them, or a fraction
where they have whole numbers ends it with an error about casts.
"""

from __future__ import annotations

from typing import Any

from timeloupe.data.formats.files import encoded

HEAD_BYTES = 10 << 20


class LateFields:
    """Kinds of values, place by place, in the beginning of a file, and what comes later than that."""

    def __init__(self, head_bytes: int = HEAD_BYTES) -> None:
        self.first: dict[str, int] = {}
        """Places (``tool_params``, ``messages[].role``) that the beginning knows nothing of, to the first row, from 0,
        with something there."""
        self._left = head_bytes
        self._known: set[str] = set()
        self._whole: set[str] = set()

    def take(self, number: int, record: dict[str, Any]) -> None:
        """Note a record in the order of the file; ``number`` counts its rows from 0."""
        if self._left >= 0:  # the row in which the beginning ends is read with it
            self._left -= len(encoded(record)) + 1
            self._learn("", record)
        else:
            self._compare("", record, number)

    def _learn(self, place: str, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, int) and place not in self._known:
            self._whole.add(place)
        elif isinstance(value, float):
            self._whole.discard(place)
        self._known.add(place)
        for inner, one in _parts(place, value):
            self._learn(inner, one)

    def _compare(self, place: str, value: Any, number: int) -> None:
        if value is None or place in self.first:
            return
        if place not in self._known or (place in self._whole and isinstance(value, float)):
            self.first[place] = number
            return
        for inner, one in _parts(place, value):
            self._compare(inner, one, number)


def _parts(place: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [(f"{place}.{name}" if place else name, one) for name, one in value.items()]
    return [(f"{place}[]", one) for one in value] if isinstance(value, list) else []
