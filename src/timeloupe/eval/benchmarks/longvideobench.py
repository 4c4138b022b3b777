"""LongVideoBench: referred reasoning over videos of four lengths."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from timeloupe.errors import RecordError
from timeloupe.eval import strict
from timeloupe.eval.extractors.letters import RANDOM_CHOICE, lmms_longvideobench, vlmeval_longvideobench
from timeloupe.eval.files.records import LETTERS, Record, existing, lmms_eval_samples, read_records
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.letters import LMMS_EVAL, VLMEVALKIT, marks

MAX_OPTIONS = 5
NO_OPTION = "N/A"
GROUPS = ("duration_group", "question_category")
"""What lmms-eval's table is split by; every row is in one group of each, and counts twice in its ``Overall``."""

FILES = "lvb_val.json of longvideobench/LongVideoBench, or the hub's records with option0 to option4"


def load(path: Path) -> list[Row]:
    """Return the rows of a file whose records have ``candidates``, or ``option0`` to ``option4``.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid; the message names the record and the field.
    """
    return [_row(record) for record in read_records(existing(path, FILES))]


def _row(record: Record) -> Row:
    options = _options(record)
    answer = None
    if record.has("correct_choice"):
        index = record.number("correct_choice")
        answer = LETTERS[int(index)] if index in range(len(LETTERS)) else str(record.value("correct_choice"))
    names = [name for name in (*GROUPS, "topic_category", "level") if record.has(name)]
    return Row(
        id=record.text("id"), video=record.text("video_id") if record.has("video_id") else record.text("id"),
        question=record.text("question") if record.has("question") else "", task="multiple_choice",
        options=options, answer=answer,
        duration_seconds=record.number("duration") if record.has("duration") else None,
        groups={name: record.text(name) for name in names}, raw=record.fields,
    )  # fmt: skip


def _options(record: Record) -> tuple[str, ...]:
    if record.has("candidates"):
        return record.texts("candidates")
    found: list[str] = []
    for at in range(MAX_OPTIONS):
        option = record.text(f"option{at}")
        if option == NO_OPTION:
            break
        found.append(option)
    return tuple(found)


def lmms_eval(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return number (``num``) and share right (``acc``, 5 decimals) of each group and ``Overall``.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe tasks/longvideobench/utils.py. Notes:

    1. Where no letter is read an option is drawn with Python's ``random``, as in a process that seeds it with 0 (the
       harness's default) and draws nothing else before: row by row in the order of the file.
    2. ``Overall`` counts each row in its duration group and again in its category.
    3. The harness takes ``<think>`` out before it; texts are read here as they are.

    Raises:
        OfficialError: A row has no such group, or nothing is there to draw from.
    """
    draw = random.Random(0)
    num_drawn = 0

    def mark(row: Row, text: str) -> bool:
        nonlocal num_drawn
        letter = lmms_longvideobench(text)
        if letter == RANDOM_CHOICE:
            num_drawn += 1
            if not row.options:
                raise OfficialError("IndexError", "Cannot choose from an empty sequence")
            letter = draw.choice(LETTERS[: len(row.options)])
        return letter == row.answer

    found = marks(rows, predictions, mark)
    found.failures["drawn at random"] = num_drawn
    rights: dict[str, list[bool]] = {}
    for row, right in found.by_row:
        for name in GROUPS:
            if name not in row.groups:
                raise OfficialError("KeyError", repr(name))
            rights.setdefault(row.groups[name], []).append(bool(right))
    figures: dict[str, float] = {}
    weighted, number = 0.0, 0
    for name, some in rights.items():
        share = sum(some) / len(some)
        weighted += share * len(some)
        number += len(some)
        figures |= {f"{name} num": len(some), f"{name} acc": round(share, 5)}
    figures |= {"Overall num": number, "Overall acc": round(weighted / number, 5) if number else 0.0}
    return found.table(LMMS_EVAL, figures, "fraction", ("Overall acc", "Overall num"))


def vlmevalkit(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the shares of all questions that are right by duration, by category and ``overall``, unrounded.

    Source: open-compass/VLMEvalKit@e8e78f05 vlmeval/dataset/longvideobench.py with ``exact_matching``, no judge. Where
    no letter is read the script goes on to ``can_infer`` with the options that stand in the question's text; there are
    none in this benchmark's, so such a reply is wrong. A row without prediction is wrong.
    """
    texts = {row.id: text if (text := predictions.get(row.id)) is not None else "nan" for row in rows}
    found = marks(rows, texts, lambda row, text: vlmeval_longvideobench(text) == row.answer)
    everything = found.count()
    shares = {"overall": everything.share() if everything.total else None}
    for name in GROUPS:
        shares |= {value: count.share() for value, count in found.by_group(name).items()}
    return found.table(VLMEVALKIT, shares, "fraction")


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the predictions of lmms-eval's samples; its submission file ``{id: text}`` needs no reader.

    Raises:
        RecordError: It is something else.
    """
    found = lmms_eval_samples(read_records(path), "lvb_acc", "id")
    if found is None:
        raise RecordError(f"{path} holds neither {{id: text}} nor samples of lmms-eval (``filtered_resps``)")
    return found


BENCHMARK = Benchmark(
    name="longvideobench",
    title="LongVideoBench",
    split="validation",
    files=FILES,
    load=load,
    official={LMMS_EVAL: lmms_eval, VLMEVALKIT: vlmevalkit},
    strict=strict.multiple_choice,
    read_predictions=read_predictions,
)
