"""Videos whose every frame says its own number, for tests that compare with a known truth.

A frame's number is painted as 16 bits, black or white blocks in 4 columns, and their complement below as a check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange

COLUMNS, ROWS = 4, 8


def paint(number: int, size_wh: tuple[int, int] = (128, 128)) -> np.ndarray:
    """Return an (H, W, 3) picture of ``number`` (0..65535): 16 bits, then their complement."""
    bits = [(number >> place) & 1 for place in range(16)]
    grid = np.array(bits + [1 - bit for bit in bits], np.uint8).reshape(ROWS, COLUMNS) * 200 + 28
    width, height = size_wh
    rows = np.minimum(np.arange(height) * ROWS // height, ROWS - 1)
    columns = np.minimum(np.arange(width) * COLUMNS // width, COLUMNS - 1)
    return np.repeat(grid[rows][:, columns, None], 3, axis=2)


def read_number(pixels: np.ndarray) -> int:
    """Return the number painted in a picture of any size >= (12, 24); -1 if it is not readable."""
    height, width = pixels.shape[:2]
    bits = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            y, x = int((row + 0.5) * height / ROWS), int((column + 0.5) * width / COLUMNS)
            bits.append(int(pixels[y, x].mean() > 128))
    if any(bit == check for bit, check in zip(bits[:16], bits[16:], strict=True)):
        return -1
    return sum(bit << place for place, bit in enumerate(bits[:16]))


@dataclass(frozen=True)
class Clip:
    """A video file and its truth: frame number ``n`` is presented at ``seconds[n]`` (from the first) until the next."""

    path: Path
    seconds: tuple[float, ...]

    def number_at(self, time: float) -> int:
        """Return the number of the frame that is displayed at ``time``."""
        return max(n for n, start in enumerate(self.seconds) if start <= time + 1e-6)


def write_clip(
    path: Path,
    *,
    codec: str = "libx264",
    num_frames: int = 60,
    fps: int = 10,
    ticks: Sequence[int] | None = None,
    ticks_per_second: int | None = None,
    size_wh: tuple[int, int] = (128, 128),
    pixel_format: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    rotation: tuple[float, bool, bool] | None = None,
    picture: np.ndarray | None = None,
    sample_aspect_ratio: Fraction | None = None,
    full_range: bool = False,
) -> Clip:
    """Write a video of numbered frames.

    Args:
        path: Where; its suffix chooses the container.
        codec: FFmpeg's encoder.
        num_frames: How many, unless ``ticks`` says.
        fps: Nominal rate.
        ticks: Presentation time of each frame, ascending; default = 0, 1, 2, ... at ``fps``.
        ticks_per_second: Unit of ``ticks``.
        size_wh: Stored size.
        pixel_format: Stored format.
        options: Of the encoder.
        container_options: Of the muxer.
        rotation: Display rotation in degrees, horizontal flip, vertical flip; numbers are painted so that the turn
            puts them upright.
        picture: Paint this in every frame and not its number.
        sample_aspect_ratio: Shape of a stored pixel.
        full_range: Luma from 0 to 255, and marked so.
    """
    ticks = range(num_frames) if ticks is None else ticks
    base = Fraction(1, ticks_per_second or fps)
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=fps, options={"threads": "1", **(options or {})})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size_wh
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = base
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if full_range:
            stream.codec_context.color_range = ColorRange.JPEG
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1], vflip=rotation[2])
        for number, tick in enumerate(ticks):
            shown = picture
            if shown is None:
                quarters = 0 if rotation is None else int(rotation[0]) // 90
                shown = np.rot90(paint(number, size_wh[:: -1 if quarters % 2 else 1]), -quarters)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), "rgb24")
            if full_range:
                frame = frame.reformat(format=pixel_format, dst_color_range=ColorRange.JPEG)
            frame.pts, frame.time_base = tick, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Clip(path, tuple(float((tick - ticks[0]) * base) for tick in ticks))
