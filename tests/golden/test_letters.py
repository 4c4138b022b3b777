"""The letter benchmarks against their references, and that the replay bites."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.golden.adapters_letters import BENCHMARK_ADAPTERS

NAMES = sorted(BENCHMARK_ADAPTERS)


def reference_of(shared_dir: Path, name: str) -> dict[str, Any]:
    path = shared_dir / "evaldata" / name / "reference_public.json"
    if not path.is_file():
        pytest.skip(f"no reference of {name} at {str(path)!r}")
    return json.loads(path.read_text(encoding="utf-8"))


def failures(shared_dir: Path, reference: dict[str, Any]) -> list[str]:
    checks = list(BENCHMARK_ADAPTERS[reference["benchmark"]](reference, shared_dir / "evaldata"))
    assert checks
    return [f"{check.id}: {check.why}" for check in checks if check.why]


@pytest.mark.parametrize("name", NAMES)
def test_every_official_figure_and_item(shared_dir: Path, name: str) -> None:
    assert failures(shared_dir, reference_of(shared_dir, name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_nobody_answers_for_fails(shared_dir: Path, name: str) -> None:
    reference = reference_of(shared_dir, name)
    reference["official"] = {"a script that we do not know": 0.5}
    assert any("a script that we do not know" in one for one in failures(shared_dir, reference))


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_figure_fails(shared_dir: Path, name: str) -> None:
    reference = reference_of(shared_dir, name)
    for key, value in reference["official"].items():
        changed = copy.copy(reference)
        changed["official"] = {key: raised_by_two(value)}
        assert failures(shared_dir, changed), f"{key} is not looked at"


def raised_by_two(value: Any) -> Any:
    """The value with every number in it made 2 larger, those in printed text too; another exception for one."""
    if isinstance(value, dict):
        return {key: raised_by_two(one) for key, one in value.items()}
    if isinstance(value, list):
        return [raised_by_two(one) for one in value]
    if isinstance(value, str):
        larger = re.sub(r"\d+(?=\.\d)", lambda number: str(int(number.group()) + 2), value)
        return larger.replace("TypeError", "KeyError")
    return value + 2
