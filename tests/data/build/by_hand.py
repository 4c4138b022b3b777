"""Drives a stage with plain values: views made by hand, replies told or computed. No video, no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from timeloupe.data.build.steps import Ask, BoxCrop, Crop, Kit, Outcome, Plan, Reply, Skim, Step
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import View
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, FrameRef, Generation, Problem, Segment

SECONDS = 200.0
SIZE_WH = (32, 32)

CHOICE = Example(
    id="choice", video="v.mp4", question="Which colour?", options=("red", "green", "blue"), answer="B",
    segments=(Segment(start_seconds=100, end_seconds=110),), task="multiple_choice",
)  # fmt: skip
MOMENT = Example(
    id="moment", video="v.mp4", question="When?", segments=(Segment(start_seconds=100, end_seconds=110),),
    task="grounding",
)  # fmt: skip
FREE = Example(id="free", video="v.mp4", question="What?", answer="a red ball rolls by", task="open")


def kit(protocol: str = "videotemp", prompts: Mapping[str, str] | None = None, **settings: object) -> Kit:
    """Return what the stages get."""
    return Kit(PROTOCOLS[protocol], EpisodeSettings(**settings), prompts or {}, "by-hand", 5)  # type: ignore[arg-type]


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


def view(kind: str, start: float, end: float, frames: int = 10) -> View:
    """Return a view of grey frames at even distances, the first at its start."""
    times = tuple(start + (end - start) * number / frames for number in range(frames))
    ref = FrameRef.model_validate(
        {"video": "v.mp4", "view": kind, "start_seconds": start, "end_seconds": end, "at_seconds": times,
         "size_wh": SIZE_WH}
    )  # fmt: skip
    return View(ref, np.full((frames, SIZE_WH[1], SIZE_WH[0], 3), 128, np.uint8))


def think(words: str) -> str:
    """Return a reply that ends with an answer."""
    return f"<think>so it is</think><answer>{words}</answer>"


def look(*spans: tuple[float, float], thought: str = "look there") -> str:
    """Return a reply that calls the tool."""
    found = ",".join(f'{{"start_time":{start},"end_time":{end}}}' for start, end in spans)
    call = f'{{"name":"get_video_clip_frame","arguments":[{found}]}}'
    return f"<think>{thought}</think><tool_call>{call}</tool_call>"


@dataclass
class Played:
    """What a stage did."""

    outcome: Outcome
    steps: list[Step] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    @property
    def asks(self) -> list[Ask]:
        """What it asked."""
        return [step for step in self.steps if isinstance(step, Ask)]

    @property
    def asked(self) -> list[str]:
        """What it asked for, in order."""
        return [one.purpose for one in self.asks]


def drive(
    plan: Plan,
    replies: Sequence[str] | Callable[[Ask], str | Generation],
    kit: Kit,
    seconds: float = SECONDS,
    finish: Any = "stop",
) -> Played:
    """Play a stage to its end, on a video of so many seconds; replies that are listed must all be used up."""
    left = [] if callable(replies) else list(replies)
    played = Played(Outcome(False, "unfinished"))
    brought: object = None
    while True:
        try:
            step: Step = plan.send(brought)
        except StopIteration as ended:
            assert not left, f"the stage did not ask for {left}"
            played.outcome = ended.value
            return played
        played.steps.append(step)
        if isinstance(step, Ask):
            check_views(step)
            said = replies(step) if callable(replies) else left.pop(0)
            generation = said if isinstance(said, Generation) else Generation(text=said, finish=finish)
            brought = Reply(generation, kit.read(generation, step.example))
            played.replies.append(brought)
        else:
            brought = view_of(step, seconds)


def driven(
    plan: Plan, kit: Kit, reply: Callable[[Ask], str | Generation]
) -> tuple[Outcome, list[Ask], list[Reply]]:
    """Return how a stage ended, what it asked, and the replies as it left them."""
    found = drive(plan, reply, kit)
    return found.outcome, found.asks, found.replies


def played(
    plan: Plan, reply: Callable[[Ask], str], kit: Kit, *, seconds: float = 100.0, finish: Any = "stop"
) -> tuple[Outcome, list[Step]]:
    """Return the outcome of a stage and all that it did, on a shorter video."""
    found = drive(plan, reply, kit, seconds, finish)
    return found.outcome, found.steps


def asks(steps: Sequence[Step], purpose: str = "") -> list[Ask]:
    """Return what was asked, for this purpose or for any."""
    return [step for step in steps if isinstance(step, Ask) and purpose in ("", step.purpose)]


def view_of(step: Skim | Crop | BoxCrop, seconds: float) -> View | Problem:
    """Return what a video of so many seconds shows: ten frames of the whole or of a part, or one."""
    if isinstance(step, Skim):
        return view("skim", 0.0, seconds)
    if isinstance(step, BoxCrop):
        start = end = step.box.at_seconds
    else:
        start, end = step.segment.start_seconds, min(step.segment.end_seconds, seconds)
    if start >= seconds:
        return Problem(reason="segment_beyond_end", message="it lies behind the end")
    return view("image", start, end, 1) if isinstance(step, BoxCrop) else view("crop", start, end)


def check_views(ask: Ask) -> None:
    """Fail unless the views of a question are those of its messages, in order, and its replies those of the chat."""
    refs = [ref for message in ask.messages for ref in message.frame_refs]
    assert refs == [one.ref for one in ask.views]
    said = [message.text for message in ask.messages if message.role == "assistant"]
    assert said == [one.text for one in ask.generations]
