"""Which frames a view shows where its row does not say: told by the video itself, by the rules of an episode."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from timeloupe.data.formats.row import View
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import frame_size
from timeloupe.errors import RecordError, VideoError
from timeloupe.eval.files.find_videos import VideoFolder
from timeloupe.trajectory import FrameRef
from timeloupe.video.index import FrameIndex, load_index
from timeloupe.video.probe import info_of
from timeloupe.video.sampling import crop_times, fps_times, skim_times, uniform_times

SETTINGS = EpisodeSettings()
"""VideoTemp-o3's first evaluation setting: 2 frames a second, at most 256 of the whole and 64 of a crop."""


class VideoFrames:
    """Finds the frames of views in videos; nothing is decoded, only each file's index is read.

    Args:
        folder: Where relative paths begin; a video that is not there is looked for by its name below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: VideoFolder | None = None
        self._paths = lru_cache(maxsize=4096)(self._look_up)
        self._index = lru_cache(maxsize=64)(self._load)

    def __call__(self, view: View) -> FrameRef:
        """Return the frames of a view: its own rate where it names one, else the rules of an episode.

        Raises:
            RecordError: The video is not there, cannot be read, or ends before the view begins.
        """
        path, index = self.path(view.video), self._index(view.video)
        duration = index.duration_seconds
        start, end = _bounds(view, duration)
        if view.view == "image":
            times, end = (start,), start
        elif not start < end:
            raise RecordError(
                f"field 'videos': {view.video!r} is {duration:.2f} s long, a view begins at {start} s"
            )
        elif view.at_seconds is not None:
            times = view.at_seconds
        else:
            times = _times(view, start, end, duration, index.fps)
        shown = tuple(float(index.times_N[frame]) for frame in index.frames_at(list(times)))
        pixels = SETTINGS.skim_pixels if view.view == "skim" else SETTINGS.crop_pixels
        size = view.size_wh or frame_size(info_of(index, path), pixels, SETTINGS)
        return FrameRef(
            video=view.video,
            view=view.view,
            start_seconds=start,
            end_seconds=end,
            at_seconds=shown,
            size_wh=size,
        )

    def path(self, video: str) -> Path:
        """Return the file of a video.

        Raises:
            RecordError: It is not there.
        """
        return self._paths(video)

    def _look_up(self, video: str) -> Path:
        named = self._folder / video
        if video and named.is_file():
            return named
        if self._found is None:
            self._found = VideoFolder(self._folder)
        if (found := self._found.find(video)) is None:
            raise RecordError(
                f"field 'videos': no {video!r} below {str(self._folder)!r}, which frames are shown is told by the "
                "video; name its folder with --videos"
            )
        return found

    def _load(self, video: str) -> FrameIndex:
        try:
            return load_index(self.path(video), deadline_seconds=SETTINGS.video_deadline_seconds)
        except VideoError as error:
            raise RecordError(f"field 'videos': {error}") from error


def _bounds(view: View, duration: float) -> tuple[float, float]:
    """Return where a view begins and ends; a crop that only names its frames is what lies between and beside them."""
    start, end = view.start_seconds, view.end_seconds
    if view.view == "crop" and view.at_seconds and (start is None or end is None):
        half = (view.at_seconds[-1] - view.at_seconds[0]) / max(1, len(view.at_seconds) - 1) / 2
        start, end = max(0.0, view.at_seconds[0] - half), view.at_seconds[-1] + max(half, 0.001)
    return start or 0.0, min(duration if end is None else end, duration)


def _times(view: View, start: float, end: float, duration: float, native_fps: float) -> tuple[float, ...]:
    if view.view == "skim" and start == 0.0 and end == duration and view.fps is None:
        return skim_times(duration, fps=SETTINGS.skim_fps, max_frames=SETTINGS.skim_frames)
    if view.fps is not None:
        return uniform_times(start, end, len(fps_times(start, end, view.fps)))
    return crop_times(
        start, end, fps=SETTINGS.crop_fps, min_frames=SETTINGS.crop_min_frames,
        max_frames=SETTINGS.crop_max_frames, native_fps=native_fps,
    )  # fmt: skip
