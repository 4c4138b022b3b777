"""E.T. Bench: what its script reads and scores, our reader of its files, and the strict mode beside it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.errors import MissingError, RecordError
from timeloupe.eval.benchmarks.etbench import BENCHMARK, official, read_predictions
from timeloupe.eval.registry import benchmark
from timeloupe.eval.scoring import Row
from timeloupe.eval.scripts import etbench_captions as etbench_script
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.etbench_tasks import EVALUATORS, spelling_similarity

OPTIONS = ["open the door", "close the door", "sit down", "stand up"]
HOSTILE = st.text(alphabet="0123456789.:- \n\t,()abetosncd!?*٣½", max_size=60) | st.text(max_size=30)


def record(task: str, idx: int = 0, **fields: Any) -> dict[str, Any]:
    head = {
        "version": 1.0,
        "idx": idx,
        "task": task,
        "source": "made",
        "video": f"made/{idx}.mp4",
        "duration": 60.0,
    }
    return head | {"q": "When?"} | fields


RECORDS = [
    record("tvg", tgt=[10.0, 20.0]),
    record("epm", tgt=[10.0, 20.0]),
    record("tem", tgt=[[10.0, 20.0], [40.0, 50.0]]),
    record("tal", tgt=[[10.0, 20.0], [40.0, 50.0]]),
    record("evs", tgt=[[10.0, 20.0], [40.0, 50.0]]),
    record("vhd", tgt=[[[10, 20]], [[15, 25]]]),
    record("vhd", 1, tgt=[[10, 20], [40, 50]]),
    record("rar", o=OPTIONS, p=1),
    record("eca", o=[[1.0, 2.5], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], p=0),
    record("rvq", o=[*OPTIONS, "leave"], p=4),
    record("gvq", o=OPTIONS, p=2, tgt=[10.0, 20.0]),
    record("dvc", tgt=[[10.0, 20.0], [40.0, 50.0]], g=["one", "two"]),
    record("slc", tgt=[[10.0, 20.0]], g=["one"]),
]
PERFECT = {
    "tvg/made/0": "It happens in 10.0 - 20.0 seconds.",
    "epm/made/0": "10 to 20",
    "tem/made/0": "40 - 50",
    "tal/made/0": "10 - 20, 40 - 50 seconds",
    "evs/made/0": "10 - 20, 40 - 50 seconds",
    "vhd/made/0": "24.5 seconds",
    "vhd/made/1": "at 50 s",
    "rar/made/0": "Best Option: (B)",
    "eca/made/0": "(A) 1.0 - 2.5",
    "rvq/made/0": "E.",
    "gvq/made/0": "(C) It happens in 10 - 20 seconds.",
    "dvc/made/0": "10 - 20 seconds, somebody runs. 40 - 50 seconds, somebody sleeps.",
    "slc/made/0": "10 - 20 seconds, somebody runs.",
}


def written(folder: Path, values: Any, name: str = "etbench_txt_v1.0.json") -> Path:
    path = folder / name
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    return BENCHMARK.load(written(tmp_path, RECORDS))


# -- captions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("from 3 - 9.25 on", ["3 - 9.25"]),
        ("1:30", ["70 - 110"]),
        ("0:10", ["10 - 50"]),
        ("1:00 2:00", ["60 - 120"]),
        ("90", ["70.0 - 110.0"]),
        ("7", ["7.0 - 47.0"]),
        ("3 9", ["3 - 9"]),
        ("3 9 12", ["3", "9", "12"]),
        ("12.34.", ["12.3 - 4."]),
        ("none", []),
    ],
)
def test_a_piece_of_a_caption_gives_these_spans(text: str, spans: list[str]) -> None:
    assert etbench_script.extract_time_part(text) == spans


@pytest.mark.parametrize(
    ("text", "kind"),
    [("a: b", "IndexError"), ("1:2:3", "ValueError"), ("5..", "ValueError"), ("1.5:30", "ValueError"),
     (f"{'9' * 5000}:1", "ValueError"), (f"{'9' * 4300}:59", "ValueError")],
)  # fmt: skip
def test_where_the_script_raises_on_a_piece_so_do_we(text: str, kind: str) -> None:
    with pytest.raises(OfficialError) as caught:
        etbench_script.extract_time_part(text)
    assert caught.value.kind == kind


def test_a_paragraph_is_cut_at_its_spans() -> None:
    text = "0 - 5 seconds, Crack the eggs.\n5 - 9 seconds, stir them."
    assert etbench_script.extract_time_from_paragraph(text) == (
        [[0.0, 5.0], [5.0, 9.0]], ["crack the eggs.", "stir them."],
    )  # fmt: skip


def test_a_span_is_struck_out_everywhere_so_that_it_damages_longer_ones() -> None:
    times, captions = etbench_script.extract_time_from_paragraph("1-2 walks away 11-25 sits down")
    assert times == [[1.0, 2.0], [11.0, 25.0]]
    assert captions == ["walks away 1", "5 sits down"]


def test_start_and_end_times_need_a_colon() -> None:
    read = etbench_script.extract_time_from_paragraph
    assert read("Start time: 3s end time: 8s\ndescription: a man walks") == ([[3.0, 8.0]], ["a man walks"])
    assert read("starting time: 3 ending time: 8\n* a man walks") == ([[3.0, 8.0]], ["a man walks"])
    with pytest.raises(OfficialError, match="AssertionError"):
        read("start time 3, end time 8")
    assert etbench_script.dvc_format("start time 3, end time 8") == (None, None)


def test_without_a_paragraph_only_the_first_timed_line_counts() -> None:
    text = "no time here at all\nat 90 seconds, somebody cooks\nat 30 seconds, somebody eats"
    assert etbench_script.dvc_format(text) == ([[70.0, 110.0]], ["somebody cooks"])
    assert etbench_script.dvc_format("Somebody cooks. At 5 seconds, he eats") == ([[5.0, 45.0]], ["he eats."])
    assert etbench_script.dvc_format("9 - 2 seconds, somebody cooks") == ([[2.0, 9.0]], ["somebody cooks"])


# -- tasks -------------------------------------------------------------------------------------------------------------


def figures(task: str, *samples: dict[str, Any], similarity: Any = spelling_similarity) -> dict[str, float]:
    return EVALUATORS[task](samples, similarity).figures


def test_f1_of_tvg_is_a_recall_of_the_first_window() -> None:
    found = figures("tvg", {"tgt": [0, 10], "a": "0-10 50-60"}, {"tgt": [0, 10], "a": "50-60 0-10"})
    assert found == {
        "Total": 2, "Failed": 0, "mIoU": 0.5, "F1@0.1": 0.5, "F1@0.3": 0.5, "F1@0.5": 0.5, "F1@0.7": 0.5, "F1": 0.5,
    }  # fmt: skip
    assert math.isnan(figures("tvg", {"tgt": [5, 5], "a": "5-5"})["mIoU"])


def test_an_overlap_of_seven_tenths_is_below_the_threshold_in_tvg_but_not_in_tal() -> None:
    assert figures("tvg", {"tgt": [0, 10], "a": "0-7"})["F1@0.7"] == 0.0
    assert figures("tal", {"tgt": [[0, 10]], "a": "0-7"})["F1@0.7"] == 1.0


def test_tal_lets_one_window_hit_many() -> None:
    found = figures("tal", {"tgt": [[0, 10], [10, 20]], "a": "0-20"})
    assert (found["F1@0.5"], found["F1@0.7"]) == (1.0, 0.0)


def test_evs_leaves_out_what_it_cannot_read() -> None:
    found = figures("evs", {"tgt": [[0, 10]], "a": "0-10"}, {"tgt": [[0, 10]], "a": "no idea"})
    assert found == {"Total": 2, "Failed": 1, "F1": 1.0}
    assert figures("evs", {"tgt": [[0.5, 1.5]], "a": "0.5-2.5"})["F1"] == 1.0, "ends are rounded to even"
    assert figures("evs") == {"Total": 0, "Failed": 0, "F1": 0}


def test_vhd_takes_the_first_number_with_its_sign() -> None:
    assert figures("vhd", {"tgt": [[3, 9]], "a": "clip 2: 5"})["F1"] == 0.0
    assert figures("vhd", {"tgt": [[3, 9]], "a": "9"})["F1"] == 1.0
    assert figures("vhd", {"tgt": [[[3, 9]], [[20, 30]]], "a": "+25.5 s"})["F1"] == 1.0
    assert figures("vhd", {"tgt": [[3, 9]], "a": "-5"}) == {"Total": 1, "Failed": 0, "F1": 0.0}


def test_a_wrong_letter_of_rvq_goes_on_to_the_similarity_but_not_one_of_gvq() -> None:
    def second_is_closest(answer: str, option: str) -> float:
        return float(option.startswith("(B)"))

    sample = {"o": OPTIONS, "p": 1, "a": "(C) 0-10", "tgt": [0, 10]}
    assert figures("rvq", sample, similarity=second_is_closest) == {"Total": 1, "Failed": 0, "Acc": 1.0}
    found = figures("gvq", sample, similarity=second_is_closest)
    assert (found["Acc"], found["mRec"], found["Failed"]) == (0.0, 0.0, 0)
    assert figures("gvq", sample | {"a": "(B) 0-10"})["mRec"] == 1.0


def test_what_the_stand_in_of_the_similarity_is() -> None:
    assert spelling_similarity("b", "(B) close the door") == 1.0
    assert spelling_similarity("zz", "(B) xx") == 0.0
    assert 0.3 < spelling_similarity("close the door", "(B) close the door") < 0.5


def test_detection_is_strictly_above_the_threshold_and_scaled_by_what_was_read() -> None:
    one = {"video": "v0", "tgt": [[0, 10]], "g": ["x"], "a": "0 - 10 seconds, somebody runs"}
    assert figures("dvc", one)["F1"] == 1.0
    assert figures("dvc", one, one | {"video": "v1", "a": "no"}) == {
        "Total": 2, "Failed": 1, "F1@0.1": 0.5, "F1@0.3": 0.5, "F1@0.5": 0.5, "F1@0.7": 0.5, "F1": 0.5,
    }  # fmt: skip
    assert figures("dvc", one | {"a": "0 - 5 seconds, somebody runs"})["F1@0.5"] == 0.0
    assert figures("slc", one | {"a": "no"})["F1"] == 0.0


@pytest.mark.parametrize(
    ("task", "sample", "kind"),
    [
        ("tvg", {"tgt": [0, 1], "a": "3..5-7"}, "ValueError"),
        ("tem", {"tgt": [], "a": "3-7"}, "IndexError"),
        ("tal", {"tgt": [[5, 5]], "a": "5-5"}, "ZeroDivisionError"),
        ("evs", {"tgt": [[0, 1]], "a": f"{'9' * 400}-5"}, "OverflowError"),
        ("rvq", {"o": ["x"], "p": 0, "a": "A"}, "NotImplementedError"),
    ],
)
def test_where_the_script_ends_so_do_we(task: str, sample: dict[str, Any], kind: str) -> None:
    with pytest.raises(OfficialError) as caught:
        figures(task, sample)
    assert caught.value.kind == kind


@given(st.sampled_from(sorted(EVALUATORS)), HOSTILE)
def test_hostile_answers_give_figures_in_range_or_the_scripts_exception(task: str, text: str) -> None:
    truth: Any = [1.0, 5.0] if task in ("tvg", "epm", "gvq") else [[1.0, 5.0], [8.0, 9.0]]
    try:
        graded = EVALUATORS[task](
            [{"tgt": truth, "o": OPTIONS, "p": 1, "video": "v", "a": text}], spelling_similarity
        )
    except OfficialError as error:
        assert error.kind in ("ValueError", "OverflowError")
        return
    assert all(0 <= value <= 1 for value in graded.figures.values())
    assert all(value is None or 0 <= value <= 1 for value in graded.values)


@pytest.mark.parametrize(
    "unit", ["1", "1.", "1-", "1-2 ", "1 to ", "start time: 1", "12 seconds, abcdefgh\n", "(A", "*\n"]
)
def test_a_quarter_megabyte_is_read(unit: str) -> None:
    text = unit * (250_000 // len(unit))
    etbench_script.dvc_format(text)
    for task, truth in (("tvg", [1, 5]), ("vhd", [[1, 5]]), ("gvq", [1, 5])):
        try:
            figures(task, {"tgt": truth, "o": OPTIONS, "p": 1, "a": text})
        except OfficialError as error:
            assert error.kind == "ValueError"


# -- files -------------------------------------------------------------------------------------------------------------


def test_records_become_rows(rows: list[Row]) -> None:
    by_id = {row.id: row for row in rows}
    assert benchmark("etbench") is BENCHMARK
    assert list(by_id) == list(PERFECT)
    tvg, vhd, eca, gvq = (by_id[f"{task}/made/0"] for task in ("tvg", "vhd", "eca", "gvq"))
    assert (tvg.windows, tvg.duration_seconds, tvg.task, tvg.video) == (
        ((10.0, 20.0),),
        60.0,
        "grounding",
        "made/0.mp4",
    )
    assert vhd.windows == ((10.0, 20.0), (15.0, 25.0))
    assert (eca.options[0], eca.answer, eca.windows) == ("1.0 - 2.5", "A", ())
    assert (gvq.answer, gvq.windows, dict(gvq.groups)) == (
        "C",
        ((10.0, 20.0),),
        {"task": "gvq", "source": "made"},
    )


def test_lines_and_folders_are_read_too(tmp_path: Path, rows: list[Row]) -> None:
    lines = written(tmp_path, "\n".join(map(json.dumps, RECORDS)), "lines.jsonl")
    assert BENCHMARK.load(lines) == rows
    folder = tmp_path / "answers"
    folder.mkdir()
    written(folder, RECORDS[:5], "a.json")
    written(folder, RECORDS[5:], "b.json")
    written(folder, {"tvg": {"made": {"F1": 1.0}}}, "metrics.json")
    assert BENCHMARK.load(folder) == rows


def test_answers_are_read_from_the_scripts_layout(tmp_path: Path, rows: list[Row]) -> None:
    answered = [one | {"a": PERFECT[row.id]} for one, row in zip(RECORDS, rows, strict=True)]
    assert read_predictions(written(tmp_path, answered, "answers.json"), rows) == PERFECT
    with pytest.raises(RecordError, match=r"record 1: field 'a' is missing"):
        read_predictions(written(tmp_path, RECORDS, "none.json"), rows)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"task": "xyz"}, r"field 'task' is 'xyz', allowed: tvg, epm"),
        ({"tgt": [[1, 2]]}, r"field 'tgt' must be \[start, end\] in seconds"),
        ({"tgt": ["1", 2]}, r"field 'tgt'"),
        ({"tgt": [1, math.inf]}, r"field 'tgt'"),
        ({"video": None}, r"field 'video' must be a text"),
        ({"duration": "long"}, r"field 'duration' must be a finite number"),
        ({"task": "tal"}, r"field 'tgt' must be a list of \[start, end\]"),
        ({"task": "vhd", "tgt": [[[1]]]}, r"field 'tgt' must be a list of \[start, end\]"),
        ({"task": "rvq"}, r"field 'o' is missing"),
        ({"task": "rvq", "o": ["x"], "p": 0}, r"field 'o' must be a list of 4 or 5 options"),
        ({"task": "rvq", "o": [*OPTIONS[:3], {}], "p": 0}, r"field 'o' must hold texts or"),
        ({"task": "rvq", "o": OPTIONS, "p": 4}, r"field 'p' must be the number of an option, 0 to 3, got 4"),
        ({"task": "rvq", "o": OPTIONS, "p": True}, r"field 'p'"),
    ],
)
def test_a_bad_record_is_named_by_file_number_and_field(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    bad = written(tmp_path, [RECORDS[1], RECORDS[0] | fields])
    with pytest.raises(RecordError, match=rf"etbench_txt_v1\.0\.json, record 2: {said}"):
        BENCHMARK.load(bad)


def test_what_is_no_file_of_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="makes the id 'tvg/made/0' a second time"):
        BENCHMARK.load(written(tmp_path, [RECORDS[0], RECORDS[0]]))
    with pytest.raises(RecordError, match="is not JSON"):
        BENCHMARK.load(written(tmp_path, "nothing of the kind"))
    with pytest.raises(MissingError, match="etbench_txt_v1.0.json"):
        BENCHMARK.load(tmp_path / "nowhere.json")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MissingError, match="no list of records"):
        BENCHMARK.load(empty)


# -- scores ------------------------------------------------------------------------------------------------------------


def test_perfect_answers_are_perfect_in_both_modes(rows: list[Row]) -> None:
    table, strict = official(rows, PERFECT), BENCHMARK.strict(rows, PERFECT)
    means = (
        "RAR (Acc)",
        "EVC (Acc)",
        "RVQ (Acc)",
        "TVG (F1)",
        "EPM (F1)",
        "TAL (F1)",
        "EVS (F1)",
        "VHD (F1)",
    )
    means += ("DVC (F1)", "SLC (F1)", "TEM (Rec)", "GVQ (Rec)", "Mean Acc", "Mean F1 (grounding)")
    means += ("Acc (ref)", "F1 (gnd)", "F1 (cap)", "Rec (com)", "Mean F1 (captioning)")
    assert {name: table.figures[name] for name in means} == dict.fromkeys(means, 1.0)
    assert (table.mode, table.num_scored, table.num_total, dict(table.failures)) == (
        "official:etbench",
        13,
        13,
        {},
    )
    assert set(strict.figures.values()) == {1.0}
    assert (strict.num_scored, dict(strict.failures)) == (13, {})
    assert set(strict.values) == set(PERFECT)


def test_means_over_sources_and_lines_are_rounded_as_in_the_script(tmp_path: Path) -> None:
    some = [record("tvg", n, tgt=[0, 10]) | {"source": "one"} for n in range(3)]
    some += [record("tvg", 9, tgt=[0, 10]), record("epm", 9, tgt=[0, 10])]
    table = official(BENCHMARK.load(written(tmp_path, some)), dict.fromkeys(
        ("tvg/one/0", "tvg/made/9", "epm/made/9"), "0-10") | {"tvg/one/1": "50-60", "tvg/one/2": "x"})  # fmt: skip
    assert table.figures["tvg one F1"] == 0.33333
    assert table.figures["TVG (F1)"] == round((0.33333 + 1) / 2, 5)
    assert table.figures["Mean F1 (grounding)"] == round((0.33333 + 1 + 1) / 3, 5)
    assert "F1 (gnd)" not in table.figures, "only with all tasks of the table"
    assert dict(table.failures) == {"unparsed": 1}


def test_missing_rows_leave_the_official_figures_but_not_the_strict_ones(rows: list[Row]) -> None:
    tvg = [row for row in rows if row.groups["task"] in ("tvg", "epm")]
    table, strict = official(tvg, {"tvg/made/0": "10-20"}), BENCHMARK.strict(tvg, {"tvg/made/0": "10-20"})
    assert (table.figures["TVG (F1)"], table.num_scored, dict(table.failures)) == (1.0, 1, {"missing": 1})
    assert "EPM (F1)" not in table.figures
    assert (strict.figures["tvg mIoU"], strict.figures["epm mIoU"]) == (1.0, 0.0)
    assert (strict.num_scored, dict(strict.failures)) == (2, {"missing": 1})


def test_strict_reads_what_the_script_does_not(rows: list[Row]) -> None:
    answers = {"tvg/made/0": "[10, 20]", "tem/made/0": "from 00:40 until 00:50", "evs/made/0": "no idea",
               "vhd/made/0": "clip 2, second 21", "vhd/made/1": "between 40 s and 48 s", "gvq/made/0": "c"}  # fmt: skip
    some = [row for row in rows if row.id in answers]
    table, strict = official(some, answers), BENCHMARK.strict(some, answers)
    assert (table.figures["TVG (F1)"], strict.figures["tvg R@0.7"]) == (0.0, 1.0)
    assert (table.figures["TEM (Rec)"], strict.figures["tem mIoU"]) == (0.0, 1.0)
    assert (table.figures["EVS (F1)"], strict.figures["evs F1"]) == (0, 0.0)
    assert strict.figures["vhd hit"] == 0.5, (
        "of two times neither is the answer; a window stands for its middle"
    )
    assert strict.figures["gvq accuracy"] == 1.0
    assert strict.values["vhd/made/1"] == 1.0
    assert dict(strict.failures) == {"unparsed": 2, "windows unparsed": 1}


def test_strict_takes_windows_as_the_trivial_rules_give_them(rows: list[Row]) -> None:
    some = [row for row in rows if not row.options]
    table = BENCHMARK.strict(some, {row.id: [[10.0, 20.0]] for row in some})
    assert (table.figures["tvg mIoU"], table.figures["tem mIoU"], table.figures["vhd hit"]) == (1.0, 1.0, 1.0)


def test_labels_that_nothing_can_hit_are_unscored_in_strict(tmp_path: Path) -> None:
    some = [record("tem", tgt=[]), record("vhd", tgt=[]), record("tvg", tgt=[20, 10])]
    table = BENCHMARK.strict(BENCHMARK.load(written(tmp_path, some)), {})
    assert (table.num_scored, table.failures["label_unusable"]) == (0, 3)


def test_an_exception_of_the_script_names_task_and_source(rows: list[Row]) -> None:
    with pytest.raises(OfficialError, match=r"ValueError: tvg made: could not convert"):
        official(rows, {"tvg/made/0": "3..5 - 7"})
    with pytest.raises(OfficialError, match="AttributeError: tvg/made/0: the script takes texts"):
        official(rows, {"tvg/made/0": [[1, 2]]})


@given(HOSTILE)
def test_hostile_answers_give_strict_values_in_range(text: str) -> None:
    some = [
        Row("a", "v", "q", "open", windows=((1.0, 5.0),), groups={"task": "vhd", "source": "s"}),
        Row("b", "v", "q", "grounding", windows=((1.0, 5.0), (7.0, 9.0)), groups={"task": "tem", "source": "s"}),
        Row("c", "v", "q", "multiple_choice", options=tuple(OPTIONS), answer="B", windows=((1.0, 5.0),),
            groups={"task": "gvq", "source": "s"}),
    ]  # fmt: skip
    table = BENCHMARK.strict(some, {row.id: text for row in some})
    assert table.num_scored == 3
    assert all(0 <= value <= 1 for value in table.values.values())
