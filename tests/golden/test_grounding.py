"""The grounding benchmarks replay: a selection of vectors always, whole references where the shared data is."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.golden import adapters_grounding
from tests.golden.checks import Check
from tests.golden.replay import adapters, check_row

SELECTION = Path(__file__).with_name("grounding.jsonl")
OURS = adapters_grounding.ADAPTERS


def checks(path: Path) -> list[Check]:
    """The checks of all rows of these scripts."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    keys = [(row["source"].split("@")[0], row["function"]) for row in rows]
    return [check_row(row["id"], row, OURS[key]) for row, key in zip(rows, keys, strict=True) if key in OURS]


def test_the_selection_replays_and_reaches_every_function() -> None:
    found = checks(SELECTION)
    assert len(found) == len(SELECTION.read_text(encoding="utf-8").splitlines())
    assert not [check for check in found if check.why]
    rows = map(json.loads, SELECTION.read_text(encoding="utf-8").splitlines())
    assert {(row["source"].split("@")[0], row["function"]) for row in rows} == set(OURS)
    assert OURS.items() <= adapters().items()


def test_a_wrong_expectation_fails() -> None:
    for line in SELECTION.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        key = (row["source"].split("@")[0], row["function"])
        assert check_row(row["id"], row | {"expected": {"nothing": "of the kind"}}, OURS[key]).why


@pytest.mark.parametrize("name", ["museg_grounding_eval", "taro_sensitivity"])
def test_all_shared_vectors_replay(shared_dir: Path, name: str) -> None:
    found = checks(shared_dir / "golden" / f"{name}.jsonl")
    assert found
    assert not [check for check in found if check.why]


def reference(shared_dir: Path, name: str) -> dict[str, Any]:
    path = shared_dir / "evaldata" / name / "reference_public.json"
    return json.loads(path.read_text(encoding="utf-8"))


# ActivityNet Captions goes through what Charades-STA goes through; the replay command has both.
@pytest.mark.parametrize(
    "name", sorted(adapters_grounding.BENCHMARK_ADAPTERS.keys() - {"activitynet_captions"})
)
def test_a_reference_replays(shared_dir: Path, name: str) -> None:
    adapter = adapters_grounding.BENCHMARK_ADAPTERS[name]
    found = list(adapter(reference(shared_dir, name), shared_dir / "evaldata"))
    assert len(found) > 20
    assert not [check for check in found if check.why]


def every_figure(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all numbers and texts in a block of figures."""
    if isinstance(value, dict):
        return [place for key, one in value.items() for place in every_figure(one, (*path, key))]
    return [path] if value != "" else []


@pytest.mark.parametrize("name", ["tvgbench", "timelens", "museg_grounding", "videotemp_o3"])
def test_a_wrong_figure_or_an_unknown_one_fails(shared_dir: Path, name: str) -> None:
    original = reference(shared_dir, name)
    adapter = adapters_grounding.BENCHMARK_ADAPTERS[name]
    wrong = deepcopy(original)
    blocks = [wrong["official"]] if "official" in wrong else []
    blocks += [one["official"] for one in wrong.get("datasets", {}).values()]
    blocks += [wrong["segment_level"]["official"]] if "segment_level" in wrong else []
    num_changed = 0
    for block in blocks:
        for place in every_figure(block):
            holder = block
            for key in place[:-1]:
                holder = holder[key]
            value = holder[place[-1]]
            holder[place[-1]] = value + 0.01 if isinstance(value, int | float) else f"changed {value} changed"
            num_changed += 1
        block["a script of tomorrow"] = {"figure": 1.0}
    failed = [check for check in adapter(wrong, shared_dir / "evaldata") if check.why]
    assert len(failed) >= num_changed + len(blocks)
