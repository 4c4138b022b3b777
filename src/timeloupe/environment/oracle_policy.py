"""The world's oracle as a policy that labels: it is told what it is asked for by the name of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from timeloupe.policy.base import GenerationRequest, refuse_prefix
from timeloupe.trajectory import Example, Generation, Usage
from timeloupe.world.labeller import Oracle, OracleErrors
from timeloupe.world.script import WorldScript, generator

LOOKS = frozenset({"ground", "reground"})
"""Purposes that want a call of the tool; all others want an answer."""

EPISODES = frozenset({"attempt"})
"""Purposes that are a turn of an episode: it looks once, then answers."""

TOKENS_PER_FRAME = 64


class OraclePolicy:
    """Replies to the requests of a build, named ``purpose:example id``, about rows of a world.

    It counts tokens as a model might, so that costs can be planned and shown: words of the texts, and
    ``TOKENS_PER_FRAME`` for each frame.

    Args:
        rows: Example id to its script and row.
        errors: How often it errs.
    """

    name = "oracle"

    def __init__(self, rows: Mapping[str, tuple[WorldScript, Example]], errors: OracleErrors) -> None:
        self._oracles = {id: Oracle(script, example, errors) for id, (script, example) in rows.items()}
        self.settings = {"errors": errors.model_dump(mode="json")}

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return the oracle's reply to each request; what it draws depends on the request's seed alone."""
        refuse_prefix(requests, self.name)
        return [self._reply(request) for request in requests]

    def _reply(self, request: GenerationRequest) -> Generation:
        purpose, _, id = request.example_id.partition(":")
        if id not in self._oracles:
            return Generation(text="", finish="error", error=f"the oracle knows no row {id!r}")
        oracle, random = self._oracles[id], generator("oracle", request.seed)
        refs = [ref for message in request.messages for ref in message.frame_refs]
        views = [ref.at_seconds for ref in refs]
        looks = purpose in LOOKS or (purpose in EPISODES and len(views) == 1)
        text = oracle.look(random) if looks else oracle.answer(views, random)
        words = sum(len(message.text.split()) for message in request.messages)
        usage = Usage(
            prompt_tokens=words + TOKENS_PER_FRAME * sum(map(len, views)), completion_tokens=len(text.split())
        )
        return Generation(text=text, usage=usage)
