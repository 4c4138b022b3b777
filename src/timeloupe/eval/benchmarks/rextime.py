"""ReXTime (Chen et al. 2024): questions across time, whose answer is a letter and a window.

A prediction is a record of the authors' layout (``pred_relevant_windows``, ``ans``, or one of them), the windows alone,
or a model's text, which may name a letter and a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from timeloupe.eval.detection import first_window_overlaps
from timeloupe.eval.files.records import Record, existing, read_records
from timeloupe.eval.files.windows import (
    best_of_ranking,
    each_once,
    finite,
    is_number,
    scored_windows,
    windows,
)
from timeloupe.eval.qa_grounding import Halves, halves_of_record, strict_table
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table, Window
from timeloupe.eval.scripts.errors import OfficialError

FILES = "rextime_val.jsonl of ReXTime/ReXTime (its evaluation form, or the one with options)"
WINDOWS, LETTER = "pred_relevant_windows", "ans"
LEVELS = tuple(float(f"{level:.2f}") for level in np.linspace(0.3, 0.95, 14))
JOINT_LEVELS = (0.3, 0.5, 0.7)


def load(path: Path) -> list[Row]:
    """Return the rows of the evaluation file, or of the data set's file with ``question``, ``options`` and ``span``.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid (the message names the line and the field), or ids repeat.
    """
    return [_row(record) for record in each_once(read_records(existing(path, FILES)), "qid").values()]


def _row(record: Record) -> Row:
    return Row(
        id=record.text("qid"), video=record.text("vid"),
        question=record.text("query" if record.has("query") else "question"), task="multiple_choice",
        options=record.texts("options") if record.has("options") else (), answer=record.text(LETTER),
        windows=_truth(record), duration_seconds=finite(record, "duration"), raw=record.fields,
    )  # fmt: skip


def _truth(record: Record) -> tuple[Window, ...]:
    if record.has("relevant_windows") or not record.has("span"):
        return windows(record, "relevant_windows")
    span = record.value("span")
    if not isinstance(span, list) or len(span) != 2 or not all(map(is_number, span)):
        raise record.fault("span", f"must be [start, end] in seconds, got {span!r:.80}")
    return ((float(span[0]), float(span[1])),)


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the records of a submission by ``qid``: JSON lines with ``pred_relevant_windows``, ``ans``, or both.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid, or ids repeat.
    """
    del rows
    found = each_once(read_records(path), "qid")
    for record in found.values():
        if not (record.has(WINDOWS) or record.has(LETTER)):
            raise record.fault(WINDOWS, f"is missing, and {LETTER} too")
        if record.has(WINDOWS):
            scored_windows(record, WINDOWS)
        if record.has(LETTER):
            record.text(LETTER)
    return {id: record.fields for id, record in found.items()}


def official(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the figures of the authors' script: letters, windows, or both, as the first record has them.

    ``MR-*`` is in percent with 2 decimals, ``VQA`` and ``VQA,mIoU@m`` are plain fractions. The first window of each
    list; the true one that it overlaps most; IoU over the hull, >=. Letters must be equal as texts.

    Source: ReXTime/ReXTime@cb9f4841 evaluation/{rextime_eval,utils}.py eval_submission. Deviations: 1. ids are compared
    as texts; 2. an id may be there once.

    Raises:
        OfficialError: The ids are not those of the annotation (AssertionError), a list is empty (IndexError), a record
            lacks what the first one has (KeyError), or a prediction is a text (TypeError).
    """
    if predictions.keys() != {row.id for row in rows}:
        raise OfficialError(
            "AssertionError",
            "qids in ground_truth and submission must match. "
            "use `match_number=False` if you wish to disable this check",
        )
    by_id = {row.id: row for row in rows}
    submission = [(by_id[id], _record(prediction)) for id, prediction in predictions.items()]
    if not submission:
        raise OfficialError("IndexError", "list index out of range")
    has_windows, has_letters = WINDOWS in submission[0][1], LETTER in submission[0][1]
    figures: dict[str, Any] = {}
    values: dict[str, float] = {}
    rights: list[bool] = []
    if has_letters or not has_windows:
        rights = [_field(record, LETTER) == row.raw.get(LETTER, row.answer) for row, record in submission]
        figures["VQA"] = sum(rights) / len(rights)
        values = {row.id: float(right) for (row, _), right in zip(submission, rights, strict=True)}
    if has_windows or not has_letters:
        overlaps = _overlaps(submission)
        full: dict[str, Any] = {
            "MR-mIoU": float(f"{np.mean(overlaps) * 100:.2f}"),
            "MR-R1": {str(level): float(f"{np.mean(overlaps >= level) * 100:.2f}") for level in LEVELS},
        }
        if rights:
            full["VQA,mIoU"] = {
                f"VQA,mIoU@{level}": int(((overlaps >= level) & np.array(rights)).sum()) / len(rights)
                for level in JOINT_LEVELS
            }
            figures["VQA,mIoU@0.5"] = full["VQA,mIoU"]["VQA,mIoU@0.5"]
        figures |= {f"MR-full-R1@{level}": full["MR-R1"][str(level)] for level in (0.3, 0.5)}
        figures |= {"MR-full-mIoU": full["MR-mIoU"], "full": full}
        values = values or {row.id: float(iou) for (row, _), iou in zip(submission, overlaps, strict=True)}
    unit = "percent" if "full" in figures else "fraction"
    return Table("official:rextime", figures, unit, len(rows), len(rows), {}, values)


def _record(prediction: Any) -> Mapping[str, Any]:
    if isinstance(prediction, list):
        return {WINDOWS: prediction}
    if not isinstance(prediction, Mapping):
        raise OfficialError("TypeError", "the script takes records with windows and letters, not texts")
    return prediction


def _field(record: Mapping[str, Any], name: str) -> Any:
    if name not in record:
        raise OfficialError("KeyError", repr(name))
    return record[name]


def _overlaps(submission: Sequence[tuple[Row, Mapping[str, Any]]]) -> np.ndarray:
    firsts: list[Window] = []
    for row, record in submission:
        given = _field(record, WINDOWS)
        if not given or not row.windows:
            raise OfficialError("IndexError", "list index out of range")
        try:
            firsts.append((float(given[0][0]), float(given[0][1])))
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise OfficialError(type(error).__name__, str(error)) from error
    return first_window_overlaps(firsts, [row.windows for row, _ in submission])


def strict(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the figures of ``qa_grounding.strict_table``.

    The windows of a record are a ranking: the answer is the best by score, or the first if they have none.
    """
    return strict_table(rows, predictions, _halves)


def _halves(prediction: Any) -> Halves:
    halves = halves_of_record(prediction, LETTER, WINDOWS)
    return (
        replace(halves, windows=best_of_ranking(halves.windows))
        if isinstance(prediction, Mapping)
        else halves
    )


BENCHMARK = Benchmark(
    name="rextime",
    title="ReXTime",
    split="val",
    files=FILES,
    load=load,
    official={"rextime": official},
    strict=strict,
    read_predictions=read_predictions,
    joint=True,
)
