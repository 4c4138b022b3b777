"""A vLLM plugin: clips that carry the true time of every frame.

vLLM describes the times of a request's videos by arguments of the request, the same ones for all its videos; a skim
and a crop need different ones. So the times travel inside the clip's own file (``timeloupe.video.clip_file``), and a
video loader named ``timeloupe`` reads them there. vLLM finds ``register`` by the entry point ``vllm.general_plugins``
wherever timeloupe is installed beside it. A request asks for the loader by name, so others are untouched:

    "media_io_kwargs": {"video": {"video_backend": "timeloupe"}}

which a server accepts if it was started with ``--trust-request-mm-kwargs``. A server without the plugin refuses such a
request, instead of guessing times.

Of timeloupe only the light core is needed: no torch of ours, no transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from timeloupe.video.clip_file import clock_of, decode_clip, ticks_of

LOADER_NAME = "timeloupe"


def clip_metadata(at_seconds: Sequence[float]) -> dict[str, Any]:
    """Return what vLLM's processor must know about a clip whose frames are shown at these times.

    The processor prints ``frames_indices / fps`` as the time of a frame: the ticks of the clip's clock give back the
    very times that were encoded. The frames are all shown, none is sampled away.

    Raises:
        ConfigError: The times do not ascend by at least a microsecond.
    """
    clock = clock_of(at_seconds)
    ticks = ticks_of(at_seconds, clock)
    return {
        "fps": float(clock),
        "frames_indices": ticks,
        "total_num_frames": ticks[-1] + 1,
        "duration": at_seconds[-1] - at_seconds[0],
        "video_backend": LOADER_NAME,
        "do_sample_frames": False,
    }


def read_clip(data: bytes) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the frames (N, H, W, 3) uint8 of a clip file, and their ``clip_metadata``.

    Raises:
        VideoError: It is not a file of ``timeloupe.video.clip_file.encode_clip``.
    """
    pixels, at_seconds = decode_clip(data)
    return pixels, clip_metadata(at_seconds)


def register() -> None:
    """Tell vLLM about the loader; every process of a server calls this, and a second call changes nothing."""
    from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

    if LOADER_NAME in VIDEO_LOADER_REGISTRY.name2class:
        return

    @VIDEO_LOADER_REGISTRY.register(LOADER_NAME)
    class ClipLoader(VideoLoader):
        @classmethod
        def load_bytes(cls, data: bytes, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
            # vLLM hands over its sampling defaults (num_frames, fps): a clip's frames were chosen before.
            return read_clip(data)
