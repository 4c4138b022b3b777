"""Drives a stage with plain values: views made by hand, replies from a table. No video, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from timeloupe.data.build.steps import Ask, Crop, Kit, Outcome, Plan, Reply, Skim, Step
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


def view(kind: str, start: float, end: float, frames: int = 4) -> View:
    """Return a view of grey frames."""
    times = tuple(start + (end - start) * (number + 0.5) / frames for number in range(frames))
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


def drive(plan: Plan, replies: Sequence[str], kit: Kit, seconds: float = SECONDS) -> Played:
    """Play a stage to its end; all replies must be used up."""
    left = list(replies)
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
        if isinstance(step, Skim):
            brought = view("skim", 0.0, seconds)
        elif isinstance(step, Crop):
            brought = cut(step.segment, seconds)
        else:
            assert isinstance(step, Ask)
            check_views(step)
            generation = Generation(text=left.pop(0))
            brought = Reply(generation, kit.read(generation, step.example))
            played.replies.append(brought)


def cut(segment: Segment, seconds: float) -> View | Problem:
    """Return a crop, or why there is none."""
    if segment.start_seconds >= seconds:
        return Problem(reason="segment_beyond_end", message="it lies behind the end")
    return view("crop", segment.start_seconds, min(segment.end_seconds, seconds))


def check_views(ask: Ask) -> None:
    """Fail unless the views of a question are those of its messages, in order, and its replies those of the chat."""
    refs = [ref for message in ask.messages for ref in message.frame_refs]
    assert refs == [one.ref for one in ask.views]
    said = [message.text for message in ask.messages if message.role == "assistant"]
    assert said == [one.text for one in ask.generations]
