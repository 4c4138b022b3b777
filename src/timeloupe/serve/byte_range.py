"""The ``Range`` header of a request: which bytes of a file it asks for. Pure."""

from __future__ import annotations

import re

_RANGE = re.compile(r"bytes=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.ASCII | re.IGNORECASE)


class UnsatisfiableError(ValueError):
    """None of the bytes asked for are there (status 416)."""


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the half-open span of bytes to send, or ``None`` for the whole file.

    A header that is malformed, or names several spans, counts as none: a server may always send everything.

    Args:
        header: The header's value, such as ``bytes=0-99``, ``bytes=100-`` or ``bytes=-50``.
        size: Length of the file in bytes.

    Raises:
        UnsatisfiableError: The span lies behind the end of the file, or is empty.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:  # the last so many bytes
        length = int(last)
        if length == 0 or size == 0:
            raise UnsatisfiableError
        return max(0, size - length), size
    start = int(first)
    end = int(last) + 1 if last else size
    if last and end <= start:
        return None
    if start >= size:
        raise UnsatisfiableError
    return start, min(end, size)
