"""The served policy against a real HTTP server: the same play as in this process, and every failure as a value."""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.servers.process import Server, serving
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import make_settings
from timeloupe.errors import ConfigError
from timeloupe.model.never_sampled import read_never_sampled
from timeloupe.policy.base import GenerationRequest, Sampling
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.openai_server import OpenAIPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT, load_small_policy
from timeloupe.prompt.protocol import PROTOCOLS, Protocol
from timeloupe.trajectory import Example, FrameRef, Generation, Message, StopReason, Text, Trajectory, to_line
from timeloupe.world.encode import make_videos
from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings

SMALL = PROTOCOLS["small"]
WITH_STOPS = replace(SMALL, stop=("</tool_call>", "</answer>"))
KEY = 'sk-"very\\secret"-1234567890'
HELLO = GenerationRequest(messages=(Message(role="user", parts=(Text(text="hello"),)),))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Three questions about one world video; the small model looks closer for each of them."""
    made = make_videos(
        tmp_path_factory.mktemp("world"), seed=EVALUATION_SEEDS[77], num_videos=1,
        settings=ScriptSettings(90, 120), per_task=2,
    )  # fmt: skip
    return [e.model_copy(update={"video": str(v.path)}) for v in made for e in v.examples][:3]


@pytest.fixture(scope="module")
def small() -> tuple[LocalPolicy, dict[str, Any]]:
    policy, episode, _ = load_small_policy()
    return policy, episode


def run(
    policy: Any, examples: list[Example], episode: dict[str, Any], protocol: Protocol = SMALL
) -> list[Trajectory]:
    return play(examples, policy, protocol, make_settings(episode), seed=0)


def played(trajectory: Trajectory, *, tokens: bool = True) -> list[Any]:
    """What happened, without who played and how long it took."""
    found: list[Any] = [trajectory.stop, trajectory.prompt, trajectory.answer]
    for turn in trajectory.turns:
        found += [turn.generation.text, turn.generation.finish, turn.thought, turn.call, turn.observation]
        if tokens:
            found += [turn.generation.token_ids, turn.generation.usage]
    return found


def ask_one(policy: OpenAIPolicy, request: GenerationRequest = HELLO) -> Generation:
    (generation,) = policy.generate([request])
    return generation


def test_video_over_http_is_the_same_play_token_by_token(
    server: Server, examples: list[Example], small: tuple[LocalPolicy, dict[str, Any]]
) -> None:
    server.behave()
    local, episode = small
    policy = OpenAIPolicy(server.url, send="video", image_format="png", logprobs=True)
    served, here = run(policy, examples, episode), run(local, examples, episode)
    assert any(trajectory.crops for trajectory in here), "the story needs a second look"
    for one, other in zip(served, here, strict=True):
        assert played(one) == played(other)
        for turn, twin in zip(one.turns, other.turns, strict=True):
            assert turn.generation.logprobs == pytest.approx(twin.generation.logprobs, abs=1e-4)
            assert turn.generation.seconds > 0
    assert {one.policy for one in served} == {"openai:small"}
    bodies = [row["body"] for row in server.requests()]
    kinds = {str(sorted(body["media_io_kwargs"]["video"])) for body in bodies}
    assert len(kinds) == 2, "one video in the first turn, clip files in the second"


def test_images_over_http_are_the_same_play_token_by_token(
    server: Server, examples: list[Example], small: tuple[LocalPolicy, dict[str, Any]]
) -> None:
    server.behave()
    local, episode = small
    here = LocalPolicy(local.loaded, send="images", time_format="{:.0f}")
    policy = OpenAIPolicy(server.url, "small", image_format="png", time_format="{:.0f}", logprobs=True)
    for one, other in zip(run(policy, examples, episode), run(here, examples, episode), strict=True):
        assert played(one) == played(other)
    assert all("media_io_kwargs" not in row["body"] for row in server.requests())


@pytest.mark.parametrize("manners", [
    {"stops": "strip"}, {"stops": "say"}, {"stops": "keep"}, {"stops": "ignore"},
    {"stops": "strip", "reasoning": True}, {"stops": "strip", "tools": True}, {"reasoning": True, "tools": True},
], ids=str)  # fmt: skip
def test_every_manner_of_a_server_gives_the_same_play(
    manners: dict[str, Any],
    server: Server,
    examples: list[Example],
    small: tuple[LocalPolicy, dict[str, Any]],
) -> None:
    server.behave(**manners)
    local, episode = small
    policy = OpenAIPolicy(server.url, send="video", image_format="png")
    served, here = (
        run(policy, examples[:2], episode, WITH_STOPS),
        run(local, examples[:2], episode, WITH_STOPS),
    )
    assert {trajectory.stop for trajectory in here} == {StopReason.ANSWERED}
    for one, other in zip(served, here, strict=True):
        assert played(one, tokens=False) == played(other, tokens=False)
    assert all(row["body"]["stop"] == ["</tool_call>", "</answer>"] for row in server.requests())


def test_a_server_that_bans_nothing_samples_as_a_local_policy_when_it_is_told_what_to_ban(
    server: Server, small: tuple[LocalPolicy, dict[str, Any]]
) -> None:
    server.behave(free=True)
    hot = Sampling(temperature=4.0, max_new_tokens=16)
    requests = [replace(HELLO, seed=seed, sampling=hot) for seed in range(12)]
    here = [one.token_ids for one in small[0].generate(requests)]
    banned = read_never_sampled(SMALL_CHECKPOINT)
    assert banned is not None

    def served(ids: tuple[int, ...]) -> list[tuple[int, ...] | None]:
        policy = OpenAIPolicy(server.url, logprobs=True, never_sample=ids)
        return [one.token_ids for one in policy.generate(requests)]

    assert served(banned) == here
    assert server.requests()[-1]["body"]["logit_bias"] == {str(id): -100 for id in banned}
    loose = served(())
    assert "logit_bias" not in server.requests()[-1]["body"]
    assert loose != here, "without bans their share goes to what is drawn"
    server.behave(free=True)
    served(banned)  # the server's model is left with the bans it had


def test_a_server_that_takes_no_bans_is_told_with_the_option_that_leaves_them_off(server: Server) -> None:
    server.behave(biased=False)
    error = ask_one(OpenAIPolicy(server.url, never_sample=(3, 1, 2))).error
    assert error is not None and "takes no logit_bias" in error and "--no-logit-bias" in error
    policy = OpenAIPolicy(server.url, never_sample=(3, 1, 2, 7))
    assert policy.settings["never_sample"] == "1-3,7"


def test_the_record_says_how_it_was_asked(server: Server, examples: list[Example]) -> None:
    server.behave()
    url = server.url.replace("//", "//someone:pass%20word%21@")
    policy = OpenAIPolicy(url, extra_body={"repetition_penalty": 1.0}, jpeg_quality=80)
    (found,) = run(
        policy, examples[:1], {"max_turns": 1, "skim_frames": 2, "max_new_tokens": 4, "temperature": 0.5}
    )
    assert found.settings["policy"] == {
        "base_url": server.url, "model": "small", "send": "images", "time_format": "<{:.1f} seconds>",
        "image_format": "jpeg", "jpeg_quality": 80, "logprobs": False,
        "extra_body": {"repetition_penalty": 1.0}, "limit_key": "max_tokens",
    }  # fmt: skip
    assert "pass" not in to_line(found)
    (row,) = server.requests()
    assert row["headers"]["authorization"] == "Basic c29tZW9uZTpwYXNzIHdvcmQh"
    assert row["body"]["repetition_penalty"] == 1.0 and row["body"]["temperature"] == 0.5


def test_the_only_model_is_taken_and_several_are_listed(server: Server) -> None:
    server.behave(models=["small"])
    policy = OpenAIPolicy(server.url)
    assert policy.name == "openai"
    assert ask_one(policy).finish != "error" and policy.name == "openai:small"
    server.behave(models=["b", "a"])
    with pytest.raises(ConfigError, match="2 models, name one with --model: a, b"):
        ask_one(OpenAIPolicy(server.url))
    missing = ask_one(OpenAIPolicy(server.url, "c"))
    assert missing.finish == "error" and "does not exist" in str(missing.error)
    assert str(missing.error).endswith("it serves: b, a")


def test_the_limits_name_is_learnt_once(server: Server) -> None:
    server.behave(limit_key="max_completion_tokens")
    policy = OpenAIPolicy(server.url, "small")
    assert [ask_one(policy).error for _ in range(2)] == [None, None]
    keys = [{"max_tokens", "max_completion_tokens"} & row["body"].keys() for row in server.requests()]
    assert keys == [{"max_tokens"}, {"max_completion_tokens"}, {"max_completion_tokens"}]
    assert policy.settings["limit_key"] == "max_completion_tokens"


def test_the_sdk_tries_again(server: Server) -> None:
    server.behave(failures=2)
    assert ask_one(OpenAIPolicy(server.url, "small", max_retries=2)).error is None
    assert len(server.requests()) == 3
    server.behave(failures=2)
    failed = ask_one(OpenAIPolicy(server.url, "small", max_retries=0))
    assert (
        failed.error
        == f"{server.url} failed inside for 'small' (HTTP 500): engine died; look into the server's log"
    )


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("429", "is over its rate limit or quota .*: slow down; wait"),
        ("413", "takes no request of this size .*; show fewer or smaller frames"),
        ("html", "not JSON: it sent a web page.*--base-url"),
        ("cut", "not JSON"),
        ("empty", "no choices"),
        ("null", "content is null"),
        ("filter", "content filter"),
        ("long", "no context for a request of this length .*lower --frames"),
        ("images", "takes fewer pictures .*--limit-mm-per-prompt"),
    ],
)
def test_a_servers_failure_is_a_value_that_says_what_to_do(mode: str, says: str, server: Server) -> None:
    server.behave(mode=mode)
    policy = OpenAIPolicy(server.url, "small", max_retries=0)
    for generation in policy.generate([HELLO, HELLO]):
        assert (generation.finish, generation.text) == ("error", "")
        assert re.search(says, str(generation.error)), generation.error


def test_a_slow_server_runs_into_the_timeout(server: Server) -> None:
    with serving("--mode", "hang") as slow:
        found = ask_one(OpenAIPolicy(slow.url, "small", timeout_seconds=0.5, max_retries=1))
    assert "within 0.5 s in 2 tries; raise --timeout" in str(found.error) and found.seconds >= 1.0


def test_a_killed_server_and_a_dead_port() -> None:
    with serving("--mode", "null") as running:
        policy = OpenAIPolicy(running.url, "small", max_retries=0)
        assert "content is null" in str(ask_one(policy).error)
        running.process.kill()
        running.process.wait()
        found = ask_one(policy)
    assert found.finish == "error" and "connection refused" in str(found.error)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    for model in ("small", None):
        text = str(ask_one(OpenAIPolicy(dead, model, max_retries=0)).error)
        assert (
            text
            == f"nothing listens at {dead} (connection refused); start the server, or correct --base-url (1 tries)"
        )
    unknown = ask_one(OpenAIPolicy("http://no-such-host.invalid/v1", "x", max_retries=0))
    assert "not known" in str(unknown.error) or "broke" in str(unknown.error)


def test_http_where_tls_is_asked_for(server: Server) -> None:
    found = ask_one(OpenAIPolicy(server.url.replace("http:", "https:"), "small", max_retries=0))
    assert "TLS with https://127.0.0.1" in str(found.error) and "use http://" in str(found.error)


def test_a_server_without_our_loader_is_told_apart(server: Server) -> None:
    server.behave(clip_files=False)
    pixels = np.zeros((1, 32, 32, 3), "uint8")
    view = FrameRef(
        video="a", view="skim", start_seconds=0, end_seconds=1, at_seconds=(0.0,), size_wh=(32, 32)
    )
    request = GenerationRequest(messages=(Message(role="user", parts=(view, view)),), clips=(pixels, pixels))
    found = ask_one(OpenAIPolicy(server.url, "small", send="video", max_retries=0), request)
    assert "install timeloupe in the server's environment, or use --send images" in str(found.error)


@pytest.mark.parametrize("mode", ["echo", "echo401", "fine"])
def test_the_key_is_nowhere(
    mode: str, server: Server, examples: list[Example], caplog: pytest.LogCaptureFixture
) -> None:
    server.behave(mode=mode, key=None if mode != "fine" else "another")
    policy = OpenAIPolicy(server.url, "small", api_key=KEY, max_retries=0)
    with caplog.at_level(logging.DEBUG):
        (found,) = run(policy, examples[:1], {"skim_frames": 2})
    assert found.stop is StopReason.INFRASTRUCTURE and found.problem is not None
    assert ("Incorrect API key" if mode == "fine" else "***") in found.problem.message
    assert server.requests()[0]["headers"]["authorization"] == f"Bearer {KEY}"
    assert caplog.records
    for text in (to_line(found), repr(policy), str(policy.settings), caplog.text, str(found.problem)):
        assert "very" not in text and "1234567890" not in text


def test_the_sdks_own_log_does_not_hold_the_key(server: Server) -> None:
    server.behave(mode="echo")
    code = (
        "import sys; from timeloupe.policy.openai_server import GenerationRequest, OpenAIPolicy;"
        "policy = OpenAIPolicy(sys.argv[1], 'small', api_key=sys.argv[2], max_retries=0);"
        "print(policy.generate([GenerationRequest(messages=())]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, server.url, KEY], capture_output=True, text=True, timeout=120,
        cwd=Path(__file__).parents[2], env={**os.environ, "OPENAI_LOG": "debug"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "HTTP Response" in done.stderr and "finish='error'" in done.stdout
    assert "very" not in done.stdout + done.stderr and "1234567890" not in done.stdout + done.stderr


def test_too_large_a_request_is_not_sent(server: Server, examples: list[Example]) -> None:
    server.behave()
    (found,) = run(OpenAIPolicy(server.url, "small", max_request_bytes=2000), examples[:1], {})
    assert found.stop is StopReason.INFRASTRUCTURE
    assert (
        found.problem is not None
        and "frames as jpeg have more than 2000 bytes; show fewer" in found.problem.message
    )
    assert server.requests() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"base_url": "localhost:8000"}, "--base-url"),
        ({"base_url": "ftp://a/v1"}, "--base-url"),
        ({"base_url": "http://u:hidden@/v1"}, "--base-url"),
        ({"base_url": "http://u:hidden@h/v1?key=hidden"}, "without a query"),
        ({"base_url": "http://h:99999/v1"}, "--base-url"),
        ({"send": "gif"}, "send, got 'gif', allowed: images, video"),
        ({"image_format": "gif"}, "image format"),
        ({"jpeg_quality": 0}, "JPEG quality"),
        ({"timeout_seconds": 0}, "timeout"),
        ({"timeout_seconds": float("nan")}, "timeout"),
        ({"timeout_seconds": 1e12}, "timeout, .* at most 1,000,000"),
        ({"model": " "}, "--model"),
        ({"model": "\udcff"}, "--model"),
        ({"name": "\udcff"}, "name"),
        ({"extra_body": {"a": "\udcff"}}, "extra_body"),
        ({"extra_body": {"a": float("nan")}}, "extra_body"),
        ({"time_format": "{}\udcff"}, "time format"),
        ({"base_url": "http://256.256.256.256/v1"}, "--base-url"),
        ({"base_url": "http://h/\x7f/v1"}, "--base-url"),
        ({"base_url": "http://h/\ud800"}, "--base-url"),
        ({"base_url": "http://\udcff/v1"}, "--base-url"),
        ({"base_url": "http://exa mple/v1"}, "--base-url"),
        ({"base_url": "http://user:12/hidden@h/v1"}, "--base-url, got 'h/v1', .* %2F"),
        ({"base_url": "http://user:hid@h/v1"}, "less than 6 characters"),
        ({"concurrency": 0}, "concurrency"),
        ({"max_retries": -1}, "retries"),
        ({"max_request_bytes": 0}, "max_request_bytes"),
        ({"time_format": "now"}, "time format"),
        ({"api_key": "hid\nden"}, "API key"),
        ({"api_key": "hidden é"}, "API key"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        OpenAIPolicy(**{"base_url": "http://localhost:1/v1", **arguments})
    assert "hid" not in str(caught.value)


def test_wrong_requests_are_errors_of_the_caller() -> None:
    with pytest.raises(ConfigError, match="clips of a chat"):
        ask_one(OpenAIPolicy("http://localhost:1/v1", "m"), replace(HELLO, clips=(np.zeros(1),)))
    assert OpenAIPolicy("http://localhost:1/v1").generate([]) == []
