"""Frames at given times, exactly.

The frame at time ``t`` is the one with the greatest presentation time <= ``t`` (to within a microsecond),
counted from the first presented frame; the last frame stays until the video's end, and the end itself still
shows it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from timeloupe.errors import VideoError
from timeloupe.video.cache import FrameCache, FrameKey
from timeloupe.video.container import MAX_PIXELS
from timeloupe.video.decode import Decoder
from timeloupe.video.index import FrameIndex, load_index
from timeloupe.video.isolate import WorkerDecoder
from timeloupe.video.probe import VideoInfo, info_of
from timeloupe.video.sampling import nearest_keyframes

MAX_READ_BYTES = 8 * 2**30
"""Bound on the pixels of one read."""

MAX_SIDE = 2**16
"""Bound on the width and height asked for, in pixels."""


@dataclass(frozen=True)
class Frames:
    """Frames of one video, in the order they were asked for.

    Attributes:
        pixels: (N, H, W, 3) uint8 RGB.
        requested_seconds: The N times asked for.
        at_seconds: When each frame is presented, seconds from the first presented frame.
        duration_seconds: How long each frame is displayed.
        size_wh: Width and height of ``pixels``.
    """

    pixels: np.ndarray
    requested_seconds: tuple[float, ...]
    at_seconds: tuple[float, ...]
    duration_seconds: tuple[float, ...]
    size_wh: tuple[int, int]

    def __len__(self) -> int:
        return len(self.at_seconds)


class VideoReader:
    """Reads frames of one video by time. Use one reader per thread, threads that share one wait for each other;
    readers may share a cache.

    Making a reader costs a file look-up when the file's index is in memory; the file is opened at the first
    frame that the cache does not hold.

    Args:
        path: The video file.
        cache: Where decoded frames are kept and looked up; ``None`` = nowhere.
        deadline_seconds: Open, index and decode in another process, which is ended when it gives no sign of
            life for so long (each packet read is one). A file that hangs, crashes or exhausts the decoder is
            then a ``VideoError`` too, and the next read starts anew. ``None`` = in this process, which costs
            least.

    Attributes:
        info: Facts about the video.
        frames_cached: Frames that came from the cache so far.

    Raises:
        VideoError: The file is missing, not a video, none of it can be decoded, or the deadline passed.
        ValueError: ``deadline_seconds`` is not > 0.
    """

    def __init__(
        self, path: str | Path, cache: FrameCache | None = None, *, deadline_seconds: float | None = None
    ) -> None:
        self.path = os.fspath(path)
        self.frames_cached = 0
        self._cache = cache
        self._index = load_index(self.path, deadline_seconds=deadline_seconds)
        self._info: VideoInfo | None = None
        self._decoder = make_decoder(self._index, self.path, deadline_seconds)

    @property
    def frames_decoded(self) -> int:
        """Frames that the decoder gave out so far, unwanted ones on the way included."""
        return self._decoder.frames_decoded

    @property
    def info(self) -> VideoInfo:
        """Facts about the video."""
        if self._info is None:
            self._info = info_of(self._index, self.path)
        return self._info

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a later read opens it again."""
        self._decoder.close()

    def check_times(self, times: Sequence[float]) -> None:
        """Raise the ``VideoError`` of :meth:`read` if a time is outside the video; decode nothing."""
        self._index.frames_at([float(time) for time in times])

    def keyframes_near(
        self, times: Sequence[float], start_seconds: float = 0.0, end_seconds: float | None = None
    ) -> tuple[float, ...]:
        """Return the times of the keyframes nearest to ``times``, ascending and each once.

        A keyframe is decoded from one packet, so reading these times is cheap however long the video is; where
        keyframes are far apart it is fewer frames.

        Args:
            times: Seconds from the first presented frame.
            start_seconds: Only keyframes presented from here on count.
            end_seconds: Only keyframes presented before here count; ``None`` = the end of the video.

        Raises:
            VideoError: Fewer than two keyframes are to be had there.
        """
        index = self._index
        end = index.duration_seconds if end_seconds is None else end_seconds
        found = [at for at in index.keyframe_times.tolist() if start_seconds <= at < end]
        if index.sequential or len(found) < 2:
            reason = (
                f"it has {len(found)} keyframes between {start_seconds:g} and {end:.2f} s, and 2 are needed"
            )
            if index.sequential:
                reason = "it has no presentation times, so none of its keyframes can be read alone"
            hint = "read it exactly, without the approximation by keyframes"
            raise VideoError(self.path, reason, codec=index.codec, hint=hint)
        return nearest_keyframes(times, found)

    def read(self, times: Sequence[float], size_wh: tuple[int, int] | None = None) -> Frames:
        """Return the frames displayed at ``times``, in that order, repeats included.

        Args:
            times: Seconds from the first presented frame, each within ``[0, duration]``.
            size_wh: Width and height to scale to (bilinear); ``None`` = native display size.

        Raises:
            VideoError: A time is outside the video; a frame is damaged or missing (the message names the
                stretch); the frames are more than ``MAX_READ_BYTES``; or the deadline passed.
            ValueError: ``size_wh`` is not two positive numbers, or a picture of more than ``MAX_PIXELS``.
        """
        index = self._index
        size = index.size_wh if size_wh is None else (int(size_wh[0]), int(size_wh[1]))
        if min(size) < 1:
            raise ValueError(f"size_wh must be two whole numbers >= 1, got {size_wh!r}")
        if size_wh is not None and (max(size) > MAX_SIDE or size[0] * size[1] > MAX_PIXELS):
            allowed = f"sides up to {MAX_SIDE:,} and {MAX_PIXELS:,} pixels in all"
            raise ValueError(
                f"size_wh is too large, got {size_wh!r}, allowed: {allowed}; ask for a smaller size_wh"
            )
        requested = [float(time) for time in times]
        numbers = index.frames_at(requested)
        num_bytes = len(numbers) * size[0] * size[1] * 3
        if num_bytes > MAX_READ_BYTES:
            reason = (
                f"{len(numbers)} frames of {size[0]} x {size[1]} are {num_bytes:,} bytes, allowed in one read: "
                f"{MAX_READ_BYTES:,}"
            )
            hint = "ask for fewer times or a smaller size_wh"
            raise VideoError(self.path, reason, codec=index.codec, hint=hint)
        pixels = np.empty((len(numbers), size[1], size[0], 3), np.uint8)
        rows: dict[int, list[int]] = {}
        for row, frame in enumerate(numbers):
            rows.setdefault(frame, []).append(row)
        missing = self._take_kept(sorted(rows), rows, pixels)
        if missing and self._cache is not None:
            missing = self._decode_with_others(self._cache, missing, rows, pixels)
        if missing:
            self._decode(missing, rows, pixels)
        seconds = [index.frame_seconds(frame) for frame in numbers]
        return Frames(
            pixels=pixels,
            requested_seconds=tuple(requested),
            at_seconds=tuple(at for at, _ in seconds),
            duration_seconds=tuple(stays for _, stays in seconds),
            size_wh=size,
        )

    def _key(self, frame: int, pixels: np.ndarray) -> FrameKey:
        return self._index.identity, int(self._index.pts_N[frame]), (pixels.shape[2], pixels.shape[1])

    def _take_kept(
        self, frames: list[int], rows: dict[int, list[int]], pixels: np.ndarray, again: bool = False
    ) -> list[int]:
        """Copy frames from the cache into their rows of ``pixels``; return those that it does not hold."""
        missing: list[int] = []
        for frame in frames:
            kept = None if self._cache is None else self._cache.get(self._key(frame, pixels), again=again)
            if kept is None:
                missing.append(frame)
            else:
                pixels[rows[frame]] = kept
        self.frames_cached += len(frames) - len(missing)
        return missing

    def _decode(self, frames: list[int], rows: dict[int, list[int]], pixels: np.ndarray) -> None:
        """Decode frames into their rows of ``pixels`` and into the cache."""
        first = {frame: pixels[rows[frame][0]] for frame in frames}
        for frame, picture in self._decoder.decode(frames, (pixels.shape[2], pixels.shape[1]), first):
            pixels[rows[frame][1:]] = picture
            if self._cache is not None:
                self._cache.put(self._key(frame, pixels), picture)

    def _decode_with_others(
        self, cache: FrameCache, frames: list[int], rows: dict[int, list[int]], pixels: np.ndarray
    ) -> list[int]:
        """Decode the frames that no other thread is decoding; return those that the others did not deliver."""
        keys = {frame: self._key(frame, pixels) for frame in frames}
        claimed: set[FrameKey] = set()
        try:
            cache.claim(keys.values(), into=claimed)
            mine = [frame for frame in frames if keys[frame] in claimed]
            mine = self._take_kept(mine, rows, pixels, again=True)  # decoded since we first looked
            if mine:
                self._decode(mine, rows, pixels)
        finally:
            cache.release(claimed)
        others = [frame for frame in frames if keys[frame] not in claimed]
        if others:
            cache.wait([keys[frame] for frame in others])
        return self._take_kept(others, rows, pixels, again=True)


def make_decoder(index: FrameIndex, path: str, deadline_seconds: float | None) -> Decoder | WorkerDecoder:
    """Return a decoder of one file: in this process, or in a worker if there is a deadline."""
    return Decoder(index, path) if deadline_seconds is None else WorkerDecoder(index, path, deadline_seconds)
