"""What must not be sampled, read from a checkpoint's files alone, against what a loaded model bans."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.tiny import tiny_checkpoint
from timeloupe.errors import ConfigError, MissingError
from timeloupe.model.load import load_model
from timeloupe.model.never_sampled import in_ranges, read_never_sampled
from timeloupe.policy.local import banned_tokens
from timeloupe.policy.small import SMALL_CHECKPOINT


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "small"])
def test_the_files_say_what_a_loaded_model_bans(family: str, tmp_path: Path) -> None:
    folder = SMALL_CHECKPOINT if family == "small" else tiny_checkpoint(tmp_path, family)
    banned = banned_tokens(load_model(str(folder))).nonzero()[:, 0].tolist()
    assert banned and read_never_sampled(folder) == tuple(banned)


def test_files_that_do_not_say_it(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(SMALL_CHECKPOINT / name, tmp_path / name)
    assert read_never_sampled(tmp_path) == read_never_sampled(SMALL_CHECKPOINT)
    (tmp_path / "timeloupe.json").write_text(json.dumps({"never_sample": ["<think>"]}))
    more = set(read_never_sampled(tmp_path) or ()) - set(read_never_sampled(SMALL_CHECKPOINT) or ())
    assert more == {2826}
    (tmp_path / "timeloupe.json").write_text(json.dumps({"never_sample": ["<no such token>"]}))
    with pytest.raises(ConfigError, match="no such token"):
        read_never_sampled(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert read_never_sampled(tmp_path) is None
    with pytest.raises(MissingError, match=r"config\.json"):
        read_never_sampled(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("tokenizer_config.json", "added_tokens_decoder", [{"content": "<a>"}]),
        ("tokenizer_config.json", "added_tokens_decoder", {"one": {"content": "<a>", "special": True}}),
        ("tokenizer.json", "added_tokens", None),
        ("config.json", "text_config", None),
        ("config.json", "text_config", {"vocab_size": "many"}),
    ],
)
def test_files_of_another_form_are_named(tmp_path: Path, name: str, key: str, value: object) -> None:
    for each in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(SMALL_CHECKPOINT / each, tmp_path / each)
    told = json.loads((tmp_path / name).read_text()) | {key: value}
    (tmp_path / name).write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="does not say its tokens as checkpoints do"):
        read_never_sampled(tmp_path)


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_what_they_were_made_of(ids: set[int]) -> None:
    found: set[int] = set()
    for span in filter(None, in_ranges(ids).split(",")):
        first, _, last = span.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    assert found == ids
