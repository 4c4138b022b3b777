"""Which of our functions answer for the official scripts of temporal grounding, and how their printed text is taken."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.golden.checks import Check, compare
from tests.golden.replay import Adapter
from tests.golden.replay_benchmarks import BenchmarkAdapter
from timeloupe.eval.benchmarks import museg_grounding, timelens, videotemp_bench_grounding
from timeloupe.eval.extractors import LETTER_EXTRACTORS, TIME_EXTRACTORS
from timeloupe.eval.files.grounding_predictions import read_predictions
from timeloupe.eval.registry import benchmark
from timeloupe.eval.scoring import Predictions, Row, Scorer, Table
from timeloupe.eval.scripts import grounding as scripts
from timeloupe.eval.scripts import grounding_tensors as tensors
from timeloupe.eval.scripts.errors import OfficialError

Extras = Mapping[str, Any]
"""Figures of a reference that are not in the script's own, by their name in the reference."""


# -- vectors -----------------------------------------------------------------------------------------------------------


def _museg_eval(inputs: dict[str, Any]) -> Any:
    return tensors.museg_stat([(entry[0], entry[1]) for entry in inputs["data"]], inputs["eval_type"])


def _taro_iou(inputs: dict[str, Any]) -> float:
    return scripts.judge_taro(inputs["pred_segment"], [inputs["gt_segment"]])[1]


def _taro_aggregate(inputs: dict[str, Any]) -> Any:
    results = inputs["all_results"]
    rows = [_row(str(at), result["relevant_windows"]) for at, result in enumerate(results)]
    predictions = {str(at): result["pred_relevant_window"] for at, result in enumerate(results)}
    return dict(scripts.taro(rows, predictions).figures) if results else None


def _row(id: str, windows: Sequence[Any]) -> Row:
    return Row(
        id=id, video="", question="", task="grounding", windows=tuple((one[0], one[1]) for one in windows)
    )


ADAPTERS: dict[tuple[str, str], Adapter] = {
    ("THUNLP-MT/MUSEG", "grounding_eval"): _museg_eval,
    ("oceanflowlab/TaRO", "eval_iou"): _taro_iou,
    ("oceanflowlab/TaRO", "eval_aggregate"): _taro_aggregate,
    ("oceanflowlab/TaRO", "eval_extract_time"): (
        lambda inputs: TIME_EXTRACTORS["TaRO.extract_time"](inputs["paragraph"])
    ),
}


# -- what is compared --------------------------------------------------------------------------------------------------


def _scored(scorer: Scorer, rows: Sequence[Row], predictions: Predictions) -> Table:
    """The script's table, also where it raises."""
    try:
        return scorer(rows, predictions)
    except OfficialError as error:
        return Table("", {}, "fraction", 0, len(rows), error=str(error))


def _block(name: str, expected: Mapping[str, Any], table: Table, extras: Extras) -> Iterator[Check]:
    """One check per key of a block of figures; a key that nothing of ours answers for is a failed one."""
    ours = dict(table.figures) | dict(extras)
    for key, value in expected.items():
        id = f"{name}: {key}"
        if key in ("stderr", "error", "raises"):
            yield _same_error(id, table.error, value)
        elif table.error is not None and key not in extras:
            yield Check(id, "" if value is None else f"our script raises {table.error} for {value!r:.80}")
        elif key not in ours:
            yield Check(id, f"nothing of ours answers for it, ours has {sorted(map(str, ours))}")
        elif isinstance(ours[key], str) and isinstance(value, str):
            yield from _lines(id, ours[key], value)
        else:
            yield compare(id, ours[key], value)


def _same_error(id: str, ours: str | None, printed: Any) -> Check:
    """The last line of a traceback, or "" for none, beside our exception; divisions are worded in several ways."""
    text = str(printed or "").strip().splitlines()
    mine, theirs = (ours or "").split(":")[0], (text[-1] if text else "").split(":")[0].strip()
    return compare(id, mine, theirs)


_NUMBER = re.compile(r"(?<![\w.])-?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|nan)(?![\w.])")


def _lines(id: str, ours: str, theirs: str) -> Iterator[Check]:
    """One check per printed line: its words must be equal, its numbers within the tolerance."""
    mine, printed = ours.split("\n"), theirs.split("\n")
    yield compare(f"{id}, number of lines", len(mine), len(printed))
    for at, (one, two) in enumerate(zip(mine, printed, strict=False)):
        words = _NUMBER.sub("#", one), _NUMBER.sub("#", two)
        numbers = [[float(number) for number in _NUMBER.findall(line)] for line in (one, two)]
        check = compare(f"{id}, line {at}", words[0], words[1])
        yield check if check.why else compare(f"{id}, line {at}", numbers[0], numbers[1])


# -- Charades-STA, ActivityNet Captions, TVGBench ----------------------------------------------------------------------


def one_window(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Checks of a benchmark with one true window per row."""
    load = benchmark(reference["benchmark"]).load
    files = (
        reference["annotation"] if isinstance(reference["annotation"], list) else [reference["annotation"]]
    )
    loaded = [load(folder / one["file"]) for one in files]
    texts = {entry["qid"]: entry["text"] for entry in reference["predictions"]}
    rows = next(some for some in loaded if texts.keys() <= {row.id for row in some})
    yield compare("n", len(texts), reference["n"])
    unclipped = next((some for some in loaded if "image_id" in some[0].raw), rows)
    numbered = {row.id: unclipped[at].id for at, row in enumerate(rows)}
    of_unclipped = {numbered[id]: text for id, text in texts.items()}
    asked = [row for row in unclipped if row.id in of_unclipped]
    for name, expected in reference["official"].items():
        if name == "TimeChat/TimeSuite":
            yield from _texts(name, expected, asked, of_unclipped)
        else:
            yield from _texts(name, expected, rows, texts)
    by_id = {row.id: row for row in rows}
    for key, items in reference.items():
        if key.startswith("per_item"):
            for item in items:
                yield from _item(item, by_id[item["qid"]], texts[item["qid"]])
    if "segment_level" in reference:
        yield from _segment_level(reference["segment_level"], rows)
    if "third_party_predictions" in reference:
        yield from _third_party(reference["third_party_predictions"], folder, load)


TEXT_SCRIPTS: dict[str, Scorer] = {
    "TaRO": scripts.taro,
    "TimeR1": scripts.time_r1,
    "lmms-eval charades HEAD": scripts.lmms,
    "lmms-eval eval_tvg.py": scripts.lmms_tvg,
    "TimeLens": scripts.timelens,
    "TimeChat/TimeSuite": scripts.timesuite,
    "MUSEG tvg (needs <answer> tags)": tensors.museg_tvg,
    "MUSEG tvg (text fed directly to eval())": tensors.museg_tvg_untagged,
    "VideoTemp-o3": scripts.videotemp,
    "ETBench tvg": tensors.etbench_tvg,
}

ITEM_JUDGES: dict[str, tuple[scripts.Judge, Any]] = {
    "TaRO": (scripts.judge_taro, [None, None]),
    "TimeR1": (scripts.judge_time_r1, [None, None]),
    "TimeLens": (scripts.judge_timelens, None),
    "lmms-eval charades": (scripts.judge_lmms, None),
    "lmms-eval eval_tvg": (scripts.judge_lmms_tvg, None),
    "TimeChat/TimeSuite": (scripts.judge_timesuite, None),
    "VideoTemp-o3": (scripts.judge_videotemp, None),
    "ETBench tvg": (tensors.judge_etbench, None),
}
"""Our judge, and what the reference has where nothing is read."""


def _texts(
    name: str, expected: dict[str, Any], rows: Sequence[Row], texts: Mapping[str, str]
) -> Iterator[Check]:
    if name not in TEXT_SCRIPTS:
        yield Check(name, "no scorer of ours answers for this script")
        return
    if "stdout" in expected:
        yield from _videotemp_stdout(name, expected, rows, texts)
        return
    table = _scored(TEXT_SCRIPTS[name], rows, texts)
    extras: dict[str, Any] = {}
    if "n_unique_keys" in expected:
        extras["n_unique_keys"] = len(scripts.by_key(rows, texts, cleaned=name == "TimeLens"))
    if "n_no_timestamp" in expected:
        format_tvg = TIME_EXTRACTORS["TimeChat/TimeSuite.format_tvg.extract_time"]
        extras["n_no_timestamp"] = sum(not format_tvg(text) for text in texts.values())
    if "stdout_tail" in expected:
        # The tail begins within a line, which is left out; so are the lines that name a prediction that was not read
        # (references were written without them, but not without the further lines of such a prediction).
        tail = _unnamed(expected["stdout_tail"].split("\n")[1:])
        printed = _unnamed(_eval_tvg_stdout(rows, texts, table).split("\n"))
        extras["stdout_tail"] = "\n".join(printed[len(printed) - len(tail) :])
        expected = expected | {"stdout_tail": "\n".join(tail)}
    yield from _block(name, expected, table, extras)


def _unnamed(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.startswith("pred=")]


def _eval_tvg_stdout(rows: Sequence[Row], texts: Mapping[str, str], table: Table) -> str:
    """What ``eval_tvg.py`` of lmms-eval prints."""
    lines = []
    with contextlib.suppress(OfficialError):
        for row, text in scripts.by_key(rows, texts, cleaned=False).values():
            if scripts.judge_lmms_tvg(text, row.windows)[0] is None:
                lines.append(f"pred={text},timestamps=[]")
    if table.error is None:
        figures = table.figures
        lines += [f"IOU {level}: {figures[f'IOU {level}']}" for level in scripts.THRESHOLDS]
        lines.append(f"mIOU {figures['mIOU']}")
    return "\n".join(lines)


def _videotemp_stdout(
    name: str, expected: Mapping[str, Any], rows: Sequence[Row], texts: Mapping[str, str]
) -> Iterator[Check]:
    """Checks of what ``score.py videotemp-g`` prints, up to where it ends."""
    done = [row for row in rows if texts.get(row.id) is not None]
    judged = [scripts.judge_videotemp(texts[row.id], row.windows) for row in done]
    rule, error = "=" * 55, None
    lines = [rule, "VideoTemp Grounding Evaluation", rule]
    try:
        for label, found in scripts.videotemp_parts(done, [iou for _, iou in judged]):
            figures = "  ".join(f"{figure}={value:.2f}%" for figure, value in found.items())
            lines.append(f"  [{label:>9s}]  {figures}")
        if failed := sum(segment is None for segment, _ in judged):
            lines += ["", f"  ⚠ Parse errors (no valid timestamp found): {failed}"]
    except OfficialError as raised:
        error = str(raised)
    table = _scored(scripts.videotemp, rows, texts)
    yield compare(f"{name}: table and printed lines end alike", table.error, error)
    if error is None:
        total = scripts.videotemp(rows, texts).figures
        printed = re.search(
            r"Total\]  mIoU=([\d.]+|nan)%.*R@0.5=([\d.]+)%.*Avg=([\d.]+|nan)%", expected["stdout"]
        )
        mine = [total[figure] for figure in ("mIoU", "R@0.5", "Avg")]
        yield compare(f"{name}: table", mine, [float(one) for one in printed.groups()] if printed else None)
    for key, value in expected.items():
        if key == "stdout":
            yield from _lines(f"{name}: {key}", "\n".join([*lines, ""]), value)
        elif key == "error":
            yield _same_error(f"{name}: {key}", error, value)
        else:
            yield Check(f"{name}: {key}", "nothing of ours answers for it")


def _item(item: Mapping[str, Any], row: Row, text: str) -> Iterator[Check]:
    for name, expected in item.items():
        if name == "qid":
            continue
        id = f"{item['qid']}, {name}"
        if name not in ITEM_JUDGES:
            yield Check(id, "no judge of ours answers for this script")
            continue
        judge, nothing = ITEM_JUDGES[name]
        try:
            segment, iou = judge(text, row.windows)
        except OfficialError as error:
            yield _same_error(id, str(error), expected.get("raises"))
            continue
        yield compare(id, {"seg": nothing if segment is None else segment, "iou": iou}, expected)


# -- windows without text ----------------------------------------------------------------------------------------------


def _segment_level(block: Mapping[str, Any], rows: Sequence[Row]) -> Iterator[Check]:
    firsts = {entry["qid"]: entry["seg"] or [] for entry in block["predictions"]}
    ranked = {entry["qid"]: entry["top5"] for entry in block["predictions"]}
    for name, expected in block["official"].items():
        id, word = f"segment level: {name}", name.split()[0]
        if word == "TaRO":
            yield from _block(id, expected, _scored(scripts.taro, rows, firsts), {})
        elif word == "TimeR1":
            table = _scored(scripts.time_r1, rows, firsts)
            levels = {str(level): table.figures.get(f"R@{level}") for level in scripts.THRESHOLDS}
            yield from _block(id, expected, table, levels)
        elif word == "E.T.Chat":
            table = _scored(tensors.etchat, rows, firsts)
            yield from _block(id, expected, table, {"log": _etchat_log(table)})
        elif word == "VideoMind":
            table = _scored(tensors.videomind, rows, ranked)
            yield from _block(id, expected, table, {"log": _videomind_log(table)})
        else:
            yield Check(id, "no scorer of ours answers for this script")


def _etchat_log(table: Table) -> str:
    figures, count = table.figures, table.num_scored
    recalls = " ".join(f"R@{level}: {figures.get(f'R@{level}')}" for level in tensors.RECALL_LEVELS)
    failed = figures.get("Failed", 0)
    return (
        f"Total number of files: 1\n{recalls}\nmIoU: {figures.get('mIoU')}\n"
        f"Failed: {failed} samples ({failed / max(count, 1) * 100:.1f}%)\n"
    )


def _videomind_log(table: Table) -> str:
    """What ``eval_auto.py`` logs for one file whose samples are all of task "x" and have no question."""
    figures = table.figures
    lines = ["Dataset is unknown, using default mode", "Total number of files: 1"]
    count, failed = str(figures.get("#Samples")), str(figures.get("Failed"))
    for label in ("IoU", "IoP"):
        names = [f"R{top}@{level}" for top in tensors.TOP for level in tensors.RECALL_LEVELS]
        values = [f"{figures.get(f'{label} {name}', 0):.2f}" for name in names]
        values.append(f"{figures.get(f'm{label}', 0):.2f}")
        cells = [[task, count, failed, *values] for task in ("x", "all")]
        lines += ["", f"Grounding ({label}):"]
        lines += _grid([["Task", "#Samples", "Failed", *names, f"m{label}"], *cells])
        lines += [
            "",
            f"{label} Raise ({count} Samples): 0 (0.00%)",
            f"{label} Lower ({count} Samples): 0 (0.00%)",
        ]
    nothing = [[task, "0", "0", "0.00", "0.00", "0.00"] for task in ("x", "all")]
    lines += ["", "QA:"]
    lines += _grid([["Task", "#Samples", "Failed", "Acc", "Acc (IoU >= 0.5)", "Acc (IoP >= 0.5)"], *nothing])
    return "\n".join([*lines, ""])


def _grid(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    return [rule, lines[0], rule, *lines[1:], rule]


def _third_party(
    block: Mapping[str, Any], folder: Path, load: Callable[[Path], list[Row]]
) -> Iterator[Check]:
    """Checks of a shipped prediction file of TimeChat's layout, scored with ``--sample``."""
    rows = load(folder / block["gt"]["file"])
    predictions = read_predictions(folder / block["predictions"]["file"], rows)
    table = _scored(scripts.timesuite_sample, rows, predictions)
    counts = f"# pred video timestamps {len(predictions)}; # gt video timestamps {table.num_scored}"
    lines = [counts, *(f"{name}: {value}" for name, value in table.figures.items()), ""]
    expected = dict(block["official"])
    if "stdout" in expected:
        named, expected["stdout"] = expected["stdout"].split("\n", 1)
        yield compare("third party: stdout names the truth", named.split(":")[0], "GT File")
    yield from _block("third party", expected, table, {"stdout": "\n".join(lines)})
    if len(predictions) != len(rows):
        whole = _scored(scripts.timesuite, rows, predictions)
        yield compare("third party: without --sample", whole.error, "AssertionError")


# -- TimeLens ----------------------------------------------------------------------------------------------------------


def timelens_form(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Checks of TimeLens' key layout: the files are written out and read by our readers."""
    rows = timelens.load(folder / reference["annotation"]["file"])
    nested = {_nested(key): value for key, value in reference["predictions_raw"].items()}
    with _written(reference["predictions_raw"]) as raw, _written(nested) as of_nested:
        of_raw = read_predictions(raw, rows)
        keyed = timelens.load(of_nested)
        of_keyed = read_predictions(of_nested, keyed)
        with _written(reference["predictions_timestamps"]) as given:
            of_given = read_predictions(given, rows)
    yield compare("predictions read", len(of_raw), len(reference["predictions_raw"]))
    tables = {
        "compute_metrics.py on raw answers": (timelens.compute_metrics, rows, of_raw),
        "compute_metrics.py on given": (timelens.compute_metrics, rows, of_given),
        "compute_metrics.py when the key carries a NESTED span": (timelens.compute_metrics, keyed, of_keyed),
        "lmms-eval timelens._timelens_compute_metrics": (timelens.lmms_eval, rows, of_raw),
    }
    for name, expected in reference["official"].items():
        found = next((one for start, one in tables.items() if name.startswith(start)), None)
        if found is None:
            yield Check(name, "no scorer of ours answers for this script")
            continue
        table = _scored(*found)
        if table.error is not None:
            for key, value in expected.items():
                last = str(value).strip().split("\n")[-1]
                yield compare(f"{name}: {key}", table.error, last)
            continue
        log = "\n".join(f"{figure}: {value}" for figure, value in table.figures.items())
        yield from _block(name, expected, table, {"log": log})


def _nested(key: str) -> str:
    start, _, span = key.rpartition(">>>")
    return f"{start}>>>[{span}]"


@contextlib.contextmanager
def _written(value: Any, lines: bool = False) -> Iterator[Path]:
    """A file of the value as JSON, or of its items as lines of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        text = io.StringIO()
        for one in value if lines else [value]:
            text.write(json.dumps(one, ensure_ascii=False) + "\n")
        path.write_text(text.getvalue(), encoding="utf-8")
        yield path


# -- MUSEG's THUMOS ----------------------------------------------------------------------------------------------------


def museg_form(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Checks of THUMOS14 and THUMOS15 in MUSEG's form."""
    kinds = {
        "eval tal": tensors.museg_tal,
        "eval tvg (first segment vs first GT)": tensors.museg_tvg,
    }
    for data, block in reference["datasets"].items():
        rows = museg_grounding.BENCHMARK.load(folder / block["annotation"]["file"])
        texts = {rows[entry["index"]].id: entry["text"] for entry in block["predictions"]}
        yield compare(f"{data}: n", len(texts), block["n"])
        for name, expected in block["official"].items():
            if name not in kinds:
                yield Check(f"{data}: {name}", "no scorer of ours answers for this script")
                continue
            yield from _block(f"{data}: {name}", expected, _scored(kinds[name], rows, texts), {})
        for key, items in block.items():
            if key.startswith("per_item"):
                yield from (_museg_item(data, item, rows[item["index"]], texts) for item in items)


def _museg_item(data: str, item: Mapping[str, Any], row: Row, texts: Mapping[str, str]) -> Check:
    segments = tensors.museg_segments(texts[row.id], tagged=True)
    scores = tensors.museg_f1(row.windows, segments)
    ours: dict[str, Any] = {"index": item["index"], "parsed": segments}
    ours |= {f"f1_multi_{level}": score for level, score in zip(tensors.LEVELS, scores, strict=True)}
    ours["mean_f1_multi"] = sum(scores) / len(scores)
    return compare(f"{data}: {item['index']}", ours, item)


# -- VideoTemp-Bench ---------------------------------------------------------------------------------------------------


def videotemp_form(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Checks of VideoTemp-Bench: grounding, and the letters of its other half."""
    # Ids are those of the sets that the records were drawn from, and may repeat: places are the ids.
    records = [
        {name: value for name, value in one.items() if name != "id"} for one in reference["grounding_records"]
    ]
    with _written(records, lines=True) as path:
        rows = videotemp_bench_grounding.BENCHMARK.load(path)
        texts = read_predictions(path, rows)
    judged = [scripts.judge_videotemp(texts[row.id], row.windows) for row in rows]
    for name, expected in reference["official"].items():
        if name == "score.py videotemp-g":
            yield from _videotemp_stdout(name, expected, rows, texts)
        elif name == "videotemp-g unrounded (same functions)":
            yield from _videotemp_parts(name, expected, rows, [iou for _, iou in judged])
        elif name == "score.py videotemp":
            yield from _videotemp_letters(name, expected, reference["mcq_records"])
        else:
            yield Check(name, "no scorer of ours answers for this script")
    for item in reference.get("per_item_grounding", []):
        segment, iou = judged[item["index"]]
        yield compare(
            f"grounding {item['index']}", {"index": item["index"], "seg": segment, "iou": iou}, item
        )


def _videotemp_parts(
    name: str, expected: Mapping[str, Any], rows: Sequence[Row], ious: Sequence[float]
) -> Iterator[Check]:
    labels = dict(zip(("1", "2", "3", "4", "total"), (*scripts.PARTS, "Total"), strict=True))
    counts = {label: sum(row.groups["duration"] == label for row in rows) for label in scripts.PARTS}
    counts["Total"] = len(rows)
    found: dict[str, dict[str, float]] = {}
    with contextlib.suppress(OfficialError):
        found.update(scripts.videotemp_parts(rows, ious))
    for key, figures in expected.items():
        label = labels.get(key)
        if label is None or label not in found:
            yield Check(f"{name}: {key}", "our script prints no such part")
            continue
        ours = found[label] | {"n": counts[label]}
        for figure, value in figures.items():
            yield compare(f"{name}: {key} {figure}", ours.get(figure), value)


def _videotemp_letters(
    name: str, expected: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> Iterator[Check]:
    """What ``score.py videotemp`` prints for records of duration, answer and response."""
    letter = LETTER_EXTRACTORS["VideoTemp-o3 videotemp/lvbench rule (first char in ABCDE else A)"]
    total, right = dict.fromkeys(scripts.PARTS, 0), dict.fromkeys(scripts.PARTS, 0)
    for record in records:
        part = scripts.part_of(record["duration"])
        total[part] += 1
        right[part] += record["answer"][0] == letter(record["response"])
    rule = "=" * 45
    lines = [rule, "VideoTemp MCQ Evaluation", rule]
    for number, part in enumerate(scripts.PARTS, 1):
        share = right[part] / total[part] if total[part] else 0.0
        lines.append(f"  Part{number} ({part:>9s}): {right[part]:4d}/{total[part]:4d}  Acc={share:.2%}")
    correct, count = sum(right.values()), sum(total.values())
    lines += ["-" * 45, f"  Overall             : {correct:4d}/{count:4d}  Acc={correct / count:.2%}", ""]
    for key, value in expected.items():
        if key == "stdout":
            yield from _lines(f"{name}: {key}", "\n".join(lines), value)
        elif key == "error":
            yield _same_error(f"{name}: {key}", None, value)
        else:
            yield Check(f"{name}: {key}", "nothing of ours answers for it")


BENCHMARK_ADAPTERS: dict[str, BenchmarkAdapter] = {
    "charades_sta": one_window,
    "activitynet_captions": one_window,
    "tvgbench": one_window,
    "timelens": timelens_form,
    "museg_grounding": museg_form,
    "videotemp_o3": videotemp_form,
}
