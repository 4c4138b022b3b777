"""Every time at which something happens, each time checked by itself: rows as MUSEG learns from.

::

    every       (video, question)                      -> all segments
    instance    (one segment, does it happen here?)    -> yes or no; a segment without a yes is dropped
    gap         (what lies between, does it happen?)   -> yes or no; a yes means that one was missed, and ends the row

Gaps are looked at where ``check_gaps`` is set. A label decides nothing unless ``use_label`` is set; where there is one,
the figures say how far the segments are from it. A segment that is far too long passes: what it shows holds what is
asked for.

Source: MUSEG (arXiv 2505.20715) for the form of the rows. How its own were checked was not published.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Literal

from pydantic import Field

from timeloupe.data.build.recipe_part import StagePart
from timeloupe.data.build.stages.direct import unread
from timeloupe.data.build.steps import Ask, Crop, Kit, Outcome, Plan, Reply, Skim, Step, answered
from timeloupe.data.build.yes_no import says_yes
from timeloupe.environment.tools import View
from timeloupe.grounding import merge_spans, set_iou, union_seconds
from timeloupe.prompt.build import write_seconds, write_segments
from timeloupe.trajectory import Example, Generation, Problem, Segment


class MultisegStage(StagePart):
    """All times, checked one by one.

    Attributes:
        max_segments: A reply that names more is left out.
        check_gaps: Ask what lies between the segments, before the first and after the last.
        gap_seconds: Only gaps longer than this.
        gap_margin_seconds: A gap is looked at without so much of it beside each segment, whose ends may be inexact.
        use_label: Leave rows out whose segments are not the label's, by ``min_iou`` of the recipe.
    """

    kind: Literal["multiseg"]
    max_segments: int = Field(default=12, ge=1)
    check_gaps: bool = False
    gap_seconds: float = Field(default=10.0, gt=0)
    gap_margin_seconds: float = Field(default=2.0, ge=0)
    use_label: bool = False


def most_multiseg_asks(part: MultisegStage) -> int:
    """Return how many questions one item takes at most."""
    return 1 + part.max_segments + (part.max_segments + 1 if part.check_gaps else 0)


def multiseg(example: Example, part: MultisegStage, kit: Kit) -> Plan:
    """Return the plan of one item."""
    if example.task != "multi_segment":
        return Outcome(False, "other_task", f"a {example.task} row, allowed: multi_segment")
    if part.use_label and not kit.can_judge(example):
        return Outcome(False, "no_label", "nothing says what a right answer is")
    skim: View = yield Skim()
    reply: Reply = yield Ask(
        "every", kit.first(example, [skim], tools=False, purpose="every"), (skim,), example
    )
    if reply.answer is None:
        return Outcome(False, "no_answer", unread(reply))
    spans = sorted({(one.start_seconds, one.end_seconds) for one in reply.answer.segments})
    named = [Segment(start_seconds=start, end_seconds=end) for start, end in spans]
    if not named:
        return Outcome(False, "no_segment", f"it answered {reply.answer.text!r:.80}")
    if len(named) > part.max_segments:
        return Outcome(False, "too_many_segments", f"it named {len(named)}, allowed: {part.max_segments}")
    held = yield from _checked(example, named, kit)
    figures: dict[str, float] = {
        "named": len(named),
        "dropped": len(named) - len(held),
        "segments": len(held),
    }
    if example.segments:
        if kit.can_judge(example):
            reply.right = kit.is_right(reply.answer, example)
        figures |= compared(held, example.segments) | {"named_set_iou": set_iou(named, example.segments)}
    if not held:
        return Outcome(False, "no_instance", f"none of {len(named)} segments shows it", figures=figures)
    if part.check_gaps:
        missed = yield from _missed(example, gaps(held, skim, part), kit, figures)
        if missed is not None:
            return Outcome(False, "missed_instance", f"it is seen in {_span(missed)} too", figures=figures)
    if part.use_label and set_iou(held, example.segments) < kit.min_iou:
        return Outcome(
            False, "wrong", f"what is left has a set IoU of {figures['set_iou']:.2f}", figures=figures
        )
    whole = named == list(reply.answer.segments) and _are_as_named(held, named)
    if not whole:
        reply = _rebuilt(reply, held, example, kit)
    if len(reply.segments) != len(held):
        return Outcome(
            False, "too_short", f"written as {reply.text!r:.200}, a segment is empty", figures=figures
        )
    verified = example.model_copy(update={"segments": tuple(held)})
    prompt = kit.first(verified, [skim], tools=False)
    episode = kit.episode(verified, prompt, [answered(reply)], stage="multiseg", rebuilt=not whole)
    return Outcome(
        True, "whole" if whole else "in_part", example=verified, trajectory=episode, figures=figures
    )


def _checked(example: Example, named: Sequence[Segment], kit: Kit) -> Generator[Step, Any, list[Segment]]:
    """Return the segments that show it, cut to the video."""
    held: list[Segment] = []
    for number, segment in enumerate(named):
        view: View | Problem = yield Crop(segment)
        if isinstance(view, Problem):
            continue
        shown = Segment(start_seconds=view.ref.start_seconds, end_seconds=view.ref.end_seconds)
        if (yield from _happens(example, view, "instance", number, kit)) and shown not in held:
            held.append(shown)
    return held


def _missed(
    example: Example, unseen: Sequence[Segment], kit: Kit, figures: dict[str, float]
) -> Generator[Step, Any, Segment | None]:
    """Return the first gap that shows it, and count the gaps that were asked about."""
    figures["gaps_asked"] = 0
    for number, gap in enumerate(unseen):
        view: View | Problem = yield Crop(gap)
        if isinstance(view, Problem):
            continue
        figures["gaps_asked"] += 1
        if (yield from _happens(example, view, "gap", number, kit)):
            return gap
    return None


def _happens(example: Example, view: View, purpose: str, number: int, kit: Kit) -> Generator[Step, Any, bool]:
    question = f"{example.question}\nDoes it happen in this part of the video? Answer yes or no."
    asked = example.model_copy(update={"question": question, "task": "open"})
    messages = kit.first(asked, [view], tools=False, purpose=purpose)
    reply: Reply = yield Ask(purpose, messages, (view,), asked, sample=number)
    return says_yes(reply)


def gaps(held: Sequence[Segment], skim: View, part: MultisegStage) -> list[Segment]:
    """Return the stretches of the skim that are longer than ``gap_seconds`` and lie between segments, less margins."""
    spans = merge_spans(held)
    ends = [skim.ref.start_seconds, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), skim.ref.end_seconds]
    found: list[Segment] = []
    for at, (end, start) in enumerate(zip(ends, starts, strict=True)):
        first = end + (part.gap_margin_seconds if at > 0 else 0.0)
        last = start - (part.gap_margin_seconds if at < len(spans) else 0.0)
        if start - end > part.gap_seconds and first < last:
            found.append(Segment(start_seconds=first, end_seconds=last))
    return found


def compared(found: Sequence[Segment], truth: Sequence[Segment]) -> dict[str, float]:
    """Return the shares of time found that are true, and of true time found, and their IoU, all in [0, 1]."""
    common = union_seconds(found) + union_seconds(truth) - union_seconds([*found, *truth])
    common = max(common, 0.0)
    return {
        "precision": min(common / union_seconds(found), 1.0) if found else 0.0,
        "recall": min(common / union_seconds(truth), 1.0) if truth else 0.0,
        "set_iou": set_iou(found, truth),
    }


ROUNDING_SECONDS = 0.5
"""A segment that reaches so far behind the end of the video was rounded, and its reply is left as it is."""


def _are_as_named(held: Sequence[Segment], named: Sequence[Segment]) -> bool:
    return len(held) == len(named) and all(
        two.end_seconds - one.end_seconds <= ROUNDING_SECONDS for one, two in zip(held, named, strict=True)
    )


def _rebuilt(reply: Reply, held: Sequence[Segment], example: Example, kit: Kit) -> Reply:
    """Return a reply that names the segments that hold, in its thought and its answer."""
    tags = kit.protocol
    thought = f"Seen {', '.join(_said(one, kit) for one in held)}."
    text = (
        f"<{tags.think_tag}>{thought}</{tags.think_tag}>"
        f"<{tags.answer_tag}>{write_segments(held, tags)}</{tags.answer_tag}>"
    )
    generation = Generation(text=text, usage=reply.generation.usage, seconds=reply.generation.seconds)
    return Reply(generation, kit.read(generation, example), reply.right)


def _said(segment: Segment, kit: Kit) -> str:
    decimals = kit.protocol.decimals
    return (
        f"{write_seconds(segment.start_seconds, decimals)} to {write_seconds(segment.end_seconds, decimals)}"
    )


def _span(segment: Segment) -> str:
    return f"[{segment.start_seconds:g}, {segment.end_seconds:g}]"
