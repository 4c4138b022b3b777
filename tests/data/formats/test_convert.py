"""Whole files from one format into another: counts, losses, bad rows, recognition, and the real rows of releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.formats.rows_for_tests import episodes, questions
from timeloupe.data.formats.convert import Count, Report, convert, told
from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.trajectory import read_examples, read_trajectories

MUSEG_ROWS: list[dict[str, Any]] = [
    {"idx": 0, "problem": "When?", "solution": [[0, 2.5]], "video": "a.mp4", "duration": 9.5, "task": "tvg"},
    {"idx": 1, "problem": "Each time?", "solution": [[0, 1], [3, 4]], "video": "b.mp4", "task": "tal"},
    {"idx": 2, "problem": "Again?", "solution": [[5, 6]], "video": "c.mp4", "duration": 8, "task": "tal"},
]


def lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def parsed(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return (
        json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.split("\n") if line]
    )


def run(source: Path, target: Path, to: str, **more: Any) -> Report:
    return convert(source, target, **({"source_format": "auto", "target_format": to} | more))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return lines(tmp_path / "in.jsonl", MUSEG_ROWS)


def test_losses_are_counted_field_by_field(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    report = run(rows, out, "examples")
    assert report == Report("museg", "examples", 3, 3, losses={"extra.duration_seconds": Count(left_out=2)})
    read = list(read_examples(out))
    assert [one.id for one in read] == ["0", "1", "2"]
    assert [one.task for one in read] == ["grounding", "multi_segment", "multi_segment"]


def test_there_and_back_only_what_was_said_to_be_lost_is_lost(rows: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "out.jsonl", tmp_path / "back.jsonl"
    run(rows, out, "examples")
    assert run(out, back, "museg").losses == {}
    assert parsed(back) == [{k: v for k, v in one.items() if k != "duration"} for one in MUSEG_ROWS]
    assert run(rows, out, "museg").losses == {} and parsed(out) == MUSEG_ROWS


def test_the_same_rows_make_the_same_file(rows: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(rows, tmp_path / name, "taro_eval")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_bad_rows_stop_or_are_counted(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    bad = MUSEG_ROWS[0] | {"solution": [[4, 4]]}
    text = (
        rows.read_text(encoding="utf-8") + json.dumps(bad) + "\n{broken\n" + json.dumps(MUSEG_ROWS[2]) + "\n"
    )
    rows.write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=rf"^{rows}:4: field 'solution\[0\]' must be .*got \[4, 4\]$"):
        run(rows, out, "museg")
    assert not out.exists()
    report = run(rows, out, "museg", skip_bad=True)
    assert (report.read, report.written, report.bad) == (6, 4, 2)
    assert [one.split(" ")[0] for one in report.first_bad] == [f"{rows}:4:", f"{rows}:5"]
    assert parsed(out) == [*MUSEG_ROWS, MUSEG_ROWS[2]]


def test_rows_that_the_target_cannot_hold_are_bad_rows(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    with pytest.raises(
        RecordError, match=rf"^{rows}:2 cannot be written as openo3: field 'task' .*'multi_segment'"
    ):
        run(rows, out, "openo3")
    report = run(rows, out, "openo3", skip_bad=True)
    assert (report.read, report.written, report.bad) == (3, 1, 2)
    assert report.losses == {"extra.duration_seconds": Count(left_out=1), "example.id": Count(left_out=1)}


def test_a_file_is_told_by_its_first_rows(rows: Path, tmp_path: Path) -> None:
    assert told(rows).name == "museg"
    other = lines(tmp_path / "x", [{"a": 1}])
    with pytest.raises(RecordError, match=r"no known format.*\['a'\].*--from, one of examples, trajectories"):
        told(other)
    both = lines(tmp_path / "y", [MUSEG_ROWS[0], {"video": "v", "question": "q", "groundtruth": [[1, 2]]}])
    with pytest.raises(RecordError, match="no known format"):
        told(both)
    assert told(lines(tmp_path / "w", [*MUSEG_ROWS, {"a": 1}])).name == "museg"
    broken = tmp_path / "z"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(RecordError, match="not JSON"):
        told(broken)


def test_wrong_names_and_places(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="another than the one that is read"):
        run(rows, rows, "examples")
    with pytest.raises(ConfigError, match=r"'parquet', allowed: examples"):
        run(rows, out, "parquet")
    with pytest.raises(ConfigError, match=r"format of rows, got 'json'"):
        run(rows, out, "examples", source_format="json")
    with pytest.raises(ConfigError, match=r"protocol, got 'x'"):
        run(rows, out, "examples", protocol="x")
    with pytest.raises(MissingError, match="make it first"):
        run(rows, tmp_path / "no" / "out", "examples")
    with pytest.raises(MissingError, match="no file of rows"):
        run(tmp_path / "none", out, "examples", source_format="museg")
    empty = lines(tmp_path / "empty", [])
    with pytest.raises(RecordError, match="holds no row"):
        run(empty, out, "examples", source_format="museg")
    assert not out.exists()


def test_paths_that_lead_from_another_folder_are_told(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert run(rows, tmp_path / "sub" / "out", "examples").relative == 3
    assert run(rows, tmp_path / "out", "examples").relative == 0


def test_a_part_of_a_video_stays_one_or_is_said_to_be_lost(tmp_path: Path) -> None:
    """The length of a part is not the length of the video."""
    row = {
        "qid": 1,
        "query": "q",
        "vid": "v",
        "video_file": "v.mp4",
        "duration": 10,
        "relevant_windows": [[1, 2]],
    }
    source = lines(tmp_path / "in", [row | {"video_start": 5, "video_end": 15}])
    losses = run(source, tmp_path / "museg", "museg").losses
    assert losses == {f"extra.{name}": Count(left_out=1) for name in ("clip_seconds", "duration_seconds")}
    [written] = parsed(tmp_path / "museg")
    assert written["solution"] == [[6, 7]] and "duration" not in written
    assert run(source, tmp_path / "taro", "taro").losses == {}
    [written] = parsed(tmp_path / "taro")
    assert (written["video_start"], written["video_end"], written["extra_info"]["duration"]) == (5, 15, 10)
    assert written["reward_model"]["ground_truth"] == [1, 2]
    run(source, tmp_path / "swift", "swift_rl")
    [written] = parsed(tmp_path / "swift")
    assert written["videos"] == ["v.mp4#t=5.0,15.0"] and written["timestamp"] == [[6, 7]]


@settings(max_examples=10)
@given(examples=st.lists(questions(), min_size=1, max_size=4), name=st.sampled_from(["verl", "trl"]))
def test_questions_through_files_that_hold_all_of_them(
    examples: list[Any], name: str, tmp_path_factory: Any
) -> None:
    if name == "verl":
        pytest.importorskip("pyarrow", reason="verl's rows are parquet")
    folder = tmp_path_factory.mktemp("convert")
    source = lines(folder / "in", [one.model_dump(mode="json") for one in examples])
    if name == "trl":  # which frames are shown is told by the video, which is not there
        with pytest.raises(RecordError, match=r"'videos': no .* below .*--videos"):
            run(source, folder / "out", name)
        return
    assert run(source, folder / "out", name).losses == {}
    report = run(folder / "out", folder / "back", "examples")
    assert parsed(folder / "back") == parsed(source)
    assert {field.split(".")[0] for field in report.losses} <= {"prompt", "views", "extra"}


@settings(max_examples=10)
@given(trajectories=st.lists(episodes(), min_size=1, max_size=3))
def test_episodes_through_files_stay_the_same_bytes(trajectories: list[Any], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("convert")
    source = folder / "in"
    source.write_text("".join(one.model_dump_json() + "\n" for one in trajectories), encoding="utf-8")
    assert run(source, folder / "out", "trajectories") == Report(
        "trajectories", "trajectories", len(trajectories), len(trajectories)
    )
    assert list(read_trajectories(folder / "out")) == trajectories


# -- real rows of releases ---------------------------------------------------------------------------------------------

REAL: dict[str, tuple[str, int, set[int], set[str]]] = {
    "museg_grounding/thumos14.json": ("museg_eval", 227, set(), set()),
    "museg_grounding/thumos15.json": ("museg_eval", 474, set(), set()),
    "charades_sta/museg/charades_sta.json": ("museg_eval", 3720, set(), set()),
    "charades_sta/taro/charades_sta_test.jsonl": ("taro_eval", 3720, set(), set()),
    "qvhighlights/taro/qvhighlights_val.jsonl": (
        "taro_eval", 1550, set(), {"relevant_clip_ids", "saliency_scores"},
    ),
    # 11 windows of no length; sums of long decimals that a float rounds in its last place
    "tvgbench/tvgbench.jsonl": ("taro_eval", 800, {11}, {"relevant_windows"}),
}  # fmt: skip
"""File -> format, rows, bad rows, and fields that only that format knows."""


@pytest.mark.parametrize("name", REAL)
def test_real_rows_are_written_again_as_they_are(name: str, shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "evaldata" / name
    if not source.is_file():
        pytest.skip(f"no {name} in the shared data")
    format, count, bad, own = REAL[name]
    report = run(source, tmp_path / "same", format, skip_bad=True)
    assert (report.source, report.read, report.losses) == (format, count, {})
    assert report.bad == sum(bad)
    faulty = {int(line.split(":")[1]) for line in report.first_bad}
    kept = [one for number, one in enumerate(parsed(source), 1) if not bad or number not in faulty]
    assert parsed(tmp_path / "same") == kept
    losses = run(source, tmp_path / "ours", "examples", skip_bad=True).losses
    assert {field for field in losses if field.startswith(format)} == {f"{format}.{field}" for field in own}
    assert losses.keys() - {f"{format}.{field}" for field in own} <= {
        "extra.duration_seconds",
        "extra.clip_seconds",
    }
