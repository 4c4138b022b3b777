"""Where packets were lost from a stream: damage that leaves nothing behind to be flagged.

A Matroska demuxer that meets nonsense goes on at the next cluster; the packets in between are simply not
there, and the frame before them would be shown for their time. A time without a frame is no proof (frame
rates vary), so bytes must be missing there too: bytes that belong to no packet of any stream. A lost packet
of fewer than some 100 bytes, and one at the beginning of the file, cannot be told.
"""

from __future__ import annotations

from array import array
from itertools import islice

import numpy as np
from av.error import FFmpegError
from av.stream import Discard

from timeloupe.video.container import open_video, read_packets, sign_of_life
from timeloupe.video.packets import Packets

_LONG_STEP = 1.5
_MAX_LONG_STEPS = 100
_NEAR_PACKETS = 16
_BLOCK_HEADER_BYTES = 16
_LOST_BYTES = 100


def lost_packets(path: str, stream_index: int, container: str, packets: Packets) -> np.ndarray:
    """Return the numbers of the packets that come directly after lost data, ascending.

    Args:
        path: The file.
        stream_index: The stream that ``packets`` are from.
        container: FFmpeg's name of the container format.
        packets: All packets of the stream, with presentation times.
    """
    lost = set(packets.corrupt)
    if "matroska" in container and len(packets.positions) == len(packets.pts) > 2:
        pts = np.array(packets.pts, np.int64)
        order = np.argsort(pts)
        steps = np.diff(pts[order])
        long_steps = np.flatnonzero(steps > _LONG_STEP * np.median(steps))
        if 0 < len(long_steps) <= _MAX_LONG_STEPS and not _has_additions(path, stream_index):
            holes = _holes(path, stream_index, packets)
            after = order[long_steps + 1]
            near = np.abs(holes[:, None] - after[None]).min(axis=1, initial=len(pts)) <= _NEAR_PACKETS
            # Where holes are usual they are no losses: the file has a track that FFmpeg does not know.
            if len(holes) <= len(pts) // 2 and near.sum() >= len(holes) // 2:
                lost.update(holes[near].tolist())
    return np.array(sorted(lost), np.int64)


def _has_additions(path: str, stream_index: int) -> bool:
    """Return whether packets come with data beside the pictures, such as transparency: bytes that would look lost."""
    container, stream = open_video(path, stream_index)
    with container:
        head = islice(read_packets(container, stream), _NEAR_PACKETS)
        return any(packet.has_sidedata("matroska_block_additional") for packet in head)


def _holes(path: str, stream_index: int, packets: Packets) -> np.ndarray:
    """Return the numbers of the packets before which bytes belong to no packet of any stream."""
    others = array("q")  # position and size of each in turn
    container, _ = open_video(path, stream_index)
    with container:
        for stream in container.streams:
            stream.discard = Discard.all if stream.index == stream_index else Discard.default
        try:
            for packet in container.demux():
                sign_of_life()
                if packet.size and packet.pos is not None:
                    others.extend((packet.pos, packet.size + _BLOCK_HEADER_BYTES))
        except (FFmpegError, OSError):
            pass  # cut off: what was read counts
    at, sizes = np.array(others, np.int64).reshape(-1, 2).T
    order = np.argsort(at, kind="stable")
    at, sizes = at[order], sizes[order]
    before = np.concatenate([[0], np.cumsum(sizes)])
    starts = np.array(packets.positions, np.int64)
    ends = starts[:-1] + np.array(packets.sizes[:-1], np.int64) + _BLOCK_HEADER_BYTES
    between = before[np.searchsorted(at, starts[1:])] - before[np.searchsorted(at, starts[:-1])]
    return np.flatnonzero(starts[1:] - ends - between > _LOST_BYTES) + 1
