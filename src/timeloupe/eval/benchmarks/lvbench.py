"""LVBench: questions on hour-long videos, each of one or more categories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from timeloupe.eval import strict as strictly
from timeloupe.eval.extractors.letters import lvbench, videomme_older, videotemp_first
from timeloupe.eval.extractors.letters_search import mcq_extract
from timeloupe.eval.files.records import (
    Record,
    bare_options,
    existing,
    option_letter,
    read_records,
    split_options,
)
from timeloupe.eval.metrics import accuracy
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Scorer, Table
from timeloupe.eval.scripts.letters import (
    LMMS_EVAL,
    LMMS_EVAL_OLD,
    VIDEOTEMP_O3,
    Count,
    Marks,
    marks,
    printed_percent,
)

FILES = "video_info.meta.jsonl of zai-org/LVBench, or one question per record as lmms-eval's copy has them"


def load(path: Path) -> list[Row]:
    """Return the rows of a file of videos with ``qa``, or of one question per record.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid; the message names the line and the field.
    """
    rows: list[Row] = []
    for record in read_records(existing(path, FILES)):
        if record.has("qa"):
            rows += [_row(question, record.text("key"), record) for question in record.records("qa")]
        else:
            rows.append(_row(record, record.text("key" if record.has("key") else "video_path"), record))
    return rows


def _row(question: Record, video: str, of: Record) -> Row:
    stem, options = split_options(question.text("question"))
    if not options and question.has("options"):
        options = bare_options(question.texts("options"))
    question.texts("question_type")
    return Row(
        id=question.text("uid"), video=video, question=stem, task="multiple_choice", options=options,
        answer=option_letter(question.text("answer")), groups={"type": of.text("type")} if of.has("type") else {},
        raw=question.fields,
    )  # fmt: skip


def categories(found: Marks) -> dict[str, Count]:
    """Return the count of each category in the order in which they first come; a row is in each that it lists."""
    rights: dict[str, list[bool]] = {}
    for row, right in found.by_row:
        for category in row.raw["question_type"]:
            rights.setdefault(str(category), []).append(bool(right))
    return {name: Count(sum(some), len(some)) for name, some in rights.items()}


def _compute_accuracy(script: str, read: Callable[[str], str]) -> Scorer:
    def score(rows: Sequence[Row], predictions: Predictions) -> Table:
        """Return the share right of each category and of all (``acc``), of the questions with an answer.

        Source: THUDM/LVBench@f998d955 lvbench/metrics/compute_accuracy.py; answers are compared as they are, or
        after lvbench/utils/answer_util.py ``polish_answer``, which the repository leaves to its users.

        Raises:
            OfficialError: No row has a prediction.
        """
        found = marks(rows, predictions, lambda row, text: read(text) == row.raw["answer"])
        figures = {name: count.share() for name, count in categories(found).items()}
        return found.table(script, figures | {"acc": found.count().share()}, "fraction", ("acc",))

    return score


def videotemp_o3(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return correct, total and percent (2 decimals) of each category in order and of all, as printed.

    Source: VideoTemp-o3 eval/score.py, ``eval_lvbench``, at Kwai-Keye/VideoTemp-o3@e30b4d98. The first character
    counts if it is one of ABCDE, any other reply is an "A".

    Raises:
        OfficialError: No row has a prediction.
    """
    found = marks(rows, predictions, lambda row, text: videotemp_first(text) == row.raw["answer"])
    figures: dict[str, float] = {}
    for name, count in [*sorted(categories(found).items()), ("Overall", found.count())]:
        figures |= {f"{name} correct": count.right, f"{name} total": count.total}
        figures[f"{name} Acc"] = printed_percent(count.share(), 2)
    return found.table(VIDEOTEMP_O3, figures, "percent", ("Overall Acc",))


def _lmms_eval(script: str, read: Callable[[str], str]) -> Scorer:
    def score(rows: Sequence[Row], predictions: Predictions) -> Table:
        """Return ``lvbench_score``, the mean over the questions with a reply.

        Source: EvolvingLMMs-Lab/lmms-eval@75571cfe tasks/lvbench/utils.py (old: d0c1eae7). The harness takes
        ``<think>`` out before it; texts are read here as they are.

        Raises:
            OfficialError: No row has a prediction.
        """
        found = marks(rows, predictions, lambda row, text: read(text) == row.raw["answer"])
        return found.table(script, {"lvbench_score": found.count().share()}, "fraction")

    return score


def strict(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the strict figures, ``accuracy question_type=...`` among them: a row is in each category it lists."""
    table = strictly.multiple_choice(rows, predictions)
    split: dict[str, list[float | None]] = {}
    for row in rows:
        for category in row.raw["question_type"]:
            split.setdefault(f"accuracy question_type={category}", []).append(table.values.get(row.id))
    return replace(
        table, figures=dict(table.figures) | {name: accuracy(split[name]) for name in sorted(split)}
    )


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the predictions of lines ``{uid: text}``, which VideoTemp-o3's lvbench.py writes before it merges them.

    Raises:
        RecordError: It is something else.
    """
    return {
        uid: record.text(uid) for record in read_records(path) for uid in record.fields if record.has(uid)
    }


BENCHMARK = Benchmark(
    name="lvbench",
    title="LVBench",
    split="all (there is one)",
    files=FILES,
    load=load,
    official={
        "polish_answer": _compute_accuracy("polish_answer", lvbench),
        "compute_accuracy": _compute_accuracy("compute_accuracy", str),
        VIDEOTEMP_O3: videotemp_o3,
        LMMS_EVAL: _lmms_eval(LMMS_EVAL, mcq_extract),
        LMMS_EVAL_OLD: _lmms_eval(LMMS_EVAL_OLD, videomme_older),
    },
    strict=strict,
    read_predictions=read_predictions,
)
