"""What a server reads beside a checkpoint says the same as what this process does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.model.tiny import tiny_checkpoint
from timeloupe.model.load import load_model
from timeloupe.model.render import render
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.train.from_scratch import SmallModelSize, build_checkpoint
from timeloupe.train.serving_files import chat_template, write_serving_files
from timeloupe.trajectory import FrameRef, Message, Text


def frames(view: Any, *at_seconds: float) -> FrameRef:
    return FrameRef(
        video="v.mp4", view=view, start_seconds=at_seconds[0], end_seconds=at_seconds[-1], at_seconds=at_seconds,
        size_wh=(32, 32),
    )  # fmt: skip


CHAT = (
    Message(role="system", parts=(Text(text="Look closer, then answer."),)),
    Message(
        role="user",
        parts=(Text(text="When?\n"), frames("image", 0), frames("skim", 0, 5, 10), Text(text="\nWhen?")),
    ),
    Message(role="assistant", parts=(Text(text="<think>12</think>"),)),
    Message(role="user", parts=(frames("crop", 4, 4.5),)),
)
CLIPS = tuple(np.zeros((count, 32, 32, 3), np.uint8) for count in (1, 3, 2))


def served_chat() -> list[dict[str, Any]]:
    """Return ``CHAT`` as an OpenAI server hands it to the template."""
    return [
        {
            "role": message.role,
            "content": message.text
            if message.role == "assistant"
            else [
                {"type": "text", "text": part.text}
                if isinstance(part, Text)
                else {"type": "image" if part.view == "image" else "video"}
                for part in message.parts
            ],
        }
        for message in CHAT
    ]


@pytest.mark.parametrize("wrap_frames", [False, True])
def test_the_template_writes_what_render_writes(tmp_path: Path, wrap_frames: bool) -> None:
    if wrap_frames:
        loaded = load_model(tiny_checkpoint(tmp_path / "tiny"), device="cpu")
    else:
        loaded = load_model(SMALL_CHECKPOINT, device="cpu")
    text = loaded.tokenizer.apply_chat_template(
        served_chat(), chat_template=chat_template(wrap_frames=wrap_frames), tokenize=False,
        add_generation_prompt=True,
    )  # fmt: skip
    # Encoded as a server encodes it, special tokens recognised; a video's placeholder is expanded later.
    found = loaded.tokenizer.encode(text, add_special_tokens=False)
    assert tuple(found) == render(CHAT, CLIPS, loaded.chat, loaded.layout).token_ids


def test_a_new_checkpoint_and_the_embedded_one_hold_the_same_files(tmp_path: Path) -> None:
    size = SmallModelSize(hidden=32, layers=1, heads=2, feed_forward=32, vision_hidden=16, max_seconds=60)
    build_checkpoint(tmp_path, size=size)
    for name in ("chat_template.jinja", "preprocessor_config.json", "video_preprocessor_config.json"):
        made, embedded = (
            (folder / name).read_text("utf-8").strip() for folder in (tmp_path, SMALL_CHECKPOINT)
        )
        assert made == embedded, name
    assert load_model(tmp_path, device="cpu").chat.default_system is None


def test_frames_that_fit_are_served_unchanged(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    loaded = load_model(folder, device="cpu")
    write_serving_files(
        folder, loaded.tokenizer, loaded.model.config.vision_config, wrap_frames=True, max_pixels=64 * 96,
        mean_std=((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)),
    )  # fmt: skip
    image, video = (
        json.loads((folder / name).read_text("utf-8"))
        for name in ("preprocessor_config.json", "video_preprocessor_config.json")
    )
    assert image["size"] == {"shortest_edge": 32 * 32, "longest_edge": 64 * 96}
    assert video["size"]["longest_edge"] == 768 * 64 * 96 and video["do_sample_frames"] is False
    layout = load_model(folder, device="cpu").layout
    assert (layout.image_mean, layout.image_std) == ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
