"""Decoding the frames of one video by number, with as little decoding as possible.

Wanted frames are sorted, each is decoded from its nearest keyframe or from where the decoder already stands,
whichever takes fewer frames; unwanted frames that no other frame refers to are skipped; wanted ones go
straight to the target size.

A frame that the decoder flags as damaged, or that depends on one or on lost packets, is an error that names the
time range, never other pixels. What no decoder notices cannot be flagged: VP9, and HEVC without picture hashes,
carry no checksum, so that a changed byte inside a picture shows as wrong pixels until the next keyframe; in H.264
and the older MPEGs that is rarer, in AV1 it was not met (``benchmarks/broken_files.py`` counts it).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from timeloupe.errors import VideoError
from timeloupe.video.container import check_unchanged, decode_or_none, identify, open_video, read_packets
from timeloupe.video.h264 import is_disposable, length_prefix_bytes
from timeloupe.video.image import upright
from timeloupe.video.index import FrameIndex


@dataclass
class _Run:
    """Frames decoded in one go: from keyframe number ``key`` (of the index's list) to packet ``last``.

    ``again`` marks a second try from further back: then later keyframes are no clean starts.
    """

    key: int
    last: int
    frames: list[int]
    again: bool = False


@dataclass(frozen=True)
class _Target:
    """The size to deliver and, if the caller named them, the places in memory for the frames."""

    size_wh: tuple[int, int]
    rows: Mapping[int, np.ndarray] | None

    def hold(self, frame: int, picture: np.ndarray) -> np.ndarray:
        """Return the picture from then on: in the caller's memory, or as it is."""
        if self.rows is None:
            return picture
        self.rows[frame][:] = picture
        return self.rows[frame]


def plan_runs(index: FrameIndex, frames: Sequence[int]) -> list[_Run]:
    """Return the runs that decode ``frames`` (ascending, unique) with the fewest decoded frames."""
    runs: list[_Run] = []
    keys = index.start_keys_N[list(frames)].tolist()
    packets = index.packet_N[list(frames)].tolist()
    for frame, key, packet in zip(frames, keys, packets, strict=True):
        if runs and int(index.key_packets[key]) <= runs[-1].last + 1:
            runs[-1].last = max(runs[-1].last, packet)
            runs[-1].frames.append(frame)
        else:
            runs.append(_Run(key, packet, [frame]))
    return runs


class Decoder:
    """Decodes frames of one video in this process. The file is opened at the first frame asked for.

    Threads that share one take turns.

    Args:
        index: The video's frame index.
        path: The file as the caller named it; its index may have been made under another name.

    Attributes:
        frames_decoded: Frames that the decoder gave out so far, unwanted ones on the way included.
    """

    def __init__(self, index: FrameIndex, path: str) -> None:
        self.path = path
        self.frames_decoded = 0
        self._index = index
        self._turn = threading.Lock()
        self._process = os.getpid()
        self._opened: tuple[InputContainer, VideoStream] | None = None
        self._left_alone: tuple[InputContainer, VideoStream] | None = (
            None  # another process's, not ours to close
        )
        self._fresh = False
        self._damaged: set[int] = set()  # numbers of packets that failed
        self._after_loss = set(index.pts_P[np.setdiff1d(index.lost_packets, index.key_packets)].tolist())
        self._reformatter = VideoReformatter()

    def close(self) -> None:
        """Close the file; a later decode opens it again."""
        with self._turn:
            self._close()

    def _close(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def decode(
        self,
        frames: Sequence[int],
        size_wh: tuple[int, int],
        rows: Mapping[int, np.ndarray] | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each frame's number and its pixels (H, W, 3) uint8 RGB, in any order, as they are known to be good.

        Args:
            frames: Numbers of the wanted frames, ascending, unique.
            size_wh: Width and height to scale to (bilinear).
            rows: For each frame an array that its pixels are written to, so that a long run of frames is not in
                memory twice; what is yielded is then that array. A frame that is not yielded may have left
                anything there.

        Raises:
            VideoError: Frames are damaged or missing, raised after the good ones were given out; or the file
                changed.
        """
        index, target = self._index, _Target(size_wh, rows)
        lost: list[int] = []
        if index.sequential:
            with self._one_turn():
                found = self._count_to(list(frames), target)
            yield from found.items()
            lost = [frame for frame in frames if frame not in found]
        else:
            for run in plan_runs(index, frames):
                with self._one_turn():
                    found = self._decode_run(run, target)
                yield from found.items()
                lost += [frame for frame in run.frames if frame not in found]
            still: list[int] = []
            for key, group in groupby(lost, lambda frame: int(index.start_keys_N[frame])):
                members = list(group)
                with self._one_turn():
                    found = self._decode_again(key, members, target)
                yield from found.items()
                still += [frame for frame in members if frame not in found]
            lost = still
        if lost:
            raise self._damage_error(lost, len(frames))

    @contextmanager
    def _one_turn(self) -> Iterator[None]:
        """Keep other threads out; raise if the file is, or while it was decoded became, another one."""
        if self._process != os.getpid():
            # Forked: a position in the file is shared with the other process, a lock may be that of a lost thread.
            self._left_alone, self._opened = self._opened, None
            self._turn, self._process = threading.Lock(), os.getpid()
        with self._turn:
            if self._opened is not None:
                check_unchanged(self.path, self._index.identity)
            yield
            check_unchanged(self.path, self._index.identity)

    def _damage_error(self, lost: list[int], num_wanted: int) -> VideoError:
        """Return the error that names the first stretch of frames that cannot be shown."""
        stretches: list[list[int]] = []
        for frame in sorted(lost):
            if stretches and frame < stretches[-1][1]:
                continue
            first, end = self._stretch(frame)
            if stretches and first <= stretches[-1][1]:
                stretches[-1][1] = end
            else:
                stretches.append([first, end])
        reason = f"{len(lost)} of {num_wanted} wanted frames are damaged or missing"
        if len(stretches) > 1:
            reason += f", in {len(stretches)} places of which this is the first"
        first, end = stretches[0]
        return VideoError(
            self.path,
            reason,
            codec=self._index.codec,
            at_seconds=self._index.frame_seconds(first)[0],
            until_seconds=sum(self._index.frame_seconds(end - 1)),
            hint="ask for other times, or repair the file by downloading or converting it again",
        )

    def _stretch(self, frame: int) -> tuple[int, int]:
        """Return the frames ``[first, end)`` around a lost one that cannot be shown, as far as is known."""
        index = self._index
        if index.sequential:
            return frame, frame + 1
        keys = index.start_keys_N
        group = np.flatnonzero(keys == keys[frame])
        packets = index.packet_N[group]
        start, stop = int(index.key_packets[keys[frame]]), int(packets.max())
        bad = min((packet for packet in self._damaged if start <= packet <= stop), default=stop + 1)
        return min([frame, *group[packets >= bad].tolist()]), int(group[-1]) + 1

    def _decode_again(self, key: int, frames: list[int], target: _Target) -> dict[int, np.ndarray]:
        """Decode frames of one group of pictures that did not come out well, from further and further back.

        A keyframe flag may come early (gradual refresh), and a longer run may have failed before this group.
        """
        pixels: dict[int, np.ndarray] = {}
        for start in dict.fromkeys((key, max(key - 1, 0), 0)):
            left = [frame for frame in frames if frame not in pixels]
            if not left:
                break
            last = int(self._index.packet_N[left].max())
            pixels |= self._decode_run(_Run(start, last, left, again=start != key), target)
        return pixels

    def _open(self, anew: bool = False) -> tuple[InputContainer, VideoStream]:
        if anew:
            self._close()
        if self._opened is None:
            if identify(self.path) != self._index.identity:
                raise VideoError(
                    self.path, "the file changed after it was opened", hint="make a new reader for it"
                )
            self._opened = open_video(self.path, self._index.stream_index)
            self._fresh = True
        return self._opened

    def _decode_run(self, run: _Run, target: _Target) -> dict[int, np.ndarray]:
        """Return the good frames of a run: those that came out, free of damage since their keyframe."""
        index = self._index
        found = self._packets_from(run.key)
        if found is None:
            return {}
        packet, rest, stream = found
        wanted = {int(index.pts_N[frame]): frame for frame in run.frames}
        last_pts = int(index.pts_P[run.last])
        until_last = int((index.pts_P[index.key_packets[run.key] : run.last + 1] == last_pts).sum())
        key_pts = packet.pts or 0
        pixels: dict[int, np.ndarray] = {}
        damaged: list[int] = []  # presentation times of packets and frames that failed
        came_out = False  # whether the keyframe itself did
        prefix_bytes = length_prefix_bytes(index.codec, stream.codec_context.extradata)
        while True:
            draining = packet is None
            pts = last_pts if packet is None else packet.pts
            needed = draining or not prefix_bytes or pts in wanted or pts == key_pts
            if not needed and packet is not None and is_disposable(bytes(packet), prefix_bytes):
                packet = next(rest, None)
                continue
            out = decode_or_none(stream, packet)
            bad = out is None or (packet and packet.is_corrupt) or pts in self._after_loss
            if pts is not None and pts >= key_pts and bad:
                damaged.append(pts)
            for frame in out or ():
                self.frames_decoded += 1
                came_out = came_out or frame.pts == key_pts
                if frame.pts is None or frame.pts < key_pts:
                    continue  # pictures that lead an open-GOP keyframe refer to what was not decoded
                if frame.is_corrupt:
                    damaged.append(frame.pts)
                elif frame.pts in wanted and wanted[frame.pts] not in pixels:  # else another of the same time
                    number = wanted[frame.pts]
                    pixels[number] = target.hold(number, self._to_pixels(frame, target.size_wh))
            if draining:
                break
            until_last -= pts == last_pts
            packet = next(rest, None) if until_last else None
        if run.key > 0 and not came_out and self._is_presented(key_pts):
            return {}  # gradual refresh: pictures build up over the next frames, so start further back
        if damaged:
            self._drop_dependents(run, pixels, damaged)
        return pixels

    def _is_presented(self, pts: int) -> bool:
        found = int(np.searchsorted(self._index.pts_N, pts))
        return found < len(self._index.pts_N) and int(self._index.pts_N[found]) == pts

    def _drop_dependents(self, run: _Run, pixels: dict[int, np.ndarray], damaged: list[int]) -> None:
        """Remove the frames that were decoded after damage and depend on it, as far as can be told."""
        index = self._index
        # Damage that runs over two packets shows in the second one only, as the first one still parses.
        packets = sorted({max(index.packet_at.get(pts, 0) - back, 0) for pts in damaged for back in (0, 1)})
        self._damaged.update(packets)
        for frame in list(pixels):
            key = run.key if run.again else int(index.start_keys_N[frame])
            start, end = int(index.key_packets[key]), int(index.packet_N[frame])
            if any(start <= packet <= end for packet in packets):
                del pixels[frame]

    def _packets_from(
        self, key: int
    ) -> tuple[Packet[VideoStream], Iterator[Packet[VideoStream]], VideoStream] | None:
        """Seek to a keyframe; return its packet, those after it and their stream; ``None`` if not found."""
        index = self._index
        target = int(index.key_packets[key])
        target_pts = int(index.pts_P[target])
        earlier = index.key_packets[[key, max(key - 1, 0), max(key - 4, 0)]]
        for stop in [*dict.fromkeys(index.pts_P[earlier].tolist()), None]:
            container, stream = self._open(anew=stop is None and not self._fresh)
            if stop is not None and not (self._fresh and target == 0):
                try:
                    container.seek(stop, stream=stream)
                except (FFmpegError, OSError):
                    continue
            self._fresh = False
            rest = read_packets(container, stream)
            for packet in rest:
                if packet.pts == target_pts:
                    return packet, rest, stream
                if packet.pts is not None and index.packet_at.get(packet.pts, -1) > target:
                    break  # landed behind it
        return None

    def _count_to(self, frames: list[int], target: _Target) -> dict[int, np.ndarray]:
        """Decode from the file's beginning, counting frames: for files without presentation times."""
        wanted = set(frames)
        pixels: dict[int, np.ndarray] = {}
        container, stream = self._open(anew=True)
        self._fresh = False
        number = 0
        damage = False
        for packet in chain(read_packets(container, stream), (None,)):
            out = decode_or_none(stream, packet)
            if out is None:
                damage = True
                continue
            for frame in out:
                damage = frame.is_corrupt or (damage and not frame.key_frame)
                if number in wanted and not damage:
                    pixels[number] = target.hold(number, self._to_pixels(frame, target.size_wh))
                number += 1
            self.frames_decoded += len(out)
            if number > frames[-1]:
                break
        return pixels

    def _to_pixels(self, frame: VideoFrame, size: tuple[int, int]) -> np.ndarray:
        """Return a frame as (H, W, 3) RGB of the display size ``size``, turned upright."""
        orientation = self._index.orientation
        width, height = (size[1], size[0]) if orientation.transpose else size
        picture = self._reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        return upright(picture, orientation)
