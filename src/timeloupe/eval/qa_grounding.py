"""Figures of questions that are answered and grounded at once: IoP, Acc@GQA, Acc@IoU, and their strict table.

A row has a right letter and true windows; an answer counts jointly where the letter is right AND the windows are good
enough. The two demands in use: IoU >= m (ReXTime, CG-Bench) and IoP >= 0.5 (NExT-GQA), where IoP is the share of the
answered time that is true, so that a tiny window inside the truth has IoP 1.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from timeloupe.eval.metrics import accuracy, mean_tiou, recall_at
from timeloupe.eval.scoring import Predictions, Row, Table, Window
from timeloupe.eval.strict import THRESHOLDS, answer_part, cut, read_letter, read_windows
from timeloupe.grounding import Span, merge_spans, overlap_seconds, set_iou, union_seconds
from timeloupe.prompt.option import MAX_CHARACTERS

GQA_THRESHOLD = 0.5
"""IoP that Acc@GQA asks for: Xiao et al. 2024 (NExT-GQA), section 5."""


_TIME = re.compile(r"\d[\d:.]*")
_BETWEEN_TIMES = re.compile(
    r"\b(?:from|between|to|and|until|at|s|secs?|seconds?)\b|[\[\](),.;:\u2013\u2014-]", re.I
)


@dataclass(frozen=True)
class Halves:
    """The two halves of a prediction, each ``None`` where there is none.

    Attributes:
        letter: A text that names a letter.
        windows: What ``strict.read_windows`` takes.
    """

    letter: Any = None
    windows: Any = None


def set_iop(answer: Sequence[Span], truth: Sequence[Span]) -> float:
    """Return the share of the answered time that is true, in [0, 1]; both as unions, 0 without an answer."""
    length = union_seconds(answer)
    if not length:
        return 0.0
    pairs = product(merge_spans(answer), merge_spans(truth))
    return min(1.0, math.fsum(overlap_seconds(one, two) for one, two in pairs) / length)


def accuracy_where(
    rights: Sequence[bool | float | None], overlaps: Sequence[float | None], threshold: float
) -> float | None:
    """Return the share of rows that are right and overlap enough (>=), of those where both are scored.

    With IoU this is Acc@IoU (ReXTime's ``VQA,mIoU@m``, CG-Bench's acc@IoU at one threshold), with IoP Acc@GQA.

    Raises:
        ValueError: The lengths differ.
    """
    pairs = zip(rights, overlaps, strict=True)
    both = [(right, overlap) for right, overlap in pairs if right is not None and overlap is not None]
    return accuracy([bool(right) and overlap >= threshold for right, overlap in both])


def strict_table(
    rows: Sequence[Row],
    predictions: Predictions,
    halves_of: Callable[[Any], Halves],
    levels: Sequence[float] = THRESHOLDS,
) -> Table:
    """Return the strict figures of both halves and of the two together, in fractions.

    ``accuracy`` of the letters; ``mIoU``, ``R@m``, ``mIoP``, ``IoP@0.5`` of the windows; ``Acc@IoU m`` and ``Acc@GQA``
    of both. Figures of a half that no prediction has are ``None``; else a missing half is wrong. A row's value is 1 or
    0 for its letter, or its IoU where no prediction has letters. A lone capital beside times is a letter.

    Args:
        rows: The questions.
        predictions: By row id, ``Halves`` or anything else.
        halves_of: Anything else that is not ``None`` -> its halves.
        levels: IoU that ``R@m`` and ``Acc@IoU m`` ask for.
    """
    halves = {
        id: prediction if isinstance(prediction, Halves) else halves_of(prediction)
        for id, prediction in predictions.items()
        if prediction is not None
    }
    given = [halves[row.id] for row in rows if row.id in halves]
    has_letters = not given or any(half.letter is not None for half in given)
    has_windows = not given or any(half.windows is not None for half in given)
    failures: Counter[str] = Counter()
    rights: list[float | None] = []
    ious: list[float | None] = []
    iops: list[float | None] = []
    for row in rows:
        half = halves.get(row.id)
        if half is None:
            failures["missing"] += 1
        right, why_letter = _right(row, half or Halves()) if has_letters else (None, "")
        iou, iop, why_windows = _overlaps(row, half or Halves()) if has_windows else (None, None, "")
        rights.append(right)
        ious.append(iou)
        iops.append(iop)
        for name, why in (("letter", why_letter), ("windows", why_windows)):
            if why and (half is not None or why == "label_unusable"):
                failures[f"{name} {why}"] += 1
    # Those that papers lead with come first: a line of a terminal holds no more.
    figures = {"accuracy": accuracy(rights), "mIoU": mean_tiou(ious)}
    figures |= {"Acc@GQA": accuracy_where(rights, iops, GQA_THRESHOLD), "mIoP": mean_tiou(iops)}
    figures |= {f"Acc@IoU {level}": accuracy_where(rights, ious, level) for level in levels}
    figures |= {f"R@{level}": recall_at(ious, level) for level in levels}
    figures[f"IoP@{GQA_THRESHOLD}"] = recall_at(iops, GQA_THRESHOLD)
    leading = rights if has_letters else ious
    values = {row.id: value for row, value in zip(rows, leading, strict=True) if value is not None}
    scored = sum(value is not None for value in leading)
    return Table("strict", figures, "fraction", scored, len(rows), dict(failures), values)


def halves_of_record(prediction: Any, letter: str, windows: str) -> Halves:
    """Return the halves of a record by the names of its fields; a text is both halves, a list is windows."""
    if isinstance(prediction, Mapping):
        return Halves(prediction.get(letter), prediction.get(windows))
    if isinstance(prediction, str):
        return Halves(prediction, prediction)
    return Halves(windows=prediction)


def _right(row: Row, half: Halves) -> tuple[float | None, str]:
    letters = [chr(ord("A") + at) for at in range(len(row.options) or 26)]
    if row.answer not in letters:
        return None, "label_unusable"
    letter, why = read_letter(half.letter, row)
    if why == "unparsed" and isinstance(half.letter, str):
        letter, why = read_letter(_without_times(half.letter), row)
    return float(letter == row.answer), why


def _without_times(text: str) -> str:
    """Return the capital that is left of an answer such as ``B, 3 to 9 s`` or ``[3, 9] B``; "" if more is left."""
    answer = answer_part(text)
    if len(answer) > MAX_CHARACTERS:
        return ""
    rest = _BETWEEN_TIMES.sub(" ", _TIME.sub(" ", answer)).strip()
    return rest if re.fullmatch("[A-Z]", rest) else ""


def _overlaps(row: Row, half: Halves) -> tuple[float | None, float | None, str]:
    truth: Sequence[Window] = cut(row.windows, row.duration_seconds)
    if not truth:
        return None, None, "label_unusable"
    answer, why = read_windows(half.windows, row)
    return set_iou(answer, truth), set_iop(answer, truth), why
