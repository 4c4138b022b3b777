"""What the official scripts of QVHighlights return: moment_detr's, and TimeSuite's copy of it for saliency alone.

jayleicn/moment_detr@b7e553ac standalone_eval/{eval,utils}.py. Deviations of both scorers: 1. ids are compared as texts;
2. an id may be there once (``read_predictions`` refuses repeats, the script pools their windows).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timeloupe.eval.detection import (
    average_precisions,
    first_window_overlaps,
    hits_at_one,
    ranked_average_precisions,
)
from timeloupe.eval.scoring import Predictions, Row, Table, Window
from timeloupe.eval.scripts.errors import OfficialError

CLIP_SECONDS = 2
MOST_WINDOWS = 10
LEVELS = tuple(float(f"{level:.2f}") for level in np.linspace(0.5, 0.95, 10))
RANGES = (("short", 0, 10), ("middle", 10, 30), ("long", 30, 150), ("full", 0, 150))
"""Name, and the lengths of true windows that are kept: more than the first, at most the second; ``full`` keeps all."""
GRADES = (("Fair", 2), ("Good", 3), ("VeryGood", 4))
_BRIEF = {
    "MR-full-R1@0.5": ("full", "MR-R1", "0.5"),
    "MR-full-R1@0.7": ("full", "MR-R1", "0.7"),
    "MR-full-mAP": ("full", "MR-mAP", "average"),
    "MR-full-mAP@0.5": ("full", "MR-mAP", "0.5"),
    "MR-full-mAP@0.75": ("full", "MR-mAP", "0.75"),
    "MR-long-mAP": ("long", "MR-mAP", "average"),
    "MR-middle-mAP": ("middle", "MR-mAP", "average"),
    "MR-short-mAP": ("short", "MR-mAP", "average"),
}

Submission = Sequence[tuple[Row, Mapping[str, Any]]]


def windows_of(prediction: Any) -> Any:
    """Return the windows of a record, or the prediction itself if it is a text or a list."""
    return prediction.get("pred_relevant_windows") if isinstance(prediction, Mapping) else prediction


def saliency(prediction: Any) -> Any:
    """Return the scores of the clips, or ``None`` if there are none."""
    return prediction.get("pred_saliency_scores") if isinstance(prediction, Mapping) else None


def moment_detr(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the figures of the authors' script, in percent with 2 decimals: ``brief`` flat, the others by part.

    R1: the first window of the list, not the best; the true window that it overlaps most; IoU over the hull, >=. mAP:
    the first 10 windows of the list by score, VOC, mean over the queries; ``short``, ``middle`` and ``long`` keep the
    true windows of that length, and queries that have one. HL: clips of two seconds, three annotators, grades of at
    least 2, 3, 4; Hit1 is right if any annotator gave the grade. Which parts are scored, the first record decides.

    Source: eval.py eval_submission. Faults: a query whose annotator gave no such grade has AP 0; a missing clip has the
    score 0, which may stand above others; a window of no length on a true one of no length is right.

    Raises:
        OfficialError: The ids are not those of the annotation (AssertionError), a query has no window (IndexError), a
            length has no query (TypeError), ...
    """
    if predictions.keys() != {row.id for row in rows}:
        raise OfficialError(
            "AssertionError",
            "qids in ground_truth and submission must match. "
            "use `match_number=False` if you wish to disable this check",
        )
    return _table("moment_detr", rows, _submission(rows, predictions))


def timesuite(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the same over the queries that both files have: OpenGVLab/TimeSuite@d68f5feb metrics/vhd/eval_vhd.py."""
    return _table("timesuite_vhd", rows, _submission(rows, predictions))


def clip_labels(row: Row) -> NDArray[np.float64]:
    """Return the grade (0 to 4) of each two-second clip by each annotator: (clips, 3).

    Raises:
        OfficialError: The annotation has no grades, or grades of clips beyond the video.
    """
    for name in ("duration", "relevant_clip_ids", "saliency_scores"):
        if name not in row.raw:
            raise OfficialError("KeyError", repr(name))
    grades = np.zeros((int(row.raw["duration"] / CLIP_SECONDS), 3))
    clips = row.raw["relevant_clip_ids"]
    if not clips:
        raise OfficialError("IndexError", "arrays used as indices must be of integer (or boolean) type")
    if max(clips) >= len(grades):
        raise OfficialError(
            "IndexError", f"index {max(clips)} is out of bounds for axis 0 with size {len(grades)}"
        )
    grades[clips] = row.raw["saliency_scores"]
    return grades


def _submission(rows: Sequence[Row], predictions: Predictions) -> Submission:
    """Return rows and records in the order of the predictions; a bare list is taken as the record's windows."""
    by_id = {row.id: row for row in rows}
    found: list[tuple[Row, Mapping[str, Any]]] = []
    for id, prediction in predictions.items():
        if id not in by_id:
            continue
        if isinstance(prediction, list):
            prediction = {"pred_relevant_windows": prediction}
        if not isinstance(prediction, Mapping):
            raise OfficialError("TypeError", "the script takes records with windows and scores, not texts")
        found.append((by_id[id], prediction))
    return found


def _table(script: str, rows: Sequence[Row], submission: Submission) -> Table:
    if not submission:
        raise OfficialError("IndexError", "list index out of range")
    brief: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    values: dict[str, float] = {}
    if "pred_relevant_windows" in submission[0][1]:
        parts |= _moments(submission, values)
        brief |= {name: parts[part][figure][level] for name, (part, figure, level) in _BRIEF.items()}
    if "pred_saliency_scores" in submission[0][1]:
        parts |= _highlights(submission)
        brief |= {
            f"HL-min-{name}-{figure}": parts[f"HL-min-{name}"][f"HL-{figure}"]
            for name, _ in GRADES
            for figure in ("mAP", "Hit1")
        }
    figures = brief | dict(sorted(parts.items()))
    missing = len(rows) - len(submission)
    failures = {"missing": missing} if missing else {}
    return Table(f"official:{script}", figures, "percent", len(submission), len(rows), failures, values)


def _moments(submission: Submission, values: dict[str, float]) -> dict[str, Any]:
    """Return the figures by range; puts the R1 overlap of each query into ``values``."""
    answers = {row.id: _answer(record) for row, record in submission}
    found: dict[str, Any] = {}
    for name, least, most in RANGES:
        truths: dict[str, list[Window]] = {}
        for row, _ in submission:
            keep = [one for one in row.windows if name == "full" or least < one[1] - one[0] <= most]
            if keep or name == "full":
                truths[row.id] = keep
        if not truths:
            raise OfficialError("TypeError", "'numpy.float64' object is not iterable")
        if not all(truths.values()):
            raise OfficialError("IndexError", "list index out of range")
        ranked = [answers[id] for id in truths]
        precisions = average_precisions(
            list(truths.values()), [windows[:MOST_WINDOWS] for windows in ranked], LEVELS
        )
        overlaps = first_window_overlaps([windows[0][:2] for windows in ranked], list(truths.values()))
        means = precisions.mean(axis=0)
        found[name] = {
            "MR-mAP": {str(level): _percent(mean) for level, mean in zip(LEVELS, means, strict=True)}
            | {"average": _percent(means.mean())},
            "MR-R1": {str(level): float(f"{np.mean(overlaps >= level) * 100:.2f}") for level in LEVELS},
        }
        if name == "full":
            values |= dict(zip(truths, overlaps.tolist(), strict=True))
    return found


def _answer(record: Mapping[str, Any]) -> list[tuple[float, float, float]]:
    if "pred_relevant_windows" not in record:
        raise OfficialError("KeyError", "'pred_relevant_windows'")
    windows = record["pred_relevant_windows"]
    try:
        found = [(window[0], window[1], window[2]) for window in windows[:MOST_WINDOWS]]
    except IndexError as error:
        raise OfficialError("IndexError", str(error)) from error
    except (TypeError, KeyError) as error:
        raise OfficialError("TypeError", str(error)) from error
    if not found:
        raise OfficialError("IndexError", "list index out of range")
    if not all(isinstance(number, int | float) for window in found for number in window):
        raise OfficialError("TypeError", "windows must hold numbers")
    return found


def _highlights(submission: Submission) -> dict[str, dict[str, float]]:
    precisions = np.zeros((len(submission), len(GRADES), 3))
    hits = np.zeros((len(submission), len(GRADES)))
    for at, (row, record) in enumerate(submission):
        grades = clip_labels(row)
        labels = np.concatenate([grades >= least for _, least in GRADES], axis=1)
        scores = _scores(record)
        in_time = np.zeros(len(labels))
        in_time[: len(scores)] = scores[: len(labels)]
        try:
            precisions[at] = ranked_average_precisions(labels, in_time).reshape(len(GRADES), 3)
        except ValueError as error:
            raise OfficialError("ValueError" if len(labels) else "AssertionError", str(error)) from error
        hits[at] = hits_at_one(labels, scores).reshape(len(GRADES), 3).any(axis=1)
    return {
        f"HL-min-{name}": {
            "HL-mAP": _percent(precisions[:, at].mean()),
            "HL-Hit1": _percent(hits[:, at].mean()),
        }
        for at, (name, _) in enumerate(GRADES)
    }


def _scores(record: Mapping[str, Any]) -> NDArray[np.float64]:
    if "pred_saliency_scores" not in record:
        raise OfficialError("KeyError", "'pred_saliency_scores'")
    try:
        scores = np.array(record["pred_saliency_scores"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise OfficialError(type(error).__name__, str(error)) from error
    if scores.ndim != 1 or not len(scores):
        raise OfficialError("ValueError", "attempt to get argmax of an empty sequence")
    return scores


def _percent(share: float | np.floating[Any]) -> float:
    return float(f"{100 * share:.2f}")
