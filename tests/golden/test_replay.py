"""The replay commands themselves: what cannot be checked has failed, and never passes as nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.golden import replay, replay_benchmarks


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no vector"),
        ("\n \n", "holds no vector"),
        ("[1]\n", "p.jsonl:1: is no vector"),
        ('{"id": "x", ', "p.jsonl:1: is no vector"),
        ('{"id": "x", "function": "f"}', "is no vector: KeyError('source')"),
        ('{"function": "f", "source": "a@b", "inputs": {}, "expected": 1}', "line 1: no function of ours"),
    ],
)
def test_a_file_that_is_no_vectors_fails(
    text: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(text, encoding="utf-8")
    assert replay.main([str(path)]) == 1
    printed = capsys.readouterr().out
    assert why in printed
    assert printed.endswith("0 passed, 1 failed\n")


def test_a_file_that_is_not_there_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([str(tmp_path / "none.jsonl")]) == 1
    assert capsys.readouterr().out.endswith("0 passed, 1 failed\n")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "holds no reference"),
        ("{", "cannot be read"),
        ("[1]", "is no object"),
        ('{"benchmark": "zzz"}', "no scorer of ours answers for benchmark 'zzz'"),
        ('{"benchmark": "rextime"}', "our code raised KeyError"),
    ],
)
def test_a_folder_in_which_nothing_can_be_checked_fails(
    text: str | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "reference_public.json").write_text(text, encoding="utf-8")
    assert replay_benchmarks.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert why in printed
    assert printed.endswith("0 passed, 1 failed\n")


def test_one_benchmark_in_a_folder_of_any_name_and_what_makes_it_fail(
    shared_dir: Path, tmp_path: Path
) -> None:
    public = shared_dir / "evaldata" / "rextime"
    if not public.is_dir():
        pytest.skip(f"no {str(public)!r}")
    home = tmp_path / "some other folder"
    (home / "rextime").mkdir(parents=True)
    reference: dict[str, Any] = json.loads((public / "reference_public.json").read_text(encoding="utf-8"))
    reference |= {"set": "hidden", "generator_seed": "other"}
    path = home / "rextime" / "reference_hidden.json"
    path.write_text(json.dumps(reference), encoding="utf-8")
    assert [check.why for check in replay_benchmarks.replay(home)][0].startswith(
        "our code raised MissingError"
    )
    shutil.copy(public / "rextime_val.jsonl", home / "rextime")
    assert not [check for check in replay_benchmarks.replay(home) if check.why]
    reference["official"]["VQA only"]["VQA"] += 0.01
    path.write_text(json.dumps(reference), encoding="utf-8")
    assert [check.id for check in replay_benchmarks.replay(home) if check.why] == ["rextime: VQA only: VQA"]
