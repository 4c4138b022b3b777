"""A small run made by hand: a drawn MP4 and episodes of every kind over it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image, ImageDraw

from timeloupe.trajectory import (
    Answer,
    Box,
    Example,
    FrameRef,
    Generation,
    Message,
    Problem,
    Score,
    Segment,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    Turn,
    Usage,
    to_line,
)

HOSTILE = "</script><img src=x onerror=alert(1)><!-- & ]]> \u2028 \u202e {{data}} \\u003c"
"""Text that breaks pages that are careless with it."""

WORDS = [
    ("The person sets a cup on the table.", "multiple_choice"),
    ("When does the cyclist cross the bridge?", "grounding"),
]


def draw_video(
    path: Path, seconds: int = 60, size_wh: tuple[int, int] = (160, 90), fps: int = 2, start: int = 0
) -> Path:
    """Write a video whose ground drifts through the hues while a disc crosses it; a square shows in the third fifth.

    Its clock begins at ``start`` seconds.
    """
    width, height = size_wh
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "threads": "1", "crf": "24", "g": str(4 * fps)}
        for index in range(seconds * fps):
            part = index / (seconds * fps)
            ground = tuple(int(110 + 70 * np.sin(6.3 * (part + shift))) for shift in (0, 0.33, 0.66))
            image = Image.new("RGB", size_wh, ground)
            pen = ImageDraw.Draw(image)
            pen.rectangle((0, height * 0.72, width, height), fill=tuple(int(c * 0.7) for c in ground))
            x, y, r = width * (0.1 + 0.8 * (part * 7 % 1)), height * 0.55, height * 0.16
            pen.ellipse((x - r, y - r, x + r, y + r), fill=(245, 240, 225))
            if 0.4 <= part < 0.6:
                pen.rectangle(
                    (width * 0.4, height * 0.1, width * 0.4 + r * 2, height * 0.1 + r * 2), fill=(40, 44, 60)
                )
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.pts, frame.time_base = start * fps + index, Fraction(1, fps)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def span(start: float, end: float) -> Segment:
    return Segment(start_seconds=start, end_seconds=end)


def frames(
    video: str, view: Literal["skim", "crop"], start: float, end: float, count: int, fps: float = 2.0
) -> FrameRef:
    """A view of ``count`` frames at the centres of equal cells, at times that frames are presented at."""
    centres = [start + (i + 0.5) * (end - start) / count for i in range(count)]
    at = sorted({int(centre * fps) / fps for centre in centres})
    return FrameRef(
        video=video, view=view, start_seconds=start, end_seconds=end, at_seconds=tuple(at), size_wh=(320, 180)
    )


def look_twice(video: str, seconds: float, name: str = "q1") -> Trajectory:
    """Multiple choice, answered right after two looks, the second at two segments."""
    example = Example(
        id=name,
        video=video,
        question="Which small shape appears above the ground while the disc makes its fourth way across, and where?",
        options=(
            "A ring near the right edge",
            "A triangle in the middle",
            "A dark square, a little left",
            "Nothing new",
        ),
        answer="C",
        segments=(span(0.43 * seconds, 0.47 * seconds),),
        task="multiple_choice",
        source="fixture",
    )
    skim = frames(video, "skim", 0, seconds, 48)
    first, second, third = (0.35, 0.55), (0.42, 0.48), (0.58, 0.61)
    crop = frames(video, "crop", first[0] * seconds, first[1] * seconds, 16)
    turns = (
        Turn(
            generation=Generation(
                text=f"<think>The skim hints at a dark spot past the middle.</think><crop>[{first[0] * seconds}, "
                f"{first[1] * seconds}]</crop>",
                usage=Usage(prompt_tokens=4210, completion_tokens=61),
                seconds=1.9,
            ),
            thought="The skim hints at a dark spot somewhere past the middle, but one frame every half minute cannot "
            "say what it is. I look at that part more closely.",
            call=ToolCall(name="crop_video", segments=(span(first[0] * seconds, first[1] * seconds),)),
            observation=Message(role="user", parts=(Text(text="Here is the segment."), crop)),
            seconds=2.4,
        ),
        Turn(
            generation=Generation(
                text="<think>There.</think><crop>two segments</crop>",
                usage=Usage(prompt_tokens=5630, completion_tokens=48),
                seconds=1.2,
            ),
            thought="There it is, and again later for a moment. Both deserve a closer look.",
            call=ToolCall(
                name="crop_video",
                segments=(
                    span(second[0] * seconds, second[1] * seconds),
                    span(third[0] * seconds, third[1] * seconds),
                ),
            ),
            observation=Message(
                role="user",
                parts=(
                    Text(text="Segment 1"),
                    frames(video, "crop", second[0] * seconds, second[1] * seconds, 12),
                    Text(text="Segment 2"),
                    frames(video, "crop", third[0] * seconds, third[1] * seconds, 8),
                ),
            ),
            seconds=1.6,
        ),
        Turn(
            generation=Generation(
                text=f"<think>A dark square.</think><answer>C {0.425 * seconds}-{0.475 * seconds}</answer>",
                usage=Usage(prompt_tokens=6480, completion_tokens=35),
                seconds=0.8,
            ),
            thought="A dark square stands a little left of the middle while the disc passes.",
            answer=Answer(text="C", option="C", segments=(span(0.425 * seconds, 0.475 * seconds),)),
            seconds=0.8,
        ),
    )
    return Trajectory(
        example=example,
        policy="scripted",
        protocol="videotemp",
        seed=7,
        prompt=(
            Message(role="system", parts=(Text(text="You may look closer."),)),
            Message(role="user", parts=(skim, Text(text=example.question))),
        ),
        turns=turns,
        stop=StopReason.ANSWERED,
        score=Score(
            parts={"accuracy": 1.0, "temporal": 0.8, "judge": None},
            reasons={"judge": "no judge was configured"},
        ),
        frames_decoded=412,
        seconds=5.1,
        settings={"max_turns": 3, "skim_frames": 48, "tools": True},
    )


def single_pass(video: str, seconds: float, name: str = "q2", *, hit: bool = False) -> Trajectory:
    """Grounding in one turn, off the mark unless ``hit``."""
    shift = 0.0 if hit else 0.3
    found = span((0.2 + shift) * seconds, (0.3 + shift) * seconds)
    example = Example(
        id=name,
        video=video,
        question="When does the disc make its second way across?",
        segments=(span(0.2 * seconds, 0.31 * seconds),),
        task="grounding",
    )
    return Trajectory(
        example=example,
        policy="small",
        protocol="small",
        prompt=(
            Message(role="user", parts=(frames(video, "skim", 0, seconds, 24), Text(text=example.question))),
        ),
        turns=(
            Turn(
                generation=Generation(text=f"<answer>{found.start_seconds} - {found.end_seconds}</answer>"),
                answer=Answer(text=f"{found.start_seconds} - {found.end_seconds}", segments=(found,)),
                seconds=0.3,
            ),
        ),
        stop=StopReason.ANSWERED,
        seconds=0.4,
        settings={"tools": False},
    )


def unreadable(video: str, seconds: float, name: str = "q3") -> Trajectory:
    """A reply that cannot be read, with text that attacks the page."""
    example = Example(
        id=name, video=video, question=f"What is written? {HOSTILE}", options=(HOSTILE, "nothing"), answer="B"
    )
    problem = Problem(reason="no_tag", message=f"the reply has no tag: {HOSTILE}")
    return Trajectory(
        example=example.model_copy(update={"task": "multiple_choice"}),
        policy=HOSTILE,
        protocol="videotemp",
        prompt=(Message(role="user", parts=(frames(video, "skim", 0, seconds, 8), Text(text=HOSTILE))),),
        turns=(Turn(generation=Generation(text=HOSTILE, finish="length"), thought=HOSTILE, problem=problem),),
        stop=StopReason.FORMAT,
        problem=problem,
        score=Score(parts={HOSTILE: None}, reasons={HOSTILE: HOSTILE}),
        settings={HOSTILE: HOSTILE},
    )


def with_boxes(video: str, seconds: float, name: str = "boxes", shift: float = 0.0) -> Trajectory:
    """What, when and where: two true boxes, and one named box that lies off by ``shift`` of the frame."""
    first, second = 0.45 * seconds, 0.5 * seconds
    true = (
        Box(at_seconds=first, x1=0.4, y1=0.1, x2=0.58, y2=0.42, label="square"),
        Box(at_seconds=second, x1=0.4, y1=0.1, x2=0.58, y2=0.42, label="square"),
    )
    example = Example(
        id=name,
        video=video,
        question="What appears, when, and where?",
        answer="a dark square",
        segments=(span(0.4 * seconds, 0.6 * seconds),),
        boxes=true,
        task="what_when_where",
    )
    box = Box(at_seconds=first, x1=0.38 + shift, y1=0.12, x2=0.55 + shift, y2=0.4, label=f"square {HOSTILE}")
    answer = Answer(text="a square", segments=(span(0.42 * seconds, 0.58 * seconds),), boxes=(box,))
    return Trajectory(
        example=example,
        policy="scripted",
        protocol="openo3",
        prompt=(
            Message(role="user", parts=(frames(video, "skim", 0, seconds, 16), Text(text=example.question))),
        ),
        turns=(Turn(generation=Generation(text="<answer>a square</answer>"), answer=answer, seconds=0.2),),
        stop=StopReason.ANSWERED,
        score=Score(parts={"accuracy": 1.0, "spatial": 0.61 - shift}),
        seconds=0.3,
    )


def dead_server(video: str, name: str = "q4") -> Trajectory:
    """The machine's fault before the first turn: no views, no turns, no truth."""
    return Trajectory(
        example=Example(id=name, video=video, question="What happens in the end?"),
        policy="remote",
        protocol="museg",
        stop=StopReason.INFRASTRUCTURE,
        problem=Problem(reason="policy", message="the server did not answer within 60 s"),
    )


def every_kind(video: str, seconds: float) -> list[Trajectory]:
    """One episode of each kind, then enough others for filters to show."""
    first = [
        look_twice(video, seconds),
        single_pass(video, seconds),
        unreadable(video, seconds),
        dead_server(video),
    ]
    return first + [single_pass(video, seconds, f"q{number}", hit=number % 3 > 0) for number in range(5, 13)]


def write_run(folder: Path, trajectories: list[Trajectory]) -> Path:
    """Write a run folder by hand and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(to_line(trajectory) + "\n" for trajectory in trajectories)
    (folder / "trajectories.jsonl").write_text(lines, encoding="utf-8")
    return folder


def many(video: str, seconds: float, number: int) -> list[Trajectory]:
    """Episodes that differ in id, question, overlap, score and cost."""
    made = []
    for index in range(number):
        one = single_pass(video, seconds, f"item-{index}", hit=index % 3 > 0)
        example = one.example.model_copy(update={"question": f"Question {index}: when is way {index % 7}?"})
        usage = Usage(prompt_tokens=1000 + index, completion_tokens=10)
        turn = one.turns[0].model_copy(
            update={"generation": one.turns[0].generation.model_copy(update={"usage": usage})}
        )
        score = Score(parts={"tiou": (index * 37 % 100) / 100})
        made.append(
            one.model_copy(
                update={"example": example, "turns": (turn,), "score": score, "seconds": 1 + index % 50}
            )
        )
    return made
