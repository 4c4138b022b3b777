"""Which of our functions answer for E.T. Bench's vectors and references."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.golden.checks import Check, compare
from tests.golden.replay import Adapter
from tests.golden.replay_benchmarks import BenchmarkAdapter
from timeloupe.eval.benchmarks import etbench
from timeloupe.eval.extractors.times import etbench as tvg_format
from timeloupe.eval.scripts import etbench_captions as etbench_script
from timeloupe.eval.scripts import etbench_tasks
from timeloupe.eval.scripts.errors import OfficialError

KNOWN_KEYS = {"benchmark", "set", "kind", "commits", "generator_seed", "similarity_stub", "rules"}
SOURCE = "replay"


def graded(task: str) -> Adapter:
    """The vectors' form of the evaluator of a task; ``similarity`` is a table of options."""

    def adapter(inputs: dict[str, Any]) -> Any:
        table = inputs.get("similarity", {})
        return etbench_tasks.EVALUATORS[task](inputs["samples"], lambda _, option: table[option]).figures

    return adapter


def detection(inputs: dict[str, Any]) -> Any:
    """Precision and recall of dense captions at each threshold of the vectors."""
    truths = {video: one["timestamps"] for video, one in inputs["ground_truth"].items()}
    found = {video: [one["timestamp"] for one in some] for video, some in inputs["prediction"].items()}
    levels = inputs.get("tious", etbench_tasks.LEVELS)
    return {str(level): etbench_tasks.dvc_detection(truths, found, level) for level in levels}


def records_of(task: str, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples as records of an annotation file with answers."""
    head = {"version": 1.0, "task": task, "source": SOURCE, "video": "v.mp4", "q": "question"}
    return [head | {"idx": number} | sample for number, sample in enumerate(samples)]


def replay(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Yield the checks of a reference; each task goes through a file, our reader and the scorer."""
    del folder
    for key in reference.keys() - KNOWN_KEYS - {"official", "per_item", "samples"}:
        yield Check(key, "no check of ours reads this key")
    for key, official in reference["official"].items():
        task = key.removesuffix("_detection_only")
        if task not in etbench_tasks.EVALUATORS:
            yield Check(f"official {key}", "no task of ours has this name")
            continue
        yield from checks_of_task(task, key, reference["samples"][key], official)
    for key, items in reference.get("per_item", {}).items():
        read = READERS.get(key.removesuffix("_detection_only"))
        for number, item in enumerate(items):
            for field in item.keys() - {"a", "parsed"}:
                yield Check(f"{key} {number} {field}", "no check of ours reads this key")
            if read is None:
                yield Check(f"{key} {number}", "no reader of ours has this name")
            else:
                yield check_of_text(f"{key} {number} {item['a']!r:.60}", read, item)


def checks_of_task(
    task: str, key: str, samples: list[dict[str, Any]], official: Mapping[str, Any]
) -> Iterator[Check]:
    """One check per figure of a task."""
    with tempfile.TemporaryDirectory() as there:
        path = Path(there) / "answers.json"
        path.write_text(json.dumps(records_of(task, samples)), encoding="utf-8")
        rows = etbench.BENCHMARK.load(path)
        predictions = etbench.read_predictions(path, rows)
    try:
        figures = etbench.BENCHMARK.official["etbench"](rows, predictions).figures
    except OfficialError as error:
        yield compare(f"{key} raises", error.kind, str(official.get("raises", "nothing")).split(":")[0])
        return
    for name, value in official.items():
        got = figures.get(f"{task} {SOURCE} {name}", "no figure of ours has this name")
        yield compare(f"{key} {name}", got, value)


def check_of_text(id: str, read: Callable[[str], Any], item: Mapping[str, Any]) -> Check:
    """The check of what is read from one text; of an exception the kind counts."""
    try:
        got: Any = read(item["a"])
    except OfficialError as error:
        return compare(id, error.kind, str(dict(item["parsed"] or {}).get("raises", "nothing")).split(":")[0])
    return compare(id, got, item["parsed"])


READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("tvg", "epm", "tem", "tal", "evs", "gvq"), tvg_format),
    **dict.fromkeys(("dvc", "slc"), etbench_script.dvc_format),
}

_MUSEG = "THUNLP-MT/MUSEG"
_EVALS = ("tvg", "tem", "tal", "evs", "vhd", "rvq", "gvq", "dvc")

ADAPTERS: dict[tuple[str, str], Adapter] = {
    (_MUSEG, "tvg_format"): lambda i: tvg_format(i["ans"]),
    (_MUSEG, "extract_time_part"): lambda i: etbench_script.extract_time_part(i["time_part"]),
    (_MUSEG, "extract_time_from_paragraph"): lambda i: etbench_script.extract_time_from_paragraph(
        i["paragraph"]
    ),
    (_MUSEG, "dvc_format"): lambda i: etbench_script.dvc_format(i["caption"]),
    (_MUSEG, "dvc_iou"): lambda i: etbench_tasks.dvc_iou(i["a"], i["b"]),
    (_MUSEG, "dvc_detection"): detection,
    **{(_MUSEG, f"{task}_eval"): graded(task) for task in _EVALS},
}

BENCHMARK_ADAPTERS: dict[str, BenchmarkAdapter] = {"etbench": replay}
