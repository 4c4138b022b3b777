"""What the official scripts of temporal grounding make of texts and windows, fault for fault.

A prediction is the model's text, which each script reads with its own extractor, or a list of windows (one pair, or
``[start, end]`` pairs, best first), which it takes as read; an empty list is an answer that names nothing. Scripts
score a result file, so a row without a prediction is not in it and leaves the denominator (``num_scored`` says so).

The scripts in single precision are in ``scripts.grounding_tensors``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from timeloupe.eval.extractors import TIME_EXTRACTORS
from timeloupe.eval.scoring import Predictions, Row, Scorer, Table, Window
from timeloupe.eval.scripts.errors import OfficialError

Judgement = tuple[Window | None, float]
"""The one segment that a script scores, ``None`` where it reads none, and its IoU."""

Judge = Callable[[Any, Sequence[Window]], Judgement]
"""(prediction, true windows) -> what the script makes of them."""

THRESHOLDS = (0.3, 0.5, 0.7)

NOTHING_JUDGED: dict[str, float] = {"IOU@3": 0, "IOU@5": 0, "IOU@7": 0, "mIOU": 0}
"""What lmms-eval reports when there is nothing to report on."""


def answered(rows: Sequence[Row], predictions: Predictions) -> list[tuple[Row, Any]]:
    """Return the rows that have a prediction, with it, in order: what is in a script's result file."""
    return [(row, predictions[row.id]) for row in rows if predictions.get(row.id) is not None]


def segments_of(prediction: Any, extractor: str) -> list[Window]:
    """Return the segments that a script works on: read from a text with its extractor, else those given.

    Raises:
        OfficialError: The extractor raises on this text.
    """
    found = TIME_EXTRACTORS[extractor](prediction) if isinstance(prediction, str) else prediction
    if not found or found[0] is None or found[-1] is None:
        return []
    if isinstance(found[0], list | tuple):
        return [(pair[0], pair[1]) for pair in found]
    return [(found[0], found[1])]


def hull_iou(one: Window, two: Window, empty: Literal["zero", "nan", "raise"]) -> float:
    """Return the overlap over the hull, as all these scripts have it; a reversed segment overlaps nothing.

    Args:
        one: (start, end) seconds.
        two: The same.
        empty: What the script does where the hull has no length.

    Raises:
        OfficialError: The hull has no length and the script divides by it.
    """
    common = max(0.0, min(one[1], two[1]) - max(one[0], two[0]))
    hull = max(one[1], two[1]) - min(one[0], two[0])
    if hull == 0 or (hull < 0 and empty == "nan"):
        if empty == "raise":
            raise OfficialError("ZeroDivisionError", "float division by zero")
        return 0.0 if empty == "zero" else math.nan
    return common / hull


def score_table(
    script: str,
    figures: Mapping[str, Any],
    unit: Literal["fraction", "percent"],
    rows: Sequence[Row],
    judged: Iterable[tuple[str, float, bool]],
) -> Table:
    """Return the table of a script.

    Args:
        script: Its short name.
        figures: Its figures, under its own names.
        unit: What they are in.
        rows: All rows of the benchmark.
        judged: Of each scored row: id, value, whether nothing was read. A value that is NaN is left out.
    """
    judged = list(judged)
    counts = {"missing": len(rows) - len(judged), "unparsed": sum(unread for _, _, unread in judged)}
    values = {id: float(value) for id, value, _ in judged if math.isfinite(value)}
    failures = {why: count for why, count in counts.items() if count}
    return Table(f"official:{script}", figures, unit, len(judged), len(rows), failures, values)


# -- what each script makes of one prediction --------------------------------------------------------------------------


def judge_taro(prediction: Any, windows: Sequence[Window]) -> Judgement:
    """TaRO: the last two numbers of the text, in order; the best of the true windows; 0 where the hull is empty."""
    found = segments_of(prediction, "TaRO.extract_time")
    if not found:
        return None, 0.0
    return found[0], max((hull_iou(window, found[0], "zero") for window in windows), default=0.0)


def judge_time_r1(prediction: Any, windows: Sequence[Window]) -> Judgement:
    """Time-R1: the last ``A to B`` or ``A and B``, not turned round; the first true window; NaN for an empty hull."""
    found = segments_of(prediction, "TimeR1.extract_answer(tg)")
    return (found[0], hull_iou(found[0], windows[0], "nan")) if found else (None, 0.0)


def judge_videotemp(prediction: Any, windows: Sequence[Window]) -> Judgement:
    """VideoTemp-o3: the first two numbers, a hyphen before one is its sign, not turned round; NaN for an empty hull."""
    found = segments_of(prediction, "VideoTemp-o3 score.py (first two numbers)")
    return (found[0], hull_iou(found[0], windows[0], "nan")) if found else (None, 0.0)


def judge_timelens(prediction: Any, windows: Sequence[Window]) -> Judgement:
    """TimeLens: the first pair, not turned round; no pair is (-100, -100), which overlaps nothing."""
    found = segments_of(prediction, "TimeLens.extract_time (all pairs; first is scored)")
    return (found[0] if found else None), hull_iou(windows[0], found[0] if found else (-100, -100), "raise")


def judge_lmms_timelens(prediction: Any, windows: Sequence[Window]) -> Judgement:
    """TimeLens in lmms-eval: the same reading, but an empty hull is 0."""
    found = segments_of(prediction, "lmms-eval timelens.extract_time (all pairs; first is scored)")
    return (found[0], hull_iou(found[0], windows[0], "zero")) if found else (None, 0.0)


def judge_lmms(prediction: Any, windows: Sequence[Window]) -> Judgement:
    """Charades-STA in lmms-eval: the first segment, turned round; whatever goes wrong is 0."""
    try:
        found = segments_of(prediction, "lmms-eval HEAD charades_sta.utils.extract_time")
    except OfficialError:
        found = []
    return (found[0], hull_iou(windows[0], found[0], "zero")) if found and windows else (None, 0.0)


def judge_lmms_tvg(prediction: Any, windows: Sequence[Window]) -> Judgement:
    """``eval_tvg.py`` of lmms-eval: no segment is one 10 to 20 s behind the true one."""
    found = segments_of(prediction, "lmms-eval charades_sta/eval_tvg.extract_time")
    end = windows[0][1]
    guess = found[0] if found else (end + 10, end + 20)
    return (found[0] if found else None), hull_iou(windows[0], guess, "raise")


def judge_timesuite(prediction: Any, windows: Sequence[Window]) -> Judgement:
    """TimeChat and TimeSuite: the first segment, turned round; without one the row is passed over, which counts 0."""
    found = segments_of(prediction, "TimeChat/TimeSuite.format_tvg.extract_time")
    return (found[0], hull_iou(windows[0], found[0], "raise")) if found else (None, 0.0)


# -- the scripts -------------------------------------------------------------------------------------------------------


def taro(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return mIoU and Recall@0.3, 0.5, 0.7 (>=), in fractions.

    Source: oceanflowlab/TaRO@143a234f, standalone_eval/evaluate_vtg.py. Faults: the two last numbers of all the text
    are taken, also those of a reasoning; signs and clock forms are not known. Without any result it prints no figures.
    """
    done = answered(rows, predictions)
    judged = [judge_taro(prediction, row.windows) for row, prediction in done]
    ious = [iou for _, iou in judged]
    figures: dict[str, float | int | None] = {"mIoU": _mean(ious)}
    figures |= {f"Recall@{level}": _mean([float(iou >= level) for iou in ious]) for level in THRESHOLDS}
    figures["total_samples"] = len(ious)
    return score_table("taro", figures, "fraction", rows, _judged(done, judged))


def time_r1(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return mIoU, R@0.3, 0.5, 0.7 (>, not >=) and their mean ``avg``, in percent.

    Source: xiaomi-research/time-r1@7f2b5944, evaluate.py:extract_answer, src/vllm_inference/eval_all.py. Faults: only
    `A to B` and `A and B` are read, units between the numbers hide them; 0/0 makes mIoU NaN; of rows with one id the
    last stands.
    """
    last = {row.id: (row, prediction) for row, prediction in answered(rows, predictions)}
    done = list(last.values())
    judged = [judge_time_r1(prediction, _windows(row)) for row, prediction in done]
    ious = [iou for _, iou in judged]
    figures: dict[str, Any] = _strictly_above(ious) if ious else {"mIoU": None, "avg": None}
    return score_table("time-r1", figures, "percent", rows, _judged(done, judged))


def timelens(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return IOU 0.3, 0.5, 0.7 (>=) and mIOU, in percent.

    Source: TencentARC/TimeLens@5d90c067, evaluation/compute_metrics.py, timelens/utils.py; keys and query form of
    evaluation/eval_dataloader.py. Faults: `8.50s` is read 8.0 (a word boundary is wanted before the unit); reversed
    segments are 0; rows that agree in video, query and span count once. (The inference script rounds the times of its
    own predictions to whole seconds; here they are taken as they are.)
    """
    keyed = by_key(rows, predictions, cleaned=True)
    judged = _of_split_keys(keyed, judge_timelens)
    return score_table("timelens", _percents(judged, "IOU {}"), "percent", rows, _of_keys(keyed, judged))


def lmms_timelens(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return IOU@3, IOU@5, IOU@7 (>=) and mIOU, in percent.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe, lmms_eval/tasks/timelens/utils.py. Fault: a row that raises (no true
    window, a text its extractor chokes on) is passed over and leaves the denominator.
    """
    keyed = by_key(rows, predictions, cleaned=True)
    judged: dict[str, Judgement] = {}
    for key, (row, prediction) in keyed.items():
        try:
            judged[key] = judge_lmms_timelens(prediction, _windows(row))
        except OfficialError:
            continue
    figures = _percents(judged, "IOU@{}") if judged else NOTHING_JUDGED
    return score_table("lmms-eval-timelens", figures, "percent", rows, _of_keys(keyed, judged))


def lmms(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return IOU@3, IOU@5, IOU@7 (>=) and mIOU, in percent.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe, lmms_eval/tasks/charades_sta/utils.py. Faults: every "to" becomes "-"
    before reading, also inside words; rows that agree in video, caption and timestamp count once.
    """
    keyed = by_key(rows, predictions, cleaned=False)
    judged = {key: judge_lmms(prediction, row.windows) for key, (row, prediction) in keyed.items()}
    figures = _percents(judged, "IOU@{}") if judged else NOTHING_JUDGED
    return score_table("lmms-eval", figures, "percent", rows, _of_keys(keyed, judged))


def lmms_tvg(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return IOU 0.3, 0.5, 0.7 (>=) and mIOU, in percent.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe, lmms_eval/tasks/charades_sta/eval_tvg.py. Faults: times are looked
    for only in sentences with "start", "end" or "happen"; an empty hull ends the script; so does ">>>" in a query.
    """
    keyed = by_key(rows, predictions, cleaned=False)
    judged = _of_split_keys(keyed, judge_lmms_tvg)
    return score_table("lmms-eval-tvg", _percents(judged, "IOU {}"), "percent", rows, _of_keys(keyed, judged))


def timesuite(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return IOU 0.3, 0.5, 0.7 (>=), in percent; ends with AssertionError unless every row has a prediction.

    Source: OpenGVLab/TimeSuite@d68f5feb, metrics/tvg/eval_tvg.py and eval/format_tvg.py, which are TimeChat's. Faults:
    ``A to B`` is not known; no mIoU; the sample sentence of the prompt is meant to be removed and is not.
    """
    if len({row.id for row in rows}) != len(predictions):
        raise OfficialError("AssertionError")
    return timesuite_sample(rows, predictions)


def timesuite_sample(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the same over the rows that have a prediction, as ``--sample`` does."""
    known = {row.id for row in rows}
    for id in predictions:
        if id not in known:
            raise OfficialError("KeyError", str(id))
    done = answered(rows, predictions)
    judged = [judge_timesuite(prediction, _windows(row)) for row, prediction in done]
    percents = _percents(dict(enumerate(judged)), "IOU {}")
    figures = {name: value for name, value in percents.items() if name != "mIOU"}
    return score_table("timesuite", figures, "percent", rows, _judged(done, judged))


PARTS = ("<3min", "3-10min", "10-20min", ">20min")
PART_ENDS = (180, 600, 1200, math.inf)


def videotemp(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return mIoU, R@0.3, 0.5, 0.7 (>, not >=) and their mean ``Avg``, of all rows and by length, in percent.

    Source: VideoTemp-o3 eval/score.py videotemp-g (public text index, id 55399981111). Rounded to 2 decimals as it
    prints them. Faults: a hyphen glued to the second number makes it negative; 0/0 makes mIoU NaN; a length without
    rows ends the script, so it cannot score Charades-STA alone.
    """
    done = answered(rows, predictions)
    judged = [judge_videotemp(prediction, _windows(row)) for row, prediction in done]
    figures: dict[str, float] = {}
    for label, found in videotemp_parts([row for row, _ in done], [iou for _, iou in judged]):
        start = "" if label == "Total" else f"{label} "
        figures |= {f"{start}{name}": float(f"{value:.2f}") for name, value in found.items()}
    return score_table("videotemp-o3", figures, "percent", rows, _judged(done, judged))


def videotemp_parts(rows: Sequence[Row], ious: Sequence[float]) -> Iterable[tuple[str, dict[str, float]]]:
    """Yield the figures of each length and of all rows in the order of printing, unrounded, until the script ends.

    Raises:
        OfficialError: A length has no rows, or a row has no duration.
    """
    if any(row.duration_seconds is None for row in rows):
        raise OfficialError("KeyError", "'duration'")
    parts: dict[str, list[float]] = {label: [] for label in (*PARTS, "Total")}
    for row, iou in zip(rows, ious, strict=True):
        parts[part_of(row.duration_seconds or 0.0)].append(iou)
        parts["Total"].append(iou)
    for label, some in parts.items():
        if not some:
            raise OfficialError("ZeroDivisionError", "division by zero")
        found = _strictly_above(some)
        yield label, {("Avg" if name == "avg" else name): value for name, value in found.items()}


def part_of(duration_seconds: float) -> str:
    """Return which of VideoTemp-Bench's lengths a video has."""
    return next(label for label, end in zip(PARTS, PART_ENDS, strict=True) if duration_seconds < end)


# -- what they share ---------------------------------------------------------------------------------------------------


def by_key(rows: Sequence[Row], predictions: Predictions, *, cleaned: bool) -> dict[str, tuple[Row, Any]]:
    """Return rows and predictions by ``video>>>query>>>windows``, of equal keys the last prediction.

    Args:
        rows: The questions.
        predictions: By row id.
        cleaned: Whether the key has the bare file name and the cleaned query, else both as in the annotation.
    """
    keyed: dict[str, tuple[Row, Any]] = {}
    for row, prediction in answered(rows, predictions):
        video = PurePosixPath(row.video).name if cleaned else row.video
        query = plain_query(row.question) if cleaned else row.question
        keyed[f"{video}>>>{query}>>>{[list(window) for window in row.windows]}"] = (row, prediction)
    return keyed


def _of_split_keys(keyed: Mapping[str, tuple[Row, Any]], judge: Judge) -> dict[str, Judgement]:
    """Judge one key after the other, as scripts do that split keys at ">>>" and cannot when a query has the mark."""
    judged: dict[str, Judgement] = {}
    for key, (row, prediction) in keyed.items():
        if key.count(">>>") != 2:
            raise OfficialError("ValueError", "too many values to unpack (expected 3)")
        judged[key] = judge(prediction, _windows(row))
    return judged


def plain_query(query: str) -> str:
    """Return a query as TimeLens writes it: single blanks, no full stops around it."""
    return re.sub(r"\s+", " ", query).strip().strip(".").strip()


def _windows(row: Row) -> Sequence[Window]:
    """The row's windows where the script needs one."""
    if not row.windows:
        raise OfficialError("IndexError", "list index out of range")
    return row.windows


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _strictly_above(ious: Sequence[float]) -> dict[str, float]:
    """mIoU, the shares above the thresholds, and the mean of the four, in percent."""
    figures = {"mIoU": sum(ious) / len(ious) * 100}
    figures |= {f"R@{level}": sum(iou > level for iou in ious) / len(ious) * 100 for level in THRESHOLDS}
    return figures | {"avg": sum(figures.values()) / len(figures)}


def _percents(judged: Mapping[Any, Judgement], name: str) -> dict[str, float]:
    """The shares at the thresholds and mIOU, in percent; ``name`` with ``@`` counts thresholds in tenths."""
    if not judged:
        raise OfficialError("ZeroDivisionError", "division by zero")
    ious = [iou for _, iou in judged.values()]
    labels = [round(level * 10) if "@" in name else level for level in THRESHOLDS]
    figures = {
        name.format(label): sum(iou >= level for iou in ious) * 100 / len(ious)
        for label, level in zip(labels, THRESHOLDS, strict=True)
    }
    return figures | {"mIOU": sum(ious) * 100 / len(ious)}


def _judged(
    done: Sequence[tuple[Row, Any]], judged: Sequence[Judgement]
) -> Iterable[tuple[str, float, bool]]:
    return ((row.id, iou, segment is None) for (row, _), (segment, iou) in zip(done, judged, strict=True))


def _of_keys(
    keyed: Mapping[str, tuple[Row, Any]], judged: Mapping[str, Judgement]
) -> Iterable[tuple[str, float, bool]]:
    return ((keyed[key][0].id, iou, segment is None) for key, (segment, iou) in judged.items())


OF_TEXTS: dict[str, Scorer] = {
    "taro": taro,
    "time-r1": time_r1,
    "timelens": timelens,
    "lmms-eval": lmms,
    "lmms-eval-tvg": lmms_tvg,
    "timesuite": timesuite,
    "timesuite-sample": timesuite_sample,
    "videotemp-o3": videotemp,
}
"""Short name -> scorer of grounding with one true window."""
