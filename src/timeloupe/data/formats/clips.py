"""Views written as files, for formats whose readers open one: a video of a crop, or a picture of each frame.

The frames are those that the row names, or that an episode would show, read from the original video at their true
times. A file's name tells its video and frames, so the same view is one file, and one that is there is not made again.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from timeloupe.data.formats.frames import VideoFrames
from timeloupe.data.formats.row import Clips, Said, View
from timeloupe.errors import RecordError, VideoError
from timeloupe.eval.files.find_videos import video_key
from timeloupe.trajectory import FrameRef
from timeloupe.video.clip_file import clock_of, ticks_of
from timeloupe.video.reader import VideoReader

CRF = "18"
"""x264's quality of a crop: what is lost is not seen."""


class ClipWriter:
    """Writes views into a folder.

    Args:
        folder: Where; made if missing.
        kind: ``video`` = every crop as an MP4, ``pictures`` = every frame of every view as a PNG.
        frames: Tells which frames a view shows.
    """

    def __init__(self, folder: Path, kind: Clips, frames: VideoFrames) -> None:
        self._folder = folder
        self._kind = kind
        self._frames = frames
        folder.mkdir(parents=True, exist_ok=True)

    def with_files(self, chat: tuple[Said, ...]) -> tuple[Said, ...]:
        """Return the messages with the files of their views, which are there then.

        Raises:
            RecordError: A video is not there or cannot be read.
        """
        return tuple(
            replace(one, parts=tuple(p if isinstance(p, str) else self._written(p) for p in one.parts))
            for one in chat
        )

    def _written(self, view: View) -> View:
        wanted = view.view == "crop" if self._kind == "video" else True
        if not wanted or (view.files and (self._kind == "video" or view.view == "image")):
            return view
        ref = self._frames(view)
        path = self._frames.path(ref.video)
        if self._kind == "video":
            name = f"{_stem(ref, path)}_{ref.start_seconds:g}_{ref.end_seconds:g}.mp4"
            return replace(view, files=(self._made(name, lambda: _encoded(ref, _pixels(ref, path))),))
        names = [f"{_stem(ref, path)}_{seconds:.3f}_{at}.png" for at, seconds in enumerate(ref.at_seconds)]
        if all((self._folder / name).is_file() for name in names):
            return replace(view, files=tuple(str(self._folder / name) for name in names))
        pictures = zip(names, _pixels(ref, path), strict=True)
        return replace(
            view, files=tuple(self._made(name, lambda p=pixels: _png(p)) for name, pixels in pictures)
        )

    def _made(self, name: str, make: Callable[[], bytes]) -> str:
        """Return the path of a file that is there, whole."""
        path = self._folder / name
        if not path.is_file():
            partial = path.with_name(f".{name}.{os.getpid()}.part")
            try:
                partial.write_bytes(make())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
        return str(path)


def _stem(ref: FrameRef, path: Path) -> str:
    """Return the video's name, and what tells this file and these frames from all others."""
    about = path.stat()
    key = (str(path.resolve()), about.st_size, about.st_mtime_ns, ref.at_seconds, ref.size_wh)
    name = re.sub(r"[^\w.-]", "_", video_key(ref.video))[:60]
    return f"{name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:10]}"


def _pixels(ref: FrameRef, path: Path) -> np.ndarray:
    try:
        with VideoReader(path) as reader:
            return reader.read(ref.at_seconds, ref.size_wh).pixels
    except VideoError as error:
        raise RecordError(f"field 'videos': {error}") from error


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def _encoded(ref: FrameRef, pixels: np.ndarray) -> bytes:
    """Return an MP4 that begins with the first frame and shows each other one as long after it as in the video."""
    clock = clock_of(ref.at_seconds)
    ticks = ticks_of(ref.at_seconds, clock)
    length = ref.end_seconds - ref.start_seconds
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=max(1, round(len(ticks) / length)))
        # 4:2:0 has one colour for two pixels a side.
        stream.width, stream.height = (max(2, side - side % 2) for side in ref.size_wh)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": CRF, "threads": "1"}
        stream.time_base = stream.codec_context.time_base = Fraction(1, clock)
        for tick, picture in zip(ticks, pixels, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = tick - ticks[0], Fraction(1, clock)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
