"""A prompt that several rows keep once gives what each row alone gives, turn after turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.model.tiny import tiny_loaded
from tests.policy.test_local import FAMILIES, WARM, clip, request, said, user
from timeloupe.policy import reading
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.prefix_memory import num_bytes
from timeloupe.trajectory import Generation


def group(family: str, index: int, members: int = 4) -> list[GenerationRequest]:
    """Members of one group; some end early."""
    base = request(family, index)
    return [
        replace(
            base, seed=100 * index + member, sampling=replace(WARM, max_new_tokens=(1, 3, 12)[member % 3])
        )
        for member in range(members)
    ]


def next_turn(family: str, number: int, before: GenerationRequest, done: Generation) -> GenerationRequest:
    """The same episode after a reply and a crop of its own."""
    ref, pixels = clip(family, 2 + number % 2, 50 + number, at=3.0)
    return replace(
        before, messages=(*before.messages, said(done), user(ref, "And now?")), clips=(*before.clips, pixels),
        generations=(*before.generations, done),
    )  # fmt: skip


@pytest.mark.parametrize("groups", [[3], [3, 6, 4]])
@pytest.mark.parametrize("family", FAMILIES)
def test_shared_prompts_give_what_rows_alone_give(
    family: str, groups: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SHARE_FROM", 1)
    policy, alone = LocalPolicy(tiny_loaded(family)), LocalPolicy(tiny_loaded(family), memory_bytes=0)
    states: list[Any] = []
    read = reading.read

    def watched(*args: Any) -> Any:
        states.append(read(*args))
        return states[-1]

    monkeypatch.setattr("timeloupe.policy.local.read", watched)
    requests = [one for index in groups for one in group(family, index)]
    for _ in range(3):
        found = policy.generate(requests)
        together = list(states)
        assert together and all(state.shared for state in together)
        expected = [alone.generate([one])[0] for one in requests]
        states.clear()
        for one, two in zip(found, expected, strict=True):
            assert one.token_ids == two.token_ids
            assert one.logprobs == pytest.approx(two.logprobs, abs=1e-4)
        requests = [
            next_turn(family, number, one, done)
            for number, (one, done) in enumerate(zip(requests, found, strict=True))
        ]
    assert sum(len(state.shared) for state in together) >= len(groups)


def test_what_is_shared_counts_once_in_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SHARE_FROM", 1)
    policy, plain = LocalPolicy(tiny_loaded()), LocalPolicy(tiny_loaded())
    requests = group("qwen3_vl", 3)
    policy.generate(requests)
    monkeypatch.setattr(reading, "SHARE_FROM", 10**6)
    plain.generate(requests)
    entries = list(policy.memory._entries.values())
    assert len({id(one.shared) for one in entries}) == 1 and entries[0].shared is not None
    once = num_bytes(entries[0].shared.layers)
    assert plain.memory.num_bytes - policy.memory.num_bytes == (len(requests) - 1) * once
    policy.memory.max_bytes = once - 1
    policy.memory.keep(entries[0])
    for _ in requests:
        policy.memory._remove(next(iter(policy.memory._entries)))
    assert policy.memory.num_bytes == 0
