"""Small JPEG pictures of the frames that episodes showed, for pages that hold everything themselves.

A frame is decoded once however many episodes showed it. A video that cannot be read gives a note and no pictures:
the page is made all the same.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from timeloupe.errors import VideoError
from timeloupe.trajectory import FrameRef, Trajectory
from timeloupe.video.image import to_jpeg
from timeloupe.video.reader import VideoReader

LONGEST_SIDE = 192
JPEG_QUALITY = 72
STRIP_ASPECT = 22.0
"""Width over height of the widest filmstrip on the page, were its frames cut to 0.6 of their width."""

MAX_PICTURES = 2400
"""Pictures a page may hold, about 5 kB each."""

_MOST_PER_VIEW = (24, 12, 8, 5)
_MOST_STILLS = 12


@dataclass(frozen=True)
class Gallery:
    """Pictures of frames.

    Attributes:
        pictures: ``data:`` URIs of JPEG files.
        numbers: The number of the picture of a frame, by (video as the record names it, presentation time).
        durations: Length in seconds of each video that could be read.
        starts: When its first frame is presented by the file's own clock, which is the clock of browsers.
        notes: Why a video has no pictures, or not all.
        left_out: Frames that found no room.
    """

    pictures: tuple[str, ...] = ()
    numbers: Mapping[tuple[str, float], int] = field(default_factory=dict)
    durations: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    left_out: int = 0


def thin(times: Sequence[float], most: int) -> tuple[float, ...]:
    """Return at most ``most`` of ``times``, evenly spread by rank."""
    count = len(times)
    if count <= most:
        return tuple(times)
    return tuple(times[(2 * i + 1) * count // (2 * most)] for i in range(most))


def views_of(trajectory: Trajectory) -> tuple[FrameRef, ...]:
    """Return every view of an episode: those of its prompt, then its crops."""
    return trajectory.skims + trajectory.crops


def box_times(trajectory: Trajectory) -> tuple[float, ...]:
    """Return the times of an episode's boxes, true and named ones, ascending; at most ``_MOST_STILLS``."""
    named = () if trajectory.answer is None else trajectory.answer.boxes
    times = sorted({box.at_seconds for box in (*trajectory.example.boxes, *named)})
    return thin(times, _MOST_STILLS)


def wanted_frames(
    trajectories: Sequence[Trajectory], max_pictures: int = MAX_PICTURES
) -> tuple[dict[str, list[float]], int]:
    """Return the times to picture of each video, ascending, and how many frames found no room.

    A view gets as many pictures as fill its strip; fewer where the whole page would get more than ``max_pictures``;
    and if even that is too much, the first episodes have them.
    """
    chosen: dict[tuple[str, float], None] = {}
    for most in _MOST_PER_VIEW:
        chosen = {}
        for trajectory in trajectories:
            for view in views_of(trajectory):
                aspect = view.size_wh[0] / max(1, view.size_wh[1])
                fitting = max(4, min(most, round(STRIP_ASPECT / aspect)))
                chosen.update(((view.video, time), None) for time in thin(view.at_seconds, fitting))
            chosen.update(((trajectory.example.video, time), None) for time in box_times(trajectory))
        if len(chosen) <= max_pictures:
            break
    wanted: dict[str, list[float]] = {}
    for video, time in list(chosen)[:max_pictures]:
        wanted.setdefault(video, []).append(time)
    return {video: sorted(times) for video, times in wanted.items()}, max(0, len(chosen) - max_pictures)


def make_gallery(
    trajectories: Sequence[Trajectory],
    *,
    locate: Callable[[str], str] = str,
    max_pictures: int = MAX_PICTURES,
    on_video: Callable[[int, int], None] | None = None,
    deadline_seconds: float | None = None,
) -> Gallery:
    """Return pictures of the frames that the episodes showed, and of those that boxes are in.

    Args:
        trajectories: The episodes.
        locate: From a video as a record names it to a path that can be opened; a ``VideoError`` becomes its note.
        max_pictures: Pictures at most.
        on_video: Called with (videos done, videos in all).
        deadline_seconds: As for :class:`~timeloupe.video.reader.VideoReader`.
    """
    wanted, left_out = wanted_frames(trajectories, max_pictures)
    named = dict.fromkeys(trajectory.example.video for trajectory in trajectories)
    videos = list(named | dict.fromkeys(wanted))
    pictures: list[str] = []
    numbers: dict[tuple[str, float], int] = {}
    durations: dict[str, float] = {}
    starts: dict[str, float] = {}
    notes: dict[str, str] = {}
    for done, video in enumerate(videos, 1):
        times = wanted.get(video, [])
        try:
            with VideoReader(locate(video), deadline_seconds=deadline_seconds) as reader:
                durations[video], starts[video] = reader.info.duration_seconds, reader.info.start_seconds
                frames = _pictures(reader, times)
        except (VideoError, OSError) as error:
            notes[video] = error.reason if isinstance(error, VideoError) else str(error)
            frames = {}
        else:
            if len(frames) < len(times):
                notes[video] = f"{len(times) - len(frames)} of {len(times)} pictures could not be read"
        for time, picture in frames.items():
            numbers[video, time] = len(pictures)
            pictures.append(picture)
        if on_video is not None:
            on_video(done, len(videos))
    return Gallery(tuple(pictures), numbers, durations, starts, notes, left_out)


def _pictures(reader: VideoReader, times: Sequence[float]) -> dict[float, str]:
    """Return the pictures of the frames at ``times``, without those that cannot be read."""
    if not times:
        return {}
    wide, high = reader.info.square_wh
    scale = min(1.0, LONGEST_SIDE / max(wide, high))
    size = (max(1, round(wide * scale)), max(1, round(high * scale)))
    try:
        groups = [reader.read(times, size)]
    except VideoError:
        groups = []  # one bad frame spoils the batch: take them one by one
        for time in times:
            try:
                groups.append(reader.read([time], size))
            except VideoError:
                continue
    found: dict[float, str] = {}
    for frames in groups:
        for time, pixels in zip(frames.requested_seconds, frames.pixels, strict=True):
            found[time] = "data:image/jpeg;base64," + base64.b64encode(to_jpeg(pixels, JPEG_QUALITY)).decode()
    return found
