"""A clip as timestamped images: the form that every server with pictures understands.

Each frame becomes a text with its time and then a picture. The local policy uses the same functions, so a local and a
served model can be compared token by token in this form.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

import numpy as np

from timeloupe.errors import boundary
from timeloupe.trajectory import FrameRef, Message, Part, Text

DEFAULT_TIME_FORMAT = "<{:.1f} seconds>"

MAX_FORMAT_LENGTH = 200
"""Characters of a time format: it is printed before every frame."""


def check_time_format(time_format: str) -> str:
    """Return ``time_format`` as it is.

    Raises:
        ConfigError: It is no format of one plain number, prints the same for all times, is too long or no Unicode.
    """
    texts = {time_format.format(seconds) for seconds in (1.0, 25.0, 4000.0)} if _is_plain(time_format) else ()
    if len(texts) != 3:
        raise boundary(
            "time format", time_format[:MAX_FORMAT_LENGTH],
            f"text of at most {MAX_FORMAT_LENGTH} characters with one number of seconds in it, such as "
            f"'<{{:.1f}} seconds>'",
        )  # fmt: skip
    return time_format


def _is_plain(time_format: str) -> bool:
    """Return whether a format prints one number and nothing of what else a Python object has."""
    try:
        time_format.encode()
        fields = [field for field in string.Formatter().parse(time_format) if field[1] is not None]
    except ValueError:  # that is UnicodeEncodeError, too
        return False
    if len(time_format) > MAX_FORMAT_LENGTH or len(fields) != 1:
        return False
    _, name, spec, conversion = fields[0]
    number = re.fullmatch(r"[-+ ]?0?\d{0,2},?(\.\d{1,2})?[eEfFgG%]?", spec or "")  # a width of 99 at most
    return name in ("", "0") and conversion is None and number is not None


def image_parts(ref: FrameRef, time_format: str) -> tuple[Part, ...]:
    """Return a time and a one-frame ``image`` view for every frame of a view; a view that is one already stays."""
    if ref.view == "image":
        return (ref,)
    parts: list[Part] = []
    for seconds in ref.at_seconds:
        still = {"view": "image", "start_seconds": seconds, "end_seconds": seconds, "at_seconds": (seconds,)}
        parts += [Text(text=time_format.format(seconds)), ref.model_copy(update=still)]
    return tuple(parts)


def check_clips(messages: Sequence[Message], clips: Sequence[np.ndarray]) -> None:
    """Do nothing if there is one clip per view of the chat, with one frame per time.

    Raises:
        ConfigError: Counts or shapes do not match.
    """
    refs = [ref for message in messages for ref in message.frame_refs]
    if len(refs) != len(clips):
        raise boundary("clips of a chat", len(clips), f"one per frame reference ({len(refs)})")
    for index, (ref, clip) in enumerate(zip(refs, clips, strict=True)):
        if clip.ndim != 4 or clip.shape[3] != 3 or clip.dtype != np.uint8 or len(clip) != len(ref.at_seconds):
            raise boundary(
                f"clip {index} of a chat", (clip.shape, str(clip.dtype)),
                f"(N, H, W, 3) uint8 RGB with one frame per time ({len(ref.at_seconds)})",
            )  # fmt: skip


def frames_as_images(
    messages: Sequence[Message], clips: Sequence[np.ndarray], time_format: str = DEFAULT_TIME_FORMAT
) -> tuple[tuple[Message, ...], tuple[np.ndarray, ...]]:
    """Return the chat with every clip as times and pictures, and the pixels of these, each (1, H, W, 3).

    Args:
        messages: The chat.
        clips: Pixels of every view in it, in order, each (N, H, W, 3) uint8 RGB.
        time_format: How a time is printed before its frame.

    Raises:
        ConfigError: Clips and views do not match.
    """
    check_clips(messages, clips)
    shown = tuple(
        message.model_copy(
            update={
                "parts": tuple(
                    one
                    for part in message.parts
                    for one in (image_parts(part, time_format) if isinstance(part, FrameRef) else (part,))
                )
            }
        )
        for message in messages
    )
    return shown, tuple(clip[index : index + 1] for clip in clips for index in range(len(clip)))
