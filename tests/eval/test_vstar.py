"""V-STaR: its script and Open-o3 Video's, the reading of boxes, our reader of its files, and the strict mode."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.errors import MissingError, RecordError
from timeloupe.eval.benchmarks.vstar import BENCHMARK, evaluation, official, read_predictions, score
from timeloupe.eval.registry import benchmark
from timeloupe.eval.scoring import Row
from timeloupe.eval.scripts import vstar as script
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.spatial import ap_at, arithmetic_mean, frame_ious, log_geometric_mean, viou

SIZE = {"width": 640, "height": 360}
BOX = {"xmin": 10, "ymin": 20, "xmax": 110, "ymax": 220}
AS_LIST = [10, 20, 110, 220]
HOSTILE = st.text(alphabet="0123456789.:-[]{}\"', \n`jsontaw<>/٣", max_size=60)


def item(vid: str = "v", **fields: Any) -> dict[str, Any]:
    return {
        "vid": vid, "domain": "Sports", "fps": 25.0, **SIZE, "frame_count": 1250, "question": "What?", "chain": "",
        "object": "ball", "answer": "a ball", "temporal_question": "When?", "timestamps": [10.0, 20.0],
        "spatial_question": "Where?", "spatial_question_2": "Where?",
        "bboxes": [{"timestamp": second, "frame_index": 25 * second, **BOX} for second in (12, 13)],
    } | fields  # fmt: skip


def answers(when: Any = (10, 20), where: Any = None, what: str = "a ball", **fields: Any) -> dict[str, Any]:
    boxes = {"12": AS_LIST, "13": AS_LIST} if where is None else where
    times = list(when) if isinstance(when, tuple) else when
    return {
        "answer_vqa": what, "answer_temporal": times, "answer_temporal_2": times,
        "answer_spatial": boxes, "answer_spatial_2": boxes,
    } | fields  # fmt: skip


def written(folder: Path, values: Any) -> Path:
    path = folder / "V_STaR_test.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    return BENCHMARK.load(written(tmp_path, [item("one"), item("two", domain="Animals", frame_count=9000)]))


# -- where -------------------------------------------------------------------------------------------------------------


def test_frames_without_a_box_count_and_frames_without_a_label_do_not() -> None:
    truth = {"1": (0.0, 0.0, 10.0, 10.0), "2": (0.0, 0.0, 10.0, 10.0), "3": (0.0, 0.0, 10.0, 10.0)}
    answer = {
        "1": [(0.0, 0.0, 10.0, 10.0)],
        "2": [(5.0, 0.0, 15.0, 10.0), (50.0, 0.0, 60.0, 10.0)],
        "9": [(0.0, 0.0, 1.0, 1.0)],
    }
    ious = list(frame_ious(truth, answer).values())
    assert ious == [1.0, pytest.approx(1 / 3), 0.0]
    assert viou(ious) == pytest.approx(4 / 9)
    assert ap_at(ious) == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3, 1 / 3])
    assert (viou([]), ap_at([], (0.5,))) == (0.0, [0.0])


@given(st.tuples(*[st.floats(0, 1)] * 3))
def test_the_means_over_what_when_and_where(shares: tuple[float, float, float]) -> None:
    assert 0 <= arithmetic_mean(*shares) <= 1
    assert 0 <= log_geometric_mean(*shares) < math.inf
    if max(shares) < 1 - 1e-6:
        assert log_geometric_mean(*shares) == log_geometric_mean(*shares, least_rest=0)
        assert log_geometric_mean(*shares) >= arithmetic_mean(*shares) - 1e-12


def test_a_perfect_share_is_finite_unless_as_in_the_script() -> None:
    assert log_geometric_mean(1, 0, 0) == pytest.approx(-math.log(1e-6) / 3)
    with pytest.raises(ValueError, match="math domain error"):
        log_geometric_mean(1, 0, 0, least_rest=0)


@pytest.mark.parametrize(
    ("answer", "iou"),
    [
        (AS_LIST, 1.0),
        ([AS_LIST], 1.0),
        ([[0, 0, 1, 1], AS_LIST], 1.0),
        ([60, 20, 160, 220], 1 / 3),
        ([110, 220, 10, 20], 0.0),
        ([1, 2, 3], 0.0),
        (["10", "20", "110", "220"], 0.0),
        ([AS_LIST, ["a", 0, 1, 1]], 0.0),
        ({"a": 1}, 0.0),
        ("10 20 110 220", 0.0),
        ([], 0.0),
        (7, 0.0),
    ],
)
def test_boxes_of_a_frame(answer: Any, iou: float) -> None:
    assert script.bbox_iou(BOX, answer) == pytest.approx(iou)


def test_reversed_boxes_have_a_negative_area() -> None:
    assert script.bbox_iou(BOX, [110, 20, 10, 220]) == 0.0
    assert script.bbox_iou(BOX, [120, 230, 130, 229]) == 0.0
    assert script.bbox_iou({"xmin": 0, "ymin": 0, "xmax": 10, "ymax": 10}, [0, 0, 10, 10]) == 1.0


def test_boxes_are_looked_up_by_the_text_of_the_second() -> None:
    boxes = item()["bboxes"]
    half = ([0.5] * 5, 0.5)
    assert script.spatial_metrics(boxes, {"12": AS_LIST, "99": AS_LIST}) == half
    assert script.spatial_metrics(boxes, {"12.0": AS_LIST}) == ([0.0] * 5, 0.0)
    assert script.spatial_metrics(boxes, [[1, 2, 3, 4]]) == ([0.0] * 5, 0.0)
    assert script.spatial_metrics([], {"12": AS_LIST}) == ([0.0] * 5, 0.0)
    for odd in ("in second 12", ["12"], 5):
        assert script.spatial_metrics(boxes, odd, guarded=True) == ([0.0] * 5, 0.0)
        with pytest.raises(OfficialError, match="TypeError"):
            script.spatial_metrics(boxes, odd)


def test_the_whole_frame_scores_with_the_older_boxes_only() -> None:
    older = [{"3_75": {"xmin": 0, "ymin": 0, "xmax": 50, "ymax": 50}}]
    assert script.spatial_random(older, 100, 100) == ([1.0, 0.0, 0.0, 0.0, 0.0], 0.25)
    assert script.spatial_random(item()["bboxes"], 100, 100) == ([0.0] * 5, 0.0)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ('{"3": [1, 2, 3, 4]}', {"3": [1, 2, 3, 4]}),
        ("so {'3': [1, 2, 3, 4]} it is", {"3": [1, 2, 3, 4]}),
        ('<think>{}</think><answer>{"3": [1, 2, 3, 4]}</answer>', {"3": [1, 2, 3, 4]}),
        ('```json\n{"3": [1, 2, 3, 4]}\n``` and {"4": []}', {"3": [1, 2, 3, 4]}),
        ('```json\n[{"3": [1, 2, 3, 4]}, {"4": 5}]\n```', {"3": [1, 2, 3, 4], "4": 5}),
        ("[[3, [1, 2, 3, 4]], [4, [5, 6, 7, 8]]]", {"3": [1, 2, 3, 4], "4": [5, 6, 7, 8]}),
        ("[1, 2, 3, 4]", [1, 2, 3, 4]),
        ('{"3": [1, 2, 3, 4}', None),
        ('{"3": [1, 2], "4": [3, 4}]', None),
        ('[{"3": [1, 2, 3, 4]', None),
        ('[{"3": [1, 2, 3, 4]}, {"4": [1, 2, 3, 4]', None),
        ("[[3, [1, 2, 3, 4]", [[3, [1, 2, 3, 4]]]),
        ("[]", {}),
        ("] [", None),
        ("none", None),
    ],
)
def test_boxes_in_answers(text: str, boxes: Any) -> None:
    assert script.extract_bounding_boxes(text, SIZE) == boxes


def test_reading_boxes_needs_a_size_that_it_does_not_use() -> None:
    with pytest.raises(OfficialError, match="KeyError"):
        script.extract_bounding_boxes("{}", {"width": 640})


@pytest.mark.parametrize(
    ("text", "closed"),
    [('{"1": [1, 2', '{"1": [1, 2]}'), ("1]}", "{[1]}"), ("}{", "}{"), ('[{"1": [1]', '[{"1": [1]]}')],
)
def test_brackets_are_counted_not_matched(text: str, closed: str) -> None:
    assert script.fix_incomplete_json(text) == closed


# -- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "iou"),
    [
        ([5, 15], 1 / 3),
        ("[5, 15]", 1 / 3),
        ("(5, 15)", 1 / 3),
        ([15, 5], 0.0),
        ([1, 2, 3], 0.0),
        (["5", "15"], 0.0),
        ("5 to 15", 0.0),
        ("[5, 15", 0.0),
        ({"start": 5}, 0.0),
        (None, 0.0),
        ([0, 0], 0.0),
        ([math.nan, 5], 0.5),
        ("[" + "1," * 6000 + "]", 0.0),
    ],
)
def test_times_must_be_a_pair_of_numbers_or_the_text_of_one(answer: Any, iou: float) -> None:
    assert script.temporal_iou([0, 10], answer) == pytest.approx(iou)


@pytest.mark.parametrize(("answer", "kind"), [("{[]: 1}", "TypeError"), ([5, 10**400], "OverflowError")])
def test_times_that_end_the_script(answer: Any, kind: str) -> None:
    with pytest.raises(OfficialError) as caught:
        script.temporal_iou([0.0, 10.0], answer)
    assert caught.value.kind == kind


@given(HOSTILE)
def test_hostile_text_is_read_or_ends_the_script(text: str) -> None:
    script.extract_bounding_boxes(text, SIZE)
    try:
        assert 0 <= script.temporal_iou([1.0, 5.0], text) <= 1
    except OfficialError as error:
        assert error.kind in ("TypeError", "OverflowError", "MemoryError", "RecursionError")


@pytest.mark.parametrize(
    "unit", ["[", "{[", "```json\n[", "```json\n[]\n", "<answer>", "]", "1:30 ", "'", "\n"]
)
def test_a_quarter_megabyte_is_read(unit: str) -> None:
    text = unit * (250_000 // len(unit))
    script.extract_bounding_boxes(text, SIZE)
    script.extract_bounding_boxes(text + "}", SIZE)
    assert script.temporal_iou([1, 5], text) == 0.0


def test_literals_that_are_deep_do_not_end_us() -> None:
    for text in ("(" * 9000, "-" * 9000 + "1", "1+" * 4500 + "1"):
        try:
            assert script.temporal_iou([1, 5], text) == 0.0
        except OfficialError as error:
            assert error.kind in ("MemoryError", "RecursionError")


# -- the scripts -------------------------------------------------------------------------------------------------------


def test_an_item_without_an_answer_leaves_the_means_but_not_the_accuracy() -> None:
    some = [item("a") | answers((10, 15), {"12": AS_LIST}), item("b") | answers(what="")]
    found = script.evaluate(some, [3, None], "vstar")
    overall, sports = found.blocks["Overall Statistics"], found.error
    assert sports is not None
    assert sports.kind == "ValueError", "the accuracy of the domain, which has one answer, is 1"
    assert (overall["acc_vqa"], overall["mean_temporal_iou"], overall["mean_miou"]) == (0.5, 0.5, 0.5)
    assert (overall["vqa_temp"], overall["avg_all_score"]) == (0.5, 3.0)
    assert found.items[1] == {}
    assert found.joint_items["Overall Statistics"]["vqa_temp_spat_2"] == [0]


def test_a_score_that_is_no_number_is_nothing_in_one_mean_and_absent_in_the_other() -> None:
    some = [item() | answers((10, 15), {"12": AS_LIST})] * 2
    overall = script.evaluate(some, [-1, 3], "vstar").blocks["Overall Statistics"]
    assert (overall["avg_all_score"], overall["avg_valid_score"], overall["acc_vqa"]) == (1.5, 3.0, 0.5)


def test_a_group_without_an_answer_ends_the_script() -> None:
    some = [item(domain="A") | answers((10, 15), {}), item(domain="B")]
    found = script.evaluate(some, [0, None], "vstar")
    assert list(found.blocks) == ["Overall Statistics", "Video Length: Short", "Domain: A"]
    assert found.error is not None
    assert found.error.kind == "ZeroDivisionError"
    assert script.evaluate([], [], "vstar").blocks == {}


def test_only_open_o3s_script_reads_the_text_again() -> None:
    text = {
        "answer_temporal_pre": "<answer>From <t>10.0</t>s to <t>15.0</t>s</answer>",
        "answer_temporal_pre_2": "none",
    }
    some = [item() | answers([], {}, **text)]
    whens = [
        script.evaluate(some, [0], which).blocks["Overall Statistics"]["mean_temporal_iou"]
        for which in ("vstar", "openo3")
    ]
    assert whens == [0.0, 0.5]
    missing = [item() | {"answer_vqa": "x"}]
    assert script.evaluate(missing, [0], "vstar").error is None
    error = script.evaluate(missing, [0], "openo3").error
    assert error is not None
    assert error.kind == "KeyError"


@pytest.mark.parametrize(
    ("frames", "name"), [(1499, "Short"), (1500, "Medium"), (4499, "Medium"), (4500, "Long")]
)
def test_lengths(frames: int, name: str) -> None:
    assert script.length_of(frames, 25.0) == name


# -- files -------------------------------------------------------------------------------------------------------------


def test_records_become_rows(rows: list[Row]) -> None:
    one, two = rows
    assert benchmark("vstar") is BENCHMARK
    assert (one.id, one.answer, one.windows, one.duration_seconds) == ("one", "a ball", ((10.0, 20.0),), 50.0)
    assert dict(one.groups) == {"domain": "Sports", "length": "Short"}
    assert dict(two.groups) == {"domain": "Animals", "length": "Long"}


def test_a_video_that_comes_again_has_a_number(tmp_path: Path) -> None:
    path = written(tmp_path, [item() | answers(judge_score=3), item() | answers(judge_score=1)])
    rows = BENCHMARK.load(path)
    assert [row.id for row in rows] == ["v", "v#2"]
    found = read_predictions(path, rows)
    assert [found[row.id]["judge_score"] for row in rows] == [3, 1]
    assert "bboxes" not in found["v"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"vid": None}, "field 'vid' must be a text"),
        ({"timestamps": [1]}, r"field 'timestamps' must be \[start, end\]"),
        ({"fps": 0}, "field 'fps' must be greater than 0"),
        ({"width": "wide"}, "field 'width' must be a finite number"),
        ({"bboxes": {}}, "field 'bboxes' must be a list of objects"),
        ({"bboxes": [{"timestamp": 3}]}, r"field 'xmin' is missing"),
        ({"bboxes": [{"xmin": 3}]}, "field 'timestamp' is missing"),
        ({"answer": ["x"]}, "field 'answer' must be a text"),
    ],
)
def test_a_bad_record_is_named_by_file_number_and_field(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    path = written(tmp_path, [item(), item() | fields])
    with pytest.raises(RecordError, match=r"V_STaR_test\.json, record 2.*" + said):
        BENCHMARK.load(path)
    with pytest.raises(MissingError, match="V_STaR_test.json of"):
        BENCHMARK.load(tmp_path / "nowhere.json")


# -- scores ------------------------------------------------------------------------------------------------------------


def test_perfect_answers_end_the_script_and_are_perfect_in_strict(rows: list[Row]) -> None:
    predictions = {row.id: answers(judge_score=3) for row in rows}
    table = official(rows, predictions)
    assert (table.error, dict(table.figures)) == ("ValueError: math domain error", {})
    strict = score(rows, predictions)
    assert strict.figures["mAM"] == 1.0
    assert strict.figures["mLGM"] == pytest.approx(-math.log(1e-6))
    assert set(strict.values.values()) == {1.0}
    assert (strict.num_scored, dict(strict.failures)) == (2, {})


def test_the_printed_names_units_and_digits(rows: list[Row]) -> None:
    predictions = {
        "one": answers((10, 13), {"12": AS_LIST}, judge_score=3),
        "two": answers((10, 14), {}, judge_score=-1),
    }
    table = official(rows, predictions)
    assert table.error == "ValueError: math domain error"
    overall = {name: value for name, value in table.figures.items() if ":" not in name}
    assert overall["Mean IoU"] == 0.35
    assert overall["R1@IoU=0.3 (chain 2)"] == 1.0
    assert (overall["mAP@0.9"], overall["Mean mIoU (chain 2)"]) == (0.25, 0.25)
    assert (overall["Avg All Score"], overall["Avg Valid Score"], overall["Accuracy"]) == (1.5, 3.0, 0.5)
    assert overall["mLGM"] == round(-(math.log(0.5) + math.log(0.65) + math.log(0.75)) / 3, 4)
    assert (overall["VQA & Temp & Spat"], overall["Temp & Spat (chain 2)"]) == (0.5, 0.5)
    assert not table.figures.keys() & {"Video Length: Short: Accuracy"}, (
        "that group is perfect: the script ends there"
    )
    assert table.mode == "official:vstar"
    assert BENCHMARK.official["openo3"](rows, predictions).mode == "official:openo3"


def test_missing_rows_stay_in_the_file_of_the_script(rows: list[Row]) -> None:
    predictions = {"one": answers((10, 13), {}, judge_score=1)}
    table, strict = official(rows, predictions), score(rows, predictions)
    assert (table.figures["Mean IoU"], table.figures["Temp & Spat"]) == (0.3, 0.0)
    assert (table.num_scored, dict(table.failures), table.error) == (
        1,
        {"missing": 1},
        "ZeroDivisionError: division by zero",
    )
    assert strict.figures["mIoU"] == 0.15
    assert (strict.num_scored, dict(strict.failures)) == (
        2,
        {"missing": 1, "where 1 unparsed": 1, "where 2 unparsed": 1},
    )


def test_without_a_judge_there_is_no_what(rows: list[Row]) -> None:
    predictions = {row.id: answers((10, 15), {"12": AS_LIST}) for row in rows}
    table, strict = official(rows, predictions), score(rows, predictions)
    assert (table.figures["Accuracy"], table.figures["mAM"], table.figures["VQA & Temp"]) == (
        None,
        None,
        None,
    )
    assert (table.figures["Mean IoU"], table.figures["Mean mIoU"], table.figures["Temp & Spat"]) == (
        0.5,
        0.5,
        1.0,
    )
    assert (strict.figures["accuracy"], strict.figures["mAM"], strict.figures["LGM1"]) == (None, None, None)
    assert (strict.figures["mIoU"], strict.figures["vIoU (chain 2)"]) == (0.5, 0.5)
    assert dict(table.failures) == dict(strict.failures) == {"unjudged": 2}


def test_a_judge_is_asked_where_there_is_no_score(rows: list[Row]) -> None:
    asked: list[tuple[str, str, str]] = []

    def judge(question: str, truth: str, answer: str) -> int | None:
        asked.append((question, truth, answer))
        return None if answer == "mumble" else 0

    predictions = {"one": answers(what="mumble"), "two": answers((10, 13), {}, what="a cat")}
    table = official(rows, predictions, judge=judge)
    assert asked == [("What?", "a ball", "mumble"), ("What?", "a ball", "a cat")]
    assert (table.figures["Avg All Score"], table.figures["Accuracy"]) == (0.0, 0.0)
    strict = score(rows, predictions, judge=judge)
    assert strict.figures["accuracy"] == 0.0
    assert strict.failures["what judge gave no number"] == 1
    asked.clear()
    scored = {id: one | {"VQA_score": 3} for id, one in predictions.items()}
    assert score(rows, scored, judge=judge).figures["accuracy"] == 1.0
    assert not asked


def test_strict_reads_what_the_scripts_lose(rows: list[Row]) -> None:
    one = answers(
        [], None, judge_score=3, answer_temporal_pre="from 10s to 20s", answer_temporal_pre_2="00:10-00:20"
    )
    two = answers("10 to 20", {"12.0": AS_LIST, "13": [[0, 0, 1, 1], AS_LIST]}, judge_score=2)
    strict = score(rows, {"one": one, "two": two})
    assert (strict.figures["mIoU"], strict.figures["R@0.7 (chain 2)"]) == (1.0, 1.0)
    assert strict.figures["vIoU"] == 0.75, "of several boxes in a frame the first counts"
    found = evaluation(rows, {"one": one, "two": two}, "openo3")
    assert [graded["temporal_IoU"] for graded in found.items] == [0.0, 0.0]
    assert [graded["spatial_mIoU"] for graded in found.items] == [1.0, 0.5]


def test_boxes_may_be_text_and_labels_older(tmp_path: Path) -> None:
    older = [{"12_300": BOX}, {"13_325": BOX}]
    rows = BENCHMARK.load(written(tmp_path, [item(bboxes=older)]))
    text = "<answer>{'12': [10, 20, 110, 220]}</answer>"
    one = {"answer_spatial_pre": text, "answer_spatial_2": text, "answer_temporal": [10, 20]}
    strict = score(rows, {"v": one})
    assert (strict.figures["vIoU"], strict.figures["AP@0.5 (chain 2)"]) == (0.5, 0.5)
    assert (strict.figures["accuracy"], strict.figures["mIoU (chain 2)"]) == (None, None), (
        "no prediction has them"
    )
    error = official(rows, {"v": answers(judge_score=3)}).error
    assert error == "KeyError: 'timestamp'"


def test_a_models_text_says_what_and_when(rows: list[Row]) -> None:
    predictions = {row.id: "<think>5 - 6</think><answer>a ball, 10 s to 20 s</answer>" for row in rows}
    strict = score(rows, predictions, judge=lambda question, truth, answer: 3 if truth in answer else 0)
    assert (strict.figures["accuracy"], strict.figures["mIoU"], strict.figures["vIoU"]) == (1.0, 1.0, None)
    assert score(rows, {row.id: [[10.0, 15.0]] for row in rows}).figures["mIoU"] == 0.5
    with pytest.raises(OfficialError, match="TypeError: one: the script takes records"):
        official(rows, predictions)


def test_labels_that_nothing_can_hit_are_unscored_in_strict(tmp_path: Path) -> None:
    reverse = [{"timestamp": 12, "xmin": 9, "ymin": 9, "xmax": 1, "ymax": 1}]
    rows = BENCHMARK.load(written(tmp_path, [item(timestamps=[20, 10], bboxes=reverse)]))
    strict = score(rows, {"v": answers(judge_score=3)})
    assert (strict.figures["mIoU"], strict.figures["vIoU"], strict.figures["accuracy"]) == (None, None, 1.0)
    assert strict.failures["when 1 label_unusable"] == strict.failures["where 2 label_unusable"] == 1


@given(
    HOSTILE,
    HOSTILE,
    st.recursive(
        st.none() | st.booleans() | st.floats() | HOSTILE,
        lambda one: st.lists(one) | st.dictionaries(HOSTILE, one),
        max_leaves=8,
    ),
)
def test_hostile_records_give_values_in_range(what: str, when: str, where: Any) -> None:
    rows = [
        Row(
            "v",
            "v",
            "q",
            "what_when_where",
            answer="a",
            windows=((10.0, 20.0),),
            duration_seconds=50.0,
            raw=item(),
        )
    ]
    one = {"answer_vqa": what, "judge_score": 1, "answer_temporal": when, "answer_temporal_pre_2": when}
    one |= {"answer_spatial": where, "answer_spatial_2": {"12": where}}
    strict = score(rows, {"v": one})
    assert all(value is None or 0 <= value < math.inf for value in strict.figures.values())
    table = official(rows, {"v": one})
    assert table.error is not None or all(not math.isinf(value) for value in table.figures.values())
