"""Faults of annotation rows: each kind on a row that has it and one that has it not; files; the shared annotations."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video.painting import write_clip
from timeloupe.data.check import (
    CHECKS,
    Finding,
    check_overlap,
    check_rows,
    coverage,
    question_key,
    reader_findings,
)
from timeloupe.data.sources import read_sources
from timeloupe.data.videos import check_videos
from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.eval.files.find_videos import video_key
from timeloupe.eval.scoring import Row

MOMENT = Row(
    id="m", video="a.mp4", question="When does it rain?", task="grounding", windows=((1.0, 2.0), (2.0, 3.0)),
    duration_seconds=10.0, raw={"qid": "m"},
)  # fmt: skip
CHOICE = Row(
    id="c", video="b.mp4", question="Which?", task="multiple_choice", options=("a cat", "a dog"), answer="B",
    raw={"qid": "c"},
)  # fmt: skip

FAULTY: list[tuple[str, Row]] = [
    ("label_not_finite", replace(MOMENT, windows=((1.0, math.nan),))),
    ("label_not_finite", replace(MOMENT, windows=((1.0, 2.0), (3.0, math.inf)), duration_seconds=None)),
    ("label_reversed", replace(MOMENT, windows=((2.0, 1.0),))),
    ("label_no_length", replace(MOMENT, windows=((2.0, 2.0),))),
    ("label_no_length", replace(MOMENT, windows=((10.0, 10.0),))),
    ("label_outside", replace(MOMENT, windows=((10.0, 11.0),))),
    ("label_outside", replace(MOMENT, windows=((-2.0, -1.0),), duration_seconds=None)),
    ("label_before_start", replace(MOMENT, windows=((-0.1, 3.0),))),
    ("label_past_end", replace(MOMENT, windows=((9.0, 10.5),))),
    ("label_at_end", replace(MOMENT, windows=((9.0, 10.0),))),
    ("labels_overlap", replace(MOMENT, windows=((4.0, 6.0), (1.0, 4.5)))),
    ("no_label", replace(MOMENT, windows=())),
    ("no_label", replace(CHOICE, answer=None)),
    ("impossible_answer", replace(CHOICE, answer="C")),
    ("impossible_answer", replace(CHOICE, answer="a bird")),
    ("malformed_answer", replace(CHOICE, options=(), answer="['1', '2]")),
    ("empty_option", replace(CHOICE, options=("a cat", "a dog", " "))),
    ("question_cut", replace(MOMENT, question="when it rains,")),
    ("no_question", replace(MOMENT, question=" ".strip())),
    ("outer_blanks", replace(MOMENT, question=" When?")),
    ("outer_blanks", replace(CHOICE, options=("a cat", "a dog "))),
]


def checks_of(rows: list[Row]) -> dict[str, tuple[str, ...]]:
    return {one.check: one.rows for one in check_rows(rows)}


def test_good_rows_have_no_findings() -> None:
    assert check_rows([MOMENT, CHOICE]) == []
    assert check_rows([]) == []


@pytest.mark.parametrize(("check", "row"), FAULTY)
def test_a_fault_is_found_on_its_row_only(check: str, row: Row) -> None:
    others = [replace(MOMENT, id="other"), replace(CHOICE, id="another")]
    found = checks_of([others[0], row, others[1]])
    assert found.pop(check) == (row.id,)
    assert found.keys() <= {"outer_blanks", "no_label", "duplicate_question"}


def test_equal_options_matter_most_where_one_is_right() -> None:
    wrong = replace(CHOICE, id="w", options=("a cat", "a dog", "a cat "), answer="B")
    right = replace(wrong, id="r", video="other.mp4", answer="C")
    found = {one.check: one for one in check_rows([wrong, right])}
    assert found["duplicate_options"].rows == ("w", "r")
    assert found["ambiguous_answer"].rows == ("r",)
    assert found["ambiguous_answer"].example == "r: 'a cat ' is A and C"
    assert [found[name].severity for name in ("ambiguous_answer", "duplicate_options")] == [
        "error",
        "warning",
    ]


def test_ids_and_questions_that_come_again() -> None:
    same = replace(MOMENT, question="when does  it rain")
    other = replace(MOMENT, id="n", windows=((5.0, 6.0),))
    elsewhere = replace(MOMENT, id="e", video="z.mp4")
    later = replace(MOMENT, id="l", clip=(10.0, 20.0))
    found = {one.check: one for one in check_rows([MOMENT, same, other, elsewhere, later])}
    assert found["duplicate_id"].rows == ("m",)
    assert found["duplicate_question"].rows == ("m", "n")
    assert "the same label" in found["duplicate_question"].example
    assert "ANOTHER label" in check_rows([MOMENT, other])[0].example


def test_a_question_with_its_options_in_another_order_is_the_same_question() -> None:
    turned = replace(CHOICE, id="t", options=("a dog", "a cat"), answer="A")
    assert "the same label" in check_rows([CHOICE, turned])[0].example
    assert "ANOTHER label" in check_rows([CHOICE, replace(turned, answer="B")])[0].example


def test_a_question_without_the_mark_that_nearly_all_have_may_be_cut() -> None:
    rows = [replace(MOMENT, id=str(n), question=f"Person {n} sits.") for n in range(30)]
    cut = replace(MOMENT, id="cut", question="tidying up")
    assert checks_of([*rows, cut]) == {"question_cut": ("cut",)}
    bare = [replace(row, question=row.question.rstrip(".")) for row in rows]
    assert checks_of([*bare[:15], *rows[15:], cut]) == {}


def test_a_field_that_most_records_have() -> None:
    rows = [replace(MOMENT, id=str(n), question=f"{n}?", raw={"qid": n, "source": "x"}) for n in range(5)]
    rows[1] = replace(rows[1], raw={"qid": 1, "source": ""})
    rows[3] = replace(rows[3], raw={"qid": 3, "rare": 0})
    found = check_rows(rows)
    assert [(one.check, one.rows) for one in found] == [("field_missing", ("1", "3"))]
    assert coverage(rows)["fields"] == {"source": 3, "rare": 1}


def test_coverage_counts() -> None:
    found = coverage([MOMENT, CHOICE, replace(MOMENT, id="n", windows=(), clip=(0.0, 5.0))])
    assert (found["rows"], found["videos"], found["tasks"]) == (3, 2, {"grounding": 2, "multiple_choice": 1})
    assert (found["with_answer"], found["with_window"], found["with_several_windows"]) == (1, 1, 1)
    assert (found["most_windows"], found["options"], found["with_duration"], found["with_clip"]) == (
        2,
        [2, 2],
        2,
        1,
    )


def test_overlap_with_training_data() -> None:
    train = [
        replace(MOMENT, video="train/videos/a.MP4", question="Else?"),
        replace(CHOICE, video="c", question="WHICH"),
    ]
    found = check_overlap([MOMENT, CHOICE], train)
    assert [(one.check, one.rows) for one in found] == [("train_video", ("m",)), ("train_question", ("c",))]
    assert check_overlap([MOMENT, CHOICE], []) == []
    assert check_overlap([MOMENT], [replace(MOMENT, video="v", question="")]) == []


def test_keys() -> None:
    names = {"x/v_a.b.webm": "v_a.b", "v_1.5": "v_1.5", "C:\\x\\a.mp4": "a", "a": "a", ".mp4": ""}
    assert {name: video_key(name) for name in names} == names
    assert question_key("  What  IS it ?. ") == "what is it"


rows_of_any_kind = st.builds(
    Row,
    id=st.text(max_size=3), video=st.text(max_size=5), question=st.text(max_size=9),
    task=st.sampled_from(["grounding", "multiple_choice", "open"]),
    options=st.lists(st.text(max_size=3), max_size=4).map(tuple),
    answer=st.one_of(st.none(), st.text("AB[]'(x", max_size=6)),
    windows=st.lists(st.tuples(st.floats(), st.floats()), max_size=4).map(tuple),
    duration_seconds=st.one_of(st.none(), st.floats()),
    raw=st.dictionaries(st.sampled_from("abc"), st.one_of(st.none(), st.text(max_size=2), st.integers()), max_size=3),
)  # fmt: skip


@given(rows=st.lists(rows_of_any_kind, max_size=6))
def test_any_rows_can_be_checked(rows: list[Row]) -> None:
    found = check_rows(rows) + check_overlap(rows, rows[:2])
    ids = {row.id for row in rows}
    for one in found:
        assert one.check in CHECKS and one.rows and set(one.rows) <= ids
        assert one.example.startswith(f"{one.rows[0]}: ")
    json.dumps([coverage(rows), [vars(one) for one in found]], allow_nan=False)


# -- files -------------------------------------------------------------------------------------------------------------


def written(path: Path, records: list[Any]) -> Path:
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def moment(qid: str, window: list[float] | None = None, **more: Any) -> dict[str, Any]:
    windows = [[1.0, 2.0] if window is None else window]
    return {"qid": qid, "query": f"{qid}?", "vid": "v", "duration": 10, "relevant_windows": windows} | more


def example(id: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "video": "v.mp4", "question": f"{id}?", "answer": "x", **more}


def test_a_file_is_told_by_what_is_in_it(tmp_path: Path) -> None:
    written(tmp_path / "one.txt", ["AO8RW 0.0 6.9##a person sits."])
    written(tmp_path / "two.jsonl", [moment("a")])
    (tmp_path / "deep").mkdir()
    written(tmp_path / "deep" / "three.jsonl", [example("a")])
    written(tmp_path / "predictions.json", [{"id": 1}])
    written(tmp_path / "notes.md", ["x"])
    sources, others = read_sources(tmp_path)
    assert [(one.path.name, one.layout, len(one.rows)) for one in sources] == [
        ("three.jsonl", "examples", 1),
        ("one.txt", "grounding", 1),
        ("two.jsonl", "grounding", 1),
    ]
    assert [path.name for path in others] == ["predictions.json"]
    assert sources[0].rows[0].video == str(tmp_path / "deep" / "v.mp4")


def test_every_malformed_record_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    bad = [moment("b", [1.0, math.nan]), moment("d", relevant_windows="1-2"), "{not json"]
    path = written(tmp_path / "x.jsonl", [bad[0], moment("a"), *bad[1:], moment("c", [3.0, 2.0])])
    for layout in (None, "tvgbench", "qvhighlights"):
        [source], _ = read_sources(path, layout)
        assert [row.id for row in source.rows] == ["a", "c"]
        assert [fault.split(", record ")[1][0] for fault in source.faults] == ["1", "3", "4"]
        assert all(fault.startswith(str(path)) for fault in source.faults)
        assert "relevant_windows" in source.faults[0]
    [finding] = reader_findings(source.faults, source.warnings)
    assert (finding.check, len(finding.rows), finding.severity) == ("malformed_record", 3, "error")


def test_ids_that_a_reader_refuses_to_have_twice(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", [moment("a"), moment("a")])
    [source], _ = read_sources(path, "qvhighlights")
    assert source.rows == () and len(source.faults) == 1
    assert "'a'" in source.faults[0] and str(path) in source.faults[0]


def test_lines_of_examples_are_read_one_by_one(tmp_path: Path) -> None:
    reversed_segment = [{"start_seconds": 2.0, "end_seconds": 1.0}]
    lines = [example("a"), example("b", segments=reversed_segment), "{", example("c", extra=1), example("d")]
    [source], _ = read_sources(written(tmp_path / "x.jsonl", lines))
    assert [row.id for row in source.rows] == ["a", "d"]
    assert [fault.split(":")[-3 if "http" in fault else 1].split()[0] for fault in source.faults] == [
        "2",
        "3",
        "4",
    ]


def test_training_rows_of_a_release_are_checked(tmp_path: Path) -> None:
    row = {
        "idx": 1,
        "problem": "When?",
        "solution": [[1, 12]],
        "video": "v.mp4",
        "duration": 10,
        "task": "tvg",
    }
    lines = [
        row,
        row | {"idx": 2, "solution": [[3, 3]]},
        row | {"idx": 3, "problem": "Where?", "video": "w.mp4"},
    ]
    path = written(tmp_path / "x.jsonl", lines)
    for layout in (None, "museg"):
        [source], _ = read_sources(path, layout)
        assert (source.layout, [one.id for one in source.rows]) == ("museg", ["1", "3"])
        [fault] = source.faults
        assert fault.startswith(f"{path}:2: field 'solution[0]'")
        assert [(one.check, one.rows) for one in check_rows(source.rows)] == [("label_past_end", ("1", "3"))]


def test_commas_that_json_does_not_have_are_a_warning(tmp_path: Path) -> None:
    task = {"id": "dev_Art_1", "question": "Which?", "options": ["x", "y"], "answer": "A"}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"Perception": {"0": task}}).replace('"y"]', '"y",]'), encoding="utf-8")
    [source], _ = read_sources(path)
    assert (source.layout, len(source.rows), len(source.warnings)) == ("videommmu", 1, 1)
    assert reader_findings((), source.warnings)[0].check == "reader_warning"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        read_sources(tmp_path / "none.json")
    with pytest.raises(MissingError):
        read_sources(tmp_path)
    notes = written(tmp_path / "notes.json", [{"a": 1}])
    with pytest.raises(RecordError, match="--benchmark"):
        read_sources(notes)
    with pytest.raises(ConfigError):
        read_sources(notes, "nosuch")
    [source], _ = read_sources(notes, "mlvu")
    assert source.rows == () and source.faults


# -- videos ------------------------------------------------------------------------------------------------------------


def test_videos_are_there_and_as_long_as_annotated(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write_clip(tmp_path / "deep" / "good.mp4", num_frames=30, fps=10)
    for size in ("240p", "480p"):
        (tmp_path / size).mkdir()
        (tmp_path / size / "two.mp4").write_bytes((tmp_path / "deep" / "good.mp4").read_bytes())
    (tmp_path / "broken.mp4").write_bytes(b"no video" * 100)
    good = replace(MOMENT, id="g", video="good", duration_seconds=3.9)
    rows = [
        good,
        replace(good, id="path", video="deep/good.mp4"),
        replace(good, id="long", video="elsewhere/good.mp4", duration_seconds=4.2),
        replace(good, id="clip", video="good.webm", duration_seconds=99.0, clip=(1.0, 4.5)),
        replace(good, id="inside", video="x/good", duration_seconds=99.0, clip=(1.0, 3.5)),
        replace(good, video="broken.mp4"),
        replace(good, video="gone.mp4"),
        replace(good, video="two.mp4"),
        replace(good, id="fits", video="made/480p/two.mp4"),
    ]
    seen: list[tuple[int, int]] = []
    found = {
        one.check: one for one in check_videos(rows, tmp_path, lambda done, total: seen.append((done, total)))
    }
    assert {check: one.rows for check, one in found.items()} == {
        "missing_video": ("gone.mp4",),
        "ambiguous_video": ("two.mp4",),
        "unreadable_video": ("broken.mp4",),
        "duration_mismatch": ("elsewhere/good.mp4", "good.webm"),
    }
    assert "is 3.00 s long, annotated as 4.20 s" in found["duration_mismatch"].example
    assert seen == [(n, 9) for n in range(1, 10)]
    with pytest.raises(MissingError):
        check_videos(rows, tmp_path / "none")


# -- the shared annotations: the defects that are known of them --------------------------------------------------------

KNOWN = {
    "charades_sta/taro/charades_sta_test.jsonl": {"label_at_end": 551, "question_cut": 7},
    "charades_sta/timesuite/charades_sta_test.txt": {},
    "tvgbench/tvgbench.json": {"label_no_length": 11, "label_past_end": 27, "field_missing": 168},
    "activitynet_captions/activitynet_val_1.jsonl": {"label_past_end": 115, "outer_blanks": 10589},
    "rextime/rextime_val.jsonl": {"label_no_length": 2},
    "mlvu/1_plotQA.json": {"ambiguous_answer": 3},
    "mlvu/2_needle.json": {"impossible_answer": 2},
    "mlvu/6_anomaly_reco.json": {"ambiguous_answer": 1},
    "mlvu/7_topic_reasoning.json": {"ambiguous_answer": 2, "empty_option": 1},
    "videommmu/adaptation_video.json": {"malformed_answer": 1},
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_known_defects_of_the_shared_annotations_are_found(shared_dir: Path, name: str) -> None:
    path = shared_dir / "evaldata" / name
    if not path.is_file():
        pytest.skip(f"no {name} in the shared data")
    [source], _ = read_sources(path)
    found = {one.check: len(one.rows) for one in check_rows(source.rows)}
    assert {check: found.get(check) for check in KNOWN[name]} == KNOWN[name]
    assert KNOWN[name] or not found


def test_ids_of_known_defects(shared_dir: Path) -> None:
    folder = shared_dir / "evaldata"
    if not (folder / "rextime").is_dir():
        pytest.skip("no ReXTime in the shared data")
    wanted = {
        "rextime/rextime_val.jsonl": ("label_no_length", ("anet_val867", "anet_val889")),
        "mlvu/2_needle.json": ("impossible_answer", ("needle_34", "needle_338")),
    }
    for name, (check, ids) in wanted.items():
        [source], _ = read_sources(folder / name)
        assert next(one for one in check_rows(source.rows) if one.check == check).rows == ids
    [source], _ = read_sources(folder / "qvhighlights" / "highlight_val_release.jsonl")
    found = coverage(source.rows)
    assert (found["with_several_windows"], found["most_windows"]) == (530, 25)
    [source], _ = read_sources(folder / "tvgbench" / "tvgbench.json")
    assert coverage(source.rows)["with_clip"] == 252


def test_every_check_says_how_grave_it_is() -> None:
    assert {severity for severity, _ in CHECKS.values()} == {"error", "warning"}
    page = (Path(__file__).parents[2] / "docs" / "data-check.md").read_text(encoding="utf-8")
    assert [
        f"| `{name}` | {severity} | {words} |" in page for name, (severity, words) in CHECKS.items()
    ].count(False) == 0
    assert Finding("label_at_end", ("a",), "a: x").severity == "warning"
