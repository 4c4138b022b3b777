"""Plays a stage with plain values: no video, no labeller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from timeloupe.data.build.steps import Ask, BoxCrop, Crop, Kit, Outcome, Plan, Reply, Skim, Step
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import View
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import FrameRef, Generation, Problem

SECONDS = 100.0
"""Length of the video that the stages believe to see."""


def kit(protocol: str = "openo3", **prompts: str) -> Kit:
    return Kit(PROTOCOLS[protocol], EpisodeSettings(), prompts, "tester", 1)


def view_of(step: Skim | Crop | BoxCrop, seconds: float = SECONDS) -> View | Problem:
    """What a video of so many seconds shows, ten frames a view."""
    kind, start, end = "skim", 0.0, seconds
    if isinstance(step, Crop):
        kind, start, end = "crop", step.segment.start_seconds, min(step.segment.end_seconds, seconds)
    if isinstance(step, BoxCrop):
        kind, start, end = "image", step.box.at_seconds, step.box.at_seconds
    if start >= seconds:
        return Problem(reason="beyond_end", message=f"{start:g} s lies behind the end")
    times = [start] if kind == "image" else np.linspace(start, end, 10, endpoint=False).tolist()
    ref = FrameRef.model_validate(
        {
            "video": "a.mp4", "view": kind, "start_seconds": start, "end_seconds": end, "at_seconds": times,
            "size_wh": (64, 64),
        }
    )  # fmt: skip
    return View(ref, np.zeros((len(times), 1, 1, 3), np.uint8))


def played(
    plan: Plan, reply: Callable[[Ask], str], kit: Kit, *, seconds: float = SECONDS, finish: Any = "stop"
) -> tuple[Outcome, list[Step]]:
    """The outcome of a stage and all that it did, with ``reply`` as the labeller."""
    steps: list[Step] = []
    brought: Any = None
    while True:
        try:
            step = plan.send(brought)
        except StopIteration as ended:
            return ended.value, steps
        steps.append(step)
        if isinstance(step, Ask):
            generation = Generation(text=reply(step), finish=finish)
            brought = Reply(generation, kit.read(generation, step.example))
        else:
            brought = view_of(step, seconds)


def asks(steps: list[Step], purpose: str = "") -> list[Ask]:
    return [step for step in steps if isinstance(step, Ask) and purpose in ("", step.purpose)]
