"""Open-o3 Video's rewards: formulas by hand, both readings on episodes, hostile replies."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reward.episodes import answer, broken, episode, grounding, question, spans
from tests.reward.hostile import BOMBS, texts
from timeloupe.errors import ConfigError
from timeloupe.reward import openo3, openo3_release
from timeloupe.reward.base import Context
from timeloupe.reward.openo3 import OPENO3_PARTS, kind_of
from timeloupe.reward.openo3_parse import (
    answered_span,
    block,
    marked_boxes,
    names_a_box,
    raw_claims,
    read_list,
    release_claims,
)
from timeloupe.reward.openo3_terms import Gate, frame_iou, nearest_frame, proximity, sigma_at
from timeloupe.trajectory import Box, Example

NOW = Context()
CUP = Box(at_seconds=10, x1=0.1, y1=0.1, x2=0.5, y2=0.5, label="cup")
DOG = Box(at_seconds=20, x1=0.6, y1=0.6, x2=0.9, y2=0.9, label="dog")

CHOICE = question(segments=())
TIMED_CHOICE = question()
WHEN = grounding()
SPATIAL = question(options=(), task="what_when_where", answer="a red cup", boxes=(CUP, DOG))
VISUAL = question(options=(), task="open", answer=None, boxes=(CUP,))
FREE = question(options=(), task="open", answer="a red cup")
EXAMPLES = (CHOICE, TIMED_CHOICE, WHEN, SPATIAL, VISUAL, FREE)


def claim(box: str = "[100, 100, 500, 500]", at: float | str = 10, label: str = "cup") -> str:
    return f"<obj>{label}</obj><box>{box}</box>at<t>{at}</t>s"


def score(name: str, example: Example, reply: str, context: Context = NOW, **constants: Any) -> float | None:
    played = episode(example, [reply], protocol="openo3")
    return OPENO3_PARTS[f"openo3.{name}"][0](played, context, **constants)


# -- formulas ----------------------------------------------------------------------------------------------------------


def test_the_sigma_schedule() -> None:
    assert [sigma_at(progress) for progress in (0, 0.25, 0.5, 0.75, 1)] == [4, 3, 2, 1, 1]
    assert sigma_at(0.1, 2.0, 2.0, 0.5) == 2.0
    for constants in (
        (0.0, 1.0, 0.5),
        (1.0, -1.0, 0.5),
        (1.0, math.inf, 0.5),
        (1.0, 1.0, 0.0),
        (1.0, 1.0, math.nan),
    ):
        with pytest.raises(ConfigError):
            sigma_at(0.5, *constants)


@given(st.floats(0, 1), st.floats(0, 1))
def test_sigma_falls_and_never_under_its_last_value(one: float, two: float) -> None:
    early, late = sorted((one, two))
    assert 4 >= sigma_at(early) >= sigma_at(late) >= 1


def test_proximity_is_a_gaussian_of_the_nearest_key_time() -> None:
    assert proximity([10, 20], [10, 20], 1) == 1
    assert proximity([11], [10, 20], 2) == pytest.approx(math.exp(-1 / 8))
    assert proximity([10, math.inf, math.nan, 1e300], [10], 1) == 0.25
    with pytest.raises(ValueError, match="no times"):
        proximity([], [1], 1)


def test_gates() -> None:
    paper, release = Gate(), openo3_release.RELEASE_GATE
    assert [paper.lets_in(time, 10) for time in (6.9, 7, 10, 13, 13.1)] == [False, True, True, True, False]
    assert [release.lets_in(time, 10) for time in (9, 9.1, 10, 13, 500)] == [False, True, True, True, True]
    assert not paper.lets_in(math.nan, 10) and not release.lets_in(math.nan, 10)
    assert nearest_frame(15, [10, 20], Gate(tau=5)) == 0  # the first of equals
    assert nearest_frame(15, [10, 20], paper) is None
    assert nearest_frame(math.inf, [10], release) is None
    with pytest.raises(ConfigError, match="tau"):
        Gate(tau=-1)


def test_frame_iou_is_that_of_the_best_object() -> None:
    one, two = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
    half = (0.0, 0.0, 10.0, 5.0)
    assert frame_iou([one], [[half], [two]]) == 0.5
    assert frame_iou([one], [[one, two]]) == 0.5  # the mean over the true boxes of one object
    assert frame_iou([one, two], [[one, two]]) == 1
    assert frame_iou([], [[one]]) == frame_iou([one], []) == frame_iou([one], [[]]) == 0


# -- what the release reads --------------------------------------------------------------------------------------------

PATTERN = re.compile(r"<obj>(.*?)</obj>((?:<box>\[.*?\]</box>)+)at<t>(.*?)</t>s", re.DOTALL)
PARTS = [
    "<obj>",
    "</obj>",
    "<box>[",
    "]</box>",
    "at<t>",
    "</t>s",
    "1,2,3,4",
    "x",
    "\n",
    "</t>",
    "<box>[1,2,3,4]</box>",
]


@given(st.lists(st.sampled_from([*PARTS, claim(), claim(at="5</t>")]), max_size=12).map("".join))
def test_claims_are_cut_where_the_pattern_cuts_them(text: str) -> None:
    assert list(raw_claims(text)) == PATTERN.findall(text)


@given(
    st.lists(
        st.sampled_from(["<box>[", "]</box>", "[1]", "\n", "<box>", "</box>", "\r", "a"]), max_size=12
    ).map("".join)
)
def test_boxes_are_found_where_the_pattern_finds_them(text: str) -> None:
    assert list(marked_boxes(text)) == re.findall(r"<box>(\[.*?\])</box>", text)
    named = text.replace("a", "<obj>cat</obj>")
    assert names_a_box(named) == bool(re.search(r"<obj>(\w+)</obj><box>(\[.*?\])</box>", named))


@given(
    st.text("<t>/s 1.to\u0661", max_size=40),
    st.sampled_from(["<t>1</t>s to <t>2.5</t>s", "<t>2</t>s to <t>1.</t>s", ""]),
)
def test_spans_are_found_where_the_pattern_finds_them(text: str, more: str) -> None:
    found = re.search(r"<t>(\d+\.?\d*)</t>s to <t>(\d+\.?\d*)</t>s", text + more)
    pair = None if found is None else (float(found.group(1)), float(found.group(2)))
    assert answered_span(text + more) == (None if pair is None or pair[1] < pair[0] else pair)


def test_what_is_in_a_claim() -> None:
    (found,) = release_claims(claim('[1, null, "2", true]'))
    assert found.boxes == ([1, None, "2", True],) and found.at_seconds == 10
    assert release_claims(claim("[1, [2]]")) == []  # cut at the first closing bracket, so no JSON
    assert release_claims(claim(at="soon")) == []
    assert release_claims(claim("[" * 5_000 + "]" * 5_000)) == []
    assert release_claims(claim("[\n1]"))[0].boxes == ()
    assert read_list('{"a": 1}') is read_list("[1") is None
    assert block("<think>a", "think") is block("</think><think>", "think") is None
    assert block("<think>a</think>b</think>", "think") == "a"


def test_a_claim_without_a_box_swallows_the_next_object_in_the_release_only() -> None:
    reply = answer("a red cup", f"<obj>man</obj> near {claim()}")
    swallowed = answer("a red cup", f"{claim().removesuffix('at<t>10</t>s')} then {claim(at=20)}")
    for text, parsed, release in ((reply, 1.0, 1.0), (swallowed, 0.0, 0.0)):
        assert score("thought_spatial", SPATIAL, text) == parsed
        assert score("thought_spatial", SPATIAL, text, claims="release") == release
    assert [found.label for found in release_claims(reply)] == ["man</obj> near <obj>cup"]


# -- parts -------------------------------------------------------------------------------------------------------------


def test_kinds() -> None:
    names = [
        "General video QA MCQ",
        "temporal QA (MCQ)",
        "temporal QA",
        "temporal-spatial free-form QA",
        "visual QA",
    ]
    assert [kind_of(example) for example in EXAMPLES] == [*names, "General video QA Free-form"]


def test_answers() -> None:
    assert score("answer_accuracy", CHOICE, answer("The answer is C")) == 1
    assert score("answer_accuracy", CHOICE, answer("The answer is C"), reading="release") == 0
    assert score("answer_accuracy", CHOICE, answer("(C)"), reading="release") == 1
    timed = answer("From <t>10.0</t>s to <t>30</t>s\nCorrect Option: C")
    for reading in ("parsed", "release"):
        assert score("answer_accuracy", TIMED_CHOICE, timed, reading=reading) == 1
        assert score("answer_tiou", TIMED_CHOICE, timed, reading=reading) == 0.5
        assert score("answer_accuracy", SPATIAL, answer("a red cup"), reading=reading) == 1
        assert score("answer_accuracy", SPATIAL, answer("a cup"), reading=reading) == pytest.approx(1.6 / 3)
        assert score("answer_accuracy", WHEN, answer("[10, 20]"), reading=reading) == 0
        assert score("answer_tiou", CHOICE, timed, reading=reading) == 0
    assert score("answer_accuracy", TIMED_CHOICE, answer("C")) == 1
    assert score("answer_accuracy", TIMED_CHOICE, answer("C"), reading="release") == 0
    assert score("answer_tiou", WHEN, answer("from 10 to 30 seconds")) == 0.5
    assert score("answer_tiou", WHEN, answer("from 10 to 30 seconds"), reading="release") == 0
    several = grounding(segments=spans((10, 20), (30, 40)))
    assert score("answer_tiou", several, answer("[10, 20]")) == 0.5
    assert score("answer_tiou", several, answer("[10, 20]"), reading="release") is None


def test_thoughts_about_time() -> None:
    reply = answer("x", "<t>12</t>s, <t>15.5</t>s and <t>50</t>s")
    for reading in ("parsed", "release"):
        assert score("thought_segment", WHEN, reply, reading=reading) == pytest.approx(2 / 3)
        assert score("thought_segment", WHEN, answer("x"), reading=reading) == 0
        near = score("thought_point", SPATIAL, reply, reading=reading)
        assert near == pytest.approx((math.exp(-4 / 32) + math.exp(-(4.5**2) / 32) + math.exp(-900 / 32)) / 3)
        late = score("thought_point", SPATIAL, reply, Context(progress=0.9), reading=reading)
        assert late == pytest.approx((math.exp(-2) + math.exp(-(4.5**2) / 2) + 0) / 3)
    # Step 4 of 10 counts as done while it is scored: the release's progress is (step + 1) / steps.
    fourth = score("thought_point", SPATIAL, reply, Context(progress=0.3, step=0.1))
    assert fourth == score("thought_point", SPATIAL, reply, Context(progress=0.4))
    last = score("thought_point", SPATIAL, reply, Context(progress=0.9, step=0.2))
    assert last == score("thought_point", SPATIAL, reply, Context(progress=1.0)) == late
    clock = answer("x", "<t>00:12</t>s and <t>soon</t>s")
    assert score("thought_segment", WHEN, clock) == 0.5
    assert score("thought_segment", WHEN, clock, reading="release") == 0
    assert score("thought_segment", WHEN, answer("x", "<t>12</t>s and <t>1.2.3</t>s")) == 0.5
    assert score("thought_segment", WHEN, answer("x", "<t>12</t>s and <t>1.2.3</t>s"), reading="release") == 0


def test_thoughts_about_place() -> None:
    half = "[100, 100, 500, 300]"
    assert score("thought_spatial", SPATIAL, answer("x", claim())) == 1
    assert score("thought_spatial", SPATIAL, answer("x", f"{claim(half)} and {claim(at=13)}")) == 0.75
    assert score("thought_spatial", SPATIAL, answer("x", f"{claim()} and {claim(at=6.9)}")) == 0.5
    assert score("thought_spatial", SPATIAL, answer("x", f"{claim()} and <t>4</t>s")) == 1
    assert score("thought_spatial", SPATIAL, answer("x", f"{claim()} and <t>4</t>s"), per="time") == 0.5
    late = answer("x", claim("[600, 600, 900, 900]", at=500))
    assert score("thought_spatial", SPATIAL, late) == 0
    assert score("thought_spatial", SPATIAL, late, gate="signed", tau=1, inclusive=False) == 1
    assert score("thought_spatial", SPATIAL, f"<think>{claim()}</think>") == 0  # no answer
    assert score("thought_spatial", VISUAL, answer("x", f"<box>{half}</box><box>[0, 0, 1, 1]</box>")) == 0.5
    assert score("answer_viou", VISUAL, answer(f"<obj>cup</obj><box>{half}</box>")) == 0.5
    assert (
        score("answer_viou", VISUAL, answer("none"))
        == score("answer_viou", FREE, answer(f"<box>{half}</box>"))
        == 0
    )


def test_boxes_in_pixels_of_the_frame_shown() -> None:
    reply = answer("x", claim("[44.8, 25.2, 224, 126]"))
    pixels = episode(SPATIAL, [reply], protocol="openo3_pixels", size_wh=(448, 252))
    assert openo3.thought_spatial(pixels, NOW) == pytest.approx(1)
    assert openo3.thought_spatial(pixels.model_copy(update={"prompt": ()}), NOW) is None


@pytest.mark.parametrize(
    ("example", "reply", "lenient", "strict"),
    [
        (CHOICE, answer("C"), 1, 1),
        (CHOICE, f"{answer('C')} and {answer('C')}", 1, 0),
        (CHOICE, "<answer>C</answer>", 0, 0),
        (CHOICE, answer("C", "<obj>"), 0, 1),
        (WHEN, answer("x", "<t>1</t>s"), 0.5, 0.5),
        (WHEN, answer("x", "<t>1</t>s <t>2</t>s"), 1, 1),
        (WHEN, answer("x", "<t>one</t>s <t>two</t>s"), 1, 0.5),
        (SPATIAL, answer("x", claim()), 1, 1),
        (SPATIAL, answer("x", f"{claim()} <obj>dog</obj>"), 1, 0.5),
        (SPATIAL, answer("x", "<obj>a</obj> <box>b</box> <t>c</t>"), 1, 0.5),
        (VISUAL, answer("<obj>cup</obj><box>[1, 2, 3, 4]</box>"), 1, 1),
        (VISUAL, answer("<obj>red cup</obj><box>[1, 2, 3, 4]</box>"), 0.5, 1),
        (VISUAL, "", 0, 0),
    ],
)
def test_format(example: Example, reply: str, lenient: float, strict: float) -> None:
    assert score("format", example, reply) == lenient
    assert score("format", example, reply, strict=True) == strict


def test_what_cannot_be_scored_is_none() -> None:
    for name, (part, _) in OPENO3_PARTS.items():
        for example in EXAMPLES:
            assert part(broken(example), NOW) is None, name
    assert score("answer_accuracy", question(answer=None), answer("C")) is None
    assert score("answer_accuracy", FREE.model_copy(update={"answer": None}), answer("C")) is None
    for reading in ("parsed", "release"):
        for name in ("answer_tiou", "thought_segment"):
            assert score(name, grounding(segments=()), answer("[1, 2]"), reading=reading) is None


def test_wrong_truth_raises_what_the_release_raises() -> None:
    reply, frames = answer("x", claim()), [{"idx": 3, "time": 10}]
    with pytest.raises(KeyError):
        openo3_release.thought_spatial(reply, openo3_release.SPATIAL, frames, {}, (448, 252))
    with pytest.raises(ValueError, match="empty"):
        openo3_release.thought_point(reply, openo3_release.SPATIAL, [], 1)
    with pytest.raises(SyntaxError):
        openo3_release.thought_segment(reply, openo3_release.TEMPORAL, "no literal")
    assert (
        openo3_release.answer_tiou(answer("<t>1</t>s to <t>2</t>s"), openo3_release.TEMPORAL, "no literal")
        == 0
    )


# -- hostile replies ---------------------------------------------------------------------------------------------------


def variants(part: Callable[..., Any]) -> list[dict[str, Any]]:
    """The constants of a part that change how a reply is read, one at a time."""
    known = inspect.signature(part).parameters
    options: list[dict[str, Any]] = [
        {"reading": "release"}, {"claims": "release", "gate": "signed", "tau": 1.0}, {"per": "time"}, {"strict": True},
    ]  # fmt: skip
    return [{}, *(option for option in options if option.keys() <= known.keys())]


@given(texts(), texts(), st.sampled_from(EXAMPLES), st.floats(0, 1))
def test_every_part_is_in_its_range_whatever_is_said(
    thought: str, text: str, example: Example, progress: float
) -> None:
    for reply in (thought, answer(text, thought)):
        played = episode(example, [reply], protocol="openo3")
        for name, (part, (low, high)) in OPENO3_PARTS.items():
            for constants in variants(part):
                value = part(played, Context(progress=progress), **constants)
                assert value is not None and low <= value <= high, (name, constants)


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_quarter_megabyte_is_read_in_linear_time(bomb: str) -> None:
    half = bomb[: len(bomb) // 2]  # thought and answer share it
    for example in (TIMED_CHOICE, SPATIAL, VISUAL):
        played = episode(example, [f"<think>{half}</think><answer>{half}</answer>"], protocol="openo3")
        for name, (part, (low, high)) in OPENO3_PARTS.items():
            for constants in variants(part):
                value = part(played, NOW, **constants)
                assert value is not None and low <= value <= high, (name, constants)
