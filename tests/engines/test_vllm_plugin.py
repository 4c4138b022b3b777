"""The clip loader of the vLLM plugin, without vLLM: what it tells the processor, and that it registers once."""

from __future__ import annotations

import importlib
import sys
import tomllib
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.engines.vllm_plugin import LOADER_NAME, read_clip, register
from timeloupe.errors import VideoError
from timeloupe.model.expand import group_seconds
from timeloupe.policy.openai_wire import VIDEO_LOADER
from timeloupe.video.clip_file import encode_clip

ROOT = Path(__file__).resolve().parents[2]
RATES = st.sampled_from([Fraction(25), Fraction(30), Fraction(30000, 1001), Fraction(2), Fraction(1, 3)])


def frames(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)


def times_of_groups(metadata: dict[str, Any], group: int) -> list[float]:
    """Return the times that a Qwen3-VL processor prints: the mean of a group's first and last frame index / fps."""
    seconds = [index / metadata["fps"] for index in metadata["frames_indices"]]
    seconds += seconds[-1:] * (-len(seconds) % group)
    return [(seconds[at] + seconds[at + group - 1]) / 2 for at in range(0, len(seconds), group)]


@settings(max_examples=40)
@given(RATES, st.lists(st.integers(0, 10**6), min_size=1, max_size=9, unique=True))
def test_the_processor_is_told_the_true_times(rate: Fraction, numbers: list[int]) -> None:
    at_seconds = tuple(float(number / rate) for number in sorted(numbers))
    pixels, metadata = read_clip(encode_clip(frames(len(numbers)), at_seconds))
    assert np.array_equal(pixels, frames(len(numbers)))
    for group in (1, 2):
        found = times_of_groups(metadata, group)
        assert found == pytest.approx(group_seconds(at_seconds, group), abs=1e-6)
        if at_seconds[-1] < 3600 and rate.denominator == 1:  # exact on the clip's own clock
            assert found == group_seconds(at_seconds, group)
    assert metadata["do_sample_frames"] is False
    assert metadata["total_num_frames"] > metadata["frames_indices"][-1]
    assert all(isinstance(index, int) for index in metadata["frames_indices"])


@pytest.mark.parametrize("data", [b"", b"not a clip", encode_clip(frames(3), (1.0, 2.0, 3.0))[:200]])
def test_anything_but_a_whole_clip_is_refused(data: bytes) -> None:
    with pytest.raises(VideoError):
        read_clip(data)


def test_vllm_finds_the_plugin_and_the_client_asks_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["entry-points"]["vllm.general_plugins"]["timeloupe"].partition(":")
    assert getattr(importlib.import_module(module), function) is register
    assert LOADER_NAME == VIDEO_LOADER


class Registry:
    """As much of vLLM's registry of video loaders as the plugin touches."""

    def __init__(self) -> None:
        self.name2class: dict[str, type] = {}
        self.calls = 0

    def register(self, name: str) -> Any:
        def wrap(loader: type) -> type:
            self.calls += 1
            self.name2class[name] = loader
            return loader

        return wrap


def test_registering_twice_is_registering_once(monkeypatch: pytest.MonkeyPatch) -> None:
    registry, video = Registry(), ModuleType("vllm.multimodal.video")
    video.__dict__.update(VIDEO_LOADER_REGISTRY=registry, VideoLoader=object)
    for name in ("vllm", "vllm.multimodal"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.multimodal.video", video)
    register()
    register()
    assert registry.calls == 1
    loader: Any = registry.name2class[LOADER_NAME]()
    # vLLM names how many frames it would sample: all of the clip's stay.
    pixels, metadata = loader.load_bytes(encode_clip(frames(3), (60.0, 60.5, 2100.25)), num_frames=2, fps=2)
    assert len(pixels) == 3
    assert [index / metadata["fps"] for index in metadata["frames_indices"]] == [60.0, 60.5, 2100.25]
