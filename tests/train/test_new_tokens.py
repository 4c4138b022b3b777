"""A checkpoint with further tokens: what it knew stays as it was, what it is taught it can say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.model.tiny import tiny_checkpoint
from timeloupe.errors import ConfigError
from timeloupe.model.expand import expand
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.model.render import render
from timeloupe.policy.base import GenerationRequest, Sampling
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.train.new_tokens import EVIDENCE_TOKENS, add_tokens
from timeloupe.trajectory import FrameRef, Message, Text

CLAIM = "<obj>circle</obj><box>[120, 340, 680, 900]</box>at<t>12</t>s"


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, LoadedModel]:
    """The embedded model, and the same with the tokens of evidence."""
    folder = add_tokens(
        SMALL_CHECKPOINT, tmp_path_factory.mktemp("grown") / "model", episode={"max_new_tokens": 64}
    )
    return load_model(SMALL_CHECKPOINT, device="cpu"), load_model(folder, device="cpu")


def asked(loaded: LoadedModel) -> tuple[tuple[Message, ...], tuple[np.ndarray, ...]]:
    """A question over eight frames of noise."""
    ref = FrameRef(
        video="v", view="skim", start_seconds=0, end_seconds=16, at_seconds=tuple(range(0, 16, 2)),
        size_wh=(32, 32),
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    text = Text(text="When is the circle visible in the red scene?\n")
    return (Message(role="user", parts=(text, ref)),), (pixels,)


def test_a_claim_is_thirteen_tokens_and_comes_back_unchanged(grown: Any) -> None:
    old, new = grown
    ids = new.layout.encode(CLAIM)
    assert len(ids) == 13 and len(old.layout.encode(CLAIM)) > 30
    assert new.tokenizer.decode(ids) == CLAIM
    assert len(new.tokenizer) == len(old.tokenizer) + len(EVIDENCE_TOKENS)


@given(
    st.text(max_size=60)
    | st.sampled_from(["When is the <think>circle</think> visible? [12, 40]", "<answer>A</answer>"])
)
def test_text_without_the_new_tokens_encodes_as_before(grown: Any, text: str) -> None:
    old, new = grown
    if not any(token in text for token in EVIDENCE_TOKENS):
        assert list(new.layout.encode(text)) == list(old.layout.encode(text))


def test_what_the_model_says_of_old_tokens_is_unchanged(grown: Any) -> None:
    old, new = grown
    messages, clips = asked(old)
    logits = []
    for loaded in (old, new):
        episode = render(messages, clips, loaded.chat, loaded.layout)
        with torch.inference_mode():
            logits.append(loaded.model(**expand([episode], loaded.layout).model_inputs()).logits[0])
    known = len(old.tokenizer)
    assert torch.equal(logits[0][:, :known], logits[1][:, :known])
    # And a new token is nowhere the likeliest.
    assert (logits[1][:, known:].amax(-1) < logits[1][:, :known].amax(-1)).all()
    greedy = Sampling(temperature=0.0, max_new_tokens=24)
    replies = [
        LocalPolicy(loaded)
        .generate(
            [GenerationRequest(messages=messages, clips=clips, sampling=greedy, seed=0, example_id="e")]
        )[0]
        .token_ids
        for loaded in (old, new)
    ]
    assert replies[0] == replies[1]


def test_the_new_rows_are_the_same_everywhere_and_a_seed_draws_others(grown: Any, tmp_path: Path) -> None:
    _, new = grown
    again, other = (add_tokens(SMALL_CHECKPOINT, tmp_path / str(seed), seed=seed) for seed in (0, 1))
    tables = [load_file(folder / "model.safetensors") for folder in (new.folder, again, other)]
    name = next(key for key in tables[0] if key.endswith("embed_tokens.weight"))
    assert torch.equal(tables[0][name], tables[1][name])
    assert not torch.equal(tables[0][name], tables[2][name])
    known = len(load_model(SMALL_CHECKPOINT).tokenizer)
    assert torch.equal(tables[0][name][:known], tables[2][name][:known])


def test_settings_and_files_go_with_it(grown: Any) -> None:
    old, new = grown
    assert new.layout.details["episode"] == old.layout.details["episode"] | {"max_new_tokens": 64}
    assert new.layout.details["protocol"] == "small"
    files = {path.name for path in SMALL_CHECKPOINT.iterdir()} - {"MODEL_CARD.md"}
    assert files <= {path.name for path in new.folder.iterdir()}


@pytest.mark.parametrize("tokens", [("<think>",), ("<obj>", "<obj>"), (" ",)])
def test_tokens_that_there_are_or_that_are_none_are_refused(tmp_path: Path, tokens: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="a token to be added"):
        add_tokens(SMALL_CHECKPOINT, tmp_path / "model", tokens)
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_is_not_overwritten(grown: Any) -> None:
    with pytest.raises(ConfigError, match="already holds something"):
        add_tokens(SMALL_CHECKPOINT, grown[1].folder)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"])
@pytest.mark.parametrize("count", [2, 5])
def test_other_checkpoints_fill_spare_rows_and_grow_head_and_embeddings(
    tmp_path: Path, family: str, count: int
) -> None:
    # Three rows of the tiny checkpoint are spare, and its head is not tied to the embeddings.
    source = tiny_checkpoint(tmp_path / "tiny", family)
    tokens = ("<obj>", "<box>", "</box>", "<t>", "</t>")[:count]
    old = load_model(source, device="cpu")
    new = load_model(add_tokens(source, tmp_path / "grown", tokens), device="cpu")
    known = len(old.tokenizer)
    rows: Any = new.model.get_output_embeddings()
    assert rows.weight.shape[0] == max(known + 3, known + count) and len(new.tokenizer) == known + count
    assert new.layout.encode("<obj>") == [known]
    ids = torch.tensor([list(old.layout.encode("from 3.2 to 45.6 seconds"))])
    with torch.inference_mode():
        before, after = (loaded.model(input_ids=ids).logits for loaded in (old, new))
    assert torch.equal(before[..., :known], after[..., :known])
    for table in (new.model.get_input_embeddings().weight, rows.weight):
        assert 0 < table[known : known + count].detach().std() < 0.04
