"""Pixels to patches with torch alone, equal to the library's video processor to the last bit.

Source of the arithmetic: transformers 5.17, ``Qwen3VLVideoProcessor`` and ``Qwen2VLVideoProcessor``: resize
on uint8 (bicubic, antialiased), rescale and normalise fused as ``(x - 255 mean) / (255 std)`` in float32,
then patches in spatial-merge order. The order of work differs (patches are cut while the data is still
uint8), the numbers do not.

Shapes: N frames, G frame groups, P patches, C = 3 channels, D = C * temporal_patch_size * patch_size ** 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from timeloupe.model.episode import Clip
from timeloupe.model.layout import Layout

Grid = tuple[int, int, int]
"""Frame groups, patch rows, patch columns of a clip."""


def fitted_size(size_wh: tuple[int, int], multiple: int) -> tuple[int, int]:
    """Return the nearest (width, height) in positive multiples of ``multiple``, rounding as the library."""
    width, height = size_wh
    return max(round(width / multiple), 1) * multiple, max(round(height / multiple), 1) * multiple


def resize(pixels_NHWC: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Return uint8 frames of ``size_wh``, bicubic with antialiasing; the same array if nothing changes."""
    if pixels_NHWC.shape[2] == size_wh[0] and pixels_NHWC.shape[1] == size_wh[1]:
        return pixels_NHWC
    frames = _tensor(pixels_NHWC).permute(0, 3, 1, 2).contiguous()
    frames = F.interpolate(
        frames, size=(size_wh[1], size_wh[0]), mode="bicubic", align_corners=False, antialias=True
    )
    return frames.permute(0, 2, 3, 1).contiguous().numpy()


def grid_of(clip: Clip, layout: Layout) -> Grid:
    """Return the grid of a clip, its frames fitted to the size multiple and filled to whole groups."""
    num_frames, height, width = clip.pixels.shape[:3]
    width, height = fitted_size((width, height), layout.size_multiple)
    groups = -(-num_frames // layout.temporal_patch_size)
    return groups, height // layout.patch_size, width // layout.patch_size


def patchify(clips: Sequence[Clip], layout: Layout) -> torch.Tensor:
    """Return the patches of all clips, in order, as float32 of shape (P, D).

    Neighbouring clips of one frame size are cut together: many small clips cost as much as one long one.
    """
    runs: list[list[np.ndarray]] = []
    for clip in clips:
        pixels = _whole_groups(clip, layout)
        if runs and runs[-1][0].shape[1:] == pixels.shape[1:]:
            runs[-1].append(pixels)
        else:
            runs.append([pixels])
    patches = [_cut(np.concatenate(run) if len(run) > 1 else run[0], layout) for run in runs]
    return patches[0] if len(patches) == 1 else torch.cat(patches)


def _whole_groups(clip: Clip, layout: Layout) -> np.ndarray:
    height, width = clip.pixels.shape[1:3]
    pixels = resize(clip.pixels, fitted_size((width, height), layout.size_multiple))
    missing = -len(pixels) % layout.temporal_patch_size
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)]) if missing else pixels


def _cut(pixels_NHWC: np.ndarray, layout: Layout) -> torch.Tensor:
    patch, merge, depth = layout.patch_size, layout.merge_size, layout.temporal_patch_size
    num_frames, height, width, channels = pixels_NHWC.shape
    rows, columns = height // layout.size_multiple, width // layout.size_multiple
    blocks = _tensor(pixels_NHWC).reshape(
        num_frames // depth, depth, rows, merge, patch, columns, merge, patch, channels
    )
    # To: group, block row, block column, row and column in it, channel, frame, pixel row, pixel column.
    blocks = blocks.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    flat = blocks.reshape(-1, channels, depth * patch * patch).to(torch.float32)
    mean = torch.tensor(layout.image_mean) * 255.0
    std = torch.tensor(layout.image_std) * 255.0
    return flat.sub_(mean[:, None]).div_(std[:, None]).flatten(1)


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    pixels = np.ascontiguousarray(pixels)
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
