"""NExT-GQA (Xiao et al. 2024): NExT-QA's causal and temporal questions with the moments that answer them.

A prediction is a record with ``span`` ([start, end], from the grounding file) and ``answer`` and ``prediction`` (option
numbers from 0, from the answer file) or some of these, the span alone, or a model's text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from timeloupe.errors import MissingError, RecordError, boundary
from timeloupe.eval.files.records import LETTERS, Record, existing, read_csv, read_json
from timeloupe.eval.files.windows import finite, is_number, windows
from timeloupe.eval.qa_grounding import Halves, strict_table
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table, Window
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.strict import windows_of_list

FILES = "gsub_val.json or gsub_test.json of doc-doc/NExT-GQA with its csv beside it, or a folder of these two"
NAMES = {"CW": "Why", "CH": "How", "TN": "Bef&Aft", "TC": "When", "DC": "Cnt", "DL": "Loc", "DO": "Other"}
CLASSES = {"C": "Acc_C", "T": "Acc_T", "D": "Acc_D"}
NUM_OPTIONS = 5


def load(path: Path) -> list[Row]:
    """Return the questions that have moments, in the order of the file of moments; ids are ``video_qid``.

    Which file is which is told by what they hold: of the csv files beside the moments the one with all their questions.

    Raises:
        MissingError: One of the two files is not there.
        ConfigError: A folder holds the moments of several splits.
        RecordError: A record is not valid, or a question is twice in the csv.
    """
    existing(path, FILES)
    moments = _moments_file(path) if path.is_dir() else path
    locations = list(_locations(moments))
    if not locations:
        raise RecordError(f"{moments} holds no question")
    questions = _questions(moments.parent, {f"{video}_{qid}" for video, qid, _, _ in locations})
    return [_row(*location, questions[f"{location[0]}_{location[1]}"]) for location in locations]


def _moments_file(folder: Path) -> Path:
    found = [path for path in sorted(folder.glob("*.json")) if _is_moments(read_json(path))]
    if not found:
        raise MissingError(f"no file of moments in {str(folder)!r}, expected {FILES}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise boundary("annotations of nextgqa", str(folder), names, "name the file of one split")
    return found[0]


def _is_moments(value: Any) -> bool:
    first = next(iter(value.values()), None) if isinstance(value, dict) else None
    return isinstance(first, dict) and "location" in first


def _locations(path: Path) -> Iterator[tuple[str, str, Record, tuple[Window, ...]]]:
    """Yield video, question number, the video's record and the true windows."""
    whole = read_json(path)
    if not _is_moments(whole):
        raise RecordError(f"{path} must hold {{video: {{duration, location}}}}, got {whole!r:.80}")
    for video, fields in whole.items():
        record = Record(f"{path}, video {video}", fields if isinstance(fields, dict) else {})
        finite(record, "duration")
        location = record.value("location")
        if not isinstance(location, dict):
            raise record.fault("location", f"must be {{qid: [[start, end], ...]}}, got {location!r:.80}")
        inside = Record(f"{record.where}, location", location)
        for qid in location:
            yield video, qid, record, windows(inside, qid)


def _questions(folder: Path, wanted: set[str]) -> dict[str, Record]:
    """Return the csv rows by ``video_qid``."""
    paths = sorted(folder.glob("*.csv"))
    lacks: dict[str, str] = {}
    for path in paths:
        found: dict[str, Record] = {}
        for record in read_csv(path):
            id = f"{record.text('video_id')}_{record.text('qid')}" if record.has("video_id") else ""
            if id in found:
                raise record.fault("qid", f"is {record.text('qid')!r} of this video as in {found[id].where}")
            found[id] = record
        if wanted <= found.keys():
            return found
        lacks[path.name] = min(wanted - found.keys())
    told = "; ".join(f"{name} lacks {id}" for name, id in lacks.items()) or "there is no csv"
    raise MissingError(f"no csv with the questions in {str(folder)!r} ({told}), expected {FILES}")


def _row(video: str, qid: str, record: Record, truth: tuple[Window, ...], question: Record) -> Row:
    options = tuple(question.text(f"a{number}") for number in range(NUM_OPTIONS))
    answer = question.text("answer")
    return Row(
        id=f"{video}_{qid}", video=video, question=question.text("question"), task="multiple_choice",
        options=options, answer=LETTERS[options.index(answer)] if answer in options else None, windows=truth,
        duration_seconds=float(record.value("duration")), groups={"type": question.text("type")},
        raw={**question.fields, "duration": record.value("duration"), "location": truth},
    )  # fmt: skip


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the records by ``video_qid`` of a grounding file, of an answer file, or of both.

    As in ``eval_ground.py`` the answers to ``val_ground_gs.json`` are in ``val-res.json`` beside it, if it is there; a
    folder may hold one file of each kind.

    Raises:
        MissingError: There is no such file.
        RecordError: An entry is neither a span nor an answer, or a folder holds several files of one kind.
    """
    del rows
    if path.is_dir():
        paths = sorted(path.glob("*.json"))
    else:
        answers = path.with_name(f"{path.name.split('_')[0]}-res.json")
        paths = [path, answers] if answers.is_file() and answers != path else [path]
    found: dict[str, dict[str, Any]] = {}
    kinds: dict[str, Path] = {}
    for file in paths:
        whole = read_json(file)
        if not isinstance(whole, dict) or not whole:
            raise RecordError(f"{file} must hold {{video_qid: [start, end] or answer}}, got {whole!r:.80}")
        for id, value in whole.items():
            fields = _fields(f"{file}, {id}", value)
            kind = "span" if "span" in fields else "answer"
            if kinds.setdefault(kind, file) != file:
                raise RecordError(f"{file} holds a second {kind} beside {kinds[kind]}, name one file")
            found.setdefault(id, {}).update(fields)
    if not found:
        raise MissingError(f"no predictions in {str(path)!r}")
    return found


def _fields(where: str, value: Any) -> dict[str, Any]:
    if isinstance(value, list) and len(value) == 2 and all(map(is_number, value)):
        return {"span": value}
    if isinstance(value, dict) and {"answer", "prediction"} <= value.keys():
        return {"answer": value["answer"], "prediction": value["prediction"]}
    raise RecordError(f"{where} must be [start, end] or {{answer, prediction}}, got {value!r:.80}")


def overlap(window: Window, span: Sequence[float]) -> tuple[float, float]:
    """Return IoU and IoP of one span as the script has them: negative where the two are apart.

    A span of no length has IoU 0, and IoP 1 inside the window, ends included. A reversed span has IoP 0.

    Source: doc-doc/NExT-GQA@63772e02 code/TempGQA/eval_ground.py get_tIoU.
    """
    start, end = span[0], span[-1]
    if start == end:
        return 0, float(window[0] <= start <= window[1])
    common = min(window[-1], end) - max(window[0], start)
    hull = max(window[-1], end) - min(window[0], start)
    return (common / hull if hull > 0 else 0.0), (common / (end - start) if end > start else 0.0)


def eval_ground(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return Acc&GQA, mIoP, TIoP@0.3, TIoP@0.5, mIoU, TIoU@0.3 and TIoU@0.5 of spans in seconds, in percent, 1 decimal.

    The best true window is taken for IoU and for IoP separately, at least 0. Acc&GQA: IoP >= 0.5 and the predicted
    number is the one that the answer file calls right. Without answers it is 0. A question without a span is passed
    over and leaves the denominator.

    Source: doc-doc/NExT-GQA@63772e02 code/TempGQA/eval_ground.py eval_ground.

    Raises:
        OfficialError: No question has a span (ZeroDivisionError), a well grounded one has no answer (KeyError), or a
            span is a text (TypeError).
    """
    return _ground("eval_ground", rows, predictions, shares=False)


def eval_ground_gs(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the same of spans as shares of the video (``gs=True``): times the duration, rounded to 0.1 s."""
    return _ground("eval_ground_gs", rows, predictions, shares=True)


def _ground(script: str, rows: Sequence[Row], predictions: Predictions, *, shares: bool) -> Table:
    has_answers = any(isinstance(one, Mapping) and "prediction" in one for one in predictions.values())
    best: dict[str, tuple[float, float]] = {}
    joint = 0
    for row in rows:
        record = predictions.get(row.id)
        span = record.get("span") if isinstance(record, Mapping) else record
        if span is None:
            continue
        best[row.id] = best_overlaps(row, span, shares)
        if best[row.id][1] >= 0.5 and has_answers:
            if not isinstance(record, Mapping) or "prediction" not in record:
                raise OfficialError("KeyError", repr(row.id))
            joint += record["answer"] == record["prediction"]
    count = len(best)
    if not count:
        raise OfficialError("ZeroDivisionError", "division by zero")
    ious, iops = [iou for iou, _ in best.values()], [iop for _, iop in best.values()]
    figures = {
        "Acc&GQA": joint / count * 100,
        "mIoP": sum(iops) / count * 100,
        "TIoP@0.3": sum(iop >= 0.3 for iop in iops) / count * 100,
        "TIoP@0.5": sum(iop >= 0.5 for iop in iops) / count * 100,
        "mIoU": sum(ious) / count * 100,
        "TIoU@0.3": sum(iou >= 0.3 for iou in ious) / count * 100,
        "TIoU@0.5": sum(iou >= 0.5 for iou in ious) / count * 100,
    }
    rounded = {name: float(f"{value:.1f}") for name, value in figures.items()}
    missing = {"missing": len(rows) - count} if count < len(rows) else {}
    values = {id: min(1.0, float(iou)) for id, (iou, _) in best.items()}
    return Table(f"official:{script}", rounded, "percent", count, len(rows), missing, values)


def best_overlaps(row: Row, span: Any, shares: bool = False) -> tuple[float, float]:
    """Return the greatest IoU and the greatest IoP of a span, each from 0 up.

    Raises:
        OfficialError: The span is not two numbers.
    """
    if not isinstance(span, list | tuple) or not all(isinstance(one, int | float) for one in span):
        raise OfficialError("TypeError", f"a span must be [start, end], got {span!r:.80}")
    if not span:
        raise OfficialError("IndexError", "list index out of range")
    if shares:
        span = np.round(np.asarray(span) * row.raw["duration"], 1).tolist()
    pairs = [overlap(window, span) for window in row.windows]
    return max((0, *(iou for iou, _ in pairs))), max((0, *(iop for _, iop in pairs)))


def eval_next(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the share of right answers by kind of question and of all, in percent with 2 decimals.

    What is right, the answer file itself says; "before" (TP) counts with "after" (TN).

    Source: doc-doc/NExT-GQA@63772e02 code/TempGQA/eval_next.py eval_ground and accuracy_metric.

    Raises:
        OfficialError: A question has no answer, or is of an unknown kind (KeyError).
    """
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    values: dict[str, float] = {}
    for row in rows:
        kind = "TN" if row.groups["type"] == "TP" else row.groups["type"]
        if kind not in NAMES:
            raise OfficialError("KeyError", repr(kind))
        record = predictions.get(row.id)
        if not isinstance(record, Mapping) or not {"answer", "prediction"} <= record.keys():
            raise OfficialError("KeyError", repr(row.id))
        values[row.id] = float(record["answer"] == record["prediction"])
        for name in (NAMES[kind], CLASSES[kind[0]], "Acc"):
            total[name] += 1
            right[name] += record["answer"] == record["prediction"]
    if not total:
        raise OfficialError("ZeroDivisionError", "float division by zero")
    names = [name for name in (*NAMES.values(), *CLASSES.values(), "Acc") if total[name]]
    figures: dict[str, float] = {name: float(f"{right[name] * 100.0 / total[name]:.2f}") for name in names}
    counts = {"Video": len({row.video for row in rows}), "Questions": len(rows)}
    return Table("official:eval_next", figures | counts, "percent", len(rows), len(rows), {}, values)


def strict(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the figures of ``qa_grounding.strict_table`` against the annotation's own answers.

    Where all spans of the file that are numbers lie within [0, 1], they are shares of the video, as files for
    ``eval_ground_gs`` have them; how many were read so is among the failures under ``span read as share of the video``.
    One time above 1 makes seconds of all of them. Times in texts are seconds.
    """
    halves = {id: _halves(prediction) for id, prediction in predictions.items() if prediction is not None}
    spans = {id: found for id, half in halves.items() if (found := windows_of_list(half.windows))}
    if not spans or not all(0 <= time <= 1 for found in spans.values() for span in found for time in span):
        return strict_table(rows, halves, _halves)
    scaled = dict(halves)
    for row in rows:
        length = float(row.raw["duration"])
        if row.id in spans:
            windows = [[start * length, end * length] for start, end in spans[row.id]]
            scaled[row.id] = replace(halves[row.id], windows=windows)
    table = strict_table(rows, scaled, _halves)
    return Table(
        table.mode, table.figures, table.unit, table.num_scored, table.num_total,
        {**table.failures, "span read as share of the video": len(spans)}, table.values,
    )  # fmt: skip


def _halves(prediction: Any) -> Halves:
    if isinstance(prediction, Halves):
        return prediction
    if isinstance(prediction, str):
        return Halves(prediction, prediction)
    if not isinstance(prediction, Mapping):
        return Halves(windows=prediction)
    number = prediction.get("prediction")
    if type(number) is int:
        number = LETTERS[number] if 0 <= number < NUM_OPTIONS else ""
    return Halves(number, prediction.get("span"))


BENCHMARK = Benchmark(
    name="nextgqa",
    title="NExT-GQA",
    split="val or test, by the file",
    files=FILES,
    load=load,
    official={"eval_ground": eval_ground, "eval_ground_gs": eval_ground_gs, "eval_next": eval_next},
    strict=strict,
    read_predictions=read_predictions,
    joint=True,
)
