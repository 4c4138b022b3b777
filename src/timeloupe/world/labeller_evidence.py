"""What a world's oracle says where it is asked for marked evidence, and of what a box shows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from timeloupe.grounding import THOUSANDTHS, box_iou
from timeloupe.trajectory import Box, Example
from timeloupe.world.labeller import OracleErrors
from timeloupe.world.script import SHAPE_FRACTION, Event, WorldScript
from timeloupe.world.teach_evidence import asked_event, digit_frames, object_frames
from timeloupe.world.teacher import whole_seconds

SEEN_FROM = 0.4
"""A box shows an object from this IoU with the object's own on."""


def evidence_reply(
    script: WorldScript,
    example: Example,
    times: Sequence[float],
    errors: OracleErrors,
    random: np.random.Generator,
) -> str:
    """Return an answer that marks the object in every frame with its digit, in thousandths and whole seconds.

    Where no frame shows the digit, the frames with the object are marked, without them one frame with a box anywhere,
    and the digit is guessed. Without frames nothing is marked.

    Args:
        script: The video.
        example: A row of what, when and where.
        times: Of the frames shown, seconds, ascending.
        errors: ``wrong_answer``, ``box_noise``, ``wrong_box``.
        random: Draws the errors.
    """
    event = asked_event(script, example)
    seen = digit_frames(event, times)
    shown = seen or object_frames(event, times)
    digit = event.digit if seen else int(random.integers(10))
    if seen and float(random.random()) < errors.wrong_answer:
        digit = (event.digit + 1 + int(random.integers(9))) % 10
    marks = [(time, _box(event, time, errors, random)) for time in shown]
    if not marks and times:
        marks = [(times[len(times) // 2], _anywhere(random))]
    claims = "".join(_claim(event.shape, time, corners) for time, corners in marks)
    return f"<think>{claims or 'Not seen.'}</think><answer>{digit}</answer>"


def _box(event: Event, time: float, errors: OracleErrors, random: np.random.Generator) -> np.ndarray:
    wrong = float(random.random()) < errors.wrong_box
    noise = random.normal(0.0, 1.0, 4) * errors.box_noise
    box = event.box(time)
    corners = _anywhere(random) if wrong else np.array([box.x1, box.y1, box.x2, box.y2])
    return corners + noise


def _anywhere(random: np.random.Generator) -> np.ndarray:
    """A box a third as large as a shape, anywhere in the frame."""
    side = SHAPE_FRACTION / 3
    x, y = random.uniform(0.0, 1.0 - side, 2).tolist()
    return np.array([x, y, x + side, y + side])


def _claim(label: str, time: float, corners: np.ndarray) -> str:
    x1, y1, x2, y2 = np.clip(np.rint(corners * THOUSANDTHS[0]), 0, THOUSANDTHS[0]).astype(int).tolist()
    x1, y1 = min(x1, 999), min(y1, 999)
    corners_text = f"[{x1}, {y1}, {max(x2, x1 + 1)}, {max(y2, y1 + 1)}]"
    return f"<obj>{label}</obj><box>{corners_text}</box>at<t>{whole_seconds(time)}</t>s"


_PART = re.compile(
    r"from ([0-9.]+)% to ([0-9.]+)% of its width and from ([0-9.]+)% to ([0-9.]+)% of its height"
)


def box_reply(
    script: WorldScript,
    example: Example,
    at_seconds: float,
    said: str,
    errors: OracleErrors,
    random: np.random.Generator,
) -> str:
    """Return whether a picture that was cut out of a frame shows the object that the row asks about.

    Args:
        script: The video.
        example: A row of what, when and where.
        at_seconds: Of the frame.
        said: The question, which says what part of the frame the picture is: the oracle sees no pixels.
        errors: ``wrong_answer``.
        random: Draws the errors.

    Raises:
        ValueError: The question does not name the part.
    """
    part = _PART.search(said)
    if part is None:
        raise ValueError(f"example {example.id!r}: no part of a frame in {said!r:.200}")
    x1, x2, y1, y2 = (float(one) / 100 for one in part.groups())
    event = asked_event(script, example)
    span = event.segment
    yes = False
    if span.start_seconds <= at_seconds < span.end_seconds and x1 < x2 and y1 < y2:
        yes = (
            box_iou(Box(at_seconds=at_seconds, x1=x1, y1=y1, x2=x2, y2=y2), event.box(at_seconds))
            >= SEEN_FROM
        )
    if float(random.random()) < errors.wrong_answer:
        yes = not yes
    what = f"yes, a {event.shape}" if yes else "no, something else"
    return f"<think>Looked at it.</think><answer>{what}</answer>"
