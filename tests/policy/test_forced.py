"""The likelihood of a given reply: that of a sampled one is what was recorded when it was sampled."""

from __future__ import annotations

import numpy as np
import pytest

from timeloupe.policy.base import GenerationRequest, Sampling
from timeloupe.policy.forced import reply_logprobs
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import load_small_policy
from timeloupe.trajectory import FrameRef, Generation, Message, Text


@pytest.fixture(scope="module")
def policy() -> LocalPolicy:
    return load_small_policy()[0]


def request(seed: int, frames: int) -> GenerationRequest:
    ref = FrameRef(
        video="v.mp4", view="skim", start_seconds=0, end_seconds=60, size_wh=(32, 32),
        at_seconds=tuple(float(2 * n) for n in range(frames)),
    )  # fmt: skip
    message = Message(role="user", parts=(Text(text="When is the red circle visible?"), ref))
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 3), dtype=np.uint8)
    sampling = Sampling(temperature=1.0, max_new_tokens=12)
    return GenerationRequest(messages=(message,), clips=(pixels,), seed=seed, sampling=sampling)


@pytest.mark.parametrize("room", [65_536, 1])
def test_a_sampled_reply_has_the_log_probabilities_that_were_recorded(policy: LocalPolicy, room: int) -> None:
    requests = [request(0, 4), request(1, 9)]
    replies = policy.generate(requests)
    policy.max_batch_tokens, before = room, policy.max_batch_tokens
    try:
        found = reply_logprobs(policy, requests, replies)
    finally:
        policy.max_batch_tokens = before
    for values, reply in zip(found, replies, strict=True):
        assert values is not None and reply.logprobs is not None
        assert values == pytest.approx(reply.logprobs, abs=1e-4)


def test_a_reply_without_ids_is_encoded_and_other_frames_make_it_another_likelihood(
    policy: LocalPolicy,
) -> None:
    reply = Generation(text="<think>so</think><answer>[4, 8]</answer>")
    one, two = reply_logprobs(policy, [request(0, 4), request(1, 9)], [reply, reply])
    assert one is not None and two is not None and len(one) == len(two) > 5
    assert sum(one) < 0 and sum(one) != sum(two)
