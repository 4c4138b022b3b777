"""The expander: ids, masks, spans, pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from tests.model.tiny import tiny_loaded
from timeloupe.errors import ConfigError
from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.model.expand import expand, expanded_length, group_seconds, merge_grids
from timeloupe.model.layout import Layout


def frames(num_frames: int, width: int, height: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)


def special(layout: Layout, text: str) -> list[int]:
    return tiny_loaded(layout.family).tokenizer.encode(text, add_special_tokens=False)


def test_qwen3_prints_a_time_before_each_pair_of_frames() -> None:
    layout = tiny_loaded("qwen3_vl").layout
    clip = Clip(frames(5, 64, 32), (12.0, 12.25, 12.5, 12.75, 13.0))
    episode = TokenEpisode((TokenSegment((5, *layout.placeholder(), 6)),), (clip,))
    batch = expand([episode], layout)
    block = "<|vision_start|><|video_pad|><|video_pad|><|vision_end|>"
    text = f"<12.1 seconds>{block}<12.6 seconds>{block}<13.0 seconds>{block}"
    assert layout.placeholder() == (layout.video_token_id,)
    assert batch.input_ids_BT[0].tolist() == [5, *special(layout, text), 6]
    (span,) = batch.spans
    pads = (batch.input_ids_BT[0] == layout.video_token_id).nonzero()[:, 0].tolist()
    assert [start + offset for start in span.group_starts for offset in range(span.tokens_per_group)] == pads
    assert batch.video_grid_thw is not None and batch.video_grid_thw.tolist() == [[3, 2, 4]]


def test_group_times_are_the_librarys() -> None:
    indices = [300, 307, 315, 322, 330]
    expected = Qwen3VLProcessor._calculate_timestamps(None, list(indices), 24.0, 2)  # type: ignore[arg-type]
    assert group_seconds([index / 24.0 for index in indices], 2) == expected


def test_qwen2_5_keeps_one_block() -> None:
    layout = tiny_loaded("qwen2_5_vl").layout
    clip = Clip(frames(4, 56, 28), (0.0, 1.0, 2.0, 3.0))
    batch = expand([TokenEpisode((TokenSegment((5, *layout.placeholder(), 6)),), (clip,))], layout)
    expected = "<|vision_start|>" + "<|video_pad|>" * 4 + "<|vision_end|>"
    assert batch.input_ids_BT[0].tolist() == [5, *special(layout, expected), 6]
    assert batch.spans[0].group_starts == (2, 4)


def test_small_layout_has_one_time_and_one_token_per_frame() -> None:
    layout = replace(
        tiny_loaded("qwen3_vl").layout, temporal_patch_size=1, timestamp_format="{:.0f}", wrap_frames=False
    )
    clip = Clip(frames(3, 32, 32), (0.0, 7.4, 14.6))
    batch = expand([TokenEpisode((TokenSegment((5, *layout.placeholder(), 6)),), (clip,))], layout)
    pad = layout.video_token_id
    times = [layout.encode(text) for text in ("0", "7", "15")]
    assert batch.input_ids_BT[0].tolist() == [5, *times[0], pad, *times[1], pad, *times[2], pad, 6]
    # One visual token per frame counts like a text token: positions are plain.
    assert batch.position_ids_3BT[:, 0].tolist() == [list(range(len(batch.input_ids_BT[0])))] * 3


@pytest.mark.parametrize("pad_side", ["right", "left"])
def test_masks_and_logprobs_follow_their_tokens(pad_side: str) -> None:
    layout = tiny_loaded("qwen3_vl").layout
    clip = Clip(frames(2, 32, 32), (0.0, 1.0))
    long = TokenEpisode(
        (
            TokenSegment((1, *layout.placeholder(), 2)),
            TokenSegment((3, 4), True, (-0.5, -0.25)),
            TokenSegment((7,)),
            TokenSegment((8, 9), True, (-1.0, -2.0)),
        ),
        (clip,),
    )
    short = TokenEpisode((TokenSegment((1, 2)), TokenSegment((3,), True, (-4.0,))))
    batch = expand([long, short], layout, pad_side=pad_side)
    assert batch.input_ids_BT[batch.loss_mask_BT].tolist() == [3, 4, 8, 9, 3]
    assert batch.logprobs_BT is not None
    assert batch.logprobs_BT[batch.loss_mask_BT].tolist() == [-0.5, -0.25, -1.0, -2.0, -4.0]
    assert not batch.logprobs_BT[~batch.loss_mask_BT].any()
    assert batch.attention_mask_BT.sum(1).tolist() == [batch.input_ids_BT.shape[1], 3]
    assert (batch.input_ids_BT[batch.attention_mask_BT == 0] == layout.pad_token_id).all()
    assert batch.position_ids_3BT[:, 1][:, batch.attention_mask_BT[1] == 1].tolist() == [[0, 1, 2]] * 3
    start = batch.spans[0].group_starts[0]
    assert batch.input_ids_BT[0, start] == layout.video_token_id


def test_logprobs_are_absent_unless_all_trained_segments_have_them() -> None:
    layout = tiny_loaded("qwen3_vl").layout
    mixed = TokenEpisode((TokenSegment((1,), True, (-1.0,)), TokenSegment((2,), True)))
    assert expand([mixed], layout).logprobs_BT is None
    assert expand([TokenEpisode((TokenSegment((1,)),))], layout).logprobs_BT is None


def test_a_placeholder_inside_a_trained_segment_is_no_target() -> None:
    layout = tiny_loaded("qwen3_vl").layout
    clip = Clip(frames(2, 32, 32), (0.0, 1.0))
    batch = expand([TokenEpisode((TokenSegment((1, *layout.placeholder(), 2), True),), (clip,))], layout)
    assert batch.input_ids_BT[batch.loss_mask_BT].tolist() == [1, 2]


def test_images_and_videos_share_a_chat() -> None:
    for family, size in (("qwen3_vl", 32), ("qwen2_5_vl", 28)):
        loaded = tiny_loaded(family)
        layout = loaded.layout
        clips = (
            Clip(frames(2, size, size, 1), (0.0, 1.0)),
            Clip(frames(1, 2 * size, size, 2), is_image=True),
            Clip(frames(2, size, 3 * size, 3), (4.0, 5.0)),
        )
        ids = (1, *layout.placeholder(), 2, *layout.placeholder(is_image=True), 3, *layout.placeholder(), 4)
        batch = expand([TokenEpisode((TokenSegment(ids),), clips)], layout)
        assert [len(span.group_starts) for span in batch.spans] == [1, 1, 1]
        assert [span.tokens_per_group for span in batch.spans] == [1, 2, 3]
        with torch.no_grad():
            logits = loaded.model(**batch.model_inputs()).logits
        assert torch.isfinite(logits).all()


def test_mismatches_are_refused() -> None:
    layout = tiny_loaded("qwen3_vl").layout
    clip = Clip(frames(1, 32, 32), (0.0,))
    pad = layout.video_token_id
    cases: list[tuple[Any, str]] = [
        (TokenEpisode((TokenSegment((1, 2)),), (clip,)), "one per clip"),
        (TokenEpisode((TokenSegment((pad, pad)),), (clip,)), "one per clip"),
        (TokenEpisode((TokenSegment((layout.image_token_id,)),), (clip,)), "placeholder kind"),
    ]
    for episode, reason in cases:
        with pytest.raises(ConfigError, match=reason):
            expand([episode], layout)
    with pytest.raises(ConfigError, match="log-prob"):
        TokenSegment((1, 2), True, (0.0,))
    with pytest.raises(ConfigError, match="frame times"):
        Clip(frames(2, 32, 32), (0.0,))
    with pytest.raises(ConfigError, match="pad_side"):
        expand([TokenEpisode((TokenSegment((1,)),))], layout, pad_side="middle")


def test_without_pixels_the_tokens_stay() -> None:
    layout = tiny_loaded("qwen3_vl").layout
    episode = TokenEpisode(
        (TokenSegment((1, *layout.placeholder())),), (Clip(frames(3, 32, 32), (0.0, 1.0, 2.0)),)
    )
    counted = expand([episode], layout, pixels=False)
    assert torch.equal(counted.input_ids_BT, expand([episode], layout).input_ids_BT)
    assert counted.pixel_values_videos is None and "pixel_values_videos" not in counted.model_inputs()


def test_neighbouring_equal_grids_merge() -> None:
    grids = torch.tensor([[2, 2, 2], [3, 2, 2], [1, 2, 4], [1, 2, 2]])
    assert merge_grids(grids).tolist() == [[5, 2, 2], [1, 2, 4], [1, 2, 2]]


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("image", [False, True])
def test_the_expanded_length_is_known_without_expanding(family: str, number: int, image: bool) -> None:
    loaded = tiny_loaded(family)
    size = loaded.layout.size_multiple
    number = 1 if image else number
    shown = Clip(
        np.zeros((number, size, 2 * size, 3), np.uint8),
        () if image else tuple(map(float, range(number))),
        image,
    )
    ids = (1, *loaded.layout.placeholder(is_image=image), 2)
    episode = TokenEpisode((TokenSegment(ids * 2),), (shown, shown))
    assert expanded_length(episode, loaded.layout) == expand([episode], loaded.layout).input_ids_BT.shape[1]
