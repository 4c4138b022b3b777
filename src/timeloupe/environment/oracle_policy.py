"""The world's oracle as a policy that labels: it is told what it is asked for by the name of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from timeloupe.errors import ConfigError, boundary
from timeloupe.policy.base import GenerationRequest, refuse_prefix
from timeloupe.trajectory import Example, FrameRef, Generation, Segment, Usage
from timeloupe.world.labeller import Oracle, OracleErrors
from timeloupe.world.labeller_captions import caption_reply
from timeloupe.world.labeller_evidence import box_reply, evidence_reply
from timeloupe.world.labeller_multiseg import every_reply, visible_reply
from timeloupe.world.script import WorldScript, generator
from timeloupe.world.teach_evidence import asked_event
from timeloupe.world.teacher import question_of

LOOKS = frozenset({"ground", "reground"})
"""Purposes that want a call of the tool; all others want an answer."""

BOX = "box"
"""Asks what a part of a frame shows."""

EVERY = "every"
"""Asks for every time at which something is visible."""

VISIBLE = frozenset({"instance", "gap"})
"""Ask whether it is visible in a part, yes or no."""

CAPTION = "caption"
"""Asked about a video and not about a row of it: the video tells which script is meant."""

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
        self._rows, self._errors = dict(rows), errors
        self._scripts = {Path(example.video).name: script for script, example in rows.values()}
        self.settings = {"errors": errors.model_dump(mode="json")}

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return the oracle's reply to each request; what it draws depends on the request's seed alone.

        Raises:
            ConfigError: A row asks about no event of its video, or is asked for what the oracle cannot say of it.
        """
        refuse_prefix(requests, self.name)
        return [self._reply(request) for request in requests]

    def _reply(self, request: GenerationRequest) -> Generation:
        purpose, _, id = request.example_id.partition(":")
        refs = [ref for message in request.messages for ref in message.frame_refs]
        random = generator("oracle", request.seed)
        if purpose == CAPTION:
            text = self._caption(refs, random)
        elif id in self._rows:
            text = self._about_row(purpose, *self._rows[id], refs, request.messages[-1].text, random)
        else:
            text = None
        if text is None:
            return Generation(text="", finish="error", error=f"the oracle knows no row or video of {id!r}")
        words = sum(len(message.text.split()) for message in request.messages)
        frames = sum(len(ref.at_seconds) for ref in refs)
        usage = Usage(prompt_tokens=words + TOKENS_PER_FRAME * frames, completion_tokens=len(text.split()))
        return Generation(text=text, usage=usage)

    def _caption(self, refs: Sequence[FrameRef], random: np.random.Generator) -> str | None:
        script = self._scripts.get(Path(refs[0].video).name) if len(refs) == 1 else None
        if script is None:
            return None
        window = Segment(start_seconds=refs[0].start_seconds, end_seconds=refs[0].end_seconds)
        return caption_reply(script, window, refs[0].at_seconds, self._errors, random)

    def _about_row(
        self,
        purpose: str,
        script: WorldScript,
        example: Example,
        refs: Sequence[FrameRef],
        said: str,
        random: np.random.Generator,
    ) -> str:
        try:
            (asked_event if example.task == "what_when_where" else question_of)(script, example)
        except ValueError as error:
            raise ConfigError(
                f"{error}, which is all that the oracle knows; leave the row out, or mend its segments"
            ) from error
        views = [ref.at_seconds for ref in refs]
        if example.task == "what_when_where":
            return self._evidence(purpose, script, example, refs, said, random)
        if purpose == EVERY:
            return every_reply(script, example, self._errors, random)
        if purpose in VISIBLE:
            times = sorted({time for view in views for time in view})
            return visible_reply(script, example, times, self._errors, random)
        oracle = Oracle(script, example, self._errors)
        looks = purpose in LOOKS or (purpose in EPISODES and len(views) == 1)
        return oracle.look(views, random) if looks else oracle.answer(views, random)

    def _evidence(
        self,
        purpose: str,
        script: WorldScript,
        example: Example,
        refs: Sequence[FrameRef],
        said: str,
        random: np.random.Generator,
    ) -> str:
        if purpose == BOX:
            return box_reply(script, example, refs[-1].start_seconds, said, self._errors, random)
        if purpose in LOOKS:
            raise boundary(
                f"what the oracle is asked of row {example.id!r}, a {example.task} row", purpose,
                "answers, and what a box shows", "leave such rows out with source.tasks",
            )  # fmt: skip
        times = sorted({time for ref in refs for time in ref.at_seconds})
        return evidence_reply(script, example, times, self._errors, random)
