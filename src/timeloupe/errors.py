"""Every exception that timeloupe raises on purpose.

::

    TimeloupeError            base; its message says what is wrong, the value, what is allowed, what to do
      ConfigError             a recipe, flag or setting is wrong                              exit code 2
      MissingError            a file, extra or program is not there; says how to get it       exit code 3
      VideoError              a video cannot be read: path, codec, where, what to do          exit code 1
      PolicyError             a model or server did not answer                                exit code 1
      RecordError             a record file holds a line that is not a valid record           exit code 1

A model's malformed reply is not an exception: it is a ``Problem`` in the trajectory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class TimeloupeError(Exception):
    """Base of every error raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 1


class ConfigError(TimeloupeError):
    """A recipe, flag or setting is wrong."""

    exit_code = 2


class MissingError(TimeloupeError):
    """Something that is needed is not installed or not there; the message says how to get it."""

    exit_code = 3


class VideoError(TimeloupeError):
    """A video cannot be read.

    Args:
        path: The file as the caller named it.
        reason: What is wrong with it, in one sentence.
        codec: The codec's name if the file got that far, else ``None``.
        at_seconds: Where in the video it went wrong, if known.
        until_seconds: End of the stretch that cannot be shown, which starts at ``at_seconds``; only damage
            inside a file has one.
        hint: What the user can do.
    """

    def __init__(
        self,
        path: object,
        reason: str,
        *,
        codec: str | None = None,
        at_seconds: float | None = None,
        until_seconds: float | None = None,
        hint: str = "check the file with `timeloupe probe FILE`",
    ) -> None:
        self.path = str(path)
        self.reason = reason
        self.codec = codec
        self.at_seconds = at_seconds
        self.until_seconds = until_seconds
        self.hint = hint
        where = "" if at_seconds is None else f" at {at_seconds:.3f} s"
        if at_seconds is not None and until_seconds is not None:
            where = f" between {at_seconds:.3f} s and {until_seconds:.3f} s"
        with_codec = "" if codec is None else f" ({codec})"
        super().__init__(f"cannot read video {self.path!r}{with_codec}{where}: {reason}; {hint}")

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling across processes.
        return (_rebuild_video_error, (self.fields(),))

    def fields(self) -> dict[str, Any]:
        """Return the arguments it was made with, by name; plain values that JSON can hold."""
        return {
            "path": self.path,
            "reason": self.reason,
            "codec": self.codec,
            "at_seconds": self.at_seconds,
            "until_seconds": self.until_seconds,
            "hint": self.hint,
        }


def _rebuild_video_error(fields: dict[str, Any]) -> VideoError:
    return VideoError(**fields)


class PolicyError(TimeloupeError):
    """A model or server did not answer; the machine's fault, never the policy's."""


class RecordError(TimeloupeError):
    """A record file holds a line that is not a valid record."""


def boundary(what: str, got: object, allowed: Iterable[object] | str, do: str = "") -> ConfigError:
    """Return a ``ConfigError`` in the house form: what is wrong, the value, the legal values, the next step."""
    legal = allowed if isinstance(allowed, str) else ", ".join(str(item) for item in allowed)
    tail = f", {do}" if do else ""
    return ConfigError(f"{what}, got {got!r}, allowed: {legal}{tail}")
