"""The frame index of a video: when each frame is presented and from which keyframe it can be decoded.

Nothing but the first frame is decoded for it (:mod:`timeloupe.video.packets`). Edit lists and start offsets
are applied by the demuxer; packets outside the edit list are needed for decoding but are no presented frames.
Where a container has no presentation times (raw H.264, some AVI) the file is decoded once instead and marked
``sequential``. Indices are kept in memory by file identity (path, size, modification time).
"""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from timeloupe.errors import VideoError
from timeloupe.video.container import (
    MAX_PIXELS,
    FileIdentity,
    check_unchanged,
    decode_or_none,
    identify,
    open_video,
    read_packets,
)
from timeloupe.video.gaps import lost_packets
from timeloupe.video.image import Orientation, orientation_of
from timeloupe.video.packets import NO_TIME, Packets, clock_restart, gather_packets

TIME_TOLERANCE_SECONDS = 1e-6
"""Times are compared to within this, so a presentation time printed with six decimals finds its frame."""

INDEX_CACHE_BYTES = 128 * 2**20
"""Bound of the process-wide index cache, in bytes: some 20 hours of video at 30 frames a second."""

_LONG_STEP = 1.5  # times the usual step: a frame is missing there, if packets are
_NEAR_PACKETS = 16  # how far decoding order may be from presentation
_ROUNDING_SECONDS = 0.0005 + TIME_TOLERANCE_SECONDS


class PacketNumbers:
    """Finds packets by presentation time as a dictionary would, in a tenth of its memory.

    Args:
        pts_P: Presentation time of every packet.
    """

    def __init__(self, pts_P: np.ndarray) -> None:
        self._order_P = np.argsort(pts_P, kind="stable")
        self._sorted_P = pts_P[self._order_P]

    def get(self, pts: int, default: int) -> int:
        """Return the number of the packet presented at ``pts``, the last of several; ``default`` if there is none."""
        found = int(np.searchsorted(self._sorted_P, pts, side="right")) - 1
        return int(self._order_P[found]) if found >= 0 and self._sorted_P[found] == pts else default


@dataclass(frozen=True)
class FrameIndex:
    """What is known of one file's best video stream; arrays are read-only, ``P`` packets, ``N`` frames.

    Attributes:
        path: The file as the caller named it.
        identity: Absolute path, size in bytes and modification time in ns.
        stream_index: Which stream of the container.
        container: FFmpeg's name of the container format.
        codec: Name of the codec.
        pixel_format: As decoded, such as ``yuv420p``.
        stored_wh: Width and height of a decoded frame before rotation.
        orientation: How a decoded frame is shown upright.
        sample_aspect_ratio: Width of a stored pixel over its height.
        start_seconds: Presentation time of the first presented frame on the container's clock.
        duration_seconds: From the first presented frame to the end of the last.
        announced_seconds: Duration as the stream's header has it, or ``None``.
        fps: Average frame rate.
        sequential: Frames can only be counted from the file's beginning.
        times_N: Seconds from the first presented frame, ascending.
        pts_N: Presentation time of each frame in ticks, ascending (frame numbers if ``sequential``).
        packet_N: Number in decoding order of each frame's packet, the last of several with the same time.
        pts_P: Presentation time of every packet in decoding order, discarded ones too.
        key_packets: Numbers of the packets that are keyframes, ascending, the first is 0.
        lost_packets: Numbers of the packets directly after data that is damaged or gone, ascending.
    """

    path: str
    identity: FileIdentity
    stream_index: int
    container: str
    codec: str
    pixel_format: str
    stored_wh: tuple[int, int]
    orientation: Orientation
    sample_aspect_ratio: Fraction
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
    lost_packets: np.ndarray = field(repr=False)

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels as displayed: turned upright, stored pixels taken as square."""
        width, height = self.stored_wh
        return (height, width) if self.orientation.transpose else (width, height)

    @property
    def num_bytes(self) -> int:
        """Memory of the arrays, and of as much again that is made from them when frames are decoded."""
        return 2 * sum(a.nbytes for a in (self.times_N, self.pts_N, self.packet_N, self.pts_P)) + 1024

    @cached_property
    def packet_at(self) -> PacketNumbers:
        """Number of the packet with a given presentation time."""
        return PacketNumbers(self.pts_P)

    @cached_property
    def start_keys_N(self) -> np.ndarray:
        """For each frame, which of ``key_packets`` its decoding starts from.

        That is the last keyframe at or before it both in decoding order and in presentation: pictures that
        lead an open-GOP keyframe need the one before.
        """
        by_decoding = np.searchsorted(self.key_packets, self.packet_N, side="right") - 1
        leading = self.pts_P[self.key_packets[by_decoding]] > self.pts_N
        return np.maximum(by_decoding - leading, 0)

    @cached_property
    def keyframe_times(self) -> np.ndarray:
        """When each keyframe that is presented appears, in seconds, ascending."""
        return self.times_N[np.isin(self.packet_N, self.key_packets)]

    def frames_at(self, times: list[float]) -> list[int]:
        """Return the number of the frame displayed at each time.

        Args:
            times: Seconds from the first presented frame, within ``[0, duration_seconds]``; half a
                millisecond
                more is let through, because a printed duration may have been rounded up.

        Raises:
            VideoError: A time lies outside (the message names the legal range), or where frames are gone.
        """
        latest = self.duration_seconds + _ROUNDING_SECONDS
        for time in times:
            if not -TIME_TOLERANCE_SECONDS <= time <= latest:
                raise self._outside(time)
        self._check_gaps(times)
        found = np.searchsorted(self.times_N, np.asarray(times) + TIME_TOLERANCE_SECONDS, side="right") - 1
        return np.maximum(found, 0).tolist()

    def frame_seconds(self, frame: int) -> tuple[float, float]:
        """Return when a frame appears and for how long it stays, in seconds."""
        start = float(self.times_N[frame])
        last = frame + 1 == len(self.times_N)
        return start, (self.duration_seconds if last else float(self.times_N[frame + 1])) - start

    @cached_property
    def gaps(self) -> list[tuple[float, float]]:
        """Spans of seconds whose frames are gone: times without a frame where packets are."""
        if not len(self.lost_packets) or len(self.times_N) < 3:
            return []
        steps = np.diff(self.times_N)
        usual = float(np.median(steps))
        long_steps = np.flatnonzero(steps > _LONG_STEP * usual)
        packets = self.packet_N[long_steps + 1]
        near = np.abs(packets[:, None] - self.lost_packets[None]).min(axis=1, initial=len(self.pts_P))
        found = long_steps[near <= _NEAR_PACKETS].tolist()
        return [(float(self.times_N[n]) + usual, float(self.times_N[n + 1])) for n in found]

    def _check_gaps(self, times: list[float]) -> None:
        for start, end in self.gaps:
            inside = [
                time for time in times if start - TIME_TOLERANCE_SECONDS <= time < end - _ROUNDING_SECONDS
            ]
            if inside:
                reason = f"{len(inside)} of {len(times)} wanted times have no frame, damage took it out of the file"
                raise VideoError(
                    self.path,
                    reason,
                    codec=self.codec,
                    at_seconds=start,
                    until_seconds=end,
                    hint="ask for other times, or repair the file by downloading or converting it again",
                )

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


def _build(path: str, identity: FileIdentity) -> FrameIndex:
    container, stream = open_video(path)
    codec = stream.codec_context.codec.canonical_name
    again = "download or convert it again"
    with container:
        packets = gather_packets(path, identity[1], container, stream)
        first = packets.first_frame
        if not packets.pts:
            raise VideoError(path, "its video stream holds no packets", codec=codec, hint=again)
        if first is None:
            hint = f"{again}; pictures of more than {MAX_PIXELS:,} pixels are refused"
            raise VideoError(path, "no frame of it can be decoded", codec=codec, hint=hint)
        base = stream.time_base or Fraction(1, 1000)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        sequential = not _has_presentation_times(container, stream, packets)
        if sequential:
            spacing = float(np.median(packets.durations)) * float(base)
            ticks = _count_frames(path, base, spacing or 1 / rate)
            pts_N = np.arange(len(ticks), dtype=np.int64)
            packet_N, pts_P, keys = np.zeros_like(pts_N), *np.zeros((2, 1), np.int64)
            last_ticks, lost = 0, np.zeros(0, np.int64)
        else:
            _check_clock(path, codec, container.format.name, base, packets)
            pts_P = np.array(packets.pts, np.int64)
            shown = np.delete(np.arange(len(pts_P)), np.array(packets.hidden, np.int64))
            if not len(shown):
                raise VideoError(path, "its edit list shows none of its frames", codec=codec, hint=again)
            # Of several with the same time the last one, so that all of them are decoded before one is chosen.
            pts_N, unique = np.unique(pts_P[shown][::-1], return_index=True)
            ticks, packet_N = pts_N, shown[::-1][unique]
            keys = np.unique(np.append(_found_by_time(np.array(packets.keys, np.int64), pts_P), 0))
            lost = lost_packets(path, stream.index, container.format.name, packets)
            from_end = len(pts_P) - int(packet_N[-1])
            last_ticks = packets.durations[-from_end] if from_end <= len(packets.durations) else 0
        times = (ticks - ticks[0]) * base.numerator / base.denominator
        if last_ticks > 0:
            last_seconds = float(last_ticks * base)
        else:
            last_seconds = float(np.median(np.diff(times))) if len(times) > 1 else 1 / rate
        duration = float(times[-1]) + last_seconds
        measured = len(times) / duration
        check_unchanged(path, identity)
        for array in (times, pts_N, packet_N, pts_P, keys, lost):
            array.flags.writeable = False
        return FrameIndex(
            path=path,
            identity=identity,
            stream_index=stream.index,
            container=container.format.name,
            codec=codec,
            pixel_format=first.format.name,
            stored_wh=(first.width, first.height),
            orientation=orientation_of(first),
            sample_aspect_ratio=stream.sample_aspect_ratio or Fraction(1),
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
            lost_packets=lost,
        )


def _check_clock(path: str, codec: str, container: str, base: Fraction, packets: Packets) -> None:
    number = clock_restart(packets)
    if number is not None:
        back, earlier = (float(packets.pts[n] * base) for n in (number, number - 1))
        reason = (
            f"its clock starts again at packet {number:,} of {len(packets.pts):,} (it goes from {earlier:.3f} "
            f"back to {back:.3f} s), as in files put one behind the other, so one time means several frames"
        )
        hint = "give it one clock: join the parts that it was made of with `ffmpeg -f concat -i LIST -c copy NEW`"
        if "mpeg" in container:  # the only family whose clock ffmpeg mends by itself
            hint = "give it one clock: `ffmpeg -i FILE -c copy NEW.mp4`"
        raise VideoError(path, reason, codec=codec, hint=hint)


def _found_by_time(keys: np.ndarray, pts_P: np.ndarray) -> np.ndarray:
    """Return the keyframes that a seek can recognise: no other packet has their time."""
    values, counts = np.unique(pts_P, return_counts=True)
    return keys[~np.isin(pts_P[keys], values[counts > 1])]


def _has_presentation_times(container: InputContainer, stream: VideoStream, packets: Packets) -> bool:
    pts_P = np.array(packets.pts, np.int64)
    if (pts_P == NO_TIME).any():
        return False
    # AVI counts packets; a codec that reorders frames then gets times in decoding order.
    in_order = bool((np.diff(pts_P) > 0).all())
    return not ("avi" in container.format.name and stream.codec_context.reorder_depth and in_order)


def _count_frames(path: str, base: Fraction, spacing_seconds: float) -> np.ndarray:
    """Decode the whole file; return each frame's time in ticks, equally spaced where the file has none."""
    container, stream = open_video(path)
    with container:
        stamps: list[int | None] = []
        for packet in chain(read_packets(container, stream), (None,)):
            for frame in decode_or_none(stream, packet) or ():
                stamps.append(frame.dts if frame.pts is None else frame.pts)
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) == len(stamps) and all(a < b for a, b in pairwise(known)):
        return np.array(known, np.int64)
    return np.rint(np.arange(len(stamps)) * (spacing_seconds / float(base))).astype(np.int64)


class _IndexCache:
    """Indices of the files read last, bounded in bytes, one build per file at a time."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[FileIdentity, FrameIndex] = OrderedDict()
        self._building: dict[FileIdentity, threading.Lock] = {}
        self._bytes = 0

    def get(self, path: str, deadline_seconds: float | None) -> FrameIndex:
        if deadline_seconds is None:
            return self._get(path, identify(path), _build, None)

        from timeloupe.video import isolate  # it needs this module

        def build(path: str, identity: FileIdentity) -> FrameIndex:
            return isolate.build_index(path, deadline_seconds)

        return self._get(path, isolate.identify(path, deadline_seconds), build, deadline_seconds)

    def _get(
        self,
        path: str,
        identity: FileIdentity,
        build: Callable[[str, FileIdentity], FrameIndex],
        wait_seconds: float | None,
    ) -> FrameIndex:
        with self._lock:
            kept = self._kept.get(identity)
            if kept is not None:
                self._kept.move_to_end(identity)
                return kept
            building = self._building.setdefault(identity, threading.Lock())
        # Who has a deadline does not wait for the end of somebody else's long build.
        mine = building.acquire(
            timeout=-1 if wait_seconds is None else min(wait_seconds, threading.TIMEOUT_MAX)
        )
        try:
            with self._lock:
                kept = self._kept.get(identity)
            if kept is None:
                try:
                    kept = build(path, identity)
                    self._keep(kept)
                finally:
                    with self._lock:
                        self._building.pop(identity, None)
            return kept
        finally:
            if mine:
                building.release()

    def _keep(self, index: FrameIndex) -> None:
        with self._lock:
            replaced = self._kept.pop(index.identity, None)
            self._bytes += index.num_bytes - (0 if replaced is None else replaced.num_bytes)
            self._kept[index.identity] = index
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._bytes -= dropped.num_bytes

    def renew_after_fork(self) -> None:
        """In a forked process: forget the locks of the threads that were not copied, and what they were at."""
        self._lock = threading.Lock()
        self._building = {}
        self._bytes = sum(index.num_bytes for index in self._kept.values())


_indices = _IndexCache(INDEX_CACHE_BYTES)
os.register_at_fork(after_in_child=_indices.renew_after_fork)


def load_index(path: str | Path, *, deadline_seconds: float | None = None) -> FrameIndex:
    """Return the frame index of a file, from memory if the file is unchanged since it was last indexed.

    Args:
        path: The video file.
        deadline_seconds: Look the file up and index it in another process, and give up when that gives no
            sign of life for so long; ``None`` = in this process, however long it takes.

    Raises:
        VideoError: The file is missing, not a video, none of it can be decoded, or the deadline passed.
        ValueError: ``deadline_seconds`` is not > 0.
    """
    name = os.fspath(path)
    index = _indices.get(name, deadline_seconds)
    if index.path != name:
        index = copy.copy(index)  # the arrays are shared, and what was made from them
        object.__setattr__(index, "path", name)
    return index
