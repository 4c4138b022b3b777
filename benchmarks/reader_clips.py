"""The two videos of the speed study: one hour of 640x360 and ten minutes of 1920x1080, both 25 frames a second.

Scenes of 3 to 20 seconds in which two cloudy textures drift through each other under film grain, with a few things
flying past: there is motion everywhere, so B-frames and residuals are as busy as in a recording (0.6 and 3 Mbit/s).
x264's default preset and its keyframe distance of 250 stand for what people have. To save time a shorter piece is
encoded and repeated without encoding it again; a reader cannot tell.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np

FPS = 25
CLIPS = {
    "hour_360p": {"size_wh": (640, 360), "piece_seconds": 600, "repeats": 6, "crf": 27},
    "ten_minutes_1080p": {"size_wh": (1920, 1080), "piece_seconds": 60, "repeats": 10, "crf": 32},
}
SECONDS = {name: clip["piece_seconds"] * clip["repeats"] for name, clip in CLIPS.items()}


def clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return an (H, W) uint8 texture with detail at every scale, 16..235."""
    total = np.zeros((height, width), np.float32)
    for cell in (256, 64, 24, 8, 3):
        coarse = rng.standard_normal((height // cell + 2, width // cell + 2)).astype(np.float32)
        fine = np.repeat(np.repeat(coarse, cell, 0), cell, 1)[:height, :width]
        total += fine * cell**0.5
    total -= total.min()
    return (16 + total * (219 / total.max())).astype(np.uint8)


class Scene:
    """Two textures that drift through each other, and things that fly past."""

    def __init__(self, rng: np.random.Generator, size_wh: tuple[int, int], num_frames: int) -> None:
        width, height = size_wh
        self.size_wh = size_wh
        self.reach = 160 * height // 360
        self.back, self.front = (clouds(rng, height + self.reach, width + self.reach) >> 1 for _ in range(2))
        self.colour = rng.integers(90, 166, (2, 5, 7))
        self.waves = rng.uniform(0.2, 1.0, (2, 2)) * 2 * np.pi / (FPS * 8)
        self.phase = rng.uniform(0, 2 * np.pi, (2, 2))
        self.things = [
            (clouds(rng, height // 5, width // 8), rng.uniform(0, 1, 2), rng.uniform(-0.3, 0.3, 2) / FPS)
            for _ in range(3)
        ]
        self.num_frames = num_frames

    def frame(self, number: int, grain: np.ndarray) -> np.ndarray:
        """Return one picture as the stacked planes of yuv420p, (H * 3/2, W) uint8."""
        width, height = self.size_wh
        at = ((np.sin(self.waves * number + self.phase) + 1) / 2 * self.reach).astype(int)
        layers = [
            texture[y : y + height, x : x + width]
            for texture, (y, x) in zip((self.back, self.front), at, strict=True)
        ]
        luma = layers[0] + layers[1]
        for picture, start, speed in self.things:
            tall, wide = picture.shape
            y, x = ((start + speed * number) % 1 * (height - tall, width - wide)).astype(int)
            luma[y : y + tall, x : x + wide] = picture
        luma = np.clip(luma.astype(np.int16) + grain, 16, 235).astype(np.uint8)
        chroma = [
            np.repeat(np.repeat(plane, -(-height // 2 // 5), 0), -(-width // 2 // 7), 1)[
                : height // 2, : width // 2
            ]
            for plane in self.colour
        ]
        planes = [plane.astype(np.uint8).reshape(-1, width) for plane in chroma]
        return np.concatenate([luma, *planes])


def make_piece(path: Path, size_wh: tuple[int, int], seconds: int, crf: int, seed: int = 5) -> None:
    """Encode scenes of that many seconds."""
    rng = np.random.default_rng(seed)
    width, height = size_wh
    grains = [np.rint(rng.standard_normal((height, width)) * 2.0).astype(np.int16) for _ in range(4)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": str(crf), "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        left = seconds * FPS
        while left:
            length = min(left, int(rng.uniform(3, 20) * FPS))
            scene = Scene(rng, size_wh, length)
            for number in range(length):
                grain = np.roll(grains[number % 4], number * 7, axis=1)
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(scene.frame(number, grain), "yuv420p"))
                )
            left -= length
        container.mux(stream.encode(None))


def make_clip(work: Path, name: str) -> Path:
    """Return the file of one clip, made at the first call (minutes)."""
    path = work / f"{name}.mp4"
    if path.exists():
        return path
    clip = CLIPS[name]
    piece, part = work / f"{name}.piece.mp4", work / f"{name}.part.mp4"
    if not piece.exists():
        made = work / f"{name}.making.mp4"
        make_piece(made, clip["size_wh"], clip["piece_seconds"], clip["crf"])
        os.replace(made, piece)
    words = ["ffmpeg", "-v", "error", "-y", "-stream_loop", str(clip["repeats"] - 1), "-i", str(piece)]
    subprocess.run([*words, "-c", "copy", "-movflags", "+faststart", str(part)], check=True)
    os.replace(part, path)
    return path


if __name__ == "__main__":
    for wanted in sys.argv[2:] or CLIPS:
        print(make_clip(Path(sys.argv[1]), wanted))
