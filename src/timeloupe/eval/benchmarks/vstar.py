"""V-STaR (Cheng et al. 2025): what, when and where of one event, asked in two orders of questions ("chains").

A prediction is a record of the scripts' layout (``answer_vqa``, ``answer_temporal``, ``answer_spatial``, and the last
two of the second chain with ``_2`` behind them), the windows alone, or a model's text, which may say what and when.

"What" is answered in free form and graded 0 to 3 by a judge, of which 2 is right; the scripts ask Qwen2.5-72B. The
score stands in the record as ``judge_score`` or ``VQA_score``, or a judge is given as a function. Without either the
figures that need one are ``None``, and the rows are counted under ``unjudged``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from timeloupe.eval import strict
from timeloupe.eval.files.records import Record, existing, read_records
from timeloupe.eval.files.windows import finite, is_number
from timeloupe.eval.metrics import accuracy, mean_tiou
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.vstar import (
    CHAINS,
    OVERALL,
    RIGHT_SCORE,
    UNREAD_SCORE,
    Evaluation,
    Script,
    evaluate,
    extract_bounding_boxes,
    led,
    length_of,
    printed,
)
from timeloupe.eval.spatial import LEVELS, ap_at, arithmetic_mean, frame_ious, log_geometric_mean, viou
from timeloupe.grounding import Corners, corners, set_iou

FILES = "V_STaR_test.json of V-STaR-Bench/V-STaR"
SCORES = ("judge_score", "VQA_score")
PARTS = ("answer_temporal", "answer_spatial")
ANSWERS = (
    "answer_vqa",
    *(f"{name}{more}{chain}" for name in PARTS for more in ("", "_pre") for chain in CHAINS),
)

LEADING = ("mAM", "mLGM", "accuracy", "mIoU", "mIoU (chain 2)", "vIoU", "vIoU (chain 2)")

Value = TypeVar("Value")

Judge = Callable[[str, str, str], int | None]
"""(question, true answer, answer) -> 0 to 3, or ``None`` where the judge gave no number."""


def load(path: Path) -> list[Row]:
    """Return the rows of the annotation file, or of a file of results in the scripts' layout.

    The id of a row is its ``vid``; of a vid that comes again ``vid#2`` and so on.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid; the message names the file, the record and the field.
    """
    return [_row(id, record) for id, record in _by_id(read_records(existing(path, FILES)))]


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the records of a file of results by row id: the annotation file with answers in its records.

    Raises:
        MissingError: There is no such file.
        RecordError: It is no list of records, or one has no ``vid``.
    """
    del rows
    found = _by_id(read_records(path))
    return {id: {key: value for key, value in record.fields.items() if key in (*ANSWERS, *SCORES)}
            for id, record in found}  # fmt: skip


def evaluation(
    rows: Sequence[Row], predictions: Predictions, script: Script, judge: Judge | None = None
) -> Evaluation:
    """Return all that a script prints and notes.

    Rows without a prediction are items without answers: both inference scripts leave them in the file. Without a score
    or a judge an answer counts as wrong here.

    Raises:
        OfficialError: ``TypeError``, where a prediction is no record.
    """
    items: list[dict[str, Any]] = []
    scores: list[int | None] = []
    for row in rows:
        prediction = predictions.get(row.id)
        if prediction is not None and not isinstance(prediction, Mapping):
            raise OfficialError("TypeError", f"{row.id}: the script takes records, got {prediction!r:.80}")
        bare = {key: value for key, value in row.raw.items() if key not in ANSWERS}
        items.append(bare | dict(prediction or {}))
        scores.append(_score(row, items[-1].get("answer_vqa"), prediction, judge) or 0)
    return evaluate(items, scores, script)


def official(
    rows: Sequence[Row], predictions: Predictions, script: Script = "vstar", judge: Judge | None = None
) -> Table:
    """Return what a script prints, in fractions of 4 decimals (the scores are means of 0 to 3, LGM has no upper end).

    The names are the printed ones; of the second chain ``(chain 2)`` stands behind them, and those of a length or
    domain have its label before them.

    Source: V-STaR-Bench/V-STaR@1894682b15be eval.py, or marinero4972/Open-o3-Video@1eb6ecae0507
    eval/test/eval_vstar.py; see ``scripts.vstar``.
    Deviation: 1. without the judge's scores what needs them is ``None``.

    Args:
        rows: The questions.
        predictions: Records by row id.
        script: ``vstar`` or ``openo3``.
        judge: Asked where a record has no score.
    """
    found = evaluation(rows, predictions, script, judge)
    unjudged = sum(_lacks_score(row, predictions.get(row.id), judge) for row in rows)
    figures: dict[str, Any] = {}
    for label, block in found.blocks.items():
        start = "" if label == OVERALL else f"{label}: "
        figures |= {f"{start}{name}": value for name, value in printed(block, judged=not unjudged).items()}
    scored = sum(bool(item) for item in found.items) if found.blocks else 0
    missing = sum(predictions.get(row.id) is None for row in rows)
    skipped = len(rows) - scored - missing if found.blocks else 0
    counts = {"missing": missing, "without an answer to what": skipped, "unjudged": unjudged}
    failures = {why: count for why, count in counts.items() if count > 0}
    error = None if found.error is None else str(found.error)
    return Table(f"official:{script}", figures, "fraction", scored, len(rows), failures, error=error)


def score(rows: Sequence[Row], predictions: Predictions, judge: Judge | None = None) -> Table:
    """Return what, when and where as a user means them, in fractions.

    ``accuracy``: the share of answers that the judge calls right. ``mIoU``, ``R@m``: times as in ``strict``, read from
    the model's own text where the record has it. ``vIoU``, ``AP@m``: boxes in pixels of the video, over all labelled
    frames; of several boxes of a frame the first counts. ``AM1`` to ``mLGM`` as in ``spatial``, where a perfect share
    stays finite. Every row is in every denominator, but one whose label is unusable, or whose judge gave no number,
    leaves that figure. Figures of a part that no prediction has are ``None``. A row's value is the mean of its parts.
    """
    answers = {row.id: _answer_of(row, predictions.get(row.id), judge) for row in rows}
    given = [answer for answer in answers.values() if answer is not None]
    unjudged = sum(_lacks_score(row, predictions.get(row.id), judge) for row in rows)
    failures: Counter[str] = Counter({"missing": len(rows) - len(given), "unjudged": unjudged})
    has_what = not given or any(answer.what for answer in given)
    rights: list[float | None] = [None] * len(rows)
    if has_what and not unjudged:
        rights = _column("what", rows, answers, failures, _grade_what)
    whens: list[list[float | None]] = []
    wheres: list[list[float | None]] = []
    aps: list[list[list[float]]] = []
    for at, chain in enumerate((" 1", " 2")):
        has_when = not given or any(answer.when[at] is not None for answer in given)
        has_where = not given or any(answer.where[at] is not None for answer in given)
        when = partial(_grade_when, chain=at)
        frames = _column(f"where{chain}", rows, answers, failures, partial(_grade_where, chain=at), has_where)
        whens.append(_column(f"when{chain}", rows, answers, failures, when, has_when))
        wheres.append([None if ious is None else viou(ious) for ious in frames])
        aps.append([ap_at(ious) for ious in frames if ious is not None])
    values: dict[str, float] = {}
    for row, *parts in zip(rows, rights, *whens, *wheres, strict=True):
        scored = [part for part in parts if part is not None]
        if scored:
            values[row.id] = sum(scored) / len(scored)
    figures = _strict_figures(rights, whens, wheres, aps)
    return Table("strict", figures, "fraction", len(values), len(rows), dict(+failures), values)


@dataclass(frozen=True)
class _Answer:
    """A prediction; when and where of both chains, ``None`` where not given."""

    what: Any = None
    score: int | None = None
    when: tuple[Any, ...] = (None,) * len(CHAINS)
    where: tuple[Any, ...] = (None,) * len(CHAINS)


def _by_id(records: Sequence[Record]) -> Iterator[tuple[str, Record]]:
    seen: Counter[str] = Counter()
    for record in records:
        vid = record.text("vid")
        seen[vid] += 1
        yield (vid if seen[vid] == 1 else f"{vid}#{seen[vid]}"), record


def _row(id: str, record: Record) -> Row:
    times = record.value("timestamps")
    if not isinstance(times, list) or len(times) != 2 or not all(map(is_number, times)):
        raise record.fault("timestamps", f"must be [start, end] in seconds, got {times!r:.80}")
    frames, fps = finite(record, "frame_count"), finite(record, "fps")
    if fps <= 0:
        raise record.fault("fps", f"must be greater than 0, got {fps!r}")
    _ = finite(record, "width"), finite(record, "height")
    for box in record.records("bboxes"):
        _check_box(box)
    return Row(
        id=id, video=record.text("vid"), question=record.text("question"), task="what_when_where",
        answer=record.text("answer"), windows=((float(times[0]), float(times[1])),),
        duration_seconds=round(frames / fps, 2),
        groups={"domain": record.text("domain") if record.has("domain") else "unknown",
                "length": length_of(frames, fps)},
        raw=record.fields,
    )  # fmt: skip


def _check_box(box: Record) -> None:
    """Check a box as published, or of the older layout, ``{"<timestamp>_<frame>": box}``.

    Raises:
        RecordError: It is neither.
    """
    if box.has("timestamp"):
        for name in ("timestamp", *_SIDES):
            finite(box, name)
        return
    for frame, inner in box.fields.items():
        if not isinstance(inner, dict):
            raise box.fault("timestamp", "is missing")
        for side in _SIDES:
            finite(Record(f"{box.where}, {frame}", inner), side)


_SIDES = ("xmin", "ymin", "xmax", "ymax")


def _score(row: Row, what: Any, prediction: Any, judge: Judge | None) -> int | None:
    """Return the judge's score of an answer to "what", -1 if it gave no number, ``None`` if there is no judge."""
    if not what:
        return None
    held = prediction if isinstance(prediction, Mapping) else {}
    given = next((held[name] for name in SCORES if is_number(held.get(name))), None)
    if given is not None:
        return int(given)
    if judge is None:
        return None
    asked = judge(row.question, row.answer or "", str(what))
    return UNREAD_SCORE if asked is None else asked


def _lacks_score(row: Row, prediction: Any, judge: Judge | None) -> bool:
    what = prediction.get("answer_vqa") if isinstance(prediction, Mapping) else prediction
    told = bool(what) and not isinstance(what, list)
    return told and judge is None and _score(row, what, prediction, None) is None


def _answer_of(row: Row, prediction: Any, judge: Judge | None) -> _Answer | None:
    if prediction is None:
        return None
    if not isinstance(prediction, Mapping):
        what = strict.answer_part(prediction) if isinstance(prediction, str) else None
        return _Answer(what, _score(row, what, None, judge), (prediction, prediction))
    what = prediction.get("answer_vqa")
    # The model's own text of times says more than what a script could read of it; boxes are read the same way.
    whens = [
        _first_of(prediction, f"answer_temporal_pre{chain}", f"answer_temporal{chain}") for chain in CHAINS
    ]
    wheres = [
        _first_of(prediction, f"answer_spatial{chain}", f"answer_spatial_pre{chain}") for chain in CHAINS
    ]
    return _Answer(what, _score(row, what, prediction, judge), tuple(whens), tuple(wheres))


def _first_of(prediction: Mapping[str, Any], *names: str) -> Any:
    """Return the first field that holds something, else the first that is there, such as an empty list."""
    given = [value for name in names if (value := prediction.get(name)) is not None]
    return next((value for value in given if value), given[0] if given else None)


def _column(
    name: str,
    rows: Sequence[Row],
    answers: Mapping[str, _Answer | None],
    failures: Counter[str],
    grade: Callable[[Row, _Answer], tuple[Value | None, str]],
    is_given: bool = True,
) -> list[Value | None]:
    """Return the grade of each row in one part, all ``None`` where no prediction has the part; failures are counted."""
    column: list[Value | None] = []
    for row in rows:
        answer = answers[row.id]
        value, why = grade(row, answer or _Answer()) if is_given else (None, "")
        column.append(value)
        if why and (answer is not None or why == "label_unusable"):
            failures[f"{name} {why}"] += 1
    return column


def _grade_what(row: Row, answer: _Answer) -> tuple[float | None, str]:
    del row
    if not answer.what:
        return 0.0, "missing"
    if answer.score is None or answer.score == UNREAD_SCORE:
        return None, "judge gave no number"
    return float(answer.score >= RIGHT_SCORE), ""


def _grade_when(row: Row, answer: _Answer, *, chain: int) -> tuple[float | None, str]:
    truth = strict.cut(row.windows, row.duration_seconds)
    if not truth:
        return None, "label_unusable"
    windows, why = strict.read_windows(answer.when[chain], row)
    return set_iou(windows, truth), why


def _grade_where(row: Row, answer: _Answer, *, chain: int) -> tuple[list[float] | None, str]:
    """Return the overlap in each labelled frame."""
    truth = {frame: box for frame, box in _labelled(row) if corners(box) is not None}
    if not truth:
        return None, "label_unusable"
    part = answer.where[chain]
    if part is None:
        return [0.0] * len(truth), "missing"
    found = extract_bounding_boxes(part, row.raw) if isinstance(part, str) else part
    read = (
        {_frame(frame): _first_box(value) for frame, value in found.items()}
        if isinstance(found, dict)
        else {}
    )
    return list(frame_ious(truth, read).values()), "" if any(read.values()) else "unparsed"


def _labelled(row: Row) -> Iterator[tuple[str, Corners]]:
    for entry in row.raw["bboxes"]:
        flat = "timestamp" in entry
        for frame, box in ((entry["timestamp"], entry),) if flat else entry.items():
            x1, y1, x2, y2 = (float(box[side]) for side in _SIDES)
            yield _frame(str(frame).split("_")[0]), (x1, y1, x2, y2)


def _frame(key: Any) -> str:
    """Return the name of a frame: 88, "88" and "88.0" are one."""
    text = str(key).strip()
    whole, dot, rest = text.partition(".")
    return whole if dot and not rest.strip("0") else text


def _first_box(value: Any) -> list[Corners]:
    if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple):
        value = value[0]
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(is_number, value)):
        return []
    x1, y1, x2, y2 = map(float, value)
    return [(x1, y1, x2, y2)]


def _strict_figures(
    rights: Sequence[float | None],
    whens: Sequence[Sequence[float | None]],
    wheres: Sequence[Sequence[float | None]],
    aps: Sequence[Sequence[Sequence[float]]],
) -> dict[str, float | None]:
    what = accuracy(rights)
    figures: dict[str, float | None] = {"accuracy": what}
    means: dict[str, list[float]] = {"AM": [], "LGM": []}
    for end, when, where, levels in zip(("", " (chain 2)"), whens, wheres, aps, strict=True):
        found, spatial = strict.overlap_figures(when), mean_tiou(where)
        figures |= {f"{name}{end}": value for name, value in found.items()} | {f"vIoU{end}": spatial}
        figures |= {
            f"AP@{level}{end}": mean_tiou([ap[at] for ap in levels]) for at, level in enumerate(LEVELS)
        }
        if what is not None and found["mIoU"] is not None and spatial is not None:
            means["AM"].append(arithmetic_mean(what, found["mIoU"], spatial))
            means["LGM"].append(log_geometric_mean(what, found["mIoU"], spatial))
    for name, values in means.items():
        one, two = values if len(values) == len(CHAINS) else (None, None)
        both = None if one is None or two is None else (one + two) / 2
        figures |= {f"{name}1": one, f"{name}2": two, f"m{name}": both}
    return {name: figures[name] for name in led(figures, LEADING)}


BENCHMARK = Benchmark(
    name="vstar",
    title="V-STaR",
    split="test (2,094 questions)",
    files=FILES,
    load=load,
    official={"vstar": partial(official, script="vstar"), "openo3": partial(official, script="openo3")},
    strict=score,
    read_predictions=read_predictions,
)
