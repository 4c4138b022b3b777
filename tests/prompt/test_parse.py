"""Replies: what is read, what is refused and why, and that nothing makes the parser raise or wait."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import timeloupe.prompt
from timeloupe.prompt import option, parse, segments
from timeloupe.prompt.build import write_call, write_segments
from timeloupe.prompt.parse import check_format, parse_reply
from timeloupe.prompt.protocol import PROTOCOLS, Protocol
from timeloupe.trajectory import Segment

VIDEOTEMP, SMALL = PROTOCOLS["videotemp"], PROTOCOLS["small"]
CALL = '{"name":"get_video_clip_frame","arguments":[{"start_time":68,"end_time":97}]}'


def call_of(**changes: object) -> str:
    """A reply with a call whose keys are changed."""
    body = {"name": "get_video_clip_frame", "arguments": [{"start_time": 68, "end_time": 97}]} | changes
    return f"<think>x</think><tool_call>{json.dumps(body)}</tool_call>"


def with_times(start: str, end: str) -> str:
    """A reply with a call whose times are written so."""
    body = f'{{"name":"get_video_clip_frame","arguments":[{{"start_time":{start},"end_time":{end}}}]}}'
    return f"<think>x</think><tool_call>{body}</tool_call>"


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_a_call(protocol: Protocol) -> None:
    parsed = parse_reply(f"<think> Not seen. </think>\n<tool_call>\n{CALL}\n</tool_call>\n", protocol)
    assert parsed.thought == "Not seen."
    assert parsed.answer is None and parsed.problem is None and parsed.call is not None
    assert parsed.call.segments == (Segment(start_seconds=68, end_seconds=97),)
    assert check_format(f"<think>x</think><tool_call>{CALL}</tool_call>", protocol) is None


def test_a_call_with_several_segments_keeps_their_order() -> None:
    arguments = [{"start_time": 50.5, "end_time": 60}, {"start_time": 1, "end_time": 2.25}]
    parsed = parse_reply(call_of(arguments=arguments), VIDEOTEMP)
    assert parsed.call is not None
    assert [(one.start_seconds, one.end_seconds) for one in parsed.call.segments] == [
        (50.5, 60.0),
        (1.0, 2.25),
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=lambda protocol: protocol.name)
def test_a_grounding_answer_in_the_protocols_own_form(protocol: Protocol) -> None:
    truth = (Segment(start_seconds=68, end_seconds=105), Segment(start_seconds=200, end_seconds=230))
    for wanted in (truth[:1], truth):
        text = f"<think>x</think><answer>{write_segments(wanted, protocol)}</answer>"
        parsed = parse_reply(text, protocol)
        assert parsed.answer is not None and parsed.answer.segments == wanted and parsed.answer.option is None


def test_a_letter() -> None:
    parsed = parse_reply("<think>x</think><answer> B. a cat </answer>", VIDEOTEMP, num_options=4)
    assert parsed.answer is not None
    assert (parsed.answer.text, parsed.answer.option, parsed.answer.segments) == ("B. a cat", "B", ())


def test_times_in_the_text_of_an_option_are_no_evidence() -> None:
    parsed = parse_reply("<think>x</think><answer>B. 10 to 20 seconds</answer>", VIDEOTEMP, num_options=4)
    assert parsed.answer is not None and parsed.answer.option == "B" and parsed.answer.segments == ()
    text = "<think>x</think><answer>From <t>10</t>s to <t>20</t>s\nCorrect Option: B</answer>"
    parsed = parse_reply(text, PROTOCOLS["openo3"], num_options=4)
    assert parsed.answer is not None and parsed.answer.option == "B"
    assert parsed.answer.segments == (Segment(start_seconds=10, end_seconds=20),)


@pytest.mark.parametrize(
    ("inside", "num_options"), [("a red vest", 0), ("a red vest", 4), ("[20, 10]", 0), ("A or B", 4)]
)
def test_an_answer_that_cannot_be_read_further_is_an_answer(inside: str, num_options: int) -> None:
    parsed = parse_reply(f"<think>x</think><answer>{inside}</answer>", VIDEOTEMP, num_options=num_options)
    assert parsed.answer is not None
    assert (parsed.answer.text, parsed.answer.option, parsed.answer.segments) == (inside, None, ())


def test_a_server_that_strips_stop_strings() -> None:
    """VideoTemp-o3's release takes the whole text for the answer here (its defect 1)."""
    for inside, reply in (("C", "<answer>C"), (CALL, f"<tool_call>{CALL}")):
        parsed = parse_reply(f"<think>x</think>{reply}", SMALL, num_options=4, closed=False)
        assert parsed.problem is None
        assert (parsed.answer.option if parsed.answer else parsed.call) in (
            "C",
            parse.parse_call(inside, SMALL),
        )
        cut = parse_reply(f"<think>x</think>{reply}", SMALL, num_options=4)
        assert cut.problem is not None and cut.problem.reason == "action_unclosed"


def test_a_thought_may_be_missing_where_a_server_can_have_taken_it() -> None:
    text = "<answer>C</answer>"
    assert parse_reply(text, VIDEOTEMP, num_options=4).answer is not None
    required = parse_reply(text, dataclasses.replace(VIDEOTEMP, requires_think=True), num_options=4)
    assert required.problem is not None and required.problem.reason == "think_missing"
    judged = check_format(text, VIDEOTEMP)
    assert judged is not None and judged.reason == "think_missing"


def test_a_thought_that_the_chat_template_opened() -> None:
    text = "so\n</think><answer>C</answer>"
    for protocol in (VIDEOTEMP, SMALL):
        parsed = parse_reply(text, protocol, num_options=4)
        assert parsed.answer is not None and parsed.thought == "so"
        assert check_format(text, protocol, think_opened=True) is None
        judged = check_format(text, protocol)
        assert judged is not None and judged.reason == "think_missing"


REFUSED = {
    "": "empty",
    " \n\t": "empty",
    "[68, 105]": "think_missing",
    "<answer>C</answer>": "think_missing",
    "<think>x": "think_unclosed",
    "<think>x <answer>C</answer>": "think_unclosed",
    "</think><think>x<answer>C</answer>": "think_unclosed",
    "<think>x</think><think>y</think><answer>C</answer>": "think_repeated",
    "<think><think>x</think><answer>C</answer>": "think_repeated",
    "<think>x</think></think><answer>C</answer>": "think_repeated",
    "Sure. <think>x</think><answer>C</answer>": "text_before_think",
    "<think>x <answer>C</answer> y</think><answer>B</answer>": "tag_in_thought",
    "<think>x </tool_call></think><answer>B</answer>": "tag_in_thought",
    "<answer>B</answer><think>x</think>": "text_before_think",
    "<think>x</think>": "action_missing",
    "<think>x</think>C": "action_missing",
    "<think>x</think></answer>": "action_missing",
    "<think>x</think><Answer>C</Answer>": "action_missing",
    "<think>x</think><answer>C": "action_unclosed",
    f"<think>x</think><tool_call>{CALL}": "action_unclosed",
    "<think>x</think><answer>C</tool_call>": "action_unclosed",
    "<think>x</think><answer>B</answer><answer>C</answer>": "action_repeated",
    "<think>x</think><answer>B</answer></answer>": "action_repeated",
    f"<think>x</think><tool_call>{CALL}</tool_call><tool_call>{CALL}</tool_call>": "action_repeated",
    f"<think>x</think><tool_call>{CALL}</tool_call><answer>C</answer>": "call_and_answer",
    "<think>x</think>So: <answer>C</answer>": "text_before_action",
    "<think>x</think></answer><answer>C": "text_before_action",
    "<think>x</think><answer>C</answer> I hope so.": "trailing_text",
    "<think>x</think><answer>C</answer></tool_call>": "trailing_text",
    "<think>x</think><answer> </answer>": "answer_empty",
    "<think>x</think><tool_call></tool_call>": "call_json",
    "<think>x</think><tool_call>{'name': 'x'}</tool_call>": "call_json",
    "<think>x</think><tool_call>{</tool_call>": "call_json",
    "<think>x</think><tool_call>" + "[" * 9000 + "</tool_call>": "call_json",
    "<think>x</think><tool_call>" + '{"a":' * 1900 + "</tool_call>": "call_json",
    "<think>x</think><tool_call>" + " " * 10_001 + "</tool_call>": "call_too_long",
    f"<think>x</think><tool_call>```json\n{CALL}\n```</tool_call>": "call_json",
    with_times('1, "start_time": 2', "3"): "call_json",
    "<think>x</think><tool_call>[]</tool_call>": "call_keys",
    '<think>x</think><tool_call>{"name": "get_video_clip_frame"}</tool_call>': "call_keys",
    call_of(id=1): "call_keys",
    call_of(name="crop_video"): "call_tool",
    call_of(name=["get_video_clip_frame"]): "call_tool",
    call_of(arguments=None): "call_arguments",
    call_of(arguments={"segments": {"start_time": 1, "end_time": 2}}): "call_arguments",
    call_of(arguments={"segments": []}): "call_empty",
    call_of(arguments={}): "segment_keys",
    call_of(arguments={"segments": [{"start_time": 1, "end_time": 2}], "video": "a.mp4"}): "segment_keys",
    call_of(arguments=[]): "call_empty",
    call_of(arguments=[[1, 2]]): "segment_keys",
    call_of(arguments=[{"start_time": 1}]): "segment_keys",
    call_of(arguments=[{"start": 1, "end": 2}]): "segment_keys",
    call_of(arguments=[{"start_time": 1, "end_time": 2, "fps": 4}]): "segment_keys",
    with_times('"68"', "97"): "segment_not_number",
    with_times("null", "97"): "segment_not_number",
    with_times("true", "97"): "segment_not_number",
    with_times("[1]", "97"): "segment_not_number",
    with_times("NaN", "97"): "segment_not_finite",
    with_times("1", "Infinity"): "segment_not_finite",
    with_times("1", "1e999"): "segment_not_finite",
    with_times("1", "1" * 400): "segment_not_finite",
    with_times("1", "1" * 9000): "segment_not_finite",
    with_times("1", "1000000000000"): "segment_not_finite",
    with_times("-1", "5"): "segment_negative",
    with_times("97", "68"): "segment_empty",
    with_times("5", "5"): "segment_empty",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:50])
def test_refuses(text: str) -> None:
    parsed = parse_reply(text, SMALL, num_options=4)
    assert parsed.problem is not None and parsed.call is None and parsed.answer is None
    assert parsed.problem.reason == REFUSED[text]
    assert len(parsed.problem.message) < 300
    judged = check_format(text, SMALL)
    assert judged is not None and judged.reason == REFUSED[text]


def test_one_wrong_segment_refuses_the_call() -> None:
    arguments = [{"start_time": 1, "end_time": 2}, {"start_time": 4, "end_time": 3}]
    parsed = parse_reply(call_of(arguments=arguments), VIDEOTEMP)
    assert parsed.problem is not None and parsed.problem.reason == "segment_empty"


def test_minus_zero_is_zero() -> None:
    parsed = parse_reply(with_times("-0.0", "5"), VIDEOTEMP)
    assert parsed.call is not None and str(parsed.call.segments[0].start_seconds) == "0.0"


def test_every_reason_is_listed_in_the_docstrings() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(timeloupe.prompt.__path__[0]).glob("*.py")]
    used = {
        reason for source in sources
        for reason in re.findall(r'(?:_problem\(|_refuse\(|RefusedText\(|reason=|reason = )\s*"([a-z_]+)"', source)
    }  # fmt: skip
    assert len(used) > 30
    listed = " ".join(module.__doc__ or "" for module in (parse, segments, option))
    assert not [reason for reason in used if not re.search(rf"\b{reason}\b", listed)]


seconds = st.floats(min_value=0, max_value=1e6).map(lambda value: round(value, 3))
some_segments = st.lists(
    st.tuples(seconds, seconds).filter(lambda pair: pair[0] < pair[1]), min_size=1, max_size=4
)


@given(spans=some_segments)
def test_a_written_call_is_read_back(spans: list[tuple[float, float]]) -> None:
    wanted = tuple(Segment(start_seconds=start, end_seconds=end) for start, end in spans)
    parsed = parse_reply(f"<think>x</think>{write_call(wanted, VIDEOTEMP)}", VIDEOTEMP)
    assert parsed.call is not None and parsed.call.segments == wanted


PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<answer>",
        "</answer>",
        CALL,
        "{",
        "}",
        "[",
        "]",
        '"',
        "B",
        "x",
    ]
    + [
        " ",
        "\n",
        "10-20",
        "1e999",
        "-",
        "<obj>",
        "</obj>",
        "<box>[1,2,3,4]</box>",
        "at<t>5</t>s",
        "\x00",
        "\ud800",
        "🎬",
    ]
)


@settings(max_examples=400)
@given(
    text=st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=12).map("".join)),
    name=st.sampled_from(sorted(PROTOCOLS)), num_options=st.integers(0, 26), closed=st.booleans(),
)  # fmt: skip
def test_any_text_gives_exactly_one_outcome(text: str, name: str, num_options: int, closed: bool) -> None:
    parsed = parse_reply(text, PROTOCOLS[name], num_options=num_options, closed=closed)
    assert [parsed.call, parsed.answer, parsed.problem].count(None) == 2
    if parsed.call is not None:
        numbers = {float(run) for run in re.findall(r"[0-9]+(?:\.[0-9]+)?", text)}
        assert {
            time for one in parsed.call.segments for time in (one.start_seconds, one.end_seconds)
        } <= numbers


@pytest.mark.parametrize(
    "unit",
    [
        "<",
        "<think>",
        "</think>",
        "<answer>",
        "<tool_call>",
        "[",
        "{",
        "x",
        " ",
        "<obj>",
        "<obj>a</obj>",
        "<box>",
        "1",
        "\n",
    ]
    + ["<obj>a</obj><box>[1,2,3,4]</box>", "<obj>a</obj>" + " <box>[1,2,3,4]</box>" * 16],
)
def test_a_megabyte_takes_no_time(unit: str) -> None:
    flood = (unit * 1_000_000)[:1_000_000]
    started = time.process_time()
    for text in (
        flood,
        f"<think>{flood}</think><answer>{flood}</answer>",
        f"<think>x</think><tool_call>{flood}",
    ):
        parse_reply(text, VIDEOTEMP, num_options=4, closed=False)
        check_format(text, VIDEOTEMP)
    assert time.process_time() - started < 6.0


def test_arguments_may_be_an_object_as_tool_parsers_write_them() -> None:
    listed = parse_reply(call_of(arguments=[{"start_time": 1, "end_time": 2}]), VIDEOTEMP)
    assert listed.call is not None
    for arguments in ({"start_time": 1, "end_time": 2}, {"segments": [{"start_time": 1, "end_time": 2}]}):
        assert parse_reply(call_of(arguments=arguments), VIDEOTEMP) == listed
