"""Numbered clips of many kinds, written once per session."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.video.painting import Clip, write_clip

_GOP = {"g": "24", "sc_threshold": "0"}
_OPEN = {"x264-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0"}
_HEVC = {"x265-params": "keyint=16:bframes=4:b-pyramid=1:open-gop=1:log-level=none", "preset": "ultrafast"}


def _uneven(num_frames: int) -> list[int]:
    rng = random.Random(5)
    ticks = [0]
    while len(ticks) < num_frames:
        ticks.append(ticks[-1] + rng.choice([20, 33, 40, 41, 100, 250]))
    return ticks


_UNEVEN = {"ticks": _uneven(80), "ticks_per_second": 1000}

KINDS: dict[str, dict[str, Any]] = {
    "constant.mp4": {"options": {**_GOP, "bf": "0"}},
    "bframes.mp4": {"options": {**_GOP, "bf": "3", "b-pyramid": "normal"}, "fps": 30, "num_frames": 90},
    "ntsc.mp4": {"options": _GOP, "ticks": [1001 * n for n in range(60)], "ticks_per_second": 30000},
    "open_gop.mp4": {"options": _OPEN, "num_frames": 80},
    "open_gop.mkv": {"options": _OPEN, "num_frames": 80},
    "open_gop.ts": {"options": _OPEN, "num_frames": 80},
    "gradual_refresh.mp4": {
        "options": {"x264-params": "keyint=20:intra-refresh=1:bframes=0:scenecut=0"},
        "num_frames": 100,
    },
    "uneven.mp4": {"options": {**_GOP, "bf": "2"}, **_UNEVEN},
    "uneven.mkv": {"options": {**_GOP, "bf": "2"}, **_UNEVEN},
    "late_start.mp4": {
        "options": {**_GOP, "bf": "2"},
        "ticks": [500 + 100 * n for n in range(60)],
        "ticks_per_second": 1000,
    },
    "fragmented.mp4": {
        "options": {**_GOP, "bf": "2"},
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
    "header_first.mp4": {"options": {**_GOP, "bf": "2"}, "container_options": {"movflags": "faststart"}},
    "single_keyframe.mp4": {"options": {"g": "10000", "sc_threshold": "0"}, "num_frames": 100},
    "all_intra.mp4": {"options": {"g": "1"}, "num_frames": 30},
    "one_frame.mp4": {"num_frames": 1},
    "two_frames.mp4": {"num_frames": 2},
    "odd_size.mp4": {"size_wh": (131, 77), "pixel_format": "yuv444p", "options": _GOP},
    "lossless.mkv": {"codec": "ffv1", "size_wh": (131, 77), "pixel_format": "yuv444p"},
    "ten_bit.mp4": {"pixel_format": "yuv420p10le", "options": _GOP, "num_frames": 30},
    "hevc.mp4": {"codec": "libx265", "options": _HEVC, "num_frames": 60},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "24", "deadline": "realtime", "cpu-used": "8"}},
    "vp8_hidden.webm": {
        "codec": "libvpx",
        "options": {
            "g": "24",
            "auto-alt-ref": "1",
            "lag-in-frames": "16",
            "deadline": "good",
            "cpu-used": "5",
        },
    },
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "24", "bf": "2"}},
    "h264.avi": {"options": {**_GOP, "bf": "2"}},
    "raw.h264": {"options": {**_GOP, "bf": "2"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}, "fps": 25},
    "flash.flv": {"options": {**_GOP, "bf": "2"}},
}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Clip]:
    """Return a function from a name in ``KINDS`` to that clip, written at its first use."""
    folder: Path = tmp_path_factory.mktemp("clips")
    written: dict[str, Clip] = {}

    def get(name: str) -> Clip:
        if name not in written:
            written[name] = write_clip(folder / name, **KINDS[name])
        return written[name]

    return get
