"""The packets of a stream: presentation time, keyframe flag, shown or not.

Two ways lead there. An ordinary MP4 or MOV file has a sample table that FFmpeg has already read, edit list
applied; only the composition offsets are missing from what it hands out, and they are read from the file's
header (:mod:`timeloupe.video.sample_table`). Its first packets and its last group of pictures are then
compared with what the demuxer really gives. Everything else, and every file that fails the comparison, is
demuxed from end to end.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from timeloupe.video.container import decode_or_none, open_video, read_packets
from timeloupe.video.sample_table import composition_offsets

_FIRST_FRAME_PACKETS = 300
_CHECKED_PACKETS = 16
_CLOCK_PACKETS = 8

NO_TIME = -(2**63)
"""Stands for a time that the container does not have."""


def _numbers() -> array[int]:
    return array("q")


@dataclass
class Packets:
    """The packets of one stream in decoding order; times in ticks, 64 bits each: hours of video are many packets.

    Attributes:
        first_frame: The first frame that could be decoded, ``None`` if there is none.
        pts: Presentation times; ``NO_TIME`` where the container has none.
        dts: Decoding times, likewise.
        keys: Numbers of the keyframes.
        hidden: Numbers of the packets that are decoded but not presented.
        durations: How long packets are presented, 0 if unknown: of all, or of the last ones only.
        corrupt: Numbers of the packets that the demuxer flags as damaged.
        positions: Where in the file packets lie, in bytes; empty if not demuxed or not known.
        sizes: Their bytes.
    """

    first_frame: VideoFrame | None = None
    pts: array[int] = field(default_factory=_numbers)
    dts: array[int] = field(default_factory=_numbers)
    keys: array[int] = field(default_factory=_numbers)
    hidden: array[int] = field(default_factory=_numbers)
    durations: array[int] = field(default_factory=_numbers)
    corrupt: array[int] = field(default_factory=_numbers)
    positions: array[int] = field(default_factory=_numbers)
    sizes: array[int] = field(default_factory=_numbers)

    def append(self, packet: Packet[VideoStream], hidden: bool) -> None:
        """Take in the next packet."""
        if packet.is_keyframe:
            self.keys.append(len(self.pts))
        if hidden:
            self.hidden.append(len(self.pts))
        if packet.is_corrupt:
            self.corrupt.append(len(self.pts))
        if packet.pos is not None:
            self.positions.append(packet.pos)
            self.sizes.append(packet.size)
        self.pts.append(NO_TIME if packet.pts is None else packet.pts)
        self.dts.append(NO_TIME if packet.dts is None else packet.dts)
        self.durations.append(packet.duration or 0)


def gather_packets(path: str, file_bytes: int, container: InputContainer, stream: VideoStream) -> Packets:
    """Return the packets of a freshly opened stream; the container's position is undefined afterwards."""
    found = Packets()
    codec = stream.codec_context.codec.canonical_name
    table_left_to_try = "mp4" in container.format.name and codec != "vp8"
    for packet in read_packets(container, stream):
        # VP8 stores pictures that only serve as references as packets of their own: show_frame is off.
        found.append(packet, packet.is_discard or (codec == "vp8" and not bytes(packet)[0] & 0x10))
        number = len(found.pts)
        if found.first_frame is None and number <= _FIRST_FRAME_PACKETS:
            frames = decode_or_none(stream, packet)
            found.first_frame = frames[0] if frames else None
        if table_left_to_try and number >= _CHECKED_PACKETS and found.first_frame is not None:
            table_left_to_try = False
            table = _from_sample_table(path, file_bytes, stream, found)
            if table is not None and _agrees_at_end(path, stream.index, table):
                return table
    if found.first_frame is None and found.pts:
        frames = decode_or_none(stream, None)
        found.first_frame = frames[0] if frames else None
    return found


def clock_restart(packets: Packets) -> int | None:
    """Return the number of the first packet from which the presentation times run once more, if there is one.

    As in files that were simply put one behind the other. Pictures out of order are no restart, nor is one
    packet with a nonsense time: several packets on both sides have to agree.
    """
    pts, dts = np.array(packets.pts, np.int64), np.array(packets.dts, np.int64)
    keys = np.array(packets.keys, np.int64)
    keys = keys[keys > 0]
    # After a keyframe nothing is presented earlier than what came before it.
    back = keys[pts[keys] <= np.maximum.accumulate(pts)[keys - 1]]
    for number in np.union1d(back, np.flatnonzero(np.diff(dts) < 0) + 1).tolist():
        earlier = np.median(pts[max(number - _CLOCK_PACKETS, 0) : number])
        if np.median(pts[number : number + _CLOCK_PACKETS]) <= earlier:
            return number
    return None


def _from_sample_table(path: str, file_bytes: int, stream: VideoStream, head: Packets) -> Packets | None:
    """Return all packets as the sample table has them, or ``None`` where that cannot be relied on.

    ``head`` holds the first packets as demuxed.
    """
    offsets = composition_offsets(path, stream.id)
    if offsets is None or len(offsets) != len(stream.index_entries) or head.pts[0] == NO_TIME:
        return None
    numbers = (n for e in stream.index_entries for n in (e.timestamp, e.flags, e.pos, e.size))
    dts, flags, starts, sizes = np.fromiter(numbers, np.int64).reshape(-1, 4).T
    if (sizes <= 0).any():
        return None  # an empty sample is no packet: the frame before it stays
    if not flags[0] & 1 or (starts + sizes).max() > file_bytes or (np.diff(dts) <= 0).any():
        return None
    pts = dts + offsets + (head.pts[0] - int(dts[0] + offsets[0]))
    hidden = np.flatnonzero(flags & 2)
    count = len(head.pts)
    same = (
        head.pts.tolist() == pts[:count].tolist()
        and head.dts.tolist() == dts[:count].tolist()
        and head.hidden.tolist() == hidden[hidden < count].tolist()
    )
    if not same:
        return None
    columns = (pts, dts, np.flatnonzero(flags & 1), hidden)
    return Packets(head.first_frame, *(array("q", column.astype(np.int64).tobytes()) for column in columns))


def _agrees_at_end(path: str, stream_index: int, table: Packets) -> bool:
    """Return whether the last group of pictures demuxes as ``table`` says; note its packets' durations."""
    last_key = table.keys[-1]
    key_pts = table.pts[last_key]
    container, stream = open_video(path, stream_index)
    with container:
        try:
            container.seek(key_pts, stream=stream)
        except FFmpegError:
            return False
        tail = Packets()
        for packet in read_packets(container, stream):
            if tail.pts or packet.pts == key_pts:
                tail.append(packet, packet.is_discard)
            if len(tail.pts) > len(table.pts) - last_key:
                return False
    table.durations = tail.durations
    return tail.pts == table.pts[last_key:] and tail.dts == table.dts[last_key:]
