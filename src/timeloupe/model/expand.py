"""Token episodes to the tensors of a forward pass: the only way into the model, in training and sampling.

Shapes: B rows, T tokens, P patches, D values per patch, V clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from timeloupe.errors import boundary
from timeloupe.model.episode import Clip, TokenEpisode
from timeloupe.model.frames import grid_of, patchify
from timeloupe.model.layout import Layout
from timeloupe.model.positions import Block, grid_times, positions


@dataclass(frozen=True)
class ClipSpan:
    """Where one clip lies in a batch.

    Attributes:
        row: Row of the batch.
        clip_index: Index of the clip in its episode.
        group_starts: Token index (column of the batch) of the first visual token of each frame group.
        tokens_per_group: Visual tokens of one frame group, contiguous from its start.
    """

    row: int
    clip_index: int
    group_starts: tuple[int, ...]
    tokens_per_group: int


@dataclass(frozen=True, eq=False)
class ModelBatch:
    """One forward pass.

    Attributes:
        input_ids_BT: int64.
        attention_mask_BT: int64, 0 at padding.
        loss_mask_BT: bool, True at tokens that are targets: sampled tokens of trained segments, no
            placeholder. The logits that predict the token at column ``t`` are those of column ``t - 1``.
        position_ids_3BT: int64 positions (time, height, width); 0 at padding.
        logprobs_BT: float32 log-probabilities recorded at sampling time, 0 outside trained segments; ``None``
            unless every trained segment has them.
        spans: Where each clip lies, row by row.
        pixel_values_videos: (P, D) float32 patches of the videos, or ``None``.
        video_grid_thw: (V, 3) int64 groups, patch rows and patch columns of each video, or ``None``.
        pixel_values: The same for images.
        image_grid_thw: The same for images.
    """

    input_ids_BT: torch.Tensor
    attention_mask_BT: torch.Tensor
    loss_mask_BT: torch.Tensor
    position_ids_3BT: torch.Tensor
    logprobs_BT: torch.Tensor | None = None
    spans: tuple[ClipSpan, ...] = ()
    pixel_values_videos: torch.Tensor | None = None
    video_grid_thw: torch.Tensor | None = None
    pixel_values: torch.Tensor | None = None
    image_grid_thw: torch.Tensor | None = None

    def model_inputs(self) -> dict[str, Any]:
        """Return the keyword arguments of ``model(...)``.

        Neighbouring clips of one frame size are announced as one clip with more frame groups: the vision
        tower treats every group alone, so the numbers stay, and its loop over clips gets short. Positions are
        ours anyway.
        """
        inputs: dict[str, Any] = {
            "input_ids": self.input_ids_BT,
            "attention_mask": self.attention_mask_BT,
            "position_ids": self.position_ids_3BT,
        }
        if self.pixel_values_videos is not None and self.video_grid_thw is not None:
            inputs["pixel_values_videos"] = self.pixel_values_videos
            inputs["video_grid_thw"] = merge_grids(self.video_grid_thw)
        if self.pixel_values is not None and self.image_grid_thw is not None:
            inputs["pixel_values"] = self.pixel_values
            inputs["image_grid_thw"] = merge_grids(self.image_grid_thw)
        return inputs

    def to(self, device: torch.device | str) -> ModelBatch:
        """Return the batch with all tensors on ``device``."""
        moved = {item.name: getattr(self, item.name) for item in fields(self)}
        moved = {name: value.to(device) for name, value in moved.items() if isinstance(value, torch.Tensor)}
        return replace(self, **moved)


def merge_grids(grid_V3: torch.Tensor) -> torch.Tensor:
    """Return the grids with neighbours of equal height and width joined along time."""
    merged: list[list[int]] = []
    for groups, rows, columns in grid_V3.tolist():
        if merged and merged[-1][1:] == [rows, columns]:
            merged[-1][0] += groups
        else:
            merged.append([groups, rows, columns])
    return torch.tensor(merged, dtype=grid_V3.dtype, device=grid_V3.device)


class _Row:
    """One episode being expanded."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.ids: list[int] = []
        self.trained: list[bool] = []
        self.logprobs: list[float] = []
        self.blocks: list[Block] = []
        self.spans: list[tuple[tuple[int, ...], int]] = []

    def add(self, ids: Sequence[int], trained: bool = False, logprobs: Sequence[float] | None = None) -> None:
        self.ids.extend(ids)
        self.trained.extend([trained] * len(ids))
        self.logprobs.extend([0.0] * len(ids) if logprobs is None else logprobs)

    def add_clip(self, clip: Clip) -> None:
        """Append the tokens that stand for one placeholder."""
        layout = self.layout
        groups, rows, columns = grid_of(clip, layout)
        rows, columns = rows // layout.merge_size, columns // layout.merge_size
        pad = layout.image_token_id if clip.is_image else layout.video_token_id
        pads = [pad] * (rows * columns)
        starts: list[int] = []
        if clip.is_image or layout.family == "qwen2_5_vl":
            seconds = 0.0 if clip.is_image else clip.spacing_seconds * layout.temporal_patch_size
            times = grid_times(groups, seconds, layout.tokens_per_second)
            self.blocks.append(Block(len(self.ids), times, rows, columns))
            starts = [len(self.ids) + index * len(pads) for index in range(groups)]
            self.add(pads * groups)
        else:
            before = [layout.vision_start_token_id] if layout.wrap_frames else []
            after = [layout.vision_end_token_id] if layout.wrap_frames else []
            for seconds in group_seconds(clip.at_seconds, layout.temporal_patch_size):
                self.add([*layout.timestamp_ids(seconds), *before])
                self.blocks.append(Block(len(self.ids), (0,), rows, columns))
                starts.append(len(self.ids))
                self.add(pads + after)
        self.spans.append((tuple(starts), len(pads)))


def group_seconds(at_seconds: Sequence[float], temporal_patch_size: int) -> list[float]:
    """Return the printed time of each frame group: the mean of its first and last frame (as the library)."""
    last = len(at_seconds) - 1
    return [
        (at_seconds[start] + at_seconds[min(start + temporal_patch_size - 1, last)]) / 2
        for start in range(0, len(at_seconds), temporal_patch_size)
    ]


def _expand_row(episode: TokenEpisode, layout: Layout) -> _Row:
    row = _Row(layout)
    placeholders = (layout.video_token_id, layout.image_token_id)
    clips = iter(episode.clips)
    found = sum(token in placeholders for token in episode.token_ids)
    if found != len(episode.clips):
        raise boundary("placeholders in an episode", found, f"one per clip ({len(episode.clips)})")
    for segment in episode.segments:
        start = 0
        marks = [index for index, token in enumerate(segment.token_ids) if token in placeholders]
        for mark in (*marks, len(segment.token_ids)):
            text = slice(start, mark)
            row.add(
                segment.token_ids[text],
                segment.trained,
                None if segment.logprobs is None else segment.logprobs[text],
            )
            if mark < len(segment.token_ids):
                clip = next(clips)
                if clip.is_image != (segment.token_ids[mark] == layout.image_token_id):
                    raise boundary(
                        "placeholder kind", segment.token_ids[mark], "the clip's kind (image or video)"
                    )
                row.add_clip(clip)
            start = mark + 1
    return row


def expanded_length(episode: TokenEpisode, layout: Layout) -> int:
    """Return the number of tokens that an episode expands to."""
    count = len(episode.token_ids) - len(episode.clips)
    for clip in episode.clips:
        groups, rows, columns = grid_of(clip, layout)
        count += groups * rows * columns // layout.merge_size**2
        if not clip.is_image and layout.family == "qwen3_vl":
            times = group_seconds(clip.at_seconds, layout.temporal_patch_size)
            count += sum(len(layout.timestamp_ids(seconds)) for seconds in times)
            count += 2 * groups if layout.wrap_frames else 0
    return count


def expand(
    episodes: Sequence[TokenEpisode], layout: Layout, *, pad_side: str = "right", pixels: bool = True
) -> ModelBatch:
    """Return one batch with ids, masks, positions and pixels of ``episodes``, one row each.

    Args:
        episodes: Segments with one placeholder per clip.
        layout: The checkpoint's layout.
        pad_side: ``right`` (training) or ``left`` (sampling).
        pixels: Whether patches are wanted; without them the batch serves for counting and masks only.

    Raises:
        ConfigError: Placeholders and clips do not match, or ``pad_side`` is neither.
    """
    if pad_side not in ("right", "left"):
        raise boundary("pad_side", pad_side, ("right", "left"))
    rows = [_expand_row(episode, layout) for episode in episodes]
    width = max(len(row.ids) for row in rows)
    shape = (len(rows), width)
    ids_BT = np.full(shape, layout.pad_token_id, dtype=np.int64)
    attention_BT = np.zeros(shape, dtype=np.int64)
    loss_BT = np.zeros(shape, dtype=bool)
    logprobs_BT = np.zeros(shape, dtype=np.float32)
    positions_3BT = np.zeros((3, *shape), dtype=np.int64)
    spans: list[ClipSpan] = []
    for index, row in enumerate(rows):
        length = len(row.ids)
        shift = width - length if pad_side == "left" else 0
        span = slice(shift, shift + length)
        ids_BT[index, span] = row.ids
        attention_BT[index, span] = 1
        loss_BT[index, span] = row.trained
        logprobs_BT[index, span] = np.where(row.trained, row.logprobs, 0.0)
        positions_3BT[:, index, span] = positions(length, row.blocks)
        for clip_index, (starts, tokens) in enumerate(row.spans):
            spans.append(ClipSpan(index, clip_index, tuple(start + shift for start in starts), tokens))
    trained = [segment for episode in episodes for segment in episode.segments if segment.trained]
    recorded = bool(trained) and all(segment.logprobs is not None for segment in trained)
    clips = [clip for episode in episodes for clip in episode.clips] if pixels else []
    return ModelBatch(
        torch.from_numpy(ids_BT), torch.from_numpy(attention_BT), torch.from_numpy(loss_BT),
        torch.from_numpy(positions_3BT), torch.from_numpy(logprobs_BT) if recorded else None, tuple(spans),
        *clip_pixels(clips, layout),
    )  # fmt: skip


Pixels = torch.Tensor | None


def clip_pixels(clips: Sequence[Clip], layout: Layout) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return patches and grids of the videos, and patches and grids of the images, each in order."""
    videos = _pixels([clip for clip in clips if not clip.is_image], layout)
    return *videos, *_pixels([clip for clip in clips if clip.is_image], layout)


def _pixels(clips: Sequence[Clip], layout: Layout) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    if not clips:
        return None, None
    return patchify(clips, layout), torch.tensor([grid_of(clip, layout) for clip in clips], dtype=torch.int64)
