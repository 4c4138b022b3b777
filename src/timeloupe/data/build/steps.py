"""What a stage may do: look at a video, ask the labeller, and come to an outcome.

A stage is a generator over one item::

    def stage(item: Item, kit: Kit) -> Plan:
        skim = yield Skim()
        reply = yield kit.ask("direct", messages, [skim])
        return Outcome(kept=..., reason=...)

It yields a look and gets a ``View`` (or the ``Problem`` of a segment that cannot be cut), or yields an ``Ask`` and gets
a ``Reply``. What goes wrong with a video or a server never reaches it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from timeloupe.data.build.record import Caption
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import View
from timeloupe.grounding import set_iou
from timeloupe.prompt.build import first_messages, observation_message
from timeloupe.prompt.parse import ParsedReply, parse_reply
from timeloupe.prompt.protocol import Protocol
from timeloupe.reward import accuracy
from timeloupe.trajectory import (
    Answer,
    Box,
    Example,
    Generation,
    Message,
    Problem,
    Segment,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    Turn,
)


@dataclass(frozen=True)
class Skim:
    """Look at the whole video at the skim's rate; brings a ``View``."""


@dataclass(frozen=True)
class Crop:
    """Look at a segment at the crop's rate; brings a ``View`` or a ``Problem``.

    Attributes:
        segment: Which.
        read_from: The views whose times the segment was read from: it is widened by their sampling interval as the
            settings say.
    """

    segment: Segment
    read_from: tuple[View, ...] = ()


@dataclass(frozen=True)
class BoxCrop:
    """Look at what a box shows, cut out of its frame; brings a ``View`` or a ``Problem``."""

    box: Box


@dataclass(frozen=True)
class Ask:
    """Ask the labeller for one reply; brings a ``Reply``.

    Attributes:
        purpose: What for: a word without a colon. Labellers that look replies up are given ``purpose:example id``.
        messages: The whole chat.
        views: The views of its frame references, in order.
        example: The question behind it: its options tell how the reply is read.
        generations: The replies in the chat, in order.
        round: The attempt that it belongs to.
        sample: Which of several samples of the same question, from 0.
        temperature: Instead of the settings'; ``None`` = as they say.
    """

    purpose: str
    messages: tuple[Message, ...]
    views: tuple[View, ...]
    example: Example
    generations: tuple[Generation, ...] = ()
    round: int = 0
    sample: int = 0
    temperature: float | None = None

    @property
    def prompt_sha256(self) -> str:
        """Hash of all words of the chat that no model said, 16 hex digits."""
        said = [(one.role, one.text) for one in self.messages if one.role != "assistant"]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


@dataclass
class Reply:
    """What came of an ``Ask``.

    Attributes:
        generation: As the labeller gave it, without token ids: another model may learn from it.
        parsed: How it was read.
        right: Set by the stage where it compared the reply with a label.
    """

    generation: Generation
    parsed: ParsedReply
    right: bool | None = None

    @property
    def text(self) -> str:
        """What was said."""
        return self.generation.text

    @property
    def answer(self) -> Answer | None:
        """The answer that it gives, if it gives one."""
        return self.parsed.answer

    @property
    def call(self) -> ToolCall | None:
        """The call of the tool that it makes, if it makes one."""
        return self.parsed.call

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments that it names in its call or answer."""
        if self.call is not None:
            return self.call.segments
        return self.answer.segments if self.answer is not None else ()


@dataclass(frozen=True)
class Outcome:
    """What a stage made of an item; see ``BuiltRow``."""

    kept: bool
    reason: str
    detail: str = ""
    example: Example | None = None
    trajectory: Trajectory | None = None
    captions: tuple[Caption, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)


Step = Skim | Crop | BoxCrop | Ask
Plan = Generator[Step, Any, Outcome]
"""A stage at work on one item; use ``looked`` and ``replied`` to say what a step brought."""

Brought = TypeVar("Brought", View, Reply)


@dataclass(frozen=True)
class Kit:
    """What the stages of one build have in common.

    Attributes:
        protocol: How the model that will learn from the rows is prompted and replies.
        settings: What an episode may see.
        prompts: System text by purpose; a purpose without one is asked as the protocol asks.
        labeller: Name of who is asked.
        seed: Root seed of the build.
        min_iou: From which overlap with the labelled segments on a grounding is right.
        min_rouge: From which likeness on a free answer is right.
    """

    protocol: Protocol
    settings: EpisodeSettings
    prompts: Mapping[str, str]
    labeller: str
    seed: int
    min_iou: float = 0.5
    min_rouge: float = 0.5

    def first(
        self, example: Example, views: Sequence[View], *, tools: bool, purpose: str | None = None
    ) -> tuple[Message, ...]:
        """Return the messages that show views and ask an example's question.

        Args:
            example: The question.
            views: What is shown before or after it; none = the question alone.
            tools: Whether a call of the tool is offered.
            purpose: Whose system text to use; ``None`` = the protocol's own, as in an episode.
        """
        system = None if purpose is None else self.prompts.get(purpose)
        ref = views[0].ref if views else None
        messages = first_messages(example, ref, self.protocol, tools=tools, system_prompt=system)
        if len(views) < 2:
            return messages
        rest = tuple(view.ref for view in views[1:])
        user = messages[-1]
        parts = [part for one in user.parts for part in ((one, *rest) if one == ref else (one,))]
        return (*messages[:-1], user.model_copy(update={"parts": tuple(parts)}))

    def observed(self, views: Sequence[View], problems: Sequence[Problem], example: Example) -> Message:
        """Return what the model is told after a call of the tool, as in an episode."""
        return observation_message(
            [view.ref for view in views], [one.message for one in problems], self.protocol, example
        )

    def read(self, generation: Generation, example: Example) -> ParsedReply:
        """Return a reply as the protocol reads it."""
        return parse_reply(
            generation.text,
            self.protocol,
            num_options=len(example.options),
            closed=generation.finish == "length",
        )

    def can_judge(self, example: Example) -> bool:
        """Whether the example says what a right answer is."""
        if example.task in ("grounding", "multi_segment"):
            return bool(example.segments)
        if accuracy.is_choice(example):
            return accuracy.true_letter(example) is not None
        return bool((example.answer or "").strip())

    def is_right(self, answer: Answer | None, example: Example) -> bool:
        """Return whether an answer is what the label says; ``False`` without an answer.

        Segments are compared as sets by IoU (``min_iou``), letters as such, free text by ROUGE (``min_rouge``).
        """
        if answer is None:
            return False
        if example.task in ("grounding", "multi_segment"):
            return set_iou(answer.segments, example.segments) >= self.min_iou
        if accuracy.is_choice(example):
            return accuracy.chosen_letter(answer, example) == accuracy.true_letter(example)
        return accuracy.rouge(answer.text, example.answer or "") >= self.min_rouge

    def episode(
        self, example: Example, prompt: Sequence[Message], turns: Sequence[Turn], **facts: Any
    ) -> Trajectory:
        """Return an answered episode that a labeller and checks have made; ``facts`` stand in its settings."""
        settings = self.settings.model_dump(mode="json") | {"build": {"labeller": self.labeller, **facts}}
        return Trajectory(
            example=example, policy=self.labeller, protocol=self.protocol.name, seed=self.seed,
            prompt=tuple(prompt), turns=tuple(turns), stop=StopReason.ANSWERED, settings=settings,
        )  # fmt: skip


def said(reply: Reply) -> Message:
    """Return a reply as a message of the chat."""
    return Message(role="assistant", parts=(Text(text=reply.text),))


def answered(reply: Reply) -> Turn:
    """Return the turn of a reply that answers."""
    return Turn(
        generation=reply.generation, thought=reply.parsed.thought, answer=reply.answer,
        seconds=reply.generation.seconds,
    )  # fmt: skip
