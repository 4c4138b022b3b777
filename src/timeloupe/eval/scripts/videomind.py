"""What VideoMind's eval_auto.py prints: ranked windows and letters by task, in its default and its CG-Bench mode.

Source: yeliudev/VideoMind@6721d256 videomind/eval/eval_auto.py. Overlaps are float32 and compared with thresholds in
float32, as torch does. A sample is a record of the script's own output: ``pred`` (ranked windows), ``conf``, ``span``
(true windows), ``response``, ``options``, ``ans``, ``task`` (one or several), and perhaps ``pred_ori``, ``conf_ori``,
``grounder_success``. It is scored in what it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from timeloupe.eval.extractors.letters_check import videomind as check_letter
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.grounding_tensors import temporal_iop, temporal_iou, temporal_overlap

Sample = Mapping[str, Any]

ALL = "all"
HALF = 0.5


@dataclass(frozen=True)
class Mode:
    """How samples are scored.

    Attributes:
        tops: How many of the ranked windows count.
        levels: Thresholds, >=.
        by_area: Whether the IoU is that of all kept windows with all true ones (their lengths added up), as for
            CG-Bench, not of pairs.
        confidence: With ``by_area``: keep the windows of more confidence, and the first; 0 or less keeps the first.
    """

    tops: tuple[int, ...] = (1, 3, 5)
    levels: tuple[float, ...] = (0.3, HALF, 0.7)
    by_area: bool = False
    confidence: float = -1.0


DEFAULT = Mode()


def cgbench_mode(confidence: float = -1.0) -> Mode:
    """Return the mode for CG-Bench; ``confidence`` is ``--conf_thr``."""
    return Mode(tops=(1,), levels=(0.1, 0.2, 0.3, 0.4, HALF), by_area=True, confidence=confidence)


@dataclass
class Tally:
    """Sums over the samples of a task; ``hits`` by (how many windows, threshold), ``right_at`` by threshold."""

    samples: int = 0
    failed: int = 0
    hits: dict[tuple[int, float], int] = field(default_factory=dict)
    total: float = 0.0
    right: int = 0
    right_and_iou: int = 0
    right_and_iop: int = 0
    right_at: dict[float, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """What a sample comes to; ``iou`` and ``iop`` are of each ranked window, float32, or ``None`` without windows."""

    iou: np.ndarray | None
    iop: np.ndarray | None
    right: bool | None
    answered: bool


def tables(samples: Sequence[Sample], mode: Mode = DEFAULT) -> dict[str, dict[str, dict[str, float]]]:
    """Return the script's tables: title -> task (and ``all``) -> column -> value, percent with 2 decimals.

    Titles and columns are those that it prints; lines such as ``IoU Raise`` are under the title ``Change`` by their
    own name with ``count`` and ``percent``.

    Raises:
        OfficialError: A sample has no window or no confidence to keep windows by (IndexError), an answer is empty
            (IndexError), or a field is missing (KeyError).
    """
    tallies: dict[str, dict[str, Tally]] = {"IoU": {}, "IoP": {}, "QA": {}}
    change: dict[str, int] = dict.fromkeys(("IoU Raise", "IoU Lower", "IoP Raise", "IoP Lower"), 0)
    for sample in samples:
        tasks = sample.get("task", "unknown")
        names = [tasks] if isinstance(tasks, str) else list(tasks)
        for table in tallies.values():
            for name in (*names, ALL):
                table.setdefault(name, Tally())
        judged = judge(sample, mode)
        _count_change(sample, judged, mode, change)
        _count(sample, judged, mode, names, tallies)
    for table in tallies.values():
        table.setdefault(ALL, Tally())
    return _printed(tallies, change, mode)


def judge(sample: Sample, mode: Mode) -> Judged:
    """Return what one sample comes to."""
    iou = iop = None
    if "pred" in sample and "conf" in sample and "span" in sample:
        iou = _iou(sample["pred"], sample["span"], sample["conf"], mode)
        iop = _finite(_best(temporal_iop, sample["pred"], sample["span"]))
    answered = "question" in sample and "response" in sample
    right = None
    if answered:
        for name in ("options", "ans"):
            if name not in sample:
                raise OfficialError("KeyError", repr(name))
        right = check_letter(sample["response"], sample["ans"], len(sample["options"]))
    return Judged(iou, iop, right, answered)


def _iou(windows: Any, truth: Any, confidences: Any, mode: Mode) -> np.ndarray:
    if not mode.by_area:
        return _finite(_best(temporal_iou, windows, truth))
    _check(windows, truth)
    kept = [windows[at] for at in _kept(windows, confidences, mode.confidence)]
    common = temporal_overlap(kept, truth).sum(dtype=np.float32)
    with np.errstate(all="ignore"):
        area = _lengths(kept) + _lengths(truth) - common
        return _finite(np.array([common / area], dtype=np.float32))


def _kept(windows: Any, confidences: Any, least: float) -> list[int]:
    if least <= 0:
        return [0]
    above = np.flatnonzero(np.asarray(confidences, dtype=np.float32) > np.float32(least)).tolist()
    if above and above[-1] >= len(windows):
        raise OfficialError("IndexError", f"index {above[-1]} is out of bounds")
    return sorted({0, *above})


def _best(overlaps: Callable[[Any, Any], np.ndarray], windows: Any, truth: Any) -> np.ndarray:
    _check(windows, truth)
    return _finite(overlaps(windows, truth)).max(axis=1)


def _check(windows: Any, truth: Any) -> None:
    if not windows or not truth:
        raise OfficialError("IndexError", "too many indices for tensor of dimension 1")


def _lengths(windows: Any) -> np.float32:
    table = np.asarray([window[:2] for window in windows], dtype=np.float32)
    return (table[:, 1] - table[:, 0]).sum(dtype=np.float32)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.float32(0))


def _count_change(sample: Sample, judged: Judged, mode: Mode, change: dict[str, int]) -> None:
    """Count whether the verifier's choice is better than the grounder's own first window."""
    if sample.get("pred_ori") is None or judged.iou is None or judged.iop is None:
        return
    if "conf_ori" not in sample:
        raise OfficialError("KeyError", "'conf_ori'")
    before = {
        "IoU": _iou(sample["pred_ori"], sample["span"], sample["conf_ori"], mode)[0],
        "IoP": _best(temporal_iop, sample["pred_ori"], sample["span"])[0],
    }
    after = {"IoU": judged.iou[0], "IoP": judged.iop[0]}
    for name in before:
        change[f"{name} Raise"] += bool(before[name] < after[name])
        change[f"{name} Lower"] += bool(before[name] > after[name])


def _count(
    sample: Sample, judged: Judged, mode: Mode, tasks: Sequence[str], tallies: Mapping[str, dict[str, Tally]]
) -> None:
    failed = not sample.get("grounder_success", True)
    for name, overlaps in (("IoU", judged.iou), ("IoP", judged.iop)):
        if overlaps is None:
            continue
        for task in (*tasks, ALL):
            tally = tallies[name][task]
            tally.samples += 1
            tally.failed += failed
            tally.total += float(overlaps[0])
            for top in mode.tops:
                for level in mode.levels:
                    hit = _reaches(overlaps[:top], level)
                    tally.hits[top, level] = tally.hits.get((top, level), 0) + hit
    if not judged.answered:
        return
    first_iou = None if judged.iou is None else judged.iou[:1]
    first_iop = None if judged.iop is None else judged.iop[:1]
    for task in (*tasks, ALL):
        tally = tallies["QA"][task]
        tally.samples += 1
        tally.failed += judged.right is None
        if judged.right:
            tally.right += 1
            tally.right_and_iou += _reaches(first_iou, HALF)
            tally.right_and_iop += _reaches(first_iop, HALF)
            for level in mode.levels:
                tally.right_at[level] = tally.right_at.get(level, 0) + _reaches(first_iou, level)


def _reaches(overlaps: np.ndarray | None, level: float) -> bool:
    return overlaps is not None and bool(overlaps.max() >= np.float32(level))


def _printed(
    tallies: Mapping[str, Mapping[str, Tally]], change: Mapping[str, int], mode: Mode
) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in ("IoU",) if mode.by_area else ("IoU", "IoP"):
        columns: dict[str, dict[str, float]] = {}
        for task, tally in tallies[name].items():
            columns[task] = {"#Samples": tally.samples, "Failed": tally.failed}
            for (top, level), hits in tally.hits.items() or dict.fromkeys(_places(mode), 0).items():
                columns[task][f"R{top}@{level}"] = _percent(hits, tally)
            columns[task][f"m{name}"] = _percent(tally.total, tally)
            if mode.by_area:
                columns[task]["rec.@IoU"] = _mean_percent(
                    [tally.hits.get((1, level), 0) for level in mode.levels], tally
                )
        found[f"Grounding ({name})"] = columns
        total = tallies[name][ALL]
        for way in ("Raise", "Lower"):
            count = change[f"{name} {way}"]
            found.setdefault("Change", {})[f"{name} {way}"] = {
                "count": count,
                "percent": _percent(count, total),
            }
    found["QA"] = {}
    for task, tally in tallies["QA"].items():
        row: dict[str, float] = {"#Samples": tally.samples, "Failed": tally.failed}
        if mode.by_area:
            row["long-acc."] = _percent(tally.right, tally)
            row["acc.@IoU"] = _mean_percent([tally.right_at.get(level, 0) for level in mode.levels], tally)
        else:
            row["Acc"] = _percent(tally.right, tally)
            row["Acc (IoU >= 0.5)"] = _percent(tally.right_and_iou, tally)
            row["Acc (IoP >= 0.5)"] = _percent(tally.right_and_iop, tally)
        found["QA"][task] = row
    return found


def _places(mode: Mode) -> list[tuple[int, float]]:
    return [(top, level) for top in mode.tops for level in mode.levels]


def _percent(total: float, tally: Tally) -> float:
    return float(f"{total / tally.samples * 100:.2f}") if tally.samples else 0.0


def _mean_percent(hits: Sequence[int], tally: Tally) -> float:
    if not tally.samples:
        return 0.0
    return float(f"{sum(hit / tally.samples for hit in hits) / len(hits) * 100:.2f}")
