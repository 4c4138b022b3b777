"""Patches equal the library's to the last bit, whatever way they are batched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.tiny import tiny_loaded
from timeloupe.errors import ConfigError
from timeloupe.model.episode import Clip
from timeloupe.model.frames import fitted_size, grid_of, patchify, resize

GOLDEN = np.load(Path(__file__).parent / "golden" / "frames.npz")
CASES = sorted(name.removesuffix(".patches") for name in GOLDEN.files if name.endswith(".patches"))


def clip_of(frames: np.ndarray, *, is_image: bool = False) -> Clip:
    return Clip(frames, tuple(float(index) for index in range(len(frames))), is_image)


@pytest.mark.parametrize("case", CASES)
def test_patches_equal_the_library_bit_for_bit(case: str) -> None:
    name, family = case.split(".")
    layout = tiny_loaded(family).layout
    clip = (
        clip_of(GOLDEN["shrink.frames"][:1], is_image=True)
        if name == "image"
        else clip_of(GOLDEN[f"{name}.frames"])
    )
    patches = patchify([clip], layout)
    assert patches.dtype == torch.float32
    assert np.array_equal(patches.numpy(), GOLDEN[f"{case}.patches"])
    assert [list(grid_of(clip, layout))] == GOLDEN[f"{case}.grid"].tolist()


def test_a_batch_of_clips_gives_each_clips_own_patches() -> None:
    layout = tiny_loaded("qwen3_vl").layout
    random = np.random.default_rng(0)
    shapes = [(3, 32, 64), (2, 32, 64), (4, 64, 32), (1, 32, 64), (5, 40, 50)]
    clips = [clip_of(random.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    together = patchify(clips, layout)
    assert torch.equal(together, torch.cat([patchify([clip], layout) for clip in clips]))
    assert together.shape[0] == sum(int(np.prod(grid_of(clip, layout))) for clip in clips)


def test_single_frame_groups_and_own_statistics() -> None:
    layout = replace(
        tiny_loaded("qwen3_vl").layout, temporal_patch_size=1, patch_size=2, merge_size=1,
        image_mean=(0.25, 0.5, 0.75), image_std=(0.1, 0.2, 0.3),
    )  # fmt: skip
    frames = np.arange(2 * 2 * 4 * 3, dtype=np.uint8).reshape(2, 2, 4, 3)
    patches = patchify([clip_of(frames)], layout)
    second_patch = frames[0, :, 2:].transpose(2, 0, 1).astype(np.float32)  # channel, y, x
    mean = np.array([0.25, 0.5, 0.75], np.float32)[:, None, None] * np.float32(255)
    std = np.array([0.1, 0.2, 0.3], np.float32)[:, None, None] * np.float32(255)
    assert np.array_equal(patches[1].numpy(), ((second_patch - mean) / std).ravel())
    assert patches.shape == (4, 12)


def test_frames_of_the_right_size_are_not_touched() -> None:
    frames = np.zeros((1, 32, 64, 3), dtype=np.uint8)
    assert resize(frames, (64, 32)) is frames
    assert fitted_size((70, 45), 32) == (64, 32)
    assert fitted_size((3, 3), 28) == (28, 28)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((0, 8, 8, 3), np.uint8)],
)
def test_wrong_pixels_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="N, H, W, 3"):
        clip_of(pixels)
