"""Episodes written by hand, as the environment would record them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import (
    Example,
    FrameRef,
    Generation,
    Message,
    Segment,
    StopReason,
    Text,
    Trajectory,
    Turn,
)

DURATION = 100.0


def question(**changes: Any) -> Example:
    """A question of three options about [10, 20) of a video, its answer C."""
    known: dict[str, Any] = {
        "id": "q", "video": "v.mp4", "question": "Which?", "options": ("a cat", "a dog", "an owl"), "answer": "C",
        "segments": spans((10, 20)), "task": "multiple_choice",
    }  # fmt: skip
    return Example(**(known | changes))


def grounding(**changes: Any) -> Example:
    """A question of when, true in [10, 20)."""
    return question(**({"options": (), "answer": None, "task": "grounding"} | changes))


def spans(*pairs: tuple[float, float]) -> tuple[Segment, ...]:
    return tuple(Segment(start_seconds=start, end_seconds=end) for start, end in pairs)


def call(*pairs: tuple[float, float]) -> str:
    """A reply that asks for these spans."""
    arguments = [{"start_time": start, "end_time": end} for start, end in pairs]
    inside = json.dumps({"name": "get_video_clip_frame", "arguments": arguments})
    return f"<think>look</think><tool_call>{inside}</tool_call>"


def answer(text: str, thought: str = "seen") -> str:
    return f"<think>{thought}</think><answer>{text}</answer>"


def episode(
    example: Example,
    replies: Sequence[str],
    *,
    protocol: str = "videotemp",
    finish: str = "stop",
    size_wh: tuple[int, int] = (448, 252),
) -> Trajectory:
    """The record of an episode with these replies; each call but the last turn's is shown, clamped to 100 s."""
    turns: list[Turn] = []
    stop = StopReason.MAX_TURNS
    for at, text in enumerate(replies):
        last = at + 1 == len(replies)
        generation = Generation(text=text, finish=finish if last else "stop")  # type: ignore[arg-type]
        parsed = parse_reply(
            text, PROTOCOLS[protocol], num_options=len(example.options), closed=False, frame_size_wh=size_wh
        )
        seen = None
        if not last:
            asked = parsed.call.segments if parsed.call else ()
            crops = [_crop(span) for span in asked if span.start_seconds < DURATION]
            seen = Message(role="user", parts=(*crops, Text(text="here")))
        turns.append(
            Turn(
                generation=generation, thought=parsed.thought, call=parsed.call, answer=parsed.answer,
                problem=parsed.problem, observation=seen,
            )
        )  # fmt: skip
        if parsed.answer:
            stop = StopReason.ANSWERED
        elif parsed.problem:
            stop = StopReason.FORMAT
    skim = FrameRef(
        video="v.mp4",
        view="skim",
        start_seconds=0,
        end_seconds=DURATION,
        at_seconds=(0.0, 50.0),
        size_wh=size_wh,
    )
    prompt = (Message(role="user", parts=(skim, Text(text=example.question))),)
    return Trajectory(
        example=example, policy="hand", protocol=protocol, prompt=prompt, turns=tuple(turns), stop=stop
    )


def broken(example: Example) -> Trajectory:
    """An episode that the machine ended."""
    return Trajectory(example=example, policy="hand", protocol="videotemp", stop=StopReason.INFRASTRUCTURE)


def _crop(span: Segment) -> FrameRef:
    end = min(span.end_seconds, DURATION)
    return FrameRef(
        video="v.mp4", view="crop", start_seconds=span.start_seconds, end_seconds=end,
        at_seconds=(span.start_seconds,), size_wh=(448, 252),
    )  # fmt: skip
