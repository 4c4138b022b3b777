"""Imagined videos for the simulation of rewards: a question with its truth, and episodes over it without a video.

``sample_scene`` draws what is true; ``enact`` makes of a policy's replies the record that the episode loop would have
made of them: the same parser, the same messages, the same reasons to stop, with views that hold times and no pixels.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from timeloupe.prompt.build import LETTERS, first_messages, observation_message
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import Protocol
from timeloupe.trajectory import (
    Box,
    Example,
    FrameRef,
    Generation,
    Message,
    Problem,
    Segment,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
    Turn,
)
from timeloupe.video.sampling import crop_times, skim_times

FRAME_WH = (640, 360)
MAX_TURNS = 3
MAX_SEGMENTS_PER_CALL = 3
SKIM_FRAMES = 256
SHORTEST_VIDEO, LONGEST_VIDEO = 60.0, 1800.0
SHORTEST_EVENT, LONGEST_EVENT = 4.0, 60.0
NUM_OPTIONS = 4

_WHO = ("woman", "man", "child", "cook", "cyclist", "player", "teacher", "guard")
_DOES = ("lifts", "opens", "drops", "paints", "repairs", "carries", "throws", "cleans")
_WHAT = ("kettle", "window", "parcel", "bicycle", "ladder", "bottle", "mirror", "basket")
_WHERE = ("beside the door", "under the bridge", "in the kitchen", "near the fountain", "on the stairs")


@dataclass(frozen=True)
class Scene:
    """A question with its truth, and how long its video is. ``paraphrase`` says the true answer in other words."""

    example: Example
    duration_seconds: float
    paraphrase: str

    @property
    def skim_interval_seconds(self) -> float:
        """Distance of two frames of the first view."""
        return self.duration_seconds / len(skim_times(self.duration_seconds, fps=2.0, max_frames=SKIM_FRAMES))


def seeded(*key: object) -> random.Random:
    """Return a generator of its own for ``key``: the same everywhere, whatever else is drawn."""
    return random.Random(hashlib.sha256(repr(key).encode()).digest())


def sample_scene(task: Task, rng: random.Random, name: str) -> Scene:
    """Return a scene: a video of 1 to 30 minutes and events of 4 to 60 s, both spread evenly on a log scale.

    A multi-segment question has 2 or 3 events, any other one; ``what_when_where`` has a box of the object at three
    moments of the event.
    """
    duration = _log_uniform(rng, SHORTEST_VIDEO, LONGEST_VIDEO)
    count = rng.randint(2, 3) if task == "multi_segment" else 1
    cell = duration / count
    segments = tuple(_segment_within(rng, index * cell, (index + 1) * cell) for index in range(count))
    choice = task == "multiple_choice"
    words = [_sentence(rng) for _ in range(NUM_OPTIONS)]
    while len({said for said, _ in words}) < NUM_OPTIONS:
        words = [_sentence(rng) for _ in range(NUM_OPTIONS)]
    truth = rng.randrange(NUM_OPTIONS)
    answer = LETTERS[truth] if choice else words[truth][0]
    example = Example(
        id=name, video="imagined.mp4", question="What happens here?", task=task, segments=segments,
        options=tuple(said for said, _ in words) if choice else (),
        answer=None if task in ("grounding", "multi_segment") else answer,
        boxes=_boxes(rng, segments[0]) if task == "what_when_where" else (),
        source="simulation",
    )  # fmt: skip
    return Scene(example, duration, words[truth][1])


def random_segment(rng: random.Random, duration_seconds: float) -> Segment:
    """Return a segment as long as events are, anywhere in the video."""
    return _segment_within(rng, 0.0, duration_seconds)


def other_sentence(rng: random.Random, scene: Scene) -> str:
    """Return an answer in words that is not the true one."""
    while (said := _sentence(rng)[0]) == scene.example.answer:
        pass
    return said


def enact(
    scene: Scene,
    replies: Sequence[str],
    protocol: Protocol,
    *,
    tools: bool,
    policy: str,
    seed: int,
    prompt: tuple[Message, ...] | None = None,
) -> Trajectory:
    """Return the episode that these replies make, turn by turn, as ``environment.rollout.play`` would record it.

    Args:
        scene: What is asked.
        replies: The text of each turn; those after the end of the episode are not used.
        protocol: How the replies are read.
        tools: Whether the model may look closer; without, there is one turn.
        policy: Its name in the record.
        seed: Root seed of the simulation.
        prompt: ``prompt_of`` the same scene, where it is at hand.

    Raises:
        ValueError: The replies run out before the episode ends.
    """
    num_turns = MAX_TURNS if tools else 1
    turns: list[Turn] = []
    stop: StopReason | None = None
    problem: Problem | None = None
    for text in replies[:num_turns]:
        generation = Generation(text=text)
        parsed = parse_reply(text, protocol, num_options=len(scene.example.options), closed=False)
        if parsed.call is not None and len(turns) + 1 < num_turns:
            turns.append(
                _observe(
                    scene, Turn(generation=generation, thought=parsed.thought, call=parsed.call), protocol
                )
            )
            continue
        problem = parsed.problem
        ended = StopReason.ANSWERED if parsed.answer is not None else StopReason.FORMAT
        stop = StopReason.MAX_TURNS if parsed.call is not None else ended
        turns.append(
            Turn(
                generation=generation, thought=parsed.thought, call=parsed.call, answer=parsed.answer, problem=problem
            )
        )  # fmt: skip
        break
    if stop is None:
        raise ValueError(f"policy {policy!r} has {len(replies)} replies, and the episode goes on after them")
    return Trajectory(
        example=scene.example, policy=policy, protocol=protocol.name, seed=seed, turns=tuple(turns), stop=stop,
        prompt=prompt_of(scene, protocol, tools=tools) if prompt is None else prompt, problem=problem,
    )  # fmt: skip


def prompt_of(scene: Scene, protocol: Protocol, *, tools: bool) -> tuple[Message, ...]:
    """Return the first messages: the whole video at 2 frames a second, at most 256, and the question."""
    times = skim_times(scene.duration_seconds, fps=2.0, max_frames=SKIM_FRAMES)
    skim = FrameRef(
        video=scene.example.video, view="skim", start_seconds=0.0, end_seconds=scene.duration_seconds,
        at_seconds=times, size_wh=FRAME_WH,
    )  # fmt: skip
    return first_messages(scene.example, skim, protocol, tools=tools)


def _observe(scene: Scene, turn: Turn, protocol: Protocol) -> Turn:
    """Add what comes back after a call."""
    assert turn.call is not None
    crops, problems = _cut(scene, turn.call)
    errors = [problem.message for problem in problems]
    observation = observation_message(crops, errors, protocol, scene.example)
    return turn.model_copy(
        update={"observation": observation, "problem": problems[0] if problems else None}
    )  # fmt: skip


def _cut(scene: Scene, call: ToolCall) -> tuple[list[FrameRef], list[Problem]]:
    if len(call.segments) > MAX_SEGMENTS_PER_CALL:
        message = f"{len(call.segments)} segments in one call, allowed are at most {MAX_SEGMENTS_PER_CALL}"
        return [], [Problem(reason="too_many_segments", message=message)]
    crops: list[FrameRef] = []
    problems: list[Problem] = []
    for segment in call.segments:
        start, end = segment.start_seconds, min(segment.end_seconds, scene.duration_seconds)
        if start >= scene.duration_seconds:
            message = f"[{start:g}, {segment.end_seconds:g}] lies behind the end of the video"
            problems.append(Problem(reason="segment_beyond_end", message=message))
            continue
        times = crop_times(start, end, fps=2.0, min_frames=4, max_frames=64)
        crops.append(
            FrameRef(
                video=scene.example.video, view="crop", start_seconds=start, end_seconds=end,
                at_seconds=times, size_wh=FRAME_WH,
            )
        )  # fmt: skip
    return crops, problems


def _segment_within(rng: random.Random, low: float, high: float) -> Segment:
    # At most a quarter: there is always room beside the events for one that misses them.
    length = min(_log_uniform(rng, SHORTEST_EVENT, LONGEST_EVENT), 0.25 * (high - low))
    start = rng.uniform(low, high - length)
    # Labels come with two decimals at most.
    return Segment(start_seconds=round(start, 2), end_seconds=round(start + length, 2))


def _boxes(rng: random.Random, segment: Segment) -> tuple[Box, ...]:
    """A box that drifts, at three moments of the event."""
    label = rng.choice(_WHAT)
    width, height = rng.uniform(0.1, 0.35), rng.uniform(0.15, 0.45)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    boxes: list[Box] = []
    for share in (0.2, 0.5, 0.8):
        x = min(max(x + rng.gauss(0, 0.05), 0.0), 1 - width)
        at = round(segment.start_seconds + share * segment.length_seconds, 1)
        boxes.append(Box(at_seconds=at, x1=x, y1=y, x2=x + width, y2=y + height, label=label))
    return tuple(boxes)


def _sentence(rng: random.Random) -> tuple[str, str]:
    """Return a sentence and the same in other words."""
    who, does, what, where = (rng.choice(words) for words in (_WHO, _DOES, _WHAT, _WHERE))
    return f"A {who} {does} the {what} {where}.", f"The {who} {where} {does} a {what}."


def _log_uniform(rng: random.Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))
