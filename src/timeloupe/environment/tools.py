"""What the model is shown: the skim of a video, and the crops it asks for.

Every view is read from the ORIGINAL video and keeps its frames' true times; nothing is written to disk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import ConfigError
from timeloupe.trajectory import Box, FrameRef, Problem
from timeloupe.video.image import fit_size
from timeloupe.video.probe import VideoInfo
from timeloupe.video.reader import VideoReader
from timeloupe.video.sampling import crop_times, skim_times


@dataclass(frozen=True, eq=False)
class View:
    """Frames together with the reference that the record keeps of them.

    Attributes:
        ref: Where the frames come from.
        pixels: (N, H, W, 3) uint8 RGB, read-only.
    """

    ref: FrameRef
    pixels: np.ndarray

    @property
    def interval_seconds(self) -> float:
        """Mean distance of two neighbouring frames."""
        return (self.ref.end_seconds - self.ref.start_seconds) / len(self.ref.at_seconds)


def frame_size(info: VideoInfo, max_pixels: int, settings: EpisodeSettings) -> tuple[int, int]:
    """Return width and height of the frames shown of a video, within an area of ``max_pixels``."""
    if settings.frame_size_wh is not None:
        return settings.frame_size_wh
    return fit_size(
        info.square_wh, min_pixels=settings.min_pixels, max_pixels=max_pixels, multiple=settings.size_multiple
    )


def skim_span(info: VideoInfo, settings: EpisodeSettings) -> tuple[float, float, list[float]]:
    """Return where the first view begins and ends, and the times that it asks for, all in seconds.

    Raises:
        ConfigError: It begins behind the end of the video.
    """
    duration = info.duration_seconds
    start = settings.skim_start_seconds
    end = min(settings.skim_end_seconds or duration, duration)
    if not start < end:
        raise ConfigError(
            f"the skim begins at {start} s, but {info.path!r} is {duration:.2f} s long, "
            f"allowed: skim_start_seconds < {duration:.2f}"
        )
    latest = math.nextafter(end, start)
    times = skim_times(end - start, fps=settings.skim_fps, max_frames=settings.skim_frames)
    return start, end, [min(start + time, latest) for time in times]


def skim_video(reader: VideoReader, settings: EpisodeSettings) -> View:
    """Return the first view: the whole video, or the part that the settings name, at a low rate.

    Raises:
        ConfigError: That part begins behind the end of the video.
        VideoError: A frame cannot be read, or the skim wants keyframes and there are fewer than two.
    """
    start, end, times = skim_span(reader.info, settings)
    if settings.skim_approximate == "keyframes":
        times = reader.keyframes_near(times, start, end)
    return _read(reader, "skim", start, end, times, frame_size(reader.info, settings.skim_pixels, settings))


def crop_video(
    reader: VideoReader,
    start_seconds: float,
    end_seconds: float,
    settings: EpisodeSettings,
    *,
    margin_seconds: float = 0.0,
) -> View | Problem:
    """Return a segment of the original video at a higher rate, or why there is none.

    A negative or empty segment and one wholly behind the end of the video are refused; one that runs over the
    end is cut there. Then it is widened by ``margin_seconds`` on both sides, within the video.

    Args:
        reader: Reads the original video.
        start_seconds: As the model asked.
        end_seconds: As the model asked.
        settings: Rate, number and size of frames.
        margin_seconds: >= 0.

    Raises:
        VideoError: A frame cannot be read: the machine's fault, not the model's.
    """
    asked = f"[{start_seconds:g}, {end_seconds:g}]"
    duration = reader.info.duration_seconds
    if not (math.isfinite(start_seconds) and math.isfinite(end_seconds)):
        return Problem(reason="segment_not_finite", message=f"{asked} is not a time segment")
    if start_seconds < 0:
        return Problem(reason="segment_negative", message=f"{asked} begins before 0 s")
    if end_seconds <= start_seconds:
        return Problem(reason="segment_empty", message=f"{asked} does not end after it begins")
    if start_seconds >= duration:
        message = f"{asked} lies behind the end of the video, which is {duration:.1f} s long"
        return Problem(reason="segment_beyond_end", message=message)
    start = max(0.0, start_seconds - margin_seconds)
    end = min(duration, end_seconds + margin_seconds)
    times = crop_times(
        start, end, fps=settings.crop_fps, min_frames=settings.crop_min_frames,
        max_frames=settings.crop_max_frames, native_fps=reader.info.fps,
    )  # fmt: skip
    return _read(reader, "crop", start, end, times, frame_size(reader.info, settings.crop_pixels, settings))


def margin_for(
    start_seconds: float, end_seconds: float, last_views: Sequence[View], intervals: float
) -> float:
    """Return by how many seconds to widen a segment whose times were read from ``last_views``.

    That is ``intervals`` sampling intervals of the view that overlaps the segment most, the latest of equals.
    """
    if not last_views or intervals == 0:
        return 0.0

    def overlap(view: View) -> float:
        return min(end_seconds, view.ref.end_seconds) - max(start_seconds, view.ref.start_seconds)

    return intervals * max(reversed(last_views), key=overlap).interval_seconds


def _read(
    reader: VideoReader, view: str, start: float, end: float, times: Sequence[float], size_wh: tuple[int, int]
) -> View:
    frames = reader.read(times, size_wh)
    frames.pixels.flags.writeable = False  # episodes over one video share a skim
    ref = FrameRef.model_validate(
        {
            "video": reader.info.path, "view": view, "start_seconds": start, "end_seconds": end,
            "at_seconds": frames.at_seconds, "size_wh": frames.size_wh,
        }
    )  # fmt: skip
    return View(ref, frames.pixels)


def cut_box(reader: VideoReader, box: Box, settings: EpisodeSettings) -> View | Problem:
    """Return what a box shows, cut out of the frame displayed at its time, or why there is none.

    The part has its own aspect ratio, within an area of ``crop_pixels``; where one frame size is set it has that.

    Raises:
        VideoError: The frame cannot be read.
    """
    duration = reader.info.duration_seconds
    if box.at_seconds >= duration:
        message = f"{box.at_seconds:g} s lies behind the end of the video, which is {duration:.1f} s long"
        return Problem(reason="box_beyond_end", message=message)
    frames = reader.read([box.at_seconds])
    height, width = frames.pixels.shape[1:3]
    left, top = math.floor(box.x1 * width), math.floor(box.y1 * height)
    right, bottom = max(math.ceil(box.x2 * width), left + 1), max(math.ceil(box.y2 * height), top + 1)
    part = frames.pixels[:, top:bottom, left:right]
    size = settings.frame_size_wh or fit_size(
        (part.shape[2], part.shape[1]), min_pixels=settings.min_pixels, max_pixels=settings.crop_pixels,
        multiple=settings.size_multiple,
    )  # fmt: skip
    pixels = np.stack(
        [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in part]
    )
    ref = FrameRef(
        video=reader.info.path, view="image", start_seconds=frames.at_seconds[0], end_seconds=box.at_seconds,
        at_seconds=frames.at_seconds, size_wh=size,
    )  # fmt: skip
    return View(ref, pixels)
