"""QVHighlights (Lei et al. 2021): moments that a sentence describes, and how striking each two-second clip is.

A prediction is a record of the authors' layout (``pred_relevant_windows`` as [start, end, score] in the order of the
file, ``pred_saliency_scores`` as one score per clip), the list of windows alone, or a model's text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timeloupe.eval import strict as strictly
from timeloupe.eval.detection import average_precisions, hits_at_one, ranked_average_precisions
from timeloupe.eval.files.records import Record, existing, read_records
from timeloupe.eval.files.windows import (
    best_of_ranking,
    each_once,
    finite,
    is_number,
    numbers,
    scored_windows,
    windows,
)
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Scorer, Table
from timeloupe.eval.scripts.grounding import taro, time_r1
from timeloupe.eval.scripts.grounding_tensors import etchat, museg_tal, videomind
from timeloupe.eval.scripts.qvhighlights import (
    clip_labels,
    moment_detr,
    saliency,
    timesuite,
    windows_of,
)
from timeloupe.grounding import tiou

FILES = "highlight_val_release.jsonl of jayleicn/moment_detr, or the copy of it in oceanflowlab/TaRO"
AP_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
R1_THRESHOLDS = (0.5, 0.7)
VERY_GOOD = 4


def load(path: Path) -> list[Row]:
    """Return the rows of a file of JSON lines, or of a JSON list of the same records.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid (the message names the line and the field), or ids repeat.
    """
    return [_row(record) for record in each_once(read_records(existing(path, FILES)), "qid").values()]


def _row(record: Record) -> Row:
    if not record.has("relevant_windows"):
        raise record.fault("relevant_windows", "is missing: a test file without labels cannot be scored")
    if record.has("saliency_scores"):
        _check_saliency(record)
    return Row(
        id=record.text("qid"), video=record.text("vid"), question=record.text("query"), task="multi_segment",
        windows=windows(record, "relevant_windows"), duration_seconds=finite(record, "duration"),
        raw=record.fields,
    )  # fmt: skip


def _check_saliency(record: Record) -> None:
    """Check that there are three grades for each relevant clip.

    Raises:
        RecordError: There are not.
    """
    scores, clips = record.value("saliency_scores"), record.value("relevant_clip_ids")
    if not isinstance(clips, list) or not all(type(clip) is int and clip >= 0 for clip in clips):
        raise record.fault("relevant_clip_ids", f"must be a list of clip numbers, got {clips!r:.80}")
    graded = isinstance(scores, list) and len(scores) == len(clips)
    if not graded or not all(_is_grades(one) for one in scores):
        raise record.fault("saliency_scores", f"must hold three grades per relevant clip, got {scores!r:.80}")


def _is_grades(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(is_number, value))


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the records of a submission by ``qid``: JSON lines as moment_detr has them, or TimeSuite's JSON list.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid, or ids repeat.
    """
    del rows
    found = each_once(read_records(path), "qid")
    for record in found.values():
        if not (record.has("pred_relevant_windows") or record.has("pred_saliency_scores")):
            raise record.fault("pred_relevant_windows", "is missing, and pred_saliency_scores too")
        if record.has("pred_relevant_windows"):
            scored_windows(record, "pred_relevant_windows")
        if record.has("pred_saliency_scores"):
            numbers(record, "pred_saliency_scores")
    return {id: record.fields for id, record in found.items()}


def strict(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return moment retrieval and highlights as a user means them, in fractions.

    ``mIoU`` and ``F1`` are those of ``strict.multi_segment``; of a record's windows, which are a ranking, only the best
    is the answer there (the first if they have no scores), of a text or a plain list all are. ``R1@m``: the answer's
    first window reaches IoU m with some true window. ``mAP``: all windows, cut at the video's ends, by falling score
    (those of a text in its order), each true window found once. ``HL`` is the script's for very good clips, but a clip
    without a score stands last, one too many is left out, annotators who call no clip very good are left out, and a
    query without any such clip is unscored. Figures of a part that no prediction has are ``None``.
    """
    firsts = {row.id: _answer(predictions.get(row.id)) for row in rows}
    has_windows = any(first is not None for first in firsts.values())
    has_saliency = any(saliency(predictions.get(row.id)) is not None for row in rows)
    failures: Counter[str] = Counter()
    names = ("mIoU", *(f"R1@{level}" for level in R1_THRESHOLDS), "mAP", "HL-mAP", "HL-Hit1")
    figures: dict[str, float | None] = dict.fromkeys(names)
    values: Mapping[str, float] = {}
    num_scored = len(rows)
    if has_windows or not has_saliency:
        table = strictly.multi_segment(rows, firsts)
        num_scored, values = table.num_scored, table.values
        failures.update(table.failures)
        figures |= {**table.figures, **_recalls(rows, firsts), **_mean_precisions(rows, predictions)}
    if has_saliency:
        hits = _highlights(rows, predictions, figures, failures)
        if not has_windows:
            num_scored, values = len(hits), hits
    return Table("strict", figures, "fraction", num_scored, len(rows), dict(failures), values)


def _answer(prediction: Any) -> Any:
    windows = windows_of(prediction)
    return best_of_ranking(windows) if isinstance(prediction, Mapping) else windows


def _recalls(rows: Sequence[Row], firsts: Predictions) -> dict[str, float | None]:
    best: list[float] = []
    for row in rows:
        truth = strictly.cut(row.windows, row.duration_seconds)
        if truth:
            answer, _ = strictly.read_windows(firsts[row.id], row)
            best.append(max((tiou(answer[0], one) for one in truth), default=0.0) if answer else 0.0)
    means = {
        level: sum(iou >= level for iou in best) / len(best) if best else None for level in R1_THRESHOLDS
    }
    return {f"R1@{level}": mean for level, mean in means.items()}


def _mean_precisions(rows: Sequence[Row], predictions: Predictions) -> dict[str, float | None]:
    truths = [strictly.cut(row.windows, row.duration_seconds) for row in rows]
    ranked = [_ranked(row, windows_of(predictions.get(row.id))) for row in rows]
    usable = [at for at, truth in enumerate(truths) if truth]
    if not usable:
        return {"mAP": None, "mAP@0.5": None, "mAP@0.75": None}
    table = average_precisions([truths[at] for at in usable], [ranked[at] for at in usable], AP_THRESHOLDS)
    by_level = dict(zip(AP_THRESHOLDS, table.mean(axis=0).tolist(), strict=True))
    return {"mAP": float(table.mean()), "mAP@0.5": by_level[0.5], "mAP@0.75": by_level[0.75]}


def _ranked(row: Row, given: Any) -> list[tuple[float, float, float]]:
    """Return windows within the video with their scores; of a text or without scores, earlier ones score higher."""
    if isinstance(given, list):
        scored = all(isinstance(window, list | tuple) and len(window) > 2 for window in given)
        pieces = [
            (strictly.read_windows([window], row)[0], window[2] if scored else -place)
            for place, window in enumerate(given)
        ]
        return [(*span[0], float(score)) for span, score in pieces if span and is_number(score)]
    spans, _ = strictly.read_windows(given, row)
    return [(*span, -float(place)) for place, span in enumerate(spans)]


def _highlights(
    rows: Sequence[Row],
    predictions: Predictions,
    figures: dict[str, float | None],
    failures: Counter[str],
) -> dict[str, float]:
    """Put the figures of highlights in, and return by row id whether the best clip is very good."""
    precisions: list[float] = []
    hits: dict[str, float] = {}
    for row in rows:
        labels = (
            clip_labels(row) >= VERY_GOOD
            if row.raw.get("relevant_clip_ids")
            else np.zeros((1, 3), dtype=bool)
        )
        labels = labels[:, labels.any(axis=0)]
        if not labels.size:
            failures["highlight label_unusable"] += 1
            continue
        scores = _clip_scores(saliency(predictions.get(row.id)), len(labels))
        if scores is None:
            failures["highlight missing"] += 1
            precisions.append(0.0)
            hits[row.id] = 0.0
            continue
        precisions.append(float(ranked_average_precisions(labels, scores).mean()))
        hits[row.id] = float(hits_at_one(labels, scores).any())
    figures["HL-mAP"] = sum(precisions) / len(hits) if hits else None
    figures["HL-Hit1"] = sum(hits.values()) / len(hits) if hits else None
    return hits


def _clip_scores(given: Any, num_clips: int) -> NDArray[np.float64] | None:
    """Return one score per clip, or ``None`` if there are none; clips without one stand behind all others."""
    if not isinstance(given, list) or not given or not all(map(is_number, given)):
        return None
    scores = np.array(given[:num_clips], dtype=np.float64)
    return np.append(scores, np.full(num_clips - len(scores), scores.min() - 1))


def _of_windows(script: Scorer, most: int | None = None) -> Scorer:
    """Return a script of temporal grounding that takes the windows of a record, or the first ``most`` of them."""

    def scorer(rows: Sequence[Row], predictions: Predictions) -> Table:
        given = {id: windows_of(prediction) for id, prediction in predictions.items()}
        return script(rows, {id: one[:most] if isinstance(one, list) else one for id, one in given.items()})

    return scorer


BENCHMARK = Benchmark(
    name="qvhighlights",
    title="QVHighlights",
    split="val (or test, whose labels the authors released later)",
    files=FILES,
    load=load,
    official={
        "moment_detr": moment_detr,
        "timesuite_vhd": timesuite,
        "taro": _of_windows(taro),
        "time-r1": _of_windows(time_r1),
        "museg-tal": _of_windows(museg_tal),
        "etchat": _of_windows(etchat, most=1),
        "videomind": _of_windows(videomind),
    },
    strict=strict,
    read_predictions=read_predictions,
)
