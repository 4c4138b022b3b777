"""The teacher: what it says is readable, true, and uses no time that no frame carries."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.grounding import tiou
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Segment
from timeloupe.video.sampling import uniform_times
from timeloupe.world.script import generator, make_script
from timeloupe.world.teacher import (
    Teacher,
    bracket,
    frame_facts,
    make_question,
    question_of,
    relevance_labels,
    to_example,
    whole_seconds,
)

SMALL = PROTOCOLS["small"]
indices = st.integers(0, 5000)
tasks = st.sampled_from(["grounding", "multiple_choice"])


@settings(max_examples=60, deadline=None)
@given(indices, tasks, st.booleans(), st.booleans())
def test_replies_parse_and_use_only_times_shown(index: int, task: str, tools: bool, last: bool) -> None:
    script = make_script(7, index)
    question = make_question(script, task, index)  # type: ignore[arg-type]
    times = uniform_times(0, script.duration_seconds, 16)
    text = Teacher(script, question).reply([times], tools=tools, must_answer=last)
    parsed = parse_reply(text, SMALL, num_options=len(question.options))
    assert parsed.problem is None, text
    assert (parsed.call is None) == (not tools or last)
    shown = {whole_seconds(time) for time in times}
    numbers = [int(number) for number in re.findall(r'(?:"start_time":|"end_time":|\[|, )(\d+)', text)]
    assert all(number in shown or number - 1 in shown for number in numbers)
    if parsed.answer is not None and task == "multiple_choice":
        assert parsed.answer.option == question.answer
        assert question.options["ABCD".index(question.answer or "")] == str(question.event.digit)


@settings(max_examples=60, deadline=None)
@given(indices)
def test_a_dense_look_grounds_the_event(index: int) -> None:
    script = make_script(8, index)
    question = make_question(script, "grounding", index)
    event = question.event.segment
    start, end = max(event.start_seconds - 8, 0), min(event.end_seconds + 8, script.duration_seconds)
    times = uniform_times(start, end, 200)
    text = Teacher(script, question).reply([(0.0,), times], tools=True)
    answer = parse_reply(text, SMALL).answer
    assert answer is not None
    assert tiou(answer.segments[0], event) > 0.75


@settings(max_examples=60, deadline=None)
@given(indices)
def test_labels_say_what_the_frames_show(index: int) -> None:
    script = make_script(9, index)
    question = make_question(script, "grounding", index)
    facts = frame_facts(script, question, uniform_times(0, script.duration_seconds, 64))
    labels = relevance_labels(facts)
    for fact, label in zip(facts, labels, strict=True):
        assert fact.in_event == (label in ("event", "event_first") or label.isdigit())
        if label.isdigit():
            assert int(label) == question.event.digit == fact.digit
        if label in ("scene", "scene_first"):
            assert fact.in_scene
        if label == "none":
            assert not fact.in_scene
    assert labels.count("event_first") <= 1


def test_bracket_takes_the_neighbours() -> None:
    times = [10.0, 20.0, 30.0, 40.0, 50.0]
    assert bracket(times, [False, True, True, False, False]) == (10, 40)
    assert bracket(times, [True, False, False, False, True]) == (10, 50)
    assert bracket(times, [False] * 5) == (10, 50)
    assert bracket([10.2], [True]) == (10, 11)


def test_the_row_finds_its_question_again() -> None:
    script = make_script(4, 2)
    question = make_question(script, "multiple_choice", 1)
    assert question_of(script, to_example(question, id="x", video="v")) == question


@settings(max_examples=40, deadline=None)
@given(indices)
def test_a_wrong_segment_is_wrong(index: int) -> None:
    script = make_script(10, index)
    question = make_question(script, "grounding", index)
    wrong = Teacher(script, question).wrong_segment(generator("test", index))
    if wrong is not None:
        assert isinstance(wrong, Segment)
        assert tiou(wrong, question.event.segment) == 0
        assert wrong.end_seconds <= script.duration_seconds
