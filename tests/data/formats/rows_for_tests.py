"""Questions and episodes as formats are made for them, with something in every field that an episode can have."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

from timeloupe.data.formats.row import Context, View
from timeloupe.errors import RecordError
from timeloupe.prompt.build import first_messages, observation_message, write_call, write_segments
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import (
    Box,
    Example,
    FrameRef,
    Generation,
    Problem,
    Score,
    Segment,
    StopReason,
    Task,
    Trajectory,
    Turn,
    Usage,
)

PROTOCOL = PROTOCOLS["videotemp"]
TASKS: tuple[Task, ...] = ("multiple_choice", "grounding", "multi_segment", "what_when_where", "open")

words = st.text(string.ascii_lowercase + "éß", min_size=1, max_size=8)
sentences = st.lists(words, min_size=2, max_size=5).map(" ".join)
hundredths = st.integers(0, 600_00).map(lambda number: number / 100)
fractions = st.integers(0, 1000).map(lambda number: number / 1000)


def no_frames(view: View) -> FrameRef:
    """For formats that must not need the video."""
    raise RecordError(f"field 'videos': nobody looks at {view.video!r} here")


def context(protocol: str = "videotemp") -> Context:
    """Reading and writing without videos."""
    return Context(PROTOCOLS[protocol], no_frames)


@st.composite
def spans(draw: st.DrawFn, count: int) -> tuple[Segment, ...]:
    times = sorted(draw(st.lists(hundredths, min_size=2 * count, max_size=2 * count, unique=True)))
    return tuple(
        Segment(start_seconds=a, end_seconds=b) for a, b in zip(times[::2], times[1::2], strict=True)
    )


@st.composite
def evidence(draw: st.DrawFn) -> tuple[Box, ...]:
    found = []
    for _ in range(draw(st.integers(1, 3))):
        xs, ys = (sorted(draw(st.lists(fractions, min_size=2, max_size=2, unique=True))) for _ in range(2))
        at, label = draw(hundredths), draw(words)
        found.append(Box(at_seconds=at, x1=xs[0], x2=xs[1], y1=ys[0], y2=ys[1], label=label))
    return tuple(found)


@st.composite
def questions(draw: st.DrawFn, tasks: tuple[Task, ...] = TASKS) -> Example:
    """A question of one of the tasks, complete as that task has it."""
    task = draw(st.sampled_from(tasks))
    fields: dict[str, Any] = {
        "id": f"q-{draw(words)}", "video": f"videos/{draw(words)}.mp4", "question": f"{draw(sentences)}?",
        "task": task, "source": draw(words), "segments": draw(spans(1)),
    }  # fmt: skip
    if task == "multiple_choice":
        options = draw(st.lists(sentences, min_size=2, max_size=5, unique=True))
        fields |= {
            "options": tuple(options),
            "answer": string.ascii_uppercase[draw(st.integers(0, len(options) - 1))],
        }
    elif task == "multi_segment":
        fields["segments"] = draw(spans(draw(st.integers(2, 3))))
    elif task == "what_when_where":
        fields |= {"answer": draw(sentences), "boxes": draw(evidence())}
    elif task == "open":
        fields["answer"] = draw(sentences)
    return Example.model_validate(fields)


def frames(video: str, view: str, start: float, end: float, count: int) -> FrameRef:
    """Frames at the centres of equal cells."""
    cell = (end - start) / count
    return FrameRef.model_validate(
        {
            "video": video, "view": view, "start_seconds": start, "end_seconds": end, "size_wh": (64, 32),
            "at_seconds": [start + cell * (number + 0.5) for number in range(count)],
        }
    )  # fmt: skip


@st.composite
def episodes(draw: st.DrawFn, tasks: tuple[Task, ...] = TASKS, max_calls: int = 2) -> Trajectory:
    """An episode that looked, answered, was scored, and recorded all there is to record."""
    example = draw(questions(tasks))
    skim = frames(example.video, "skim", 0.0, 601.0, 4)
    turns: list[Turn] = []
    for _ in range(draw(st.integers(min(1, max_calls), max_calls))):
        asked = draw(spans(1))
        text = f"<think>{draw(sentences)}</think>{write_call(asked, PROTOCOL)}"
        crops = [frames(example.video, "crop", one.start_seconds, one.end_seconds, 2) for one in asked]
        turns.append(draw(played(text, example, observation_message(crops, (), PROTOCOL, example))))
    said = example.answer or write_segments(example.segments, PROTOCOL)
    turns.append(draw(played(f"<think>{draw(sentences)}</think><answer>{said}</answer>", example, None)))
    return Trajectory(
        example=example, policy=draw(words), protocol="videotemp", seed=draw(st.integers(1, 9)),
        rollout_index=draw(st.integers(1, 9)), prompt=first_messages(example, skim, PROTOCOL, tools=True),
        turns=tuple(turns), stop=StopReason.ANSWERED, problem=Problem(reason="note", message=draw(words)),
        score=Score(parts={"accuracy": 1.0}), frames_decoded=draw(st.integers(1, 99)),
        frames_cached=draw(st.integers(1, 99)), seconds=1.5, settings={"skim_fps": 2.0},
    )  # fmt: skip


@st.composite
def played(draw: st.DrawFn, text: str, example: Example, observation: Any) -> Turn:
    read = parse_reply(text, PROTOCOL, num_options=len(example.options))
    generation = Generation(
        text=text, finish="length", usage=Usage(prompt_tokens=draw(st.integers(1, 99))),
        token_ids=(1, 2), logprobs=(-0.5, -0.25), error=draw(words), seconds=0.5,
    )  # fmt: skip
    return Turn(
        generation=generation, thought=read.thought, call=read.call, answer=read.answer, problem=read.problem,
        observation=observation, seconds=0.75,
    )  # fmt: skip
