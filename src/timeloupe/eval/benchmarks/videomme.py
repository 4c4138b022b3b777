"""Video-MME: 900 videos of three lengths with three questions each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from timeloupe.errors import RecordError
from timeloupe.eval import strict
from timeloupe.eval.extractors.letters import (
    videomme,
    videomme_older,
    videotemp_videomme,
    vlmeval_videomme,
)
from timeloupe.eval.extractors.letters_search import mcq_extract, vlmeval_can_infer
from timeloupe.eval.files.records import (
    LETTERS,
    Record,
    bare_options,
    existing,
    lmms_eval_samples,
    option_letter,
    read_records,
    reply_of,
)
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Scorer, Table
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.letters import (
    LMMS_EVAL,
    LMMS_EVAL_OLD,
    VIDEOTEMP_O3,
    VLMEVALKIT,
    Count,
    Marks,
    groups_of,
    marks,
    printed,
)

TYPES = ("short", "medium", "long")
DOMAINS = (
    "Knowledge", "Film & Television", "Sports Competition", "Artistic Performance", "Life Record", "Multilingual",
)  # fmt: skip
SUB_CATEGORIES = (
    "Humanity & History", "Literature & Art", "Biology & Medicine", "Finance & Commerce", "Astronomy", "Geography",
    "Law", "Life Tip", "Technology", "Animation", "Movie & TV Show", "Documentary", "News Report", "Esports",
    "Basketball", "Football", "Athletics", "Other Sports", "Stage Play", "Magic Show", "Variety Show", "Acrobatics",
    "Handicraft", "Food", "Fashion", "Daily Life", "Travel", "Pet & Animal", "Exercise", "Multilingual",
)  # fmt: skip
TASK_TYPES = (
    "Temporal Perception", "Spatial Perception", "Attribute Perception", "Action Recognition", "Object Recognition",
    "OCR Problems", "Counting Problem", "Temporal Reasoning", "Spatial Reasoning", "Action Reasoning",
    "Object Reasoning", "Information Synopsis",
)  # fmt: skip
SECTIONS = {
    "domain": ("domain", DOMAINS),
    "sub": ("sub_category", SUB_CATEGORIES),
    "task": ("task_type", TASK_TYPES),
}
"""Short name of a section of the scripts' tables -> the field that it is about, and its entries."""

VIDEOS_PER_TYPE = 300

FILES = (
    "a JSON list of videos with their questions (the layout of output_test_template.json, which as published is not "
    "valid JSON: commas stand before closing brackets; it is read with a warning), or of questions as the hub has them"
)


def load(path: Path) -> list[Row]:
    """Return the rows of a file of videos with questions, or of one question per record.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid; the message names the record and the field.
    """
    rows: list[Row] = []
    for record in read_records(existing(path, FILES)):
        questions = record.records("questions") if record.has("questions") else [record]
        rows += [_row(record, question) for question in questions]
    return rows


def _row(video: Record, question: Record) -> Row:
    fields = {name: value for name, value in video.fields.items() if name != "questions"} | question.fields
    groups = {name: video.text(name) for name in ("duration", "domain", "sub_category")}
    return Row(
        id=question.text("question_id"), video=video.text("videoID" if video.has("videoID") else "video_id"),
        question=question.text("question"), task="multiple_choice",
        options=bare_options(question.texts("options")), answer=option_letter(question.text("answer")),
        groups=groups | {"task_type": question.text("task_type")}, raw=fields,
    )  # fmt: skip


def counts(found: Marks, types: Sequence[str]) -> dict[str, Count]:
    """Return right and answered by type, by section, by section within a type (``short sub:Law``), and ``overall``."""
    by_name: dict[str, Count] = {}
    for kind in (*types, ""):
        some = Marks(
            [
                one
                for one in found.by_row
                if (one[0].groups["duration"] == kind if kind else one[0].groups["duration"] in types)
            ],
            found.num_total,
        )
        by_name[kind or "overall"] = some.count()
        for section, (field, entries) in SECTIONS.items():
            tally = some.by_group(field)
            for entry in entries:
                by_name[f"{kind} {section}:{entry}".strip()] = tally.get(entry, Count())
    return by_name


def answered(rows: Sequence[Row], predictions: Predictions, read: Callable[[str], str]) -> Marks:
    """Return which rows are right; those in which ``read`` finds no letter are left out.

    Raises:
        OfficialError: An answered row is of a domain, sub-category or task that the scripts do not know.
    """

    def mark(row: Row, text: str) -> bool | None:
        letter = read(text)
        if not letter:
            return None
        _demand_known(row)
        return letter == row.raw["answer"]

    return marks(rows, predictions, mark)


def _demand_known(row: Row) -> None:
    for field, entries in SECTIONS.values():
        if row.groups[field] not in entries:
            raise OfficialError("KeyError", repr(row.groups[field]))


def _demand_complete(rows: Sequence[Row], predictions: Predictions) -> None:
    """Raise what the script raises for a file without all 300 videos of a type, or without a response."""
    for kind in TYPES:
        of_kind = [row for row in rows if row.groups["duration"] == kind]
        there = {row.video for row in of_kind if predictions.get(row.id) is not None}
        if len(there) != VIDEOS_PER_TYPE:
            raise OfficialError(
                "AssertionError", f"{len(there)} {kind} videos, the script demands {VIDEOS_PER_TYPE}"
            )
        if any(row.video in there and predictions.get(row.id) is None for row in of_kind):
            raise OfficialError("KeyError", "'response'")


def _eval_your_results(script: str, read: Callable[[str], str]) -> Scorer:
    def score(rows: Sequence[Row], predictions: Predictions) -> Table:
        """Return percent right of ANSWERED questions, 1 decimal; 0 where none is answered.

        Source: thanku-all/parse_answer@afd52cfe eval_your_results.py with all three types (the older script:
        BradyFU/Video-MME@4e7566d3, which differs in the phrases it removes).

        Raises:
            OfficialError: A type does not have 300 videos, or a video has a question without response.
        """
        _demand_complete(rows, predictions)
        some = [row for row in rows if row.groups["duration"] in TYPES]
        found = replace(answered(some, predictions, read), num_total=len(rows))
        figures = {
            name: printed(count.percent(if_none=0.0), 1) for name, count in counts(found, TYPES).items()
        }
        return found.table(script, figures, "percent", ("overall", *TYPES))

    return score


def videotemp_o3(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return percent right of ANSWERED questions, 1 decimal; ``None`` ("N/A") where none is answered.

    Source: VideoTemp-o3 eval/score.py, ``eval_videomme``, at Kwai-Keye/VideoTemp-o3@e30b4d98. It does not ask for 300
    videos, and a letter that does not stand first once the phrases are removed is no answer.
    """
    found = answered(rows, predictions, videotemp_videomme)
    by_name = counts(found, sorted(groups_of(rows, "duration")))
    figures = {name: printed(count.percent(), 1) if count.total else None for name, count in by_name.items()}
    return found.table(VIDEOTEMP_O3, figures, "percent", ("overall",))


def _lmms_eval(script: str, read: Callable[[str], str]) -> Scorer:
    def score(rows: Sequence[Row], predictions: Predictions) -> Table:
        """Return percent right of all questions: the logged lines with 1 decimal, and the score unrounded.

        Source: EvolvingLMMs-Lab/lmms-eval@75571cfe tasks/videomme/utils.py (old: d0c1eae7). Notes:

        1. A line is about every group whose name occurs anywhere in ``type_domain_sub-category_task``, so that
           "Multilingual" is domain and sub-category at once.
        2. The harness takes ``<think>`` out before it; texts are read here as they are.
        """

        def mark(row: Row, text: str) -> bool:
            _demand_known(row)
            if row.groups["duration"] not in TYPES:
                raise OfficialError("KeyError", repr(row.groups["duration"]))
            return read(text) == row.raw["answer"]

        found = marks(rows, predictions, mark)
        keys: dict[str, Count] = {}
        for row, right in found.by_row:
            key = "_".join(row.groups[name] for name in ("duration", "domain", "sub_category", "task_type"))
            before = keys.get(key, Count())
            keys[key] = Count(before.right + bool(right), before.total + 1)
        figures: dict[str, float] = {}
        for title, names in (
            ("video Type", TYPES), ("Categories", DOMAINS), ("Video Sub Categories", SUB_CATEGORIES),
            ("Task Categories", TASK_TYPES),
        ):  # fmt: skip
            for name in names:
                some = [count for key, count in keys.items() if name in key]
                count = Count(sum(one.right for one in some), sum(one.total for one in some))
                figures[f"Evaluation on {title}: {name}"] = printed(count.percent(if_none=0.0), 1)
        everything = found.count()
        figures["Overall Performance"] = printed(everything.percent(if_none=0.0), 1)
        figures["videomme_perception_score"] = everything.percent(if_none=0.0)
        return found.table(script, figures, "percent", ("videomme_perception_score", "Overall Performance"))

    return score


def vlmevalkit(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the shares of all questions that are right, unrounded; ``None`` for "nan". (The script prints 3 decimals.)

    Source: open-compass/VLMEvalKit@e8e78f05 vlmeval/dataset/videomme.py with ``exact_matching``, no judge. Where the
    first rule reads no letter, ``can_infer`` reads the text with the options. (The script takes them from further lines
    of ``question``; a table of questions without them leaves such replies wrong.) A row without prediction is wrong.
    """

    def mark(row: Row, text: str) -> bool:
        _demand_known(row)
        letter = vlmeval_videomme(text) or vlmeval_can_infer(
            text, {letter: option.strip(". \n") for letter, option in zip(LETTERS, row.options, strict=False)}
        )
        return letter == row.raw["answer"]

    all_rows = {row.id: text if (text := predictions.get(row.id)) is not None else "nan" for row in rows}
    found = marks(rows, all_rows, mark)
    by_name = counts(found, TYPES)
    shares = {name: count.share() if count.total else None for name, count in by_name.items()}
    return found.table(VLMEVALKIT, shares, "fraction", ("overall", *TYPES))


def read_predictions(path: Path, rows: Sequence[Row]) -> Predictions:
    """Return the predictions of a results file (videos, questions, ``response``) or of lmms-eval's samples.

    Raises:
        RecordError: It is neither, or a question has no response.
    """
    records = read_records(path)
    samples = lmms_eval_samples(records, "videomme_perception_score", "question_id")
    if samples is not None:
        return samples
    found: dict[str, str] = {}
    for record in records:
        if record.has("missing") and record.value("missing"):
            continue
        for question in record.records("questions") if record.has("questions") else [record]:
            found[question.text("question_id")] = reply_of(question)
    if not found:
        raise RecordError(f"{path} holds no responses")
    return found


BENCHMARK = Benchmark(
    name="videomme",
    title="Video-MME",
    split="test",
    files=FILES,
    load=load,
    official={
        "eval_your_results": _eval_your_results("eval_your_results", videomme),
        "eval_your_results-older": _eval_your_results("eval_your_results-older", videomme_older),
        VIDEOTEMP_O3: videotemp_o3,
        LMMS_EVAL: _lmms_eval(LMMS_EVAL, mcq_extract),
        LMMS_EVAL_OLD: _lmms_eval(LMMS_EVAL_OLD, videomme_older),
        VLMEVALKIT: vlmevalkit,
    },
    strict=strict.multiple_choice,
    read_predictions=read_predictions,
)
