"""What an official script does where it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class OfficialError(Exception):
    """An official script raises on this input.

    Attributes:
        kind: Name of the exception that the script raises, such as ``KeyError``.
    """

    def __init__(self, kind: str, message: str = "") -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind


@contextmanager
def raising_as_script() -> Iterator[None]:
    """Turn what the arithmetic of a script raises on odd data into ``OfficialError`` of the same kind."""
    try:
        yield
    except (
        ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NotImplementedError, RecursionError,
        TypeError, ValueError,
    ) as error:  # fmt: skip
        raise OfficialError(type(error).__name__, str(error)) from error
