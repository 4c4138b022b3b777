"""Questions about a world script, and a teacher that knows the truth and answers them as an agent should.

The teacher sees a view only as a list of frame times. It looks up in the script what each of those frames shows and
writes the reply that a perfect observer of just these frames would write: it brackets what it can see by the last
frame before and the first frame after, and never uses a time that no frame carries.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from timeloupe.trajectory import Example, Segment, Task
from timeloupe.world.script import Event, WorldScript, generator

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

VISIBLE_FRAMES_TO_ANSWER = 5
"""A grounding question is answered once the event fills this many frames of a crop: coarser views are refined."""


@dataclass(frozen=True)
class WorldQuestion:
    """One question about one event, with everything a scorer needs.

    Attributes:
        event: The event asked about.
        task: The kind of question.
        text: The stem.
        options: Option texts of a multiple-choice question.
        answer: The right letter of a multiple-choice question.
    """

    event: Event
    task: Task
    text: str
    options: tuple[str, ...] = ()
    answer: str | None = None


def grounding_question(script: WorldScript, event: Event) -> WorldQuestion:
    """Ask when one event is visible."""
    colour = script.scenes[event.scene_index].colour
    return WorldQuestion(event, "grounding", f"When is the {event.shape} visible in the {colour} scene?")


def digit_question(script: WorldScript, event: Event, random: np.random.Generator) -> WorldQuestion:
    """Ask which digit an event carries; the wrong options prefer digits that other events of the video carry."""
    colour = script.scenes[event.scene_index].colour
    others = list(dict.fromkeys(other.digit for other in script.events if other.digit != event.digit))
    random.shuffle(others)
    rest = [digit for digit in range(10) if digit != event.digit and digit not in others]
    random.shuffle(rest)
    options = [event.digit, *(others + rest)[:3]]
    random.shuffle(options)
    return WorldQuestion(
        event, "multiple_choice", f"Which digit does the {event.shape} carry in the {colour} scene?",
        tuple(str(option) for option in options), LETTERS[options.index(event.digit)],
    )  # fmt: skip


def make_question(script: WorldScript, task: Task, *key: object) -> WorldQuestion:
    """Return one question of ``task`` (``grounding`` or ``multiple_choice``), chosen by the script and ``key``."""
    random = generator("world-question", script.key, task, *key)
    event = script.events[int(random.integers(len(script.events)))]
    if task == "grounding":
        return grounding_question(script, event)
    return digit_question(script, event, random)


def to_example(question: WorldQuestion, *, id: str, video: str, source: str = "world") -> Example:
    """Return the question as a dataset row."""
    return Example(
        id=id, video=video, question=question.text, options=question.options, answer=question.answer,
        segments=(question.event.segment,), task=question.task, source=source,
    )  # fmt: skip


@dataclass(frozen=True)
class FrameFact:
    """What one frame shows with respect to a question.

    Attributes:
        in_scene: The asked scene is on.
        in_event: The asked event is visible.
        digit: The digit that the asked event shows in this frame, or ``None``.
    """

    in_scene: bool
    in_event: bool
    digit: int | None


def frame_facts(script: WorldScript, question: WorldQuestion, times: Sequence[float]) -> list[FrameFact]:
    """Return what each frame of a view shows."""
    event = question.event
    facts: list[FrameFact] = []
    for time in times:
        in_event = event.segment.start_seconds <= time < event.segment.end_seconds
        with_digit = event.digit_segment.start_seconds <= time < event.digit_segment.end_seconds
        in_scene = script.scene_at(time) == event.scene_index
        facts.append(FrameFact(in_scene, in_event, event.digit if with_digit else None))
    return facts


RELEVANCE_LABELS = ("none", "scene", "scene_first", "scene_after", "event", "event_first", "event_after")


def relevance_labels(facts: Sequence[FrameFact]) -> list[str]:
    """Return one label per frame, decided by the frames so far: a relevance label, or the digit to be read there.

    These labels are extra supervision for the small model (targets at visual tokens, never inputs).
    """
    labels: list[str] = []
    before = FrameFact(False, False, None)
    for fact in facts:
        if fact.in_event and not before.in_event:
            label = "event_first"
        elif fact.digit is not None:
            label = str(fact.digit)
        elif fact.in_event:
            label = "event"
        elif before.in_event:
            label = "event_after"
        elif fact.in_scene:
            label = "scene" if before.in_scene else "scene_first"
        else:
            label = "scene_after" if before.in_scene else "none"
        labels.append(label)
        before = fact
    return labels


def bracket(times: Sequence[float], inside: Sequence[bool]) -> tuple[int, int]:
    """Return whole seconds (last frame before, first frame after) of the frames that are inside; end > start."""
    hits = [index for index, hit in enumerate(inside) if hit] or [0, len(times) - 1]
    start = whole_seconds(times[max(hits[0] - 1, 0)])
    end = whole_seconds(times[min(hits[-1] + 1, len(times) - 1)])
    return start, max(end, start + 1)


def whole_seconds(time: float) -> int:
    """Seconds as the small model's prompt prints them."""
    return int(f"{time:.0f}")


def tool_call_text(segments: Sequence[tuple[float, float]]) -> str:
    """Return a VideoTemp-o3 tool call for segments in seconds."""
    arguments = [{"start_time": start, "end_time": end} for start, end in segments]
    body = json.dumps({"name": "get_video_clip_frame", "arguments": arguments}, separators=(",", ":"))
    return f"<tool_call>{body}</tool_call>"


@dataclass(frozen=True)
class Voice:
    """How a teacher words an answer in times.

    Attributes:
        style: ``list`` = ``[20, 36]``, or ``[[20, 36], [84, 92]]`` where several moments are asked for and found;
            ``dash`` = ``20-36 84-92``, as MUSEG's rewards read it.
        names_times: Whether the thought names the times of the answer.
    """

    style: Literal["list", "dash"] = "list"
    names_times: bool = False

    def answer(self, segments: Sequence[tuple[int, int]], *, seen: bool) -> str:
        """Return the final reply with these segments in whole seconds; ``seen`` = they come from what was seen."""
        thought = "Found." if seen else "Not seen."
        if seen and self.names_times:
            thought = f"Seen {', '.join(f'{start} to {end}' for start, end in segments)}."
        if self.style == "dash":
            inside = " ".join(f"{start}-{end}" for start, end in segments)
        else:
            inside = ", ".join(f"[{start}, {end}]" for start, end in segments)
            inside = f"[{inside}]" if len(segments) > 1 else inside
        return f"<think>{thought}</think><answer>{inside}</answer>"


class Teacher:
    """Replies to one question about one script from views given as lists of frame times."""

    def __init__(self, script: WorldScript, question: WorldQuestion, voice: Voice | None = None) -> None:
        self.script = script
        self.question = question
        self.voice = voice or Voice()

    def reply(
        self,
        views: Sequence[Sequence[float]],
        *,
        tools: bool,
        must_answer: bool = False,
        unseen_letter: str | None = None,
    ) -> str:
        """Return the reply after having seen ``views`` (the skim first, then crops); only the last view is read.

        Args:
            views: Frame times of each view, in seconds, ascending.
            tools: Whether looking closer is allowed; without it, the reply is a final answer.
            must_answer: This is the last turn.
            unseen_letter: What to answer where the digit was not seen; the true letter if ``None`` (a training label).
        """
        times = views[-1]
        facts = frame_facts(self.script, self.question, times)
        digit = next((fact.digit for fact in facts if fact.digit is not None), None)
        visible = sum(fact.in_event for fact in facts)
        segment = bracket(times, [fact.in_event if visible else fact.in_scene for fact in facts])
        looked = len(views) > 1
        if self.question.task == "multiple_choice":
            if digit is not None and (looked or not tools):
                letter = self.question.answer
                return f"<think>The digit is {digit} ({letter}).</think><answer>{letter}</answer>"
            if not tools or must_answer:
                return (
                    f"<think>No digit seen.</think><answer>{unseen_letter or self.question.answer}</answer>"
                )
        elif not tools or must_answer or (looked and visible >= VISIBLE_FRAMES_TO_ANSWER):
            return self.voice.answer([segment], seen=bool(visible))
        thought = "Seen, look closer." if visible else "Not seen, search here."
        return f"<think>{thought}</think>{tool_call_text([segment])}"

    def wrong_segment(self, random: np.random.Generator) -> Segment | None:
        """Return a segment as a careless labeller grounds it: another scene's event, or a shifted one.

        Wrong instance (60 %): an event of another scene, of the same shape if there is one. Boundary error (40 %):
        the right event's neighbourhood, missed to one side. ``None`` when the video has no other scene.
        """
        event = self.question.event
        others = [other for other in self.script.events if other.scene_index != event.scene_index]
        if not others:
            return None
        if random.random() < 0.6:
            same = [other for other in others if other.shape == event.shape]
            pool = same or others
            return pool[int(random.integers(len(pool)))].segment
        length = max(event.segment.length_seconds, 8.0)
        if random.random() < 0.5 and event.segment.start_seconds > 1.2 * length:
            end = event.segment.start_seconds - 0.1 * length
            return Segment(start_seconds=end - length, end_seconds=end)
        start = event.segment.end_seconds + 0.1 * length
        end = min(start + length, self.script.duration_seconds)
        return Segment(start_seconds=start, end_seconds=end) if end - start > 2 else None


def question_of(script: WorldScript, example: Example) -> WorldQuestion:
    """Return the question behind a row of this script, found by its evidence segment.

    Raises:
        ValueError: The row is not about this script.
    """
    for event in script.events:
        if example.segments and event.segment == example.segments[0]:
            return WorldQuestion(event, example.task, example.question, example.options, example.answer)
    raise ValueError(f"example {example.id!r} asks about no event of world video {script.key}")
