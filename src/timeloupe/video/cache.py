"""Decoded frames, shared by readers and threads: in memory, bounded in bytes, and below that optionally on disk."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TypedDict

import numpy as np

from timeloupe.video.container import FileIdentity
from timeloupe.video.disk_cache import DiskCache

FrameKey = tuple[FileIdentity, int, tuple[int, int]]
"""File identity, presentation time in ticks, size (width, height)."""

_OVERHEAD_BYTES = 512
_MAPPED_BYTES = 16 * 2**10
_MAX_MAPPED = 16_384
_LONGEST_WAIT_SECONDS = 60.0
_TRIM_SHARE = 16
_TRIM_BYTES = 8 * 2**20


class CacheFigures(TypedDict):
    """What a cache has done so far; frames, but for ``hit_rate`` (0 to 1, 0 before the first) and ``num_bytes``."""

    memory_hits: int
    disk_hits: int
    misses: int
    hit_rate: float
    num_bytes: int


class FrameCache:
    """Least-recently-used frames.

    Args:
        max_bytes: Bound on the frames held in memory, with about 0.5 KB of overhead each; 0 keeps nothing there.
        disk: Where frames are looked for that memory does not hold, and where every new one is written too.
    """

    def __init__(self, max_bytes: int, disk: DiskCache | None = None) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be >= 0, got {max_bytes!r}")
        self.max_bytes = max_bytes
        self.disk = disk
        self._changed = threading.Condition()
        self._frames: OrderedDict[FrameKey, np.ndarray] = OrderedDict()
        self._claimed: set[FrameKey] = set()
        self._num_bytes = 0
        self._num_mapped = 0
        self._put_since_trim = 0
        self._memory_hits = 0
        self._disk_hits = 0
        self._misses = 0
        _caches.add(self)

    @property
    def num_bytes(self) -> int:
        """Bytes of memory held now, never more than ``max_bytes``."""
        return self._num_bytes

    @property
    def hits(self) -> int:
        """Frames served, from memory or from disk."""
        return self._memory_hits + self._disk_hits

    @property
    def misses(self) -> int:
        """Frames asked for that were not here."""
        return self._misses

    def figures(self) -> CacheFigures:
        """Return how many frames came from memory, from disk and from neither, and the bytes of memory held."""
        with self._changed:
            asked = self.hits + self._misses
            return {
                "memory_hits": self._memory_hits, "disk_hits": self._disk_hits, "misses": self._misses,
                "hit_rate": self.hits / asked if asked else 0.0, "num_bytes": self._num_bytes,
            }  # fmt: skip

    def __len__(self) -> int:
        return len(self._frames)

    def get(self, key: FrameKey, *, again: bool = False) -> np.ndarray | None:
        """Return a frame as read-only (H, W, 3) uint8 RGB, or ``None``.

        Args:
            key: Which frame.
            again: The frame was asked for before and counted as a miss; being here now turns that into a hit.
        """
        with self._changed:
            frame = self._frames.get(key)
            if frame is not None:
                self._memory_hits += 1
                self._misses -= again
                self._frames.move_to_end(key)
                return frame
        found = None if self.disk is None else self.disk.get(key)
        if found is not None:
            self._keep(key, found)
        with self._changed:
            self._disk_hits += found is not None
            self._misses += (found is None) - again
        return found

    def put(self, key: FrameKey, frame: np.ndarray) -> None:
        """Keep a copy of a frame, (H, W, 3) uint8; one larger than the whole cache is not kept."""
        self._keep(key, frame)
        if self.disk is not None:
            self.disk.put(key, frame)

    def _keep(self, key: FrameKey, frame: np.ndarray) -> None:
        if _cost(frame) > self.max_bytes:
            return
        # Roughly enough: threads may go over it together by one each.
        kept = _copy(frame, mapped=frame.nbytes >= _MAPPED_BYTES and self._num_mapped < _MAX_MAPPED)
        with self._changed:
            old = self._frames.pop(key, None)
            if old is not None:
                self._count(old, -1)
            self._frames[key] = kept
            self._count(kept, 1)
            while self._num_bytes > self.max_bytes:
                _, dropped = self._frames.popitem(last=False)
                self._count(dropped, -1)
            self._put_since_trim += _cost(kept)
            trim = self._put_since_trim > max(self.max_bytes // _TRIM_SHARE, _TRIM_BYTES)
            if trim:
                self._put_since_trim = 0
        if trim:
            _trim_heap()

    def _count(self, frame: np.ndarray, by: int) -> None:
        self._num_bytes += by * _cost(frame)
        self._num_mapped += by * (not frame.flags.owndata)

    def claim(self, keys: Iterable[FrameKey], *, into: set[FrameKey] | None = None) -> set[FrameKey]:
        """Return those of ``keys`` that nobody is decoding; the caller decodes these and must :meth:`release` them.

        So that threads that want the same frame at the same time decode it once. Claim, decode, release, and only
        then :meth:`wait` for what others hold: nobody waits while holding a claim, so nobody waits for ever.

        Args:
            keys: The frames wanted.
            into: The set to add the claims to and return, so that the caller knows of them even where an interrupt
                comes before the return.
        """
        mine = set() if into is None else into
        with self._changed:
            mine |= set(keys) - self._claimed
            self._claimed |= mine
        return mine

    def release(self, keys: Iterable[FrameKey]) -> None:
        """Give claims back, whether the frames came or not."""
        with self._changed:
            self._claimed.difference_update(keys)
            self._changed.notify_all()

    def wait(self, keys: Sequence[FrameKey]) -> None:
        """Return when nobody is decoding any of ``keys``, or after a minute: then decode them yourself."""
        with self._changed:
            self._changed.wait_for(lambda: self._claimed.isdisjoint(keys), _LONGEST_WAIT_SECONDS)

    def renew_after_fork(self) -> None:
        """In a forked process: forget the locks and claims of the threads that were not copied."""
        self._changed = threading.Condition()
        self._claimed = set()
        self._num_bytes = self._num_mapped = 0  # a thread may have been in the middle of counting
        for frame in self._frames.values():
            self._count(frame, 1)
        if self.disk is not None:
            self.disk.renew_after_fork()


_caches: weakref.WeakSet[FrameCache] = weakref.WeakSet()


def _renew_after_fork() -> None:
    for each in list(_caches):
        each.renew_after_fork()


os.register_at_fork(after_in_child=_renew_after_fork)


def _trim_heap() -> None:
    """Give what decoding has freed back to the system, where the C library keeps it (glibc).

    It keeps a heap for each thread, and between frames that stay and frames that go these grow by more than the
    cache holds: measured.
    """
    trim = _trimmer()
    if trim is not None:
        trim(0)


@cache
def _trimmer() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return None


def _cost(frame: np.ndarray) -> int:
    """Return the bytes of memory that a frame takes: a large one takes whole pages."""
    pages = -(-frame.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    return (pages if frame.nbytes >= _MAPPED_BYTES else frame.nbytes) + _OVERHEAD_BYTES


def _copy(frame: np.ndarray, *, mapped: bool) -> np.ndarray:
    """Return a read-only copy, if ``mapped`` in pages of its own.

    What the decoder gives out is a view of a larger buffer, and the allocator hands blocks that are dropped in another
    order than they were made back late or never: a third of the bound too much, measured. Pages of one's own go back
    at once. Small frames are not worth them, and the kernel allows a process some 65,000 mappings in all.
    """
    kept: np.ndarray | None = None
    if mapped:
        try:
            pages = mmap.mmap(-1, frame.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError:  # too many mappings
            pages = None
        if pages is not None:
            kept = np.frombuffer(pages, np.uint8).reshape(frame.shape)
            kept[:] = frame
    if kept is None:
        kept = frame.copy()
    kept.flags.writeable = False
    return kept
