"""Pictures: the sizes a model takes, which way is up, PNG and JPEG bytes."""

from __future__ import annotations

import io
import math
from typing import NamedTuple

import numpy as np
from av.video.frame import VideoFrame
from PIL import Image


class Orientation(NamedTuple):
    """How a stored frame is shown upright: swap rows and columns first, then mirror."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def rotation_degrees(self) -> int:
        """The turn, counter-clockwise: 0, 90, 180 or 270, after a top-bottom mirroring if ``mirrored``."""
        if self.transpose:
            return 90 if self.flip_y else 270
        return 180 if self.flip_x else 0

    @property
    def mirrored(self) -> bool:
        """Whether it is a mirror image and not a mere turn."""
        return self.transpose ^ self.flip_x ^ self.flip_y


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return the orientation that a frame's display matrix asks for; slanted ones count as none.

    Source: FFmpeg, ``libavutil/display.h``: (x, y) is shown at (a x + c y, b x + d y), y pointing down.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if a and d and not b and not c:
        return Orientation(False, a < 0, d < 0)
    if b and c and not a and not d:
        return Orientation(True, c < 0, b < 0)
    return Orientation()


def upright(pixels: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Return a stored (H, W, 3) picture as it is displayed, contiguous."""
    if orientation.transpose:
        pixels = pixels.transpose(1, 0, 2)
    if orientation.flip_x:
        pixels = pixels[:, ::-1]
    if orientation.flip_y:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def fit_size(size_wh: tuple[int, int], *, min_pixels: int, max_pixels: int, multiple: int) -> tuple[int, int]:
    """Return the width and height, multiples of ``multiple``, nearest to ``size_wh`` with a bounded area.

    The aspect ratio is kept as well as the multiple allows. The rule is that of the Qwen-VL processors, so
    they leave a frame of this size alone; where that rule breaks its own upper bound (very long pictures) the
    longer side gives.

    Args:
        size_wh: Width and height in pixels, >= 1.
        min_pixels: Lower bound of the area; the upper bound goes first where both cannot hold.
        max_pixels: Upper bound of the area, at least ``multiple ** 2``.
        multiple: What both sides are divided by without rest.

    Raises:
        ValueError: A number is out of its range.
    """
    width, height = size_wh
    if width < 1 or height < 1:
        raise ValueError(f"size_wh must be two whole numbers >= 1, got {size_wh!r}")
    if multiple < 1:
        raise ValueError(f"multiple must be >= 1, got {multiple!r}")
    if not (0 <= min_pixels <= max_pixels and max_pixels >= multiple**2):
        raise ValueError(
            f"need 0 <= min_pixels <= max_pixels and max_pixels >= {multiple**2} (one block of {multiple}), "
            f"got {min_pixels!r} and {max_pixels!r}"
        )
    wide, high = (max(multiple, round(side / multiple) * multiple) for side in size_wh)
    if wide * high > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        wide, high = (max(multiple, math.floor(side / shrink / multiple) * multiple) for side in size_wh)
        if wide * high > max_pixels:
            longest = max_pixels // multiple // multiple * multiple
            wide, high = (longest, multiple) if wide > high else (multiple, longest)
    elif wide * high < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        grown = tuple(math.ceil(side * grow / multiple) * multiple for side in size_wh)
        if grown[0] * grown[1] <= max_pixels:
            wide, high = grown
    return wide, high


def to_png(pixels: np.ndarray) -> bytes:
    """Return (H, W, 3) uint8 RGB as PNG bytes, lossless."""
    return _encode(pixels, "PNG", compress_level=3)


def to_jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    """Return (H, W, 3) uint8 RGB as JPEG bytes of ``quality`` 1..95."""
    return _encode(pixels, "JPEG", quality=quality)


def _encode(pixels: np.ndarray, kind: str, **options: int) -> bytes:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"need (H, W, 3) uint8 RGB, got shape {pixels.shape} and dtype {pixels.dtype}")
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, kind, **options)
    return out.getvalue()
