"""TaRO's rewards and its temporal sensitivity: by hand, against the published pattern, and under hostile text."""

from __future__ import annotations

import math
import random
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reward.episodes import answer, broken, episode, grounding, question, spans
from tests.reward.hostile import BOMBS, texts
from timeloupe.errors import ConfigError
from timeloupe.reward import taro, taro_sensitivity
from timeloupe.reward.base import Context
from timeloupe.reward.taro import TARO_PARTS, VtgScore, read_window, score_format, score_reply, score_tiou
from timeloupe.trajectory import Trajectory

NOW = Context()
HELPED = Context(log_prob_drop=0.2, log_prob_drop_threshold=0.1)


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("8.50s to 12.40s", (8.5, 12.4)),
        ("From 8.5S AND 12.s.", (8.5, 12.0)),
        ("1s to 2s, then 3s and 4s", (3.0, 4.0)),
        ("8s to 12s to 20s", (8.0, 12.0)),
        ("1.2.3s to 4s", (2.3, 4.0)),
        ("1:12s to 1:14s", None),
        ("12s to 1s", (12.0, 1.0)),
        ("-5s to 1s", (5.0, 1.0)),
        ("\u0661\u0662s to \uff11\uff13.5s", (12.0, 13.5)),
        ("1\u017f to 2\u017f", (1.0, 2.0)),  # a long s is an s where the case does not matter
        (f"0s to {'9' * 400}s", (0.0, math.inf)),
        ("8.5 s to 12 s", None),
        ("8.5 to 12.4", None),
        ("8.5s  to 12.4s", None),
        ("8.5s - 12.4s", None),
        ("\u00b2s to 3s", None),
        ("", None),
    ],
)
def test_the_window_of_an_answer(inside: str, expected: tuple[float, float] | None) -> None:
    assert read_window(answer(inside)) == expected
    assert read_window(f"<answer>7s to 8s</answer>{answer(inside)}<answer>9s to 10s") == expected
    assert read_window(inside) is None


@given(
    st.one_of(
        st.text("1.s to", max_size=30),
        st.lists(
            st.sampled_from(
                ["1", "23", ".", "s to ", "s and ", "S TO ", "s", " ", "4.5", "\u0663", "\u017f", "9s", "\n"]
            )
        ).map("".join),
        st.text(max_size=20),
    )
)
def test_the_window_is_the_last_match_of_the_published_pattern(inside: str) -> None:
    found = re.findall(r"(\d+\.?\d*)s (to|and) (\d+\.?\d*)s", inside, re.IGNORECASE)
    expected = (float(found[-1][0]), float(found[-1][2])) if found else None
    assert read_window(f"<answer>{inside}</answer>") == expected


@given(
    st.lists(st.sampled_from(["<answer>", "</answer>", "1s to 2s", "3s to 4s", "<answer", " "])).map("".join)
)
def test_the_last_block_is_that_of_the_published_pattern(text: str) -> None:
    blocks = re.findall(r"<answer>(.*?)</answer>", text, re.DOTALL)
    expected = (
        read_window(f"<answer>{blocks[-1]}</answer>".replace("<answer><", "<answer>x<")) if blocks else None
    )
    assert read_window(text) == expected


@pytest.mark.parametrize(
    ("text", "thought", "bare"),
    [
        (answer("1s to 2s"), 1, 0),
        (f"\n{answer('')} \n", 1, 0),
        ("<think>a</think> \n <answer>b</answer>", 1, 0),
        ("<think>a</think> so <answer>b</answer>", 0, 0),
        ("<think>the <answer> tag</think><answer>b</answer>", 0, 0),
        ("</think><think><answer></answer>", 0, 0),
        ("<answer>b</answer><think>a</think>", 0, 0),
        ("<Think>a</Think><answer>b</answer>", 0, 0),
        (" <answer>b</answer> ", 0, 1),
        ("<answer>b</answer> and <answer>c</answer>", 0, 1),
        ("<answer></answer>", 0, 1),
        ("<answer>", 0, 0),
        ("<answer>b", 0, 0),
        ("", 0, 0),
    ],
)
def test_format(text: str, thought: int, bare: int) -> None:
    assert score_format(text) == thought
    assert score_format(text, think=False) == bare


@pytest.mark.parametrize(
    ("window", "truth", "duration", "reward", "iou"),
    [
        ((10, 20), (10, 20), 100, 1, 1),
        ((5, 15), (0, 10), 30, (1 / 3) * (25 / 30) ** 2, 1 / 3),
        ((0, 100), (0, 10), 10, -0.8, 0.1),  # an end far behind the video
        ((20, 10), (10, 20), 100, 0, 0),
        ((5, 5), (5, 5), 100, 0, 0),
        ((0, 10), (40, 50), 30, 0, 0),  # a truth behind the end of the video is cut to nothing
        ((20, 30), (20, 50), 30, 1, 1),
        ((0, 10), (-5, 10), 30, 1, 1),
        (None, (0, 10), 30, 0, 0),
        (None, (0, 10), 0, 0, 0),
        ((0, math.inf), (0, 10), 30, 0, 0),
    ],
)
def test_tiou(window: Any, truth: Any, duration: float, reward: float, iou: float) -> None:
    assert score_tiou(window, truth, duration) == pytest.approx((reward, iou))
    assert score_tiou(window, truth, duration, boundary_factors=False) == pytest.approx((iou, iou))


def test_tiou_of_what_the_release_cannot_score() -> None:
    with pytest.raises(ZeroDivisionError):
        score_tiou((0, 1), (0, 1), 0, boundary_factors=False)
    with pytest.raises(TypeError):
        score_tiou(None, (0, 1), None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unpack"):
        score_tiou(None, (0, 1, 2), 10)  # type: ignore[arg-type]
    assert math.isnan(score_tiou((0, math.inf), (0, 10), 30, guard=False)[0])


seconds = st.floats(min_value=0, max_value=1e12)


@given(st.tuples(seconds, seconds), st.tuples(seconds, seconds), st.floats(min_value=1e-3, max_value=1e6))
def test_tiou_lies_above_minus_one(window: Any, truth: Any, duration: float) -> None:
    reward, iou = score_tiou(window, truth, duration)
    assert -1 - 1e-9 <= reward <= iou + 1e-9
    assert 0 <= iou <= 1 + 1e-9


def test_the_whole_reward() -> None:
    right, half = answer("10s to 20s"), answer("10s to 15s")
    with_drop: dict[str, Any] = {"drop": 0.2, "threshold": 0.1}
    assert score_reply(right, (10, 20), 100) == VtgScore(2.0, 1.0, 1.0, 0.0, 1.0)
    assert score_reply(right, (10, 20), 100, **with_drop) == VtgScore(2.3, 1.0, 1.0, 0.3, 1.0)
    assert score_reply(right, (10, 20), 100, drop=0.1, threshold=0.1).score == 2.0
    assert score_reply(right, (10, 20), 100, **with_drop, margin=0.1, bonus=1).score == 2.0
    closed = score_reply(half, (10, 20), 100, **with_drop, boundary_factors=False)
    assert closed == VtgScore(1.5, 1.0, 0.5, 0.3, 0.5)  # the bonus is told and not paid
    assert score_reply(half, (10, 20), 100, **with_drop, iou_gate=0.5).score == pytest.approx(1 + 0.475 + 0.3)
    assert (
        score_reply("<answer>0s to 7s</answer>", (0, 10), 30, **with_drop, boundary_factors=False).score
        == 1.0
    )
    assert score_reply("<answer>0s to 7s</answer>", (0, 10), 30, **with_drop, think=False).format_score == 1.0
    with pytest.raises(TypeError, match="threshold"):
        score_reply(right, (10, 20), 100, drop=0.2)


CONSTANTS: dict[str, list[dict[str, Any]]] = {
    "format": [{}, {"think": False}],
    "tiou": [{}, {"boundary_factors": False}, {"lowest": 0.0}],
    "sensitivity": [{}, {"bonus": 1.0, "iou_gate": 0.0}],
    "vtg_score": [{}, {"bonus": 1.0, "lowest": 0.0}, {"think": False, "boundary_factors": False}],
}


def check_parts(text: str) -> None:
    for example in (grounding(), grounding(segments=spans((0, 1e-9), (90, 1e12)))):
        played = episode(example, [text])
        for name, (part, (low, high)) in TARO_PARTS.items():
            for constants in CONSTANTS[name]:
                value = part(played, HELPED, **constants)
                assert value is not None and low <= value <= high, (name, constants, value)


@given(texts())
def test_parts_are_finite_and_in_range(text: str) -> None:
    check_parts(text)
    check_parts(answer(text.replace("<", "") + "s to 9s"))


HOSTILE_ANSWERS = [
    piece * (250_000 // len(piece))
    for piece in (
        "1",
        "1.",
        "1s ",
        "1s to ",
        "1s to 2s ",
        "s to ",
        "1.1",
        "\u0661",
        "1s to 1.",
        "<answer>1s to ",
    )
] + [
    "1" * 125_000 + "s to " + "2" * 500_000,
    "1." * 250_000 + "s to " + "2." * 250_000 + "s",
    " to 1s" * 100_000,
]


@pytest.mark.parametrize("number", range(len(BOMBS) + len(HOSTILE_ANSWERS)))
def test_a_quarter_megabyte_is_answered(number: int) -> None:
    text = BOMBS[number] if number < len(BOMBS) else HOSTILE_ANSWERS[number - len(BOMBS)]
    # One part that reads all that the others read; what they make of it is tried on short texts.
    for reply in (text, answer(text)):
        value = taro.vtg_score(episode(grounding(), [reply]), HELPED)
        assert value is not None and -1 <= value <= 2.3


def test_parts() -> None:
    right = episode(grounding(), [answer("10s to 20s")])
    assert [part(right, HELPED) for part, _ in TARO_PARTS.values()] == [1.0, 1.0, 0.3, 2.3]
    assert taro.vtg_score(right, NOW) == 2.0 and taro.sensitivity(right, NOW) is None
    unmeasured = Context(log_prob_drop=math.nan, log_prob_drop_threshold=0.0)
    assert taro.vtg_score(right, unmeasured) == 2.0 and taro.sensitivity(right, unmeasured) is None
    wide = episode(grounding(), [answer("10s to 1000s")])
    assert taro.tiou(wide, NOW) == pytest.approx(10 / 990 * (1 - 9.8))
    assert taro.tiou(wide, NOW, lowest=0.0) == 0.0
    assert taro.tiou(wide, NOW, boundary_factors=False) == pytest.approx(10 / 990)
    assert taro.sensitivity(wide, HELPED) == 0.0
    assert taro.sensitivity(wide, HELPED, iou_gate=0.0, bonus=0.5) == 0.5
    either = grounding(segments=spans((60, 70), (10, 20)))
    assert taro.tiou(episode(either, [answer("10s to 20s")]), NOW) == 1.0
    for part, constants in ((taro.sensitivity, {"bonus": 2.0}), (taro.tiou, {"lowest": -2.0})):
        with pytest.raises(ConfigError, match="of a reward"):
            part(right, HELPED, **constants)


def test_boundary_factors_follow_the_part_that_was_shown() -> None:
    whole = episode(grounding(segments=spans((40, 60))), [answer("45s to 60s")])
    view = whole.skims[0].model_copy(update={"start_seconds": 30.0, "end_seconds": 80.0})
    message = whole.prompt[0].model_copy(update={"parts": (view,)})
    shown = whole.model_copy(update={"prompt": (message,)})
    assert taro.tiou(whole, NOW) == pytest.approx(0.75 * 0.95)
    assert taro.tiou(shown, NOW) == pytest.approx(0.75 * 0.9)
    blind = whole.model_copy(update={"prompt": ()})
    assert taro.tiou(blind, NOW) is None and taro.vtg_score(blind, NOW) is None


@pytest.mark.parametrize("name", TARO_PARTS)
def test_what_cannot_be_scored_is_none(name: str) -> None:
    def score(trajectory: Trajectory) -> float | None:
        return TARO_PARTS[name][0](trajectory, HELPED)

    reply = [answer("10s to 20s")]
    assert score(episode(question(), reply)) is None  # another task
    assert score(episode(grounding(task="multi_segment"), reply)) is None
    assert score(broken(grounding())) is None
    assert score(episode(grounding(segments=()), reply)) == (1.0 if name == "format" else None)
    assert score(episode(grounding(), [])) == 0.0


def test_windows_of_frames_and_their_mixing() -> None:
    every_half_second = range(0, 600, 15)
    start, end = taro_sensitivity.boundary_windows(every_half_second, 30.0, 5.0, 9.0)
    assert start.tolist() == list(range(4, 17)) and end.tolist() == list(range(12, 25))
    later = taro_sensitivity.boundary_windows([450 + frame for frame in every_half_second], 30.0, 5.0, 9.0)
    assert later[0].tolist() == start.tolist()
    sizes: list[int] = []

    def turned(size: int) -> range:
        sizes.append(size)
        return range(size)[::-1]

    order = taro_sensitivity.shuffled_order(40, (start, end), turned)
    assert sizes == [13, 13] and sorted(order) == list(range(40))
    assert order.tolist() == [*range(4), *range(16, 8, -1), *range(24, 16, -1), *range(4, 9), *range(25, 40)]
    alone = (np.array([], dtype=int), np.array([3]))
    assert taro_sensitivity.shuffled_order(5, alone, turned).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        taro_sensitivity.boundary_windows([], 30.0, 5.0, 9.0)


@given(st.integers(1, 60), st.floats(0, 30), st.floats(0, 30), st.floats(0, 10), st.integers(0, 99))
def test_only_frames_of_the_windows_move(
    count: int, start_seconds: float, end_seconds: float, radius: float, seed: int
) -> None:
    windows = taro_sensitivity.boundary_windows(range(count), 2.0, start_seconds, end_seconds, radius)
    order = taro_sensitivity.shuffled_order(count, windows, np.random.default_rng(seed).permutation)
    assert sorted(order) == list(range(count))
    moved = np.flatnonzero(order != np.arange(count))
    assert set(moved) <= set(windows[0]) | set(windows[1])


def test_the_drop_is_a_mean_over_counted_tokens() -> None:
    shown = np.array([[-1.0, -2.0, math.nan], [-1.0, -1.0, -1.0], [0.0, 0.0, 0.0]])
    mixed = np.array([[-2.0, -2.5, -9.0], [-1.0, -0.5, -3.0], [0.0, 0.0, 0.0]])
    mask = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    drops = taro_sensitivity.log_prob_drops(shown, mixed, mask)
    assert drops.tolist()[:2] == pytest.approx([0.75, 0.5]) and math.isnan(drops[2])


def test_groups() -> None:
    drops = [0.1, 0.3, -0.2, 0.0]
    assert taro_sensitivity.group_means(drops, 2).tolist() == pytest.approx([0.2, 0.2, -0.1, -0.1])
    assert taro_sensitivity.shared_by_group(drops, 2).tolist() == [0.3, 0.3, 0.0, 0.0]
    for size in (3, 0, 8):
        with pytest.raises(ConfigError, match="group_size"):
            taro_sensitivity.group_means(drops, size)


def test_a_constructed_thought_holds_some_captions_in_order() -> None:
    captions = [f"From {at}s to {at + 1}s, thing {at}." for at in range(5)]
    seen: set[int] = set()
    for seed in range(40):
        thought = taro_sensitivity.construct_thought(captions, "a door opens", random.Random(seed))
        assert thought is not None and "</think>" not in thought
        opening, *lines = thought.removeprefix("<think>\n").split("\n")
        assert "a door opens" in opening
        chosen = taro_sensitivity.sample_captions(5, random.Random(seed))
        assert lines == [captions[index] for index in chosen]
        seen.add(len(chosen))
    assert seen == {1, 2, 3, 4, 5}
    assert taro_sensitivity.construct_thought([], "a door opens", random.Random(0)) is None
