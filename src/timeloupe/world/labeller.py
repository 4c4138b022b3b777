"""A labeller that knows the truth of a world and errs as often as it is told to: for measuring what checks are worth.

Where it is asked for a segment it knows where the event is, whatever it was shown, and then errs. Where it is asked for
an answer it sees what the frames in front of it show, and guesses where they do not show it: so a check can pass by
luck, and pass for a reason that has nothing to do with the segment, as with a real labeller.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from timeloupe.errors import MissingError, RecordError
from timeloupe.trajectory import Example, Segment
from timeloupe.world.script import Event, Scene, WorldScript
from timeloupe.world.teacher import (
    LETTERS,
    Teacher,
    Voice,
    bracket,
    frame_facts,
    question_of,
    tool_call_text,
    whole_seconds,
)

Rate = Annotated[float, Field(ge=0, le=1)]


class OracleErrors(BaseModel):
    """How often an oracle errs. A segment is right, or of one of the kinds of errors.

    Attributes:
        knows: What a right segment is: ``truth`` = that of the event, whatever was shown; ``frames`` = what a perfect
            observer of the frames shown can say of it, its scene where no frame shows it, as the teacher does.
        boundary_seconds: Standard deviation of the error of both ends of every segment that is not whole.
        wrong_instance: Share of segments that are those of another event.
        hallucinated: Share of segments that lie anywhere, as long as the true one.
        lazy: Share of segments that are the whole video.
        wrong_answer: Share of answers that are wrong though the frames show the right one; also of every yes and no.
        missed_caption: Share of what the frames show that gets no caption.
        invented_caption: Captions of what is not there, for each that is, on average.
        missed_instance: Share of the times at which something is visible that are not named where all are asked for.
        invented_instance: Times named that are none, for each that is, on average.
        box_noise: Standard deviation of the error of every side of a box, in fractions of the frame.
        wrong_box: Share of boxes that lie anywhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    knows: Literal["truth", "frames"] = "truth"
    boundary_seconds: float = Field(default=0.0, ge=0)
    wrong_instance: Rate = 0.0
    hallucinated: Rate = 0.0
    lazy: Rate = 0.0
    wrong_answer: Rate = 0.0
    missed_caption: Rate = 0.0
    invented_caption: Rate = 0.0
    missed_instance: Rate = 0.0
    invented_instance: Rate = 0.0
    box_noise: float = Field(default=0.0, ge=0)
    wrong_box: Rate = 0.0

    @model_validator(mode="after")
    def _shares(self) -> Self:
        total = self.wrong_instance + self.hallucinated + self.lazy
        if total > 1:
            raise ValueError(f"wrong_instance, hallucinated and lazy must add up to at most 1, got {total:g}")
        return self


Views = Sequence[Sequence[float]]
"""Frame times of each view in seconds, the skim first."""


class Oracle:
    """Answers what is asked about one row.

    Args:
        script: The video's script.
        example: The row.
        errors: How often it errs.
    """

    def __init__(self, script: WorldScript, example: Example, errors: OracleErrors) -> None:
        self.script, self.example, self.errors = script, example, errors
        self.question = question_of(script, example)
        self.teacher = Teacher(script, self.question)
        self.voice = Voice()

    def segment(self, views: Views, random: np.random.Generator) -> tuple[int, int]:
        """Return where it says that the event is, in whole seconds."""
        errors, truth = self.errors, self.question.event.segment
        if errors.knows == "frames" and views:
            truth = self._observed(views)
        draw = float(random.random())
        if draw < errors.lazy:
            return 0, whole_seconds(self.script.duration_seconds)
        found: Segment | None = truth
        if draw < errors.lazy + errors.wrong_instance:
            found = self.teacher.wrong_segment(random) or self._anywhere(truth, random)
        elif draw < errors.lazy + errors.wrong_instance + errors.hallucinated:
            found = self._anywhere(truth, random)
        noise = random.normal(0.0, 1.0, 2) * errors.boundary_seconds
        last = whole_seconds(self.script.duration_seconds)
        start = min(max(round(found.start_seconds + float(noise[0])), 0), last - 1)
        return start, min(max(round(found.end_seconds + float(noise[1])), start + 1), last)

    def _anywhere(self, truth: Segment, random: np.random.Generator) -> Segment:
        room = self.script.duration_seconds - truth.length_seconds
        start = float(random.uniform(0.0, max(room, 0.0)))
        return Segment(start_seconds=start, end_seconds=start + truth.length_seconds)

    def _observed(self, views: Views) -> Segment:
        """What the frames say of where the event is: between two of them, or in its scene."""
        facts = [frame_facts(self.script, self.question, view) for view in views]
        showing = [
            (view, found)
            for view, found in zip(views, facts, strict=True)
            if any(one.in_event for one in found)
        ]
        if showing:
            view, found = min(showing, key=lambda one: _spacing(one[0]))
            start, end = bracket(view, [one.in_event for one in found])
        else:
            start, end = bracket(views[0], [one.in_scene for one in facts[0]])
        return Segment(start_seconds=start, end_seconds=end)

    def look(self, views: Views, random: np.random.Generator) -> str:
        """Return a call of the tool."""
        return f"<think>Seen, look closer.</think>{tool_call_text([self.segment(views, random)])}"

    def answer(self, views: Views, random: np.random.Generator) -> str:
        """Return an answer from what the frames of all views show; no views = none.

        A moment is read from the view that shows it with its frames closest together.
        """
        times = sorted({time for view in views for time in view})
        facts = frame_facts(self.script, self.question, times)
        wrong = float(random.random()) < self.errors.wrong_answer
        if self.question.task == "multiple_choice":
            return self._letter(any(fact.digit is not None for fact in facts), wrong, random)
        seen = [
            (view, [fact.in_event for fact in frame_facts(self.script, self.question, view)])
            for view in views
        ]
        showing = [(view, hits) for view, hits in seen if any(hits)]
        if not times:
            segment = self.segment(views, random)
        elif showing and not wrong:
            finest, hits = min(showing, key=lambda one: _spacing(one[0]))
            segment = bracket(finest, hits)
        else:
            first = int(random.integers(len(times)))
            segment = bracket(times, [index == first for index in range(len(times))])
        return self.voice.answer([segment], seen=bool(showing))

    def _letter(self, seen: bool, wrong: bool, random: np.random.Generator) -> str:
        letters = LETTERS[: len(self.question.options)]
        right = self.question.answer or letters[0]
        if not seen:
            guess = letters[int(random.integers(len(letters)))]
            return f"<think>No digit seen.</think><answer>{guess}</answer>"
        if wrong:
            others = letters.replace(right, "")
            right = others[int(random.integers(len(others)))]
        digit = self.question.options[LETTERS.index(right)]
        return f"<think>The digit is {digit} ({right}).</think><answer>{right}</answer>"


def _spacing(view: Sequence[float]) -> float:
    """Seconds between two frames of a view, on average."""
    return (view[-1] - view[0]) / len(view)


def shows_answer(script: WorldScript, example: Example, times: Sequence[float]) -> bool:
    """Return whether frames at these times show what a row asks for: the digit, or the event itself."""
    facts = frame_facts(script, question_of(script, example), times)
    if example.task == "multiple_choice":
        return any(fact.digit is not None for fact in facts)
    return any(fact.in_event for fact in facts)


def read_truth(path: str | Path) -> dict[str, WorldScript]:
    """Return the scripts of a world's ``truth.jsonl`` by the names of their video files.

    Raises:
        MissingError: The file is not there.
        RecordError: A line is no script.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"no truth of a world at {str(path)!r}, make one with `timeloupe world make`")
    found: dict[str, WorldScript] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            fields = json.loads(line)
            found[Path(fields["video"]).name] = _script(fields)
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(
                f"{path}:{number} is not the truth of a world video: {error!r}; make the world again with "
                "`timeloupe world make`"
            ) from error
    return found


def _script(fields: dict[str, Any]) -> WorldScript:
    def span(pair: list[float]) -> Segment:
        return Segment(start_seconds=pair[0], end_seconds=pair[1])

    events = tuple(
        Event(
            one["scene"], one["shape"], span(one["segment"]), one["digit"], span(one["digit_segment"]),
            tuple(one["path"]), one["distractor"],
        )
        for one in fields["events"]
    )  # fmt: skip
    scenes = tuple(Scene(one["colour"], span(one["segment"])) for one in fields["scenes"])
    first, second = fields["seed"]
    return WorldScript((first, second), fields["duration_seconds"], fields["fps"], scenes, events)
