"""CG-Bench (Chen et al. 2024): questions on long videos and the clues that answer them.

A prediction is a record of replies by task (``long_acc``: letter from the whole video, ``clue_acc``: letter from the
clue clips, ``miou``: windows of the clues), a record of VideoMind's (``response``, ``pred``, ``conf``), or a model's
text, which stands for ``long_acc`` and, in the strict mode, for its windows too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timeloupe.errors import RecordError
from timeloupe.eval.extractors.letters_check import cgbench_json
from timeloupe.eval.files.records import Record, existing, read_json, read_records
from timeloupe.eval.files.windows import each_once, finite, is_number, windows
from timeloupe.eval.qa_grounding import Halves, strict_table
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table
from timeloupe.eval.scripts.cgbench import (
    TASKS,
    lmms,
    stat_with_key,
    videomind,
    videomind_confident,
)
from timeloupe.eval.strict import multiple_choice

FILES = "cgbench_mini.json or cgbench.json of CG-Bench/CG-Bench"
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)


def load(path: Path) -> list[Row]:
    """Return the rows of cgbench.json or cgbench_mini.json, or of a folder with a file per question.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid (the message names the record and the field), or ids repeat.
    """
    return [_row(record) for record in each_once(_records(existing(path, FILES)), "qid").values()]


def _records(path: Path) -> list[Record]:
    if not path.is_dir():
        return read_records(path)
    found = [(file, read_json(file)) for file in sorted(path.glob("*.json"))]
    if not found:
        raise RecordError(f"{path} holds no .json file, expected {FILES}")
    for file, fields in found:
        if not isinstance(fields, dict):
            raise RecordError(f"{file} must hold one question, got {fields!r:.80}")
    return [Record(str(file), fields) for file, fields in found]


def _row(record: Record) -> Row:
    groups = {
        name: record.text(field)
        for name, field in (("domain", "domain"), ("task", "sub_category"))
        if record.has(field)
    }
    return Row(
        id=record.text("qid"), video=record.text("video_uid"), question=record.text("question"),
        task="multiple_choice", options=record.texts("choices"), answer=record.text("right_answer"),
        windows=windows(record, "clue_intervals"),
        duration_seconds=finite(record, "duration") if record.has("duration") else None,
        groups=groups, raw=record.fields,
    )  # fmt: skip


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return predictions in one of three layouts, told by what the file holds.

    1. Records of ``qid`` and replies under ``long_acc``, ``clue_acc``, ``miou``.
    2. Output of VideoMind: records of ``question``, ``span``, ``ans`` and ``response``, ``pred``, ``conf``, without
       ids; they belong to the rows of the same words, letter and windows, in order.
    3. A folder of the authors' own, one file per question with ``results`` of one model, already judged.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is in none of them, is of no row, or has results of several models.
    """
    records = _records(path)
    if not records:
        raise RecordError(f"{path} holds no record")
    first = records[0]
    if first.has("results"):
        return {id: _judged(record) for id, record in each_once(records, "qid").items()}
    if first.has("qid"):
        return {id: _replies(record) for id, record in each_once(records, "qid").items()}
    if first.has("question") and first.has("span"):
        return _of_videomind(records, rows)
    raise first.fault(
        "qid", f"is missing, and so are the fields of VideoMind, got {sorted(first.fields)[:8]}"
    )


def _replies(record: Record) -> dict[str, Any]:
    found = {task: record.fields[task] for task in TASKS if task in record.fields}
    if not found:
        raise record.fault("long_acc", f"is missing, and so are {', '.join(TASKS[1:])}")
    for task, reply in found.items():
        if not isinstance(reply, str | None):
            raise record.fault(task, f"must be a text or null, got {reply!r:.80}")
    return found


def _judged(record: Record) -> dict[str, Any]:
    results = record.value("results")
    if not isinstance(results, dict):
        raise record.fault("results", f"must be {{key: {{result}}}}, got {results!r:.80}")
    found: dict[str, Any] = {}
    for task in TASKS:
        keys = [key for key in results if key.startswith(f"{task}_")]
        if len(keys) > 1:
            raise record.fault("results", f"has several results of {task}: {', '.join(sorted(keys)[:4])}")
        if keys:
            result = results[keys[0]].get("result") if isinstance(results[keys[0]], dict) else None
            if not is_number(result):
                raise record.fault(
                    "results", f"must have a number under {keys[0]}, got {results[keys[0]]!r:.80}"
                )
            found[task] = result
    return found


def _of_videomind(records: Sequence[Record], rows: Sequence[Row]) -> Predictions:
    places: defaultdict[Any, list[str]] = defaultdict(list)
    for row in rows:
        places[_key(row.question, row.answer, row.raw.get("clue_intervals"))].append(row.id)
    found: dict[str, Any] = {}
    for record in records:
        ids = places.get(_key(record.text("question"), record.text("ans"), record.value("span")), [])
        if not ids:
            raise RecordError(
                f"{record.where}: no question of the annotations has its words, letter and windows"
            )
        found[ids.pop(0)] = record.fields
    return found


def _key(question: str, answer: str | None, truth: Any) -> tuple[str, str | None, str]:
    """What question and row have in common: VideoMind changes capitals and the marks around a question."""
    return "".join(re.findall(r"\w", question.casefold())), answer, str(truth)


def strict(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the figures of ``qa_grounding.strict_table`` for the whole video, and the letters from clue clips.

    ``rec@IoU`` and ``acc@IoU`` are the means of ``R@m`` and ``Acc@IoU m`` over m = 0.1 to 0.5; ``clue accuracy`` is
    that of ``clue_acc``. The "result" of a ``json`` fence, which the benchmark's prompt asks for, is the answer. Of
    VideoMind's ranked windows the first is the answer. Results that the authors' script has judged hold no reply:
    nothing can be read from them, and they are counted under ``judged already``.
    """
    judged = sum(_is_judged(prediction) for prediction in predictions.values())
    if judged:
        none: dict[str, float | None] = dict.fromkeys(
            ("accuracy", "mIoU", "rec@IoU", "acc@IoU", "clue accuracy")
        )
        return Table("strict", none, "fraction", 0, len(rows), {"judged already": judged})
    table = strict_table(rows, predictions, _halves, LEVELS)
    figures = dict(table.figures)
    for mean, name in (("rec@IoU", "R@{}"), ("acc@IoU", "Acc@IoU {}")):
        parts = [figures[name.format(level)] for level in LEVELS]
        figures[mean] = None if None in parts else sum(parts) / len(parts)
    clues = {
        id: _answer(one["clue_acc"])
        for id, one in predictions.items()
        if isinstance(one, Mapping) and "clue_acc" in one
    }
    figures["clue accuracy"] = multiple_choice(rows, clues).figures["accuracy"] if clues else None
    return Table(
        table.mode, figures, table.unit, table.num_scored, table.num_total, table.failures, table.values
    )


def _is_judged(prediction: Any) -> bool:
    return isinstance(prediction, Mapping) and any(is_number(prediction.get(task)) for task in TASKS)


def _halves(prediction: Any) -> Halves:
    if isinstance(prediction, str):
        answer = _answer(prediction)
        return Halves(answer if isinstance(answer, str) else prediction, answer)
    if not isinstance(prediction, Mapping):
        return Halves(windows=prediction)
    if "pred" in prediction or "response" in prediction:
        ranked = prediction.get("pred")
        return Halves(prediction.get("response"), ranked[:1] if isinstance(ranked, list) else ranked)
    return Halves(_answer(prediction.get("long_acc")), _answer(prediction.get("miou")))


def _answer(reply: Any) -> Any:
    """Return the "result" of a reply's ``json`` fence if it is a letter or windows, else the reply."""
    if not isinstance(reply, str):
        return reply
    found, result = cgbench_json(reply, quote_words=True)
    return result if found and isinstance(result, str | list) else reply


BENCHMARK = Benchmark(
    name="cgbench",
    title="CG-Bench",
    split="mini or full, by the file",
    files=FILES,
    load=load,
    official={
        "cgbench": stat_with_key,
        "lmms-eval": lmms,
        "videomind": videomind,
        "videomind-confident": videomind_confident,
    },
    strict=strict,
    read_predictions=read_predictions,
    joint=True,
)
