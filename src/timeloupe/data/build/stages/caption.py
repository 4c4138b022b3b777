"""Dense captions with times, window by window, merged: for TaRO's constructive exploration, and for search.

Each window of a video is shown as a crop and asked about by itself. A line of the reply is a caption if it begins with
two joined times and goes on with words::

    From 5.3s to 8.1s, a person opens the box.      5.3s - 8.1s: a person ...      [5.3, 8.1] a person ...
    From 0:05 to 0:08, a person ...                 1. <t>5.3</t>s to <t>8.1</t>s a person ...

A caption is cut to its window. Then captions of all windows are merged: two that overlap or touch in time, and say the
same, become one; so do two that overlap and say almost the same, in the words of the longer one.

Source: TaRO (arXiv 2606.09248) for what captions are for; how they were asked for was not published.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from timeloupe.data.build.recipe_part import StagePart
from timeloupe.data.build.record import Caption
from timeloupe.data.build.steps import Ask, Crop, Kit, Outcome, Plan, Reply
from timeloupe.environment.tools import View
from timeloupe.prompt.times import read_seconds
from timeloupe.trajectory import Example, Problem, Segment

QUESTION = (
    "This part goes from {start}s to {end}s of the video. What happens in it, and when? Write one line for each thing, "
    "as in: From 5.3s to 8.1s, a person opens the box."
)


class CaptionStage(StagePart):
    """Captions of every window of a video, merged.

    Attributes:
        window_seconds: Length of a window.
        overlap_seconds: How much of a window the next one shows again.
        max_windows: A video that needs more is left out.
        same_from: From which share of common words on (of all words of the two) captions that overlap in time are one.
        question: What is asked beside a window; ``{start}`` and ``{end}`` in it stand for where the window begins and
            ends, in seconds.
    """

    kind: Literal["caption"]
    window_seconds: float = Field(default=60.0, gt=0)
    overlap_seconds: float = Field(default=4.0, ge=0)
    max_windows: int = Field(default=40, ge=1)
    same_from: float = Field(default=0.8, gt=0, le=1)
    question: str = Field(default=QUESTION, min_length=1)

    @model_validator(mode="after")
    def _moves_on(self) -> Self:
        if self.overlap_seconds >= self.window_seconds:
            raise ValueError(
                f"overlap_seconds must be < window_seconds, got {self.overlap_seconds:g} and {self.window_seconds:g}"
            )
        return self


@dataclass
class _Found:
    """What the windows have given so far."""

    captions: list[Caption] = field(default_factory=list)
    windows: int = 0
    silent_windows: int = 0
    unreadable: int = 0
    outside: int = 0
    clipped: int = 0


def videos(examples: Sequence[Example], part: CaptionStage) -> list[Example]:
    """Return one item per video, in the order in which they come; its id is the name of the video's file.

    Where two videos have one name, their ids end with a hash of the path.
    """
    paths = list(dict.fromkeys(example.video for example in examples))
    stems = [Path(path).stem for path in paths]
    number = Counter(stems)
    found: list[Example] = []
    for path, stem in zip(paths, stems, strict=True):
        id = stem if number[stem] == 1 else f"{stem}-{sha256(path.encode()).hexdigest()[:8]}"
        found.append(Example(id=id, video=path, question=part.question, task="open"))
    return found


def caption(example: Example, part: CaptionStage, kit: Kit) -> Plan:
    """Return the plan of one video."""
    step = part.window_seconds - part.overlap_seconds
    beyond = part.max_windows * step
    # A look behind the last window that is allowed costs nothing where the video has ended before.
    further = yield Crop(Segment(start_seconds=beyond, end_seconds=beyond + part.window_seconds))
    if isinstance(further, View) and further.ref.end_seconds > beyond + part.overlap_seconds:
        return Outcome(
            False, "too_long", f"it has more than {part.max_windows} windows of {part.window_seconds:g} s"
        )
    found, covered = _Found(), 0.0
    for number in range(part.max_windows):
        start = number * step
        view: View | Problem = yield Crop(
            Segment(start_seconds=start, end_seconds=start + part.window_seconds)
        )
        if isinstance(view, Problem) or view.ref.end_seconds <= covered:
            break  # the window before ended with the video
        covered = view.ref.end_seconds
        asked = example.model_copy(update={"question": _question(part, view)})
        messages = kit.first(asked, [view], tools=False, purpose="caption")
        reply: Reply = yield Ask("caption", messages, (view,), asked, round=number)
        _take(reply, Segment(start_seconds=view.ref.start_seconds, end_seconds=covered), found)
        if covered < start + part.window_seconds:
            break
    captions = merge_captions(found.captions, part.same_from)
    figures = {
        "windows": found.windows, "silent_windows": found.silent_windows, "read": len(found.captions),
        "dropped": found.unreadable + found.outside, "unreadable": found.unreadable, "outside": found.outside,
        "clipped": found.clipped, "merged": len(found.captions) - len(captions), "captions": len(captions),
    }  # fmt: skip
    if not captions:
        return Outcome(False, "no_captions", f"none in {found.windows} windows", figures=figures)
    return Outcome(True, "captioned", captions=tuple(captions), figures=figures)


def _question(part: CaptionStage, view: View) -> str:
    ends = {"{start}": view.ref.start_seconds, "{end}": view.ref.end_seconds}
    question = part.question
    for place, seconds in ends.items():
        question = question.replace(place, f"{seconds:.1f}")
    return question


def _take(reply: Reply, window: Segment, found: _Found) -> None:
    """Add the captions of one window."""
    found.windows += 1
    lines = [line for line in _said(reply).splitlines() if line.strip()]
    if reply.generation.finish == "length" and lines:
        lines.pop()  # a line that was cut may say less than was meant
        found.unreadable += 1
    good = 0
    for line in lines:
        if line.strip(" .*-").casefold() == "none":
            continue
        read = read_line(line)
        if read is None:
            found.unreadable += 1
            continue
        start = max(read.segment.start_seconds, window.start_seconds)
        end = min(read.segment.end_seconds, window.end_seconds)
        if start >= end:
            found.outside += 1
            continue
        segment = Segment(start_seconds=start, end_seconds=end)
        found.clipped += segment != read.segment
        found.captions.append(Caption(segment=segment, text=read.text))
        good += 1
    found.silent_windows += not good


def _said(reply: Reply) -> str:
    """Return the part of a reply that may hold captions: its answer, or, without one, what follows its thought."""
    if reply.answer is not None:
        return reply.answer.text
    _, _, rest = reply.text.rpartition("</think>")
    return rest.replace("<answer>", "\n").replace("</answer>", "\n")


# Atomic: a time is never read in part to leave a text behind it.
_TIME = (
    r"(?:<t>)?((?>[0-9]{1,12}(?::[0-9]{2}){0,2}(?:\.[0-9]{1,20})?))(?:</t>)?+\s{0,3}"
    r"(s\b|secs?\b|seconds?\b)?+"
)
_LINE = re.compile(
    r"\s{0,20}(?:[-*\u2022]\s{1,4})?(?:[0-9]{1,3}[.)]\s{1,4})?\*{0,2}([\[(]?)\s{0,3}(from\s|between\s)?\s{0,3}"
    + _TIME
    + r"\s{0,3}(?:to|until|till|and|[-\u2013\u2014~,])\s{0,3}"
    + _TIME
    + r"\s{0,3}[\])]?\*{0,2}[\s,:;.\u2013\u2014-]{0,8}(.+)",
    re.IGNORECASE,
)


def read_line(line: str) -> Caption | None:
    """Return the caption that a line says; ``None`` if it does not begin with a span of time, or says nothing else.

    One of the two times must be plainly one: after ``from``, in brackets, with a unit, a colon or a decimal point.
    """
    match = _LINE.fullmatch(line.rstrip())
    if match is None:
        return None
    bracket, leads, start, unit, end, other_unit, text = match.groups()
    if not (bracket or leads or unit or other_unit or any(sign in start + end for sign in ".:")):
        return None
    first, last = read_seconds(start), read_seconds(end)
    if first is None or last is None or not first < last or not any(char.isalpha() for char in text):
        return None
    return Caption(segment=Segment(start_seconds=first, end_seconds=last), text=text.strip())


def merge_captions(captions: Sequence[Caption], same_from: float) -> list[Caption]:
    """Return captions without repetitions, in order of start.

    Every second at which a caption stood is in a caption of the result that says the same, or almost: nothing is cut.
    Merging the result again changes nothing.

    Args:
        captions: In any order.
        same_from: As in ``CaptionStage``.
    """
    left = sorted(captions, key=_order)
    while True:
        merged: list[Caption] = []
        for one in left:
            at = next((at for at, other in enumerate(merged) if _are_one(other, one, same_from)), None)
            if at is None:
                merged.append(one)
            else:
                merged[at] = _union(merged[at], one)
        merged.sort(key=_order)
        if len(merged) == len(left):
            return merged
        left = merged  # a longer caption may touch others


def _order(one: Caption) -> tuple[float, float, str]:
    return one.segment.start_seconds, -one.segment.end_seconds, one.text


def words_of(text: str) -> tuple[str, ...]:
    """Return the words and numbers of a text, without case and signs."""
    return tuple(re.findall(r"\w+", text.casefold()))


def _are_one(one: Caption, two: Caption, same_from: float) -> bool:
    common = min(one.segment.end_seconds, two.segment.end_seconds) - max(
        one.segment.start_seconds, two.segment.start_seconds
    )
    if common < 0:
        return False
    ones, twos = words_of(one.text), words_of(two.text)
    if ones == twos:
        return True
    every = {*ones, *twos}
    return common > 0 and len({*ones} & {*twos}) >= same_from * len(every)


def _union(one: Caption, two: Caption) -> Caption:
    longer = two if two.segment.length_seconds > one.segment.length_seconds else one
    segment = Segment(
        start_seconds=min(one.segment.start_seconds, two.segment.start_seconds),
        end_seconds=max(one.segment.end_seconds, two.segment.end_seconds),
    )
    return Caption(segment=segment, text=longer.text)
