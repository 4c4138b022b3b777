"""Stages driven with plain values: no video is read and no model asked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from timeloupe.data.build.steps import Ask, BoxCrop, Crop, Kit, Outcome, Plan, Reply, Skim
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import View
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, FrameRef, Generation, Problem, Segment

DURATION = 200.0


def kit(**settings: object) -> Kit:
    return Kit(PROTOCOLS["videotemp"], EpisodeSettings.model_validate(settings), {}, "nobody", seed=0)


def choice(id: str = "c", **fields: object) -> Example:
    return Example.model_validate(
        {
            "id": id, "video": f"/v/{id}.mp4", "question": f"Which one, {id}?", "options": ("cat", "dog", "cow", "hen"),
            "answer": "B", "segments": (Segment(start_seconds=20, end_seconds=30),), "task": "multiple_choice",
        }
        | fields
    )  # fmt: skip


def moment(id: str = "m", **fields: object) -> Example:
    return Example.model_validate(
        {
            "id": id, "video": f"/v/{id}.mp4", "question": "When?", "task": "grounding",
            "segments": (Segment(start_seconds=20, end_seconds=30),),
        }
        | fields
    )  # fmt: skip


def look(*segments: tuple[float, float]) -> str:
    arguments = ", ".join(f'{{"start_time": {start}, "end_time": {end}}}' for start, end in segments)
    call = f'{{"name": "get_video_clip_frame", "arguments": [{arguments}]}}'
    return f"<think>Closer.</think><tool_call>{call}</tool_call>"


def answer(text: str) -> str:
    return f"<think>Seen.</think><answer>{text}</answer>"


def view(start: float = 0.0, end: float = DURATION, kind: str = "skim", video: str = "v.mp4") -> View:
    ref = FrameRef.model_validate(
        {"video": video, "view": kind, "start_seconds": start, "end_seconds": end, "at_seconds": (start,),
         "size_wh": (4, 4)}
    )  # fmt: skip
    return View(ref, np.zeros((1, 4, 4, 3), np.uint8))


def drive(
    plan: Plan, kit: Kit, reply: Callable[[Ask], str | Generation], duration: float = DURATION
) -> tuple[Outcome, list[Ask], list[Reply]]:
    """Return how a stage ended, what it asked, and the replies as it left them."""
    asks: list[Ask] = []
    replies: list[Reply] = []
    brought: object = None
    while True:
        try:
            step = plan.send(brought)
        except StopIteration as ended:
            return ended.value, asks, replies
        if isinstance(step, Ask):
            asks.append(step)
            said = reply(step)
            generation = said if isinstance(said, Generation) else Generation(text=said)
            replies.append(Reply(generation, kit.read(generation, step.example)))
            brought = replies[-1]
        elif isinstance(step, Skim):
            brought = view(end=duration)
        elif isinstance(step, Crop):
            start, end = step.segment.start_seconds, step.segment.end_seconds
            brought = Problem(reason="segment_beyond_end", message="behind the end") if start >= duration else (
                view(start, min(end, duration), "crop")
            )  # fmt: skip
        else:
            assert isinstance(step, BoxCrop)
            raise NotImplementedError("no stage that is tested here cuts boxes")
