"""Which of our functions answer for the references of benchmarks with windows, saliency and letters together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.golden.checks import Check, compare
from tests.golden.printed import PRINTED, figures_of, unknown
from tests.golden.replay_benchmarks import BenchmarkAdapter
from timeloupe.errors import RecordError
from timeloupe.eval.benchmarks import cgbench, nextgqa, qvhighlights, rextime
from timeloupe.eval.scoring import Predictions, Row, Scorer
from timeloupe.eval.scripts import cgbench as cgbench_scripts
from timeloupe.eval.scripts import videomind as videomind_script
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.grounding import taro, time_r1
from timeloupe.eval.scripts.grounding_tensors import etchat, museg_stat, museg_tal, videomind

HEADER = ("benchmark", "set", "commits", "annotation", "rules", "split", "generator_seed", "n")
FRACTION = 1e-7


def raised(call: Callable[[], Any]) -> Any:
    """Return what a call gives, or what it raises as references write it."""
    try:
        return call()
    except OfficialError as error:
        return {"raises": str(error)}


def annotated(
    load: Callable[[Path], list[Row]], folder: Path, entry: Any, about: Sequence[str] = ()
) -> list[Row]:
    """Return the rows of the annotation that a reference names: of several files the first that can be read so.

    Args:
        load: Our reader.
        folder: What the names are relative to.
        entry: One ``{"file": ...}`` or a list of them.
        about: Ids that the rows must have, if any file's do.
    """
    entries = entry if isinstance(entry, list) else [entry]
    found: list[list[Row]] = []
    for one in entries:
        try:
            found.append(load(folder / one["file"]))
        except RecordError:
            if len(entries) == 1:
                raise
    if not found:
        raise RecordError(f"none of {entries!r:.120} can be read")
    return next((rows for rows in found if set(about) <= {row.id for row in rows}), found[0])


def alike(id: str, got: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> Iterator[Check]:
    """Yield one check per expected value, and one for each that only one side has."""
    yield from unknown(id, expected, got)
    for name, value in got.items():
        yield compare(f"{id}: {name}", value, expected.get(name), tolerance)


# -- QVHighlights ------------------------------------------------------------------------------------------------------


def replay_qvhighlights(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Yield the checks of the authors' samples, of synthetic submissions, of texts and of segments."""
    blocks: dict[str, Callable[[Any, list[Row]], Iterator[Check]]] = {
        "third_party_predictions": lambda block, rows: _shipped(block, rows, folder),
        "synthetic_predictions": lambda block, rows: _synthetic(block, rows, folder),
        "third_party_predictions_vhd": lambda block, rows: _saliency(block, rows, folder),
        "single_window_text": lambda block, rows: _texts(block, rows),
        "segment_level": lambda block, rows: _segments(block, rows),
        "official": lambda block, rows: unknown("official", block, ()),
    }
    yield from unknown("reference", reference, (*HEADER, *blocks))
    rows = annotated(qvhighlights.load, folder, reference["annotation"])
    yield compare("n", len(rows), reference["n"])
    for name, block in reference.items():
        if name not in blocks:
            continue
        truth = block.get("gt", block.get("annotation", reference["annotation"]))
        yield from blocks[name](block, annotated(qvhighlights.load, folder, truth, _ids(block, folder)))


def _ids(block: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the ids of a block's predictions, which stand in it or in a file."""
    given = block.get("predictions")
    if isinstance(given, dict) and "file" in given:
        return list(qvhighlights.read_predictions(folder / given["file"], []))
    return [str(one["qid"]) for one in given or ()]


def _nested(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Our figures in the form of the script's file: the flat ones under ``brief``."""
    brief = {name: value for name, value in figures.items() if not isinstance(value, dict)}
    return {"brief": brief} | {name: value for name, value in figures.items() if isinstance(value, dict)}


def _submission(block: Mapping[str, Any], rows: list[Row], folder: Path) -> Predictions:
    return qvhighlights.read_predictions(folder / block["predictions"]["file"], rows)


def _shipped(block: Mapping[str, Any], rows: list[Row], folder: Path) -> Iterator[Check]:
    known = ("what", "note", "predictions", "gt", "annotation")
    yield from unknown(
        "third party",
        block,
        (*known, "shipped_metrics", "rerun_metrics_here", "differences_rerun_vs_shipped"),
    )
    figures, kind = figures_of(
        qvhighlights.BENCHMARK.official["moment_detr"], rows, _submission(block, rows, folder)
    )
    yield compare("third party: raises", kind, "")
    ours = _nested(figures)
    for name in ("shipped_metrics", "rerun_metrics_here"):
        yield from alike(f"third party: {name}", ours, block[name], PRINTED)
    wrong = [
        name
        for name, value in block["shipped_metrics"].items()
        if compare("", ours.get(name), value, PRINTED).why
    ]
    yield compare("third party: differences", wrong, block["differences_rerun_vs_shipped"])


def _synthetic(block: Mapping[str, Any], rows: list[Row], folder: Path) -> Iterator[Check]:
    yield from unknown(
        "synthetic", block, ("predictions", "generator_seed", "official", "contains", "what", "note")
    )
    predictions = _submission(block, rows, folder)
    for name, expected in block["official"].items():
        if not name.startswith("moment_detr"):
            yield Check(name, "no scorer of ours answers for this script")
            continue
        yield from _submitted(f"synthetic: {name}", "moment_detr", rows, predictions, expected)


def _submitted(
    id: str, script: str, rows: list[Row], predictions: Predictions, expected: Mapping[str, Any]
) -> Iterator[Check]:
    figures, kind = figures_of(qvhighlights.BENCHMARK.official[script], rows, predictions)
    if "raises" in expected:
        yield compare(f"{id}: raises", kind, expected["raises"].split(":")[0])
        return
    yield compare(f"{id}: raises", kind, "")
    yield from alike(id, _nested(figures), expected, PRINTED)


def _saliency(block: Mapping[str, Any], rows: list[Row], folder: Path) -> Iterator[Check]:
    yield from unknown("saliency", block, ("what", "note", "predictions", "gt", "official"))
    predictions = _submission(block, rows, folder)
    yield from _submitted("saliency", "timesuite_vhd", rows, predictions, block["official"])


def _texts(block: Mapping[str, Any], rows: list[Row]) -> Iterator[Check]:
    yield from unknown("texts", block, ("what", "note", "official", "segment_level", "predictions"))
    texts = {str(one["qid"]): one["text"] for one in block["predictions"]}
    for name, expected in block["official"].items():
        if name.startswith("TaRO"):
            yield from alike(f"texts: {name}", figures_of(taro, rows, texts)[0], expected, FRACTION)
        elif name.startswith("MUSEG tal") and "directly" in name:
            stat = museg_stat([(row.windows, texts[row.id]) for row in rows if row.id in texts], "tal")
            yield from alike(f"texts: {name}", stat, expected, FRACTION)
        elif name.startswith("MUSEG tal"):
            yield from alike(f"texts: {name}", figures_of(museg_tal, rows, texts)[0], expected, FRACTION)
        else:
            yield Check(f"texts: {name}", "no scorer of ours answers for this script")
    if "segment_level" in block:
        yield from _segments(block["segment_level"], rows)


def _segments(block: Mapping[str, Any], rows: list[Row]) -> Iterator[Check]:
    yield from unknown("segments", block, ("what", "note", "official", "predictions"))
    firsts = {str(one["qid"]): one["seg"] or [] for one in block["predictions"]}
    ranked = {str(one["qid"]): one["top5"] for one in block["predictions"]}
    for name, expected in block["official"].items():
        id, word = f"segments: {name}", name.split()[0]
        if word == "TaRO":
            yield from alike(id, figures_of(taro, rows, firsts)[0], expected, FRACTION)
        elif word == "TimeR1":
            figures = figures_of(time_r1, rows, firsts)[0]
            yield from alike(
                id,
                {figure.removeprefix("R@"): value for figure, value in figures.items()},
                expected,
                FRACTION,
            )
        elif word == "E.T.Chat":
            yield from _etchat(id, rows, firsts, expected)
        elif word == "VideoMind":
            yield from _videomind_of_rows(id, rows, ranked, expected)
        else:
            yield Check(id, "no scorer of ours answers for this script")


def _etchat(id: str, rows: list[Row], firsts: Predictions, expected: Mapping[str, Any]) -> Iterator[Check]:
    yield from unknown(id, expected, ("log",))
    printed = {
        name: float(value) for name, value in re.findall(r"(R@[\d.]+|mIoU): ([\d.]+)", expected["log"])
    }
    failed = re.search(r"Failed: (\d+) samples \(([\d.]+)%\)", expected["log"])
    if failed is None:
        yield Check(id, "the log has no line of failures")
        return
    printed["Failed"] = int(failed[1])
    figures = figures_of(etchat, rows, firsts)[0]
    yield from alike(id, figures, printed, PRINTED)
    share = float(f"{figures['Failed'] / len(rows) * 100:.1f}")
    yield compare(f"{id}: failed percent", share, float(failed[2]), PRINTED)


def _videomind_of_rows(
    id: str, rows: list[Row], ranked: Predictions, expected: Mapping[str, Any]
) -> Iterator[Check]:
    """Both of our ways to VideoMind's figures: the scorer of windows and the script's whole tables."""
    yield from unknown(id, expected, ("log",))
    samples = [
        {"task": "x", "span": row.windows, "pred": ranked[row.id], "conf": [0.9, 0.7, 0.5, 0.3, 0.1]}
        for row in rows
        if row.id in ranked
    ]
    yield from printed_tables(id, videomind_script.tables(samples), expected["log"])
    everything = tables_of(expected["log"])
    figures = figures_of(videomind, rows, ranked)[0]
    for label in ("IoU", "IoP"):
        columns = everything.get(f"Grounding ({label})", {}).get("all", {})
        for column, value in columns.items():
            ours = figures.get(f"{label} {column}", figures.get(column))
            yield compare(f"{id}: scorer {label} {column}", ours, value, PRINTED)


# -- printed tables of VideoMind ---------------------------------------------------------------------------------------


def tables_of(log: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return the tables of a log by title, task and column; lines like ``IoU Raise`` are under ``Change``."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    title, names = "", []
    for line in log.splitlines():
        if change := re.fullmatch(r"(Io[UP] \w+) \(\d+ Samples\): (\d+) \(([\d.]+)%\)", line):
            found.setdefault("Change", {})[change[1]] = {"count": int(change[2]), "percent": float(change[3])}
        elif line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if names:
                values = [float(cell) for cell in cells[1:]]
                found[title][cells[0]] = dict(zip(names, values, strict=True))
            else:
                names = cells[1:]
        elif line.endswith(":"):
            title, names = line.removesuffix(":"), []
            found[title] = {}
    return {name: table for name, table in found.items() if table}


def printed_tables(
    id: str, ours: Mapping[str, Mapping[str, Mapping[str, float]]], log: str
) -> Iterator[Check]:
    """Yield one check per line of a printed table; tables without samples on one side only are failed checks."""
    expected = tables_of(log)
    if not expected:
        yield Check(id, "the log has no table")
    yield from unknown(id, expected, ours)
    for title, table in ours.items():
        if title not in expected and title == "QA" and not table["all"]["#Samples"]:
            continue
        yield compare(f"{id}: tasks of {title}", sorted(table), sorted(expected.get(title, {})))
        for task, values in table.items():
            yield compare(f"{id}: {title}, {task}", values, expected.get(title, {}).get(task), PRINTED)


# -- ReXTime -----------------------------------------------------------------------------------------------------------


def replay_rextime(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Yield the checks of submissions with windows, letters, or both, and of two that the script refuses."""
    yield from unknown("reference", reference, (*HEADER, "official", "predictions"))
    rows = annotated(rextime.load, folder, reference["annotation"])
    yield compare("n", len(rows), reference["n"])
    records = {one["qid"]: one for one in reference["predictions"]}
    first = next(iter(records))
    submissions: dict[str, Predictions] = {
        "grounding VQA (windows + ans)": records,
        "grounding only": _without(records, "ans"),
        "VQA only": _without(records, "pred_relevant_windows"),
        "one qid missing": {id: record for id, record in records.items() if id != first},
        "empty window list in one record": records | {first: records[first] | {"pred_relevant_windows": []}},
    }
    for name, expected in reference["official"].items():
        if name not in submissions:
            yield Check(name, "no submission of ours is of this kind")
            continue
        got = raised(lambda predictions=submissions[name]: rextime.official(rows, predictions).figures)
        if "raises" in expected or "raises" in got:
            yield compare(name, dict(got), expected)
            continue
        vqa = {"VQA": got["VQA"]} if "VQA" in got else {}
        full = {"full": got["full"]} if "full" in got else {}
        brief = {figure: value for figure, value in got.items() if figure != "full"}
        yield from alike(name, {"brief": brief, **vqa, **full}, expected, PRINTED)


def _without(records: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {
        id: {field: value for field, value in record.items() if field != name}
        for id, record in records.items()
    }


# -- NExT-GQA ----------------------------------------------------------------------------------------------------------


def replay_nextgqa(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Yield the checks of both scripts and of single overlaps."""
    counts = ("n_gt", "n_pred", "answer_index_missing_in_options")
    items = [
        name for name in reference if name.startswith("per_item")
    ]  # the name goes on with how many they are
    yield from unknown("reference", reference, (*HEADER, *counts, "official", *items, "predictions"))
    rows = annotated(nextgqa.load, folder, reference["annotation"])
    given = reference["predictions"]
    yield compare("n_gt", len(rows), reference["n_gt"])
    yield compare("n_pred", len(given["ground_seconds"]), reference["n_pred"])
    lacking = sum(row.answer is None for row in rows)
    yield compare("answers not among options", lacking, reference["answer_index_missing_in_options"])
    seconds, shares, answers = given["ground_seconds"], given["ground_normalised"], given["qa"]
    third = dict(list(seconds.items())[: len(seconds) // 3])
    known: dict[str, tuple[Scorer, Predictions]] = {
        "eval_ground.py (spans in seconds, with QA)": (nextgqa.eval_ground, _joined(seconds, answers)),
        "eval_ground.py gs=True (spans normalised 0..1)": (nextgqa.eval_ground_gs, _joined(shares, answers)),
        "eval_ground.py without QA": (nextgqa.eval_ground, _joined(seconds, {})),
        "eval_ground.py subset": (nextgqa.eval_ground, _joined(third, answers)),
        "eval_next.py Ground subset accuracy": (nextgqa.eval_next, _joined({}, answers)),
    }
    for name, expected in reference["official"].items():
        if name not in known:
            yield Check(name, "no scorer of ours answers for this key")
            continue
        scorer, predictions = known[name]
        figures, kind = figures_of(scorer, rows, predictions)
        yield compare(f"{name}: raises", kind, expected.get("raises", "").split(":")[0])
        yield from _nextgqa_figures(name, figures, expected)
    for name in items:
        for item in reference[name]:
            yield from _overlap(item, rows)


def _joined(spans: Mapping[str, Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    """Records with a span, an answer, or both, as ``read_predictions`` makes of the two files."""
    return {
        id: ({"span": spans[id]} if id in spans else {}) | answers.get(id, {}) for id in {**spans, **answers}
    }


def _nextgqa_figures(name: str, figures: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Check]:
    yield from unknown(name, expected, (*figures, "stdout", "subset", "raises"))
    for figure in expected.keys() & figures.keys():
        yield compare(f"{name}: {figure}", figures[figure], expected[figure], PRINTED)
    if "stdout" in expected:
        numbers = [
            float(number) for number in re.findall(r"(?<![\w@.])\d+(?:\.\d+)?(?![\w.])", expected["stdout"])
        ]
        order = ("Video", "Questions") if "Video" in figures else ()
        ours = [figures[one] for one in order] + [value for one, value in figures.items() if one not in order]
        yield compare(f"{name}: stdout", ours, numbers, PRINTED)


def _overlap(item: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[Check]:
    id = f"item {item['key']}"
    row = next((row for row in rows if row.id == item["key"]), None)
    if row is None:
        yield Check(id, "there is no such question")
        return
    yield compare(f"{id}: gt", row.windows, item["gt"])
    pairs = [nextgqa.overlap(window, item["span"]) for window in row.windows]
    yield compare(f"{id}: overlaps", pairs, item["per_gt_(IoU,IoP)"], FRACTION)
    best = nextgqa.best_overlaps(row, item["span"])
    yield compare(f"{id}: best", best, (item["max_tIoU"], item["max_tIoP"]), FRACTION)


# -- CG-Bench ----------------------------------------------------------------------------------------------------------


def replay_cgbench(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Yield the checks of every reply, of the sums over them, and of VideoMind's tables."""
    yield from unknown("reference", reference, (*HEADER, "official", "videomind", "predictions"))
    rows = {row.id: row for row in annotated(cgbench.load, folder, reference["annotation"])}
    replies = {str(one["qid"]): one for one in reference["predictions"]}
    yield compare("n", len(replies), reference["n"])
    asked = [rows[id] for id in replies if id in rows]
    yield compare("questions of the annotation", len(asked), len(replies))
    for row in asked:
        yield from _replies(row, replies[row.id])
    table = cgbench_scripts.stat_with_key(asked, replies)
    for name, expected in reference["official"].items():
        if name.startswith("lmms-eval HEAD cgbench_accuracy"):
            figures = cgbench_scripts.lmms(asked, replies).figures
            yield compare(name, figures["cgbench_accuracy"], expected, FRACTION)
        elif name.startswith("stat_with_key.py"):
            yield from unknown(name, expected, ("stdout", "error"))
            yield compare(f"{name}: error", "", expected["error"])
            yield from _printed_keys(name, table.figures, expected["stdout"])
        elif name in (*cgbench_scripts.TASKS, "rec@iou", "acc@iou"):
            yield from _key_figures(name, table.figures, expected, len(asked))
        else:
            yield Check(name, "no scorer of ours answers for this key")
    if "videomind" in reference:
        yield from _videomind_blocks(reference["videomind"])


def _replies(row: Row, reply: Mapping[str, Any]) -> Iterator[Check]:
    for task in cgbench_scripts.TASKS:
        if f"{task}_official" not in reply:
            continue
        expected = reply[f"{task}_official"]
        if isinstance(expected, dict):
            truth = row.raw["clue_intervals"]
            got = raised(lambda text=reply[task], truth=truth: cgbench_scripts.judge_windows(text, truth))
            yield compare(f"{row.id} {task}", got, {"raises": f"{expected['raises']}: {expected['message']}"})
        else:
            yield compare(
                f"{row.id} {task}", cgbench_scripts.judge(task, row, reply[task]), expected, FRACTION
            )


def _key_figures(
    name: str, figures: Mapping[str, Any], expected: Mapping[str, Any], count: int
) -> Iterator[Check]:
    ours = {"Accuracy": figures[name]}
    ours |= {
        figure.removeprefix(f"{name} "): value
        for figure, value in figures.items()
        if figure.startswith(f"{name} ")
    }
    if name in cgbench_scripts.TASKS:
        ours["none_or_raised"] = count - ours["total"]
        ours["total (records with a result)"] = ours.pop("total")
    yield from alike(name, ours, expected, FRACTION)


def _printed_keys(id: str, figures: Mapping[str, Any], stdout: str) -> Iterator[Check]:
    for key, line in re.findall(r"Result Key: (.+)\n(.+)\n", stdout):
        name = next(
            (one for one in (*cgbench_scripts.TASKS, "rec@iou", "acc@iou") if key.startswith(f"{one}_")), None
        )
        if name is None:
            yield Check(f"{id}: {key}", "no scorer of ours answers for this key")
            continue
        for word, number in re.findall(r"([\w.]+): ([^,\s]+)", line):
            ours = figures[name] if word == "Accuracy" else figures.get(f"{name} {word[0].lower()}{word[1:]}")
            # The sum of 2,800 shares depends on the order in which the script finds its files.
            yield compare(f"{id}: {key} {word}", ours, float(number), FRACTION)


def _videomind_blocks(block: Mapping[str, Any]) -> Iterator[Check]:
    yield from unknown("videomind", block, ("samples", "official", "what", "note"))
    for name, log in block["official"].items():
        confidence = re.search(r"conf_thr=([\d.]+)", name)
        if name.startswith("cgbench mode"):
            mode = videomind_script.cgbench_mode(float(confidence[1]) if confidence else -1.0)
        elif name.startswith("default mode"):
            mode = videomind_script.DEFAULT
        else:
            yield Check(f"videomind: {name}", "no mode of ours has this name")
            continue
        yield from printed_tables(f"videomind: {name}", videomind_script.tables(block["samples"], mode), log)


BENCHMARK_ADAPTERS: dict[str, BenchmarkAdapter] = {
    "qvhighlights": replay_qvhighlights,
    "rextime": replay_rextime,
    "nextgqa": replay_nextgqa,
    "cgbench": replay_cgbench,
}
