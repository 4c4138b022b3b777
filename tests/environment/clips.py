"""Test videos whose pixels tell which video they come from and when: real H.264 in MP4."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

SIZE = 64
FPS = 10
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "yellow": (200, 200, 30)}
LEVELS_PER_SECOND = 8


def write_clip(path: Path, colour: str, seconds: float) -> Path:
    """Write a video: left half in its colour, right half a grey that tells the time, ``8 * whole seconds``, < 30 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.gop_size = FPS
        stream.options = {"crf": "10", "preset": "ultrafast", "threads": "1"}
        for number in range(round(seconds * FPS)):
            picture = np.empty((SIZE, SIZE, 3), np.uint8)
            picture[:, : SIZE // 2] = COLOURS[colour]
            picture[:, SIZE // 2 :] = LEVELS_PER_SECOND * (number // FPS)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def colour_of(pixels: np.ndarray) -> str:
    """Return which video the frames (N, H, W, 3) come from; all must agree."""
    left_N3 = pixels[:, 8:-8, 8 : pixels.shape[2] // 2 - 8].mean(axis=(1, 2))
    names = list(COLOURS)
    distances = np.abs(left_N3[:, None] - np.array([COLOURS[name] for name in names])[None]).max(axis=2)
    assert (distances.min(axis=1) < 12).all(), "a frame of no known video"
    found = {names[index] for index in distances.argmin(axis=1)}
    assert len(found) == 1, f"frames of several videos: {found}"
    return found.pop()


def seconds_of(pixels: np.ndarray) -> list[int]:
    """Return the whole second that each frame (N, H, W, 3) was drawn for."""
    right_N = pixels[:, 8:-8, pixels.shape[2] // 2 + 8 : -8].mean(axis=(1, 2, 3))
    return [round(float(level) / LEVELS_PER_SECOND) for level in right_N]
