"""What the official scripts that compute in single precision make of segments: MUSEG, E.T. Bench, E.T. Chat, VideoMind.

All four compare true overlap over true union (``temporal_iou`` of nncore 0.4.5) in float32. An overlap is compared with
a threshold either as a float32 with the threshold rounded to float32 (tensors) or as the float64 it widens to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from timeloupe.eval.extractors.times import museg_answer
from timeloupe.eval.scoring import Predictions, Row, Scorer, Table, Window
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.grounding import Judgement, answered, score_table, segments_of

LEVELS = (0.1, 0.3, 0.5, 0.7)
RECALL_LEVELS = (0.3, 0.5, 0.7)
TOP = (1, 3, 5)


def temporal_overlap(ones: Sequence[Sequence[float]], twos: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the seconds that each pair of windows has in common: (len(ones), len(twos)) float32, >= 0."""
    first, second = _tensor(ones), _tensor(twos)
    with np.errstate(all="ignore"):
        ends = np.minimum(first[:, None, 1], second[None, :, 1])
        return np.maximum(ends - np.maximum(first[:, None, 0], second[None, :, 0]), np.float32(0))


def temporal_iou(ones: Sequence[Sequence[float]], twos: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the IoU of each pair of windows: (len(ones), len(twos)) float32; NaN for 0/0."""
    common = temporal_overlap(ones, twos)
    first, second = _tensor(ones), _tensor(twos)
    with np.errstate(all="ignore"):
        return common / ((first[:, 1] - first[:, 0])[:, None] + (second[:, 1] - second[:, 0]) - common)


def temporal_iop(ones: Sequence[Sequence[float]], twos: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the overlap over the length of the window of ``ones``: (len(ones), len(twos)) float32; NaN for 0/0."""
    first = _tensor(ones)
    with np.errstate(all="ignore"):
        return temporal_overlap(ones, twos) / (first[:, 1] - first[:, 0])[:, None]


# -- MUSEG -------------------------------------------------------------------------------------------------------------


def museg_segments(prediction: Any, *, tagged: bool) -> list[Window]:
    """Return MUSEG's segments of a reply: none at all if one is reversed or empty, or a number is left over.

    Args:
        prediction: A text, or windows.
        tagged: Whether the text is a whole reply, else it is the inside of the tags.
    """
    if isinstance(prediction, str) and tagged:
        prediction = museg_answer(prediction)
    found = segments_of(prediction, "MUSEG eval_grounding (on text already inside <answer>)")
    return found if all(start < end for start, end in found) else []


def museg_f1(truth: Sequence[Window], segments: Sequence[Window]) -> list[float]:
    """Return the F1 at IoU >= 0.1, 0.3, 0.5, 0.7 of one answer; a window may match many others."""
    if not segments:
        return [0.0] * len(LEVELS)
    table = temporal_iou(truth, segments)
    scores = []
    for level in map(np.float32, LEVELS):
        recall = float(np.mean(table.max(axis=1) >= level, dtype=np.float32))
        precision = float(np.mean(table.max(axis=0) >= level, dtype=np.float32))
        some = recall > 0 and precision > 0
        scores.append(2 * precision * recall / (precision + recall) if some else 0.0)
    return scores


def museg_stat(data: Sequence[tuple[Sequence[Window], Any]], kind: str) -> dict[str, float]:
    """Return what ``eval`` of MUSEG returns for (true windows, text or segments) pairs, in fractions.

    Source: THUNLP-MT/MUSEG@889565e7, src/eval_grounding.py:eval. Faults: one bad pair or a left-over number voids the
    whole answer; signs are ignored; ``tvg`` compares first with first only; ``tal`` matches without pairing.

    Args:
        data: One entry per question; the texts are the insides of answer tags.
        kind: ``tvg`` or ``tal``.

    Raises:
        OfficialError: No data, no true window, or another kind.
    """
    found = [(truth, museg_segments(prediction, tagged=False)) for truth, prediction in data]
    if any(segments and not truth for truth, segments in found):
        raise OfficialError("IndexError", "list index out of range")
    if kind not in ("tvg", "tal"):
        raise OfficialError("NotImplementedError")
    if not found:
        raise OfficialError("ZeroDivisionError", "division by zero")
    stat: dict[str, float] = {"tot": len(found)}
    if kind == "tal":
        scores = [museg_f1(truth, segments) for truth, segments in found]
        name, sums = "multi", [sum(score[at] for score in scores) for at in range(len(LEVELS))]
    else:
        ious = [museg_first_iou(truth, segments) for truth, segments in found]
        stat["m_iou"] = sum(ious) / len(found)
        name, sums = "single", [sum(iou >= level for iou in ious) for level in LEVELS]
    stat |= {f"f1_{name}_{level}": total / len(found) for level, total in zip(LEVELS, sums, strict=True)}
    stat[f"mean_f1_{name}"] = sum(sums) / len(found) / len(LEVELS)
    return stat


def museg_first_iou(truth: Sequence[Window], segments: Sequence[Window]) -> float:
    """Return the float32 IoU of the first segment and the first true window; 0 without a segment."""
    return float(temporal_iou(truth[:1], segments[:1])[0, 0]) if segments else 0.0


def museg_tvg(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return m_iou and f1_single_*, in fractions, of whole replies (``museg_stat``, kind tvg)."""
    return _museg("museg", "tvg", rows, predictions, tagged=True)


def museg_tvg_untagged(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the same with every text taken as the inside of answer tags."""
    return _museg("museg-untagged", "tvg", rows, predictions, tagged=False)


def museg_tal(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return f1_multi_*, in fractions, of whole replies (``museg_stat``, kind tal)."""
    return _museg("museg-tal", "tal", rows, predictions, tagged=True)


def _museg(script: str, kind: str, rows: Sequence[Row], predictions: Predictions, *, tagged: bool) -> Table:
    done = [
        (row, museg_segments(prediction, tagged=tagged)) for row, prediction in answered(rows, predictions)
    ]
    stat = museg_stat([(row.windows, segments) for row, segments in done], kind)
    judged = []
    for row, segments in done:
        scores = museg_f1(row.windows, segments)
        value = museg_first_iou(row.windows, segments) if kind == "tvg" else sum(scores) / len(scores)
        judged.append((row.id, value, not segments))
    return score_table(script, stat, "fraction", rows, judged)


# -- E.T. Bench and E.T. Chat ------------------------------------------------------------------------------------------


def judge_etbench(prediction: Any, windows: Sequence[Window]) -> Judgement:
    """E.T. Bench tvg: the first segment, turned round, against the first true window."""
    found = segments_of(prediction, "ETBench.tvg_format (all; first is scored for tvg/tem/gvq)")
    if not found:
        return None, 0.0
    return found[0], float(temporal_iou(_first(windows), found[:1])[0, 0])


def etbench_tvg(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return mIoU, F1@0.1 to 0.7 (which are recalls, >=) and their mean F1, in fractions of 5 decimals.

    Source: THUNLP-MT/MUSEG@889565e7, data/eval/et_bench/compute_metrics.py:tvg_eval, a copy of E.T. Bench's. Faults:
    ``A - B`` anywhere in the text, else ``A to B`` between blanks, else the first number of each sentence that has a
    keyword; 0/0 makes mIoU NaN.
    """
    done = answered(rows, predictions)
    if not done:
        raise OfficialError("ZeroDivisionError", "division by zero")
    judged = [judge_etbench(prediction, row.windows) for row, prediction in done]
    ious = [iou for _, iou in judged]
    recalls = [sum(iou >= level for iou in ious) / len(ious) for level in LEVELS]
    unread = sum(segment is None for segment, _ in judged)
    figures = {"Total": len(ious), "Failed": unread, "mIoU": round(sum(ious) / len(ious), 5)}
    figures |= {f"F1@{level}": round(recall, 5) for level, recall in zip(LEVELS, recalls, strict=True)}
    figures["F1"] = round(sum(recalls) / len(recalls), 5)
    items = [(row.id, iou, segment is None) for (row, _), (segment, iou) in zip(done, judged, strict=True)]
    return score_table("etbench", figures, "fraction", rows, items)


def etchat(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return R@0.3, 0.5, 0.7 (>=) and mIoU, in fractions of 3 decimals, and how many failed.

    Source: PolyU-ChenLab/ETBench@445f620e, etchat/eval/eval_grounding.py. It takes one window, which its model gives
    by matching and not in words: a text has none and fails, which counts as 0. 0/0 is 0.
    """
    done = answered(rows, predictions)
    if not done:
        raise OfficialError("ZeroDivisionError", "division by zero")
    items: list[tuple[str, float, bool]] = []
    for row, prediction in done:
        found = [] if isinstance(prediction, str) else segments_of(prediction, "")
        iou = float(temporal_iou(_first(row.windows), found)[0, 0]) if len(found) == 1 else 0.0
        items.append((row.id, iou if math.isfinite(iou) else 0.0, len(found) != 1))
    ious = [iou for _, iou, _ in items]
    shares = {f"R@{level}": sum(iou >= level for iou in ious) / len(ious) for level in RECALL_LEVELS}
    figures = {name: round(share, 3) for name, share in shares.items()}
    figures |= {"mIoU": round(sum(ious) / len(ious), 3), "Failed": sum(unread for _, _, unread in items)}
    return score_table("etchat", figures, "fraction", rows, items)


# -- VideoMind ---------------------------------------------------------------------------------------------------------


def videomind(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return R1, R3, R5 at IoU and IoP >= 0.3, 0.5, 0.7, mIoU and mIoP, in percent of 2 decimals.

    Source: yeliudev/VideoMind@6721d256, videomind/eval/eval_auto.py, default mode. It takes ranked windows, which its
    grounder gives: each is compared with its best true window; mIoU and mIoP are those of the first. 0/0 is 0. A text,
    or an empty list, ends the script.
    """
    done = answered(rows, predictions)
    ious = [_best(temporal_iou, prediction, row.windows) for row, prediction in done]
    iops = [_best(temporal_iop, prediction, row.windows) for row, prediction in done]
    figures: dict[str, float] = {"#Samples": len(done), "Failed": 0}
    for label, tables in (("IoU", ious), ("IoP", iops)):
        for top in TOP:
            for level in RECALL_LEVELS:
                hits = sum(bool(best[:top].max() >= np.float32(level)) for best in tables)
                figures[f"{label} R{top}@{level}"] = _percent(hits, len(done))
        figures[f"m{label}"] = _percent(sum(float(best[0]) for best in tables), len(done))
    items = [(row.id, float(best[0]), False) for (row, _), best in zip(done, ious, strict=True)]
    return score_table("videomind", figures, "percent", rows, items)


def _best(overlap: Any, prediction: Any, windows: Sequence[Window]) -> np.ndarray:
    """Overlap of each ranked window with its best true one, float32; what is not finite is 0."""
    if isinstance(prediction, str):
        raise OfficialError("TypeError", "new(): data must be a sequence (got str)")
    found = segments_of(prediction, "")
    if not found or not windows:
        raise OfficialError("IndexError", "too many indices for tensor of dimension 1")
    table = overlap(found, windows)
    return np.where(np.isfinite(table), table, np.float32(0)).max(axis=1)


def _percent(total: float, count: int) -> float:
    return float(f"{total / count * 100:.2f}") if count else 0.0


def _first(windows: Sequence[Window]) -> Sequence[Window]:
    if not windows:
        raise OfficialError("IndexError", "list index out of range")
    return windows[:1]


def _tensor(windows: Sequence[Sequence[float]]) -> np.ndarray:
    """Windows as (n, 2) float32; what is beyond its range is infinite."""
    with np.errstate(over="ignore"):
        return np.asarray([window[:2] for window in windows], dtype=np.float32).reshape(-1, 2)


OF_TEXTS: dict[str, Scorer] = {
    "museg": museg_tvg,
    "museg-untagged": museg_tvg_untagged,
    "etbench": etbench_tvg,
}
"""Short name -> scorer of texts with one true window."""

OF_WINDOWS: dict[str, Scorer] = {"etchat": etchat, "videomind": videomind}
"""Short name -> scorer of windows that a model gives otherwise than in words."""
