"""A reply that was begun for the policy: it goes on from there, and the record says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.tiny import tiny_loaded
from tests.policy.test_local import WARM, clip, request, user, whole
from timeloupe.environment.teacher_policy import TeacherPolicy
from timeloupe.errors import ConfigError
from timeloupe.model.expand import expand
from timeloupe.model.forward import target_logprobs
from timeloupe.policy.base import GenerationRequest, Sampling
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.openai_server import OpenAIPolicy
from timeloupe.policy.scripted import ScriptedPolicy

FAMILIES = ("qwen3_vl", "qwen2_5_vl")
BEGUN = "<think>\nFrom 2s"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reply_begins_as_asked_and_its_log_probabilities_are_the_models(family: str) -> None:
    loaded = tiny_loaded(family)
    ref, pixels = clip(family, 4, 0)
    prefixes = ("", BEGUN, "<think>\nFrom 2s to 4s, a longer beginning", BEGUN)
    long = replace(WARM, max_new_tokens=64)
    asked = [
        GenerationRequest((user(ref, "When?"),), (pixels,), seed=seed, sampling=long, reply_prefix=prefix)
        for seed, prefix in enumerate(prefixes)
    ]
    found = LocalPolicy(loaded).generate(asked)
    for prefix, done in zip(prefixes, found, strict=True):
        ids = loaded.layout.encode(prefix) if prefix else []
        assert done.token_ids is not None and list(done.token_ids[: len(ids)]) == list(ids)
        assert len(done.token_ids) > len(ids) and done.text.startswith(prefix)
    batch = expand([whole(family, one, done) for one, done in zip(asked, found, strict=True)], loaded.layout)
    with torch.no_grad():
        again = target_logprobs(loaded.model, batch)
    assert batch.logprobs_BT is not None and (again - batch.logprobs_BT).abs().max() < 1e-4


def test_other_members_of_a_batch_and_the_reading_of_the_prompt_are_left_alone() -> None:
    family = "qwen3_vl"
    ref, pixels = clip(family, 4, 0)
    plain = GenerationRequest((user(ref, "When?"),), (pixels,), seed=1, sampling=WARM)
    begun = replace(plain, reply_prefix=BEGUN)
    alone, together = LocalPolicy(tiny_loaded(family)), LocalPolicy(tiny_loaded(family))
    expected = alone.generate([plain])[0]
    assert together.generate([begun, plain])[1].token_ids == expected.token_ids
    assert together.num_tokens_read == alone.num_tokens_read


@settings(max_examples=15)
@given(text=st.text(max_size=12), limit=st.integers(1, 20))
def test_any_text_can_begin_a_reply_and_counts_towards_its_length(text: str, limit: int) -> None:
    loaded = tiny_loaded("qwen3_vl")
    sampling = Sampling(temperature=1.0, max_new_tokens=limit, stop=("\n",))
    done = LocalPolicy(loaded).generate([replace(request("qwen3_vl", 2, sampling), reply_prefix=text)])[0]
    ids = tuple(loaded.layout.encode(text)) if text else ()
    assert done.token_ids is not None and len(done.token_ids) <= limit
    # What stands in the beginning, a stop string too, does not end the turn.
    assert done.token_ids[: len(ids)] == ids[:limit]
    assert len(done.token_ids) > len(ids) or done.finish == "length"


def test_policies_that_cannot_go_on_say_so() -> None:
    begun = GenerationRequest((user("When?"),), reply_prefix=BEGUN)
    for policy in (
        ScriptedPolicy.from_replies({"*": ["yes"]}),
        TeacherPolicy({}),
        OpenAIPolicy("http://127.0.0.1:9/v1", "none"),
    ):
        with pytest.raises(ConfigError, match="cannot go on from a reply that was begun"):
            policy.generate([begun])
