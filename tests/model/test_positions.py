"""Positions: hand-worked goldens, both faults of the library, and agreement with it where it is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.tiny import tiny_loaded
from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.model.expand import expand
from timeloupe.model.positions import Block, grid_times, positions

GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "golden" / "positions.json").read_text()
)


@pytest.mark.parametrize("name", GOLDEN)
def test_positions_worked_out_by_hand(name: str) -> None:
    case = GOLDEN[name]
    groups, rows, columns = case["grid_thw"][0], case["grid_thw"][1] // 2, case["grid_thw"][2] // 2
    times = grid_times(groups, case["seconds_per_group"], 2.0)
    assert list(times) == case["times"]
    block = Block(case["text_before"], times, rows, columns)
    total = case["text_before"] + block.num_tokens + case["text_after"]
    assert positions(total, [block]).tolist() == case["right"]


@pytest.mark.parametrize("name", GOLDEN)
def test_what_the_library_returns_for_the_same_input(name: str) -> None:
    case = GOLDEN[name]
    recorded = case["library"].get(transformers.__version__)
    if recorded is None:
        pytest.skip(f"no record of transformers {transformers.__version__} for this case")
    model: Any = tiny_loaded(case["family"]).model.model
    kinds = [0] * case["text_before"] + [2] * (len(recorded[0]) - case["text_before"] - case["text_after"])
    kinds += [0] * case["text_after"]
    found, _ = model.get_rope_index(
        torch.zeros((1, len(kinds)), dtype=torch.long), torch.tensor([kinds]),
        video_grid_thw=torch.tensor([case["grid_thw"]]), second_per_grid_ts=[case["seconds_per_group"]],
    )  # fmt: skip
    assert found[:, 0].tolist() == recorded
    faulty = name in ("after_a_video", "above_two_fps", "three_fps")
    assert (recorded != case["right"]) == faulty


def test_frame_times_a_hair_short_do_not_collapse() -> None:
    spacing = (30.3 - 30.1) / 2  # 0.0999999...
    assert grid_times(4, 10 * spacing, 1.0) == (0, 1, 2, 3)


shapes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.booleans())
rows_of_parts = st.lists(st.tuples(st.integers(1, 4), shapes), min_size=1, max_size=3)


@given(st.lists(rows_of_parts, min_size=1, max_size=3), st.sampled_from(["left", "right"]))
@settings(max_examples=25, deadline=None)
def test_qwen3_positions_agree_with_the_library(rows: list[list[Any]], pad_side: str) -> None:
    loaded = tiny_loaded("qwen3_vl")
    layout = loaded.layout
    word = layout.encode("a")[0]
    episodes = []
    for row in rows:
        clips, ids = [], []
        for num_words, (num_frames, height, width, is_image) in row:
            count = 1 if is_image else num_frames
            pixels = np.zeros((count, 32 * height, 32 * width, 3), dtype=np.uint8)
            clips.append(Clip(pixels, tuple(0.5 * index for index in range(count)), is_image))
            ids += [word] * num_words + list(layout.placeholder(is_image=is_image))
        episodes.append(TokenEpisode((TokenSegment((*ids, word)),), tuple(clips)))
    batch = expand(episodes, layout, pad_side=pad_side)
    kinds_BT = torch.zeros_like(batch.input_ids_BT)
    kinds_BT[batch.input_ids_BT == layout.image_token_id] = 1
    kinds_BT[batch.input_ids_BT == layout.video_token_id] = 2
    model: Any = loaded.model.model
    found, _ = model.get_rope_index(
        batch.input_ids_BT,
        kinds_BT,
        image_grid_thw=batch.image_grid_thw,
        video_grid_thw=batch.video_grid_thw,
        attention_mask=batch.attention_mask_BT,
    )
    assert torch.equal(found, batch.position_ids_3BT)
