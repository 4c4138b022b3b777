"""NExT-QA, multiple choice: causal, temporal and descriptive questions with five options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timeloupe.errors import RecordError
from timeloupe.eval import strict as strictly
from timeloupe.eval.files.records import LETTERS, Record, existing, letter_of, read_csv, read_json
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.letters import Count, printed

TYPES = {
    "CW": "Why", "CH": "How", "TN": "Bef&Aft", "TC": "When", "DC": "Cnt", "DL": "Loc", "DO": "Other",
    "C": "Acc_C", "T": "Acc_T", "D": "Acc_D",
}  # fmt: skip
"""A question's type, or its first letter for all types of that kind -> the script's name of the figure."""

NUM_OPTIONS = 5
NO_ANSWER = -1

FILES = "val.csv or test.csv of doc-doc/NExT-QA"


def load(path: Path) -> list[Row]:
    """Return the rows of a CSV file; ``answer`` is the index of an option, or its text as in NExT-GQA's files.

    Raises:
        MissingError: There is no such file.
        RecordError: A line is not valid; the message names the line and the field.
    """
    return [_row(record) for record in read_csv(existing(path, FILES))]


def _row(record: Record) -> Row:
    options = tuple(record.text(f"a{at}") for at in range(NUM_OPTIONS))
    answer = record.text("answer")
    index = int(answer) if answer.isascii() and answer.isdigit() and len(answer) < 3 else None
    if index is not None:
        answer = LETTERS[index] if index < NUM_OPTIONS else answer
    else:
        answer = letter_of(options, answer)
    return Row(
        id=f"{record.text('video')}_{record.text('qid')}", video=record.text("video"),
        question=record.text("question"), task="multiple_choice", options=options, answer=answer,
        groups={"type": record.text("type")}, raw=record.fields,
    )  # fmt: skip


def eval_mc(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return percent right by type, by kind and of all (``Acc``), 2 decimals.

    Source: doc-doc/NExT-QA@6b92588a eval_mc.py. "Before" questions (TP) count as "after" (TN). Deviations:

    1. The script takes ``{"prediction": index, "answer": index}`` and believes the answer in the prediction file. That
       is done here where it is given; else the annotation's answer stands.
    2. A prediction that is a text is read as in the strict mode first; a text without option is index -1.

    Raises:
        OfficialError: A row has no prediction, a type is unknown, or a type has no question.
    """
    kinds = ["TN" if row.groups["type"] == "TP" else row.groups["type"] for row in rows]
    for kind in kinds:
        if kind not in TYPES or len(kind) == 1:
            raise OfficialError("KeyError", repr(kind))
    rights: dict[str, list[bool]] = {name: [] for name in TYPES}
    values: dict[str, float] = {}
    for row, kind in zip(rows, kinds, strict=True):
        right = _is_right(row, predictions)
        rights[kind].append(right)
        rights[kind[0]].append(right)
        values[row.id] = float(right)
    counts = {TYPES[kind]: Count(sum(some), len(some)) for kind, some in rights.items()}
    counts["Acc"] = Count(sum(counts[name].right for name in ("Acc_C", "Acc_T", "Acc_D")), len(rows))
    figures = {name: printed(counts[name].percent(), 2) for name in ("Acc", *TYPES.values())}
    return Table("official:eval_mc", figures, "percent", len(rows), len(rows), values=values)


def _is_right(row: Row, predictions: Predictions) -> bool:
    prediction = predictions.get(row.id)
    if prediction is None:
        raise OfficialError("KeyError", repr(row.id))
    if isinstance(prediction, dict):
        if missing := {"prediction", "answer"} - prediction.keys():
            raise OfficialError("KeyError", repr(min(missing)))
        return bool(prediction["answer"] == prediction["prediction"])
    index = LETTERS.find(row.answer) if row.answer is not None and len(row.answer) == 1 else NO_ANSWER
    return index != NO_ANSWER and index == index_of(row, prediction)


def index_of(row: Row, prediction: Any) -> int:
    """Return the index of the option that a prediction names: an index itself, or a text; -1 if it names none."""
    if isinstance(prediction, dict):
        prediction = prediction.get("prediction")
    if isinstance(prediction, int) and not isinstance(prediction, bool):
        return prediction
    letter, _ = strictly.read_letter(prediction, row)
    return LETTERS.index(letter) if letter else NO_ANSWER


def strict(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the strict figures; an index is read as the letter of its option, and the annotation's answer counts."""
    letters = {
        row.id: LETTERS[index] if 0 <= (index := index_of(row, prediction)) < NUM_OPTIONS else ""
        for row in rows
        if (prediction := predictions.get(row.id)) is not None
    }
    return strictly.multiple_choice(rows, letters)


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the predictions of ``{"video_qid": {"prediction": index, "answer": index}}``.

    Raises:
        RecordError: It is something else.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not all(isinstance(one, dict | int) for one in found.values()):
        raise RecordError(
            f'{path} is no object of {{"video_qid": {{"prediction": index, "answer": index}}}}: {found!r:.80}'
        )
    return found


BENCHMARK = Benchmark(
    name="nextqa",
    title="NExT-QA (multiple choice)",
    split="as the file: val.csv or test.csv",
    files=FILES,
    load=load,
    official={"eval_mc": eval_mc},
    strict=strict,
    read_predictions=read_predictions,
)
