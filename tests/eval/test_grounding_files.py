"""Annotation and prediction files of grounding benchmarks: every layout by its content, bad ones by line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from timeloupe.errors import MissingError, RecordError
from timeloupe.eval.benchmarks import (
    charades_sta,
    museg_grounding,
    timelens,
    tvgbench,
    videotemp_bench_grounding,
)
from timeloupe.eval.files.grounding_predictions import read_predictions
from timeloupe.eval.scoring import Row, example_of

MOMENT = {"qid": "test0", "query": "a dog.", "duration": 31.0, "vid": "V", "relevant_windows": [[2.5, 9]]}
MUSEG = {"video": "set/V.mp4", "question": "Now the textual sentence: a dog.", "groundtruth": [[2.5, 9.0]]}
COCO = {"image_id": "V.mp4", "caption": "a dog.", "timestamp": [2.5, 9.0], "id": 7}
TIME_R1 = {
    "path": "x/V.mp4",
    "question": "a dog.",
    "answer": "2.5-9.0",
    "start": None,
    "end": None,
    "duration": 31.0,
}
VIDEOTEMP = {
    "videos": ["V.mp4"],
    "question": "what?",
    "answer": "a dog",
    "duration": 31.0,
    "timestamp": [2.5, 9.0],
}
KEY = "V.mp4>>>a dog>>>[2.5, 9.0]"

ANNOTATIONS: dict[str, Any] = {
    "lines of moments": [json.dumps(MOMENT)],
    "list of moments": [MOMENT],
    "MUSEG": [MUSEG],
    "coco": {"annotations": [COCO]},
    "first release": ["V 2.5 9.0##a dog."],
    "Time-R1": [TIME_R1],
    "by video": {"V": {"duration": 31.0, "timestamps": [[2.5, 9.0]], "sentences": ["a dog."]}},
    "TimeLens": {"V": {"duration": 31.0, "spans": [[2.5, 9.0]], "queries": ["a dog."]}},
    "keys": {KEY: {"answers": "2 - 9", "duration": 31.0}},
    "lines of keys": [json.dumps({KEY: "2 - 9"})],
    "nested key": {"V.mp4>>>a dog>>>[[2.5, 9.0]]": {"answers": "2 - 9"}},
    "lmms-eval": [{"video": "V.mp4", "caption": "a dog.", "timestamp": [2.5, 9.0]}],
    "lmms-eval TimeLens": [
        {"video_path": "V.mp4", "query": "a dog.", "span": [[2.5, 9.0]], "duration": 31.0}
    ],
    "VideoTemp-Bench": [json.dumps(VIDEOTEMP)],
}


def write(folder: Path, value: Any, name: str = "file.txt") -> Path:
    """A file of lines if the value is a list of texts, else of JSON. Its name says nothing."""
    path = folder / name
    lines = isinstance(value, list) and all(isinstance(one, str) for one in value)
    path.write_text("\n".join(value) if lines else json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize("layout", sorted(ANNOTATIONS))
def test_every_layout_is_told_by_its_content(tmp_path: Path, layout: str) -> None:
    (one,) = charades_sta.BENCHMARK.load(write(tmp_path, ANNOTATIONS[layout]))
    assert one.windows == ((2.5, 9.0),)
    assert Path(one.video).stem == "V" and one.task == "grounding"
    assert one.duration_seconds in (31.0, None)
    assert one.raw


def test_a_clip_is_where_the_times_count_from(tmp_path: Path) -> None:
    whole, part = MOMENT, MOMENT | {"qid": "test1", "video_start": 50.0, "video_end": 81.0}
    of_taro = tvgbench.BENCHMARK.load(
        write(tmp_path, [whole | {"video_start": None, "video_end": None}, part])
    )
    of_time_r1 = tvgbench.BENCHMARK.load(write(tmp_path, [TIME_R1, TIME_R1 | {"start": 50.0, "end": 81.0}]))
    for rows in (of_taro, of_time_r1):
        assert [row.clip for row in rows] == [None, (50.0, 81.0)]
        assert [row.windows for row in rows] == [((2.5, 9.0),)] * 2
        assert example_of(rows[1]).segments[0].start_seconds == 2.5
    assert [row.id for row in of_taro] == [row.id for row in of_time_r1]


def test_labels_stay_as_they_are(tmp_path: Path) -> None:
    odd = [[5, 5], [9, 2], [20, 99]]
    (row,) = museg_grounding.BENCHMARK.load(write(tmp_path, [MUSEG | {"groundtruth": odd}]))
    assert row.windows == ((5.0, 5.0), (9.0, 2.0), (20.0, 99.0))
    assert row.task == "multi_segment"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([json.dumps(MOMENT), json.dumps(MOMENT | {"relevant_windows": [[1, "x"]]})], [":2", "relevant_windows"]),
        ([json.dumps(MOMENT), "{"], [":2", "JSON"]),
        ([json.dumps(MOMENT | {"duration": "long"})], [":1", "duration"]),
        ([MUSEG, MUSEG | {"groundtruth": 3}], ["record 2", "groundtruth"]),
        ([MUSEG, {"video": "V.mp4"}], ["record 2", "fields ['video']"]),
        ([TIME_R1 | {"answer": "soon"}], ["record 1", "answer"]),
        ([TIME_R1 | {"answer": "1.2.3-4"}], ["record 1", "answer"]),
        ({"annotations": [COCO, COCO | {"timestamp": [1]}]}, ["record 2", "timestamp"]),
        (["V 1 2##a", "V 1 two##b"], [":2", "end"]),
        (["V 1 2##a", "what is this"], [":2", "##"]),
        (["V nan 2##a"], [":1", "start"]),
        ({"V": {"timestamps": [[1, 2]], "sentences": []}}, ["video 'V'", "sentences"]),
        ({"V>>>a>>>soon": "x"}, ["key", "span"]),
        ([json.dumps(VIDEOTEMP | {"timestamp": None})], [":1", "timestamp"]),
        ([], ["no rows"]),
        (["[1, 2"], ["JSON"]),
        ([json.dumps(MOMENT).replace("31.0", "NaN")], [":1", "duration"]),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_by_line_and_field(tmp_path: Path, value: Any, words: list[str]) -> None:
    path = write(tmp_path, value)
    with pytest.raises(RecordError) as caught:
        charades_sta.BENCHMARK.load(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_what_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="charades_sta_test"):
        charades_sta.BENCHMARK.load(tmp_path / "nothing")
    with pytest.raises(MissingError, match="folder"):
        charades_sta.BENCHMARK.load(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="UTF-8"):
        charades_sta.BENCHMARK.load(path)


# -- predictions -------------------------------------------------------------------------------------------------------

ROWS = [
    Row(id="test0", video="V.mp4", question="a dog.", task="grounding", windows=((2.5, 9.0),), duration_seconds=9.0),
    Row(id="test1", video="V.mp4", question="a cat.", task="grounding", windows=((0.0, 4.0),)),
    Row(id="test2", video="V.mp4", question="a dog.", task="grounding", windows=((20.0, 30.0),)),
]  # fmt: skip

RESULT = {"output": "2-9", "conversation": ["user: where?", "assistant: <answer>2-9</answer>"]}

PREDICTIONS: dict[str, Any] = {
    "TaRO": [json.dumps({"original_data": MOMENT, "model_output": "2 to 9", "pred_relevant_window": [2, 9]})],
    "Time-R1": [json.dumps({"qid": "charades_0", "pred": [2, 9], "target": [2.5, 9.5], "output_text": "2 to 9"})],
    "Time-R1, our id": [json.dumps({"qid": "test0", "pred": [2, 9], "target": [2.5, 9.0], "output_text": "2 to 9"})],
    "MUSEG": [MUSEG | {"result": RESULT}, {"tot": 1, "m_iou": 0.5}],
    "TimeChat": [{"vname": "V.mp4", "query": "a dog.", "generated_cap": "2 - 9", "id": 0}],
    "keys": {KEY: {"timestamps": [[2.0, 9.0]], "answers": "2 - 9"}},
    "list of keys": [{KEY: {"answers": "2 - 9"}}],
    "lmms-eval": {"V.mp4>>>a dog.>>>[2.5, 9.0]": "2 - 9", "V.mp4>>>a cat.>>>[0.0, 4.0]": "none"},
    "lmms-eval samples": [
        json.dumps({
            "doc": {"video": "V.mp4", "caption": "a dog.", "timestamp": [2.5, 9.0]}, "filtered_resps": ["2 - 9"],
        })
    ],
    "VideoTemp-o3": [json.dumps(VIDEOTEMP | {"videos": ["V.mp4"], "question": "a dog.", "response": "2 - 9"})],
    "VideoTemp-o3 in order": [json.dumps({"duration": 31.0, "timestamp": [2.5, 9.0], "response": "2 - 9"})],
}  # fmt: skip


@pytest.mark.parametrize("layout", sorted(PREDICTIONS))
def test_every_layout_of_predictions(tmp_path: Path, layout: str) -> None:
    found = read_predictions(write(tmp_path, PREDICTIONS[layout]), ROWS)["test0"]
    text = found["answers"] if isinstance(found, dict) else found
    assert "2" in text and "9" in text and "wher" not in text


def test_windows_where_a_script_keeps_no_text(tmp_path: Path) -> None:
    formatted = {"0": {"timestamp": [[2.0, 9.0]], "vid": "V.mp4"}, "1": {"timestamp": [], "vid": "V.mp4"}}
    assert read_predictions(write(tmp_path, formatted), ROWS) == {"test0": [[2.0, 9.0]], "test1": []}
    etchat = [
        {"vid": "V", "query": "a dog", "span": [20.0, 30.0], "pred": [21, 29]},
        {"vid": "V", "query": "a cat", "span": [0.0, 4.0], "pred": None},
    ]
    assert read_predictions(write(tmp_path, etchat), ROWS) == {"test2": [21, 29], "test1": []}
    unread = [json.dumps({"qid": "test1", "pred": [None, None], "target": [0.0, 4.0]})]
    assert read_predictions(write(tmp_path, unread), ROWS) == {"test1": []}


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({"V.mp4>>>a horse>>>[1, 2]": "1 - 2"}, "a horse"),
        ({KEY: 3}, "prediction"),
        ({"9": {"timestamp": [], "vid": "V.mp4"}}, "timesuite_id"),
        ({"0": {"timestamp": [], "vid": "W.mp4"}}, "V.mp4"),
        ([json.dumps({"qid": "charades_0", "pred": [2, 9], "target": [7.5, 9.5]})], "not that of row 0"),
        ([json.dumps({"qid": "nobody", "pred": [2, 9], "target": [7.5, 9.5]})], "qid"),
        ([json.dumps({"original_data": 3, "model_output": "x"})], "original_data"),
        ([json.dumps({"duration": 1.0, "timestamp": [0.0, 1.0], "response": "x"})] * 4, "row 0"),
        ([json.dumps({"id": "test0", "what": "x"})], "known layouts"),
    ],
)  # fmt: skip
def test_predictions_that_belong_to_no_row_are_refused(tmp_path: Path, value: Any, word: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_predictions(write(tmp_path, value), ROWS)
    message = str(caught.value)
    assert word in message or "of no row" in message
    assert str(tmp_path) in message


def test_timelens_scores_timestamps_and_strict_mode_the_text(tmp_path: Path) -> None:
    path = write(tmp_path, {KEY: {"timestamps": [[3, 9]], "answers": "from 2.5s to 9s", "duration": 31.0}})
    rows = timelens.load(path)
    predictions = read_predictions(path, rows)
    assert timelens.compute_metrics(rows, predictions).figures["mIOU"] == pytest.approx(600 / 6.5)
    assert timelens.strict(rows, predictions).figures["mIoU"] == 1
    assert timelens.lmms_eval(rows, predictions).num_scored == 1


def test_videotemp_records_are_annotation_and_predictions_at_once(tmp_path: Path) -> None:
    # The script's threads write in any order.
    lines = [
        VIDEOTEMP | {"question": f"q{at}", "duration": 100.0 * 4**at, "response": f"{at} - 9"}
        for at in range(4)
    ]
    rows = videotemp_bench_grounding.BENCHMARK.load(write(tmp_path, lines))
    assert [row.groups["duration"] for row in rows] == ["<3min", "3-10min", ">20min", ">20min"]
    predictions = read_predictions(write(tmp_path, lines[::-1]), rows)
    assert predictions == {"0": "0 - 9", "1": "1 - 9", "2": "2 - 9", "3": "3 - 9"}
