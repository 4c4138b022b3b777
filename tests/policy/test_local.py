"""The local policy: right log-probabilities, seeds that hold, no forbidden token, faults as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.model.tiny import tiny_loaded
from timeloupe.errors import ConfigError
from timeloupe.model.episode import TokenEpisode
from timeloupe.model.expand import expand
from timeloupe.model.forward import target_logprobs
from timeloupe.model.render import render
from timeloupe.policy.base import GenerationRequest, Sampling
from timeloupe.policy.local import LocalPolicy
from timeloupe.trajectory import FrameRef, Generation, Message, Text

FAMILIES = ("qwen3_vl", "qwen2_5_vl")
WARM = Sampling(temperature=1.0, max_new_tokens=12)


def clip(
    family: str, num_frames: int, seed: int, *, wide: int = 1, at: float = 0.0
) -> tuple[FrameRef, np.ndarray]:
    size = tiny_loaded(family).layout.size_multiple
    pixels = np.random.default_rng(seed).integers(0, 256, (num_frames, size, wide * size, 3), dtype=np.uint8)
    times = tuple(at + 0.25 * index for index in range(num_frames))
    ref = FrameRef(
        video="v.mp4",
        view="crop",
        start_seconds=0,
        end_seconds=99,
        at_seconds=times,
        size_wh=(wide * size, size),
    )
    return ref, pixels


def user(*parts: str | FrameRef) -> Message:
    return Message(
        role="user", parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts)
    )


def said(generation: Generation) -> Message:
    return Message(role="assistant", parts=(Text(text=generation.text),))


def request(family: str, index: int, sampling: Sampling = WARM) -> GenerationRequest:
    """Prompts of different lengths, with and without a clip."""
    ref, pixels = clip(family, 1 + index % 4, index, wide=1 + index % 2)
    if index % 3 == 2:
        return GenerationRequest((user("When? " * index),), seed=index, sampling=sampling)
    return GenerationRequest(
        (user("Find it. ", ref, "When? " * index),), (pixels,), seed=index, sampling=sampling
    )


def follow_up(family: str, first: GenerationRequest, done: Generation) -> GenerationRequest:
    ref, pixels = clip(family, 5, 1000 + first.seed, wide=2, at=30.0)
    return GenerationRequest(
        (*first.messages, said(done), user(ref, "Look closer.")), (*first.clips, pixels), (done,),
        seed=first.seed + 500, sampling=first.sampling,
    )  # fmt: skip


def whole(family: str, asked: GenerationRequest, done: Generation) -> TokenEpisode:
    """The finished episode as a trainer would see it: every reply a target."""
    loaded = tiny_loaded(family)
    return render(
        (*asked.messages, said(done)),
        asked.clips,
        loaded.chat,
        loaded.layout,
        generations=(*asked.generations, done),
        trained=True,
        ask_reply=False,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_teacher_forced_log_probabilities_equal_the_sampled_ones(family: str) -> None:
    loaded = tiny_loaded(family)
    policy = LocalPolicy(loaded)
    ref, pixels = clip(family, 4, 0)
    firsts = [
        GenerationRequest((user("a" * index, ref, "When?"),), (pixels,), seed=index, sampling=WARM)
        for index in range(3)
    ]
    ones = policy.generate(firsts)
    seconds = [follow_up(family, first, done) for first, done in zip(firsts, ones, strict=True)]
    twos = policy.generate(seconds)
    episodes = [whole(family, item, two) for item, two in zip(seconds, twos, strict=True)]
    batch = expand(episodes, loaded.layout)
    with torch.no_grad():
        forced = target_logprobs(loaded.model, batch)
    assert batch.logprobs_BT is not None
    assert batch.loss_mask_BT.sum() == sum(len(done.token_ids or ()) for done in (*ones, *twos)) > 30
    assert (forced - batch.logprobs_BT).abs().max() <= 1e-5
    assert batch.logprobs_BT[batch.loss_mask_BT].std() > 0.1  # not a near-uniform model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "sampling",
    [WARM, Sampling(max_new_tokens=6), Sampling(temperature=1.3, top_k=20, top_p=0.9, max_new_tokens=8)],
)
def test_one_batch_of_eight_equals_eight_batches_of_one(family: str, sampling: Sampling) -> None:
    policy = LocalPolicy(tiny_loaded(family))
    requests = [request(family, index, sampling) for index in range(8)]
    together = policy.generate(requests)
    assert [item.finish for item in together] != ["error"] * 8
    for one, alone in zip(together, (policy.generate([item])[0] for item in requests), strict=True):
        assert one.token_ids == alone.token_ids and one.text == alone.text and one.finish == alone.finish
        np.testing.assert_allclose(one.logprobs, alone.logprobs, atol=1e-5)  # type: ignore[arg-type]
        assert one.usage == alone.usage
    small = LocalPolicy(tiny_loaded(family), max_batch_size=3, max_batch_tokens=200)
    assert [item.token_ids for item in small.generate(requests)] == [item.token_ids for item in together]


def test_a_shared_prompt_is_read_once_and_seeds_differ() -> None:
    policy = LocalPolicy(tiny_loaded())
    base = request("qwen3_vl", 3)
    group = [replace(base, seed=seed, clips=tuple(item.copy() for item in base.clips)) for seed in range(6)]
    lengths: list[int] = []
    forward = policy.loaded.model.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        lengths.append(kwargs["input_ids"].shape[0])
        return forward(*args, **kwargs)

    policy.loaded.model.forward = counted  # type: ignore[method-assign]
    try:
        together = policy.generate(group)
    finally:
        policy.loaded.model.forward = forward  # type: ignore[method-assign]
    assert lengths == [1]
    assert len({item.token_ids for item in together}) == 6
    assert [item.token_ids for item in together] == [policy.generate([item])[0].token_ids for item in group]


def test_positions_continue_right_after_the_prompts_clip() -> None:
    """The first sampled token's effect on the next is that of a fresh pass over the longer prompt."""
    loaded = tiny_loaded("qwen2_5_vl")
    policy = LocalPolicy(loaded)
    ref, pixels = clip("qwen2_5_vl", 8, 4)
    stretched = ref.model_copy(update={"at_seconds": tuple(2.0 * index for index in range(8))})
    first = GenerationRequest((user(stretched, "x"),), (pixels,), sampling=Sampling(max_new_tokens=4))
    (done,) = policy.generate([first])
    assert done.token_ids is not None
    batch = expand([whole("qwen2_5_vl", first, done)], loaded.layout)
    assert (
        int(batch.position_ids_3BT.max()) > 2 * 2 * 7
    )  # the clip's 14 s at 2 positions a second lie before it
    with torch.no_grad():
        logits = loaded.model(**batch.model_inputs()).logits[0]
    columns = batch.loss_mask_BT[0].nonzero()[:, 0][: len(done.token_ids)] - 1
    banned = policy.banned_V
    assert logits[columns].masked_fill(banned, -torch.inf).argmax(-1).tolist() == list(done.token_ids)


def test_forbidden_tokens_are_never_sampled() -> None:
    loaded = tiny_loaded()
    policy = LocalPolicy(loaded)
    head: Any = loaded.model.get_output_embeddings()
    forbidden = [token for token in range(head.weight.shape[0]) if policy.banned_V[token]]
    special = {loaded.tokenizer.convert_tokens_to_ids(token) for token in ("<|video_pad|>", "<|im_start|>")}
    assert {*loaded.layout.vision_token_ids, *special, head.weight.shape[0] - 1} <= set(forbidden)
    assert not policy.banned_V[list(loaded.layout.eos_token_ids)].any()
    # A model that wants nothing else: every forbidden logit is raised by 50.
    raised = head.register_forward_hook(lambda module, args, out: out + 50.0 * policy.banned_V)
    try:
        many = [request("qwen3_vl", index, replace(WARM, temperature=2.0)) for index in range(12)]
        produced = {token for item in policy.generate(many) for token in item.token_ids or ()}
    finally:
        raised.remove()
    assert len(produced) > 20 and not produced & set(forbidden)


def test_turns_end_by_stop_string_end_token_or_length() -> None:
    loaded = tiny_loaded()
    policy = LocalPolicy(loaded)
    script = [*loaded.layout.encode("ab</answer>cd"), loaded.chat.end_id, *loaded.layout.encode("never seen")]

    def generate(sampling: Sampling) -> Generation:
        step = iter(script)

        def scripted(module: Any, args: Any, out: torch.Tensor) -> torch.Tensor:
            return (
                torch.nn.functional.one_hot(torch.tensor(next(step)), out.shape[-1]).float().expand_as(out)
                * 99
            )

        head: Any = loaded.model.get_output_embeddings()
        hook = head.register_forward_hook(scripted)
        try:
            return policy.generate([GenerationRequest((user("x"),), sampling=sampling)])[0]
        finally:
            hook.remove()

    ended = generate(Sampling(max_new_tokens=99))
    assert (ended.text, ended.finish) == ("ab</answer>cd", "stop")
    assert ended.token_ids is not None and ended.token_ids[-1] == loaded.chat.end_id
    stopped = generate(Sampling(max_new_tokens=99, stop=("</tool_call>", "</answer>")))
    assert (stopped.text, stopped.finish) == ("ab</answer>", "stop")
    cut = generate(Sampling(max_new_tokens=2))
    assert cut.finish == "length" and cut.usage.completion_tokens == 2 and len(cut.logprobs or ()) == 2
    assert ended.usage.prompt_tokens == cut.usage.prompt_tokens


def test_a_fault_costs_only_the_requests_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LocalPolicy(tiny_loaded())
    requests = [request("qwen3_vl", index) for index in range(5)]
    expected = policy.generate(requests)
    poison = requests[3].messages[0].text

    from timeloupe.policy import local

    decode = local._decode

    def failing(jobs: Sequence[Any], *rest: Any) -> int:
        if any(job.request.messages[0].text == poison for job in jobs):
            jobs[0].ids.append(1)  # a fault midway leaves traces
            raise torch.OutOfMemoryError("no memory left")
        return decode(jobs, *rest)

    monkeypatch.setattr(local, "_decode", failing)
    found = policy.generate(requests)
    assert [item.finish == "error" for item in found] == [False, False, False, True, False]
    assert found[3].error == "OutOfMemoryError: no memory left" and found[3].token_ids is None
    for index in (0, 1, 2, 4):
        assert found[index].token_ids == expected[index].token_ids


def test_what_is_remembered_goes_before_a_request_fails_for_want_of_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = LocalPolicy(tiny_loaded())
    first = request("qwen3_vl", 0)
    expected = policy.generate([first])
    policy.generate([request("qwen3_vl", index) for index in (1, 2)])
    assert policy.memory.num_bytes > 0

    from timeloupe.policy import local

    decode, tried = local._decode, []

    def crowded(jobs: Sequence[Any], loaded: Any, banned_V: Any, start: float, memory: Any) -> int:
        tried.append(len(memory))
        if memory.num_bytes:
            raise torch.OutOfMemoryError("no memory left")
        return decode(jobs, loaded, banned_V, start, memory)

    monkeypatch.setattr(local, "_decode", crowded)
    assert policy.generate([first])[0].token_ids == expected[0].token_ids
    assert tried == [3, 0]

    def hopeless(jobs: Sequence[Any], loaded: Any, banned_V: Any, start: float, memory: Any) -> int:
        tried.append(len(memory))
        decode(jobs, loaded, banned_V, start, memory)  # it remembers something, and fails all the same
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(local, "_decode", hopeless)
    assert policy.generate([first])[0].finish == "error"
    assert tried == [3, 0, 1, 0] and policy.memory.num_bytes == 0


def test_a_wrong_request_is_an_error_of_the_caller() -> None:
    policy = LocalPolicy(tiny_loaded())
    with pytest.raises(ConfigError, match="one per frame reference"):
        policy.generate([replace(request("qwen3_vl", 0), clips=())])
    assert policy.generate([]) == []
    assert policy.name == "local:tiny-qwen3_vl"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_later_turn_reads_only_what_is_new(family: str) -> None:
    remembering, forgetful = (
        LocalPolicy(tiny_loaded(family)),
        LocalPolicy(tiny_loaded(family), memory_bytes=0),
    )
    firsts = [request(family, index) for index in range(6)]
    ones = remembering.generate(firsts)
    assert [item.token_ids for item in forgetful.generate(firsts)] == [item.token_ids for item in ones]
    assert remembering.num_tokens_read == forgetful.num_tokens_read and len(remembering.memory) == 6
    seconds = [follow_up(family, first, done) for first, done in zip(firsts, ones, strict=True)]
    before = remembering.num_tokens_read
    twos = remembering.generate(seconds)
    for new, fresh in zip(twos, forgetful.generate(seconds), strict=True):
        assert new.token_ids == fresh.token_ids and new.usage == fresh.usage
        np.testing.assert_allclose(new.logprobs, fresh.logprobs, atol=1e-5)  # type: ignore[arg-type]
    # All that is left of a turn's own prompt is what came since: its length less the last one's less what was said.
    expected = sum(
        (two.usage.prompt_tokens or 0) - (one.usage.prompt_tokens or 0) - len(one.token_ids or ()) + 1
        for one, two in zip(ones, twos, strict=True)
    )
    assert remembering.num_tokens_read - before == expected
    thirds = [follow_up(family, replace(one, generations=(*one.generations, two)), two)
              for one, two in zip(seconds, twos, strict=True)]  # fmt: skip
    thirds = [replace(third, generations=(*second.generations, two))
              for third, second, two in zip(thirds, seconds, twos, strict=True)]  # fmt: skip
    mixed = [*thirds[:3], *firsts]
    assert [item.token_ids for item in remembering.generate(mixed)] == [
        item.token_ids for item in forgetful.generate(mixed)
    ]


def test_changed_weights_and_changed_frames_are_read_anew() -> None:
    loaded = tiny_loaded()
    policy, fresh = LocalPolicy(loaded), LocalPolicy(loaded, memory_bytes=0)
    first = request("qwen3_vl", 3)
    (one,) = policy.generate([first])
    second = follow_up("qwen3_vl", first, one)
    other = replace(second, clips=(255 - second.clips[0], second.clips[1]))
    assert policy.generate([other])[0].token_ids == fresh.generate([other])[0].token_ids
    policy.generate([first])
    weight = next(loaded.model.parameters())
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(3.0)
        assert policy.generate([second])[0].token_ids == fresh.generate([second])[0].token_ids
        assert policy.num_tokens_read > fresh.num_tokens_read
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_the_memory_is_bounded() -> None:
    requests = [request("qwen3_vl", index) for index in range(6)]
    policy = LocalPolicy(tiny_loaded())
    policy.generate(requests)
    total = policy.memory.num_bytes
    small = LocalPolicy(tiny_loaded(), memory_bytes=total // 2)
    small.generate(requests)
    assert 0 < len(small.memory) < 6 and small.memory.num_bytes <= total // 2
    small.memory.forget()
    assert (len(small.memory), small.memory.num_bytes) == (0, 0)
    with pytest.raises(ConfigError, match="max_bytes"):
        LocalPolicy(tiny_loaded(), memory_bytes=-1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_hooks_is_decoded_by_the_library_to_the_same_tokens(family: str) -> None:
    loaded = tiny_loaded(family)
    requests = [request(family, index) for index in range(4)]
    ours = LocalPolicy(loaded).generate(requests)
    steps: list[int] = []
    layer: Any = loaded.model.base_model.language_model.layers[0]  # type: ignore[union-attr,index]
    hook = layer.register_forward_pre_hook(lambda _, inputs: steps.append(inputs[0].shape[1]))
    try:
        theirs = LocalPolicy(loaded).generate(requests)
    finally:
        hook.remove()
    assert 1 in steps
    for one, two in zip(ours, theirs, strict=True):
        assert one.token_ids == two.token_ids
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
