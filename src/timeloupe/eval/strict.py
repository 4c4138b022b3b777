"""The strict mode: a score as a user means it, with one meaning in every benchmark.

1. The answer is what stands in the last ``<answer>`` (a missing closing tag is forgiven), else what follows the last
   ``</think>``, else the whole text.
2. Times are read in all forms (``timeloupe.prompt.segments``, tolerant); letters by ``timeloupe.prompt.option``.
3. An answer that cannot be read is wrong, and so is one that is missing. Neither leaves the denominator.
4. Windows are cut at the video's start and end where the length is known, and those that overlap become one. A time
   that is plainly negative (``[-1.5, 3]``, ``from -1.5 to 3``) is therefore 0; a dash behind a number is a dash.
5. The overlap of an answer and the truth is that of their unions, so naming many windows does not help.
6. R@m is IoU >= m.

Rows whose label is no segment (no length, reversed, beyond the video) or no option cannot be answered: they are
unscored, counted under ``label_unusable``, and the only ones that leave the denominator.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from timeloupe.eval.detection import segment_f1
from timeloupe.eval.files.windows import is_number
from timeloupe.eval.metrics import accuracy, mean_tiou, recall_at
from timeloupe.eval.scoring import Predictions, Row, Table, Window
from timeloupe.grounding import merge_spans, set_iou
from timeloupe.prompt.option import MAX_OPTIONS, parse_option
from timeloupe.prompt.segments import MAX_CHARACTERS, parse_segments
from timeloupe.trajectory import Problem

THRESHOLDS = (0.3, 0.5, 0.7)
MULTI_THRESHOLDS = (0.1, 0.3, 0.5, 0.7)


_NEGATIVE = re.compile(
    r"(?P<before>(?:^|[\[({,;:=\"'>]|\b(?:from|between|to|and|until|at|is|starts?|ends?))[ \t]{0,4})[-\u2212]\d[\d.]*",
    re.IGNORECASE,
)


def answer_part(text: str) -> str:
    """Return the part of a reply that is its answer (rule 1), stripped."""
    at = text.rfind("<answer>")
    if at >= 0:
        return text[at + len("<answer>") :].split("</answer>", 1)[0].strip()
    at = text.rfind("</think>")
    return (text[at + len("</think>") :] if at >= 0 else text).strip()


def read_windows(prediction: Any, row: Row) -> tuple[tuple[Window, ...], str]:
    """Return the disjoint windows that a prediction names, in order, and "" or why there are none.

    Args:
        prediction: A text; a list of ``[start, end]`` or ``[start, end, score]``; one ``[start, end]``; ``None``.
        row: The question; its duration cuts the windows.

    Returns:
        Windows in seconds, and one of "", ``missing``, ``unparsed``, ``outside`` (all of it beyond the video).
    """
    if prediction is None:
        return (), "missing"
    pairs = _pairs_of_text(prediction) if isinstance(prediction, str) else windows_of_list(prediction)
    if not pairs:
        return (), "unparsed"
    windows = cut(pairs, row.duration_seconds)
    return windows, "" if windows else "outside"


def cut(windows: Sequence[Window], duration_seconds: float | None) -> tuple[Window, ...]:
    """Return the union of windows within the video as disjoint windows; of no length, reversed, or beyond: none."""
    end = math.inf if duration_seconds is None else duration_seconds
    return merge_spans([(max(0.0, one), min(two, end)) for one, two in windows])


def read_letter(prediction: Any, row: Row) -> tuple[str | None, str]:
    """Return the option letter that a prediction names, and "" or why there is none.

    Returns:
        A capital letter of the row's options or ``None``; and one of "", ``missing``, ``unparsed``.
    """
    if prediction is None:
        return None, "missing"
    if not isinstance(prediction, str):
        return None, "unparsed"
    letter = parse_option(answer_part(prediction), len(row.options) or MAX_OPTIONS)
    return (None, "unparsed") if isinstance(letter, Problem) else (letter, "")


def grounding(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return mIoU and R@0.3, 0.5, 0.7 of temporal grounding, in fractions."""

    def value(row: Row, prediction: Any) -> tuple[float | None, str]:
        truth = cut(row.windows, row.duration_seconds)
        if not truth:
            return None, "label_unusable"
        windows, why = read_windows(prediction, row)
        return set_iou(windows, truth), why

    return graded(rows, predictions, value, overlap_figures)


def overlap_figures(ious: Sequence[float | None]) -> dict[str, float | None]:
    """Return mIoU and the recalls of a set of overlaps."""
    return {"mIoU": mean_tiou(ious)} | {f"R@{level}": recall_at(ious, level) for level in THRESHOLDS}


def multi_segment(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return figures of questions with several true windows, in fractions.

    ``mIoU`` compares unions. ``F1@m`` pairs windows one to one so that the pairs' IoU is greatest (unlike official
    scripts, where one window may match many), and is the mean over questions; ``F1`` is the mean of the ``F1@m``.
    """
    scores: dict[float, list[float | None]] = {level: [] for level in MULTI_THRESHOLDS}

    def value(row: Row, prediction: Any) -> tuple[float | None, str]:
        truth = cut(row.windows, row.duration_seconds)
        if not truth:
            return None, "label_unusable"
        windows, why = read_windows(prediction, row)
        for level, value in segment_f1(windows, truth, MULTI_THRESHOLDS).items():
            scores[level].append(value)
        return set_iou(windows, truth), why

    def figures(ious: Sequence[float | None]) -> dict[str, float | None]:
        found: dict[str, float | None] = {"mIoU": mean_tiou(ious)}
        means = {f"F1@{level}": mean_tiou(values) for level, values in scores.items()}
        whole = [mean for mean in means.values() if mean is not None]
        return found | means | {"F1": sum(whole) / len(whole) if whole else None}

    return graded(rows, predictions, value, figures)


def multiple_choice(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the share of questions whose letter is right, in fractions: ``accuracy``, and ``accuracy <group>``."""
    split: dict[str, list[float | None]] = {}

    def value(row: Row, prediction: Any) -> tuple[float | None, str]:
        letters = [chr(ord("A") + at) for at in range(len(row.options) or MAX_OPTIONS)]
        if row.answer not in letters:
            return None, "label_unusable"
        letter, why = read_letter(prediction, row)
        right = float(letter == row.answer)
        for name, group in row.groups.items():
            split.setdefault(f"accuracy {name}={group}", []).append(right)
        return right, why

    def figures(rights: Sequence[float | None]) -> dict[str, float | None]:
        found: dict[str, float | None] = {"accuracy": accuracy(rights)}
        return found | {name: accuracy(split[name]) for name in sorted(split)}

    return graded(rows, predictions, value, figures)


def graded(
    rows: Sequence[Row],
    predictions: Predictions,
    value: Callable[[Row, Any], tuple[float | None, str]],
    figures: Callable[[Sequence[float | None]], dict[str, float | None]],
) -> Table:
    """Return the strict table of a benchmark: every row's value, n of N, and failures by reason.

    Args:
        rows: The questions.
        predictions: By row id.
        value: (row, its prediction or ``None``) -> the row's value in [0, 1], or ``None`` where its label is
            unusable; and "" or the reason of a failure.
        figures: All values -> the figures.
    """
    failures: Counter[str] = Counter()
    values: list[float | None] = []
    by_id: dict[str, float] = {}
    for row in rows:
        found, why = value(row, predictions.get(row.id))
        values.append(found)
        if found is not None:
            by_id[row.id] = found
        if why:
            failures[why] += 1
    scored = sum(one is not None for one in values)
    return Table("strict", figures(values), "fraction", scored, len(rows), dict(failures), by_id)


def windows_of_list(prediction: Any) -> list[Window]:
    """Return the windows of a list of [start, end] or of one alone, reversed ones turned round; else none."""
    if not isinstance(prediction, list | tuple) or not prediction:
        return []
    items = [prediction] if is_number(prediction[0]) else prediction
    pairs: list[Window] = []
    for item in items:
        if not isinstance(item, list | tuple) or len(item) < 2 or not all(map(is_number, item[:2])):
            return []
        pairs.append((min(item[0], item[1]), max(item[0], item[1])))
    return pairs


def _pairs_of_text(text: str) -> list[Window]:
    answer = answer_part(text)
    if len(answer) <= MAX_CHARACTERS:  # a longer one is refused anyway
        answer = _NEGATIVE.sub(r"\g<before>0", answer)
    found = parse_segments(answer, "tolerant")
    if isinstance(found, Problem):
        return []
    return [(segment.start_seconds, segment.end_seconds) for segment in found]
