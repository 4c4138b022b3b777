"""What is known about a video file without reading its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from timeloupe.video.index import FrameIndex, load_index


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a file's best video stream: the largest one that is not a cover picture.

    Attributes:
        path: The file as the caller named it.
        duration_seconds: From the first presented frame to the end of the last; sound that runs on is not
            counted.
        fps: Average frame rate; see ``constant_rate``.
        num_frames: Frames that are presented (edit lists applied).
        size_wh: Display size in pixels, after rotation; no pixel is stretched (see ``sample_aspect_ratio``).
        rotation_degrees: Counter-clockwise turn, 0, 90, 180 or 270, that the file asks for and every read
            applies.
        mirrored: Whether the file also asks for mirroring, which every read applies.
        codec: Such as ``h264``.
        pixel_format: As decoded, such as ``yuv420p``.
        start_seconds: The first presented frame on the container's own clock; all times count from it.
        container: FFmpeg's name of the container format.
        num_keyframes: Points that decoding can start from.
        constant_rate: Whether every frame but the last is displayed equally long, to within 1.5 ms and 1 %.
        sample_aspect_ratio: Width of a stored pixel over its height, 1 for nearly every file.
    """

    path: str
    duration_seconds: float
    fps: float
    num_frames: int
    size_wh: tuple[int, int]
    rotation_degrees: int
    mirrored: bool
    codec: str
    pixel_format: str
    start_seconds: float
    container: str
    num_keyframes: int
    constant_rate: bool
    sample_aspect_ratio: Fraction

    @property
    def square_wh(self) -> tuple[int, int]:
        """Display size with square pixels: what to fit a target size to so that nothing looks squeezed."""
        width, height = self.size_wh
        ratio = self.sample_aspect_ratio
        if self.rotation_degrees in (90, 270):
            return width, max(1, round(height * ratio))
        return max(1, round(width * ratio)), height


def probe(path: str | Path, *, deadline_seconds: float | None = None) -> VideoInfo:
    """Return what is known about a video file; its index is built on the first call and kept.

    Args:
        path: The video file.
        deadline_seconds: As for :func:`timeloupe.video.index.load_index`.

    Raises:
        VideoError: The file is missing, not a video, none of it can be decoded, or the deadline passed.
    """
    return info_of(load_index(path, deadline_seconds=deadline_seconds), path)


def info_of(index: FrameIndex, path: str | Path) -> VideoInfo:
    """Return the facts of an index, under the name that the caller used for the file."""
    steps = index.times_N[1:] - index.times_N[:-1]
    spread = float(steps.max() - steps.min()) if len(steps) else 0.0
    return VideoInfo(
        path=str(path),
        duration_seconds=index.duration_seconds,
        fps=index.fps,
        num_frames=len(index.times_N),
        size_wh=index.size_wh,
        rotation_degrees=index.orientation.rotation_degrees,
        mirrored=index.orientation.mirrored,
        codec=index.codec,
        pixel_format=index.pixel_format,
        start_seconds=index.start_seconds,
        container=index.container,
        num_keyframes=len(index.key_packets),
        constant_rate=spread <= max(0.0015, 0.01 / index.fps),
        sample_aspect_ratio=index.sample_aspect_ratio,
    )
