"""A tree of episodes gives the numbers of the episodes one by one, in values and in gradients."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from tests.model.tiny import tiny_checkpoint, tiny_loaded
from timeloupe.errors import ConfigError
from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.model.expand import expand
from timeloupe.model.forward import target_logprobs_and_entropy
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.model.packing import Pack, pack, packed_logprobs_and_entropy, use_packed_attention

FAMILIES = ("qwen3_vl", "qwen2_5_vl")


def clip_of(loaded: LoadedModel, seed: int, *, image: bool = False, frames: int = 3) -> Clip:
    """Random frames; the seed also decides on the width."""
    size = loaded.layout.size_multiple
    shape = (1 if image else frames, size, size * (1 + seed % 2), 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Clip(pixels, () if image else tuple(0.5 * index for index in range(frames)), image)


def episode(loaded: LoadedModel, seed: int, *, plain: bool = False) -> TokenEpisode:
    """A prompt with a clip, then turns from so few choices that episodes of other seeds begin alike."""
    draw = random.Random(seed)
    layout = loaded.layout
    clips: list[Clip] = []
    segments = [TokenSegment((1, 2, 3))]

    def show(number: int, *, image: bool = False) -> None:
        clips.append(clip_of(loaded, number, image=image))
        segments.append(TokenSegment((7, *layout.placeholder(is_image=image), 8)))

    if not plain:
        show(draw.choice([0, 0, 0, 2]))
    for _ in range(draw.randint(1, 3)):
        reply = tuple(draw.choice([4, 4, 4, 5]) for _ in range(draw.randint(1, 4)))
        segments.append(TokenSegment(reply, draw.random() < 0.8, tuple(-0.1 for _ in reply)))
        if not plain and draw.random() < 0.6:
            show(draw.choice([3, 3, 5]), image=draw.random() < 0.4)
    segments.append(TokenSegment((6, 9), True, (-0.5, -0.25)))
    return TokenEpisode(tuple(segments), tuple(clips))


def both(
    loaded: LoadedModel, episodes: list[TokenEpisode]
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Log-probabilities and entropies, side by side and as a tree."""
    use_packed_attention(loaded.model)
    packed = pack(episodes, loaded.layout)
    plain = target_logprobs_and_entropy(loaded.model, expand(episodes, loaded.layout))
    return plain, packed_logprobs_and_entropy(loaded.model, packed)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(seeds=st.lists(st.integers(0, 40), min_size=1, max_size=6), plain=st.booleans())
def test_the_tree_gives_the_numbers_of_the_episodes(family: str, seeds: list[int], plain: bool) -> None:
    loaded = tiny_loaded(family)
    episodes = [episode(loaded, seed, plain=plain) for seed in seeds]
    with torch.no_grad():
        (logprobs, entropy), (found, found_entropy) = both(loaded, episodes)
    torch.testing.assert_close(found, logprobs, rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(found_entropy, entropy, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradient_is_that_of_the_episodes(family: str, checkpointing: bool) -> None:
    loaded = tiny_loaded(family)
    model = copy.deepcopy(loaded.model).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    episodes = [episode(loaded, seed) for seed in (0, 0, 1, 2, 3, 4, 5, 6)]
    weights = torch.linspace(-1, 1, len(episodes))[:, None]
    use_packed_attention(model)
    packed = pack(episodes, loaded.layout)
    assert packed.num_tokens < 0.8 * int(packed.episodes.attention_mask_BT.sum())
    gradients = []
    for logprobs in (
        target_logprobs_and_entropy(model, expand(episodes, loaded.layout))[0],
        packed_logprobs_and_entropy(model, packed)[0],
    ):
        model.zero_grad()
        (logprobs.exp() * weights).sum().backward()
        found = {
            name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
        }
        gradients.append(found)
    one, two = gradients
    assert one.keys() == two.keys() and any("visual" in name for name in one)
    for name, gradient in one.items():
        assert (gradient - two[name]).norm() <= 2e-4 * gradient.norm() + 1e-7, name


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("elements", [700, 5000])
def test_masks_too_large_to_keep_are_made_block_by_block(
    monkeypatch: pytest.MonkeyPatch, elements: int, checkpointing: bool
) -> None:
    loaded = tiny_loaded()
    model = copy.deepcopy(loaded.model)
    use_packed_attention(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    episodes = [episode(loaded, seed) for seed in range(5)]

    def run() -> tuple[torch.Tensor, list[torch.Tensor], Pack]:
        packed = pack(episodes, loaded.layout)
        model.zero_grad()
        found_BT, entropy_BT = packed_logprobs_and_entropy(model, packed)
        (found_BT.sum() + 0.1 * entropy_BT.sum()).backward()
        return found_BT.detach(), [one.grad for one in model.parameters() if one.grad is not None], packed

    kept, kept_gradients, whole = run()
    assert [one.last_RQ is None for one in whole.rows] == [True, True]
    monkeypatch.setattr("timeloupe.model.packing.MASK_ELEMENTS", elements)
    made, made_gradients, blocks = run()
    assert len(blocks.rows) > 3 and all(one.mask_R1QK is None for one in blocks.rows)
    sizes = [one.queries_RQ.numel() * one.keys_RK.shape[1] for one in blocks.rows if one.last_RQ is not None]
    assert max(sizes) <= max(elements, max(map(len, blocks.path_BT)))
    torch.testing.assert_close(made, kept, rtol=1e-5, atol=1e-5)
    for one, other in zip(made_gradients, kept_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@given(seeds=st.lists(st.integers(0, 40), min_size=1, max_size=8))
@settings(max_examples=30, deadline=None)
def test_every_common_start_is_in_the_tree_once(seeds: list[int]) -> None:
    loaded = tiny_loaded("qwen3_vl")
    episodes = [episode(loaded, seed) for seed in seeds]
    packed = pack(episodes, loaded.layout)
    starts: set[tuple[object, ...]] = set()
    for index, one in enumerate(episodes):
        alone = expand([one], loaded.layout, pixels=False)
        symbols: list[object] = alone.input_ids_BT[0].tolist()
        for span in alone.spans:
            for start in span.group_starts:
                looks = one.clips[span.clip_index].pixels.tobytes()
                symbols[start : start + span.tokens_per_group] = [looks] * span.tokens_per_group
        starts |= {tuple(symbols[: end + 1]) for end in range(len(symbols))}
        path = packed.path_BT[index, : len(symbols)]
        assert torch.equal(packed.tree.input_ids_BT[0, path], alone.input_ids_BT[0])
        assert torch.equal(packed.tree.position_ids_3BT[:, 0, path], alone.position_ids_3BT[:, 0])
        assert torch.equal(packed.parent_N[path[1:]], path[:-1])
    assert packed.num_tokens == len(starts)


def test_equal_words_after_other_frames_are_not_the_same_token() -> None:
    loaded = tiny_loaded("qwen3_vl")
    episodes = [
        TokenEpisode(
            (TokenSegment((1, *loaded.layout.placeholder())), TokenSegment((4, 5), True)),
            (clip_of(loaded, seed),),
        )
        for seed in (0, 2, 0)
    ]
    packed = pack(episodes, loaded.layout)
    assert torch.equal(packed.path_BT[0], packed.path_BT[2])
    assert not set(packed.path_BT[0, -2:].tolist()) & set(packed.path_BT[1].tolist())
    assert packed.tree.video_grid_thw is not None and len(packed.tree.video_grid_thw) == 2


def test_a_model_that_cannot_take_a_pack_is_refused_and_others_stay_as_they_were(tmp_path) -> None:
    loaded = load_model(tiny_checkpoint(tmp_path / "tiny"), device="cpu")
    batch = expand([episode(loaded, 1), episode(loaded, 2)], loaded.layout)
    before = loaded.model(**batch.model_inputs()).logits
    use_packed_attention(loaded.model)
    assert torch.equal(loaded.model(**batch.model_inputs()).logits, before)
    loaded.model.save_pretrained(tmp_path / "saved")
    assert (
        AutoConfig.from_pretrained(tmp_path / "saved").get_text_config()._attn_implementation
        != "timeloupe_packed"
    )
    loaded.model.set_attn_implementation("eager")
    with pytest.raises(ConfigError, match="eager"):
        use_packed_attention(loaded.model)
    with pytest.raises(ConfigError, match="episodes of a pack"):
        pack([], loaded.layout)
