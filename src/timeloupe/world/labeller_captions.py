"""What a world's oracle says where it is asked for dense captions of a window, from the frames that it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timeloupe.trajectory import Segment
from timeloupe.world.labeller import OracleErrors
from timeloupe.world.script import COLOURS, SHAPES, WorldScript


def caption_reply(
    script: WorldScript,
    window: Segment,
    times: Sequence[float],
    errors: OracleErrors,
    random: np.random.Generator,
) -> str:
    """Return a line ``From 5.3s to 8.1s, text`` for everything of the script that the frames show, in order.

    A caption begins halfway between the last frame without and the first frame with what it says, and ends likewise;
    where the first or last frame has it, at the end of the window.

    Args:
        script: The video.
        window: What is shown of it.
        times: Of the frames shown, seconds, ascending.
        errors: ``missed_caption``, ``invented_caption``, and ``boundary_seconds`` for ends inside the window.
        random: Draws the errors.
    """
    lines: list[tuple[float, float, str]] = []
    for segment, text in script.captions():
        inside = [segment.start_seconds <= time < segment.end_seconds for time in times]
        if not any(inside):
            continue
        missed = float(random.random()) < errors.missed_caption
        noise = random.normal(0.0, 1.0, 2) * errors.boundary_seconds
        invented = float(random.random()) < errors.invented_caption
        if not missed:
            lines.append((*_seen(window, times, inside, noise), text))
        if invented:
            lines.append(_invented(script, window, random))
    lines.sort(key=lambda line: (line[0], -line[1]))
    said = "\n".join(f"From {start:.1f}s to {end:.1f}s, {text}" for start, end, text in lines)
    return f"<think>Gone through {len(times)} frames.</think><answer>\n{said or 'none'}\n</answer>"


def _seen(
    window: Segment, times: Sequence[float], inside: Sequence[bool], noise: np.ndarray
) -> tuple[float, float]:
    first, last = inside.index(True), len(inside) - 1 - inside[::-1].index(True)
    start, end = window.start_seconds, window.end_seconds
    if first > 0:
        start = max(0.0, (times[first - 1] + times[first]) / 2 + float(noise[0]))
    if last < len(times) - 1:
        end = (times[last] + times[last + 1]) / 2 + float(noise[1])
    return start, max(end, start + 0.1)


def _invented(script: WorldScript, window: Segment, random: np.random.Generator) -> tuple[float, float, str]:
    """Return a caption that none of the script's is."""
    true = {text for _, text in script.captions()}
    ways = [f"A dark {shape} moves across the {colour} scene." for shape in SHAPES for colour in COLOURS]
    false = [text for text in ways if text not in true]
    start, end = sorted(random.uniform(window.start_seconds, window.end_seconds, 2).tolist())
    return start, max(end, start + 0.1), false[int(random.integers(len(false)))]
