"""E.T. Bench and V-STaR replay: a selection of vectors always, whole files and references where the shared data is."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.golden import adapters_etbench, adapters_vstar
from tests.golden.checks import Check
from tests.golden.replay import adapters, check_row, replay

SELECTION = Path(__file__).with_name("etbench_vstar.jsonl")
OURS = adapters_etbench.ADAPTERS | adapters_vstar.ADAPTERS
FILES = ("museg_etbench.jsonl", "openo3_vstar_eval.jsonl", "openo3_vstar_parse.jsonl")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def key_of(row: dict[str, Any]) -> tuple[str, str]:
    return row["source"].split("@")[0], row["function"]


def test_the_selection_replays() -> None:
    rows = rows_of(SELECTION)
    assert not [check for row in rows if (check := check_row(row["id"], row, OURS[key_of(row)])).why]
    reached = {key_of(row) for row in rows}
    assert OURS.keys() - reached == {("THUNLP-MT/MUSEG", "dvc_eval")}, (
        "no vector calls it; the reference does"
    )
    assert OURS.items() <= adapters().items()


def test_a_wrong_expectation_fails() -> None:
    for row in rows_of(SELECTION):
        assert check_row(row["id"], row | {"expected": {"nothing": "of the kind"}}, OURS[key_of(row)]).why


@pytest.mark.parametrize("name", FILES)
def test_every_shared_vector_replays(name: str, shared_dir: Path) -> None:
    path = shared_dir / "golden" / name
    if not path.exists():
        pytest.skip(f"no vectors at {str(path)!r}")
    found = list(replay(path))
    assert len(found) == len(rows_of(path))
    assert not [check for check in found if check.why]


def references(shared_dir: Path, name: str) -> list[dict[str, Any]]:
    paths = sorted((shared_dir / "evaldata" / name).glob("reference*.json"))
    if not paths:
        pytest.skip(f"no reference of {name} in the shared data")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def failures(name: str, reference: dict[str, Any], folder: Path) -> list[Check]:
    adapter = (adapters_etbench.BENCHMARK_ADAPTERS | adapters_vstar.BENCHMARK_ADAPTERS)[name]
    return [check for check in adapter(reference, folder) if check.why]


@pytest.mark.parametrize("name", ["etbench", "vstar"])
def test_every_shared_reference_replays(name: str, shared_dir: Path) -> None:
    for reference in references(shared_dir, name):
        assert not failures(name, reference, shared_dir / "evaldata")


def test_a_changed_figure_item_or_unknown_key_of_etbench_fails(shared_dir: Path) -> None:
    reference = deepcopy(references(shared_dir, "etbench")[0])
    reference["official"] = {"tvg": reference["official"]["tvg"] | {"F1": 0.5, "F2": 1.0}, "new": {}}
    reference["per_item"] = {
        "tvg": [{"a": "1 - 2", "parsed": [[1.0, 3.0]]}],
        "new": [{"a": "", "parsed": None}],
    }
    reference["later"] = 1
    found = {check.id.split(" '")[0] for check in failures("etbench", reference, shared_dir)}
    assert found == {"tvg F1", "tvg F2", "official new", "tvg 0", "new 0", "later"}


def test_a_changed_figure_print_item_or_unknown_key_of_vstar_fails(shared_dir: Path) -> None:
    reference = deepcopy(references(shared_dir, "vstar")[0])
    official = reference["official"][adapters_vstar.SCRIPT]
    official["overall"] |= {"mAM": 0.9, "new": 1.0}
    official["stdout"] = (
        official["stdout"].replace("R1@IoU=0.7: 0.1217", "R1@IoU=0.7: 0.1218").replace("[2, 4,", "[2, 5,")
    )
    official["later"] = 1
    reference["per_item"][0]["temporal_IoU"] += 0.001
    reference["official"]["other.py"] = {}
    found = {check.id for check in failures("vstar", reference, shared_dir)}
    assert {"mAM", "new", "Overall Statistics, numbers", "Overall Statistics, items", "item 0"} <= found
    assert {"official later", "official other.py"} <= found
