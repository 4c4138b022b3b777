"""E.T. Bench (Liu et al. 2024): twelve tasks about events and when they happen, on videos of many data sets.

Tasks: rar, eca, rvq (choose an option), tvg, epm, tal, evs, vhd (find times), dvc, slc (caption with times), tem (find
the same event elsewhere), gvq (choose an option and find the time). A prediction is the model's text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timeloupe.errors import MissingError
from timeloupe.eval import qa_grounding, strict
from timeloupe.eval.files.records import LETTERS, Record, existing, read_json, read_records, records_of
from timeloupe.eval.files.windows import finite, is_number, windows
from timeloupe.eval.metrics import accuracy
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table, Window
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.etbench_tasks import DIGITS, EVALUATORS, Graded, Similarity, spelling_similarity
from timeloupe.eval.scripts.grounding import answered, score_table
from timeloupe.grounding import set_iou
from timeloupe.prompt.segments import MAX_CHARACTERS, parse_segments
from timeloupe.prompt.times import read_items
from timeloupe.trajectory import Problem, Task

FILES = "etbench_txt_v1.0.json, or a folder of such files, as PolyU-ChenLab/ETBench has them"

ONE_WINDOW = ("tvg", "epm", "gvq")
CHOICE = ("rar", "eca", "rvq", "gvq")
KINDS: dict[str, Task] = {
    "tvg": "grounding", "epm": "grounding", "tem": "grounding", "tal": "multi_segment", "evs": "multi_segment",
    "dvc": "multi_segment", "slc": "multi_segment", "vhd": "open", "rar": "multiple_choice",
    "eca": "multiple_choice", "rvq": "multiple_choice", "gvq": "multiple_choice",
}  # fmt: skip

# The script's four tables: their tasks in its order, its name of each mean over sources, and its name of the whole.
_REFERRING = {"rar": "RAR (Acc)", "eca": "EVC (Acc)", "rvq": "RVQ (Acc)"}
_GROUNDING = {"tvg": "TVG (F1)", "epm": "EPM (F1)", "tal": "TAL (F1)", "evs": "EVS (F1)", "vhd": "VHD (F1)"}
_CAPTIONING = {"dvc": "DVC (F1)", "slc": "SLC (F1)"}
_COMPLEX = {"tem": "TEM (Rec)", "gvq": "GVQ (Rec)"}
_TABLES = (
    ("Acc", "Mean Acc", "Acc (ref)", _REFERRING),
    ("F1", "Mean F1 (grounding)", "F1 (gnd)", _GROUNDING),
    ("F1", "Mean F1 (captioning)", "F1 (cap)", _CAPTIONING),
    ("mRec", "", "Rec (com)", _COMPLEX),
)


def load(path: Path) -> list[Row]:
    """Return the rows of an annotation file, or of all files of a folder that hold lists of such records.

    The id of a row is ``task/source/idx``. Its question is the whole prompt of the file, options and all.

    Raises:
        MissingError: There is no such file, or none in the folder.
        RecordError: A record is not valid; the message names the file, the record and the field.
    """
    rows: dict[str, Row] = {}
    for record in _records(existing(path, FILES)):
        row = _row(record)
        if row.id in rows:
            raise record.fault("idx", f"makes the id {row.id!r} a second time")
        rows[row.id] = row
    return list(rows.values())


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the answers of the script's layout: the annotation file with the model's text under ``a``, by row id.

    Raises:
        MissingError: There is no such file, or none in the folder.
        RecordError: A record lacks ``task``, ``source``, ``idx`` or ``a``.
    """
    del rows
    return {_id(record): record.text("a") for record in _records(path)}


def official(
    rows: Sequence[Row], predictions: Predictions, similarity: Similarity = spelling_similarity
) -> Table:
    """Return the script's figures, in fractions of 5 decimals, and its counts.

    ``<task> <source> <name>`` is what it writes to metrics.json; ``TVG (F1)`` and so on are the means over sources,
    ``Mean ...`` those over the lines of a table, ``F1 (gnd)`` and so on those over tasks, with the 3 decimals that its
    percents have, where all tasks of the table are there.

    Source: THUNLP-MT/MUSEG@889565e78b21, data/eval/et_bench/compute_metrics.py, as in ``scripts.etbench_tasks``.
    Deviations:

    1. Those of ``scripts.etbench_tasks``.
    2. Where a task is missing, the script prints its tables and then ends with an IndexError, without metrics.json;
       here the figures that it has printed are returned.

    Args:
        rows: The questions.
        predictions: Texts by row id; rows without one are not in the script's file.
        similarity: What decides where an answer names no option.

    Raises:
        OfficialError: The script raises on an answer or on the labels; the message says for which task and source.
    """
    groups: dict[tuple[str, str], list[tuple[Row, Any]]] = {}
    for row, prediction in answered(rows, predictions):
        groups.setdefault((row.groups["task"], row.groups["source"]), []).append((row, prediction))
    graded = {key: _graded(key, pairs, similarity) for key, pairs in groups.items()}
    figures: dict[str, Any] = _means({key: one.figures for key, one in graded.items()})
    judged: list[tuple[str, float, bool]] = []
    for (task, source), one in graded.items():
        figures |= {f"{task} {source} {name}": value for name, value in one.figures.items()}
        judged += [(row.id, float("nan") if value is None else value, False)
                   for (row, _), value in zip(groups[task, source], one.values, strict=True)]  # fmt: skip
    table = score_table("etbench", figures, "fraction", rows, judged)
    unread = sum(int(one.figures["Failed"]) for one in graded.values())
    failures = dict(table.failures) | ({"unparsed": unread} if unread else {})
    return Table(table.mode, figures, "fraction", len(judged), len(rows), failures, table.values)


def score(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the strict figures of each task, in fractions, their names behind the task's.

    tvg, epm as in ``strict.grounding``; tal, evs, dvc, slc as in ``strict.multi_segment`` (sentences are not graded);
    rar, eca, rvq as in ``strict.multiple_choice``; gvq as in ``qa_grounding.strict_table``. tem: the true window that
    the answer overlaps most counts. vhd: ``hit``, the share of answers whose one time lies in a window of any
    annotator; a window stands for its middle, and a text with several times is unparsed.
    """
    leading: dict[str, float | None] = {}
    figures: dict[str, float | None] = {}
    failures: Counter[str] = Counter()
    values: dict[str, float] = {}
    scored = 0
    for task in dict.fromkeys(row.groups["task"] for row in rows):
        some = [row for row in rows if row.groups["task"] == task]
        table = _STRICT.get(task, strict.grounding)(some, predictions)
        found = {f"{task} {name}": value for name, value in table.figures.items() if "=" not in name}
        leading |= dict(list(found.items())[:1])
        figures |= found
        failures.update(table.failures)
        values |= table.values
        scored += table.num_scored
    return Table("strict", leading | figures, "fraction", scored, len(rows), dict(failures), values)


def _records(path: Path) -> list[Record]:
    if not path.is_dir():
        return read_records(path)
    found: list[Record] = []
    for file in sorted(one for one in path.iterdir() if one.suffix in (".json", ".jsonl")):
        if file.suffix == ".jsonl":
            found += read_records(file)
        elif isinstance(values := read_json(file), list):  # metrics.json and subset.json are objects
            found += records_of(values, str(file))
    if not found:
        raise MissingError(f"no list of records in any file of {str(path)!r}, expected {FILES}")
    return found


def _id(record: Record) -> str:
    return "/".join(record.text(name) for name in ("task", "source", "idx"))


def _row(record: Record) -> Row:
    task = record.text("task")
    if task not in KINDS:
        raise record.fault("task", f"is {task!r}, allowed: {', '.join(KINDS)}")
    options = _options(record) if task in CHOICE else ()
    return Row(
        id=_id(record), video=record.text("video"), question=record.text("q"), task=KINDS[task], options=options,
        answer=_letter(record, len(options)) if options else None,
        windows=_windows(record, task) if task not in CHOICE or task == "gvq" else (),
        duration_seconds=finite(record, "duration") if record.has("duration") else None,
        groups={"task": task, "source": record.text("source")}, raw=record.fields,
    )  # fmt: skip


def _options(record: Record) -> tuple[str, ...]:
    value = record.value("o")
    if not isinstance(value, list) or len(value) not in (4, 5):
        raise record.fault("o", f"must be a list of 4 or 5 options, got {value!r:.80}")
    for option in value:
        if not isinstance(option, str) and not _is_window(option):
            raise record.fault("o", f"must hold texts or [start, end], got {option!r:.80}")
    return tuple(option if isinstance(option, str) else f"{option[0]} - {option[1]}" for option in value)


def _letter(record: Record, num_options: int) -> str:
    value = record.value("p")
    if type(value) is not int or not 0 <= value < num_options:
        raise record.fault("p", f"must be the number of an option, 0 to {num_options - 1}, got {value!r:.80}")
    return LETTERS[value]


def _windows(record: Record, task: str) -> tuple[Window, ...]:
    value = record.value("tgt")
    if task in ONE_WINDOW:
        if not _is_window(value):
            raise record.fault("tgt", f"must be [start, end] in seconds, got {value!r:.80}")
        return ((float(value[0]), float(value[1])),)
    if task == "vhd" and isinstance(value, list) and value and not _is_window(value[0]):
        inner = [Record(record.where, {"tgt": annotator}) for annotator in value]
        return tuple(window for annotator in inner for window in windows(annotator, "tgt"))
    return windows(record, "tgt")


def _is_window(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _graded(key: tuple[str, str], pairs: Sequence[tuple[Row, Any]], similarity: Similarity) -> Graded:
    for row, prediction in pairs:
        if not isinstance(prediction, str):
            kind = "TypeError" if key[0] in (*CHOICE, "vhd") else "AttributeError"
            raise OfficialError(kind, f"{row.id}: the script takes texts, got {prediction!r:.80}")
    try:
        return EVALUATORS[key[0]]([{**row.raw, "a": text} for row, text in pairs], similarity)
    except OfficialError as error:
        what = str(error).removeprefix(error.kind).removeprefix(": ")
        raise OfficialError(error.kind, f"{' '.join(key)}: {what}") from error


def _means(graded: Mapping[tuple[str, str], Mapping[str, float]]) -> dict[str, float]:
    """Return the script's means: of each task over its sources, and of each table."""
    found: dict[str, float] = {}
    means: dict[str, float] = {}
    merged: dict[str, float] = {}
    for name, mean_name, merged_name, tasks in _TABLES:
        lines: list[float] = []
        for task, label in tasks.items():
            some = [figures[name] for (one, _), figures in graded.items() if one == task]
            lines += some
            if some:
                found[label] = round(sum(some) / len(some), DIGITS)
        if lines and mean_name:
            means[mean_name] = round(sum(lines) / len(lines), DIGITS)
        if found.keys() >= set(tasks.values()):
            percent = round(sum(found[label] for label in tasks.values()) * 100 / len(tasks), 1)
            merged[merged_name] = percent / 100
    return means | found | merged


def _strict_tem(rows: Sequence[Row], predictions: Predictions) -> Table:
    def value(row: Row, prediction: Any) -> tuple[float | None, str]:
        truths = [cut for window in row.windows if (cut := strict.cut([window], row.duration_seconds))]
        if not truths:
            return None, "label_unusable"
        found, why = strict.read_windows(prediction, row)
        return max(set_iou(found, truth) for truth in truths), why

    return strict.graded(rows, predictions, value, strict.overlap_figures)


def _strict_vhd(rows: Sequence[Row], predictions: Predictions) -> Table:
    def value(row: Row, prediction: Any) -> tuple[float | None, str]:
        truth = [(start, end) for start, end in row.windows if start <= end]
        if not truth:
            return None, "label_unusable"
        seconds, why = _one_time(prediction, row)
        return float(
            any(start <= seconds <= end for start, end in truth)
        ) if seconds is not None else 0.0, why

    return strict.graded(rows, predictions, value, lambda rights: {"hit": accuracy(rights)})


def _one_time(prediction: Any, row: Row) -> tuple[float | None, str]:
    """Return the one time of an answer in seconds, and "" or why there is none."""
    if not isinstance(prediction, str):
        found, why = strict.read_windows(prediction, row)
        return ((found[0][0] + found[0][1]) / 2, "") if len(found) == 1 else (None, why or "unparsed")
    text = strict.answer_part(prediction)
    if len(text) > MAX_CHARACTERS:
        return None, "unparsed"
    times = [item.seconds for item in read_items(text, strict=False) if item.kind == "time"]
    if len(times) == 1:
        return times[0], ""
    segments = parse_segments(text)
    if isinstance(segments, Problem) or len(segments) != 1:
        return None, "unparsed"
    return (segments[0].start_seconds + segments[0].end_seconds) / 2, ""


def _strict_gvq(rows: Sequence[Row], predictions: Predictions) -> Table:
    return qa_grounding.strict_table(rows, predictions, lambda text: qa_grounding.Halves(text, text))


_STRICT: dict[str, Callable[[Sequence[Row], Predictions], Table]] = {
    "tal": strict.multi_segment, "evs": strict.multi_segment, "dvc": strict.multi_segment,
    "slc": strict.multi_segment, "rar": strict.multiple_choice, "eca": strict.multiple_choice,
    "rvq": strict.multiple_choice, "gvq": _strict_gvq, "tem": _strict_tem, "vhd": _strict_vhd,
}  # fmt: skip

BENCHMARK = Benchmark(
    name="etbench",
    title="E.T. Bench",
    split="test (7,289 questions; the commercial models of the paper answered 470 of them)",
    files=FILES,
    load=load,
    official={"etbench": official},
    strict=score,
    read_predictions=read_predictions,
    joint=True,
)
