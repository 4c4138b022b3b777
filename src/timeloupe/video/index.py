"""The frame index of a video: when each frame is presented and from which keyframe it can be decoded.

One pass over the packets (nothing but the first frame is decoded) gives every packet's presentation time and keyframe
flag; edit lists and start offsets are already applied by the demuxer, packets outside the edit list are marked and
stay out of the presented frames. Where a container carries no presentation times (raw H.264, some AVI) the file is
decoded once instead and marked ``sequential``. Indices are kept in memory by file identity (path, size, mtime).
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from timeloupe.errors import VideoError
from timeloupe.video.container import FileIdentity, identify, open_video, read_packets

TIME_TOLERANCE_SECONDS = 1e-6
"""Times are compared to within this: a presentation time that was printed with six decimals still finds its frame."""

INDEX_CACHE_BYTES = 128 * 2**20
"""Bound of the process-wide index cache, in bytes."""

_FIRST_FRAME_PACKETS = 300


@dataclass(frozen=True)
class FrameIndex:
    """What is known of one file's best video stream. Arrays are read-only; ``P`` packets, ``N`` presented frames.

    Attributes:
        path: The file as the caller named it.
        identity: Absolute path, size in bytes and modification time in ns.
        stream_index: Which stream of the container.
        container: FFmpeg's name of the container format.
        codec: Name of the codec.
        pixel_format: As decoded, such as ``yuv420p``.
        stored_wh: Width and height of a decoded frame before rotation.
        rotation_degrees: Counter-clockwise turn, 0, 90, 180 or 270, that shows the frame upright.
        sample_aspect_ratio: Width of a stored pixel over its height.
        time_base: Seconds per tick of the stream.
        start_seconds: Presentation time of the first presented frame on the container's clock.
        duration_seconds: From the first presented frame to the end of the last.
        announced_seconds: Duration as the stream's header has it, or ``None``.
        fps: Average frame rate.
        sequential: Frames can only be counted from the file's beginning.
        times_N: Seconds from the first presented frame, ascending.
        pts_N: Presentation time of each frame in ticks, ascending (frame numbers if ``sequential``).
        packet_N: Number in decoding order of each frame's packet.
        pts_P: Presentation time of every packet in decoding order, discarded ones too.
        key_packets: Numbers of the packets that are keyframes, ascending, the first is 0.
        key_dts: Decoding time of those, the presentation time where there is none.
    """

    path: str
    identity: FileIdentity
    stream_index: int
    container: str
    codec: str
    pixel_format: str
    stored_wh: tuple[int, int]
    rotation_degrees: int
    sample_aspect_ratio: Fraction
    time_base: Fraction
    start_seconds: float
    duration_seconds: float
    announced_seconds: float | None
    fps: float
    sequential: bool
    times_N: np.ndarray = field(repr=False)
    pts_N: np.ndarray = field(repr=False)
    packet_N: np.ndarray = field(repr=False)
    pts_P: np.ndarray = field(repr=False)
    key_packets: np.ndarray = field(repr=False)
    key_dts: np.ndarray = field(repr=False)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels as displayed: after rotation, stored pixels taken as square."""
        width, height = self.stored_wh
        return (height, width) if self.rotation_degrees in (90, 270) else (width, height)

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(a.nbytes for a in (self.times_N, self.pts_N, self.packet_N, self.pts_P)) + 1024

    @cached_property
    def packet_at(self) -> dict[int, int]:
        """Number of the packet with a given presentation time."""
        return {pts: number for number, pts in enumerate(self.pts_P.tolist())}

    @cached_property
    def start_keys_N(self) -> np.ndarray:
        """For each frame, which of ``key_packets`` its decoding starts from.

        That is the last keyframe at or before it both in decoding order and in presentation: pictures that lead an
        open-GOP keyframe need the one before.
        """
        by_decoding = np.searchsorted(self.key_packets, self.packet_N, side="right") - 1
        leading = self.pts_P[self.key_packets[by_decoding]] > self.pts_N
        return np.maximum(by_decoding - leading, 0)

    def frames_at(self, times: list[float]) -> list[int]:
        """Return the number of the frame displayed at each time.

        Args:
            times: Seconds from the first presented frame, within ``[0, duration_seconds]``.

        Raises:
            VideoError: A time lies outside; the message names the legal range.
        """
        limit = (
            self.duration_seconds + 0.0005 + TIME_TOLERANCE_SECONDS
        )  # a duration printed in ms may be rounded up
        for time in times:
            if not -TIME_TOLERANCE_SECONDS <= time <= limit:
                raise self._outside(time)
        found = np.searchsorted(self.times_N, np.asarray(times) + TIME_TOLERANCE_SECONDS, side="right") - 1
        return np.maximum(found, 0).tolist()

    def frame_seconds(self, frame: int) -> tuple[float, float]:
        """Return when a frame appears and for how long it stays, in seconds."""
        start = float(self.times_N[frame])
        last = frame + 1 == len(self.times_N)
        return start, (self.duration_seconds if last else float(self.times_N[frame + 1])) - start

    def _outside(self, time: float) -> VideoError:
        announced = self.announced_seconds
        if announced is not None and self.duration_seconds < time <= announced:
            reason = (
                f"the file announces {announced:.3f} s but its frames end at {self.duration_seconds:.3f} s, "
                "it is cut off or its sound runs on"
            )
        else:
            reason = f"time {time!r} s is outside the video, allowed: 0 to {self.duration_seconds:.6f} s"
        hint = f"ask for times between 0 and {self.duration_seconds:.3f}"
        return VideoError(self.path, reason, codec=self.codec, hint=hint)


@dataclass
class _Packets:
    """What one pass over the packets gathers."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    hidden: set[int] = field(default_factory=set)
    durations: list[int] = field(default_factory=list)
    first: VideoFrame | None = None


def _gather(container: InputContainer, stream: VideoStream) -> _Packets:
    found = _Packets()
    context = stream.codec_context
    vp8 = context.name.startswith(("vp8", "libvpx")) and not context.name.startswith("libvpx-vp9")
    number = 0
    for packet in read_packets(container, stream):
        found.pts.append(packet.pts)
        found.dts.append(packet.dts)
        found.durations.append(packet.duration or 0)
        if packet.is_keyframe:
            found.keys.append(number)
        if packet.is_discard or (vp8 and not bytes(packet)[0] & 0x10):  # VP8: show_frame bit of the frame tag
            found.hidden.add(number)
        if found.first is None and number < _FIRST_FRAME_PACKETS:
            frames = _try_decode(stream, packet)
            found.first = frames[0] if frames else None
        number += 1
    if found.first is None and number:
        frames = _try_decode(stream, None)
        found.first = frames[0] if frames else None
    return found


def _try_decode(stream: VideoStream, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
    try:
        return stream.codec_context.decode(packet)
    except (FFmpegError, OSError):
        return []


def _build(path: str, identity: FileIdentity) -> FrameIndex:
    container, stream = open_video(path)
    with container:
        codec = stream.codec_context.codec.canonical_name
        found = _gather(container, stream)
        if not found.pts:
            raise VideoError(
                path, "its video stream holds no packets", codec=codec, hint="download or convert it again"
            )
        if found.first is None:
            raise VideoError(
                path, "no frame of it can be decoded", codec=codec, hint="download or convert it again"
            )
        first = found.first
        base = stream.time_base or Fraction(1, 1000)
        sequential = any(pts is None for pts in found.pts)
        if sequential:
            pts_N, packet_N, ticks = _count_frames(path, base, stream.guessed_rate)
            pts_P = np.zeros(1, np.int64)
            keys, key_dts = np.zeros(1, np.int64), np.zeros(1, np.int64)
            last_ticks = int(np.median(np.diff(ticks))) if len(ticks) > 1 else 0
        else:
            pts_P = np.array(found.pts, np.int64)
            shown = np.ones(len(pts_P), bool)
            shown[list(found.hidden)] = False
            if not shown.any():
                raise VideoError(path, "its edit list shows none of its frames", codec=codec)
            packets = np.flatnonzero(shown)
            ticks, unique = np.unique(pts_P[packets], return_index=True)
            pts_N, packet_N = ticks, packets[unique]
            keys = np.array([0, *(key for key in found.keys if key)], np.int64)
            key_dts = np.array(
                [
                    pts if (dts := found.dts[k]) is None else dts
                    for k in keys
                    if (pts := found.pts[k]) is not None
                ]
            )
            last_ticks = found.durations[int(packet_N[-1])]
        return _assemble(
            path, identity, container, stream, first, base, sequential, ticks, last_ticks,
            pts_N, packet_N, pts_P, keys, key_dts,
        )  # fmt: skip


def _assemble(
    path: str,
    identity: FileIdentity,
    container: InputContainer,
    stream: VideoStream,
    first: VideoFrame,
    base: Fraction,
    sequential: bool,
    ticks: np.ndarray,
    last_ticks: int,
    pts_N: np.ndarray,
    packet_N: np.ndarray,
    pts_P: np.ndarray,
    keys: np.ndarray,
    key_dts: np.ndarray,
) -> FrameIndex:
    times = (ticks - ticks[0]) * base.numerator / base.denominator
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    if last_ticks > 0:
        last_seconds = float(last_ticks * base)
    else:
        last_seconds = float(np.median(np.diff(times))) if len(times) > 1 else 1 / rate
    duration = float(times[-1]) + last_seconds
    measured = len(times) / duration
    rotation = round(first.rotation / 90) * 90 % 360 if first.rotation % 90 == 0 else 0
    for array in (times, pts_N, packet_N, pts_P, keys, key_dts):
        array.flags.writeable = False
    return FrameIndex(
        path=path,
        identity=identity,
        stream_index=stream.index,
        container=container.format.name,
        codec=stream.codec_context.codec.canonical_name,
        pixel_format=first.format.name,
        stored_wh=(first.width, first.height),
        rotation_degrees=rotation,
        sample_aspect_ratio=stream.sample_aspect_ratio or Fraction(1),
        time_base=base,
        start_seconds=float(int(ticks[0]) * base),
        duration_seconds=duration,
        announced_seconds=float(stream.duration * base) if stream.duration else None,
        fps=rate if abs(measured / rate - 1) < 0.005 else measured,
        sequential=sequential,
        times_N=times,
        pts_N=pts_N,
        packet_N=packet_N,
        pts_P=pts_P,
        key_packets=keys,
        key_dts=key_dts,
    )


def _count_frames(
    path: str, base: Fraction, rate: Fraction | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decode the whole file; return frame numbers, zeros, and each frame's time in ticks."""
    container, stream = open_video(path)
    stamps: list[int | None] = []
    with container:
        for packet in read_packets(container, stream):
            stamps.extend(
                frame.pts if frame.pts is not None else frame.dts for frame in _try_decode(stream, packet)
            )
        stamps.extend(
            frame.pts if frame.pts is not None else frame.dts for frame in _try_decode(stream, None)
        )
    numbers = np.arange(len(stamps), dtype=np.int64)
    known = [stamp for stamp in stamps if stamp is not None]
    rising = len(known) == len(stamps) and all(a < b for a, b in pairwise(known))
    ticks = (
        np.array(known, np.int64)
        if rising
        else np.rint(numbers / float((rate or 25) * base)).astype(np.int64)
    )
    return numbers, np.zeros(len(stamps), np.int64), ticks


class _IndexCache:
    """Indices of the files read last, bounded in bytes, one build per file at a time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[FileIdentity, FrameIndex] = OrderedDict()
        self._building: dict[FileIdentity, threading.Lock] = {}
        self._bytes = 0

    def get(self, path: str) -> FrameIndex:
        identity = identify(path)
        with self._lock:
            kept = self._kept.get(identity)
            if kept is not None:
                self._kept.move_to_end(identity)
                return kept
            building = self._building.setdefault(identity, threading.Lock())
        with building:
            with self._lock:
                kept = self._kept.get(identity)
            if kept is None:
                try:
                    kept = _build(path, identity)
                    self._keep(kept)
                finally:
                    with self._lock:
                        self._building.pop(identity, None)
            return kept

    def _keep(self, index: FrameIndex) -> None:
        with self._lock:
            self._kept[index.identity] = index
            self._bytes += index.num_bytes
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= dropped.num_bytes


_indices = _IndexCache(INDEX_CACHE_BYTES)


def load_index(path: str | Path) -> FrameIndex:
    """Return the frame index of a file, from memory if the file is unchanged since it was last indexed.

    Raises:
        VideoError: The file is missing, not a video, or none of it can be decoded.
    """
    return _indices.get(os.fspath(path))
