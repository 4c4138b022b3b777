"""Files that hold more than one plain video stream: sound, a second video, a cover picture, odd orders of packets."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet
from av.stream import Disposition

from tests.video.painting import Clip, paint, write_clip


def add_streams(
    clip: Clip,
    path: Path,
    *,
    audio_seconds: float = 0.0,
    audio_apart: bool = False,
    small_first: bool = False,
    cover_first: bool = False,
) -> Clip:
    """Return the frames of ``clip`` in a new file among other streams.

    Args:
        clip: What the reader should find.
        path: Where; its suffix chooses the container.
        audio_seconds: Length of a sound track; 0 = none.
        audio_apart: All of the sound lies behind all of the pictures in the file.
        small_first: The first stream is a smaller video whose frames have other numbers and other times.
        cover_first: The first stream is a large cover picture.
    """
    # The muxer sorts packets by time unless a stream is too far behind the others.
    options = {"max_interleave_delta": "1"} if audio_apart else {}
    with av.open(str(clip.path)) as source, av.open(str(path), "w", options=options) as target:
        packets: list[tuple[float, Packet[Any]]] = []
        if small_first:
            small = write_clip(path.with_suffix(".small.mp4"), num_frames=90, fps=15, size_wh=(64, 64))
            with av.open(str(small.path)) as other:
                packets += _copied(other, target)
        if cover_first:
            packets += _cover(target)
        packets += _copied(source, target)
        if audio_seconds:
            late = 1e6 if audio_apart else 0.0
            packets += [(late + at, packet) for at, packet in _silence(target, audio_seconds)]
        packets.sort(key=lambda one: one[0])
        for _, packet in packets:
            target.mux(packet)
    return clip.__class__(path, clip.seconds)


def _copied(source: av.container.InputContainer, target: av.container.OutputContainer) -> Iterator[Any]:
    old = source.streams.video[0]
    new = target.add_stream_from_template(old)
    found = []
    for packet in source.demux(old):
        if packet.dts is not None and old.time_base is not None:
            packet.stream = new
            found.append((float(packet.dts * old.time_base), packet))
    return iter(found)


def _cover(target: av.container.OutputContainer) -> Iterator[Any]:
    stream = target.add_stream("png", rate=1)
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = 256, 256, "rgb24"
    stream.disposition = Disposition.attached_pic
    frame = av.VideoFrame.from_ndarray(paint(40000, (256, 256)), "rgb24")
    frame.pts, frame.time_base = 0, Fraction(1)
    return iter([(-1.0, packet) for packet in (*stream.encode(frame), *stream.encode(None))])


def _silence(target: av.container.OutputContainer, seconds: float) -> Iterator[Any]:
    rate = 16000
    stream = target.add_stream("aac", rate=rate, layout="mono")
    assert isinstance(stream, av.AudioStream)
    found: list[Any] = []
    for start in range(0, int(seconds * rate), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.pts, frame.sample_rate, frame.time_base = start, rate, Fraction(1, rate)
        found += [(start / rate, packet) for packet in stream.encode(frame)]
    found += [(seconds, packet) for packet in stream.encode(None)]
    return iter(found)
