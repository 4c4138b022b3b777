"""Pictures of an episode's frames, decoded when somebody opens it, and kept for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from timeloupe.serve.page_data import pictures_data
from timeloupe.serve.thumbnails import MAX_PICTURES, make_gallery
from timeloupe.trajectory import Trajectory

MOST_KEPT_BYTES = 64 * 2**20
DEADLINE_SECONDS = 60.0
"""A video whose decoder shows no sign of life for so long has no pictures."""

_DECODERS = 2


class PictureDesk:
    """Makes pictures, a few episodes at a time however many ask; safe to use from several threads.

    Args:
        max_pictures: Pictures of an episode at most; 0 = none, only what else the video's file can tell.
    """

    def __init__(self, max_pictures: int = MAX_PICTURES) -> None:
        self._max_pictures = max_pictures
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()
        self._decoders = threading.BoundedSemaphore(_DECODERS)

    def pictures(self, run: int, trajectory: Trajectory, locate: Callable[[str], str]) -> dict[str, Any]:
        """Return :func:`pictures_data` of an episode with the pictures themselves.

        Args:
            run: Number of its run.
            trajectory: The episode.
            locate: From a video as the record names it to a path to open; a ``VideoError`` is told as its note.
        """
        key = f"{run} {hash(trajectory.model_dump_json(include={'example', 'prompt', 'turns', 'rollout_index'}))}"
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._decoders:
            gallery = make_gallery(
                [trajectory],
                locate=locate,
                max_pictures=self._max_pictures,
                deadline_seconds=DEADLINE_SECONDS,
            )
        found = pictures_data(trajectory, gallery) | {"pictures": list(gallery.pictures)}
        if found["note"] is None:  # a video that was not there may come
            self._keep(key, found)
        return found

    def _keep(self, key: str, found: dict[str, Any]) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = found
                self._num_bytes += _size(found)
            while self._num_bytes > MOST_KEPT_BYTES and len(self._kept) > 1:
                self._num_bytes -= _size(self._kept.popitem(last=False)[1])


def _size(found: dict[str, Any]) -> int:
    return sum(len(picture) for picture in found["pictures"])
