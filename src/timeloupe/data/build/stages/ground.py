"""Rows that look, checked twice before they are kept, with re-grounding.

::

    ground      (video, question)                              -> segments; cut them
    alone       (segments, question)                           -> answer: is the segment enough?          check A
    process     (video, call, segments, question)              -> answer: does the whole agree with itself? check B
    reground    (video, call, segments, question)              -> other segments, and both checks again

A row that passes in the first round is a ``once`` episode: look, answer. One that passes after a re-grounding is a
``twice`` episode and keeps the wrong first segment as its first turn: that turn is what the unified mask hides.

Source: VideoTemp-o3 (arXiv 2602.07801), its data construction. Its prompts and code were not published. Choices of
ours:

1. Rows with labelled segments pass a check by the overlap of the answered segments with them; the paper has questions.
2. A first reply without a segment that can be cut ends the item: there is no process to go on from.
3. ``every_check`` asks check B also where check A failed. It changes no decision; it is for measuring.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from timeloupe.data.build.recipe_part import StagePart
from timeloupe.data.build.stages.direct import unread
from timeloupe.data.build.steps import Ask, Crop, Kit, Outcome, Plan, Reply, Skim, Step, answered, said
from timeloupe.environment.rollout import REFUSED_CALLS
from timeloupe.environment.tools import View
from timeloupe.trajectory import Example, Generation, Message, Problem, Segment, Turn


class GroundStage(StagePart):
    """Ground, cut, check, and ground again.

    Attributes:
        regrounds: Further rounds at most.
        reground_over_seconds: Only in videos longer than this.
        checks: Which checks a row must pass.
        every_check: Ask check B also where check A failed.
    """

    kind: Literal["ground"]
    regrounds: int = Field(default=1, ge=0, le=4)
    reground_over_seconds: float = Field(default=180.0, ge=0)
    checks: tuple[Literal["alone", "process"], ...] = ("alone", "process")
    every_check: bool = False


@dataclass
class _Process:
    """What has been said and shown of an item so far."""

    skim: View
    turns: list[Turn] = field(default_factory=list)
    after: list[Message] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    last: tuple[View, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def generations(self) -> tuple[Generation, ...]:
        return tuple(turn.generation for turn in self.turns)


@dataclass(frozen=True)
class _Grounded:
    """One round: the call, what it shows, and which checks passed."""

    reply: Reply
    observation: Message
    views: tuple[View, ...]
    problem: Problem | None


def ground(example: Example, part: GroundStage, kit: Kit) -> Plan:
    """Return the plan of one item."""
    if not kit.can_judge(example):
        return Outcome(False, "no_label", "nothing says what a right answer is")
    skim: View = yield Skim()
    process = _Process(skim, last=(skim,))
    rounds = 1 + (part.regrounds if skim.ref.end_seconds > part.reground_over_seconds else 0)
    failed = Outcome(False, "no_segment")
    for number in range(rounds):
        found = yield from _segments(example, process, kit, number)
        if isinstance(found, Outcome):
            # A first round that failed says why the item is left out; a second one only adds that it came to nothing.
            return found if number == 0 else _with(failed, f"; asked again: {found.detail}")
        _go_on(process, found)
        passed = yield from _checks(example, part, process, found, kit, number)
        if isinstance(passed, Outcome):
            failed = passed
            continue
        prompt = kit.first(example, [process.skim], tools=True)
        kind = "once" if number == 0 else "twice"
        process.turns.append(answered(passed))
        episode = kit.episode(example, prompt, process.turns, stage="ground", calls=number + 1)
        return Outcome(True, kind, trajectory=episode, figures=process.figures | {"calls": number + 1})
    return failed


def _with(outcome: Outcome, detail: str) -> Outcome:
    return Outcome(outcome.kept, outcome.reason, outcome.detail + detail, figures=outcome.figures)


def _go_on(process: _Process, found: _Grounded) -> None:
    """Add a round's call and what it showed to the process."""
    turn = Turn(
        generation=found.reply.generation, thought=found.reply.parsed.thought, call=found.reply.call,
        observation=found.observation, problem=found.problem, seconds=found.reply.generation.seconds,
    )  # fmt: skip
    process.turns.append(turn)
    process.after += [said(found.reply), found.observation]
    process.views += found.views
    process.last = found.views


def _segments(
    example: Example, process: _Process, kit: Kit, number: int
) -> Generator[Step, Any, _Grounded | Outcome]:
    """Ask for segments and cut them."""
    purpose = "ground" if number == 0 else "reground"
    messages = (*kit.first(example, [process.skim], tools=True, purpose=purpose), *process.after)
    views = (process.skim, *process.views)
    reply: Reply = yield Ask(purpose, messages, views, example, process.generations, number)
    if reply.call is None:
        why = "it answered without looking" if reply.answer is not None else unread(reply)
        problem = reply.parsed.problem
        refused = problem is not None and problem.reason in REFUSED_CALLS
        return Outcome(False, "bad_segment" if refused else "no_segment", why)
    if len(reply.call.segments) > kit.settings.max_segments_per_call:
        return Outcome(False, "bad_segment", f"it named {len(reply.call.segments)} segments in one call")
    shown: list[View] = []
    problems: list[Problem] = []
    for segment in reply.call.segments:
        view: View | Problem = yield Crop(segment, process.last)
        if isinstance(view, Problem):
            problems.append(view)
        else:
            shown.append(view)
    if not shown:
        return Outcome(False, "bad_segment", problems[0].message)
    return _Grounded(reply, kit.observed(shown, problems, example), tuple(shown), next(iter(problems), None))


def _checks(
    example: Example, part: GroundStage, process: _Process, found: _Grounded, kit: Kit, number: int
) -> Generator[Step, Any, Reply | Outcome]:
    """Return the reply that ends the episode, or why the round failed."""
    failed: Outcome | None = None
    if "alone" in part.checks:
        messages = kit.first(example, found.views, tools=False, purpose="alone")
        reply: Reply = yield Ask("alone", messages, found.views, example, (), number)
        reply.right = kit.is_right(reply.answer, example)
        if not reply.right:
            failed = Outcome(False, "wrong_alone", f"from {_spans(found)} alone: {_answer(reply)}")
    if failed is not None and not (part.every_check and "process" in part.checks):
        return failed
    # The episode ends with this reply whether or not it is compared: without it there is nothing to learn.
    messages = (*kit.first(example, [process.skim], tools=True, purpose="process"), *process.after)
    reply = yield Ask(
        "process", messages, (process.skim, *process.views), example, process.generations, number
    )
    if reply.answer is None:
        return failed or Outcome(False, "no_answer", f"after {_spans(found)}: {unread(reply)}")
    right = kit.is_right(reply.answer, example)
    if "process" in part.checks:
        reply.right = right
        if not right:
            return failed or Outcome(False, "wrong_process", f"after {_spans(found)}: {_answer(reply)}")
    return failed or reply


def _spans(found: _Grounded) -> str:
    assert found.reply.call is not None
    return ", ".join(_span(one) for one in found.reply.call.segments)


def _span(segment: Segment) -> str:
    return f"[{segment.start_seconds:g}, {segment.end_seconds:g}]"


def _answer(reply: Reply) -> str:
    return unread(reply) if reply.answer is None else f"it answered {reply.answer.text!r:.80}"
