"""Answers with marked evidence, each mark checked by looking at what its box shows: rows of what, when and where.

::

    evidence    (video, question)           -> answer, which must be the label's, and claims: object, box, time
    box         (what a claim's box shows)  -> yes or no, for each claim

A claim that its box does not bear out is dropped. The kept episode marks nothing else: where anything was dropped, its
thought is the claims that are left, and nothing but them. The row's boxes and segments are those of these claims; a
claim is about the frame nearest to its time (the prompt prints rounded times) and stands for the time until the middle
between that frame and its neighbours. Only rows with a free answer are asked.

Source: Open-o3 Video (arXiv 2510.20579) for the form of the rows. How its own were checked was not published.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from timeloupe.data.build.recipe_part import StagePart
from timeloupe.data.build.stages.direct import unread
from timeloupe.data.build.steps import Ask, BoxCrop, Kit, Outcome, Plan, Reply, Skim, Step, answered
from timeloupe.data.build.yes_no import says_yes
from timeloupe.environment.tools import View
from timeloupe.grounding import THOUSANDTHS, merge_spans
from timeloupe.prompt.build import write_seconds
from timeloupe.prompt.evidence import Claim, Corners, boxes_of, parse_claims
from timeloupe.prompt.protocol import Protocol
from timeloupe.trajectory import Box, Example, FrameRef, Generation, Problem, Segment

TASKS = ("what_when_where", "open")


class EvidenceStage(StagePart):
    """Marked evidence, checked box by box.

    Attributes:
        min_claims: A row with fewer claims that hold is left out.
        max_claims: Claims that are checked; further ones are dropped.
        near_seconds: A claim this near to a frame that was shown is about that frame.
    """

    kind: Literal["evidence"]
    min_claims: int = Field(default=1, ge=1)
    max_claims: int = Field(default=8, ge=1)
    near_seconds: float = Field(default=0.5, ge=0)


@dataclass(frozen=True)
class _Mark:
    """One box of a claim: as it was written, and where it is."""

    label: str
    written: Corners
    at_seconds: float
    box: Box

    @property
    def text(self) -> str:
        """The mark as a reply writes it."""
        corners = ", ".join(f"{value:g}" for value in self.written)
        time = write_seconds(self.at_seconds, None)
        return f"<obj>{self.label}</obj><box>[{corners}]</box>at<t>{time}</t>s"


def evidence(example: Example, part: EvidenceStage, kit: Kit) -> Plan:
    """Return the plan of one item."""
    if example.task not in TASKS:
        return Outcome(False, "other_task", f"a {example.task} row, allowed: {', '.join(TASKS)}")
    if not kit.can_judge(example):
        return Outcome(False, "no_label", "nothing says what a right answer is")
    skim: View = yield Skim()
    reply: Reply = yield Ask(
        "evidence", kit.first(example, [skim], tools=False, purpose="evidence"), (skim,), example
    )
    if reply.answer is None:
        return Outcome(False, "no_answer", unread(reply))
    text = f"{reply.parsed.thought}\n{reply.answer.text}"
    claims = parse_claims(text)
    said = plain(reply.answer.text)
    reply.right = kit.is_right(reply.answer.model_copy(update={"text": said}), example)
    if not reply.right:
        return Outcome(False, "wrong", f"it answered {said!r:.80}")
    marks = _marks(claims, skim.ref, kit.protocol, part.near_seconds)
    written = max(sum(len(claim.boxes) for claim in claims), text.count("<box>"), text.count("<obj>"))
    if not marks:
        return Outcome(
            False, "no_claims", f"of {written} marks none can be read", figures={"claims": written}
        )
    held = yield from _checked(example, marks[: part.max_claims], kit)
    figures = {
        "claims": written, "unreadable": written - len(marks), "unchecked": max(len(marks) - part.max_claims, 0),
        "refused": min(len(marks), part.max_claims) - len(held), "verified": len(held),
    }  # fmt: skip
    if len(held) < part.min_claims:
        why = f"{len(held)} of {written} claims hold, {part.min_claims} needed"
        return Outcome(False, "too_few_claims", why, figures=figures)
    whole = len(held) == written == text.count("<t>")
    if not whole:
        reply = _rebuilt(reply, said, held, example, kit)
    boxes = tuple(mark.box for mark in held)
    proven = example.model_copy(
        update={
            "task": "what_when_where",
            "boxes": boxes,
            "segments": stretches(skim.ref, [box.at_seconds for box in boxes]),
        }
    )
    prompt = kit.first(proven, [skim], tools=False)
    episode = kit.episode(proven, prompt, [answered(reply)], stage="evidence", rebuilt=not whole)
    return Outcome(True, "whole" if whole else "in_part", example=proven, trajectory=episode, figures=figures)


def _marks(claims: Sequence[Claim], shown: FrameRef, protocol: Protocol, near_seconds: float) -> list[_Mark]:
    """Return the boxes that claims give, without those that have no time or no place, and without repetitions."""
    frame_wh = THOUSANDTHS if protocol.box_scale == "thousandths" else shown.size_wh
    found: dict[tuple[str, Corners, float], _Mark] = {}
    for claim in claims:
        for corners in claim.boxes:
            read = boxes_of([Claim(claim.label, (corners,), claim.at_seconds)], frame_wh)
            if not read or claim.at_seconds is None:
                continue
            nearest = min(shown.at_seconds, key=lambda time: abs(time - read[0].at_seconds))
            is_near = abs(nearest - claim.at_seconds) <= near_seconds
            box = read[0].model_copy(update={"at_seconds": nearest if is_near else claim.at_seconds})
            mark = _Mark(claim.label, corners, claim.at_seconds, box)
            found.setdefault((claim.label, corners, claim.at_seconds), mark)
    return list(found.values())


def _checked(example: Example, marks: Sequence[_Mark], kit: Kit) -> Generator[Step, Any, list[_Mark]]:
    """Return the marks whose boxes show what they say."""
    held: list[_Mark] = []
    for number, mark in enumerate(marks):
        view: View | Problem = yield BoxCrop(mark.box)
        if isinstance(view, Problem):
            continue
        asked = example.model_copy(update={"question": box_question(mark.box), "options": (), "task": "open"})
        messages = kit.first(asked, [view], tools=False, purpose="box")
        reply: Reply = yield Ask("box", messages, (view,), asked, sample=number)
        if says_yes(reply):
            held.append(mark)
    return held


def box_question(box: Box) -> str:
    """Return what is asked beside what a box shows."""
    x1, y1, x2, y2 = (f"{100 * side:.1f}%" for side in (box.x1, box.y1, box.x2, box.y2))
    return (
        f"This picture is the part of a frame from {x1} to {x2} of its width and from {y1} to {y2} of its height. "
        f"Is it a picture of: {box.label}? Answer yes or no, then say what it shows."
    )


_MARKUP = re.compile(
    r"(?:\s{0,4}<box>[^<]{0,200}</box>){1,16}(?:\s{0,4}at\s{0,4}<t>[^<]{0,40}</t>s?)?|</?obj>"
)


def plain(text: str) -> str:
    """Return a text with its claims as the bare names of their objects."""
    return _MARKUP.sub("", text).strip()


def _rebuilt(reply: Reply, said: str, held: Sequence[_Mark], example: Example, kit: Kit) -> Reply:
    """Return the reply with the claims that hold as its thought."""
    tags = kit.protocol
    thought = "\n".join(mark.text for mark in held)
    text = f"<{tags.think_tag}>{thought}</{tags.think_tag}><{tags.answer_tag}>{said}</{tags.answer_tag}>"
    generation = Generation(text=text, usage=reply.generation.usage, seconds=reply.generation.seconds)
    return Reply(generation, kit.read(generation, example), reply.right)


def stretches(shown: FrameRef, times: Sequence[float]) -> tuple[Segment, ...]:
    """Return the time for which the frames at these times stand: up to the middle between each and its neighbours.

    A time at which no frame was shown stands for the time to which the frames beside it are no nearer.
    """
    frames = sorted({*shown.at_seconds, *times})
    spans: list[tuple[float, float]] = []
    for time in times:
        at = frames.index(time)
        start = shown.start_seconds if at == 0 else (frames[at - 1] + time) / 2
        end = max(shown.end_seconds, time + 0.1) if at == len(frames) - 1 else (time + frames[at + 1]) / 2
        spans.append((min(start, time), end))
    return tuple(Segment(start_seconds=start, end_seconds=end) for start, end in merge_spans(spans))
