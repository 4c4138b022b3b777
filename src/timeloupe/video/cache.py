"""Decoded frames in memory, shared by readers and threads, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from timeloupe.video.container import FileIdentity

FrameKey = tuple[FileIdentity, int, tuple[int, int]]
"""File identity, presentation time in ticks, size (width, height)."""

_OVERHEAD_BYTES = 512


class FrameCache:
    """Least-recently-used frames.

    Args:
        max_bytes: Bound on the pixels held (with about 0.5 KB of overhead a frame); 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be >= 0, got {max_bytes!r}")
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._frames: OrderedDict[FrameKey, np.ndarray] = OrderedDict()
        self._num_bytes = 0
        self._hits = 0
        self._misses = 0

    @property
    def num_bytes(self) -> int:
        """Bytes held now, never more than ``max_bytes``."""
        return self._num_bytes

    @property
    def hits(self) -> int:
        """Frames served."""
        return self._hits

    @property
    def misses(self) -> int:
        """Frames asked for that were not here."""
        return self._misses

    def __len__(self) -> int:
        return len(self._frames)

    def get(self, key: FrameKey) -> np.ndarray | None:
        """Return a frame as read-only (H, W, 3) uint8 RGB, or ``None``."""
        with self._lock:
            frame = self._frames.get(key)
            if frame is None:
                self._misses += 1
                return None
            self._hits += 1
            self._frames.move_to_end(key)
            return frame

    def put(self, key: FrameKey, frame: np.ndarray) -> None:
        """Keep a frame, which must not be changed afterwards; one larger than the whole cache is not kept."""
        size = frame.nbytes + _OVERHEAD_BYTES
        if size > self.max_bytes:
            return
        frame.flags.writeable = False
        with self._lock:
            old = self._frames.pop(key, None)
            if old is not None:
                self._num_bytes -= old.nbytes + _OVERHEAD_BYTES
            self._frames[key] = frame
            self._num_bytes += size
            while self._num_bytes > self.max_bytes:
                _, dropped = self._frames.popitem(last=False)
                self._num_bytes -= dropped.nbytes + _OVERHEAD_BYTES
