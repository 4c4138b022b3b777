"""Official scripts of grounding on hand-made rows: their rules, their faults, and texts that nobody expects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.eval.scoring import Row, Scorer, Table, Window
from timeloupe.eval.scripts import grounding as scripts
from timeloupe.eval.scripts import grounding_tensors as tensors
from timeloupe.eval.scripts.errors import OfficialError

ALL: dict[str, Scorer] = scripts.OF_TEXTS | tensors.OF_TEXTS | tensors.OF_WINDOWS
ALL |= {"lmms-eval-timelens": scripts.lmms_timelens, "museg-tal": tensors.museg_tal}


def row(
    id: str = "a", windows: Sequence[Window] = ((0.0, 10.0),), duration: float | None = 30.0, **more: Any
) -> Row:
    known = {"video": f"{id}.mp4", "question": f"query {id}"} | more
    return Row(id=id, task="grounding", windows=tuple(windows), duration_seconds=duration, **known)


def of_one(scorer: Scorer, prediction: Any, **more: Any) -> Table:
    return scorer([row(**more)], {"a": prediction})


# -- thresholds, order, empty hulls ------------------------------------------------------------------------------------


def test_the_same_answer_on_a_threshold_counts_in_some_scripts_only() -> None:
    at_half = [[0.0, 5.0]]
    assert of_one(scripts.taro, at_half).figures["Recall@0.5"] == 1
    assert of_one(scripts.timelens, at_half).figures["IOU 0.5"] == 100
    assert of_one(scripts.lmms, at_half).figures["IOU@5"] == 100
    assert of_one(tensors.etchat, at_half).figures["R@0.5"] == 1
    assert of_one(scripts.time_r1, at_half).figures["R@0.5"] == 0
    assert next(iter(scripts.videotemp_parts([row()], [0.5])))[1]["R@0.5"] == 0


def test_reversed_answers_are_turned_round_by_some_scripts_only() -> None:
    text = "10 - 0"
    assert of_one(scripts.taro, text).figures["mIoU"] == 1
    assert of_one(scripts.timesuite, text).figures["IOU 0.7"] == 100
    assert of_one(scripts.lmms, text).figures["mIOU"] == 100
    assert of_one(tensors.etbench_tvg, text).figures["mIoU"] == 1
    assert of_one(scripts.timelens, text).figures["mIOU"] == 0
    assert of_one(scripts.time_r1, "10 to 0").figures["mIoU"] == 0
    assert of_one(tensors.museg_tvg_untagged, "10-0").figures["m_iou"] == 0


def test_a_window_without_length_ends_some_scripts_and_is_no_number_in_others() -> None:
    twice = {"windows": [(5.0, 5.0)]}
    for scorer, text in (
        (scripts.timelens, "5 - 5"),
        (scripts.lmms_tvg, "start 5 - 5"),
        (scripts.timesuite, "5-5"),
    ):
        with pytest.raises(OfficialError) as caught:
            of_one(scorer, text, **twice)
        assert caught.value.kind == "ZeroDivisionError"
    table = of_one(scripts.time_r1, "5 to 5", **twice)
    assert math.isnan(table.figures["mIoU"]) and math.isnan(table.figures["avg"])
    assert table.figures["R@0.3"] == 0 and table.values == {}
    assert math.isnan(of_one(tensors.etbench_tvg, "5 - 5", **twice).figures["mIoU"])
    assert of_one(scripts.taro, "5 - 5", **twice).figures["mIoU"] == 0
    assert of_one(scripts.lmms, "5 - 5", **twice).figures["mIOU"] == 0
    assert of_one(tensors.etchat, [5, 5], **twice).figures["mIoU"] == 0
    assert of_one(tensors.videomind, [[5, 5]], **twice).figures["mIoU"] == 0


def test_which_true_window_counts() -> None:
    windows = [(20.0, 30.0), (0.0, 10.0)]
    assert of_one(scripts.taro, "0 to 10", windows=windows).figures["mIoU"] == 1
    assert of_one(tensors.videomind, [[0, 10]], windows=windows).figures["IoU R1@0.7"] == 100
    for scorer, name in ((scripts.time_r1, "mIoU"), (scripts.timelens, "mIOU"), (scripts.lmms, "mIOU")):
        assert of_one(scorer, "0 to 10", windows=windows).figures[name] == 0


def test_unparsed_answers_are_counted() -> None:
    rows = [row("a"), row("b"), row("c")]
    table = scripts.taro(rows, {"a": "0 to 10", "b": "I do not know"})
    assert (table.num_scored, table.num_total) == (2, 3)
    assert table.failures == {"missing": 1, "unparsed": 1}
    assert table.values == {"a": 1.0, "b": 0.0}
    assert table.figures["mIoU"] == 0.5 and table.figures["total_samples"] == 2


# -- what is peculiar to one script ------------------------------------------------------------------------------------


def test_rows_of_one_key_count_once() -> None:
    rows = [row("a", video="v.mp4", question="a dog."), row("b", video="x/v.mp4", question="a  dog")]
    texts = {"a": "0 - 10", "b": "20 - 30"}
    assert scripts.timelens(rows, texts).figures["mIOU"] == 0
    assert scripts.timelens(rows, texts).num_scored == 1
    assert scripts.lmms(rows, texts).figures["mIOU"] == 50


def test_rows_of_one_id_count_once_in_time_r1() -> None:
    rows = [row("a"), row("a", windows=[(20.0, 30.0)])]
    table = scripts.time_r1(rows, {"a": "20 to 30"})
    assert (table.num_scored, table.figures["mIoU"]) == (1, 100)


def test_a_query_with_the_mark_of_keys_ends_scripts_that_split() -> None:
    for scorer in (scripts.timelens, scripts.lmms_tvg):
        with pytest.raises(OfficialError) as caught:
            of_one(scorer, "0 - 10", question="a >>> b")
        assert caught.value.kind == "ValueError"
    assert of_one(scripts.lmms, "0 - 10", question="a >>> b").figures["mIOU"] == 100


def test_timesuite_wants_every_row_unless_it_samples() -> None:
    rows = [row("a"), row("b")]
    with pytest.raises(OfficialError) as caught:
        scripts.timesuite(rows, {"a": "0 - 10"})
    assert caught.value.kind == "AssertionError"
    assert scripts.timesuite_sample(rows, {"a": "0 - 10"}).figures["IOU 0.7"] == 100
    with pytest.raises(OfficialError) as caught:
        scripts.timesuite_sample(rows, {"z": "0 - 10"})
    assert caught.value.kind == "KeyError"


def test_videotemp_ends_at_a_length_without_rows() -> None:
    rows = [row(str(seconds), duration=seconds) for seconds in (179.9, 180.0, 600.0, 1200.0)]
    texts = {one.id: "0 - 10" for one in rows}
    table = scripts.videotemp(rows, texts)
    assert table.figures["mIoU"] == 100 and table.figures["<3min Avg"] == 100
    # A hyphen glued to the second number is its sign.
    assert scripts.videotemp(rows, texts | {"600.0": "0-10"}).figures["10-20min mIoU"] == 0
    with pytest.raises(OfficialError) as caught:
        scripts.videotemp(rows[:3], texts)
    assert str(caught.value) == "ZeroDivisionError: division by zero"
    with pytest.raises(OfficialError) as caught:
        scripts.videotemp([row(duration=None)], {"a": "0 - 10"})
    assert caught.value.kind == "KeyError"


def test_museg_wants_one_pair_of_tags_and_voids_an_answer_with_one_bad_pair() -> None:
    good = "<think>3</think><answer>0.00-10.00</answer>"
    assert of_one(tensors.museg_tvg, good).figures["m_iou"] == 1
    for text in (
        "0-10",
        "<answer>0-10</answer><answer>",
        "</answer>0-10<answer>",
        "<answer>0-10 9-9</answer>",
    ):
        table = of_one(tensors.museg_tvg, text)
        assert table.figures["m_iou"] == 0 and table.failures == {"unparsed": 1}
    assert of_one(tensors.museg_tvg_untagged, "0-10").figures["m_iou"] == 1


def test_museg_lets_a_window_match_many() -> None:
    windows = [(0.0, 10.0), (20.0, 30.0)]
    table = of_one(tensors.museg_tal, "<answer>0-10 0-10 1-10</answer>", windows=windows)
    assert table.figures["f1_multi_0.7"] == pytest.approx(2 * 1 * 0.5 / 1.5)


def test_museg_stat_refuses_what_its_script_refuses() -> None:
    for data, kind, error in (
        ([], "tvg", "ZeroDivisionError"),
        ([([(0.0, 1.0)], "0-1")], "vhd", "NotImplementedError"),
        ([([], "0-1")], "tal", "IndexError"),
    ):
        with pytest.raises(OfficialError) as caught:
            tensors.museg_stat(data, kind)
        assert caught.value.kind == error
    assert tensors.museg_stat([([], "nothing")], "tvg")["m_iou"] == 0


def test_ranked_windows_of_videomind() -> None:
    table = of_one(tensors.videomind, [[20, 30], [0, 5], [0, 10]])
    assert [table.figures[f"IoU R{top}@0.5"] for top in (1, 3, 5)] == [0, 100, 100]
    assert table.figures["mIoP"] == 0 and table.figures["IoP R3@0.7"] == 100
    for prediction, kind in (("0 - 10", "TypeError"), ([], "IndexError")):
        with pytest.raises(OfficialError) as caught:
            of_one(tensors.videomind, prediction)
        assert caught.value.kind == kind


def test_etchat_takes_no_texts() -> None:
    assert of_one(tensors.etchat, "0 - 10").figures == {
        "R@0.3": 0, "R@0.5": 0, "R@0.7": 0, "mIoU": 0, "Failed": 1,
    }  # fmt: skip


def test_thresholds_are_single_precision_where_the_script_compares_tensors() -> None:
    # 0.3 in float32 is above 0.3: as a tensor it reaches the threshold, and as a number too.
    iou = tensors.temporal_iou([(0, 10)], [(0, 3)])
    assert iou.dtype == np.float32 and float(iou[0, 0]) > 0.3
    assert tensors.museg_f1([(0.0, 10.0)], [(0.0, 7.0)])[-1] == 1  # 0.7 in float32 is below 0.7
    assert tensors.museg_stat([([(0.0, 10.0)], "0-7")], "tvg")["f1_single_0.7"] == 0


# -- whatever comes ----------------------------------------------------------------------------------------------------

TIMES = st.one_of(st.floats(-1e6, 1e6), st.integers(-10, 100), st.sampled_from([0, 1e39, -1e39, 1e308]))
WINDOWS = st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=4)
WORDS = st.sampled_from(
    [
        "10",
        " - ",
        "20.5",
        " to ",
        "start",
        "end ",
        "\n",
        "<answer>",
        "</answer>",
        "٣",
        "1e400",
        "inf",
        "nan",
        "..",
    ]
    + ["00:12", "1:02:03", "-", "–", "!", "s", "9" * 400, ">>>"]
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=14).map("".join))


@pytest.mark.parametrize("name", sorted(ALL))
@settings(max_examples=40)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), windows=WINDOWS)
def test_no_text_does_what_the_script_would_not(name: str, texts: list[str], windows: list[Window]) -> None:
    rows = [
        row(str(at), windows=windows, duration=[9.0, 200.0, 700.0, 2000.0][at]) for at in range(len(texts))
    ]
    try:
        table = ALL[name](rows, {str(at): text for at, text in enumerate(texts)})
    except OfficialError as error:
        assert error.kind.isidentifier()
        return
    assert table.num_scored <= table.num_total == len(rows)
    assert all(math.isfinite(value) for value in table.values.values())
    if all(start < end for start, end in windows):
        assert all(0 <= value <= 1 + 1e-6 for value in table.values.values())


@pytest.mark.parametrize("name", sorted(ALL))
@settings(max_examples=40)
@given(windows=WINDOWS, predicted=WINDOWS)
def test_no_windows_do_what_the_script_would_not(
    name: str, windows: list[Window], predicted: list[Window]
) -> None:
    try:
        table = ALL[name]([row(windows=windows)], {"a": [list(one) for one in predicted]})
    except OfficialError as error:
        assert error.kind in ("ZeroDivisionError", "IndexError")
        return
    assert table.num_scored == 1


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("bomb", ["1." * 125_000, "start 1 - " * 25_000, "\n" * 250_000])
def test_a_quarter_megabyte_is_read_to_its_end(name: str, bomb: str) -> None:
    try:
        assert of_one(ALL[name], bomb).num_total == 1
    except OfficialError as error:
        assert error.kind
