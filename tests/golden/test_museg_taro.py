"""The vectors of MUSEG's and TaRO's rewards replay: a selection always, all of them where the shared data is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden import adapters_museg, adapters_taro
from tests.golden.checks import Check
from tests.golden.replay import adapters, check_row

SELECTION = Path(__file__).with_name("museg_taro.jsonl")
OURS = adapters_museg.ADAPTERS | adapters_taro.ADAPTERS


def checks(path: Path) -> list[Check]:
    """The checks of all rows of these rewards."""
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


@pytest.mark.parametrize("name", ["museg_rewards", "taro_rewards", "taro_sensitivity"])
def test_all_shared_vectors_replay(shared_dir: Path, name: str) -> None:
    found = checks(shared_dir / "golden" / f"{name}.jsonl")
    assert found
    assert not [check for check in found if check.why]
