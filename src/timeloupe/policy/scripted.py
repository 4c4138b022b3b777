"""A policy that says what a file tells it to: for tests, demonstrations and replaying a dialogue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from timeloupe.errors import ConfigError, MissingError
from timeloupe.policy.base import GenerationRequest, refuse_prefix
from timeloupe.trajectory import Generation

ANY_EXAMPLE = "*"


class _Script(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    replies: dict[str, list[str | Generation]] = Field(min_length=1)


class ScriptedPolicy:
    """Replies by example and turn.

    The file holds ``{"replies": {EXAMPLE_ID: [TURN_1, TURN_2, ...]}}``; ``"*"`` stands for every example that
    has no replies of its own. A turn is a reply's text, or an object with the fields of a ``Generation``,
    such as ``{"text": "<think>", "finish": "length"}``. An example or turn without a reply is an ``error``
    generation.

    Args:
        path: The JSON file.

    Raises:
        MissingError: The file is not there.
        ConfigError: It is not valid JSON or holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_file():
            raise MissingError(f"no script of replies at {str(path)!r}, expected a JSON file")
        try:
            script = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{str(path)!r} is not valid JSON: {error}") from error
        self._set(script, where=str(path))

    @classmethod
    def from_replies(cls, replies: Mapping[str, Sequence[str | Generation]]) -> ScriptedPolicy:
        """Return a policy with the given replies.

        Raises:
            ConfigError: They do not have the form that a file must have.
        """
        policy = cls.__new__(cls)
        policy._set({"replies": {key: list(turns) for key, turns in replies.items()}}, where="replies")
        return policy

    def _set(self, script: object, where: str) -> None:
        try:
            self._replies = _Script.model_validate(script).replies
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(step) for step in first["loc"]) or "top level"
            raise ConfigError(
                f"{where}: {place}: {first['msg']}, "
                f'allowed: {{"replies": {{"EXAMPLE_ID or {ANY_EXAMPLE}": ["first turn", "second turn"]}}}}'
            ) from error

    @property
    def name(self) -> str:
        """Short name for records."""
        return "scripted"

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return the reply to each request; its turn is the number of its earlier generations."""
        refuse_prefix(requests, self.name)
        return [self._reply(request) for request in requests]

    def _reply(self, request: GenerationRequest) -> Generation:
        turns = self._replies.get(request.example_id, self._replies.get(ANY_EXAMPLE))
        turn_index = len(request.generations)
        if turns is None:
            return _nothing(
                f"the script has no replies for example {request.example_id!r} and none for {ANY_EXAMPLE!r}"
            )
        if turn_index >= len(turns):
            return _nothing(f"the script has {len(turns)} replies, turn {turn_index + 1} was asked for")
        reply = turns[turn_index]
        return reply if isinstance(reply, Generation) else Generation(text=reply)


def _nothing(reason: str) -> Generation:
    return Generation(text="", finish="error", error=reason)
