"""The video files that records list, opened for sending as they are.

A record may come from a stranger and list any path. So what is sent has to begin like a video container: a key, a
password file or a database never does. A file that is a symbolic link is not followed unless the user said so: a run
folder that was unpacked from an archive may hold links to anywhere.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from typing import BinaryIO

from timeloupe.errors import VideoError

# The first bytes of the containers that there are, and what browsers call them. QuickTime files are MP4 to a browser:
# under their own name it would not try.
_SIGNATURES = (
    (re.compile(rb".{4}(?:ftyp|moov|mdat|wide|free|skip)", re.DOTALL), "video/mp4"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "video/webm"),
    (re.compile(rb"OggS"), "video/ogg"),
    (re.compile(rb"RIFF.{4}AVI ", re.DOTALL), "video/x-msvideo"),
    (re.compile(rb"FLV\x01"), "video/x-flv"),
    (re.compile(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "video/x-ms-wmv"),
    (re.compile(rb"\x00\x00\x01(?:\xba|\xb3)"), "video/mpeg"),
    (re.compile(rb"\x47.{187}\x47.{187}\x47|.{4}\x47.{191}\x47", re.DOTALL), "video/mp2t"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
)
LINK = "it is a symbolic link"
"""Why such a file is not shown."""

_HEAD_BYTES = 377
"""Three packets of a transport stream, the longest signature."""


@dataclass
class VideoFile:
    """An open video.

    Attributes:
        file: Open for reading, at its first byte; whoever has this closes it.
        size: Its length in bytes.
        kind: Its media type.
        tag: What changes when the file does.
    """

    file: BinaryIO
    size: int
    kind: str
    tag: str


def open_video(path: str, follow_links: bool = False) -> VideoFile:
    """Return the video at ``path``, open for reading.

    Args:
        path: The file.
        follow_links: Whether the file may be a symbolic link. Links among its folders are always followed.

    Raises:
        VideoError: It is not there, not readable, a link, not a regular file, or does not begin like a video.
    """
    # Without O_NONBLOCK, opening a named pipe waits for a writer for ever.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP and os.path.islink(path):
            hint = "add --follow-links to `timeloupe view` if you trust this run"
            raise VideoError(path, LINK, hint=hint) from error
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise VideoError(path, f"it cannot be opened: {reason}") from error
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise VideoError(path, "it is not a regular file")
    file = os.fdopen(descriptor, "rb")
    try:
        head = file.read(_HEAD_BYTES)
        kind = next((kind for signature, kind in _SIGNATURES if signature.match(head)), None)
        if kind is None:
            raise VideoError(path, "it does not begin like a video file")
        file.seek(0)
    except OSError as error:
        file.close()
        raise VideoError(path, f"it cannot be read: {error.strerror}") from error
    except VideoError:
        file.close()
        raise
    return VideoFile(file, facts.st_size, kind, f'"{facts.st_ino:x}-{facts.st_size:x}-{facts.st_mtime_ns:x}"')


def check_video(path: str, follow_links: bool = False) -> None:
    """Raise the ``VideoError`` of :func:`open_video` if the file is not to be shown."""
    open_video(path, follow_links).file.close()
