"""The benchmarks with windows, saliency and letters against their references, and that the replay bites."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden.adapters_windows import BENCHMARK_ADAPTERS, tables_of
from timeloupe.eval.benchmarks import qvhighlights


def reference_of(shared_dir: Path, name: str) -> dict[str, Any]:
    path = shared_dir / "evaldata" / name / "reference_public.json"
    if not path.is_file():
        pytest.skip(f"no reference of {name} at {str(path)!r}")
    return json.loads(path.read_text(encoding="utf-8"))


def failures(shared_dir: Path, reference: dict[str, Any]) -> list[str]:
    checks = list(BENCHMARK_ADAPTERS[reference["benchmark"]](reference, shared_dir / "evaldata"))
    assert checks
    return [f"{check.id}: {check.why}" for check in checks if check.why]


@pytest.mark.parametrize("name", sorted(BENCHMARK_ADAPTERS))
def test_every_official_figure_and_item(shared_dir: Path, name: str) -> None:
    assert failures(shared_dir, reference_of(shared_dir, name)) == []


def test_the_authors_own_submission_has_the_figures_that_they_ship(shared_dir: Path) -> None:
    folder = shared_dir / "evaldata" / "qvhighlights"
    shipped = json.loads((folder / "sample_val_preds_metrics_raw.json").read_text(encoding="utf-8"))
    rows = qvhighlights.load(folder / "highlight_val_release.jsonl")
    predictions = qvhighlights.read_predictions(folder / "sample_val_preds.jsonl", rows)
    figures = qvhighlights.BENCHMARK.official["moment_detr"](rows, predictions).figures
    assert {name: figures[name] for name in shipped["brief"]} == shipped["brief"]
    for part in shipped.keys() - {"brief"}:
        assert figures[part] == shipped[part]


UNKNOWN = {"a script that we do not know": 0.5}


PLACES = {
    "qvhighlights": [
        ("single_window_text", "official"),
        ("single_window_text", "segment_level", "official"),
        (),
    ],
    "rextime": [("official",), ("official", "VQA only"), ()],
    "nextgqa": [("official",), ("official", "eval_ground.py subset"), ()],
    "cgbench": [("official",), ("official", "miou"), ("videomind", "official"), ()],
}


@pytest.mark.parametrize("name", PLACES)
def test_keys_that_nobody_answers_for_fail_each(shared_dir: Path, name: str) -> None:
    reference = light(reference_of(shared_dir, name))
    for place in PLACES[name]:
        block = reference
        for key in place:
            block = block[key]
        block |= UNKNOWN
    found = failures(shared_dir, reference)
    assert len(found) == len(PLACES[name])
    assert all("a script that we do not know" in one for one in found)


@pytest.mark.parametrize("name", ["rextime", "nextgqa", "cgbench"])
def test_every_changed_figure_fails(shared_dir: Path, name: str) -> None:
    reference = light(reference_of(shared_dir, name))
    reference["official"] = {key: raised_by_two(value) for key, value in reference["official"].items()}
    found = failures(shared_dir, reference)
    for key in reference["official"]:
        assert any(one.startswith(key) for one in found), f"{key} is not looked at"


def test_a_changed_line_of_a_printed_table_fails(shared_dir: Path) -> None:
    reference = light(reference_of(shared_dir, "cgbench"))
    logs = reference["videomind"]["official"]
    for name, log in logs.items():
        for title, table in tables_of(log).items():
            assert table, f"nothing is read of {title} in {name}"
        number = log.rindex("all")
        changed = log[:number] + log[number:].replace(".", "9.")
        reference["videomind"]["official"] = {name: changed}
        assert failures(shared_dir, reference), f"{name} is not looked at"


def light(reference: dict[str, Any]) -> dict[str, Any]:
    """The reference without its largest parts, where others show the same."""
    kept = copy.deepcopy(reference)
    for name in ("third_party_predictions", "synthetic_predictions", "third_party_predictions_vhd"):
        kept.pop(name, None)
    return kept


def raised_by_two(value: Any) -> Any:
    """The value with every number in it made 2 larger, those in printed text too."""
    if isinstance(value, dict):
        return {key: raised_by_two(one) for key, one in value.items()}
    if isinstance(value, str):
        return value.replace(".", "1.") if "." in value else f"Other{value}"
    return value + 2
