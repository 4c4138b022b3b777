"""Letters and windows judged together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.eval.qa_grounding import Halves, accuracy_where, halves_of_record, set_iop, strict_table
from timeloupe.eval.scoring import Row, Window
from timeloupe.grounding import set_iou

whole = st.integers(0, 60)
windows = st.lists(st.tuples(whole, whole), max_size=4)


def row(id: str, answer: str | None = "B", *truth: Window) -> Row:
    return Row(
        id, "v", "Which, and when?", "multiple_choice", options=("w", "x", "y"), answer=answer,
        windows=truth or ((10.0, 20.0),), duration_seconds=60.0,
    )  # fmt: skip


def record(prediction: Any) -> Halves:
    return halves_of_record(prediction, "letter", "windows")


@pytest.mark.parametrize(
    ("answer", "truth", "iop"),
    [
        ([(12, 14)], [(10, 20)], 1.0),
        ([(0, 20)], [(10, 20)], 0.5),
        ([(0, 10), (5, 10)], [(8, 12), (9, 11)], 0.2),
        ([(0, 4), (6, 10)], [(2, 8)], 0.5),
        ([], [(10, 20)], 0.0),
        ([(5, 5)], [(0, 20)], 0.0),
        ([(5, 6)], [], 0.0),
    ],
)
def test_iop_is_the_true_share_of_what_was_answered(
    answer: list[Window], truth: list[Window], iop: float
) -> None:
    assert set_iop(answer, truth) == pytest.approx(iop)


@given(windows, windows)
def test_iop_is_a_share_and_never_less_than_iou(answer: list[Window], truth: list[Window]) -> None:
    iop = set_iop(answer, truth)
    assert 0 <= iop <= 1
    assert iop >= set_iou(answer, truth) - 1e-12


def test_joint_accuracy_needs_both_and_leaves_out_what_is_unscored() -> None:
    assert accuracy_where([1, 1, 0, None, 1], [0.5, 0.49, 0.9, 0.9, None], 0.5) == pytest.approx(1 / 3)
    assert accuracy_where([None], [0.5], 0.5) is None
    with pytest.raises(ValueError, match="longer"):
        accuracy_where([1], [0.5, 0.5], 0.5)


def test_figures_of_both_halves() -> None:
    rows = [row("a"), row("b"), row("c"), row("d"), row("e", None), row("f", "B", (70.0, 80.0))]
    predictions = {
        "a": {"letter": "B", "windows": [[10, 20]]},  # both right
        "b": {"letter": "B", "windows": [[12, 13]]},  # right, inside: IoP but not IoU
        "c": {"letter": "A", "windows": "10 to 20"},  # only the windows are right
        "e": {"letter": "B", "windows": [[0, 5]]},  # no right letter to be had
        "f": {"letter": "B", "windows": [[0, 5]]},  # its truth lies beyond the video
    }
    table = strict_table(rows, predictions, record)
    assert table.figures["accuracy"] == pytest.approx(3 / 5)
    assert table.figures["mIoU"] == pytest.approx((1 + 0.1 + 1 + 0 + 0) / 5)
    assert table.figures["IoP@0.5"] == pytest.approx(3 / 5)
    assert table.figures["Acc@IoU 0.5"] == pytest.approx(1 / 4)
    assert table.figures["Acc@GQA"] == pytest.approx(2 / 4)
    assert table.failures == {"missing": 1, "letter label_unusable": 1, "windows label_unusable": 1}
    assert (table.num_scored, table.num_total) == (5, 6)
    assert table.values == {"a": 1, "b": 1, "c": 0, "d": 0, "f": 1}


def test_a_text_is_both_halves_and_a_half_that_nobody_gave_has_no_figures() -> None:
    rows = [row("a")]
    both = strict_table(rows, {"a": "<answer>(B), from 10 s to 20 s</answer>"}, record)
    assert both.figures["Acc@IoU 0.5"] == 1
    letters = strict_table(rows, {"a": {"letter": "B"}}, record)
    assert letters.figures["accuracy"] == 1
    assert letters.figures["mIoU"] is None
    assert letters.figures["Acc@GQA"] is None
    spans = strict_table(rows, {"a": [[10, 20]]}, record)
    assert spans.figures["accuracy"] is None
    assert spans.values == {"a": 1.0}


def test_nothing_answered_is_wrong_in_both() -> None:
    table = strict_table([row("a"), row("b")], {}, record)
    assert table.figures["accuracy"] == 0
    assert table.figures["mIoU"] == 0
    assert table.failures == {"missing": 2}


hostile = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["B", "10-20", "inf to 1e400"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["letter", "windows"]), inner)
    ),
    max_leaves=8,
)


@given(hostile)
def test_whatever_a_prediction_is_the_figures_are_shares(prediction: Any) -> None:
    table = strict_table([row("a")], {"a": prediction}, record)
    for value in table.figures.values():
        assert value is None or 0 <= value <= 1


@pytest.mark.parametrize(
    "text",
    ["B, 10 to 20 s", "B [10, 20]", "B\n[10.0, 20.0]", "[10, 20] B", "<answer>B 10-20</answer>", "10 to 20: B",
     "B (10s - 20s)", "B; 00:10-00:20", "B - 10 to 20", "B from 10 to 20 seconds."],
)  # fmt: skip
def test_a_letter_beside_times_is_both(text: str) -> None:
    table = strict_table([row("a")], {"a": text}, record)
    assert (table.figures["accuracy"], table.figures["mIoU"], table.failures) == (1.0, pytest.approx(1.0), {})


@pytest.mark.parametrize(
    "text", ["a 10 to 20", "B C 10 to 20", "Bob 10 to 20", "10 to 20", "Z 10 to 20", "9" * 10**6]
)
def test_what_is_no_lone_letter_beside_times_stays_unread(text: str) -> None:
    assert strict_table([row("a")], {"a": text}, record).figures["accuracy"] == 0.0
