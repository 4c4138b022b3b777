"""The timeline of a world video: what an observer of some frames writes, and nothing that no frame carries."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.grounding import tiou
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.taro import read_window, score_format
from timeloupe.video.sampling import skim_times
from timeloupe.world.script import ScriptSettings, make_script
from timeloupe.world.teacher import make_question, whole_seconds
from timeloupe.world.timeline import grounding_reply, some_lines, timeline

SHORT = ScriptSettings(min_seconds=60, max_seconds=100)
LINE = re.compile(r"(\d+)s to (\d+)s (\w+) (\w+)")


@given(index=st.integers(0, 10_000), frames=st.sampled_from([4, 16, 24, 64]))
def test_lines_are_in_order_and_hold_no_time_but_those_of_frames(index: int, frames: int) -> None:
    script = make_script(3, index, SHORT)
    times = skim_times(script.duration_seconds, fps=2.0, max_frames=frames)
    printed = {whole_seconds(time) for time in times}
    read = [match.groups() for line in timeline(script, times) if (match := LINE.fullmatch(line))]
    assert len(read) == len(timeline(script, times)) > 0
    starts = [int(one[0]) for one in read]
    assert starts == sorted(starts) and set(starts) <= printed
    # An end may lie a second behind its start where both are one frame's.
    assert all(int(end) in printed or int(end) == int(start) + 1 for start, end, *_ in read)
    shown = {f"{script.scenes[script.scene_at(time)].colour} scene" for time in times}
    shown |= {
        f"{script.scenes[event.scene_index].colour} {event.shape}"
        for time in times
        if (event := script.event_at(time)) is not None
    }
    assert {f"{colour} {thing}" for _, _, colour, thing in read} == shown


def test_every_frame_shown_brings_the_whole_timeline_to_the_second() -> None:
    script = make_script(3, 1, SHORT)
    lines = timeline(script, np.arange(0, script.duration_seconds, 0.25).tolist())
    assert len(lines) == len(script.scenes) + len(script.events)
    first = script.events[0].segment
    expected = f"{script.scenes[0].colour} {script.events[0].shape}"
    start, end = next(map(int, LINE.fullmatch(line).groups()[:2]) for line in lines if expected in line)  # type: ignore[union-attr]
    assert abs(start - first.start_seconds) <= 1 and abs(end - first.end_seconds) <= 1


@given(index=st.integers(0, 1000), timed=st.booleans())
def test_replies_are_read_by_the_protocol_and_by_the_reward(index: int, timed: bool) -> None:
    script = make_script(3, index, SHORT)
    question = make_question(script, "grounding", 0)
    times = skim_times(script.duration_seconds, fps=2.0, max_frames=24)
    whole, asked = timeline(script, times), timeline(script, times, question)
    assert set(asked) <= set(whole) and 1 <= len(asked) <= 2
    lines = some_lines(whole, np.random.default_rng(index)) if timed else ()
    text = grounding_reply(script, question, times, lines)
    answer = parse_reply(text, PROTOCOLS["small"]).answer
    assert answer is not None and score_format(text) == 1
    (found,) = answer.segments
    assert read_window(text) == (found.start_seconds, found.end_seconds)
    assert tiou(found, question.event.segment) > 0
    assert all(line in text for line in lines)


def test_a_line_is_nine_tokens_of_the_small_model() -> None:
    from timeloupe.model.load import load_model

    script = make_script(3, 1, SHORT)
    lines = timeline(script, skim_times(script.duration_seconds, fps=2.0, max_frames=24))
    encode = load_model(SMALL_CHECKPOINT, device="cpu").layout.encode
    assert all(len(encode(f"{line}\n")) == 9 for line in lines)


def test_a_part_of_the_lines_keeps_their_order() -> None:
    lines = list("abcdefg")
    parts = [some_lines(lines, np.random.default_rng(seed)) for seed in range(200)]
    assert all(part == sorted(part) and 1 <= len(part) <= 7 for part in parts)
    assert {len(part) for part in parts} == set(range(1, 8))
