"""The scripted policy says what its file says, and its file is checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timeloupe.errors import ConfigError, MissingError
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.scripted import ScriptedPolicy
from timeloupe.trajectory import Generation


def request(example_id: str, turn: int) -> GenerationRequest:
    return GenerationRequest(
        messages=(), generations=(Generation(text="earlier"),) * turn, example_id=example_id
    )


def test_replies_by_example_and_turn(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text(
        json.dumps({"replies": {"a": ["a1", "a2"], "*": ["any", {"text": "cut", "finish": "length"}]}})
    )
    policy = ScriptedPolicy(path)
    assert policy.name == "scripted"
    asked = [request("b", 0), request("a", 1), request("a", 0), request("b", 1)]
    assert policy.generate(asked) == [
        Generation(text="any"), Generation(text="a2"), Generation(text="a1"), Generation(text="cut", finish="length"),
    ]  # fmt: skip


def test_no_reply_is_the_machines_fault() -> None:
    policy = ScriptedPolicy.from_replies({"a": ["a1"]})
    late, unknown = policy.generate([request("a", 1), request("b", 0)])
    assert late.finish == "error" and late.error == "the script has 1 replies, turn 2 was asked for"
    assert unknown.finish == "error" and unknown.error is not None and "'b'" in unknown.error


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", "not valid JSON"),
        ("[]", "top level"),
        ('{"replies": {}}', "replies"),
        ('{"replies": {"a": "text"}}', "replies.a"),
        ('{"replies": {"a": [1]}}', "replies.a.0"),
        ('{"replies": {"a": [{"txt": "x"}]}}', "replies.a.0"),
        ('{"replies": {"a": ["x"]}, "more": 1}', "more"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, names: str) -> None:
    path = tmp_path / "script.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=names):
        ScriptedPolicy(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no script"):
        ScriptedPolicy(tmp_path / "none.json")
