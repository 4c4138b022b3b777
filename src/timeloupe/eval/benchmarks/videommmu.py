"""Video-MMMU: what is learnt from lectures, in three tasks; a few questions of Adaptation are open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timeloupe.errors import RecordError
from timeloupe.eval import strict as strictly
from timeloupe.eval.extractors.letters import videotemp_first
from timeloupe.eval.extractors.letters_search import lmms_videommmu, videommmu
from timeloupe.eval.files.records import (
    LETTERS,
    Places,
    Record,
    bare_options,
    existing,
    lmms_eval_samples,
    read_json,
    read_records,
    records_of,
    reply_of,
)
from timeloupe.eval.metrics import accuracy
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Scorer, Table
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.letters import LMMS_EVAL, VIDEOTEMP_O3, Marks, groups_of, marks, printed_percent
from timeloupe.eval.scripts.open_answers import is_right, last_number, number_of, read_open

TASKS = ("Adaptation", "Comprehension", "Perception")
CHOICE, OPEN = "multiple-choice", "open"
API_ERROR = "API Error"

SUBJECTS = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        "Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy",
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Sociology", "Psychology"),
    "Tech and Engineering": (
        "Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power",
        "Materials", "Mechanical_Engineering",
    ),
}  # fmt: skip
"""Discipline -> its subjects, as the scripts group them."""

_SUBJECT = re.compile(r"[^_]*_(.+?)_\d+$")

FILES = (
    "the folder of adaptation_video.json, comprehension_video.json and perception_video.json, or one of them"
)


def load(path: Path) -> list[Row]:
    """Return the rows of a file, or of all files of a folder, each ``{task: {number: record}}``.

    A row's id is ``task/id``, since the three tasks share their ids. Where a file does not say ``question_type`` (only
    Adaptation's does) a question with options is multiple choice, as on the hub.

    Raises:
        MissingError: There is nothing.
        RecordError: A record is not valid, or there is no such file.
    """
    files = sorted(path.glob("*.json")) if existing(path, FILES).is_dir() else [path]
    by_task: dict[str, list[Row]] = {}
    for file in files:
        whole = read_json(file)
        for task in TASKS if isinstance(whole, dict) else ():
            if task in whole:
                records = whole[task]
                values = list(records.values()) if isinstance(records, dict) else records
                by_task[task] = [_row(task, record) for record in records_of(values, f"{file}, {task}")]
    if not by_task:
        raise RecordError(f"{path} holds none of {', '.join(TASKS)}, expected {FILES}")
    return [row for task in TASKS for row in by_task.get(task, [])]


def _row(task: str, record: Record) -> Row:
    options = record.texts("options") if record.has("options") else ()
    kind = record.text("question_type") if record.has("question_type") else (CHOICE if options else OPEN)
    answer = record.value("answer")
    id = record.text("id")
    subject = _SUBJECT.match(id)
    return Row(
        id=f"{task}/{id}", video=id, question=record.text("question"),
        task="multiple_choice" if kind == CHOICE else "open", options=bare_options(options),
        answer=str(answer), groups={
            "task": task, "question_type": kind, "subject": subject.group(1) if subject else "",
        },
        raw=record.fields,
    )  # fmt: skip


def parsed(row: Row, text: str, head: bool = False) -> Any:
    """Return what the official script reads from a reply: a letter or a word for none, or what an open answer says.

    Args:
        row: The question.
        text: The reply.
        head: As lmms-eval's HEAD reads letters, instead of the repository's own copy.
    """
    if row.groups["question_type"] != CHOICE:
        return API_ERROR if text in ("", API_ERROR) else read_open(text)
    options = dict(zip(LETTERS, row.raw["options"], strict=False))
    return lmms_videommmu(text, list(options)) if head else videommmu(text, options)


def _official(script: str, head: bool) -> Scorer:
    def score(rows: Sequence[Row], predictions: Predictions) -> Table:
        """Return number (``num``) and share right (``acc``, 5 decimals) by task: all, disciplines, subjects.

        Source: EvolvingLMMs-Lab/VideoMMMU@88b4ac3e lmms_eval/tasks/videommmu/utils.py; lmms-eval@75571cfe has the same
        with another reader of letters. Replies that are empty or "API Error" leave the denominator (in HEAD those to
        open questions only). Each task is a run of its own, so every figure starts with the task's name.

        Raises:
            OfficialError: An id holds no subject.
        """

        def mark(row: Row, text: str) -> bool | None:
            if not row.groups["subject"]:
                raise OfficialError("ValueError", f"No match found in {row.raw['id']!r}")
            found = parsed(row, text, head)
            if found == API_ERROR:
                return None
            truth = row.raw["answer"]
            kind = row.groups["question_type"]
            if kind in (CHOICE, "perception"):
                return found in truth if isinstance(truth, list) else found == truth
            return is_right(found, truth)

        found = marks(rows, predictions, mark, dropped=API_ERROR)
        figures: dict[str, float] = {}
        for task in groups_of(rows, "task"):
            some = [one for one in found.by_row if one[0].groups["task"] == task]
            figures |= {f"{task}: {name}": value for name, value in _by_subject(Marks(some, 0)).items()}
        first = [f"{task}: Overall {what}" for task in groups_of(rows, "task") for what in ("acc", "num")]
        return found.table(script, figures, "fraction", first)

    return score


def _by_subject(found: Marks) -> dict[str, float]:
    tally = {name: count for name, count in found.by_group("subject").items() if count.total}
    figures: dict[str, float] = {}

    def add(name: str, subjects: Sequence[str]) -> None:
        counts = [tally[subject] for subject in subjects]
        number = sum(count.total for count in counts)
        # A mean of rounded-off shares, weighted by their numbers, as the script has it.
        right = sum(count.share() * count.total for count in counts)
        figures[f"{name} num"] = number
        figures[f"{name} acc"] = round(right / number, 5) if number else 0.0

    for discipline, subjects in SUBJECTS.items():
        there = [subject for subject in subjects if subject in tally]
        add(f"Overall-{discipline}", there)
        for subject in there:
            add(subject, [subject])
    add("Overall", list(tally))
    return figures


def videotemp_o3(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return correct, total and percent (2 decimals) of each task, and ``Average``, the mean of the three tasks.

    Source: VideoTemp-o3 eval/score.py, ``eval_videommmu``, at Kwai-Keye/VideoTemp-o3@e30b4d98. Multiple choice only;
    the first character counts if it is one of A to N, any other reply is an "A". A task without rows has 0 %.

    Raises:
        OfficialError: An answer is empty.
    """

    def mark(row: Row, text: str) -> bool:
        answer = str(row.raw["answer"])
        if not answer:
            raise OfficialError("IndexError", "string index out of range")
        return answer[0] == videotemp_first(text, "ABCDEFGHIJKLMN")

    some = [row for row in rows if row.groups["question_type"] == CHOICE]
    found = marks(some, predictions, mark)
    found.num_total = len(rows)
    figures: dict[str, float] = {}
    shares: list[float] = []
    for task in TASKS:
        count = found.count(lambda row, task=task: row.groups["task"] == task)
        shares.append(count.share(if_none=0.0))
        figures |= {f"{task} correct": count.right, f"{task} total": count.total}
        figures[f"{task} Acc"] = printed_percent(shares[-1], 2)
    figures["Average Acc"] = printed_percent(sum(shares) / len(shares), 2)
    return found.table(VIDEOTEMP_O3, figures, "percent", ("Average Acc",))


def strict(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the share right of all, and by task, type of question and subject, in fractions.

    Letters as everywhere. An open answer is right if its last number equals the true one, both rounded to 2 decimals,
    or, where the truth is a word, if all of it is that word. A truth that is a broken list has no figure.
    """
    split: dict[str, list[float | None]] = {}

    def value(row: Row, prediction: Any) -> tuple[float | None, str]:
        right, why = _graded_choice(row, prediction) if row.options else _graded_open(row, prediction)
        if right is not None:
            for name, group in row.groups.items():
                split.setdefault(f"accuracy {name}={group}", []).append(right)
        return right, why

    def figures(rights: Sequence[float | None]) -> dict[str, float | None]:
        return {"accuracy": accuracy(rights)} | {name: accuracy(split[name]) for name in sorted(split)}

    return strictly.graded(rows, predictions, value, figures)


def _graded_choice(row: Row, prediction: Any) -> tuple[float | None, str]:
    if row.answer not in list(LETTERS[: len(row.options)]):
        return None, "label_unusable"
    letter, why = strictly.read_letter(prediction, row)
    return float(letter == row.answer), why


def _graded_open(row: Row, prediction: Any) -> tuple[float | None, str]:
    truth = row.answer or ""
    if not truth.strip() or truth.startswith("["):
        return None, "label_unusable"
    if not isinstance(prediction, str):
        return 0.0, "missing" if prediction is None else "unparsed"
    answer = strictly.answer_part(prediction)
    number = number_of(truth.strip())
    if number is None:
        return float(answer.strip(" .\n").casefold() == truth.strip().casefold()), ""
    said = last_number(answer)
    return (0.0, "unparsed") if said is None else (float(said == number), "")


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the predictions of VideoTemp-o3's output, or of lmms-eval's samples of one task.

    Samples do not say which task they are of, so the annotations must be of one task too.

    Raises:
        RecordError: It is neither, or a line is of no row.
    """
    records = read_records(path)
    samples = lmms_eval_samples(records, "mmmu_acc", "id")
    if samples is not None:
        tasks = groups_of(rows, "task")
        if len(tasks) != 1:
            raise RecordError(
                f"{path} does not say which of {', '.join(tasks)} it is of, give one annotation file"
            )
        return {f"{tasks[0]}/{id}": text for id, text in samples.items()}
    places = Places(
        ((row.groups["task"], row.video), row.id) for row in rows if row.groups["question_type"] == CHOICE
    )
    return {
        places.take((record.text("task"), Path(record.text("video_path")).stem), record.where): reply_of(
            record
        )
        for record in records
    }


BENCHMARK = Benchmark(
    name="videommmu",
    title="Video-MMMU",
    split="all (there is one), by task",
    files=FILES,
    load=load,
    official={
        "videommmu": _official("videommmu", head=False),
        LMMS_EVAL: _official(LMMS_EVAL, head=True),
        VIDEOTEMP_O3: videotemp_o3,
    },
    strict=strict,
    read_predictions=read_predictions,
)
