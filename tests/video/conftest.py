"""Numbered clips of many kinds, written once per session."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.video.layouts import add_streams
from tests.video.painting import Clip, write_clip

_GOP = {"g": "24", "sc_threshold": "0"}
_OPEN = {"x264-params": "keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0"}
_AV1 = {"g": "24", "preset": "8", "crf": "12", "svtav1-params": "lp=1"}
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
    "ntsc.mp4": {
        "options": _GOP,
        "fps": 30,
        "ticks": [1001 * n for n in range(60)],
        "ticks_per_second": 30000,
    },
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
    "full_range.mp4": {"pixel_format": "yuvj420p", "full_range": True, "options": _GOP, "num_frames": 30},
    "wide_pixels.mp4": {"sample_aspect_ratio": Fraction(4, 3), "options": _GOP, "num_frames": 30},
    "turned_90.mp4": {
        "rotation": (90, False, False),
        "size_wh": (160, 96),
        "options": _GOP,
        "num_frames": 30,
    },
    "turned_180.mov": {"rotation": (180, False, False), "options": _GOP, "num_frames": 30},
    "negative_offsets.mp4": {
        "options": {**_GOP, "bf": "3"},
        "container_options": {"movflags": "negative_cts_offsets"},
    },
    "av1.mp4": {"codec": "libsvtav1", "options": _AV1},
    "av1.mkv": {"codec": "libsvtav1", "options": _AV1, **_UNEVEN},
    "vp9.mp4": {"codec": "libvpx-vp9", "options": {"g": "24", "deadline": "realtime", "cpu-used": "8"}},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "24", "bf": "2"}},
    "hevc_ten_bit.mkv": {"codec": "libx265", "options": _HEVC, "pixel_format": "yuv420p10le", **_UNEVEN},
    "hevc_closed_gop.mp4": {
        "codec": "libx265",
        "options": {
            "x265-params": "keyint=24:bframes=3:open-gop=0:log-level=none",
            "preset": "ultrafast",
        },
    },
    "sound_longer.mp4": {"options": {**_GOP, "bf": "2"}, "streams": {"audio_seconds": 9.0}},
    "sound_longer.mkv": {"options": {**_GOP, "bf": "2"}, "streams": {"audio_seconds": 9.0}},
    "sound_shorter.ts": {"options": {**_GOP, "bf": "2"}, "streams": {"audio_seconds": 4.0}},
    "sound_apart.mp4": {
        "options": {**_GOP, "bf": "2"},
        "streams": {"audio_seconds": 6.0, "audio_apart": True},
    },
    "two_videos.mp4": {
        "options": {**_GOP, "bf": "2"},
        "streams": {"small_first": True, "audio_seconds": 6.0},
    },
    "two_videos.mkv": {"options": _OPEN, "streams": {"small_first": True}},
    "cover_first.mp4": {"options": {**_GOP, "bf": "2"}, "streams": {"cover_first": True}},
}


def write_kind(folder: Path, name: str) -> Clip:
    """Write the clip ``name`` of ``KINDS`` into a folder."""
    kind = dict(KINDS[name])
    streams = kind.pop("streams", None)
    if streams is None:
        return write_clip(folder / name, **kind)
    return add_streams(write_clip(folder / f"plain_{name}.mp4", **kind), folder / name, **streams)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Clip]:
    """Return a function from a name in ``KINDS`` to that clip, written at its first use."""
    folder: Path = tmp_path_factory.mktemp("clips")
    written: dict[str, Clip] = {}

    def get(name: str) -> Clip:
        if name not in written:
            written[name] = write_kind(folder, name)
        return written[name]

    return get
