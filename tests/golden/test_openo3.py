"""The vectors of Open-o3 Video's rewards and voting replay: a selection always, all where the shared data is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.adapters_openo3 import ADAPTERS
from tests.golden.checks import Check
from tests.golden.replay import check_row, replay

SELECTION = Path(__file__).with_name("openo3.jsonl")
ROWS = [json.loads(line) for line in SELECTION.read_text(encoding="utf-8").splitlines()]


def check(row: dict[str, object]) -> Check:
    return check_row(str(row["id"]), row, ADAPTERS[str(row["source"]).split("@")[0], str(row["function"])])


def test_the_selection_replays_and_reaches_every_function() -> None:
    assert not [found for row in ROWS if (found := check(row)).why]
    assert {(row["source"].split("@")[0], row["function"]) for row in ROWS} == set(ADAPTERS)
    assert any("expected_alt" in row for row in ROWS)
    assert any("__error__" in row["expected"] for row in ROWS if isinstance(row["expected"], dict))


def test_a_wrong_expectation_fails() -> None:
    for row in ROWS:
        assert check(row | {"expected": {"nothing": "of the kind"}}).why
        if "expected_alt" in row:
            assert check(row | {"expected_alt": {"nothing": "of the kind"}}).why


@pytest.mark.parametrize("name", ["openo3_rewards", "openo3_tts"])
def test_all_shared_vectors_replay(shared_dir: Path, name: str) -> None:
    found = list(replay(shared_dir / "golden" / f"{name}.jsonl"))
    assert found
    assert not [one for one in found if one.why]
