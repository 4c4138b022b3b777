"""MLVU, dev and test: seven (nine) multiple-choice tasks on long videos, and two that a judge model scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from timeloupe.errors import RecordError
from timeloupe.eval import strict as strictly
from timeloupe.eval.extractors.letters import before_bracket, lmms_mlvu_old
from timeloupe.eval.extractors.letters_check import videomind
from timeloupe.eval.extractors.letters_search import mcq_extract
from timeloupe.eval.files.records import (
    LETTERS,
    Places,
    Record,
    existing,
    letter_of,
    read_json,
    read_records,
    records_of,
    reply_of,
)
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Scorer, Table
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.letters import (
    LMMS_EVAL,
    LMMS_EVAL_OLD,
    VIDEOTEMP_O3,
    Count,
    Marks,
    groups_of,
    marks,
    printed_percent,
)

DEV_TASKS = ("count", "ego", "needle", "order", "plotQA", "anomaly_reco", "topic_reasoning")
"""In the order in which choice_bench.py opens their files."""

TEST_TASKS = (
    "anomaly_reco", "count", "ego", "needleQA", "order", "plotQA", "sportsQA", "topic_reasoning", "tutorialQA",
)  # fmt: skip

JUDGED = {
    "subPlot": ("sub_scene", "score_accuracy", "score_relevance"),
    "summary": ("summary", "score_completeness", "score_reliability"),
}
"""Question type of a generation task -> its name here, and the two scores that a judge's text holds."""

_NAMES = {"findNeedle": "needle"}

FILES = (
    "the folder of 1_plotQA.json to 7_topic_reasoning.json (dev), one of them, test_mcq_gt.json (test), or "
    "8_sub_scene.json or 9_summary.json for the scores of a judge"
)


def load(path: Path) -> list[Row]:
    """Return the rows of a file, or of all multiple-choice files of a folder.

    A row's id is the record's ``question_id``, or its task and its place within the task, such as ``count_0``. The
    answer is the letter of the LAST candidate that equals it, as in the scripts; the text itself if none does.

    Raises:
        MissingError: There is nothing.
        RecordError: A record is not valid, or a folder has no such file.
    """
    if not existing(path, FILES).is_dir():
        return _rows(read_records(path))
    records: list[Record] = []
    for file in sorted(path.glob("*.json")):
        values = read_json(file)
        if isinstance(values, list) and values and isinstance(values[0], dict) and "candidates" in values[0]:
            records += records_of(values, str(file))
    if not records:
        raise RecordError(f"{path} has no .json file of questions with candidates, expected {FILES}")
    order = {task: at for at, task in enumerate(DEV_TASKS)}
    return _rows(sorted(records, key=lambda record: order.get(_task(record), len(order))))


def _task(record: Record) -> str:
    kind = record.text("question_type" if record.has("question_type") else "task_type")
    return _NAMES.get(kind, kind)


def _rows(records: Sequence[Record]) -> list[Row]:
    places: dict[str, int] = {}
    rows: list[Row] = []
    for record in records:
        task = _task(record)
        at = places.get(task, 0)
        places[task] = at + 1
        options = record.texts("candidates") if task not in JUDGED else ()
        answer = record.text("answer")
        rows.append(
            Row(
                id=record.text("question_id") if record.has("question_id") else f"{task}_{at}",
                video=record.text("video" if record.has("video") else "video_name"),
                question=record.text("question"),
                task="multiple_choice" if options else "open",
                options=options,
                answer=letter_of(options, answer) if options else answer,
                duration_seconds=record.number("duration") if record.has("duration") else None,
                groups={"task": task},
                raw=record.fields,
            )  # fmt: skip
        )
    return rows


def _choices(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.groups["task"] not in JUDGED]


def _letter(row: Row, if_none: str) -> str:
    """Return the letter of the row's answer; ``if_none`` where no candidate is the answer."""
    known = LETTERS[: len(row.options)]
    return row.answer if row.answer is not None and len(row.answer) == 1 and row.answer in known else if_none


def choice_bench(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return percent right by task and ``Avg``, their mean (M-Avg); also ``micro``, which the script does not print.

    Source: JUNJIE99/MLVU@fd060c10 evaluation/multiple_choice_evaluation/choice_bench.py. The prompt ends with
    "Best Option: (", so the character before the first ")" counts, or all of the text without one: "B." and "B " are
    wrong. Where no candidate is the answer the right letter is "@".

    Raises:
        OfficialError: No row has a prediction.
    """
    found = marks(_choices(rows), predictions, lambda row, text: before_bracket(text) == _letter(row, "@"))
    figures = {task: count.share() * 100 for task, count in found.by_group("task").items()}
    if not figures:
        raise OfficialError(
            "ZeroDivisionError", "division by zero (no multiple-choice question with a reply)"
        )
    figures |= {"Avg": sum(figures.values()) / len(figures), "micro": found.count().percent()}
    return _table(found, "choice_bench", figures, rows)


def _lmms_eval(script: str, read: Callable[[str], str]) -> Scorer:
    def score(rows: Sequence[Row], predictions: Predictions) -> Table:
        """Return percent right by task and their mean over ALL tasks of the split, 0 for one without rows.

        Source: EvolvingLMMs-Lab/lmms-eval@75571cfe tasks/mlvu/utils.py (old: d0c1eae7). Notes:

        1. Its annotation gives letters; here they come from the candidates. Where none is the answer a row is wrong.
        2. HEAD knows the letters A to D only, though the test split has six options.
        3. The harness takes ``<think>`` out before it; texts are read here as they are.

        Raises:
            OfficialError: A task is of neither split.
        """
        tasks = groups_of(_choices(rows), "task")
        split = DEV_TASKS if set(tasks) <= set(DEV_TASKS) else TEST_TASKS
        for task in tasks:
            if task not in split:
                raise OfficialError("KeyError", repr(task))
        found = marks(_choices(rows), predictions, lambda row, text: read(text) == _letter(row, "@"))
        tally = found.by_group("task")
        figures = {task: tally.get(task, Count()).percent(if_none=0.0) for task in split}
        figures["mlvu_percetion_score"] = sum(figures.values()) / len(split)
        return _table(found, script, figures, rows)

    return score


def videotemp_o3(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return Total, Correct and Accuracy in percent, 2 decimals; ``None`` without rows.

    Source: VideoTemp-o3 eval/score.py, ``eval_mlvu``, at Kwai-Keye/VideoTemp-o3@e30b4d98. First characters are
    compared, an empty reply is wrong.

    Raises:
        OfficialError: A row whose answer is no candidate has a reply: ``TypeError``, there is no letter to compare.
    """

    def mark(row: Row, text: str) -> bool:
        letter = _letter(row, "")
        if text and not letter:
            raise OfficialError("TypeError", "'NoneType' object is not subscriptable")
        return text[:1] == letter if text else False

    found = marks(_choices(rows), predictions, mark)
    count = found.count()
    share = printed_percent(count.share(), 2) if count.total else None
    return _table(
        found, VIDEOTEMP_O3, {"Total": count.total, "Correct": count.right, "Accuracy": share}, rows
    )


def videomind_eval(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return percent right by task and of all.

    Source: yeliudev/VideoMind@6721d256 videomind/eval/eval_auto.py. Deviations:

    1. The script ends with an ``IndexError`` at a reply that is empty or starts with a blank. Such replies are wrong
       here, and counted among the failures.
    2. It cannot load the two dev questions whose answer is no candidate. They are wrong here.

    Raises:
        OfficialError: No row has a prediction.
    """
    num_raised = 0

    def mark(row: Row, text: str) -> bool:
        nonlocal num_raised
        try:
            return bool(videomind(text, _letter(row, "@"), len(row.options)))
        except OfficialError:
            num_raised += 1
            return False

    found = marks(_choices(rows), predictions, mark)
    found.failures["the script raises"] = num_raised
    figures = {task: count.share() * 100 for task, count in found.by_group("task").items()}
    return _table(found, "videomind", figures | {"all": found.count().share() * 100}, rows)


def judge_scores(text: str, keys: Sequence[str]) -> list[float]:
    """Return the scores that stand behind ``keys`` in a judge's text; a key that does not occur has none.

    A score starts two characters after the first colon behind its key and ends before the next comma, or, where there
    is none, before the last character of the text.

    Source: JUNJIE99/MLVU@fd060c10 evaluation/generation_evaluation/calculate.py and calculate_sum.py.

    Raises:
        OfficialError: ``ValueError``, what stands there is no number.
    """
    scores: list[float] = []
    for key in keys:
        at = text.find(key)
        if at < 0:
            continue
        start = text.find(":", at) + 2
        written = text[start : text.find(",", start)]
        try:
            scores.append(float(written))
        except ValueError:
            raise OfficialError("ValueError", f"could not convert string to float: {written!r:.80}") from None
    return scores


def calculate(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the mean of each of a judge's two scores, 1 to 5, and their sum (``total``), by generation task.

    Predictions are the JUDGE's texts (gpt-4-turbo officially), not the model's. A text without scores adds 0.

    Source: JUNJIE99/MLVU@fd060c10 evaluation/generation_evaluation/calculate.py and calculate_sum.py.

    Raises:
        OfficialError: No row has a judge's text, or one has something else where a number must be.
    """
    figures: dict[str, float] = {}
    scored = missing = 0
    for kind, (name, *keys) in JUDGED.items():
        of_kind = [row for row in rows if row.groups["task"] == kind]
        texts = [text for row in of_kind if (text := predictions.get(row.id)) is not None]
        missing += len(of_kind) - len(texts)
        if not texts:
            continue
        sums = [0.0, 0.0]
        for text in texts:
            for at, score in enumerate(judge_scores(str(text), keys)):
                sums[at] += score
        means = [total / len(texts) for total in sums]
        figures |= {f"{name} {key}": mean for key, mean in zip(keys, means, strict=True)}
        figures[f"{name} total"] = sum(means)
        scored += len(texts)
    if not scored:
        raise OfficialError("ZeroDivisionError", "float division by zero (no question with a judge's text)")
    failures = {"missing": missing} if missing else {}
    return Table("official:calculate", figures, "points", scored, len(rows), failures)


def _table(
    found: Marks, script: str, figures: dict[str, float | None] | dict[str, float], rows: Sequence[Row]
) -> Table:
    first = [name for name in ("Avg", "mlvu_percetion_score", "Accuracy", "all") if name in figures]
    return replace(found.table(script, figures, "percent", first), num_total=len(rows))


def strict(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the strict figures, ``M-Avg`` (the mean of the tasks' accuracies) first; judged tasks have none."""
    table = strictly.multiple_choice(rows, predictions)
    tasks = [table.figures.get(f"accuracy task={task}") for task in groups_of(_choices(rows), "task")]
    known = [value for value in tasks if value is not None]
    return replace(table, figures={"M-Avg": sum(known) / len(known) if known else None, **table.figures})


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the predictions of test_res.json (test split), of choice_bench.py's or VideoTemp-o3's output, or of a
    folder of judge's texts, one ``{video}_{number}.json`` per question.

    Raises:
        RecordError: It is none of these, or a record is of no row.
    """
    if path.is_dir():
        return _of_judge(path, rows)
    whole = read_json(path) if path.suffix == ".json" else None
    if isinstance(whole, dict) and "res_list" in whole:
        asked = Places(((row.groups["task"], _asked(row)), row.id) for row in rows)
        found: dict[str, str] = {}
        for record in records_of(whole["res_list"], f"{path}, res_list"):
            key = (
                _NAMES.get(record.text("question_type"), record.text("question_type")),
                record.text("question"),
            )
            found[asked.take(key, record.where)] = reply_of(record, "pred")
        return found
    records = read_records(path)
    if records and records[0].has("option"):
        return {record.text("question_id"): record.text("option") for record in records}
    places = Places(((row.video, row.question), row.id) for row in rows)
    return {
        places.take((record.text("video"), record.text("question")), record.where): reply_of(record)
        for record in records
    }


def _asked(row: Row) -> str:
    """Return a question as choice_bench.py writes it, which is what its output names it by."""
    options = "\n".join(f"({LETTERS[at]}) {option}" for at, option in enumerate(row.options))
    return f"Question: {row.question}\nOptions:\n{options}".rstrip()


def _of_judge(folder: Path, rows: Sequence[Row]) -> Predictions:
    seen: dict[str, int] = {}
    found: dict[str, str] = {}
    for row in rows:
        at = seen.get(row.video, 0)
        seen[row.video] = at + 1
        file = folder / f"{row.video}_{at}.json"
        if file.is_file():
            found[row.id] = records_of(read_json(file), str(file))[0].text("explain")
    if not found:
        raise RecordError(f"{folder} has no judge's text, expected files such as {rows[0].video}_0.json")
    return found


BENCHMARK = Benchmark(
    name="mlvu",
    title="MLVU",
    split="dev or test, as the file",
    files=FILES,
    load=load,
    official={
        "choice_bench": choice_bench,
        LMMS_EVAL: _lmms_eval(LMMS_EVAL, mcq_extract),
        LMMS_EVAL_OLD: _lmms_eval(LMMS_EVAL_OLD, lmms_mlvu_old),
        VIDEOTEMP_O3: videotemp_o3,
        "videomind": videomind_eval,
        "calculate": calculate,
    },
    strict=strict,
    read_predictions=read_predictions,
)
