"""The timeline of a world video as an observer of some of its frames writes it down, in the words of the small model.

One line for each scene and each event that shows in a frame, in the order of the video, bracketed by the last frame
before and the first frame after it::

    0s to 21s red scene
    6s to 12s red circle
    18s to 43s blue scene

These are dense captions with times as TaRO builds its thoughts from, nine tokens each, and no time stands in them that
no frame carries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timeloupe.trajectory import Segment
from timeloupe.world.script import WorldScript
from timeloupe.world.teacher import WorldQuestion, bracket

TIMELINE_QUESTION = "What is visible when?"
"""Asks for a timeline, before another question."""


def timeline(script: WorldScript, times: Sequence[float], question: WorldQuestion | None = None) -> list[str]:
    """Return the lines that an observer of the frames writes.

    Args:
        script: The video.
        times: Of the frames that are seen, seconds, ascending.
        question: Write only of the scene and the event that it asks about, which may both be unseen.
    """
    named: list[tuple[Segment, str]] = []
    for index, scene in enumerate(script.scenes):
        if question is None or question.event.scene_index == index:
            named.append((scene.segment, f"{scene.colour} scene"))
    for event in script.events if question is None else (question.event,):
        named.append((event.segment, f"{script.scenes[event.scene_index].colour} {event.shape}"))
    found: list[tuple[int, int, str]] = []
    for segment, words in named:
        inside = [segment.start_seconds <= time < segment.end_seconds for time in times]
        if any(inside):
            found.append((*bracket(times, inside), words))
    found.sort(key=lambda one: (one[0], -one[1]))
    return [f"{write_window(start, end)} {words}" for start, end, words in found]


def grounding_reply(
    script: WorldScript, question: WorldQuestion, times: Sequence[float], lines: Sequence[str] = ()
) -> str:
    """Return a direct answer to a grounding question, in TaRO's form ``12s to 40s``.

    Args:
        script: The video.
        question: A grounding question about it.
        times: Of the frames that are seen. An event that no frame shows is answered by its scene.
        lines: The thought; none = that it was found, or not.
    """
    event, scene = question.event.segment, script.scenes[question.event.scene_index].segment
    inside = [event.start_seconds <= time < event.end_seconds for time in times]
    seen = any(inside)
    if not seen:
        inside = [scene.start_seconds <= time < scene.end_seconds for time in times]
    thought = "\n".join(("", *lines, "")) if lines else ("Found." if seen else "Not seen.")
    return f"<think>{thought}</think><answer>{write_window(*bracket(times, inside))}</answer>"


def some_lines(lines: Sequence[str], random: np.random.Generator) -> list[str]:
    """Return a part of the lines in their order: at least one, any number with equal chance."""
    count = int(random.integers(1, len(lines) + 1))
    chosen: list[int] = sorted(random.permutation(len(lines))[:count].tolist())
    return [lines[index] for index in chosen]


def write_window(start: int, end: int) -> str:
    """Return whole seconds as TaRO's answers have them."""
    return f"{start}s to {end}s"
