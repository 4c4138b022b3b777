"""Look for faults in annotation rows before a model is trained or scored on them. Pure functions on rows.

Every kind of fault is a line of ``CHECKS``, with how grave it is. An error makes a figure wrong or a row useless
whatever the model does; a warning may be meant so, and is to be looked at.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timeloupe.eval.files.find_videos import video_key
from timeloupe.eval.scoring import Row, Window

ERROR, WARNING = "error", "warning"
CLOSING_MARKS = tuple(".?!:)]\"'。？！")
NEARLY_ALL = 0.95
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

CHECKS: dict[str, tuple[str, str]] = {
    "malformed_record": (ERROR, "the reader refuses a record; it is left out of all other checks"),
    "duplicate_id": (ERROR, "an id names several rows"),
    "label_not_finite": (ERROR, "a time is NaN or infinite"),
    "label_reversed": (ERROR, "a window ends before it starts"),
    "label_no_length": (ERROR, "a window ends where it starts: no answer can overlap it"),
    "label_outside": (ERROR, "all of a window lies before 0 or after the end of the video"),
    "impossible_answer": (ERROR, "the answer is none of the options"),
    "ambiguous_answer": (ERROR, "the right option's text stands at several letters"),
    "malformed_answer": (ERROR, "the answer begins as a list and is none"),
    "missing_video": (ERROR, "no such video in the folder"),
    "ambiguous_video": (ERROR, "several files in the folder have the video's name, and none its path"),
    "unreadable_video": (ERROR, "the video cannot be opened, or none of it decoded"),
    "duration_mismatch": (
        ERROR,
        "the video is over 1 s longer or shorter than annotated, or ends before its clip",
    ),
    "train_video": (ERROR, "the video is among the training data"),
    "label_before_start": (WARNING, "a window starts before 0"),
    "label_past_end": (WARNING, "a window ends after the end of the video"),
    "label_at_end": (WARNING, "a window ends exactly at the end of the video: it may have been cut there"),
    "labels_overlap": (WARNING, "windows of one row overlap: their lengths count twice"),
    "no_label": (WARNING, "neither answer nor window"),
    "duplicate_options": (WARNING, "two options have the same text"),
    "empty_option": (WARNING, "an option has no text"),
    "duplicate_question": (WARNING, "the same question on the same video again"),
    "question_cut": (
        WARNING,
        "the question ends in a comma, or without the closing mark that nearly all others have",
    ),
    "no_question": (WARNING, "the question is empty"),
    "outer_blanks": (WARNING, "question, option or answer begins or ends with a blank"),
    "field_missing": (WARNING, "a field that most records of the file have is missing or empty"),
    "reader_warning": (WARNING, "the reader had to overlook something"),
    "train_question": (WARNING, "the training data ask the same question, on whatever video"),
}
"""Kind of fault -> how grave, and what it means."""


@dataclass(frozen=True)
class Finding:
    """All rows with one kind of fault.

    Attributes:
        check: A key of ``CHECKS``.
        rows: Their ids, or what stands for one (a video, a line), in the order of the file.
        example: The first of them in words.
    """

    check: str
    rows: tuple[str, ...]
    example: str

    @property
    def severity(self) -> str:
        """``error`` or ``warning``."""
        return CHECKS[self.check][0]


Fault = tuple[str, str]
"""Id of a row, and what is wrong with it in words."""


def check_rows(rows: Sequence[Row]) -> list[Finding]:
    """Return what the rows themselves show, in the order of ``CHECKS``."""
    is_cut = _cut_test(rows)
    by_row: dict[str, Callable[[Row], str | None]] = {
        "label_not_finite": lambda row: _window_fault(row, lambda start, end: not _finite(start, end)),
        "label_reversed": lambda row: _window_fault(row, lambda start, end: end < start),
        "label_no_length": lambda row: _window_fault(row, lambda start, end: end == start),
        "label_outside": lambda row: _end_fault(row, lambda start, end, last: end <= 0 or start >= last),
        "label_before_start": lambda row: _window_fault(row, lambda start, end: start < 0 < end),
        "label_past_end": lambda row: _end_fault(row, lambda start, end, last: start < last < end),
        "label_at_end": lambda row: _end_fault(row, lambda start, end, last: end == last),
        "labels_overlap": _overlap,
        "impossible_answer": _impossible_answer,
        "ambiguous_answer": _ambiguous_answer,
        "malformed_answer": _malformed_answer,
        "no_label": lambda row: None if row.windows or row.answer else "no answer, no window",
        "duplicate_options": _duplicate_options,
        "empty_option": lambda row: next(
            (f"option {LETTERS[at % 26]} is empty" for at, text in enumerate(row.options) if not text.strip()), None
        ),
        "question_cut": lambda row: f"ends in {row.question[-20:]!r}" if is_cut(row.question) else None,
        "no_question": lambda row: None if row.question.strip() else "no question",
        "outer_blanks": _outer_blanks,
    }  # fmt: skip
    faults: dict[str, list[Fault]] = {
        name: [(row.id, found) for row in rows if (found := look(row))] for name, look in by_row.items()
    }
    faults["duplicate_id"] = _repeated((row.id, row.id, f"id {row.id!r}") for row in rows)
    faults["duplicate_question"] = _duplicate_questions(rows)
    return findings(faults) + _missing_fields(rows)


def findings(faults: Mapping[str, Iterable[Fault]]) -> list[Finding]:
    """Return one finding per kind of fault that there is, in the order of ``CHECKS``."""
    found = {check: list(some) for check, some in faults.items()}
    assert found.keys() <= CHECKS.keys()
    return [
        Finding(check, tuple(id for id, _ in found[check]), "{}: {}".format(*found[check][0]))
        for check in CHECKS
        if found.get(check)
    ]


def reader_findings(faults: Sequence[str], warnings: Sequence[str]) -> list[Finding]:
    """Return what a reader refused and what it overlooked, each in its own words."""
    found = (("malformed_record", faults), ("reader_warning", warnings))
    return [Finding(check, tuple(texts), texts[0]) for check, texts in found if texts]


def coverage(rows: Sequence[Row]) -> dict[str, Any]:
    """Return how many rows and videos there are, how many rows have what, and the fields that some records lack."""
    windows = [len(row.windows) for row in rows if row.windows]
    options = [len(row.options) for row in rows if row.options]
    return {
        "rows": len(rows),
        "videos": len({row.video for row in rows}),
        "tasks": dict(Counter(row.task for row in rows)),
        "with_answer": sum(row.answer is not None for row in rows),
        "with_window": len(windows),
        "with_several_windows": sum(number > 1 for number in windows),
        "most_windows": max(windows, default=0),
        "with_options": len(options),
        "options": [min(options, default=0), max(options, default=0)],
        "with_duration": sum(row.duration_seconds is not None for row in rows),
        "with_clip": sum(row.clip is not None for row in rows),
        "fields": {name: number for name, number in _fields(rows).items() if number < len(rows)},
    }


def check_overlap(rows: Sequence[Row], train: Sequence[Row]) -> list[Finding]:
    """Return which videos and questions of ``rows`` are also in ``train``.

    Videos are compared by file name without folder and video suffix; questions without regard to case, blanks and the
    mark at their end.
    """
    videos = {video_key(row.video) for row in train}
    questions = {question_key(row.question) for row in train} - {""}
    return findings(
        {
            "train_video": [(row.id, row.video) for row in rows if video_key(row.video) in videos],
            "train_question": [
                (row.id, repr(row.question[:80])) for row in rows if question_key(row.question) in questions
            ],
        }
    )


def question_key(question: str) -> str:
    """Return a question without regard to case, blanks, and the mark at its end."""
    return " ".join(question.casefold().split()).rstrip(" .?!")


def _finite(start: float, end: float) -> bool:
    return math.isfinite(start) and math.isfinite(end)


def _window_fault(row: Row, is_wrong: Callable[[float, float], bool]) -> str | None:
    return next((_text(window) for window in row.windows if is_wrong(*window)), None)


def _end_fault(row: Row, is_wrong: Callable[[float, float, float], bool]) -> str | None:
    last = math.inf if row.duration_seconds is None else row.duration_seconds
    sound = (window for window in row.windows if _finite(*window) and window[0] < window[1])
    found = next((window for window in sound if is_wrong(*window, last)), None)
    if found is None:
        return None
    return _text(found) if row.duration_seconds is None else f"{_text(found)} of {last:.10g} s"


def _text(window: Window) -> str:
    return f"[{window[0]:.10g}, {window[1]:.10g}]"


def _overlap(row: Row) -> str | None:
    ordered = sorted(window for window in row.windows if window[0] < window[1])
    for before, after in zip(ordered, ordered[1:], strict=False):
        if after[0] < before[1]:
            return f"{_text(before)} and {_text(after)}"
    return None


def _right_option(row: Row) -> int | None:
    """Return the place of the right option, or ``None`` where the row has no options or the answer is no letter."""
    if row.answer is None or len(row.answer) != 1 or row.answer not in LETTERS[: len(row.options)]:
        return None
    return LETTERS.index(row.answer)


def _impossible_answer(row: Row) -> str | None:
    if not row.options or row.answer is None or _right_option(row) is not None:
        return None
    return f"answer {row.answer[:60]!r} of {len(row.options)} options"


def _ambiguous_answer(row: Row) -> str | None:
    right = _right_option(row)
    if right is None:
        return None
    same = [LETTERS[at] for at, text in enumerate(row.options) if text.strip() == row.options[right].strip()]
    return f"{row.options[right][:60]!r} is {' and '.join(same)}" if len(same) > 1 else None


def _malformed_answer(row: Row) -> str | None:
    if row.options or not row.answer or not row.answer.startswith("["):
        return None
    try:
        ast.literal_eval(row.answer)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return f"answer {row.answer[:60]!r}"
    return None


def _duplicate_options(row: Row) -> str | None:
    seen = Counter(text.strip() for text in row.options)
    return next((f"{text[:60]!r} {number} times" for text, number in seen.items() if number > 1), None)


def _cut_test(rows: Sequence[Row]) -> Callable[[str], bool]:
    """Return what tells a question that may have lost its end from the others of the file."""
    closed = sum(row.question.rstrip().endswith(CLOSING_MARKS) for row in rows)
    all_close = closed >= NEARLY_ALL * len(rows)

    def is_cut(question: str) -> bool:
        text = question.rstrip()
        return text.endswith(",") or (all_close and bool(text) and not text.endswith(CLOSING_MARKS))

    return is_cut


def _outer_blanks(row: Row) -> str | None:
    texts = (row.question, *row.options, row.answer or "")
    return next((repr(text[:60]) for text in texts if text != text.strip()), None)


def _repeated(keyed: Iterable[tuple[object, str, str]]) -> list[Fault]:
    """Return id and words of every (key, id, words) whose key came before."""
    seen: set[object] = set()
    found: list[Fault] = []
    for key, id, words in keyed:
        if key in seen:
            found.append((id, f"{words} again"))
        seen.add(key)
    return found


def _duplicate_questions(rows: Sequence[Row]) -> list[Fault]:
    first: dict[object, Row] = {}
    found: list[Fault] = []
    for row in rows:
        key = (row.video, row.clip, question_key(row.question), tuple(sorted(row.options)))
        before = first.setdefault(key, row)
        if before is not row:
            same = before.windows == row.windows and _answer_text(before) == _answer_text(row)
            found.append(
                (row.id, f"asks what {before.id} asks, with {'the same' if same else 'ANOTHER'} label")
            )
    return found


def _answer_text(row: Row) -> str | None:
    """Return the right option's text, or the answer as it stands: the same question may order its options anew."""
    right = _right_option(row)
    return row.answer if right is None else row.options[right]


def _missing_fields(rows: Sequence[Row]) -> list[Finding]:
    """Return one finding for each field that over half of the records have, but not all."""
    found: list[Finding] = []
    for name, number in _fields(rows).items():
        if len(rows) / 2 < number < len(rows):
            without = tuple(row.id for row in rows if _is_empty(row.raw.get(name)))
            found.append(Finding("field_missing", without, f"{without[0]}: no {name!r}"))
    return found


def _fields(rows: Sequence[Row]) -> Counter[str]:
    """Return how many records have something in a field."""
    return Counter(str(name) for row in rows for name, value in row.raw.items() if not _is_empty(value))


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | list | tuple | dict) and not value)
