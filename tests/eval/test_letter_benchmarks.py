"""Multiple-choice benchmarks: layouts, denominators and aggregates of their scripts, and hostile replies."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.errors import MissingError, RecordError
from timeloupe.eval.benchmarks import (
    longvideobench,
    lvbench,
    mlvu,
    nextqa,
    videomme,
    videommmu,
    videotemp_bench_mcq,
)
from timeloupe.eval.files.records import bare_options, option_letter, read_json, split_options
from timeloupe.eval.predictions import read_predictions
from timeloupe.eval.scoring import Benchmark, Row
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.open_answers import is_right, last_number, read_open

BENCHMARKS = (
    videomme.BENCHMARK, mlvu.BENCHMARK, lvbench.BENCHMARK, videommmu.BENCHMARK, nextqa.BENCHMARK,
    longvideobench.BENCHMARK, videotemp_bench_mcq.BENCHMARK,
)  # fmt: skip

NEXTQA_HEADER = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"


def written(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def videomme_video(number: int, duration: str = "short", responses: Any = ("A", "B", "C")) -> dict[str, Any]:
    questions = [
        {
            "question_id": f"{number:03}-{at + 1}", "task_type": "Counting Problem", "question": "How many?",
            "options": ["A. one.", "B. two.", "C. three.", "D. four."], "answer": "A", "response": response,
        }
        for at, response in enumerate(responses)
    ]  # fmt: skip
    labels = {"duration": duration, "domain": "Knowledge", "sub_category": "Law"}
    return {"video_id": f"{number:03}", **labels, "questions": questions}


def all_videomme() -> list[dict[str, Any]]:
    return [videomme_video(at, ("short", "medium", "long")[at % 3]) for at in range(900)]


def mlvu_record(answer: str, kind: str = "count", question: str = "How many?") -> dict[str, Any]:
    return {
        "video": f"{kind}.mp4", "duration": 60.0, "question": question, "candidates": ["1", "2", "3", "3"],
        "answer": answer, "question_type": kind,
    }  # fmt: skip


def rows_of(benchmark: Benchmark, folder: Path) -> list[Row]:
    """A few rows of each benchmark, from files as users have them."""
    if benchmark.name == "videomme":
        return benchmark.load(written(folder, "videomme.json", all_videomme()))
    if benchmark.name == "mlvu":
        records = [mlvu_record("2"), mlvu_record("1", "ego"), mlvu_record("9", "findNeedle")]
        return benchmark.load(written(folder, "mlvu.json", records))
    if benchmark.name == "lvbench":
        asked = {
            "question": "Who?\n(A) x\n(B) y",
            "answer": "B",
            "question_type": ["reasoning", "summarization"],
        }
        line = {"key": "v", "type": "cartoon", "qa": [{"uid": 1, **asked}, {"uid": "2", **asked}]}
        return benchmark.load(written(folder, "lvbench.jsonl", line))
    if benchmark.name == "videommmu":
        choice = {"id": "dev_Biology_3", "question": "q", "options": ["x", "y"], "answer": "B"}
        free = {
            "id": "validation_Math_1",
            "question": "q",
            "options": [],
            "answer": "12.97",
            "question_type": "open",
        }
        return benchmark.load(written(folder, "mmmu.json", {"Adaptation": {"0": choice, "1": free}}))
    if benchmark.name == "nextqa":
        lines = [
            f"v,1,2,3,q,2,{at},{kind},p,q,r,s,t\n" for at, kind in enumerate(nextqa.TYPES) if len(kind) == 2
        ]
        return benchmark.load(written(folder, "nextqa.csv", NEXTQA_HEADER + "".join(lines)))
    if benchmark.name == "longvideobench":
        records = [
            {
                "id": f"v_{at}", "question": "q", "candidates": ["w", "x", "y", "z"], "correct_choice": at % 4,
                "duration_group": 60, "question_category": "S2E", "duration": 30.0,
            }
            for at in range(20)
        ]  # fmt: skip
        return benchmark.load(written(folder, "lvb.json", records))
    record = {"videos": ["v.mp4"], "question": "Which?\nA. x\nB. y", "answer": "B. y", "duration": 200}
    return benchmark.load(written(folder, "videotemp.jsonl", record))


@pytest.mark.parametrize("inside", ["\u2028", "\x85", "\x0b", "\n"])
def test_a_cell_may_hold_what_ends_a_line_elsewhere(tmp_path: Path, inside: str) -> None:
    question = f"where does{inside}it stand"
    lines = f'v,1,2,3,"{question}",2,7,CW,p,q,r,s,t\nv,1,2,3,when,2,8,CW,p,q,r,s,t\n'
    rows = nextqa.load(written(tmp_path, "nextqa.csv", NEXTQA_HEADER + lines))
    assert [row.question for row in rows] == [question, "when"]


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda one: one.name)
def test_right_letters_are_right_everywhere_and_missing_ones_leave_official_denominators(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    rows = [row for row in rows_of(benchmark, tmp_path) if row.options and row.answer in list("ABCDE")]
    right = {row.id: row.answer for row in rows}
    assert benchmark.strict(rows, right).figures["accuracy"] == 1
    assert benchmark.strict(rows, {}).figures["accuracy"] == 0
    for name, scorer in benchmark.official.items():
        if name != "calculate":
            table = scorer(rows, right)
            assert (table.num_scored, table.num_total, set(table.values.values())) == (
                len(rows),
                len(rows),
                {1.0},
            )
            assert table.mode == f"official:{name}"


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda one: one.name)
def test_annotations_that_are_no_such_file(benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="expected"):
        benchmark.load(tmp_path / "absent.json")
    broken = written(tmp_path, "broken.json", '{"question": "q"}\n{"question": ')
    with pytest.raises(RecordError, match=r"broken\.json"):
        benchmark.load(broken)
    assert benchmark.read_predictions is not None
    with pytest.raises(RecordError, match=r"broken\.json"):
        benchmark.read_predictions(broken, rows_of(benchmark, tmp_path))


def test_errors_name_file_line_and_field(tmp_path: Path) -> None:
    lines = (
        '{"videos": ["v"], "question": "q", "answer": "A", "duration": 3}\n{"videos": [], "question": "q"}\n'
    )
    with pytest.raises(RecordError, match=r"data\.jsonl:2: field 'duration' is missing"):
        videotemp_bench_mcq.load(written(tmp_path, "data.jsonl", lines))
    with pytest.raises(
        RecordError, match=r"bad\.json, record 2: field 'candidates' must be a list of texts, got 'x'"
    ):
        mlvu.load(written(tmp_path, "bad.json", [mlvu_record("1"), {**mlvu_record("1"), "candidates": "x"}]))
    with pytest.raises(RecordError, match=r"short\.csv:2 does not have the cells of the header"):
        nextqa.load(written(tmp_path, "short.csv", NEXTQA_HEADER + "v,1,2\n"))
    video = {**videomme_video(1), "questions": [{"question_id": "1"}]}
    with pytest.raises(RecordError, match=r"record 1, questions\[0\]: field 'question' is missing"):
        videomme.load(written(tmp_path, "v.json", [video]))


def test_the_template_with_commas_before_brackets_is_read_with_a_warning(tmp_path: Path) -> None:
    text = (
        json.dumps([videomme_video(1, responses=('say ",}"', "B", "C"))])
        .replace("}, {", ",}, {")
        .replace("]}]", ",],}]")
    )
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    path = written(tmp_path, "output_test_template.json", text)
    with pytest.warns(UserWarning, match="not valid JSON: 4 commas"):
        rows = videomme.load(path)
    with pytest.warns(UserWarning, match="not valid JSON"):
        predictions = videomme.read_predictions(path, rows)
    assert predictions == {"001-1": 'say ",}"', "001-2": "B", "001-3": "C"}
    assert rows[0].options == ("one.", "two.", "three.", "four.")
    with pytest.raises(RecordError, match="is not JSON"):
        read_json(written(tmp_path, "worse.json", "[1, 2,, }"))


def test_videomme_counts_answered_questions_only_and_demands_300_videos(tmp_path: Path) -> None:
    rows = videomme.load(written(tmp_path, "v.json", all_videomme()))
    predictions = {
        row.id: "A" if row.id.endswith("1") else ("nothing" if row.id.endswith("2") else "B") for row in rows
    }
    score = videomme.BENCHMARK.official["eval_your_results"]
    table = score(rows, predictions)
    assert (table.num_scored, table.num_total, table.failures) == (1800, 2700, {"unparsed": 900})
    assert (
        table.figures["short"] == table.figures["overall"] == table.figures["task:Counting Problem"] == 50.0
    )
    assert table.figures["long sub:Law"] == 50.0
    assert table.figures["domain:Multilingual"] == 0
    o3 = videomme.BENCHMARK.official["videotemp-o3"](rows, predictions)
    assert o3.figures["domain:Multilingual"] is None
    strict = videomme.BENCHMARK.strict(rows, predictions)
    assert strict.figures["accuracy"] == pytest.approx(1 / 3)
    with pytest.raises(OfficialError, match="AssertionError"):
        score(rows, {id: text for id, text in predictions.items() if not id.startswith("000")})
    with pytest.raises(OfficialError, match="KeyError"):
        score(rows, {id: text for id, text in predictions.items() if id != "000-2"})


def test_a_category_that_the_script_does_not_know_stops_it(tmp_path: Path) -> None:
    rows = videomme.load(written(tmp_path, "v.json", [{**videomme_video(1), "domain": "Cooking"}]))
    for name in ("videotemp-o3", "lmms-eval", "vlmevalkit"):
        with pytest.raises(OfficialError, match="KeyError"):
            videomme.BENCHMARK.official[name](rows, {"001-1": "A"})
    assert videomme.BENCHMARK.official["videotemp-o3"](rows, {"001-1": "?"}).num_scored == 0


def test_mlvu_keeps_answers_that_are_no_candidate_and_takes_the_last_of_two(tmp_path: Path) -> None:
    records = [mlvu_record("3"), mlvu_record("9", "findNeedle"), mlvu_record("1", "ego")]
    rows = mlvu.load(written(tmp_path, "mlvu.json", records))
    assert [(row.id, row.answer) for row in rows] == [("count_0", "D"), ("needle_0", "9"), ("ego_0", "A")]
    predictions = {"count_0": "D) 3", "needle_0": "@", "ego_0": "A."}
    table = mlvu.choice_bench(rows, predictions)
    assert table.figures == {
        "count": 100, "needle": 100, "ego": 0, "Avg": pytest.approx(200 / 3), "micro": pytest.approx(200 / 3),
    }  # fmt: skip
    with pytest.raises(OfficialError, match="TypeError"):
        mlvu.videotemp_o3(rows, predictions)
    assert mlvu.videotemp_o3(rows, predictions | {"needle_0": ""}).figures["Accuracy"] == 66.67
    strict = mlvu.strict(rows, predictions)
    assert strict.failures["label_unusable"] == 1
    assert strict.figures["M-Avg"] == strict.figures["accuracy"] == 1
    assert mlvu.videomind_eval(rows, {"count_0": " D", "ego_0": "a"}).failures == {
        "missing": 1,
        "the script raises": 1,
    }


def test_mlvu_of_a_folder_is_its_multiple_choice_files_in_the_script_s_order(tmp_path: Path) -> None:
    written(tmp_path, "1.json", [mlvu_record("1", "plotQA")])
    written(tmp_path, "2.json", [mlvu_record("1"), mlvu_record("2")])
    written(
        tmp_path, "9.json", [{"video": "s", "question": "q", "answer": "long", "question_type": "summary"}]
    )
    written(tmp_path, "else.json", {"some": "thing"})
    assert [row.id for row in mlvu.load(tmp_path)] == ["count_0", "count_1", "plotQA_0"]
    assert [row.task for row in mlvu.load(tmp_path / "9.json")] == ["open"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match="no .json file"):
        mlvu.load(tmp_path / "empty")


def test_mlvu_test_split_averages_nine_tasks(tmp_path: Path) -> None:
    records = [{**mlvu_record("1", "needleQA"), "question_id": "NQA_7"}]
    rows = mlvu.load(written(tmp_path, "test_mcq_gt.json", records))
    sent = written(
        tmp_path, "res.json", [{"question_id": "NQA_7", "question_type": "needleQA", "option": "A"}]
    )
    predictions = mlvu.read_predictions(sent, rows)
    assert predictions == {"NQA_7": "A"}
    table = mlvu.BENCHMARK.official["lmms-eval"](rows, predictions)
    assert table.figures["mlvu_percetion_score"] == pytest.approx(100 / 9)
    unknown = mlvu.load(written(tmp_path, "odd.json", [mlvu_record("1", "cooking")]))
    with pytest.raises(OfficialError, match="KeyError"):
        mlvu.BENCHMARK.official["lmms-eval"](unknown, {"cooking_0": "A"})


def test_scores_of_a_judge(tmp_path: Path) -> None:
    keys = ("score_completeness", "score_reliability")
    assert mlvu.judge_scores("{'score_completeness': 2, 'score_reliability': 3.5}", keys) == [2, 3.5]
    assert mlvu.judge_scores("none", keys) == []
    for text in ("'score_completeness': 2 and more, x", "score_completeness", "score_completeness:3,"):
        with pytest.raises(OfficialError, match="ValueError"):
            mlvu.judge_scores(text, keys)
    record = {"video": "s.mp4", "question": "q", "answer": "long", "question_type": "summary"}
    rows = mlvu.load(written(tmp_path, "9_summary.json", [record, record, record]))
    judged = tmp_path / "judged"
    judged.mkdir()
    written(
        judged, "s.mp4_0.json", [{"explain": "{'score_completeness': 2, 'score_reliability': 4}"}, {"q": "q"}]
    )
    written(judged, "s.mp4_1.json", [{"explain": "I cannot say"}])
    table = mlvu.calculate(rows, mlvu.read_predictions(judged, rows))
    assert table.figures == {
        "summary score_completeness": 1, "summary score_reliability": 2, "summary total": 3,
    }  # fmt: skip
    assert (table.num_scored, table.failures) == (2, {"missing": 1})


def test_lvbench_counts_a_question_in_each_category_and_skips_missing_ones(tmp_path: Path) -> None:
    rows = rows_of(lvbench.BENCHMARK, tmp_path)
    assert [(row.id, row.options, row.question) for row in rows][0] == ("1", ("x", "y"), "Who?")
    table = lvbench.BENCHMARK.official["polish_answer"](rows, {"1": "(B) y"})
    assert table.figures == {"reasoning": 1, "summarization": 1, "acc": 1}
    assert (table.num_scored, table.failures) == (1, {"missing": 1})
    assert lvbench.BENCHMARK.official["compute_accuracy"](rows, {"1": "(B) y"}).figures["acc"] == 0
    o3 = lvbench.videotemp_o3(rows, {"1": "b", "2": "B"}).figures
    assert (o3["Overall correct"], o3["Overall Acc"], o3["reasoning total"]) == (1, 50.0, 2)
    assert lvbench.strict(rows, {"1": "b", "2": "B"}).figures["accuracy question_type=reasoning"] == 1
    with pytest.raises(OfficialError, match="ZeroDivisionError"):
        lvbench.BENCHMARK.official["polish_answer"](rows, {})


def test_videommmu_drops_api_errors_and_reads_open_answers(tmp_path: Path) -> None:
    rows = rows_of(videommmu.BENCHMARK, tmp_path)
    assert [row.groups["question_type"] for row in rows] == ["multiple-choice", "open"]
    replies = {"Adaptation/dev_Biology_3": "", "Adaptation/validation_Math_1": "So x = 12.9701"}
    official = videommmu.BENCHMARK.official["videommmu"](rows, replies)
    assert official.failures == {"API Error": 1}
    assert official.figures["Adaptation: Overall num"] == official.figures["Adaptation: Overall acc"] == 1
    head = videommmu.BENCHMARK.official["lmms-eval"](rows, replies)
    assert head.figures["Adaptation: Overall acc"] == 0.5
    assert videommmu.videotemp_o3(rows, replies).figures["Average Acc"] == 0
    assert videommmu.strict(rows, replies).figures["accuracy question_type=open"] == 1
    assert videommmu.strict(rows, {}).failures == {"missing": 2}


def test_open_answers() -> None:
    assert 12.97 in read_open("The result is 12.97.")
    assert is_right(read_open("It is 7,243,000"), "7243000")
    assert is_right(read_open("so it is the red one"), "red")
    assert not is_right(read_open("so it is 13"), "12.97")
    assert read_open("1.2.3.4e5") == ["1.2.3.4e5", 340000.0, 1.2, 0.3, 5.0]
    assert last_number("between 10-20") == 20
    assert last_number("x = -.5e1") == -5
    assert last_number("none") is None


def test_longvideobench_draws_like_a_process_seeded_with_0(tmp_path: Path) -> None:
    rows = rows_of(longvideobench.BENCHMARK, tmp_path)
    random.seed(0)
    right = sum(random.choice(["A", "B", "C", "D"]) == row.answer for row in rows)
    state = random.getstate()
    table = longvideobench.lmms_eval(rows, {row.id: "?" for row in rows})
    assert random.getstate() == state
    assert table.figures["Overall acc"] == round(right / 20, 5)
    assert (table.figures["Overall num"], table.failures) == (40, {"drawn at random": 20})
    assert longvideobench.vlmevalkit(rows, {}).figures["overall"] == 0


def test_nextqa_believes_the_answer_in_the_prediction_file(tmp_path: Path) -> None:
    rows = rows_of(nextqa.BENCHMARK, tmp_path)
    file = written(tmp_path, "p.json", {row.id: {"prediction": 4, "answer": 4} for row in rows})
    predictions = nextqa.read_predictions(file, rows)
    assert nextqa.eval_mc(rows, predictions).figures["Acc"] == 100
    assert nextqa.strict(rows, predictions).figures["accuracy"] == 0
    assert nextqa.eval_mc(rows, {row.id: "(C)" for row in rows}).figures["Acc"] == 100
    assert nextqa.strict(rows, {row.id: 2 for row in rows}).figures["accuracy"] == 1
    assert nextqa.strict(rows, {row.id: -1 for row in rows}).failures == {"unparsed": len(rows)}
    with pytest.raises(OfficialError, match="KeyError"):
        nextqa.eval_mc(rows, {})
    with pytest.raises(OfficialError, match="ZeroDivisionError"):
        nextqa.eval_mc(rows[:1], predictions)


def test_videotemp_takes_the_first_character_or_a(tmp_path: Path) -> None:
    rows = rows_of(videotemp_bench_mcq.BENCHMARK, tmp_path)
    assert (rows[0].options, rows[0].answer, rows[0].groups) == (("x", "y"), "B", {"part": "Part2"})
    for text, right in (("B. y", 1), ("(B)", 0), (" B", 0), ("", 0), ("E", 0)):
        figures = videotemp_bench_mcq.official(rows, {"0": text}).figures
        assert (figures["Part2 correct"], figures["Overall total"], figures["Part1 Acc"]) == (right, 1, 0)
    with pytest.raises(OfficialError, match="ZeroDivisionError"):
        videotemp_bench_mcq.official(rows, {})


def test_outputs_of_the_scripts_find_their_rows(tmp_path: Path) -> None:
    records = [{"videos": ["v"], "question": f"q{at % 2}", "answer": "A", "duration": 1} for at in range(4)]
    rows = videotemp_bench_mcq.load(written(tmp_path, "data.jsonl", "\n".join(map(json.dumps, records))))
    lines = [{**records[at], "response": f"r{at}"} for at in (1, 0, 3, 2)] + [
        {**records[0], "response": None}
    ]
    loaded = read_predictions(
        written(tmp_path, "out.jsonl", "\n".join(map(json.dumps, lines))), videotemp_bench_mcq.BENCHMARK, rows
    )
    assert loaded.by_id == {"1": "r1", "0": "r0", "3": "r3", "2": ""}
    stranger = written(tmp_path, "odd.jsonl", {**records[0], "question": "other", "response": "A"})
    with pytest.raises(RecordError, match=r"odd\.jsonl:1: the annotations have no such question"):
        videotemp_bench_mcq.read_predictions(stranger, rows)

    asked = "Question: How many?\nOptions:\n(A) 1\n(B) 2\n(C) 3\n(D) 3"
    mlvu_rows = mlvu.load(written(tmp_path, "mlvu.json", [mlvu_record("1", "findNeedle")]))
    result = {
        "pred": "A)",
        "gt": "(A) 1",
        "question": asked,
        "question_type": "needle",
        "video": "/x/count.mp4",
    }
    out = written(tmp_path, "all.json", {"acc_dict": {}, "res_list": [result]})
    assert mlvu.read_predictions(out, mlvu_rows) == {"needle_0": "A)"}

    mmmu_rows = rows_of(videommmu.BENCHMARK, tmp_path)
    line = {
        "question": "q",
        "gt_answer": "B",
        "task": "Adaptation",
        "video_path": "a/dev_Biology_3.mp4",
        "response": "B",
    }
    out = written(tmp_path, "mmmu.jsonl", line)
    assert videommmu.read_predictions(out, mmmu_rows) == {"Adaptation/dev_Biology_3": "B"}

    sample = {"doc_id": 0, "filtered_resps": "B", "lvb_acc": {"id": "v_1"}}
    out = written(tmp_path, "samples.jsonl", sample)
    assert longvideobench.read_predictions(out, []) == {"v_1": "B"}
    merged = written(tmp_path, "lv.jsonl", '{"1": "A"}\n{"2": "B"}')
    assert lvbench.read_predictions(merged, []) == {"1": "A", "2": "B"}


def test_options_inside_a_question() -> None:
    assert split_options("Who? A. Ann B. Bob C. Cy") == ("Who?", ("Ann", "Bob", "Cy"))
    assert split_options("Plan A. is it?\nA. yes\nB. no") == ("Plan A. is it?", ("yes", "no"))
    assert split_options("Is A. Smith there?") == ("Is A. Smith there?", ())
    assert bare_options(["A. x", "B) y"]) == ("x", "y")
    assert bare_options(["A. x", "z"]) == ("A. x", "z")
    assert [option_letter(text) for text in ("B. y", "(C)", "D", "Dog", "")] == ["B", "C", "D", "Dog", ""]


HOSTILE = st.one_of(
    st.text(max_size=80),
    st.text("ABCDabcd()[].: \n=0123456789,e-<>/answerthk", max_size=80),
    st.sampled_from(
        [
            "<answer>" * 50,
            "(" * 200,
            "1e400 is nan",
            "is inf",
            "٣ is ٤",
            "\x00",
            "\ud800",
            "The answer is " * 9,
        ]
    ),
)


class Some:
    """Rows by name of the benchmark; few of each, so that many examples can be tried."""

    def __init__(self, folder: Path) -> None:
        self.rows = {benchmark.name: rows_of(benchmark, folder)[:9] for benchmark in BENCHMARKS}

    def __repr__(self) -> str:
        return "some rows"


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Some:
    return Some(tmp_path_factory.mktemp("letters"))


@settings(max_examples=40)
@given(texts=st.lists(HOSTILE, min_size=1, max_size=4))
@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda one: one.name)
def test_hostile_replies_give_finite_figures(benchmark: Benchmark, some: Some, texts: list[str]) -> None:
    rows = some.rows[benchmark.name]
    predictions = {row.id: texts[at % len(texts)] for at, row in enumerate(rows)}
    assert 0 <= benchmark.strict(rows, predictions).figures["accuracy"] <= 1
    for scorer in benchmark.official.values():
        try:
            table = scorer(rows, predictions)
        except OfficialError:
            continue
        assert set(table.values.values()) <= {0.0, 1.0}
        counted = ("correct", "total", "num", "Total", "Correct")
        for name, figure in table.figures.items():
            top = math.inf if name.endswith(counted) else 100
            assert figure is None or 0 <= figure <= top, name


@pytest.mark.parametrize("piece", ["1", "1,", "1.", "1e", "-", " is ", "A. ", "<answer>"])
def test_a_quarter_megabyte_is_read_to_the_end(piece: str, some: Some) -> None:
    text = piece * (250_000 // len(piece))
    for benchmark in BENCHMARKS:
        rows = some.rows[benchmark.name][-1:]
        assert benchmark.strict(rows, {row.id: text for row in rows}).num_total == len(rows)
        for scorer in benchmark.official.values():
            try:
                assert scorer(rows, {row.id: text for row in rows}).num_total == len(rows)
            except OfficialError as error:
                assert error.kind in (
                    "AssertionError",
                    "KeyError",
                    "TypeError",
                    "ZeroDivisionError",
                    "ValueError",
                )
    mlvu.judge_scores(f"score_accuracy{text}", ["score_relevance"])
    split_options(text)
