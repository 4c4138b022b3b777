"""One try of a policy at a question, as an episode of ``environment.rollout`` goes, step by step for a stage.

The same calls are refused, the same replies end it, and the last turn must answer. What differs: nothing is recorded
but what the stage needs, and each turn may be sampled at another temperature than the settings'.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from timeloupe.data.build.steps import Ask, Crop, Kit, Reply, Step, said
from timeloupe.environment.rollout import REFUSED_CALLS
from timeloupe.environment.tools import View
from timeloupe.grounding import set_iou
from timeloupe.trajectory import Answer, Example, Generation, Message, Problem

ATTEMPT, SINGLE = "attempt", "single"
"""Purposes: may look closer, and may not."""


@dataclass(frozen=True)
class Attempt:
    """How a try ended.

    Attributes:
        answer: What it answered; ``None`` = it gave none.
        right: Whether that is what the label says.
        calls: Replies that asked to look closer, those that were refused included.
    """

    answer: Answer | None
    right: bool
    calls: int

    def iou(self, example: Example) -> float:
        """Return the overlap of the answered segments with the labelled ones; 0 without an answer."""
        return 0.0 if self.answer is None else set_iou(self.answer.segments, example.segments)


def attempt(
    example: Example, kit: Kit, skim: View, *, tools: bool, sample: int, temperature: float
) -> Generator[Step, Any, Attempt]:
    """Play one episode and return how it ended.

    Args:
        example: The question, with a label.
        kit: Its settings say how many turns there are and how many segments a call may name.
        skim: The whole video.
        tools: Whether looking closer is offered; without it there is one turn.
        sample: Which of several tries this is, from 0.
        temperature: Of every turn.
    """
    messages = list(kit.first(example, [skim], tools=tools))
    views, last = [skim], (skim,)
    said_so_far: list[Generation] = []
    num_turns = kit.settings.max_turns if tools else 1
    calls = 0
    for turn in range(num_turns):
        reply: Reply = yield Ask(
            ATTEMPT if tools else SINGLE, tuple(messages), tuple(views), example, tuple(said_so_far), turn,
            sample, temperature,
        )  # fmt: skip
        looks = reply.call is not None or _refused(reply)
        calls += looks
        if not looks or turn + 1 == num_turns:
            reply.right = kit.is_right(reply.answer, example)
            return Attempt(reply.answer, reply.right, calls)
        shown, observed = yield from _look(example, kit, reply, last)
        messages += [said(reply), observed]
        said_so_far.append(reply.generation)
        views += shown
        last = shown or last
    raise AssertionError("the last turn returns")


def _refused(reply: Reply) -> bool:
    """Whether a reply is a whole call that the parser refused: the policy is told, and goes on."""
    problem = reply.parsed.problem
    return problem is not None and problem.reason in REFUSED_CALLS and reply.generation.finish != "length"


def _look(
    example: Example, kit: Kit, reply: Reply, last: tuple[View, ...]
) -> Generator[Step, Any, tuple[tuple[View, ...], Message]]:
    """Cut what a reply asks for and return what came of it, with what the policy is told."""
    shown: list[View] = []
    problems: list[Problem] = []
    most = kit.settings.max_segments_per_call
    if reply.call is None:
        assert reply.parsed.problem is not None
        problems.append(reply.parsed.problem)
    elif len(reply.call.segments) > most:
        message = f"{len(reply.call.segments)} segments in one call, allowed are at most {most}"
        problems.append(Problem(reason="too_many_segments", message=message))
    else:
        for segment in reply.call.segments:
            view: View | Problem = yield Crop(segment, last)
            if isinstance(view, Problem):
                problems.append(view)
            else:
                shown.append(view)
    return tuple(shown), kit.observed(shown, problems, example)
