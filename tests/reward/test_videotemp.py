"""VideoTemp-o3's rewards: the figures of its release, the paper's formula, hostile replies."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reward.episodes import answer, broken, call, episode, grounding, question, spans
from tests.reward.hostile import BOMBS, texts
from timeloupe.errors import ConfigError
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward import videotemp
from timeloupe.reward.base import Context
from timeloupe.reward.videotemp import (
    VIDEOTEMP_PARTS,
    has_release_format,
    paired_numbers,
    penalised,
    rescale,
    segments_iou,
)
from timeloupe.trajectory import Example, Trajectory

NOW = Context()
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
TOOL = PROTOCOLS["videotemp"].tool_name
RELEASE_IOU = {"low": 0.2, "high": 0.8, "grounding": "none"}


def released(trajectory: Trajectory) -> tuple[float, ...]:
    """(accuracy, IoU, format, total) as the release pays them: the IoU only where the accuracy is 1."""
    right = videotemp.accuracy(trajectory, NOW, low=0.2, high=0.8, reading="release")
    looked = videotemp.tool_iou(trajectory, NOW, **RELEASE_IOU)  # type: ignore[arg-type]
    form = videotemp.format(trajectory, NOW, grammar="release")
    assert right is not None and looked is not None and form is not None
    paid = looked if right == 1.0 else 0.0
    return (right, paid, form, right + paid + form)


QA, WHEN = question(), grounding()


@pytest.mark.parametrize(
    ("example", "replies", "expected"),
    [
        (QA, [answer("C")], (1, -0.1, 1, 1.9)),
        (QA, [call((10, 20)), answer("C")], (1, 1, 1, 3.0)),
        (QA, [call((10, 30)), answer("C")], (1, 0.5, 1, 2.5)),
        (QA, [call((10, 50)), answer("C")], (1, 0.25 / 3 - 0.1, 1, 1.25 / 3 + 1.5666667)),
        (QA, [call((60, 70)), answer("C")], (1, -0.1, 1, 1.9)),
        (QA, [call((80, 90)), call((10, 20)), answer("C")], (1, 1, 1, 3.0)),
        (QA, [call((10, 20), (50, 60)), answer("C")], (1, 0.5, 1, 2.5)),
        (QA, [call((10, 20)), answer("B")], (0, 0, 1, 1.0)),
        (QA, [call((10, 20)), call((10, 20)), call((10, 20))], (0, 0, 1, 1.0)),
        (WHEN, [answer("[10, 20]")], (1, -0.1, 1, 1.9)),
        (WHEN, [answer("[10, 30]")], (0.5, 0, 1, 1.5)),
        (WHEN, [answer("[10, 22.5]")], (1, -0.1, 1, 1.9)),
        (WHEN, [answer("[10, 20, 30]")], (0, 0, 1, 1.0)),
    ],
)
def test_the_release_pays_what_it_paid(
    example: Example, replies: list[str], expected: tuple[float, ...]
) -> None:
    assert released(episode(example, replies)) == pytest.approx(expected, abs=1e-6)


def test_the_paper_takes_the_penalty_off_the_plain_iou() -> None:
    def looked(*pairs: tuple[float, float]) -> float | None:
        return videotemp.tool_iou(episode(QA, [call(*pairs), answer("A")]), NOW)

    assert looked((10, 20)) == 1.0
    assert looked((10, 30)) == 0.5
    assert looked((10, 110)) == pytest.approx(0.1)  # at the threshold nothing is taken off
    assert looked((10, 111)) == pytest.approx(10 / 101 - 0.1)
    assert looked((60, 70)) == -0.1
    assert videotemp.tool_iou(episode(QA, [answer("C")]), NOW) == -0.1
    assert videotemp.tool_iou(episode(QA, [answer("C")]), NOW, no_call_penalty=0.3) == -0.3
    assert videotemp.tool_iou(episode(QA, [call((60, 70)), answer("C")]), NOW, penalty=0.0) == 0.0
    assert (
        videotemp.tool_iou(episode(QA, [call((10, 30)), answer("C")]), NOW, threshold=0.6, penalty=1.0)
        == -0.5
    )


def test_what_a_grounding_row_is_measured_by() -> None:
    played = episode(WHEN, [call((10, 30)), answer("[10, 20]")])
    assert videotemp.tool_iou(played, NOW) == 1.0
    assert videotemp.tool_iou(played, NOW, grounding="call") == 0.5
    assert videotemp.tool_iou(played, NOW, grounding="none") == -0.1
    assert videotemp.accuracy(episode(WHEN, [answer("[10, 30]")]), NOW) == 0.5
    assert videotemp.accuracy(episode(WHEN, [answer("from 00:10 to 00:30")]), NOW) == 0.5
    assert videotemp.accuracy(episode(WHEN, [answer("10-20")]), NOW) == 1.0
    assert videotemp.accuracy(episode(WHEN, [answer("10-20")]), NOW, reading="release") == 0.0  # [10, -20]


def test_what_was_called_and_what_was_shown() -> None:
    late = question(segments=spans((80, 100)))
    played = episode(late, [call((80, 140)), answer("C")])
    assert videotemp.tool_iou(played, NOW) == pytest.approx(1 / 3)
    assert videotemp.tool_iou(played, NOW, looked="shown") == 1.0  # the video ends at 100 s
    refused = episode(late, [call((120, 140)), answer("C")])
    assert videotemp.tool_iou(refused, NOW, looked="shown") == -0.1
    unreadable = (
        call((1, 2))
        .replace("1.0", '"x"')
        .replace("[{", "[{")
        .replace('"start_time": 1,', '"start_time": "x",')
    )
    assert videotemp.tool_iou(episode(late, [call((80, 100)), unreadable, answer("C")]), NOW) == -0.1


def test_letters_as_the_parser_and_as_the_release_read_them() -> None:
    for text, parsed, release in (
        ("C", 1, 1), ("c", 1, 0), ("(C) an owl", 1, 1), ("The answer is C", 1, 0), ("Cats", 0, 1), ("", 0, 0),
    ):  # fmt: skip
        played = episode(QA, [answer(text)])
        assert videotemp.accuracy(played, NOW) == parsed, text
        assert videotemp.accuracy(played, NOW, reading="release") == release, text


def test_what_cannot_be_scored_is_none() -> None:
    for name, (part, _) in VIDEOTEMP_PARTS.items():
        assert part(broken(QA), NOW) is None, name
    assert videotemp.accuracy(episode(question(answer=None), [answer("C")]), NOW) is None
    assert videotemp.accuracy(episode(question(answer="an owl"), [answer("C")]), NOW) is None
    assert videotemp.accuracy(episode(grounding(segments=()), [answer("[1, 2]")]), NOW) is None
    assert videotemp.tool_iou(episode(question(segments=()), [call((1, 2)), answer("C")]), NOW) is None
    assert videotemp.accuracy(episode(question(task="open", options=()), [answer("C")]), NOW) is None


@pytest.mark.parametrize(
    ("reply", "release", "parsed"),
    [
        (answer("C"), True, True),
        (call((1, 2)), True, True),
        (f" {answer('C')}", False, True),
        (f"{answer('C')}\n", False, True),
        ("<answer>C</answer>", False, False),
        ("<think>a</think> \n <answer></answer>", True, False),
        ("<think>a</think> so <answer>C</answer>", False, False),
        ("<think>a</think><answer>C</answer> and <answer>D</answer>", True, False),
        ("<think>a</think> x </think><answer>C</answer>", True, False),
        ("<think></think><answer>", False, False),
        ("<think></think></answer>", False, False),
        ("<think>a</think><tool_call>{}</tool_call>", False, False),
        (call((1, 2)).replace("1,", '"1",'), True, False),
        (call((1, 2)).replace("get_video", "got_video"), False, False),
        (call(), True, False),  # a call without a segment
        ("<think>a</think><tool_call>[1]</tool_call>", False, False),
        (f"<think><tool_call>x</tool_call></think>{call((1, 2))[19:]}", False, False),
    ],
)
def test_both_grammars(reply: str, release: bool, parsed: bool) -> None:
    assert has_release_format([reply], TOOL) is release
    played = episode(QA, [reply])
    assert videotemp.format(played, NOW, grammar="release") == release
    assert videotemp.format(played, NOW) == parsed


@given(st.lists(st.sampled_from([*TAGS, " ", "\n", "a"]), max_size=8).map("".join))
def test_the_release_grammar_is_that_of_its_pattern(middle: str) -> None:
    for reply in (middle, f"<think>{middle}</answer>", f"<think>a</think>{middle}<answer>{middle}</answer>"):
        pattern = re.compile(r"^<think>.*?</think>\s*<answer>.*?</answer>$", re.DOTALL)
        assert has_release_format([reply], TOOL) is (pattern.fullmatch(reply) is not None)


def test_a_closing_tag_that_the_server_cut_off_is_no_fault() -> None:
    for text in (answer("C").removesuffix("</answer>"), call((1, 2)).removesuffix("</tool_call>")):
        assert videotemp.format(episode(QA, [text]), NOW) == 1
        assert videotemp.format(episode(QA, [text]), NOW, grammar="release") == 1
        assert videotemp.format(episode(QA, [text], finish="length"), NOW) == 0
        assert videotemp.format(episode(QA, [text], finish="length"), NOW, grammar="release") == 0
    assert videotemp.format(Trajectory(example=QA, policy="p", protocol="videotemp", stop="format"), NOW) == 0  # type: ignore[arg-type]


def test_matching() -> None:
    truth = spans((0, 10), (20, 30))
    assert segments_iou([(0, 10), (0, 10)], truth) == 0.5  # each truth is given away once
    assert segments_iou([(0, 5), (0, 10)], truth) == 0.25  # the first comes first
    assert segments_iou([(0, 30)], truth, "union") == pytest.approx(2 / 3)
    assert segments_iou([(0, 10), (0, 10)], truth, "union") == 0.5
    assert segments_iou([], truth) == segments_iou([(0, 10)], []) == 0.0


def test_numbers_in_pairs() -> None:
    assert paired_numbers("24.3-30.4") == ((24.3, -30.4),)
    assert paired_numbers("1 2 3") == ()
    assert paired_numbers("00:24 - 00:30") == ((0, 24), (0, 30))
    assert paired_numbers("\u0661\u0662 to 13.") == ((12, 13),)


@pytest.mark.parametrize(
    "constants",
    [
        {"low": 0.8, "high": 0.2},
        {"high": 1.5},
        {"threshold": -1.0},
        {"penalty": 2.0},
        {"no_call_penalty": float("nan")},
    ],
)
def test_constants_out_of_range_are_refused(constants: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="0 "):
        videotemp.tool_iou(episode(QA, [call((10, 20)), answer("C")]), NOW, **constants)


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1),
    st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda pair: pair[0] < pair[1]),
)  # fmt: skip
def test_the_penalised_iou_stays_in_range(
    iou: float, threshold: float, penalty: float, ends: tuple[float, float]
) -> None:
    value = penalised(rescale(iou, *ends), threshold, penalty)
    assert -penalty <= value <= 1
    assert penalised(rescale(1.0, *ends), threshold, penalty) == 1


@given(st.lists(texts(), min_size=1, max_size=3), st.sampled_from([QA, WHEN]))
def test_every_part_is_in_its_range_whatever_is_said(replies: list[str], example: Example) -> None:
    played = episode(example, replies)
    for constants in ({}, {"reading": "release"}, {"grammar": "release"}, {"looked": "shown"}, RELEASE_IOU):
        for name, (part, (low, high)) in VIDEOTEMP_PARTS.items():
            known = part.__kwdefaults__  # type: ignore[attr-defined]
            value = part(
                played, NOW, **{key: value for key, value in constants.items() if key in (known or {})}
            )
            assert value is not None and low <= value <= high, name


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_quarter_megabyte_is_read_in_linear_time(bomb: str) -> None:
    has_release_format([bomb, f"<think>{bomb}</think><answer>{bomb}</answer>"], TOOL)
    assert segments_iou(paired_numbers(bomb), spans((1, 2), (3, 4))) <= 1
    for example in (QA, WHEN):
        for text in (answer(bomb), bomb):
            played = episode(example, [text])
            assert videotemp.accuracy(played, NOW, reading="release") in (0.0, 1.0)
            assert videotemp.format(played, NOW, grammar="release") in (0.0, 1.0)
