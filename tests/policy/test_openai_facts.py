"""What a server says of itself, and replies that are of no use after a moment. Real HTTP servers."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.servers.raw_server import RawHandler, answering, completion
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.openai_server import OpenAIPolicy
from timeloupe.trajectory import Message, Text

NOTHING = {"name": None, "version": None, "model": None}


def facts(paths: dict[str, tuple[int, Any]], **headers: str) -> dict[str, Any]:
    """What a policy finds out of a server that has these paths."""

    def answer(request: RawHandler) -> None:
        status, found = paths.get(request.path, (404, {}))
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        request.reply(body, status, **headers)

    with answering(answer) as server:
        return OpenAIPolicy(server.url, "m", api_key="a-secret-key").server_facts()


def test_vllm_says_its_version_and_the_model_it_serves() -> None:
    row = {"id": "m", "root": "org/model", "owned_by": "vllm", "max_model_len": 4096, "permission": [{}]}
    found = facts(
        {"/v1/models": (200, {"data": [{"id": "other"}, row]}), "/version": (200, {"version": "0.32.0"})},
        Server="uvicorn",
    )
    model = {"id": "m", "root": "org/model", "revision": None, "owned_by": "vllm", "max_model_len": 4096}
    assert found == {"name": "vllm", "version": "0.32.0", "model": model}


def test_without_a_version_the_header_stands_for_the_server() -> None:
    found = facts({"/v1/models": (200, {"data": [{"id": "m"}]})}, Server="hosted/2")
    assert "hosted/2" in found["name"] and found["version"] is None and found["model"]["id"] == "m"


@pytest.mark.parametrize(
    "listed",
    [
        b"no JSON",
        {"data": "none"},
        {"data": [1, None]},
        [],
        {"data": [{"id": ["m"]}]},
        {"data": [{"id": "a"}, {"id": "b"}]},
    ],
)
def test_nonsense_is_nothing(listed: Any) -> None:
    found = facts({"/v1/models": (200, listed), "/version": (200, {"version": {"deep": 1}})})
    assert found["version"] is None and (found["model"] is None or set(found["model"].values()) == {None})


def test_secrets_and_long_texts_stay_out_and_a_refusal_is_no_failure() -> None:
    row = {"id": "m", "root": "/models/a-secret-key", "owned_by": "x" * 999}
    found = facts({"/v1/models": (200, {"data": [row]})})
    assert "a-secret-key" not in json.dumps(found) and len(found["model"]["owned_by"]) == 200
    assert facts({"/v1/models": (401, {}), "/version": (500, {})})["model"] is None


def test_a_server_that_is_not_there_or_hangs_says_nothing() -> None:
    assert OpenAIPolicy("http://127.0.0.1:1/v1", "m").server_facts() == NOTHING
    with answering(lambda request: request.server_state.ended.wait() and None) as server:
        assert OpenAIPolicy(server.url, "m", timeout_seconds=0.3).server_facts() == NOTHING


@pytest.mark.parametrize(
    ("status", "there"), [(200, True), (401, True), (404, True), (500, True), (502, False), (503, False)]
)
def test_a_server_is_there_when_it_answers_and_a_gateway_alone_is_none(status: int, there: bool) -> None:
    with answering(lambda request: request.reply(b"no JSON", status)) as server:
        policy = OpenAIPolicy(server.url, "m")
        assert not policy.answered
        assert policy.is_there() is policy.answered is there
    assert not policy.is_there() and policy.answered is there


def test_a_server_that_hangs_is_not_there() -> None:
    with answering(lambda request: request.server_state.ended.wait() and None) as server:
        assert not OpenAIPolicy(server.url, "m", timeout_seconds=0.3).is_there()


def request(give_up_at: float | None) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", parts=(Text(text="?"),)),), give_up_at=give_up_at)


@pytest.mark.parametrize("model", ["m", None])
def test_a_stalled_server_is_given_up_when_the_reply_is_of_no_use(model: str | None) -> None:
    with answering(lambda request: request.server_state.ended.wait() and None) as server:
        policy = OpenAIPolicy(server.url, model)  # would wait for ten minutes, three times
        (found,) = policy.generate([request(time.perf_counter() + 0.3)])
    assert found.finish == "error" and found.error is not None and server.url in found.error


def test_of_a_batch_only_the_late_request_is_given_up() -> None:
    def answer(handler: RawHandler) -> None:
        if len(handler.server_state.headers) == 1:
            handler.server_state.ended.wait(30)
        handler.reply(completion("<answer>a</answer>"))

    with answering(answer) as server:
        policy = OpenAIPolicy(server.url, "m", concurrency=1)
        late, fine = policy.generate([request(time.perf_counter() + 0.3), request(None)])
    assert late.finish == "error" and fine.text == "<answer>a</answer>"


@pytest.mark.parametrize("header", ["0.2", "9999", "-3", "soon"])
def test_retry_after_is_heeded_and_the_wait_has_a_bound(header: str) -> None:
    moments: list[float] = []

    def answer(handler: RawHandler) -> None:
        moments.append(time.perf_counter())
        if len(moments) == 1:
            handler.reply(b'{"error": {"message": "slow down"}}', 429, retry_after=header)
        else:
            handler.reply(completion("<answer>a</answer>"))

    with answering(answer) as server:
        (found,) = OpenAIPolicy(server.url, "m").generate([request(None)])
    if header == "9999":  # nobody waits for hours: it is the runner's turn to come back later
        assert len(moments) == 1 and found.finish == "error" and found.error is not None
        assert "rate limit" in found.error
    else:
        assert found.finish == "stop" and moments[1] - moments[0] >= (0.2 if header == "0.2" else 0)
