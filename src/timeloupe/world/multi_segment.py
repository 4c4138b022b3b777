"""Questions that ask for every moment, and the teacher that answers them.

Like ``teacher.Teacher`` it knows of a view only what its frames show, but it remembers all views: its answer brackets,
for each stretch of neighbouring frames that show the shape in one scene, the last frame before and the first frame
after among all the frames it has been shown. Two scenes have two backgrounds, so a shape that leaves one scene with
the last frame and enters the next with the first is seen to be there twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from timeloupe.trajectory import Example, Segment
from timeloupe.world.script import SHAPES, WorldScript
from timeloupe.world.teacher import (
    VISIBLE_FRAMES_TO_ANSWER,
    Teacher,
    Voice,
    bracket,
    question_of,
    tool_call_text,
    whole_seconds,
)

SEGMENTS_PER_CALL = 3
"""Segments of one call at most, as ``EpisodeSettings.max_segments_per_call`` has it by default."""


def shapes_by_count(script: WorldScript) -> list[str]:
    """Return the shapes of a video, the one with most events first."""
    counts = {shape: len(segments_of(script, shape)) for shape in SHAPES}
    return sorted((shape for shape in SHAPES if counts[shape]), key=lambda shape: -counts[shape])


def segments_of(script: WorldScript, shape: str) -> tuple[Segment, ...]:
    """Return when a shape is visible, in order."""
    return tuple(event.segment for event in script.events if event.shape == shape)


def every_time_example(script: WorldScript, shape: str, *, id: str, video: str) -> Example:
    """Return the dataset row that asks for every time at which a shape is visible."""
    return Example(
        id=id, video=video, question=f"List every time at which a {shape} is visible.",
        segments=segments_of(script, shape), task="multi_segment", source="world",
    )  # fmt: skip


def scenes_showing(script: WorldScript, shape: str, times: Sequence[float]) -> list[int | None]:
    """Return for each frame the scene in which it shows the shape, or ``None`` where it does not."""
    seen: list[int | None] = []
    for time in times:
        event = script.event_at(time)
        seen.append(event.scene_index if event is not None and event.shape == shape else None)
    return seen


class EveryTimeTeacher:
    """Replies to "when is this shape visible, every time" from views given as lists of frame times."""

    def __init__(self, script: WorldScript, shape: str, voice: Voice | None = None) -> None:
        self.script = script
        self.shape = shape
        self.voice = voice or Voice()

    def reply(
        self,
        views: Sequence[Sequence[float]],
        *,
        tools: bool,
        must_answer: bool = False,
        unseen_letter: str | None = None,
    ) -> str:
        """Return the reply after having seen ``views`` (the skim first, then crops).

        It asks for the stretches that few frames show, ``SEGMENTS_PER_CALL`` at a time, then answers with all of them.
        Where nothing is seen it asks once for the whole of the video in parts.

        Args:
            views: Frame times of each view, in seconds, ascending.
            tools: Whether looking closer is allowed; without it, the reply is a final answer.
            must_answer: This is the last turn.
            unseen_letter: Not used: these questions have no options.
        """
        times = sorted({time for view in views for time in view})
        found = self._stretches(times)
        segments = [bracket(times, [index in stretch for index in range(len(times))]) for stretch in found]
        coarse = [
            segment
            for segment, stretch in zip(segments, found, strict=True)
            if len(stretch) < VISIBLE_FRAMES_TO_ANSWER
        ]
        if tools and not must_answer:
            if coarse:
                return f"<think>Seen, look closer.</think>{tool_call_text(coarse[:SEGMENTS_PER_CALL])}"
            if not found and len(views) == 1:
                return f"<think>Not seen, search here.</think>{tool_call_text(_parts(times))}"
        return self.voice.answer(segments or [bracket(times, [])], seen=bool(found))

    def _stretches(self, times: Sequence[float]) -> list[range]:
        """Neighbouring frames that show the shape in one scene, as ranges of indices."""
        seen = scenes_showing(self.script, self.shape, times)
        found: list[range] = []
        for index, scene in enumerate(seen):
            if scene is None:
                continue
            if found and found[-1].stop == index and seen[index - 1] == scene:
                found[-1] = range(found[-1].start, index + 1)
            else:
                found.append(range(index, index + 1))
        return found


def _parts(times: Sequence[float]) -> list[tuple[int, int]]:
    """The whole of a view in at most ``SEGMENTS_PER_CALL`` parts that begin and end at frames."""
    last = len(times) - 1
    edges = [whole_seconds(times[last * part // SEGMENTS_PER_CALL]) for part in range(SEGMENTS_PER_CALL + 1)]
    parts = [(one, two) for one, two in zip(edges, edges[1:], strict=False) if two > one]
    return parts or [bracket(times, [])]


def teacher_of(
    script: WorldScript, example: Example, voice: Voice | None = None
) -> Teacher | EveryTimeTeacher:
    """Return the teacher for a row of this script.

    Raises:
        ValueError: The row is not about this script.
    """
    question = question_of(script, example)
    if example.task == "multi_segment":
        return EveryTimeTeacher(script, question.event.shape, voice)
    return Teacher(script, question, voice)
