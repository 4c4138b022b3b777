"""Responses as generations: whatever a server takes out of a reply comes back."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.policy.openai_errors import Scrubber, parse_json
from timeloupe.policy.openai_reply import BadReply, read_reply
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Generation

PROTOCOL = PROTOCOLS["videotemp"]
STOP = PROTOCOL.stop
ARGUMENTS = [{"start_time": 68, "end_time": 97}]
CALL = json.dumps({"name": PROTOCOL.tool_name, "arguments": ARGUMENTS}, separators=(",", ":"))
LOOK = f"<think>There.</think><tool_call>{CALL}</tool_call>"
ANSWER = "<think>So.</think><answer>C</answer>"


def response(content: Any = None, finish: Any = "stop", usage: Any = None, **more: Any) -> dict[str, Any]:
    of_choice = {key: more.pop(key) for key in ("stop_reason", "matched_stop", "logprobs") if key in more}
    choice = {"message": {"content": content, **more}, "finish_reason": finish, **of_choice}
    return {"choices": [choice], "usage": usage}


def text_of(body: dict[str, Any]) -> str:
    return read_reply(body, stop=STOP).text


@pytest.mark.parametrize("text", [LOOK, ANSWER])
def test_stop_strings_are_there_whatever_the_server_does(text: str) -> None:
    tag = next(one for one in STOP if text.endswith(one))
    stripped = text.removesuffix(tag)
    for body in (
        response(text),
        response(stripped),
        response(stripped, stop_reason=tag),
        response(stripped, matched_stop=tag),
        response(text, stop_reason=tag),
        response(text + "\nAnd <answer>A</answer>"),
        response(text + "\nAnd", finish="length"),
    ):
        generation = read_reply(body, stop=STOP)
        assert (generation.text, generation.finish) == (text, "stop")
        assert parse_reply(generation.text, PROTOCOL).problem is None


def test_nothing_is_made_up() -> None:
    opened = "<think>So.</think><answer>C"
    assert text_of(response(opened, finish="length")) == opened
    assert read_reply(response(opened, finish="length"), stop=STOP).finish == "length"
    assert text_of(response(opened, stop_reason=None)) == opened, "vLLM says that it ended by itself"
    assert text_of(response(opened, matched_stop=151645)) == opened, "SGLang says so"
    assert read_reply(response(opened)).text == opened, "no stop string was asked for"
    assert text_of(response("<think>So.</think>C")) == "<think>So.</think>C"
    assert text_of(response("")) == ""


@given(st.text(max_size=60), st.sampled_from(["stop", "length"]))
def test_text_without_tags_is_left_alone(text: str, finish: str) -> None:
    if "<" not in text:
        assert text_of(response(text, finish=finish)) == text.encode("utf-8", "replace").decode()


def test_thoughts_of_a_reasoning_parser_come_back() -> None:
    for key in ("reasoning_content", "reasoning"):
        assert text_of(response("<answer>C", **{key: "So."})) == ANSWER
        assert text_of(response(ANSWER, **{key: None})) == ANSWER
    cut = read_reply(response(None, finish="length", reasoning="So"), stop=STOP)
    assert (cut.text, cut.finish) == ("<think>So", "length")


def tool_calls(*arguments: Any) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": PROTOCOL.tool_name, "arguments": one}} for one in arguments
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        json.dumps(ARGUMENTS),
        ARGUMENTS,
        json.dumps(ARGUMENTS[0]),
        ARGUMENTS[0],
        json.dumps({"segments": ARGUMENTS}),
    ],
)
def test_calls_of_a_tool_parser_come_back(arguments: Any) -> None:
    for thought in ({"content": "<think>There.</think>"}, {"content": None, "reasoning": "There."}):
        content = thought.pop("content")
        body = response(content, "tool_calls", tool_calls=tool_calls(arguments), **thought)
        parsed = parse_reply(text_of(body), PROTOCOL)
        assert parsed == parse_reply(LOOK, PROTOCOL)


def test_only_the_first_of_several_calls_was_completed() -> None:
    body = response("<think>There.</think>", "tool_calls", tool_calls=tool_calls(ARGUMENTS, ARGUMENTS))
    assert text_of(body) == LOOK


def test_a_call_that_is_no_json_stays_the_models_fault() -> None:
    text = text_of(response(None, "tool_calls", tool_calls=tool_calls("[1, 2"), reasoning="x"))
    problem = parse_reply(text, PROTOCOL).problem
    assert problem is not None and problem.reason == "call_json"


def test_tokens_are_taken_whole_or_not_at_all() -> None:
    def content(*tokens: str, value: Any = -0.5) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": value} for token in tokens]}

    found = read_reply(
        response("ab", logprobs=content("token_id:7", "token_id:151645", value=1e-9)), logprobs=True
    )
    assert (found.token_ids, found.logprobs) == ((7, 151645), (0.0, 0.0))
    for logprobs in (
        None, {}, content(), content("a", "b"), content("token_id:7", "b"), content("token_id:7", value=None),
        content("token_id:7", value=float("nan")), {"content": [None]}, {"content": "token_id:7"},
    ):  # fmt: skip
        found = read_reply(response("ab", logprobs=logprobs), logprobs=True)
        assert (found.token_ids, found.logprobs) == (None, None)
    unasked = read_reply(response("ab", logprobs=content("token_id:7")))
    assert unasked.token_ids is None
    past = read_reply(response(ANSWER + " more", logprobs=content("token_id:7")), stop=STOP, logprobs=True)
    assert past.token_ids is None, "these are the tokens of a longer text"


def test_a_logprob_that_is_no_number_leaves_the_reply() -> None:
    for value in ("9" * 400, "-" + "9" * 5000, "1e999", "NaN", "-Infinity", "true", "[]"):
        text = json.dumps(response("ab", logprobs={"content": [{"token": "token_id:7", "logprob": 0.5}]}))
        body = parse_json(text.replace("0.5", value), Scrubber([]))
        found = read_reply(body, logprobs=True)
        assert (found.text, found.token_ids, found.logprobs) == ("ab", None, None)


def test_the_choice_of_index_0_is_the_reply() -> None:
    choices = [{**response(text)["choices"][0], "index": index} for index, text in ((1, "b"), (0, "a"))]
    assert text_of({"choices": choices}) == "a"
    assert text_of({"choices": choices[:1]}) == "b"


def test_the_older_form_of_a_call() -> None:
    (call,) = tool_calls(json.dumps(ARGUMENTS))
    body = response(None, "function_call", function_call=call["function"], reasoning="There.")
    assert text_of(body) == LOOK


def test_the_tag_that_was_opened_last_is_closed() -> None:
    thought = "<think>No <tool_call> any more.</think>"
    assert text_of(response(f"{thought}<answer>C")) == f"{thought}<answer>C</answer>"
    assert text_of(response(f"{thought}C")) == f"{thought}C", "a thought opens nothing"
    unended = "<think>An <answer>? No: <tool_call>["
    assert text_of(response(unended)) == f"{unended}</tool_call>"


def test_usage() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    found = read_reply(response("a", usage=usage)).usage
    assert (found.prompt_tokens, found.completion_tokens) == (7, 2)
    for wrong in (
        None,
        [],
        {},
        {"prompt_tokens": "7"},
        {"prompt_tokens": -1},
        {"prompt_tokens": True},
        {"prompt_tokens": 10**90},
    ):
        assert read_reply(response("a", usage=wrong)).usage.prompt_tokens is None


def test_other_shapes_of_text() -> None:
    assert text_of(response([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])) == "ab"
    assert text_of(response(None, refusal="I must not.")) == "I must not."


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"error": {"message": "engine died"}}, "engine died"),
        ({"choices": []}, "no choices"),
        ({"choices": None, "id": 1}, "no choices"),
        ({"choices": [None]}, "no choices"),
        ([1], "not a JSON object"),
        (None, "not a JSON object"),
        (response(None), "content is null"),
        ({"choices": [{"finish_reason": "stop"}]}, "content is null"),
        (response("a", "content_filter"), "content filter"),
        (response("a", "abort"), "'abort'"),
        (response("a", 7), "'7'"),
    ],
)
def test_what_is_no_reply(body: Any, says: str) -> None:
    with pytest.raises(BadReply, match=says):
        read_reply(body, stop=STOP)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["choices", "message", "content", "text", "finish_reason", "tool_calls", "function", "arguments", "name",
             "reasoning", "logprobs", "token", "logprob", "usage", "prompt_tokens", "stop_reason", "error"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@given(JSON, JSON, JSON)
def test_a_response_is_a_generation_or_refused_with_a_reason(choice: Any, message: Any, rest: Any) -> None:
    for body in (rest, {"choices": [choice]}, {"choices": [{"message": message, "finish_reason": "stop"}]}):
        try:
            found = read_reply(body, stop=STOP, logprobs=True)
        except BadReply as refused:
            assert re.search(
                r"not a JSON object|no choices|content filter|broke the reply off|no text", str(refused)
            )
            continue
        assert found.finish in ("stop", "length") and found.error is None
        assert Generation.model_validate_json(found.model_dump_json()) == found, "it can be recorded"
        assert (found.token_ids is None) == (found.logprobs is None)
        assert len(found.token_ids or ()) == len(found.logprobs or ())
