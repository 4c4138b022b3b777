"""The shared texts through our extractors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.adapters_extractors import BENCHMARK_ADAPTERS
from timeloupe.eval.extractors import LETTER_EXTRACTORS, TIME_EXTRACTORS


def test_every_shared_text_reads_as_the_official_scripts_read_it(shared_dir: Path) -> None:
    folder = shared_dir / "evaldata"
    references = sorted(folder.glob("_extractors/reference*.json"))
    if not references:
        pytest.skip(f"no references of extractors under {str(folder)!r}")
    for path in references:
        reference = json.loads(path.read_text(encoding="utf-8"))
        checks = list(BENCHMARK_ADAPTERS["extractors"](reference, folder))
        assert not [check for check in checks if check.why]
        texts = len(reference["time"]) * len(TIME_EXTRACTORS) + len(reference["mcq"]) * len(LETTER_EXTRACTORS)
        assert len(checks) == texts


def test_a_wrong_value_and_an_unknown_name_fail() -> None:
    reference = {
        "time": [
            {"text": "5 to 9", "out": {"TaRO.extract_time": [5.0, 8.0], "Other.extract_time": [5.0, 9.0]}}
        ],
        "mcq": [
            {"text": "", "out": {"VideoMind check_ans, 4 options (letters accepted)": {"raises": "KeyError"}}}
        ],
        "audio": [],
    }
    checks = list(BENCHMARK_ADAPTERS["extractors"](reference, Path()))
    assert len(checks) == 4
    assert all(check.why for check in checks)
