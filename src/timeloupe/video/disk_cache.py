"""Decoded frames as plain files in one folder, shared by processes and kept from run to run.

One file a frame. Its name is a hash of the key; it holds a magic word, a checksum of all that follows, the shape,
the whole key, and the raw pixels. It is written under another name and renamed, so a process that is killed leaves
at most a temporary file. Whatever does not match its checksum and its key is not a frame: it is removed and never
used. There are no locks and no index, the folder may be deleted at any time, and files with other names in it are
left alone.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import struct
import threading
import time
import warnings
from pathlib import Path

import av
import numpy as np

from timeloupe.errors import boundary
from timeloupe.video.container import FileIdentity

_MAGIC = b"TLFRAME1"
_CHECKSUM_BYTES = 16
_SHAPE = struct.Struct("<III")  # height, width, bytes of the key
_HEADER_BYTES = len(_MAGIC) + _CHECKSUM_BYTES + _SHAPE.size
_FRAME_NAME = re.compile(r"[0-9a-f]{32}\.frame")
_TEMPORARY_NAME = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{16}\.tmp")
_BLOCK_BYTES = 4096
_TOUCH_SECONDS = 60.0
_STALE_SECONDS = 600.0
_SHARE = 16


class DiskCache:
    """Frames on disk, bounded in bytes by least recent use.

    Bytes are counted in whole blocks of 4 KiB. One process never goes over ``max_bytes``. Processes do not talk to
    each other: each looks at the folder at its first write and after every sixteenth of ``max_bytes`` that it has
    written, so each further one that writes at the same time may add up to a sixteenth, until the next look.

    When a frame cannot be written (a full disk, a folder that is read-only or gone) there is one warning and nothing
    is written any more; what can still be read is read. No fault of the disk is ever an error of a read.

    Args:
        folder: Where; made if it is not there.
        max_bytes: Bound on the frames held; one larger than a sixteenth of it is not kept.

    Raises:
        ConfigError: ``folder`` is a file or cannot be made, or ``max_bytes`` is negative.
    """

    def __init__(self, folder: str | Path, max_bytes: int) -> None:
        if max_bytes < 0:
            raise boundary("size of the frame cache on disk", max_bytes, "a number of bytes >= 0")
        self.folder = Path(folder).absolute()
        self.max_bytes = max_bytes
        self._share = max_bytes // _SHARE
        self._lock = threading.Lock()
        self._left_until_look = 0
        self._writes = True
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise boundary(
                "the frame cache needs a folder", str(folder), "a folder, or a name that is free",
                f"name another one ({error.strerror})",
            ) from error  # fmt: skip

    def get(self, key: tuple[FileIdentity, int, tuple[int, int]]) -> np.ndarray | None:
        """Return a frame as read-only (H, W, 3) uint8 RGB, or ``None`` if it is not here or is damaged."""
        words = _words(key)
        path = self.folder / _name(words)
        try:
            # A link, or a pipe that would block, is none of ours.
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                _remove(path)
            return None
        try:
            status = os.fstat(file)
            content = b""
            if stat.S_ISREG(status.st_mode) and status.st_size == _file_bytes(key, words):
                with open(file, "rb", closefd=False) as stream:
                    content = stream.read()
                if abs(time.time() - status.st_mtime) > _TOUCH_SECONDS:
                    _touch(file)
        except OSError:
            return None
        finally:
            os.close(file)
        frame = _unpack(content, key, words)
        if frame is None:
            _remove(path)
        return frame

    def put(self, key: tuple[FileIdentity, int, tuple[int, int]], frame: np.ndarray) -> None:
        """Write a frame, (H, W, 3) uint8, so that it is there whole or not at all."""
        if not self._writes:
            return
        words = _words(key)
        size = _blocks(_file_bytes(key, words))
        if size > self._share:
            return
        name = _name(words)
        temporary = self.folder / f"{name.removesuffix('.frame')}.{secrets.token_hex(8)}.tmp"
        try:
            self._make_room(size)
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(file, "wb") as stream:
                stream.write(_pack(frame, words))
            os.replace(temporary, self.folder / name)
        except IsADirectoryError:
            _remove(temporary)  # a folder sits on the name of this one frame
        except OSError as error:
            _remove(temporary)
            self._give_up(error)

    def renew_after_fork(self) -> None:
        """In a forked process: forget the lock of a thread that was not copied."""
        self._lock = threading.Lock()

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            first, self._writes = self._writes, False
        if first:
            reason = error.strerror or type(error).__name__
            warnings.warn(
                f"no more frames are written to the cache folder {str(self.folder)!r}: {reason}; "
                "reading goes on, frames are decoded again where needed",
                RuntimeWarning,
                stacklevel=4,
            )

    def _make_room(self, size: int) -> None:
        """Account for ``size`` bytes to come; look at the folder where this process has used up its share."""
        with self._lock:
            if self._left_until_look < size:
                self._drop_oldest(self.max_bytes - self._share)
                self._left_until_look = self._share
            self._left_until_look -= size

    def _drop_oldest(self, most_bytes: int) -> None:
        """Remove the least recently used frames until at most ``most_bytes`` are left, and old temporary files."""
        found: list[tuple[int, int, str]] = []
        stale_ns = time.time_ns() - int(_STALE_SECONDS * 1e9)
        with os.scandir(self.folder) as entries:
            for entry in entries:
                unfinished = _TEMPORARY_NAME.fullmatch(entry.name)
                if not unfinished and not _FRAME_NAME.fullmatch(entry.name):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # another process was faster
                if unfinished and status.st_mtime_ns < stale_ns:
                    _remove(Path(entry.path))  # left behind by a process that was killed
                    continue
                found.append((status.st_mtime_ns, _blocks(status.st_size), entry.name))
        held = sum(size for _, size, _ in found)
        found.sort()
        for _, size, name in found:
            if held <= most_bytes:
                break
            if _FRAME_NAME.fullmatch(name):
                _remove(self.folder / name)
                held -= size


def _words(key: tuple[FileIdentity, int, tuple[int, int]]) -> bytes:
    """Return a key as bytes; the decoder's version is part of it, as another one may give other pixels."""
    (path, num_bytes, mtime_ns), pts, size_wh = key
    return json.dumps([av.__version__, path, num_bytes, mtime_ns, pts, *size_wh]).encode()


def _name(words: bytes) -> str:
    return hashlib.blake2b(words, digest_size=16).hexdigest() + ".frame"


def _file_bytes(key: tuple[FileIdentity, int, tuple[int, int]], words: bytes) -> int:
    width, height = key[2]
    return _HEADER_BYTES + len(words) + 3 * width * height


def _blocks(num_bytes: int) -> int:
    return -(-num_bytes // _BLOCK_BYTES) * _BLOCK_BYTES


def _pack(frame: np.ndarray, words: bytes) -> bytes:
    height, width = frame.shape[:2]
    body = _SHAPE.pack(height, width, len(words)) + words + np.ascontiguousarray(frame).tobytes()
    return _MAGIC + _checksum(body) + body


def _unpack(
    content: bytes, key: tuple[FileIdentity, int, tuple[int, int]], words: bytes
) -> np.ndarray | None:
    """Return the frame in a file's content if it is whole and the one asked for."""
    width, height = key[2]
    body = memoryview(content)[len(_MAGIC) + _CHECKSUM_BYTES :]
    good = (
        len(content) == _file_bytes(key, words)
        and content.startswith(_MAGIC)
        and content[len(_MAGIC) : len(_MAGIC) + _CHECKSUM_BYTES] == _checksum(body)
        and body[: _SHAPE.size] == _SHAPE.pack(height, width, len(words))
        and body[_SHAPE.size : _SHAPE.size + len(words)] == words
    )
    if not good:
        return None
    return np.frombuffer(content, np.uint8, offset=_HEADER_BYTES + len(words)).reshape(height, width, 3)


def _checksum(body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES).digest()


def _touch(file: int) -> None:
    """Note that a file was used; a folder that is read-only keeps the order it has."""
    try:
        os.utime(file)
    except OSError:
        return


def _remove(path: Path) -> None:
    """Remove a file if that can be done; another process may have been faster, the folder may be read-only."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
