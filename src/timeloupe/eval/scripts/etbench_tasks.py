"""What E.T. Bench's script makes of the answers to each task, fault for fault.

Source: THUNLP-MT/MUSEG@889565e78b21, data/eval/et_bench/compute_metrics.py (E.T. Bench's own script, Liu et al. 2024).
A sample is a record of the annotation file (``tgt`` true windows, ``p`` and ``o`` right option and options, ``video``)
with the answer under ``a``. Overlaps are float32, as the script's tensors are.

Faults, by task: F1 of tvg and epm is a recall; tal matches without pairing, so one window can hit many; evs leaves out
what it could not read; of rar, eca and rvq a wrong letter goes on to the similarity and may be counted right after
all; gvq looks for the letter at the start only; dvc and slc keep one sample per video.

Deviations:

1. ``similarity`` takes the place of the script's sentence embedding (all-MiniLM-L6-v2); ``spelling_similarity`` is
   the stand-in that needs no model.
2. Caption figures (BLEU, METEOR, ROUGE-L, CIDEr, SentSim) are not computed.
3. A video whose list of predictions is empty takes the number of predictions of the video before it in the file; the
   script takes that of the one before it in a set, in an order that changes from run to run. Answers never give one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from timeloupe.eval.extractors.times import etbench as tvg_format
from timeloupe.eval.scoring import Window
from timeloupe.eval.scripts.errors import OfficialError, raising_as_script
from timeloupe.eval.scripts.etbench_captions import dvc_format
from timeloupe.eval.scripts.grounding_tensors import temporal_iou

LEVELS = (0.1, 0.3, 0.5, 0.7)
DIGITS = 5
LETTERS = "abcde"
LONGEST_SUMMARY_SECONDS = 1000
MOST_PROPOSALS = 1000
MOST_COMPARED_CHARACTERS = 2000

_SIGNED_NUMBER = re.compile(r"[-+]?\d*\.\d+|[-+]?\d+")
_BRACKETED_LETTER = re.compile(r"\(([A-Za-z])\)")
_AFTER_A_LETTER = (".", ",", " ", ")")
_PREFIX = "best option:"

Sample = Mapping[str, Any]
Similarity = Callable[[str, str], float]
"""(answer, option as ``(A) text``) -> likeness; the option with the most is taken, of equal ones the first."""


@dataclass(frozen=True)
class Graded:
    """What the script makes of the samples of one task and source.

    Attributes:
        figures: Under the script's names, fractions of 5 decimals, and counts.
        values: Per sample its IoU, F1, or right or wrong; ``None`` where it has none.
    """

    figures: dict[str, float]
    values: list[float | None]


def spelling_similarity(answer: str, option: str) -> float:
    """Return 1 if the answer begins with the option's letter, else half of difflib's ratio of the two, in [0, 1].

    Only the first ``MOST_COMPARED_CHARACTERS`` are compared, which keeps the time linear in the length.
    """
    if option[1:2].lower() == answer[:1].lower():
        return 1.0
    one, two = answer[:MOST_COMPARED_CHARACTERS], option[:MOST_COMPARED_CHARACTERS]
    return 0.5 * SequenceMatcher(None, one, two).ratio()


def tvg_eval(samples: Sequence[Sample], similarity: Similarity = spelling_similarity) -> Graded:
    """Return ``F1@m`` (the share of first windows with IoU >= m), their mean and mIoU, of tvg or epm."""
    del similarity
    return _first_windows(samples, "F1", "F1", lambda sample: [sample["tgt"]])


def tem_eval(samples: Sequence[Sample], similarity: Similarity = spelling_similarity) -> Graded:
    """Return ``R@m``, their mean and mIoU; the true window that fits best counts."""
    del similarity
    return _first_windows(samples, "R", "mRec", lambda sample: sample["tgt"])


def tal_eval(samples: Sequence[Sample], similarity: Similarity = spelling_similarity) -> Graded:
    """Return the mean over samples of F1 at each IoU, and the mean of those."""
    del similarity
    with raising_as_script():
        scores = [_overlap_f1(tvg_format(sample["a"]), sample["tgt"]) for sample in samples]
        means = [sum(score[at] for score in scores if score) / len(samples) for at in range(len(LEVELS))]
    unread = sum(score is None for score in scores)
    figures = {"Total": len(samples), "Failed": unread, **_by_level("F1", means)}
    figures["F1"] = round(sum(means) / len(means), DIGITS)
    return Graded(figures, [sum(score) / len(score) if score else 0.0 for score in scores])


def evs_eval(samples: Sequence[Sample], similarity: Similarity = spelling_similarity) -> Graded:
    """Return the mean F1 of the seconds that summaries share, over the answers that could be read."""
    del similarity
    with raising_as_script():
        found = [(tvg_format(sample["a"]), sample["tgt"]) for sample in samples]
        values = [None if windows is None else _shared_seconds_f1(windows, truth) for windows, truth in found]
    read = [value for value in values if value is not None]
    mean = round(sum(read) / len(read), DIGITS) if read else 0
    return Graded({"Total": len(samples), "Failed": len(samples) - len(read), "F1": mean}, values)


def vhd_eval(samples: Sequence[Sample], similarity: Similarity = spelling_similarity) -> Graded:
    """Return the share of answers whose first number lies in a window of any annotator, its ends included."""
    del similarity
    unread, values = 0, []
    with raising_as_script():
        for sample in samples:
            truth = sample["tgt"]
            nested = isinstance(truth[0][0], list | tuple)
            found = _SIGNED_NUMBER.search(sample["a"])
            unread += found is None
            windows = [window for annotator in truth for window in annotator] if nested else truth
            seconds = float(found[0]) if found else math.nan
            values.append(float(any(window[0] <= seconds <= window[1] for window in windows)))
        share = sum(values) / len(samples)
    return Graded({"Total": len(samples), "Failed": unread, "F1": round(share, DIGITS)}, values)


def rvq_eval(samples: Sequence[Sample], similarity: Similarity = spelling_similarity) -> Graded:
    """Return the share of right options, of rar, eca or rvq."""
    unread, values = 0, []
    with raising_as_script():
        letters = _letters(samples[0])
        for sample in samples:
            right, read = _chosen(sample, letters, similarity)
            unread += not read
            values.append(float(right))
    share = round(sum(values) / len(samples), DIGITS)
    return Graded({"Total": len(samples), "Failed": unread, "Acc": share}, values)


def gvq_eval(samples: Sequence[Sample], similarity: Similarity = spelling_similarity) -> Graded:
    """Return ``R@m``, their mean and mIoU, a wrong option being no overlap, and the share of right options."""
    unread, rights, values = 0, 0, []
    with raising_as_script():
        for sample in samples:
            answer = _without_prefix(sample["a"])
            right = bool(answer) and _chosen_at_start(answer, sample, similarity)
            windows = tvg_format(sample["a"]) if right else None
            unread += not answer or (right and windows is None)
            rights += right
            values.append(float(_overlaps([sample["tgt"]], windows[:1])[0, 0]) if windows else 0.0)
        figures = _recalls(values, unread, "R", "mRec")
    return Graded(figures | {"Acc": round(rights / len(samples), DIGITS)}, values)


def dvc_eval(samples: Sequence[Sample], similarity: Similarity = spelling_similarity) -> Graded:
    """Return F1 at each IoU of the windows of dense captions, of dvc or slc, and the mean of those."""
    del similarity
    truths: dict[str, list[Window]] = {}
    found: dict[str, list[Window]] = {}
    unread = 0
    for sample in samples:
        windows, _ = dvc_format(sample["a"])
        if windows is None:
            unread += 1
            continue
        truths[sample["video"]] = sample["tgt"]
        found[sample["video"]] = [(start, end) for start, end in windows]
    scores: list[float] = []
    with raising_as_script():
        scale = len(found) / len(samples)
        for level in LEVELS:
            both = dvc_detection(truths, found, level) if truths else (0.0, 0.0)
            precision, recall = both[0] * scale, both[1] * scale
            total = precision + recall
            scores.append(2 * precision * recall / total if total else 0.0)
    figures = {"Total": len(samples), "Failed": unread, **_by_level("F1", scores)}
    return Graded(figures | {"F1": round(sum(scores) / len(scores), DIGITS)}, [None] * len(samples))


def dvc_detection(
    truths: Mapping[str, Sequence[Window]], found: Mapping[str, Sequence[Window]], level: float
) -> tuple[float, float]:
    """Return precision and recall at IoU > ``level``, each the mean over the videos of ``truths``.

    Raises:
        OfficialError: ``ZeroDivisionError``, without a video or a true window; ``UnboundLocalError``, where the first
            video has an empty list of predictions.
    """
    precisions, recalls = [], []
    count: int | None = None
    for video, windows in truths.items():
        answers = found.get(video, ())[:MOST_PROPOSALS]
        hits = [(one, two) for one, answer in enumerate(answers) for two, window in enumerate(windows)
                if dvc_iou(answer, window) > level]  # fmt: skip
        if video in found:
            count = len(answers) or count
            if count is None:
                raise OfficialError("UnboundLocalError", f"no prediction for {video!r}")
            precisions.append(len({one for one, _ in hits}) / count)
        else:
            precisions.append(0.0)
        with raising_as_script():
            recalls.append(len({two for _, two in hits}) / len(windows))
    with raising_as_script():
        return sum(precisions) / len(precisions), sum(recalls) / len(recalls)


def dvc_iou(one: Window, two: Window) -> float:
    """Return the overlap over the hull, or over both lengths if they are less, plus 1e-8; reversed ones as written."""
    common = max(0, min(two[1], one[1]) - max(two[0], one[0]))
    hull = max(two[1], one[1]) - min(two[0], one[0])
    return float(common) / (min(hull, two[1] - two[0] + one[1] - one[0]) + 1e-8)


EVALUATORS: dict[str, Callable[[Sequence[Sample], Similarity], Graded]] = {
    "tvg": tvg_eval,
    "epm": tvg_eval,
    "tem": tem_eval,
    "tal": tal_eval,
    "evs": evs_eval,
    "vhd": vhd_eval,
    "rar": rvq_eval,
    "eca": rvq_eval,
    "rvq": rvq_eval,
    "gvq": gvq_eval,
    "dvc": dvc_eval,
    "slc": dvc_eval,
}
"""Task as the annotation names it -> its part of the script."""


def _first_windows(
    samples: Sequence[Sample], level_name: str, mean_name: str, truth: Callable[[Sample], Any]
) -> Graded:
    unread = 0
    values: list[float] = []
    with raising_as_script():
        for sample in samples:
            windows = tvg_format(sample["a"])
            unread += windows is None
            values.append(float(_overlaps(truth(sample), windows[:1]).max()) if windows else 0.0)
        figures = _recalls(values, unread, level_name, mean_name)
    return Graded(figures, list(values))


def _recalls(values: Sequence[float], unread: int, level_name: str, mean_name: str) -> dict[str, float]:
    # A float32 overlap of 0.7 is below the float64 0.7 that the script compares it with.
    shares = [sum(value >= level for value in values) / len(values) for level in LEVELS]
    figures = {"Total": len(values), "Failed": unread, "mIoU": round(sum(values) / len(values), DIGITS)}
    return figures | _by_level(level_name, shares) | {mean_name: round(sum(shares) / len(shares), DIGITS)}


def _by_level(name: str, shares: Sequence[float]) -> dict[str, float]:
    return {f"{name}@{level}": round(share, DIGITS) for level, share in zip(LEVELS, shares, strict=True)}


def _overlaps(truth: Sequence[Sequence[float]], windows: Sequence[Sequence[float]]) -> np.ndarray:
    found = temporal_iou(truth, windows)
    if not found.size:
        raise IndexError("too many indices for tensor of dimension 1")
    return found


def _overlap_f1(
    windows: Sequence[Sequence[float]] | None, truth: Sequence[Sequence[float]]
) -> list[float] | None:
    if windows is None:
        return None
    overlaps = _overlaps(truth, windows)
    scores = []
    for level in map(np.float32, LEVELS):
        if overlaps.max() < level:
            scores.append(0.0)
            continue
        # An overlap of NaN is below no level and reaches none: the script divides by zero.
        recall = float(np.mean(overlaps.max(axis=1) >= level, dtype=np.float32))
        precision = float(np.mean(overlaps.max(axis=0) >= level, dtype=np.float32))
        scores.append(2 * precision * recall / (precision + recall))
    return scores


def _shared_seconds_f1(windows: Sequence[Sequence[float]], truth: Sequence[Sequence[float]]) -> float:
    ours, theirs = _seconds(windows), _seconds(truth)
    both = int((ours & theirs).sum())
    if not both:
        return 0.0
    recall, precision = both / int(theirs.sum()), both / int(ours.sum())
    return 2 * precision * recall / (precision + recall)


def _seconds(windows: Sequence[Sequence[float]]) -> np.ndarray:
    """Return which of the first ``LONGEST_SUMMARY_SECONDS`` seconds windows cover; ends are rounded to even."""
    covered = np.zeros(LONGEST_SUMMARY_SECONDS, dtype=bool)
    for start, end in windows:
        covered[max(0, round(start)) : round(end)] = True
    return covered


def _letters(sample: Sample) -> str:
    if len(sample["o"]) not in (4, 5):
        raise NotImplementedError
    return LETTERS[: len(sample["o"])]


def _chosen(sample: Sample, letters: str, similarity: Similarity) -> tuple[bool, bool]:
    """Return whether the option is right, and whether the answer names a letter, or is the right one by likeness."""
    wanted = sample["p"]
    bracketed = _BRACKETED_LETTER.search(sample["a"])
    if bracketed and letters.find(bracketed[1].lower()) == wanted:
        return True, True
    answer = _without_prefix(sample["a"].lower())
    if not answer:
        return False, False
    leading = _leads(answer)
    if leading and letters.find(answer[0]) == wanted:
        return True, True
    return _most_similar(answer, sample, similarity) == wanted, bracketed is not None or leading


def _chosen_at_start(answer: str, sample: Sample, similarity: Similarity) -> bool:
    letters = _letters(sample)
    if _leads(answer) and answer[0].lower() in letters:
        return letters.index(answer[0].lower()) == sample["p"]
    return _most_similar(answer, sample, similarity) == sample["p"]


def _without_prefix(answer: str) -> str:
    if answer.lower().startswith(_PREFIX):
        answer = answer[len(_PREFIX) :]
    return answer.lstrip().lstrip("(").lstrip()


def _leads(answer: str) -> bool:
    return len(answer) == 1 or answer[1] in _AFTER_A_LETTER


def _most_similar(answer: str, sample: Sample, similarity: Similarity) -> int:
    best, most = 0, -math.inf
    for at, option in enumerate(sample["o"]):
        text = f"{option[0]} - {option[1]}" if isinstance(option, list | tuple) else option
        likeness = similarity(answer, f"({LETTERS[at].upper()}) {text}")
        if likeness > most:
            best, most = at, likeness
    if most == -math.inf:
        raise AssertionError
    return best
