"""Layouts are read from the checkpoint's files, never hard-coded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.model.tiny import build_tokenizer, tiny_checkpoint, tiny_loaded
from timeloupe.errors import ConfigError, MissingError
from timeloupe.model.layout import read_layout
from timeloupe.model.load import load_model


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny")


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def test_values_come_from_the_checkpoint() -> None:
    qwen3, qwen2 = tiny_loaded("qwen3_vl").layout, tiny_loaded("qwen2_5_vl").layout
    tokenizer = tiny_loaded("qwen3_vl").tokenizer
    assert qwen3.video_token_id == tokenizer.convert_tokens_to_ids("<|video_pad|>")
    assert qwen3.eos_token_ids == (tokenizer.convert_tokens_to_ids("<|im_end|>"),)
    assert (qwen3.size_multiple, qwen2.size_multiple) == (32, 28)
    assert (qwen3.image_mean, qwen2.image_mean[0]) == ((0.5, 0.5, 0.5), 0.48145466)
    assert qwen2.tokens_per_second == 2


def test_files_override_in_order(folder: Path) -> None:
    write(folder, "preprocessor_config.json", {"image_mean": [0.1, 0.1, 0.1], "image_std": [0.2, 0.2, 0.2]})
    write(folder, "video_preprocessor_config.json", {"image_mean": [0.3, 0.3, 0.3]})
    write(folder, "generation_config.json", {"eos_token_id": [430, 432]})
    details = {
        "timestamp_format": "{:.0f}",
        "wrap_frames": False,
        "image_std": [0.4, 0.4, 0.4],
        "protocol": "small",
        "episode": {"max_turns": 2},
        "never_sample": ["<think>"],
    }
    write(folder, "timeloupe.json", details)
    tokenizer = build_tokenizer()
    layout = read_layout(folder, tokenizer)
    assert layout.image_mean == (0.3, 0.3, 0.3) and layout.image_std == (0.4, 0.4, 0.4)
    assert layout.timestamp_format == "{:.0f}" and not layout.wrap_frames
    assert layout.eos_token_ids == (tokenizer.eos_token_id, 430)
    assert layout.never_sample == (tokenizer.convert_tokens_to_ids("<think>"),)
    assert layout.details == details


def test_wrong_folders_say_what_is_wrong(folder: Path) -> None:
    with pytest.raises(MissingError, match="no config.json"):
        read_layout(folder / "elsewhere", build_tokenizer())
    write(folder, "timeloupe.json", {"wrap_frame": True})
    with pytest.raises(ConfigError, match="wrap_frame"):
        load_model(folder)
    (folder / "timeloupe.json").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid JSON"):
        load_model(folder)
    (folder / "timeloupe.json").unlink()
    with pytest.raises(ConfigError, match="dtype"):
        load_model(folder, dtype="int8")
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingError, match="safetensors"):
        load_model(folder)
    config = json.loads((folder / "config.json").read_text())
    write(folder, "config.json", config | {"model_type": "llama"})
    with pytest.raises(ConfigError, match="qwen3_vl, qwen2_5_vl"):
        read_layout(folder, build_tokenizer())
    with pytest.raises(MissingError, match="no checkpoint"):
        load_model(folder / "elsewhere")
