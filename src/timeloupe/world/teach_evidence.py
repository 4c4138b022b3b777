"""The teacher of Open-o3's form: it marks what it relies on with a box and a time, then answers at once.

``<think><obj>circle</obj><box>[120, 340, 680, 900]</box>at<t>12</t>s</think><answer>7</answer>``

It knows a view as a list of frame times. Every frame of the view that shows the digit asked for becomes one claim, in
order: the object, its box in thousandths of the frame on a grid of ``BOX_GRID``, and the frame's time in whole seconds,
as the frame is printed in the prompt. Where no frame shows the digit, the frames with the object are claimed, and where
there are none the middle frame, so that every reply has the form; its digit is then one that an observer would guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from timeloupe.grounding import THOUSANDTHS
from timeloupe.trajectory import Example
from timeloupe.world.script import Event, WorldScript
from timeloupe.world.teacher import whole_seconds

BOX_GRID = 20
"""Thousandths of the frame between two box coordinates that the teacher writes; a pixel of the small model is 31."""

BOX_NUMBERS = range(0, 1001, BOX_GRID)
"""All numbers that it writes boxes with."""


def asked_event(script: WorldScript, example: Example) -> Event:
    """Return the event that a ``what_when_where`` row of this script asks about, found by its evidence segment.

    Raises:
        ValueError: The row is not about this script, or is of another task.
    """
    for event in script.events:
        if example.task == "what_when_where" and event.digit_segment in example.segments:
            return event
    raise ValueError(f"example {example.id!r} asks where no event of world video {script.key} is")


def digit_frames(event: Event, times: Sequence[float]) -> list[float]:
    """Return the times, among those of a view, at which the event shows its digit."""
    span = event.digit_segment
    return [time for time in times if span.start_seconds <= time < span.end_seconds]


def object_frames(event: Event, times: Sequence[float]) -> list[float]:
    """Return the times, among those of a view, at which the event's object is seen, with its digit or without."""
    span = event.segment
    return [time for time in times if span.start_seconds <= time < span.end_seconds]


def written_box(event: Event, at_seconds: float) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the object as claims write them, at a time inside the event's segment."""
    box = event.box(at_seconds)
    steps = THOUSANDTHS[0] / BOX_GRID
    x1, y1, x2, y2 = (BOX_GRID * round(value * steps) for value in (box.x1, box.y1, box.x2, box.y2))
    return x1, y1, x2, y2


def claim_text(event: Event, at_seconds: float) -> str:
    """Return the claim of an event in the frame displayed at a time inside the event's segment."""
    corners = ", ".join(str(value) for value in written_box(event, at_seconds))
    return f"<obj>{event.shape}</obj><box>[{corners}]</box>at<t>{whole_seconds(at_seconds)}</t>s"


class EvidenceTeacher:
    """Replies to one question of what, when and where from the frame times of a view."""

    def __init__(self, script: WorldScript, example: Example) -> None:
        self.event = asked_event(script, example)

    def reply(self, times: Sequence[float], *, unseen_digit: int | None = None) -> str:
        """Return the reply of a perfect observer of a view.

        Args:
            times: Times of its frames in seconds, ascending, at least one.
            unseen_digit: What to answer where no frame shows the digit; the true one if ``None`` (a training label).
        """
        event = self.event
        shown = digit_frames(event, times)
        seen = bool(shown)
        if not seen:
            shown = object_frames(event, times) or [times[len(times) // 2]]
        digit = event.digit if seen or unseen_digit is None else unseen_digit
        claims = "".join(claim_text(event, time) for time in shown)
        return f"<think>{claims}</think><answer>{digit}</answer>"
