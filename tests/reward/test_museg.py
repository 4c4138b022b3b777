"""MUSEG's rewards: by hand where the figure is plain, against the release's own words for search and merging."""

from __future__ import annotations

import math
import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reward.episodes import answer, broken, call, episode, grounding, question, spans
from tests.reward.hostile import BOMBS, texts
from timeloupe.errors import ConfigError
from timeloupe.reward import museg
from timeloupe.reward.base import Context
from timeloupe.reward.museg import MUSEG_PARTS, score_format, score_global, score_local, score_segments
from timeloupe.reward.museg_mentions import mentions_as_number, mentions_as_pattern

NOW = Context()
THOUGHT = "it begins at 3.5 s and ends at 9.25 s"


@pytest.mark.parametrize(
    ("text", "named", "unnamed"),
    [
        (answer("3.5-9.25", THOUGHT), 1.0, 1.0),
        (f"\n {answer('3.50-9.25 ', THOUGHT)} \n", 1.0, 1.0),
        (answer("3.5-9.5", THOUGHT), 0.6, 1.0),
        (answer("3.5-9.2", THOUGHT), 1.0, 1.0),  # found inside 9.25
        (answer("9.25-3.5", THOUGHT), 1.0, 1.0),
        (answer("", THOUGHT), 1.0, 1.0),
        (answer("3.5 - 9.25", THOUGHT), 0.2, 0.2),
        (answer("3.5-9.25, 10-12", THOUGHT), 0.2, 0.2),
        (answer("-3.5-9.25", THOUGHT), 0.2, 0.2),
        (answer("3.5-9.25-12", THOUGHT), 1.0, 1.0),
        (answer("3-9", "3x0 and 9\n0"), 1.0, 1.0),  # the point stands for any character
        (answer("1e17-1e17", "1eeee17"), 1.0, 1.0),  # and the plus for one or more
        (answer("5.0-6.0", "5.0 " * 10 + "6.0"), 1.0, 1.0),
        (answer("5.0-6.0", "5.0 " * 11 + "6.0"), 0.6, 1.0),
        (answer("3.5-9.25", "<think>3.5 9.25"), 0.0, 0.0),
        ("<answer>3.5-9.25</answer><think>3.5 9.25</think>", 0.0, 0.0),
        ("</think><think>3.5 9.25<answer>3.5-9.25</answer>", 0.0, 0.0),
        ("<think>3.5 9.25</think> so <answer>3.5-9.25</answer>", 0.0, 0.0),
        (answer("3.5-9.25", THOUGHT) + ".", 0.0, 0.0),
        ("3.5-9.25", 0.0, 0.0),
    ],
)
def test_format(text: str, named: float, unnamed: float) -> None:
    assert score_format(text, timestamps=True) == named
    assert score_format(text, timestamps=False) == unnamed


def test_options_of_the_format() -> None:
    inside_another = answer("3.5-9.2", THOUGHT)
    assert score_format(inside_another, timestamps=True, match="number") == 0.6
    assert score_format(answer("3.50-9.25", THOUGHT), timestamps=True, match="number") == 1.0
    assert score_format(answer("3-13", "at 3 and 13.0"), timestamps=True, match="number") == 1.0
    assert score_format(answer("3-13", "at 3 and 13"), timestamps=True, match="number") == 1.0
    assert score_format(answer("3-13", "at 3 and 13"), timestamps=True) == 0.6  # "3.0" is looked for
    assert score_format(answer("", THOUGHT), timestamps=False, require_segment=True) == 0.2
    assert score_format(inside_another, timestamps=True, match="number", unnamed=0.5) == 0.5
    assert score_format(answer("soon"), timestamps=True, unreadable=0.1) == 0.1
    assert score_format(answer("5-6", "5.0 5.0 6.0"), timestamps=True, max_mentions=1) == 0.6
    with pytest.raises(ConfigError, match=r"'unnamed' of a reward, got 1\.5, allowed: 0 to 1"):
        score_format("", timestamps=True, unnamed=1.5)


def matched(inside: str, truth: Any, **options: Any) -> tuple[float, float]:
    text = answer(inside)
    whole = {name: value for name, value in options.items() if name in ("measure", "merge_truth", "guard")}
    local = {name: value for name, value in options.items() if name in ("pairing", "guard")}
    both = score_global(text, truth, **whole), score_local(text, truth, **local)
    assert score_segments(text, truth, **options) == pytest.approx(sum(both), nan_ok=True)
    return both


@pytest.mark.parametrize(
    ("inside", "truth", "expected"),
    [
        ("0-10", [[0, 10]], (1, 1)),
        ("0-10", [0, 10], (1, 0)),  # flat integers: only the global matching knows them
        ("0-10", [0.0, 10.0], (0, 0)),
        ("5-15", [[0, 10]], (1 / 2, (1 + 1 / 3) / 2)),
        ("20-30", [[0, 10]], (0, 1 / 3)),
        ("20-30 0-10", [[0, 10], [20, 30]], (1, 1 / 3)),
        ("0-10", [[0, 10], [20, 30]], (2 / 3, 1 / 2)),
        ("0-6 4-10", [[0, 10]], (1, 0.4)),
        ("0-10 10-20", [[0, 20]], (1, 3 / 8)),  # those that touch are one
        ("0-15", [[0, 10], [5, 15]], (2 * (20 / 15) / (1 + 20 / 15), 5 / 12)),
        ("0-10", [[0, 10], [0, 10]], (4 / 3, 1 / 2)),
        ("", [[0, 10]], (0, 0)),
        ("", [], (0, 0)),
        ("10-0", [[0, 10]], (0, 0)),
        ("5-5", [[0, 10]], (0, 0)),
        ("nan-10", [[0, 10]], (0, 0)),
        ("0-10 soon", [[0, 10]], (0, 0)),
        ("0-5", [[5, 5]], (0, 1 / 2)),
        ("0-10", [[10, 0]], (0, 0)),
        ("0-inf", [[0, 10]], (0, 0)),
        ("0-1e400", [[0, 10]], (0, 0)),
        ("0-10", None, (0, 0)),
    ],
)
def test_matching(inside: str, truth: Any, expected: tuple[float, float]) -> None:
    assert matched(inside, truth) == pytest.approx(expected, abs=2e-6)


def test_infinity_is_guarded_unless_asked_otherwise() -> None:
    whole, local = matched("0-inf", [[0, 10]], guard=False)
    assert whole == 0.0 and math.isnan(local)
    assert math.isnan(score_local(answer("0-inf"), [[0, 10]], pairing="best", guard=False))


def test_options_of_the_matching() -> None:
    twice = [[0, 10], [5, 15]]
    assert matched("0-15", twice, merge_truth=True)[0] == pytest.approx(1, abs=2e-6)
    assert matched("5-15", [[0, 10]], measure="iou")[0] == pytest.approx(1 / 3)
    assert matched("0-15", twice, measure="iou")[0] == 1.0
    apart = [[0, 10], [20, 30]]
    assert matched("20-30 0-10", apart, pairing="sorted")[1] == 1.0
    assert matched("20-30 0-10", apart, pairing="best")[1] == 1.0
    # One too many at the front: order and sorting pair nothing right, the best pairing both.
    assert matched("0-1 10-20 30-40", [[10, 20], [30, 40]], pairing="sorted")[1] < 0.4
    assert matched("0-1 10-20 30-40", [[10, 20], [30, 40]], pairing="best")[1] == pytest.approx(2 / 3)
    assert matched("", apart, pairing="best") == (0.0, 0.0)
    assert matched("", [], pairing="best") == (0.0, 0.0)
    with pytest.raises(KeyError):
        score_local(answer("1-2"), apart, pairing="any")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["0-10", "<answer>0-10", "</answer>0-10<answer>", "<answer>0-10</answer><answer>0-10</answer>"]
)
def test_an_answer_must_stand_there_once(text: str) -> None:
    assert score_segments(text, [[0, 10]]) == 0.0
    assert score_segments(f"no thought, {answer('0-10')}, and more", [[0, 10]]) == pytest.approx(2, abs=2e-6)


numbers = st.sampled_from(
    [
        1.0,
        3.0,
        3.5,
        13.0,
        1.3,
        0.1,
        33.3,
        313.1,
        1e16,
        1e17,
        1.5e17,
        1.31e18,
        1e-5,
        3.1e-7,
        math.nan,
        math.inf,
    ]
)


@given(
    st.one_of(
        *(st.text(letters, max_size=60) for letters in ("13.e", "1e+7", "0135. ", "31\n.x", "nanif")),
        st.lists(numbers.map(str), max_size=8).map("".join),
        st.lists(st.sampled_from(["1", "3", "e", "ee", "17", "-05", "-07", "18", ".", "5", "inf"])).map(
            "".join
        ),
    ),
    st.lists(numbers, max_size=6),
)
def test_mentions_are_those_of_the_releases_search(thought: str, times: list[float]) -> None:
    expected = {str(time): len(re.findall(str(time), thought, re.DOTALL)) for time in times}
    assert mentions_as_pattern(thought, times) == expected


@given(st.floats(min_value=0, exclude_min=False, allow_nan=False), st.integers(0, 3))
def test_every_time_is_found_where_it_stands(time: float, number: int) -> None:
    assert mentions_as_pattern(f" {time} |" * number, [time]) == {
        str(time): len(re.findall(str(time), f" {time} |" * number))
    }


def test_numbers_are_compared_by_value() -> None:
    assert mentions_as_number("3 3.0 3.00 13.0 30 0.3 x3s 3.", [3.0, 13.0, 7.0]) == {
        "3.0": 5,
        "13.0": 1,
        "7.0": 0,
    }
    assert mentions_as_number("inf nan", [math.inf, math.nan]) == {"inf": 0, "nan": 0}


pair = st.tuples(st.integers(0, 40), st.integers(1, 20)).map(lambda one: (one[0] / 2, (one[0] + one[1]) / 2))


@given(st.lists(pair, min_size=1, max_size=8), st.lists(pair, min_size=1, max_size=5))
def test_matching_in_exact_numbers(predicted: list[Any], truth: list[Any]) -> None:
    text = answer(" ".join(f"{start}-{end}" for start, end in predicted))
    ticks = {tick for start, end in predicted for tick in range(int(2 * start), int(2 * end))}
    true_ticks = [tick for start, end in truth for tick in range(int(2 * start), int(2 * end))]
    common = sum(tick in ticks for tick in true_ticks)
    assert score_global(text, truth) == pytest.approx(2 * common / (len(ticks) + len(true_ticks)), abs=3e-6)
    merged = score_global(text, truth, merge_truth=True)
    both = set(true_ticks)
    assert merged == pytest.approx(2 * len(both & ticks) / (len(ticks) + len(both)), abs=3e-6)
    assert score_global(text, truth, measure="iou") == pytest.approx(len(both & ticks) / len(both | ticks))
    best = score_local(text, truth, pairing="best")
    assert best >= max(score_local(text, truth), score_local(text, truth, pairing="sorted")) - 1e-7


EXAMPLES = [
    grounding(),
    grounding(segments=spans((10, 20), (12, 18), (10, 20)), task="multi_segment"),
    grounding(segments=spans((0, 1e-9), (1e9, 1e9 + 1)), task="multi_segment"),
]


def check_parts(text: str) -> None:
    for example in EXAMPLES:
        played = episode(example, [text])
        for name, (part, (low, high)) in MUSEG_PARTS.items():
            for constants in CONSTANTS[name]:
                for progress in (0.0, 1.0):
                    value = part(played, Context(progress=progress), **constants)
                    assert value is not None and low <= value <= high, (name, constants, value)


CONSTANTS: dict[str, list[dict[str, Any]]] = {
    "format_with_timestamp": [{}, {"match": "number", "require_segment": True}],
    "format_without_timestamp": [{}, {"unreadable": 0.0, "require_segment": True}],
    "format_by_phase": [{}, {"first_phase": 1.0}],
    "global_matching": [{}, {"merge_truth": True}, {"measure": "iou"}],
    "local_matching": [{}, {"pairing": "sorted"}, {"pairing": "best"}],
    "segment_matching": [{}, {"merge_truth": True, "pairing": "best"}],
}


@given(texts())
def test_parts_are_finite_and_in_range(text: str) -> None:
    check_parts(text)
    check_parts(answer(text.replace("<", ""), text.replace("<", "")))


@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_a_quarter_megabyte_is_answered(number: int) -> None:
    half = BOMBS[number][:500_000]
    for text in (BOMBS[number], answer(half, half), answer(half, "1.0" * 10), answer("1.0-2.0", half)):
        assert score_format(text, timestamps=True) in (0.0, 0.2, 0.6, 1.0)
        assert score_format(text, timestamps=True, match="number") in (0.0, 0.2, 0.6, 1.0)
        assert 0 <= score_segments(text, [[0, 10], [20, 30]]) <= 2


def _many(seed: int, template: str) -> str:
    draw = random.Random(seed)
    return "".join(template.format(draw.randrange(1, 99999) / 10) for _ in range(100_000 // len(template)))


@pytest.mark.parametrize(
    ("inside", "thought"),
    [
        (_many(1, "{}-1e9 "), _many(1, "{} ")),  # as many times as the thought has numbers
        (_many(2, "{}-1e9 "), "1" * 200_000),
        (" ".join(f"{at}-{at + 0.5}" for at in range(10_000)), _many(3, "{}")),
        (" ".join(f"{10.0**at}-{1.5 * 10.0**at}" for at in range(-300, 300)), "1e" * 250_000),
        (" ".join(f"1e{at}-1.5e{at}" for at in range(17, 300)), "1" + "e" * 500_000),
        ("1" * 500_000 + "-" + "2" * 500_000, "." * 500_000),
        ("0-1 " * 60_000, "0.0 1.0 " * 5),
        ("-" * 500_000, "-" * 500_000),
    ],
)
def test_thousands_of_times_in_answer_and_thought(inside: str, thought: str) -> None:
    text = answer(inside, thought)
    for timestamps in (True, False):
        assert score_format(text, timestamps=timestamps) in (0.2, 0.6, 1.0)
    assert 0 <= score_segments(text, [[0, 10], [20, 30]]) <= 3


def test_the_phases() -> None:
    text = [answer("10-20", "it is there")]
    played = episode(grounding(), text)
    first, second = Context(progress=0.44), Context(progress=400 / 900)
    assert museg.format_by_phase(played, first) == 0.6
    assert museg.format_by_phase(played, second) == 1.0
    assert museg.format_by_phase(played, second, first_phase=0.5) == 0.6
    assert museg.format_by_phase(played, first, first_phase=0.0) == 1.0
    assert museg.format_by_phase(played, first, unnamed=0.3) == 0.3


def test_the_reward_is_of_the_last_reply_and_of_true_segments() -> None:
    two = episode(grounding(), [call((5, 30)), answer("10-20", "10.0 to 20.0")])
    assert museg.format_with_timestamp(two, NOW) == 1.0
    assert museg.segment_matching(two, NOW) == pytest.approx(2, abs=2e-6)
    still_asking = episode(grounding(), [answer("10-20"), call((5, 30))])
    assert museg.segment_matching(still_asking, NOW) == 0.0
    assert museg.format_without_timestamp(episode(grounding(), []), NOW) == 0.0
    backwards = grounding(segments=spans((30, 40), (10, 20)), task="multi_segment")
    assert museg.local_matching(episode(backwards, [answer("10-20 30-40")]), NOW) == 1.0


@pytest.mark.parametrize("name", MUSEG_PARTS)
def test_what_cannot_be_scored_is_none(name: str) -> None:
    part = MUSEG_PARTS[name][0]
    reply = [answer("10-20", "10.0 20.0")]
    assert part(episode(question(), reply), NOW) is None  # another task
    assert part(broken(grounding()), NOW) is None
    untold = part(episode(grounding(segments=()), reply), NOW)
    assert untold == (1.0 if "format" in name else None)
