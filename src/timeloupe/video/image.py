"""Sizes that a model takes, and frames as PNG or JPEG bytes."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image


def fit_size(size_wh: tuple[int, int], *, min_pixels: int, max_pixels: int, multiple: int) -> tuple[int, int]:
    """Return the width and height, multiples of ``multiple``, nearest to ``size_wh`` with the area within bounds.

    The aspect ratio is kept as well as the multiple allows. The rule is that of the Qwen-VL processors, so they leave a
    frame of this size alone; for very long pictures, where that rule breaks its own upper bound, the longer side gives.

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
