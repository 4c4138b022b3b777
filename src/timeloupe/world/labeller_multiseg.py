"""What a world's oracle says where it is asked for every time at which a shape is visible, and of a part of the video.

As where it is asked for one segment, it knows where all of them are, whatever it was shown, and then errs; whether a
part shows the shape it sees in the frames of the part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timeloupe.trajectory import Example
from timeloupe.world.labeller import OracleErrors
from timeloupe.world.multi_segment import scenes_showing, segments_of
from timeloupe.world.script import WorldScript
from timeloupe.world.teacher import Voice, question_of, whole_seconds


def every_reply(
    script: WorldScript, example: Example, errors: OracleErrors, random: np.random.Generator
) -> str:
    """Return every time at which the shape of the row is visible, in whole seconds and in order.

    Args:
        script: The video.
        example: A row that asks for every time.
        errors: ``missed_instance``, ``invented_instance``, ``boundary_seconds``.
        random: Draws the errors.
    """
    last = whole_seconds(script.duration_seconds)
    found: list[tuple[int, int]] = []
    for segment in segments_of(script, _shape(script, example)):
        missed = float(random.random()) < errors.missed_instance
        invented = float(random.random()) < errors.invented_instance
        noise = (random.normal(0.0, 1.0, 2) * errors.boundary_seconds).tolist()
        anywhere = float(random.uniform(0.0, max(script.duration_seconds - segment.length_seconds, 0.0)))
        if not missed:
            found.append(_whole(segment.start_seconds + noise[0], segment.end_seconds + noise[1], last))
        if invented:
            found.append(_whole(anywhere, anywhere + segment.length_seconds, last))
    if not found:
        return "<think>Not seen.</think><answer>none</answer>"
    return Voice().answer(sorted(found), seen=True)


def visible_reply(
    script: WorldScript,
    example: Example,
    times: Sequence[float],
    errors: OracleErrors,
    random: np.random.Generator,
) -> str:
    """Return whether the shape of the row is visible in one of the frames at these times; ``wrong_answer`` errs."""
    yes = any(scene is not None for scene in scenes_showing(script, _shape(script, example), times))
    if float(random.random()) < errors.wrong_answer:
        yes = not yes
    return f"<think>Looked at it.</think><answer>{'yes' if yes else 'no'}</answer>"


def _shape(script: WorldScript, example: Example) -> str:
    return question_of(script, example).event.shape


def _whole(start: float, end: float, last: int) -> tuple[int, int]:
    first = min(max(round(start), 0), last - 1)
    return first, min(max(round(end), first + 1), last)
