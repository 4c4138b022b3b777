"""What an official script does where it fails."""

from __future__ import annotations


class OfficialError(Exception):
    """An official script raises on this input.

    Attributes:
        kind: Name of the exception that the script raises, such as ``KeyError``.
    """

    def __init__(self, kind: str, message: str = "") -> None:
        super().__init__(f"{kind}: {message}" if message else kind)
        self.kind = kind
