"""A clip as one video file that carries the true time of every frame: for the wire, never for the disk.

The container is NUT with one PNG or JPEG picture per frame. NUT keeps any start and any gap between frames in any time
base; MOV and MP4 count a gap in 32 bits (35 minutes of microseconds, less than the skim of a long video needs) and
Matroska rounds to milliseconds. PNG is exact RGB at every size; JPEG is several times smaller, and its pictures are the
very bytes of ``video.image.to_jpeg``, read by the decoder that reads single pictures: the form of a clip changes no
pixel.

Times are counted on a clock that is chosen per clip: the slowest on which every time is exact to the last bit, such as
30 or 30000 ticks a second for a video of a steady rate, else microseconds. So a server prints the same time as a model
in this process, also where the mean of two times lies on a rounding edge.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image

from timeloupe.errors import VideoError, boundary
from timeloupe.video.image import to_jpeg

MICROSECONDS = 1_000_000
"""Ticks a second of the fallback clock, and of the fastest clock."""

FORMAT = "nut"
MIME_TYPE = "video/x-nut"
MAX_FRAMES = 4096
MAX_PIXELS = 2**31
"""Of a whole clip that is decoded: its file comes from somebody else."""


def clock_of(at_seconds: Sequence[float]) -> int:
    """Return the ticks a second, 1 to 1,000,000, of a clock on which the times are whole numbers.

    ``round(t * clock) / clock == t`` holds to the last bit for every time if any such clock has one; otherwise the
    clock counts microseconds and the times are rounded to them.
    """
    clock = 1
    for seconds in at_seconds:
        fraction = Fraction(seconds).limit_denominator(MICROSECONDS)
        clock = math.lcm(clock, fraction.denominator)
        if clock > MICROSECONDS or float(fraction) != seconds:
            return MICROSECONDS
    return clock


def ticks_of(at_seconds: Sequence[float], clock: int) -> list[int]:
    """Return the times in ticks of ``clock``.

    Raises:
        ConfigError: Two of them fall on one tick, or they do not ascend.
    """
    ticks = [round(Fraction(seconds) * clock) for seconds in at_seconds]
    if any(later <= earlier for earlier, later in zip(ticks, ticks[1:], strict=False)):
        raise boundary(
            "times of a clip", [round(seconds, 6) for seconds in at_seconds[:4]],
            f"ascending times at least 1/{clock} s apart",
        )  # fmt: skip
    return ticks


def encode_clip(pixels: np.ndarray, at_seconds: Sequence[float], *, jpeg_quality: int | None = None) -> bytes:
    """Return a video file of the frames; ``decode_clip`` gives back the pixels, and times exact to 1 microsecond.

    Args:
        pixels: (N, H, W, 3) uint8 RGB, N >= 1.
        at_seconds: Time of each frame, ascending, >= 0.
        jpeg_quality: 1 to 95; ``None`` = PNG, which gives back the same pixels.

    Raises:
        ConfigError: The shapes do not fit, or the times do not ascend by at least a microsecond.
    """
    if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise boundary(
            "pixels of a clip", (pixels.shape, str(pixels.dtype)), "(N, H, W, 3) uint8 RGB, not empty"
        )
    if len(at_seconds) != len(pixels):
        raise boundary("times of a clip", len(at_seconds), f"one per frame ({len(pixels)})")
    clock = clock_of(at_seconds)
    ticks = ticks_of(at_seconds, clock)
    out = io.BytesIO()
    with av.open(out, "w", format=FORMAT) as container:
        stream = container.add_stream("png" if jpeg_quality is None else "mjpeg")
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "rgb24" if jpeg_quality is None else "yuvj420p"
        stream.codec_context.thread_count = 1
        stream.time_base = stream.codec_context.time_base = Fraction(1, clock)
        for picture, tick in zip(pixels, ticks, strict=True):
            if jpeg_quality is None:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame.pts, frame.time_base = tick, Fraction(1, clock)
                container.mux(stream.encode(frame))
            else:
                packet = av.Packet(to_jpeg(picture, jpeg_quality))
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, clock), True
                packet.pts = packet.dts = tick
                container.mux(packet)
        if jpeg_quality is None:
            container.mux(stream.encode(None))
    return out.getvalue()


def decode_clip(data: bytes) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return the pixels (N, H, W, 3) uint8 RGB and the times in seconds of a file of ``encode_clip``.

    Raises:
        VideoError: It is no such file, or it is cut short.
    """
    pictures: list[np.ndarray] = []
    times: list[float] = []
    try:
        with av.open(io.BytesIO(data), "r", format=FORMAT) as container:
            if len(container.streams) != 1 or not container.streams.video:
                raise _wrong("it does not hold exactly one video stream")
            stream = container.streams.video[0]
            name = stream.codec_context.name
            if name not in ("png", "mjpeg"):
                raise _wrong(f"its pictures are {name}, not png or mjpeg")
            stream.codec_context.thread_count = 1
            for one in container.decode(stream) if name == "png" else container.demux(stream):
                if isinstance(one, av.Packet) and not one.size:
                    continue  # the end of the stream
                if one.pts is None or one.time_base is None:
                    raise _wrong("a frame has no time")
                pictures.append(_picture(one, len(pictures)))
                times.append(float(one.pts * one.time_base))
    except (FFmpegError, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise _wrong(str(error)) from error
    if not pictures:
        raise _wrong("it holds no frame")
    if len({picture.shape for picture in pictures}) > 1:
        raise _wrong("its frames have several sizes")
    return np.stack(pictures), tuple(times)


def _picture(one: av.VideoFrame | av.Packet, before: int) -> np.ndarray:
    """Return a frame's pixels, or those of a JPEG picture, if the frames ``before`` it leave room for them."""

    def check(width: int, height: int) -> None:
        if before >= MAX_FRAMES or width * height * (before + 1) > MAX_PIXELS:
            raise _wrong(f"it holds more than {MAX_FRAMES} frames or {MAX_PIXELS} pixels")

    if isinstance(one, av.VideoFrame):
        check(one.width, one.height)
        return one.to_ndarray(format="rgb24")
    with Image.open(io.BytesIO(bytes(one)), formats=("JPEG",)) as picture:
        check(*picture.size)
        return np.asarray(picture.convert("RGB"))


def _wrong(reason: str) -> VideoError:
    return VideoError("clip", reason, hint="send a file made by timeloupe.video.clip_file.encode_clip")
