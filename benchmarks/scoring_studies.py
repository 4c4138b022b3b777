"""The benchmark references as studies: rows, predictions, and which figure of every script stands beside which of ours.

A reference holds predictions and, where the benchmark's own file may not be had, the records themselves; those are
written to a file and read as a user's file is.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from timeloupe.eval.baselines import baselines
from timeloupe.eval.benchmarks import vstar
from timeloupe.eval.extractors.letters_check import cgbench_json
from timeloupe.eval.predictions import read_predictions
from timeloupe.eval.registry import benchmark
from timeloupe.eval.scoring import Benchmark, Predictions, Row

Reference = Mapping[str, Any]

TIMES, LETTERS, OTHER = "times", "letters", "other"


@dataclass(frozen=True)
class Figure:
    """Which figures of a table are averaged for the headline, and what makes percent of them.

    Attributes:
        names: Their names; none = the mean of the rows' own values, for a script that prints no such figure.
        scale: 100 where they are fractions.
    """

    names: tuple[str, ...]
    scale: float = 1


@dataclass(frozen=True)
class Study:
    """One table of the comparison.

    Attributes:
        name: Of the table's rows.
        title: The headline's name.
        benchmark: Whose scorers these are.
        rows: Questions that have or should have a prediction.
        predictions: By row id.
        official: Script -> its headline.
        strict: Ours.
        kind: How rows are compared: ``times``, ``letters``, or ``other``.
        mean_of: Group over whose values the headline is averaged first, or ``None``.
        given: What of a prediction holds the times.
        trivial: Predictions of rules that see nothing, by name.
        by_row: Script -> each row's share of its headline, where no other way leads to it.
    """

    name: str
    title: str
    benchmark: Benchmark
    rows: Sequence[Row]
    predictions: Predictions
    official: Mapping[str, Figure]
    strict: Figure
    kind: str
    mean_of: str | None = None
    given: Callable[[Any], Any] = lambda prediction: prediction
    trivial: Mapping[str, Predictions] | None = None
    by_row: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


MIOU = Figure(("mIoU",), 100)
ACCURACY = Figure(("accuracy",), 100)

ONE_WINDOW = {
    "taro": MIOU, "time-r1": Figure(("mIoU",)), "timelens": Figure(("mIOU",)), "lmms-eval": Figure(("mIOU",)),
    "lmms-eval-tvg": Figure(("mIOU",)), "timesuite": Figure((), 100), "videotemp-o3": Figure(("mIoU",)),
    "museg": Figure(("m_iou",), 100), "museg-untagged": Figure(("m_iou",), 100), "etbench": MIOU,
}  # fmt: skip


def studies(reference: Reference, folder: Path) -> Iterator[Study]:
    """Yield the studies of a reference; ``folder`` is what its files are relative to.

    Raises:
        SystemExit: The benchmark of the reference is not known here.
    """
    name = str(reference["benchmark"])
    if name not in READERS:
        raise SystemExit(f"{name!r} has no studies here, known are {', '.join(READERS)}")
    yield from READERS[name](reference, folder)


def _file(folder: Path, entry: Any) -> Path:
    return folder / (entry[0] if isinstance(entry, list) else entry)["file"]


def _rows_of_records(found: Benchmark, records: Any, lines: bool = False) -> tuple[list[Row], Predictions]:
    """Rows and predictions of records that are annotation and prediction file at once."""
    with tempfile.TemporaryDirectory() as there:
        path = Path(there, "records.jsonl" if lines else "records.json")
        text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
        path.write_text(text, encoding="utf-8")
        rows = found.load(path)
        return rows, read_predictions(path, found, rows).by_id if found.read_predictions else {}


def _windows_unseen(rows: Sequence[Row]) -> Mapping[str, Predictions]:
    """The rules that name windows, also for rows with options."""
    return baselines([replace(row, options=()) for row in rows])


def _one_window(reference: Reference, folder: Path) -> Iterator[Study]:
    found = benchmark(reference["benchmark"])
    texts = {entry["qid"]: entry["text"] for entry in reference["predictions"]}
    rows = [row for row in found.load(_file(folder, reference["annotation"])) if row.id in texts]
    yield Study(found.name, "mIoU", found, rows, texts, ONE_WINDOW, MIOU, TIMES)


def _timelens(reference: Reference, folder: Path) -> Iterator[Study]:
    found = benchmark("timelens")
    rows = found.load(_file(folder, reference["annotation"]))
    with tempfile.TemporaryDirectory() as there:
        path = Path(there, "predictions.json")
        path.write_text(json.dumps(reference["predictions_raw"]), encoding="utf-8")
        predictions = {
            id: one["answers"] if isinstance(one, dict) else one
            for id, one in read_predictions(path, found, rows).by_id.items()
        }
    rows = [row for row in rows if row.id in predictions]
    scripts = {"timelens": Figure(("mIOU",)), "lmms-eval-timelens": Figure(("mIOU",))}
    yield Study("timelens", "mIoU", found, rows, predictions, scripts, MIOU, TIMES)


def _museg(reference: Reference, folder: Path) -> Iterator[Study]:
    found = benchmark("museg_grounding")
    for data, block in reference["datasets"].items():
        rows = found.load(_file(folder, block["annotation"]))
        texts = {rows[entry["index"]].id: entry["text"] for entry in block["predictions"]}
        scripts = {"museg-tal": Figure(("mean_f1_multi",), 100)}
        yield Study(
            f"museg_grounding ({data})", "F1", found, rows, texts, scripts, Figure(("F1",), 100), TIMES
        )
        scripts = {"museg": Figure(("m_iou",), 100)}
        yield Study(f"museg_grounding ({data})", "mIoU", found, rows, texts, scripts, MIOU, TIMES)


def _videotemp(reference: Reference, folder: Path) -> Iterator[Study]:
    del folder
    found = benchmark("videotemp_bench_grounding")
    # The ids are those of the sets that the records were drawn from, and may repeat.
    bare = [
        {key: value for key, value in one.items() if key != "id"} for one in reference["grounding_records"]
    ]
    rows, texts = _rows_of_records(found, bare, lines=True)
    scripts = {"videotemp-o3": Figure(("mIoU",))}
    yield Study(found.name, "mIoU", found, rows, texts, scripts, MIOU, TIMES)
    found = benchmark("videotemp_bench_mcq")
    # The reference leaves out what the script does not look at; five options, as its letters go to E.
    options = "".join(f"\n{letter}. choice" for letter in "ABCDE")
    records = [
        {"videos": [f"{at}.mp4"], "question": f"question {at}{options}"} | one
        for at, one in enumerate(reference["mcq_records"])
    ]
    rows, texts = _rows_of_records(found, records, lines=True)
    yield Study(
        found.name,
        "accuracy",
        found,
        rows,
        texts,
        {"videotemp-o3": Figure(("Overall Acc",))},
        ACCURACY,
        LETTERS,
    )


def _qvhighlights(reference: Reference, folder: Path) -> Iterator[Study]:
    found = benchmark("qvhighlights")
    rows = found.load(_file(folder, reference["annotation"]))
    r1 = {
        "moment_detr": Figure(("MR-full-R1@0.5",)), "taro": Figure(("Recall@0.5",), 100),
        "time-r1": Figure(("R@0.5",)), "etchat": Figure(("R@0.5",), 100), "videomind": Figure(("IoU R1@0.5",)),
    }  # fmt: skip
    for words, block in (
        ("authors' windows", "third_party_predictions"),
        ("made-up windows", "synthetic_predictions"),
    ):
        path = _file(folder, reference[block]["predictions"])
        given = read_predictions(path, found, rows).by_id
        yield Study(
            f"qvhighlights ({words})", "R1@0.5", found, rows, given, r1, Figure(("R1@0.5",), 100), OTHER,
            given=lambda one: one.get("pred_relevant_windows"),
        )  # fmt: skip
    texts = {str(one["qid"]): one["text"] for one in reference["single_window_text"]["predictions"]}
    yield Study("qvhighlights (texts)", "mIoU", found, rows, texts, {"taro": MIOU}, MIOU, TIMES)
    scripts = {"museg-tal": Figure(("mean_f1_multi",), 100)}
    yield Study("qvhighlights (texts)", "F1", found, rows, texts, scripts, Figure(("F1",), 100), TIMES)


def _rextime(reference: Reference, folder: Path) -> Iterator[Study]:
    found = benchmark("rextime")
    rows = found.load(_file(folder, reference["annotation"]))
    records = {one["qid"]: one for one in reference["predictions"]}
    yield Study(
        "rextime", "accuracy", found, rows, records, {"rextime": Figure(("VQA",), 100)}, ACCURACY, OTHER
    )
    windows = {id: {"pred_relevant_windows": one["pred_relevant_windows"]} for id, one in records.items()}
    yield Study(
        "rextime", "mIoU", found, rows, windows, {"rextime": Figure(("MR-full-mIoU",))}, MIOU, OTHER,
        given=lambda one: one["pred_relevant_windows"], trivial=_windows_unseen(rows),
    )  # fmt: skip


def _nextgqa(reference: Reference, folder: Path) -> Iterator[Study]:
    found = benchmark("nextgqa")
    rows = found.load(_file(folder, reference["annotation"]))
    given = reference["predictions"]
    answers = given["qa"]
    yield Study("nextgqa", "accuracy", found, rows, answers, {"eval_next": Figure(("Acc",))}, ACCURACY, OTHER)
    for script, part in (("eval_ground", "ground_seconds"), ("eval_ground_gs", "ground_normalised")):
        spans = given[part]
        joined = {
            id: ({"span": spans[id]} if id in spans else {}) | answers.get(id, {})
            for id in {**spans, **answers}
        }
        words = "shares" if script == "eval_ground_gs" else "seconds"
        yield Study(
            f"nextgqa ({words})", "Acc&GQA", found, rows, joined, {script: Figure(("Acc&GQA",))},
            Figure(("Acc@GQA",), 100), OTHER, trivial={},
        )  # fmt: skip
        alone = {id: {"span": span} for id, span in spans.items()}
        yield Study(
            f"nextgqa ({words})", "mIoU", found, rows, alone, {script: Figure(("mIoU",))}, MIOU, OTHER,
            given=lambda one: one["span"], trivial=_windows_unseen(rows),
        )  # fmt: skip


def _nextqa(reference: Reference, folder: Path) -> Iterator[Study]:
    found = benchmark("nextqa")
    rows = found.load(_file(folder, reference["annotation"]))
    scripts = {"eval_mc": Figure(("Acc",))}
    if third := reference.get("third_party_predictions"):
        given = read_predictions(_file(folder, third["predictions"]), found, rows).by_id
        yield Study("nextqa (authors' HGA)", "accuracy", found, rows, given, scripts, ACCURACY, OTHER)
    made_up = reference["predictions"]
    yield Study("nextqa (made-up)", "accuracy", found, rows, made_up, scripts, ACCURACY, OTHER)


def _cgbench(reference: Reference, folder: Path) -> Iterator[Study]:
    found = benchmark("cgbench")
    replies = {str(one["qid"]): one for one in reference["predictions"]}
    rows = [row for row in found.load(_file(folder, reference["annotation"])) if row.id in replies]
    texts = {id: one["long_acc"] for id, one in replies.items()}
    scripts = {
        "cgbench": Figure(("long_acc",), 100), "lmms-eval": Figure(("cgbench_accuracy",)),
        "videomind": Figure(("long-acc.",)),
    }  # fmt: skip
    yield Study("cgbench", "accuracy", found, rows, texts, scripts, ACCURACY, LETTERS)
    windows = {id: {"miou": one["miou"]} for id, one in replies.items()}
    yield Study(
        "cgbench", "mIoU", found, rows, windows, {"cgbench": Figure(("miou",), 100)}, MIOU, OTHER,
        given=_windows_in_json, trivial=_windows_unseen(rows),
    )  # fmt: skip


def _windows_in_json(replies: Mapping[str, str]) -> Any:
    """The list that a reply's ``json`` fence holds, as the prompt asks for, or the reply."""
    found, result = cgbench_json(replies["miou"])
    return result if found else replies["miou"]


def _etbench(reference: Reference, folder: Path) -> Iterator[Study]:
    del folder
    found = benchmark("etbench")
    pairs = {
        "tvg": ("mIoU", "mIoU", TIMES), "tem": ("mIoU", "mIoU", TIMES), "tal": ("F1", "F1", TIMES),
        "evs": ("F1", "F1", OTHER), "vhd": ("F1", "hit", OTHER), "rvq": ("Acc", "accuracy", LETTERS),
        "eca": ("Acc", "accuracy", LETTERS), "gvq": ("Acc", "accuracy", LETTERS), "dvc": ("F1", "F1", OTHER),
    }  # fmt: skip
    for key, samples in reference["samples"].items():
        task = key.removesuffix("_detection_only")
        head = {"version": 1.0, "task": task, "source": "made", "video": "v.mp4", "q": "question"}
        rows, texts = _rows_of_records(
            found, [head | {"idx": number} | one for number, one in enumerate(samples)]
        )
        theirs, ours, kind = pairs[task]
        yield Study(
            f"etbench ({task})", ours, found, rows, texts,
            {"etbench": Figure((f"{task} made {theirs}",), 100)}, Figure((f"{task} {ours}",), 100), kind,
        )  # fmt: skip


def _vstar(reference: Reference, folder: Path) -> Iterator[Study]:
    del folder
    found = benchmark("vstar")
    rows, given = _rows_of_records(found, reference["annotation_and_predictions"])
    scripts = {"vstar": Figure(("Mean IoU",), 100), "openo3": Figure(("Mean IoU",), 100)}
    windows = _windows_unseen(rows)
    items = vstar.evaluation(rows, given, "vstar").items
    by_row = {row.id: float(item["temporal_IoU"]) for row, item in zip(rows, items, strict=True) if item}
    yield Study(
        "vstar", "mIoU, chain 1", found, rows, given, scripts, MIOU, OTHER,
        given=lambda one: one.get("answer_temporal"), trivial=windows, by_row={"vstar": by_row},
    )  # fmt: skip


def _letters(
    scripts: Mapping[str, Figure], strict: Figure = ACCURACY, mean_of: str | None = None
) -> Callable[[Reference, Path], Iterator[Study]]:
    """The reader of a reference whose predictions are texts with a letter."""

    def read(reference: Reference, folder: Path) -> Iterator[Study]:
        found = benchmark(reference["benchmark"])
        records = reference.get("annotation_and_predictions", reference.get("docs"))
        if records is not None:
            with tempfile.TemporaryDirectory() as there:
                path = Path(there, "records.json")
                path.write_text(json.dumps(records), encoding="utf-8")
                rows = found.load(path)
            asked = [question for one in records for question in one.get("questions", [one])]
            texts = {
                str(one["question_id" if "question_id" in one else "id"]): one.get("response")
                for one in asked
            }
        else:
            rows = [row for one in reference["annotation"] for row in found.load(folder / one["file"])]
            texts = _texts(reference["predictions"])
        yield Study(found.name, "accuracy", found, rows, texts, scripts, strict, LETTERS, mean_of)

    return read


def _texts(predictions: Any) -> dict[str, str]:
    """Texts by row id, of the three forms in which references hold them."""
    if isinstance(predictions, list):
        return {str(one["id"]): one["pred"] for one in predictions}
    if all(isinstance(one, list) for one in predictions.values()):
        return {
            f"{task.title()}/{one['id']}": one["text"] for task, some in predictions.items() for one in some
        }
    return dict(predictions)


_MMMU = ("Adaptation", "Comprehension", "Perception")
_MMMU_SCRIPT = Figure(tuple(f"{task}: Overall acc" for task in _MMMU), 100)
_MLVU = ("count", "ego", "needle", "order", "plotQA", "anomaly_reco", "topic_reasoning")

READERS: dict[str, Callable[[Reference, Path], Iterator[Study]]] = {
    "charades_sta": _one_window,
    "activitynet_captions": _one_window,
    "tvgbench": _one_window,
    "timelens": _timelens,
    "museg_grounding": _museg,
    "videotemp_o3": _videotemp,
    "qvhighlights": _qvhighlights,
    "rextime": _rextime,
    "nextgqa": _nextgqa,
    "nextqa": _nextqa,
    "cgbench": _cgbench,
    "etbench": _etbench,
    "vstar": _vstar,
    "videomme": _letters({
        "eval_your_results": Figure(("overall",)), "eval_your_results-older": Figure(("overall",)),
        "videotemp-o3": Figure(("overall",)), "lmms-eval": Figure(("videomme_perception_score",)),
        "lmms-eval-old": Figure(("videomme_perception_score",)), "vlmevalkit": Figure(("overall",), 100),
    }),
    "mlvu": _letters({
        "choice_bench": Figure(("Avg",)), "lmms-eval": Figure(("mlvu_percetion_score",)),
        "lmms-eval-old": Figure(("mlvu_percetion_score",)), "videotemp-o3": Figure(("Accuracy",)),
        "videomind": Figure(_MLVU),
    }, Figure(("M-Avg",), 100), "task"),
    "lvbench": _letters({
        "polish_answer": Figure(("acc",), 100), "compute_accuracy": Figure(("acc",), 100),
        "videotemp-o3": Figure(("Overall Acc",)), "lmms-eval": Figure(("lvbench_score",), 100),
        "lmms-eval-old": Figure(("lvbench_score",), 100),
    }),
    "videommmu": _letters({
        "videommmu": _MMMU_SCRIPT, "lmms-eval": _MMMU_SCRIPT, "videotemp-o3": Figure(("Average Acc",)),
    }, Figure(tuple(f"accuracy task={task}" for task in _MMMU), 100), "task"),
    "longvideobench": _letters({
        "lmms-eval": Figure(("Overall acc",), 100), "vlmevalkit": Figure(("overall",), 100),
    }),
}  # fmt: skip
"""Name of a reference -> what it holds."""
