"""Which of our functions answer for V-STaR's vectors and references."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.golden.checks import Check, compare
from tests.golden.replay import Adapter
from tests.golden.replay_benchmarks import BenchmarkAdapter
from timeloupe.eval.benchmarks import vstar
from timeloupe.eval.extractors.times import open_o3
from timeloupe.eval.scripts import vstar as script

KNOWN_KEYS = {"benchmark", "set", "kind", "commits", "n", "generator_seed", "rules"}
SCRIPT = "eval.py evaluate_json"
LABEL = re.compile(r"^(Overall Statistics|Video Length: \S.*|Domain: \S.*):$", re.MULTILINE)
NUMBER = re.compile(r"-?(?:\d+\.\d{4}|inf|nan)\b")
LISTS = re.compile(r"\[[0-9, ]*\]")


def evaluate(inputs: dict[str, Any]) -> Any:
    """The vectors' form of ``evaluate_json``: every printed block, or those before the error."""
    asked = iter(
        inputs["judge_scores"]
    )  # in the order of asking: an item without an answer is not asked about
    scores = [next(asked) if item.get("answer_vqa") else None for item in inputs["items"]]
    found = script.evaluate(inputs["items"], scores, "openo3")
    if found.error is None:
        return found.blocks
    return {"__error__": found.error.kind, "before_error": found.blocks}


def figures_in_print_order(block: Mapping[str, Any]) -> list[float]:
    """Our figures of a block in the order in which the script prints them."""
    order: list[float] = [block[name] for name in ("avg_all_score", "avg_valid_score", "acc_vqa")]
    for chain in script.CHAINS:
        order += [
            block[f"{name}{chain}"] for name in ("r1_iou30", "r1_iou50", "r1_iou70", "mean_temporal_iou")
        ]
        order += [*block[f"mean_aps{chain}"], block[f"mean_miou{chain}"]]
    order += [block[name] for name in ("AM", "AM2", "mAM", "LGM", "LGM2", "mLGM")]
    return order + [block[f"{name}{chain}"] for name in script.JOINTS for chain in script.CHAINS]


def checks_of_print(stdout: str, found: script.Evaluation) -> Iterator[Check]:
    """One check per printed block: its label, every number at the printed digits, every list of items."""
    labels = list(LABEL.finditer(stdout))
    ends = [*(label.start() for label in labels[1:]), len(stdout)]
    if found.error is not None and len(labels) == len(found.blocks) + 1:
        labels.pop()  # the block that the script ends in is printed in part
    yield compare("printed blocks", list(found.blocks), [label[1] for label in labels])
    for label, end in zip(labels, ends, strict=False):
        if label[1] not in found.blocks:
            continue
        text = stdout[label.end() : end]
        printed = [f"{one:.4f}" for one in figures_in_print_order(found.blocks[label[1]])]
        # "IoU=0.3" and "mAP@0.5" are names: they have no four decimals.
        yield compare(f"{label[1]}, numbers", printed, NUMBER.findall(text))
        lists = [json.loads(one) for one in LISTS.findall(text)]
        yield compare(f"{label[1]}, items", list(found.joint_items[label[1]].values()), lists)


def replay(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Yield the checks of a reference."""
    del folder
    records = reference["annotation_and_predictions"]
    for key in reference.keys() - KNOWN_KEYS - {"official", "per_item", "annotation_and_predictions"}:
        yield Check(key, "no check of ours reads this key")
    with tempfile.TemporaryDirectory() as there:
        path = Path(there) / "V_STaR_test.json"
        path.write_text(json.dumps(records), encoding="utf-8")
        rows = vstar.BENCHMARK.load(path)
        predictions = vstar.read_predictions(path, rows)
    table = vstar.BENCHMARK.official["vstar"](rows, predictions)
    found = vstar.evaluation(rows, predictions, "vstar")
    for name, official in reference["official"].items():
        if name != SCRIPT:
            yield Check(f"official {name}", "no script of ours has this name")
            continue
        yield from checks_of_official(official, table, found)
    yield compare("per_item, number", len(reference.get("per_item", [])) in (0, len(rows)), True)
    for number, expected in enumerate(reference.get("per_item", [])):
        got = {"vid": rows[number].video} | {
            key: found.items[number].get(key) for key in expected if key != "vid"
        }
        yield compare(f"item {number}", got, expected)


def checks_of_official(official: Mapping[str, Any], table: Any, found: script.Evaluation) -> Iterator[Check]:
    """The checks of what the script returned, key by key."""
    for key, value in official.items():
        if key == "overall":
            for figure, number in value.items():
                yield compare(figure, table.figures.get(figure, "no figure of ours has this name"), number)
        elif key == "stdout":
            yield from checks_of_print(value, found)
        elif key == "raises":
            yield compare("raises", found.error and found.error.kind, str(value).split(":")[0])
        else:
            yield Check(f"official {key}", "no check of ours reads this key")
    if "raises" not in official:
        yield compare("ends well", table.error, None)


_EVAL = "marinero4972/Open-o3-Video"

ADAPTERS: dict[tuple[str, str], Adapter] = {
    (_EVAL, "evaluate"): evaluate,
    (_EVAL, "temporal_iou"): lambda i: script.temporal_iou(i["gt_range"], i["pred_range"]),
    (_EVAL, "bbox_iou"): lambda i: script.bbox_iou(i["gt_bbox"], i["pred_bboxes"]),
    (_EVAL, "spatial_metrics"): lambda i: script.spatial_metrics(
        i["gt_bboxes"], i["pred_bboxes"], guarded=True
    ),
    (_EVAL, "spatial_random"): lambda i: script.spatial_random(i["gt_bboxes"], i["w"], i["h"]),
    (_EVAL, "refined_timestamps"): lambda i: open_o3(i["result"]),
    (_EVAL, "extract_timestamps"): lambda i: open_o3(i["result"]),
    (_EVAL, "fix_incomplete_json"): lambda i: script.fix_incomplete_json(i["json_str"]),
    (_EVAL, "extract_bounding_boxes"): lambda i: script.extract_bounding_boxes(
        i["answer_spatial"], i["data"]
    ),
}

BENCHMARK_ADAPTERS: dict[str, BenchmarkAdapter] = {"vstar": replay}
