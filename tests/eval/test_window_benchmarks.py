"""QVHighlights, ReXTime, NExT-GQA and CG-Bench on small files: reading, faults of the scripts, the strict mode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.cli.main import main
from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.eval.baselines import baselines
from timeloupe.eval.benchmarks import cgbench, nextgqa, qvhighlights, rextime
from timeloupe.eval.registry import MODULES, benchmark
from timeloupe.eval.scoring import Benchmark, Row
from timeloupe.eval.scripts import cgbench as cgbench_scripts
from timeloupe.eval.scripts import videomind as videomind_script
from timeloupe.eval.scripts.errors import OfficialError


def write_lines(path: Path, records: Sequence[Any]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n", encoding="utf-8")
    return path


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def ends_with(benchmark: Benchmark, script: str, rows: list[Row], predictions: Any) -> str:
    """The exception that a script ends with."""
    with pytest.raises(OfficialError) as caught:
        benchmark.official[script](rows, predictions)
    return str(caught.value)


# -- QVHighlights ------------------------------------------------------------------------------------------------------


def moment(qid: int, windows: list[list[float]], clips: dict[int, list[int]] | None = None) -> dict[str, Any]:
    clips = clips or {0: [4, 4, 4]}
    return {
        "qid": qid, "query": "a cat", "duration": 20, "vid": f"v{qid}_0.0_20.0", "relevant_windows": windows,
        "relevant_clip_ids": list(clips), "saliency_scores": list(clips.values()),
    }  # fmt: skip


# One query per length range: without it the script cannot end.
MOMENTS = [moment(1, [[0, 8]]), moment(2, [[0, 16]]), moment(3, [[0, 100]])]
RIGHT = {
    str(one["qid"]): {
        "pred_relevant_windows": [[*one["relevant_windows"][0], 0.9]],
        "pred_saliency_scores": [1.0] + [0.0] * 9,
    }
    for one in MOMENTS
}


@pytest.fixture()
def moments(tmp_path: Path) -> list[Row]:
    return qvhighlights.load(write_lines(tmp_path / "val.jsonl", MOMENTS))


def test_qvhighlights_are_read_from_lines_or_a_list(tmp_path: Path, moments: list[Row]) -> None:
    assert qvhighlights.load(write_json(tmp_path / "val.json", MOMENTS)) == moments
    first = moments[0]
    assert (first.id, first.video, first.windows) == ("1", "v1_0.0_20.0", ((0.0, 8.0),))
    assert (first.duration_seconds, first.task, first.raw) == (20.0, "multi_segment", MOMENTS[0])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"relevant_windows": [[0]]}, "'relevant_windows' must be a list"),
        ({"relevant_windows": [[0, float("inf")]]}, "'relevant_windows' must be a list"),
        ({"relevant_windows": None}, "'relevant_windows' is missing"),
        ({"duration": "20"}, "'duration' must be a finite number"),
        ({"saliency_scores": [[4, 4]]}, "'saliency_scores' must hold three grades"),
        ({"relevant_clip_ids": [0.5]}, "'relevant_clip_ids' must be a list of clip numbers"),
        ({"qid": 1}, "is '1' as in"),
        ({"query": None}, "'query' must be a text"),
    ],
)
def test_a_bad_line_of_qvhighlights_names_file_line_and_field(
    tmp_path: Path, change: dict[str, Any], what: str
) -> None:
    path = write_lines(tmp_path / "val.jsonl", [MOMENTS[0], {**MOMENTS[1], **change}])
    with pytest.raises(RecordError) as caught:
        qvhighlights.load(path)
    assert f"{path}:2" in str(caught.value)
    assert what in str(caught.value)


def test_perfect_submission_to_qvhighlights(moments: list[Row]) -> None:
    figures = qvhighlights.BENCHMARK.official["moment_detr"](moments, RIGHT).figures
    assert figures["MR-full-mAP"] == figures["MR-short-mAP"] == figures["MR-long-mAP"] == 100.0
    assert figures["full"]["MR-R1"]["0.95"] == 100.0
    assert figures["HL-min-VeryGood-mAP"] == figures["HL-min-VeryGood-Hit1"] == 100.0
    # The annotation's 100 s in a video of 20 s are cut in the strict mode, as is the answer.
    strict = qvhighlights.strict(moments, RIGHT)
    assert {strict.figures[name] for name in ("mIoU", "R1@0.7", "mAP", "F1", "HL-mAP", "HL-Hit1")} == {1.0}


def test_the_script_takes_the_first_window_and_strict_the_best(moments: list[Row]) -> None:
    two = {
        id: {"pred_relevant_windows": [[15, 16, 0.1], *one["pred_relevant_windows"]]}
        for id, one in RIGHT.items()
    }
    official = qvhighlights.BENCHMARK.official["moment_detr"](moments, two)
    assert official.figures["MR-full-R1@0.5"] == 0.0
    assert official.figures["MR-full-mAP"] == 100.0
    assert qvhighlights.strict(moments, two).figures["R1@0.5"] == 1.0


def test_only_ten_windows_of_the_list_are_looked_at(moments: list[Row]) -> None:
    late = {
        id: {"pred_relevant_windows": [[15, 16, 0.1]] * 10 + one["pred_relevant_windows"]}
        for id, one in RIGHT.items()
    }
    assert qvhighlights.BENCHMARK.official["moment_detr"](moments, late).figures["MR-full-mAP"] == 0.0
    assert qvhighlights.strict(moments, late).figures["mAP"] == 1.0


def test_saliency_that_is_too_short_or_too_long(moments: list[Row]) -> None:
    short = {id: {"pred_saliency_scores": [-1.0]} for id in RIGHT}
    script = qvhighlights.BENCHMARK.official["timesuite_vhd"](moments, short).figures
    # The nine clips without a score have 0 and stand before the only one that has a score.
    assert script["HL-min-VeryGood-mAP"] == 10.0
    assert qvhighlights.strict(moments, short).figures["HL-mAP"] == 1.0
    long = {id: {"pred_saliency_scores": [1.0] + [0.0] * 9 + [5.0]} for id in RIGHT}
    assert (
        qvhighlights.BENCHMARK.official["timesuite_vhd"](moments, long).figures["HL-min-VeryGood-Hit1"] == 0.0
    )
    assert qvhighlights.strict(moments, long).figures["HL-Hit1"] == 1.0


def test_faults_of_moment_detr(moments: list[Row]) -> None:
    bench = qvhighlights.BENCHMARK
    assert ends_with(bench, "moment_detr", moments, dict(list(RIGHT.items())[:2])).startswith(
        "AssertionError: qids"
    )
    assert ends_with(bench, "moment_detr", moments, {**RIGHT, "9": RIGHT["1"]}).startswith("AssertionError")
    empty = {**RIGHT, "2": {"pred_relevant_windows": []}}
    assert ends_with(bench, "moment_detr", moments, empty) == "IndexError: list index out of range"
    unscored = {**RIGHT, "2": {"pred_relevant_windows": [[0, 1]]}}
    assert ends_with(bench, "moment_detr", moments, unscored).startswith("IndexError")
    assert ends_with(bench, "moment_detr", moments, {**RIGHT, "2": {}}).startswith("KeyError")
    assert ends_with(bench, "moment_detr", moments, dict.fromkeys(RIGHT, "0 to 8")).startswith("TypeError")
    one = moments[:1]
    assert ends_with(bench, "moment_detr", one, {"1": RIGHT["1"]}).startswith("TypeError: 'numpy.float64'")
    assert ends_with(bench, "timesuite_vhd", moments, {}) == "IndexError: list index out of range"


def test_texts_and_windows_of_qvhighlights(moments: list[Row]) -> None:
    texts = {"1": "<answer>0-8</answer>", "2": "from 0 to 16 s", "3": "I cannot say"}
    table = qvhighlights.strict(moments, texts)
    assert table.figures["mIoU"] == pytest.approx(2 / 3)
    assert table.failures == {"unparsed": 1}
    assert table.figures["HL-mAP"] is None
    assert qvhighlights.BENCHMARK.official["taro"](moments, texts).figures["mIoU"] == pytest.approx(2 / 3)
    assert qvhighlights.BENCHMARK.official["taro"](moments, RIGHT).figures["Recall@0.7"] == 1.0


def test_nothing_at_all_is_wrong_and_counted(moments: list[Row]) -> None:
    table = qvhighlights.strict(moments, {})
    assert (table.figures["mIoU"], table.figures["mAP"], table.num_scored) == (0.0, 0.0, 3)
    assert table.failures == {"missing": 3}


def test_submissions_to_qvhighlights_are_read_and_checked(tmp_path: Path, moments: list[Row]) -> None:
    records = [{"qid": int(id), **one} for id, one in RIGHT.items()]
    found = qvhighlights.read_predictions(write_lines(tmp_path / "sub.jsonl", records), moments)
    assert found["2"]["pred_relevant_windows"] == [[0, 16, 0.9]]
    assert qvhighlights.read_predictions(write_json(tmp_path / "sub.json", records), moments) == found
    for bad, what in (
        ({"qid": 2}, "'pred_relevant_windows' is missing"),
        ({"qid": 2, "pred_relevant_windows": [[0, "8"]]}, "'pred_relevant_windows' must be"),
        ({"qid": 2, "pred_saliency_scores": [None]}, "'pred_saliency_scores' must be"),
        ({"qid": 1, "pred_saliency_scores": [1]}, "as in"),
    ):
        with pytest.raises(RecordError, match=r"sub2\.jsonl:2") as caught:
            qvhighlights.read_predictions(write_lines(tmp_path / "sub2.jsonl", [records[0], bad]), moments)
        assert what in str(caught.value)


# -- ReXTime -----------------------------------------------------------------------------------------------------------


QUESTIONS = [
    {
        "qid": f"q{at}",
        "query": "why?",
        "duration": 60,
        "vid": "v",
        "relevant_windows": [[10, 20]],
        "ans": answer,
    }
    for at, answer in enumerate("ABCD")
]


@pytest.fixture()
def questions(tmp_path: Path) -> list[Row]:
    return rextime.load(write_lines(tmp_path / "rextime_val.jsonl", QUESTIONS))


def test_rextime_is_read_in_both_of_its_forms(tmp_path: Path, questions: list[Row]) -> None:
    assert (questions[1].answer, questions[1].windows, questions[1].options) == ("B", ((10.0, 20.0),), ())
    form = {
        "qid": "q0",
        "question": "why?",
        "duration": 60,
        "vid": "v",
        "span": [10, 20],
        "ans": "A",
        "options": ["x", "y"],
    }
    other = rextime.load(write_json(tmp_path / "val.json", [form]))
    assert (other[0].question, other[0].options, other[0].windows) == ("why?", ("x", "y"), ((10.0, 20.0),))
    for change, what in (
        ({"span": [1]}, "'span' must be"),
        ({"ans": None}, "'ans' must be"),
        ({"duration": None}, "'duration'"),
    ):
        with pytest.raises(RecordError, match="record 1") as caught:
            rextime.load(write_json(tmp_path / "bad.json", [{**form, **change}]))
        assert what in str(caught.value)


def test_rextime_scores_what_the_first_record_has(questions: list[Row]) -> None:
    both = {
        "q0": {"pred_relevant_windows": [[10, 20]], "ans": "A"},
        "q1": {"pred_relevant_windows": [[10, 15], [10, 20]], "ans": "B"},
        "q2": {"pred_relevant_windows": [[20, 10]], "ans": "C"},
        "q3": {"pred_relevant_windows": [[12, 20]], "ans": "d"},
    }
    figures = rextime.official(questions, both).figures
    assert figures["VQA"] == 0.75
    assert figures["MR-full-mIoU"] == 57.5  # the second window of q1 and the reversed one of q2 do not count
    assert figures["VQA,mIoU@0.5"] == 0.5
    letters = {id: {"ans": one["ans"]} for id, one in both.items()}
    assert rextime.official(questions, letters).figures == {"VQA": 0.75}
    windows = {id: one["pred_relevant_windows"] for id, one in both.items()}
    assert "VQA" not in rextime.official(questions, windows).figures
    strict = rextime.strict(questions, both).figures
    # The small letter is read, the reversed window turned round; the second window of q1 counts for nothing here too.
    assert (strict["accuracy"], strict["mIoU"]) == (1.0, pytest.approx((1 + 0.5 + 1 + 0.8) / 4))


def test_parts_with_figures_of_their_own_do_not_fill_the_line(
    tmp_path: Path, questions: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write_lines(tmp_path / "rextime_val.jsonl", QUESTIONS)
    right = [{"qid": row.id, "pred_relevant_windows": [[10, 20]], "ans": row.answer} for row in questions]
    command = ["score", "rextime", "--annotations", str(truth)]
    command += ["--predictions", str(write_lines(tmp_path / "sub.jsonl", right)), "--mode", "official"]
    assert main(command) == 0
    short = capsys.readouterr().out
    assert "MR-full-mIoU 100.0000" in short
    assert "{" not in short
    assert "1 more with --all-figures" in short
    assert main([*command, "--all-figures"]) == 0
    assert "'MR-mIoU': 100.0" in capsys.readouterr().out


def test_faults_of_rextime(questions: list[Row]) -> None:
    right = {row.id: {"pred_relevant_windows": [[10, 20]], "ans": row.answer} for row in questions}
    bench = rextime.BENCHMARK
    assert ends_with(bench, "rextime", questions, {"q0": right["q0"]}).startswith("AssertionError: qids")
    empty = {**right, "q3": {"pred_relevant_windows": [], "ans": "D"}}
    assert ends_with(bench, "rextime", questions, empty) == "IndexError: list index out of range"
    assert ends_with(bench, "rextime", questions, {**right, "q3": {"ans": "D"}}).startswith("KeyError")
    assert ends_with(bench, "rextime", questions, dict.fromkeys(right, "A")).startswith("TypeError")
    assert ends_with(bench, "rextime", questions, dict.fromkeys(right, {})).startswith("KeyError: 'ans'")


def test_submissions_to_rextime_are_checked(tmp_path: Path, questions: list[Row]) -> None:
    good = {"qid": "q0", "pred_relevant_windows": [[0.0, 15.8]], "ans": "A"}
    path = write_lines(tmp_path / "sub.jsonl", [good])
    assert rextime.read_predictions(path, questions) == {"q0": good}
    for bad in ({"qid": "q1"}, {"qid": "q1", "ans": ["A"]}, {"qid": "q1", "pred_relevant_windows": [0, 1]}):
        with pytest.raises(RecordError, match=r"sub\.jsonl:2"):
            rextime.read_predictions(write_lines(tmp_path / "sub.jsonl", [good, bad]), questions)
    with pytest.raises(MissingError):
        rextime.read_predictions(tmp_path / "none.jsonl", questions)


# -- NExT-GQA ----------------------------------------------------------------------------------------------------------


MOMENTS_OF = {
    "11": {"duration": 40, "location": {"0": [[4, 8], [20, 30]], "1": [[0, 10]]}, "fps": 30},
    "22": {"duration": 60, "location": {"5": [[30, 31]]}, "fps": 30},
}
CSV = """video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4
11,1,1,1,why,"a, b",0,CW,"a, b",c,d,e,f
11,1,1,1,before,c,1,TP,a,b,c,d,e
22,1,1,1,when,nowhere,5,TC,a,b,c,d,e
22,1,1,1,not grounded,a,6,TC,a,b,c,d,e
"""


@pytest.fixture()
def grounded(tmp_path: Path) -> Path:
    write_json(tmp_path / "gsub_val.json", MOMENTS_OF)
    write_json(tmp_path / "frame2time_val.json", {"11": [0.5]})
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (tmp_path / "val.csv").write_text(CSV, encoding="utf-8")
    return tmp_path


def test_nextgqa_joins_moments_and_questions_by_what_the_files_hold(grounded: Path) -> None:
    rows = nextgqa.load(grounded)
    assert rows == nextgqa.load(grounded / "gsub_val.json")
    assert [(row.id, row.answer, row.groups["type"]) for row in rows] == [
        ("11_0", "A", "CW"), ("11_1", "C", "TP"), ("22_5", None, "TC"),
    ]  # fmt: skip
    assert (rows[0].windows, rows[0].duration_seconds, rows[0].options[0]) == (
        ((4, 8), (20, 30)),
        40.0,
        "a, b",
    )
    write_json(grounded / "gsub_test.json", MOMENTS_OF)
    with pytest.raises(ConfigError, match=r"gsub_test\.json, gsub_val\.json"):
        nextgqa.load(grounded)
    (grounded / "val.csv").write_text(CSV.replace("22,1,1,1,when", "23,1,1,1,when"), encoding="utf-8")
    with pytest.raises(MissingError, match=r"val\.csv lacks 22_5"):
        nextgqa.load(grounded / "gsub_val.json")


@pytest.mark.parametrize(
    ("moments", "csv", "what"),
    [
        ({"11": {"duration": 40, "location": {"0": [[1]]}}}, CSV, "location: field '0' must be a list"),
        ({"11": {"duration": None, "location": {"0": [[1, 2]]}}}, CSV, "'duration' must be a finite"),
        ({"11": {"duration": 4, "location": []}}, CSV, "'location' must be"),
        ({"11": {"duration": 4, "location": {}}}, CSV, "holds no question"),
        (MOMENTS_OF, CSV + "11,1,1,1,again,a,1,CW,a,b,c,d,e\n", "'qid' is '1' of this video as in"),
        (MOMENTS_OF, CSV + "11,1,1\n", "does not have the cells of the header"),
        (["x"], CSV, "must hold {video: {duration, location}}"),
    ],
)
def test_bad_files_of_nextgqa(grounded: Path, moments: Any, csv: str, what: str) -> None:
    write_json(grounded / "gsub_val.json", moments)
    (grounded / "val.csv").write_text(csv, encoding="utf-8")
    with pytest.raises(RecordError) as caught:
        nextgqa.load(grounded / "gsub_val.json")
    assert what in str(caught.value)


def test_single_overlaps_of_nextgqa() -> None:
    assert nextgqa.overlap((0, 10), (5, 15)) == (5 / 15, 0.5)
    assert nextgqa.overlap((0, 10), (20, 30)) == (-10 / 30, -1.0)  # apart: negative
    assert nextgqa.overlap((0, 10), (10, 10)) == (0, 1)  # no length, on the edge: wholly inside
    assert nextgqa.overlap((0, 10), (11, 11)) == (0, 0)
    assert nextgqa.overlap((0, 10), (8, 2)) == (-6 / 10, 0.0)


def test_figures_of_nextgqa(grounded: Path) -> None:
    rows = nextgqa.load(grounded)
    spans = {"11_0": [4, 8], "11_1": [5, 5]}
    answers = {id: {"answer": 2, "prediction": 2} for id in ("11_0", "11_1", "22_5")}
    both = {id: {**({"span": spans[id]} if id in spans else {}), **answers[id]} for id in answers}
    table = nextgqa.eval_ground(rows, both)
    # The question without a span leaves the denominator; one of no length has IoP 1 and IoU 0.
    assert table.figures == {
        "Acc&GQA": 100.0, "mIoP": 100.0, "TIoP@0.3": 100.0, "TIoP@0.5": 100.0, "mIoU": 50.0, "TIoU@0.3": 50.0,
        "TIoU@0.5": 50.0,
    }  # fmt: skip
    assert (table.num_scored, table.failures) == (2, {"missing": 1})
    shares = nextgqa.eval_ground_gs(rows, {"11_0": [0.1, 0.2]})
    assert (shares.figures["mIoU"], shares.figures["Acc&GQA"]) == (100.0, 0.0)
    strict = nextgqa.strict(rows, both)
    assert strict.figures["mIoU"] == pytest.approx(4 / 14 / 3)  # against both true windows of the first
    assert (
        strict.figures["accuracy"] == 0.5
    )  # the annotation's answers, not the file's; one of three has none
    assert nextgqa.strict(rows, {"11_0": [0.1, 0.2]}).failures["span read as share of the video"] == 1
    assert nextgqa.eval_next(rows, both).figures == {
        "Why": 100.0, "Bef&Aft": 100.0, "When": 100.0, "Acc_C": 100.0, "Acc_T": 100.0, "Acc": 100.0,
        "Video": 2, "Questions": 3,
    }  # fmt: skip


def test_nextgqa_shares_are_told_by_the_whole_file(grounded: Path) -> None:
    rows = nextgqa.load(grounded)
    why = "span read as share of the video"
    shares = [
        {"11_0": [0.1, 0.2], "11_1": [[0.25, 0.5]]},
        {"11_0": {"span": [0.1, 0.2], "answer": 0, "prediction": 0}, "11_1": [[0.25, 0.5]]},
        {"11_0": [0.1, 0.2], "11_1": [0.25, 0.5], "22_5": ["a", "b"]},
    ]
    for predictions in shares:
        table = nextgqa.strict(rows, predictions)
        assert table.failures[why] == 2
        assert (
            table.figures["mIoU"] == nextgqa.strict(rows, {"11_0": [4, 8], "11_1": [10, 20]}).figures["mIoU"]
        )
    for other in ([12, 15], [0.5, 1.5], [[1.5, 0.2]]):
        assert why not in nextgqa.strict(rows, {"11_0": [0.2, 0.9], "11_1": other}).failures


@pytest.mark.parametrize("name", [name for name in MODULES if benchmark(name).joint])
def test_what_asks_for_both_halves_takes_both(name: str) -> None:
    row = Row("a", "v", "Which, and when?", "multiple_choice", options=("w", "x"), answer="B", windows=((2.0, 4.0),),
              duration_seconds=10.0, groups={"task": "gvq", "source": "s"}, raw={"duration": 10.0})  # fmt: skip
    figures = benchmark(name).strict([row], baselines([row], joint=True)["whole video"]).figures
    start = "gvq " if name == "etbench" else ""
    assert (figures[f"{start}accuracy"], figures[f"{start}mIoU"]) == (1.0, pytest.approx(0.2))


def test_faults_of_nextgqa(grounded: Path) -> None:
    rows = nextgqa.load(grounded)
    bench = nextgqa.BENCHMARK
    answered = {"answer": 1, "prediction": 1}
    assert ends_with(bench, "eval_ground", rows, {}).startswith("ZeroDivisionError")
    assert ends_with(bench, "eval_ground", rows, {"11_0": [4, 8], "11_1": answered}) == "KeyError: '11_0'"
    assert ends_with(bench, "eval_ground", rows, {"11_0": "4 to 8"}).startswith("TypeError")
    assert ends_with(bench, "eval_next", rows, {"11_0": answered}) == "KeyError: '11_1'"


def test_predictions_of_nextgqa_are_joined_as_its_script_does(grounded: Path, tmp_path: Path) -> None:
    rows = nextgqa.load(grounded)
    folder = tmp_path / "res"
    folder.mkdir()
    spans = write_json(folder / "val_ground_gs.json", {"11_0": [0.1, 0.2], "99_0": [0, 1]})
    assert nextgqa.read_predictions(spans, rows)["11_0"] == {"span": [0.1, 0.2]}
    answers = write_json(folder / "val-res.json", {"11_0": {"answer": 0, "prediction": 3}})
    joined = {"11_0": {"span": [0.1, 0.2], "answer": 0, "prediction": 3}, "99_0": {"span": [0, 1]}}
    assert nextgqa.read_predictions(spans, rows) == nextgqa.read_predictions(folder, rows) == joined
    assert nextgqa.read_predictions(answers, rows) == {"11_0": {"answer": 0, "prediction": 3}}
    write_json(folder / "val_ground_ada.json", {"11_0": [4, 8]})
    with pytest.raises(RecordError, match="holds a second span"):
        nextgqa.read_predictions(folder, rows)
    for bad in ({"11_0": [1]}, {"11_0": {"answer": 1}}, {}, [1]):
        with pytest.raises(RecordError, match=r"bad\.json"):
            nextgqa.read_predictions(write_json(tmp_path / "bad.json", bad), rows)


# -- CG-Bench ----------------------------------------------------------------------------------------------------------


CLUES = [
    {
        "qid": at, "video_uid": "v", "question": f"What is it, {at}?", "answer": "y", "choices": list("xyzwu"),
        "right_answer": "B", "clue_intervals": [[10, 20], [40, 50]], "domain": "Art", "sub_category": f"task {at % 2}",
        "duration": 600,
    }
    for at in range(4)
]  # fmt: skip


@pytest.fixture()
def clues(tmp_path: Path) -> list[Row]:
    return cgbench.load(write_json(tmp_path / "cgbench_mini.json", CLUES))


def fenced(result: Any) -> str:
    return f'```json\n{{"result": {json.dumps(result)}}}\n```'


@pytest.mark.parametrize(
    ("reply", "stored"),
    [
        (fenced([[10, 20], [40, 50]]), 1.0),
        (fenced([[40, 50], [10, 15], [12, 20]]), 1.0),
        (fenced([]), 0.0),
        (fenced(None), 0.0),
        (fenced([[20, 10]]), 0.0),  # reversed: the union is 10 s, of which -10 are its own
        (fenced([["10", "20"]]), 10 / 20),  # no windows: the numbers of the whole reply in pairs
        (fenced([10, 20]), 10 / 20),
        (fenced([[10, 20, 30]]), None),
        (fenced("10-20"), 0.0),
        ("10 20 and 40 50", 1.0),
        ("10-20", 0.0),  # [10, -20]
        ("10 to 20 s, I think, at 3", None),
        ("nothing", 0.0),
        ("", None),
        ("```json\n{\n```", 0.0),
    ],
)
def test_windows_that_cgbench_stores(reply: str, stored: float | None) -> None:
    got = cgbench_scripts.judge_windows(reply, ((10.0, 20.0), (40.0, 50.0)))
    assert got == (stored if stored is None else pytest.approx(stored))


def test_overlapping_windows_in_prose_lose_the_record() -> None:
    with pytest.raises(OfficialError) as caught:
        cgbench_scripts.judge_windows("10 20 15 30", ((10.0, 20.0),))
    assert caught.value.kind == "TypeError"


def test_figures_of_cgbench_leave_out_what_is_not_stored(clues: list[Row]) -> None:
    replies = {
        "0": {"long_acc": fenced("B"), "clue_acc": "A or B", "miou": fenced([[10, 20], [40, 50]])},
        "1": {"long_acc": "no idea", "clue_acc": "", "miou": fenced([[10, 20]])},
        "2": {"long_acc": "(C)", "clue_acc": "C", "miou": "10 20 15 30"},
    }
    table = cgbench_scripts.stat_with_key(clues, replies)
    figures = table.figures
    assert (figures["long_acc"], figures["long_acc total"], figures["clue_acc"]) == (0.5, 2, 0.5)
    assert (figures["miou"], figures["miou total"], figures["rec@iou"]) == (0.75, 2, 1.0)
    assert (figures["acc@iou"], figures["acc@iou total"], figures["acc@iou th_0.5"]) == (1.0, 1, 1)
    assert table.failures == {
        "long_acc not stored": 1, "clue_acc not stored": 1, "miou not stored": 1, "missing": 1,
    }  # fmt: skip
    strict = cgbench.strict(clues, replies)
    assert strict.num_scored == 4
    assert strict.figures["accuracy"] == 0.25
    assert strict.figures["clue accuracy"] == 0.0  # "A or B" names two
    assert strict.figures["rec@IoU"] == pytest.approx((2 * 5 + 3) / 20)
    assert strict.figures["mIoU"] == pytest.approx((1 + 0.5 + 10 / 30 + 0) / 4)
    assert cgbench_scripts.lmms(clues, replies).figures == {"cgbench_accuracy": pytest.approx(100 / 3)}


def test_cgbench_of_no_reply(clues: list[Row]) -> None:
    table = cgbench_scripts.stat_with_key(clues, {})
    assert (table.figures["long_acc"], table.figures["acc@iou"], table.num_scored) == (0.0, 0.0, 0)
    assert cgbench.strict(clues, {}).figures["acc@IoU"] == 0.0


def test_results_that_the_authors_have_judged(tmp_path: Path, clues: list[Row]) -> None:
    folder = tmp_path / "cg_annotations"
    folder.mkdir()
    for record in CLUES[:2]:
        results = {
            "long_acc_gpt_50": {"version": 0, "result": 1},
            "miou_gpt_50": {"version": 0, "result": 0.25},
        }
        write_json(folder / f"{record['qid']}.json", {**record, "version": 0, "results": results})
    assert [row.id for row in cgbench.load(folder)] == ["0", "1"]
    found = cgbench.read_predictions(folder, clues)
    assert found == {"0": {"long_acc": 1, "miou": 0.25}, "1": {"long_acc": 1, "miou": 0.25}}
    figures = cgbench_scripts.stat_with_key(clues, found).figures
    assert (figures["long_acc"], figures["rec@iou"], figures["acc@iou"]) == (1.0, 0.4, 0.4)
    strict = cgbench.strict(clues, found)
    assert (strict.figures["accuracy"], strict.failures) == (None, {"judged already": 2})
    two = {"long_acc_a_1": {"result": 1}, "long_acc_b_1": {"result": 0}}
    write_json(folder / "0.json", {**CLUES[0], "results": two})
    with pytest.raises(RecordError, match="several results of long_acc"):
        cgbench.read_predictions(folder, clues)


def test_output_of_videomind_finds_its_rows(tmp_path: Path, clues: list[Row]) -> None:
    samples = [
        {
            "question": record["question"].upper().rstrip("?"), "span": record["clue_intervals"], "ans": "B",
            "options": list("xyzwu"),
            "response": "(B) y", "pred": [[10, 20], [40, 50]], "conf": [0.9, 0.8], "task": record["sub_category"],
        }
        for record in CLUES[::-1]
    ]  # fmt: skip
    found = cgbench.read_predictions(write_json(tmp_path / "output_0.json", samples), clues)
    assert found["3"] == samples[0]
    first = cgbench_scripts.videomind(clues, found).figures
    assert (first["mIoU"], first["R1@0.5"], first["long-acc."], first["acc.@IoU"]) == (
        50.0,
        100.0,
        100.0,
        100.0,
    )
    assert set(first["tables"]["QA"]) == {"task 0", "task 1", "all"}
    assert cgbench_scripts.videomind_confident(clues, found).figures["mIoU"] == 100.0
    assert cgbench.strict(clues, found).figures["Acc@IoU 0.5"] == 1.0
    assert ends_with(cgbench.BENCHMARK, "videomind", clues, {"0": {"response": " B"}}).startswith(
        "IndexError"
    )
    samples[0]["span"] = [[1, 2]]
    with pytest.raises(RecordError, match="no question of the annotations"):
        cgbench.read_predictions(write_json(tmp_path / "output_0.json", samples), clues)


def test_videomind_counts_what_the_verifier_changes() -> None:
    sample = {
        "task": ["a", "b"], "span": [[10, 20]], "pred": [[10, 20], [0, 1]], "conf": [0.9, 0.1],
        "pred_ori": [[0, 1]], "conf_ori": [0.5], "grounder_success": False,
    }  # fmt: skip
    found = videomind_script.tables(
        [sample, {"question": "?", "options": ["x"], "ans": "A", "response": "Z"}]
    )
    assert found["Change"]["IoU Raise"] == {"count": 1, "percent": 100.0}
    assert found["Change"]["IoP Lower"] == {"count": 0, "percent": 0.0}
    assert found["Grounding (IoU)"]["a"]["Failed"] == found["Grounding (IoU)"]["b"]["#Samples"] == 1
    assert found["QA"]["unknown"] == found["QA"]["all"]
    assert found["QA"]["all"]["Failed"] == 1
    for broken, kind in (
        ({**sample, "pred": []}, "IndexError"),
        ({k: v for k, v in sample.items() if k != "conf_ori"}, "KeyError"),
        ({"question": "?", "response": "A", "ans": "A"}, "KeyError"),
    ):
        with pytest.raises(OfficialError) as caught:
            videomind_script.tables([broken])
        assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"clue_intervals": [[1, 2, 3]]}, "'clue_intervals' must be"),
        ({"choices": "x"}, "'choices' must be"),
        ({"duration": "long"}, "'duration' must be"),
        ({"right_answer": None}, "'right_answer' must be"),
        ({"qid": 0}, "is '0' as in"),
    ],
)
def test_bad_records_of_cgbench(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    with pytest.raises(RecordError, match="record 2") as caught:
        cgbench.load(write_json(tmp_path / "cgbench.json", [CLUES[0], {**CLUES[1], **change}]))
    assert what in str(caught.value)


def test_replies_of_cgbench_are_checked(tmp_path: Path, clues: list[Row]) -> None:
    good = {"qid": 0, "long_acc": "B", "miou": None}
    path = write_lines(tmp_path / "replies.jsonl", [good])
    assert cgbench.read_predictions(path, clues) == {"0": {"long_acc": "B", "miou": None}}
    for bad in ({"qid": 1}, {"qid": 1, "miou": [1, 2]}):
        with pytest.raises(RecordError, match=r"replies\.jsonl:2"):
            cgbench.read_predictions(write_lines(path, [good, bad]), clues)
    with pytest.raises(RecordError, match="so are the fields of VideoMind"):
        cgbench.read_predictions(write_lines(path, [{"text": "B"}]), clues)


HOSTILE = [
    "```json" * 100_000,
    fenced([[1, 2]]) * 30_000,
    "[" * 250_000,
    '```json\n{"result": ' + "[" * 200_000 + "\n```",
    '```json\n{"result": ' + "9" * 400_000 + "}\n```",
    '```json\n{"result": [[0, 1e400], [NaN, Infinity]]}\n```',
    "1" * 250_000,
    "1." * 125_000,
    "-" * 250_000,
    "1-2 " * 250_000,
    "A" * 250_000,
    "A " * 125_000,
    "x((((" * 200_000,
    "\u0661\u0662 to \u0663\u0664 " * 60_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_quarter_megabyte_of_anything_is_read_in_the_time_of_a_test(
    clues: list[Row], moments: list[Row], text: str
) -> None:
    replies = {"0": {"long_acc": text, "clue_acc": text, "miou": text, "response": text or "x"}}
    for scorer in (
        cgbench_scripts.stat_with_key,
        cgbench_scripts.lmms,
        cgbench_scripts.videomind,
        cgbench.strict,
    ):
        figures = scorer(clues[:1], replies).figures
        assert all(
            value is None or 0 <= value <= 100 for value in figures.values() if not isinstance(value, dict)
        )
    assert qvhighlights.strict(moments, {"1": text}).figures["mIoU"] is not None


@given(st.text(alphabet='0123456789.-, []{}":`jsonreultABto\n\u0663\u221e', max_size=60))
def test_any_reply_gives_an_iou_or_nothing(text: str) -> None:
    for reply in (text, f"```json{text}```", f'```json\n{{"result": {text}}}\n```'):
        try:
            stored = cgbench_scripts.judge_windows(reply, ((10.0, 20.0), (40.0, 50.0)))
        except OfficialError as error:
            assert error.kind == "TypeError"
        else:
            assert (
                stored is None or stored == stored
            )  # may leave [0, 1] for reversed windows, but is never NaN
