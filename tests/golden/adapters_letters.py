"""Which of our scorers answer for the references of the multiple-choice benchmarks."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.golden.checks import Check, compare
from tests.golden.printed import PRINTED, Handler, counted, dispatch, figures_of, printed_by, same, unknown
from tests.golden.replay_benchmarks import BenchmarkAdapter
from timeloupe.eval.benchmarks import longvideobench, lvbench, mlvu, nextqa, videomme, videommmu
from timeloupe.eval.extractors.letters import lmms_longvideobench, videotemp_videomme
from timeloupe.eval.extractors.letters import videomme as read_videomme
from timeloupe.eval.extractors.letters_search import mcq_extract
from timeloupe.eval.scoring import Predictions, Row
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.letters import LMMS_EVAL, LMMS_EVAL_OLD, VIDEOTEMP_O3, VLMEVALKIT, Count


def as_count(count: Count) -> dict[str, Any]:
    """Return a count as the references write it."""
    return {"correct": count.right, "answered": count.total, "acc": count.percent() if count.total else None}


def _videomme(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    rows, predictions = _loaded(
        videomme.load, reference["annotation_and_predictions"], videomme.read_predictions
    )
    scripts = videomme.BENCHMARK.official

    def counts(read: Callable[[str], str]) -> Handler:
        def handle(key: str, value: Any) -> Iterator[Check]:
            found = videomme.counts(videomme.answered(rows, predictions, read), videomme.TYPES)
            got = {name: as_count(count) for name, count in found.items() if name in value}
            yield from unknown(key, value, got)
            for name, count in got.items():
                yield compare(f"{key}: {name}", count, value[name])

        return handle

    def logged(script: str) -> Handler:
        def handle(key: str, value: Any) -> Iterator[Check]:
            yield from unknown(key, value, ("overall", "log", "note"))
            got, _ = figures_of(scripts[script], rows, predictions)
            yield compare(f"{key}: overall", got.pop("videomme_perception_score", None), value["overall"])
            lines = [line.rsplit(":", 1) for line in value["log"]]
            expected = {name: float(percent.strip(" %")) for name, percent in lines}
            yield compare(f"{key}: log", got, expected, PRINTED)

        return handle

    def overall(key: str, value: Any) -> Iterator[Check]:
        got, _ = figures_of(scripts[VLMEVALKIT], rows, predictions)
        yield from unknown(key, value, got)
        for name, figure in value.items():
            yield compare(f"{key}: {name}", got.get(name), figure)

    yield from dispatch(
        reference["official"],
        {
            "official current (": printed_by(
                scripts["eval_your_results"], rows, predictions, _videomme_block
            ),
            "official current: counts": counts(read_videomme),
            "VideoTemp-o3 score.py videomme": printed_by(
                scripts[VIDEOTEMP_O3], rows, predictions, _videotemp_block
            ),
            "VideoTemp-o3: counts": counts(videotemp_videomme),
            "lmms-eval before 9ca4445d": logged(LMMS_EVAL_OLD),
            "lmms-eval HEAD": logged(LMMS_EVAL),
            "VLMEvalKit exact_matching": overall,
        },
    )
    readers = {"official": read_videomme, "videotemp": videotemp_videomme, "lmms_head": mcq_extract}
    items = [item for name, some in reference.items() if name.startswith("per_item") for item in some]
    for item in items:
        got = {name: read(item["response"]) for name, read in readers.items()}
        expected = {name: value for name, value in item.items() if name not in ("question_id", "response")}
        yield compare(f"item {item['question_id']}", got, expected)


def _videomme_block(stdout: str) -> dict[str, float | None]:
    """Return what eval_your_results.py prints, under the names of our figures."""
    sections = {
        "Video Categories": "domain",
        "Video Domains": "domain",
        "Video Sub Categories": "sub",
        "Task Categories": "task",
    }
    return _sectioned(stdout, "Evaluation on video Type: ", "Evaluation on the entire dataset", sections)


def _videotemp_block(stdout: str) -> dict[str, float | None]:
    """Return what score.py videomme prints, under the names of our figures."""
    sections = {"[Domains]": "domain", "[Sub-Categories]": "sub", "[Task Types]": "task"}
    return _sectioned(stdout, "Video-MME  |  Duration: ", "Video-MME  |  Overall", sections)


def _sectioned(
    stdout: str, of_type: str, of_all: str, sections: Mapping[str, str]
) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    kind = section = ""
    for line in (line.strip() for line in stdout.split("\n")):
        if line.startswith(of_type):
            kind = line.removeprefix(of_type)
        elif line.startswith(of_all):
            kind = ""
        elif line in sections:
            section = sections[line]
        elif line.endswith(("%", "N/A")):
            name, percent = (part.strip() for part in line.rsplit(":", 1))
            full = (kind or "overall") if name == "Overall" else f"{kind} {section}:{name}".strip()
            found[full] = None if percent == "N/A" else float(percent.rstrip("%"))
    return found


def _mlvu(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    rows = [row for entry in reference["annotation"] for row in mlvu.load(folder / entry["file"])]
    predictions = {item["id"]: item["pred"] for item in reference["predictions"]}
    scripts = mlvu.BENCHMARK.official
    matched = [
        row for row in rows if len(row.answer or "") == 1 and row.answer in "ABCDEFGHIJ"[: len(row.options)]
    ]

    def check_ans(key: str, value: Any) -> Iterator[Check]:
        yield from unknown(
            key, value, ("per_task", "counts", "M-Avg (mean of the 7 task accuracies)", "micro")
        )
        table = scripts["choice_bench"](rows, predictions)
        got = dict(table.figures)
        yield compare(f"{key}: micro", got.pop("micro"), value["micro"])
        yield compare(f"{key}: M-Avg", got.pop("Avg"), value["M-Avg (mean of the 7 task accuracies)"])
        yield compare(f"{key}: per_task", got, value["per_task"])
        rights: dict[str, list[float]] = {}
        for row in rows:
            if row.id in table.values:
                rights.setdefault(row.groups["task"], []).append(table.values[row.id])
        yield compare(
            f"{key}: counts", {task: [sum(one), len(one)] for task, one in rights.items()}, value["counts"]
        )

    def average(script: str) -> Handler:
        def handle(key: str, value: Any) -> Iterator[Check]:
            yield from unknown(key, value, ("M-Avg (7 tasks, percent)",))
            got, _ = figures_of(scripts[script], rows, predictions)
            yield compare(key, got.get("mlvu_percetion_score"), value["M-Avg (7 tasks, percent)"])

        return handle

    def videomind(key: str, value: Any) -> Iterator[Check]:
        got, _ = figures_of(scripts["videomind"], rows, predictions)
        yield compare(key, {task: figure for task, figure in got.items() if task != "all"}, value)

    yield from dispatch(
        reference["official"],
        {
            "official choice_bench.check_ans": check_ans,
            "VideoTemp-o3 score.py mlvu (gt None kept)": printed_by(
                scripts[VIDEOTEMP_O3], rows, predictions, _videotemp_mlvu
            ),
            "VideoTemp-o3 score.py mlvu (": printed_by(
                scripts[VIDEOTEMP_O3], matched, predictions, _videotemp_mlvu
            ),
            "lmms-eval before 9ca4445d": average(LMMS_EVAL_OLD),
            "lmms-eval HEAD": average(LMMS_EVAL),
            "VideoMind check_ans": videomind,
        },
    )
    yield from _mlvu_items(reference, {row.id: row for row in rows}, rows, predictions)


def _videotemp_mlvu(stdout: str) -> dict[str, float]:
    return {
        name: float(value) for name, value in re.findall(r"^\s+(\w+)\s*: *([\d.]+)%?$", stdout, re.MULTILINE)
    }


def _mlvu_items(
    reference: dict[str, Any], by_id: Mapping[str, Row], rows: Sequence[Row], predictions: Predictions
) -> Iterator[Check]:
    values = mlvu.choice_bench(rows, predictions).values
    for item in reference["predictions"]:
        row = by_id[item["id"]]
        index = "ABCDEFGHIJ".find(row.answer or "?") if len(row.answer or "") == 1 else -1
        truth = f"({chr(ord('A') + index)}) {row.raw['answer']}"
        got = (index, truth, bool(values[row.id]))
        yield compare(f"item {row.id}", got, (item["gt_idx"], item["gt_text"], item["ok"]))
    for number, case in enumerate(reference.get("generation_score_parsing", {}).get("cases", [])):
        yield from unknown(f"judge text {number}", case, ("text", "sub_scene", "summary"))
        for name, *keys in mlvu.JUDGED.values():
            try:
                got: Any = mlvu.judge_scores(case["text"], keys)
            except OfficialError as error:
                got = error.kind
            expected = case[name]
            expected = expected["raises"] if isinstance(expected, dict) else expected
            yield compare(f"judge text {number}: {name}", got, expected)


def _lvbench(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    rows = [row for entry in reference["annotation"] for row in lvbench.load(folder / entry["file"])]
    predictions = reference["predictions"]
    scripts = lvbench.BENCHMARK.official
    yield from dispatch(
        reference["official"],
        {
            "official polish_answer + compute_accuracy": same(scripts["polish_answer"], rows, predictions),
            "official compute_accuracy on RAW texts": same(scripts["compute_accuracy"], rows, predictions),
            "VideoTemp-o3 score.py lvbench": printed_by(scripts[VIDEOTEMP_O3], rows, predictions, counted),
            "lmms-eval before 9ca4445d": same(scripts[LMMS_EVAL_OLD], rows, predictions),
            "lmms-eval HEAD": same(scripts[LMMS_EVAL], rows, predictions),
        },
    )
    if "n_questions" in reference:
        yield compare("n_questions", len(rows), reference["n_questions"])
    if "n_predicted" in reference:
        answered = sum(row.id in predictions for row in rows)
        yield compare("n_predicted", answered, reference["n_predicted"])


def _videommmu(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    rows = [row for entry in reference["annotation"] for row in videommmu.load(folder / entry["file"])]
    items = {
        f"{task.title()}/{item['id']}": item
        for task, some in reference["predictions"].items()
        for item in some
    }
    predictions = {id: item["text"] for id, item in items.items()}
    scripts = videommmu.BENCHMARK.official

    def task(key: str, value: Any) -> Iterator[Check]:
        names = {"official VideoMMMU repo (videoperception_*)": "videommmu", "lmms-eval HEAD": LMMS_EVAL}
        yield from unknown(key, value, names)
        some = [row for row in rows if row.groups["task"] == key.title()]
        for name in names.keys() & value.keys():
            yield from unknown(
                f"{key}: {name}", value[name], ("Overall acc", "printed", "n_api_error_dropped")
            )
            table = scripts[names[name]](some, predictions)
            got = {figure.removeprefix(f"{key.title()}: "): one for figure, one in table.figures.items()}
            yield compare(f"{key}: {name}: Overall acc", got["Overall acc"], value[name]["Overall acc"])
            printed = json.loads(str(value[name]["printed"]).replace("'", '"'))
            expected = {
                f"{entry} {what}": one for entry, both in printed.items() for what, one in both.items()
            }
            yield compare(f"{key}: {name}: printed", got, expected, PRINTED)
            if "n_api_error_dropped" in value[name]:
                dropped = table.failures.get(videommmu.API_ERROR, 0)
                yield compare(f"{key}: {name}: dropped", dropped, value[name]["n_api_error_dropped"])

    yield from dispatch(
        reference["official"],
        {
            **dict.fromkeys((name.lower() for name in videommmu.TASKS), task),
            "VideoTemp-o3 score.py videommmu": printed_by(scripts[VIDEOTEMP_O3], rows, predictions, counted),
        },
    )
    by_id = {row.id: row for row in rows}
    for id, item in items.items():
        yield from unknown(f"item {id}", item, ("id", "text", "official_parsed", "lmms_head_parsed"))
        for name, head in (("official_parsed", False), ("lmms_head_parsed", True)):
            got = videommmu.parsed(by_id[id], item["text"], head)
            got = sorted(str(one) for one in got) if isinstance(got, list) else got
            yield compare(f"item {id}: {name}", got, item[name])


def _nextqa(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    entries = (
        reference["annotation"] if isinstance(reference["annotation"], list) else [reference["annotation"]]
    )
    rows = [row for entry in entries for row in nextqa.load(folder / entry["file"])]
    yield from dispatch(reference["official"], {"eval_mc.py": _eval_mc(rows, reference["predictions"])})
    third = reference.get("third_party_predictions")
    if third is not None:
        yield from unknown("third party", third, ("what", "predictions", "official", "published"))
        predictions = nextqa.read_predictions(folder / third["predictions"]["file"], rows)
        yield from _eval_mc(rows, predictions)("third party", third["official"])
        got, _ = figures_of(nextqa.eval_mc, rows, predictions)
        for name, figure in third["published"].items():
            yield compare(f"third party, published: {name}", got.get(name), figure, PRINTED)


def _eval_mc(rows: Sequence[Row], predictions: Predictions) -> Handler:
    def handle(key: str, value: Any) -> Iterator[Check]:
        got, raised = figures_of(nextqa.eval_mc, rows, predictions)
        if "raises" in value:
            yield compare(f"{key}: raises", raised, value["raises"])
            return
        names, figures, last = value["stdout"].strip().split("\n")
        printed = dict(zip(names.split("\t"), figures.split("\t"), strict=False)) | dict([last.split(": ")])
        expected = {name: float(figure) for name, figure in printed.items() if name}
        yield compare(f"{key}: stdout", got, expected, PRINTED)
        yield compare(key, got, {name: one for name, one in value.items() if name != "stdout"}, PRINTED)

    return handle


def _longvideobench(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    rows, _ = _loaded(longvideobench.load, reference["docs"])
    predictions = {doc["id"]: doc["response"] for doc in reference["docs"]}
    scripts = longvideobench.BENCHMARK.official
    read = {id: lmms_longvideobench(text) for id, text in predictions.items()}
    certain = [row for row in rows if read[row.id] != "RANDOM_CHOICE"]

    def everything(key: str, value: Any) -> Iterator[Check]:
        yield compare(key, scripts[LMMS_EVAL](rows, predictions).figures["Overall acc"], value)

    def subset(key: str, value: Any) -> Iterator[Check]:
        yield from unknown(key, value, ("n", "Overall acc", "by group"))
        table = scripts[LMMS_EVAL](certain, predictions)
        yield compare(f"{key}: n", len(certain), value["n"])
        yield compare(f"{key}: Overall acc", table.figures["Overall acc"], value["Overall acc"])
        groups = {name.removesuffix(" num") for name in table.figures if name.endswith(" num")} - {"Overall"}
        yield compare(f"{key}: groups", sorted(groups), sorted(value["by group"]))
        for name, count in value["by group"].items():
            got = (table.figures.get(f"{name} num"), table.figures.get(f"{name} acc"))
            yield compare(f"{key}: {name}", got, (count["n"], round(count["correct"] / count["n"], 5)))

    def overall(key: str, value: Any) -> Iterator[Check]:
        yield compare(key, scripts[VLMEVALKIT](rows, predictions).figures["overall"], value)

    yield from dispatch(
        reference["official"],
        {
            "lmms-eval all ": everything,
            "lmms-eval deterministic subset only": subset,
            "VLMEvalKit extract_characters_regex": overall,
        },
    )
    by_id = {row.id: row for row in rows}
    for item in reference.get("per_item", []):
        got = (read[item["id"]], by_id[item["id"]].answer)
        yield compare(f"item {item['id']}", got, (item["lmms_parsed"], item["gt"]))


def _loaded(
    load: Callable[[Path], list[Row]],
    records: Any,
    read: Callable[[Path, Sequence[Row]], Predictions] | None = None,
) -> tuple[list[Row], Predictions]:
    """Return rows and predictions of records that a reference holds itself, through a file as users have it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "records.json")
        path.write_text(json.dumps(records), encoding="utf-8")
        rows = load(path)
        return rows, read(path, rows) if read is not None else {}


BENCHMARK_ADAPTERS: dict[str, BenchmarkAdapter] = {
    "videomme": _videomme,
    "mlvu": _mlvu,
    "lvbench": _lvbench,
    "videommmu": _videommmu,
    "nextqa": _nextqa,
    "longvideobench": _longvideobench,
}
