"""The strict mode: what counts as right, what as wrong, and what as no question at all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.eval import strict
from timeloupe.eval.baselines import baselines
from timeloupe.eval.qa_grounding import Halves, strict_table
from timeloupe.eval.scoring import Row, Window, example_of


def when(id: str = "a", *windows: Window, duration: float | None = 100.0) -> Row:
    """A grounding row."""
    return Row(
        id, f"{id}.mp4", "When?", "grounding", windows=windows or ((10.0, 20.0),), duration_seconds=duration
    )


def which(id: str = "a", answer: str | None = "B", **groups: str) -> Row:
    """A multiple-choice row of four options."""
    return Row(
        id,
        f"{id}.mp4",
        "Which?",
        "multiple_choice",
        options=("w", "x", "y", "z"),
        answer=answer,
        groups=groups,
    )


@pytest.mark.parametrize(
    ("prediction", "windows", "why"),
    [
        ("<think>maybe 1-2</think><answer>10.00s to 20.00s</answer>", ((10, 20),), ""),
        ("<answer>1-2</answer> no: <answer>10 to 20", ((10, 20),), ""),
        ("3-4</think>00:10 - 00:20", ((10, 20),), ""),
        ("20-10", ((10, 20),), ""),
        ("[[5, 8], [7, 9], [30, 40]]", ((5, 9), (30, 40)), ""),
        ("90 to 400", ((90, 100),), ""),
        ("[-1.5, 3]", ((0, 3),), ""),
        ("-5.28-11.58 13.58-16.58", ((0, 11.58), (13.58, 16.58)), ""),
        ("from -2 to 8 s", ((0, 8),), ""),
        ('{"start": -4.0, "end": 6}', ((0, 6),), ""),
        ("3 -16", ((3, 16),), ""),
        ("-9 to -3", (), "unparsed"),
        ("200 to 300", (), "outside"),
        ("no idea", (), "unparsed"),
        ("", (), "unparsed"),
        (None, (), "missing"),
        ([[10, 20, 0.9], [3, 1]], ((1, 3), (10, 20)), ""),
        ([10, 20], ((10, 20),), ""),
        ([], (), "unparsed"),
        ([["a", 2]], (), "unparsed"),
        ([[math.nan, 2.0]], (), "unparsed"),
        ([[True, 2]], (), "unparsed"),
        ({"start": 1}, (), "unparsed"),
    ],
)
def test_windows_are_read_in_all_forms(prediction: Any, windows: tuple[Window, ...], why: str) -> None:
    assert strict.read_windows(prediction, when()) == (windows, why)


def test_without_a_duration_nothing_is_cut() -> None:
    assert strict.read_windows("90 to 400", when(duration=None)) == (((90, 400),), "")


def test_a_missing_or_unreadable_answer_is_wrong_and_stays_in_the_mean() -> None:
    rows = [when("a"), when("b"), when("c"), when("d")]
    table = strict.grounding(rows, {"a": "10-20", "b": "dunno", "d": "10-15"})
    assert table.figures == {"mIoU": 0.375, "R@0.3": 0.5, "R@0.5": 0.5, "R@0.7": 0.25}
    assert (table.num_scored, table.num_total) == (4, 4)
    assert table.failures == {"unparsed": 1, "missing": 1}
    assert table.values == {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.5}


def test_a_label_that_is_no_segment_leaves_the_mean_and_is_counted() -> None:
    rows = [when("a"), when("b", (5.0, 5.0)), when("c", (120.0, 130.0)), when("d", (90.0, 130.0))]
    table = strict.grounding(rows, {"a": "10-20", "b": "5-5", "c": "120-130", "d": "90-100"})
    assert (table.num_scored, table.failures) == (2, {"label_unusable": 2})
    assert table.figures["mIoU"] == 1.0  # the label of d is cut at the video's end as the answer is


def test_naming_many_windows_does_not_help_where_one_is_asked() -> None:
    table = strict.grounding([when()], {"a": "0-10, 10-20, 20-30, 30-100"})
    assert table.figures["mIoU"] == 0.1


def test_segments_are_matched_one_to_one() -> None:
    rows = [when("a", (10.0, 20.0), (20.5, 30.0)), when("b", (10.0, 20.0), (60.0, 70.0))]
    table = strict.multi_segment(rows, {"a": "10 to 30", "b": "10-20 and 60-70 and 80-90"})
    assert table.figures["F1@0.5"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert table.figures["F1@0.3"] == pytest.approx((2 / 3 + 0.8) / 2)  # one window, two truths: one match


def test_letters_and_their_groups() -> None:
    rows = [
        which("a", level="easy"),
        which("b", level="easy"),
        which("c", level="hard"),
        which("d", "E", level="hard"),
    ]
    table = strict.multiple_choice(
        rows, {"a": "<answer>(b) x</answer>", "b": "A or B", "c": "The answer is B."}
    )
    assert table.figures == {
        "accuracy": pytest.approx(2 / 3),
        "accuracy level=easy": 0.5,
        "accuracy level=hard": 1.0,
    }
    assert table.failures == {"unparsed": 1, "label_unusable": 1}
    assert table.num_scored == 3


@given(st.one_of(st.text(), st.none(), st.lists(st.lists(st.floats())), st.integers(), st.binary()))
def test_any_prediction_gets_a_value_in_range(prediction: Any) -> None:
    for scorer, row in (
        (strict.grounding, when()),
        (strict.multi_segment, when()),
        (strict.multiple_choice, which()),
    ):
        table = scorer([row], {"a": prediction})
        assert all(0 <= value <= 1 for value in table.values.values())
        assert table.num_scored == 1


@pytest.mark.parametrize("piece", ["<answer>", "1-", "(", "<think>1 to 2</think>", "٣-٤ ", "9" * 50 + " to "])
def test_an_answer_of_a_quarter_megabyte_is_read_or_refused_in_linear_time(piece: str) -> None:
    text = piece * (250_000 // len(piece))
    assert strict.grounding([when()], {"a": text}).num_scored == 1
    assert strict.multiple_choice([which()], {"a": text}).num_scored == 1


def test_trivial_rules_are_scored_like_any_prediction() -> None:
    rows = [when("a", (40.0, 60.0)), when("b", (0.0, 100.0)), which("c"), which("d"), which("e", "A")]
    guesses = baselines(rows, seed=3)
    assert guesses == baselines(rows, seed=3)
    assert guesses["constant letter"] == {"c": "B", "d": "B", "e": "B"}
    whole = strict.grounding(rows[:2], guesses["whole video"])
    middle = strict.grounding(rows[:2], guesses["middle"])
    assert whole.figures["mIoU"] == pytest.approx(0.6)
    assert middle.figures["mIoU"] == pytest.approx(0.6)
    assert "whole video" not in baselines([when(duration=None)])


def test_trivial_rules_answer_both_halves_where_a_benchmark_asks_for_both() -> None:
    truth, length = ((40.0, 60.0),), 100.0
    rows = [replace(which(id), windows=truth, duration_seconds=length) for id in "ab"]
    assert set(baselines(rows)) == {"random", "constant letter"}
    guesses = baselines(rows, joint=True)
    tables = {
        name: strict_table(rows, some, lambda text: Halves(text, text)).figures
        for name, some in guesses.items()
    }
    assert set(tables) == {"whole video", "middle", "random", "constant letter"}
    assert (tables["middle"]["accuracy"], tables["middle"]["mIoU"]) == (1.0, pytest.approx(1.0))
    assert tables["middle"]["Acc@GQA"] == 1.0
    assert (tables["whole video"]["mIoU"], tables["whole video"]["Acc@GQA"]) == (pytest.approx(0.2), 0.0)
    assert (tables["constant letter"]["accuracy"], tables["constant letter"]["mIoU"]) == (1.0, None)
    assert guesses["random"] == baselines(rows, joint=True)["random"]
    assert baselines([which("a")], joint=True)["constant letter"] == {"a": "B"}


def test_a_row_becomes_a_question_without_its_unusable_labels() -> None:
    example = example_of(when("a", (5.0, 5.0), (7.0, 6.0), (1.0, 2.0)))
    assert [(one.start_seconds, one.end_seconds) for one in example.segments] == [(1.0, 2.0)]
