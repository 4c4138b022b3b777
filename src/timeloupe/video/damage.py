"""Looking for damage: a file decoded once from end to end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from timeloupe.errors import VideoError
from timeloupe.video.index import load_index
from timeloupe.video.reader import make_decoder

_CHUNK_FRAMES = 500
_SMALL_WH = (16, 16)


def damaged_ranges(
    path: str | Path,
    *,
    deadline_seconds: float | None = None,
    on_progress: Callable[[float, float], None] | None = None,
) -> list[tuple[float, float]]:
    """Return the spans of seconds that cannot be shown, ascending and apart; empty for a clean file.

    Damage that no decoder notices (:mod:`timeloupe.video.decode`) is not found.

    Args:
        path: The video file.
        deadline_seconds: As for :class:`timeloupe.video.reader.VideoReader`.
        on_progress: Called with the seconds that are through and those there are.

    Raises:
        VideoError: None of it can be read, or the deadline passed.
    """
    index = load_index(path, deadline_seconds=deadline_seconds)
    decoder = make_decoder(index, str(path), deadline_seconds)
    spans = list(index.gaps)
    frames = range(len(index.times_N))
    # Chunks end where a group of pictures does: decoding starts at one, so none is decoded twice.
    groups = np.flatnonzero(np.diff(index.start_keys_N)) + 1
    far = np.searchsorted(groups, np.arange(_CHUNK_FRAMES, len(frames), _CHUNK_FRAMES))
    ends = groups[np.unique(far[far < len(groups)])]
    if index.sequential:
        ends = ends[:0]  # without presentation times every call decodes from the beginning
    try:
        for first, end in pairwise([0, *ends.tolist(), len(frames)]):
            chunk = frames[first:end]
            lost = set(chunk)
            try:
                for frame, _ in decoder.decode(chunk, _SMALL_WH):
                    lost.discard(frame)
            except VideoError as error:
                if error.until_seconds is None:
                    raise
            for frame in sorted(lost):
                start, stays = index.frame_seconds(frame)
                spans.append((start, start + stays))
            if on_progress is not None:
                on_progress(sum(index.frame_seconds(chunk[-1])), index.duration_seconds)
    finally:
        decoder.close()
    return _joined(spans)


def _joined(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1] + 1e-6:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
