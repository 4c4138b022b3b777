"""Endless training rows from the world: the teacher plays, and its replies become the targets.

Rows of a pool depend on ``(stage seed, pool index)`` only, so a resumed run sees the rows it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.prompt.build import first_messages, observation_message
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS, Protocol
from timeloupe.train.rows import TrainRow, assistant
from timeloupe.trajectory import FrameRef, Message, Segment, Text, ToolCall
from timeloupe.video.cache import FrameCache
from timeloupe.video.reader import Frames, VideoReader
from timeloupe.video.sampling import crop_times, skim_times
from timeloupe.world.encode import make_videos, world_examples
from timeloupe.world.render import WorldRenderer
from timeloupe.world.script import (
    COLOURS,
    SHAPES,
    ScriptSettings,
    WorldScript,
    generator,
    make_script,
    training_seed,
)
from timeloupe.world.teach_evidence import EvidenceTeacher, digit_frames, object_frames, written_box
from timeloupe.world.teacher import (
    LETTERS,
    Teacher,
    WorldQuestion,
    frame_facts,
    make_question,
    relevance_labels,
    to_example,
    tool_call_text,
    whole_seconds,
)

QUESTIONS_PER_VIDEO = 4


Share = Annotated[float, Field(ge=0, le=1)]


class RowMix(BaseModel):
    """Shares of the kinds of rows, each in [0, 1].

    They are drawn one after another: ``recall`` of all rows, ``blind`` of the others, ``evidence`` of the rest;
    ``direct`` and ``first_reply`` are shares of what then remains, the rows of grounding and choice with frames. Of
    these, what is left over are whole tool-using trajectories: there are none only where ``direct + first_reply`` is 1.

    Attributes:
        direct: Rows without a tool: skim, then the answer.
        first_reply: Rows that end with the first reply, so that first calls are trained under every mask.
        recall: Text-only rows that name the letter of an option, without frames.
        blind: Multiple-choice rows without any frame, whose letter can only be guessed: they give the question-only
            control a reply that can be read.
        wrong_first: Share of the tool-using trajectories whose first call is wrong, as careless labellers err; the
            second call then grounds the moment from the skim. A little fewer come out: a wrong span that finds no room
            in the video leaves the row right.
        evidence: Rows of what, when and where: skim, then marked evidence and the answer (``world.teach_evidence``).
            Only what a frame of the skim shows is asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    direct: Share = 0.2
    first_reply: Share = 0.0
    recall: Share = 0.0
    blind: Share = 0.0
    wrong_first: Share = 0.0
    evidence: Share = 0.0


class RenderedReader:
    """Reads a script like ``VideoReader`` reads its MP4, straight from the renderer, with a little sensor noise."""

    def __init__(self, script: WorldScript, random: np.random.Generator) -> None:
        self._renderer = WorldRenderer(script)
        self._random = random
        self._num_frames = round(script.duration_seconds * script.fps)
        self._fps = script.fps

    def read(self, times: tuple[float, ...], size_wh: tuple[int, int]) -> Frames:
        """Return the frames displayed at ``times``; width must equal height and divide the native size."""
        at = tuple(min(int(time * self._fps + 1e-6), self._num_frames - 1) / self._fps for time in times)
        pixels = self._renderer.read(at, size_wh[0]).astype(np.float32)
        gain = 1 + 0.06 * self._random.standard_normal((len(at), 1, 1, 1), dtype=np.float32)
        noise = 4 * self._random.standard_normal(pixels.shape, dtype=np.float32)
        noisy = np.clip(pixels * gain + noise, 0, 255).astype(np.uint8)
        return Frames(noisy, times, at, (1 / self._fps,) * len(at), size_wh)


@dataclass
class WorldRows:
    """Makes rows.

    Attributes:
        seed: Root seed of the training videos; outside the evaluation range.
        mix: Shares of row kinds.
        settings: Episode settings that the model will be used with.
        protocol: Prompt protocol.
        script_settings: Kind of videos.
        mp4_folder: Where ``num_videos`` videos are encoded and read back; ``None`` = frames straight from the renderer.
        num_videos: Size of the MP4 set.
    """

    seed: int
    mix: RowMix
    settings: EpisodeSettings
    protocol: Protocol = PROTOCOLS["small"]
    script_settings: ScriptSettings = field(default_factory=ScriptSettings)
    mp4_folder: Path | None = None
    num_videos: int = 0
    _cache: FrameCache = field(default_factory=lambda: FrameCache(1 << 30))
    _files: list[tuple[WorldScript, Path]] = field(default_factory=list)

    def __post_init__(self) -> None:
        training_seed(self.seed)
        if self.mp4_folder is not None:
            made = make_videos(
                self.mp4_folder,
                seed=self.seed,
                num_videos=self.num_videos,
                settings=self.script_settings,
                tasks=(),
            )
            self._files = [(video.script, video.path) for video in made]

    def pool(self, index: int, size: int) -> list[TrainRow]:
        """Return the ``size`` rows of pool ``index``."""
        rows: list[TrainRow] = []
        random = generator("world-rows", self.seed, index)
        while len(rows) < size:
            if random.random() < self.mix.recall:
                rows.append(recall_row(self.protocol, random))
            elif self.mix.blind and random.random() < self.mix.blind:
                rows.append(self._blind_row(random))
            elif self.mix.evidence and random.random() < self.mix.evidence:
                rows.extend(self._evidence_rows(random))
            else:
                rows.extend(self._video_rows(random, index, len(rows)))
        return rows[:size]

    def _blind_row(self, random: np.random.Generator) -> TrainRow:
        script = make_script(self.seed, int(random.integers(1 << 40)), self.script_settings)
        question = make_question(script, "multiple_choice", int(random.integers(1 << 40)))
        messages = first_messages(
            to_example(question, id="row", video="world"), None, self.protocol, tools=False
        )
        reply = Teacher(script, question).reply([(-1.0,)], tools=False)
        return TrainRow((*messages, assistant(reply)), (), ())

    def _video(self, random: np.random.Generator) -> tuple[WorldScript, RenderedReader | VideoReader]:
        """Draw a video: a file of the set, or a new script."""
        if self._files:
            script, path = self._files[int(random.integers(len(self._files)))]
            return script, VideoReader(path, self._cache)
        script = make_script(self.seed, int(random.integers(1 << 40)), self.script_settings)
        return script, RenderedReader(script, random)

    def _evidence_rows(self, random: np.random.Generator) -> Iterator[TrainRow]:
        """Yield a row for every event of one video whose digit the skim shows; they share the skim."""
        script, reader = self._video(random)
        settings, size = self.settings, self.settings.frame_size_wh
        assert size is not None, "world rows need a fixed frame size"
        times = skim_times(script.duration_seconds, fps=settings.skim_fps, max_frames=settings.skim_frames)
        frames = reader.read(times, size)
        skim = FrameRef(
            video="world", view="skim", start_seconds=0.0, end_seconds=script.duration_seconds,
            at_seconds=frames.at_seconds, size_wh=size,
        )  # fmt: skip
        for example in world_examples(
            script, id="row", video="world", tasks=["what_when_where"], per_task=len(script.events)
        ):
            teacher = EvidenceTeacher(script, example)
            if digit_frames(teacher.event, frames.at_seconds):
                messages = first_messages(example, skim, self.protocol, tools=False)
                asked = WorldQuestion(teacher.event, "what_when_where", example.question)
                labels = relevance_labels(frame_facts(script, asked, frames.at_seconds))
                seen = set(object_frames(teacher.event, frames.at_seconds))
                corners = tuple(
                    written_box(teacher.event, time)[:2] if time in seen else None
                    for time in frames.at_seconds
                )
                reply = assistant(teacher.reply(frames.at_seconds))
                yield TrainRow((*messages, reply), (frames.pixels,), (tuple(labels),), (corners,))
        if isinstance(reader, VideoReader):
            reader.close()

    def _video_rows(self, random: np.random.Generator, *key: int) -> Iterator[TrainRow]:
        script, reader = self._video(random)
        for number in range(QUESTIONS_PER_VIDEO):
            task = "multiple_choice" if number % 2 else "grounding"
            question = make_question(script, task, self.seed, *key, number)
            kind = random.random()
            direct = kind < self.mix.direct
            first = not direct and kind < self.mix.direct + self.mix.first_reply
            wrong = not direct and not first and random.random() < self.mix.wrong_first
            yield self.row(
                script, question, reader, tools=not direct, first_reply=first, wrong=wrong, random=random
            )
        if isinstance(reader, VideoReader):
            reader.close()

    def row(
        self,
        script: WorldScript,
        question: WorldQuestion,
        reader: RenderedReader | VideoReader,
        *,
        tools: bool = True,
        first_reply: bool = False,
        wrong: bool = False,
        random: np.random.Generator | None = None,
    ) -> TrainRow:
        """Return the row of one question, played by the teacher."""
        play = _Play(script, question, reader, self.settings, self.protocol, tools)
        play.wrong = play.teacher.wrong_segment(random) if wrong and random is not None else None
        for turn in range(self.settings.max_turns):
            segment = play.reply(turn, last=turn == self.settings.max_turns - 1)
            if segment is None or first_reply:
                break
            play.observe(segment)
        return TrainRow(tuple(play.messages), tuple(play.clips), tuple(play.labels))


class _Play:
    """One row being played."""

    def __init__(
        self,
        script: WorldScript,
        question: WorldQuestion,
        reader: RenderedReader | VideoReader,
        settings: EpisodeSettings,
        protocol: Protocol,
        tools: bool,
    ) -> None:
        self.script, self.question, self.reader = script, question, reader
        self.settings, self.protocol, self.tools = settings, protocol, tools
        self.teacher = Teacher(script, question)
        self.wrong: Segment | None = None
        self.views: list[tuple[float, ...]] = []
        self.clips: list[np.ndarray] = []
        self.labels: list[tuple[str, ...]] = []
        self.example = to_example(question, id="row", video="world")
        times = skim_times(script.duration_seconds, fps=settings.skim_fps, max_frames=settings.skim_frames)
        skim = self._view("skim", times, 0.0, script.duration_seconds)
        self.messages: list[Message] = list(first_messages(self.example, skim, protocol, tools=tools))

    def _view(self, view: str, times: tuple[float, ...], start: float, end: float) -> FrameRef:
        size = self.settings.frame_size_wh
        assert size is not None, "world rows need a fixed frame size"
        frames = self.reader.read(times, size)
        self.views.append(frames.at_seconds)
        self.clips.append(frames.pixels)
        facts = frame_facts(self.script, self.question, frames.at_seconds)
        self.labels.append(tuple(relevance_labels(facts)))
        return FrameRef(
            video="world", view="crop" if view == "crop" else "skim", start_seconds=start, end_seconds=end,
            at_seconds=frames.at_seconds, size_wh=size,
        )  # fmt: skip

    def reply(self, turn: int, *, last: bool) -> Segment | None:
        """Write the reply of a turn; returns the segment it asks for, or ``None`` when it answers."""
        if self.wrong is not None and turn == 0:
            start = whole_seconds(self.wrong.start_seconds)
            span = (start, max(whole_seconds(self.wrong.end_seconds), start + 1))
            text = f"<think>Seen, look closer.</think>{tool_call_text([span])}"
        elif self.wrong is not None and turn == 1:
            text = self.teacher.reply(self.views[:1], tools=True)
        else:
            text = self.teacher.reply(self.views, tools=self.tools, must_answer=last)
        self.messages.append(assistant(text))
        call = parse_reply(text, self.protocol, num_options=len(self.question.options)).call
        return call.segments[0] if isinstance(call, ToolCall) else None

    def observe(self, segment: Segment) -> None:
        """Append the crop of a segment."""
        settings = self.settings
        end = min(segment.end_seconds, self.script.duration_seconds)
        times = crop_times(
            segment.start_seconds, end, fps=settings.crop_fps, min_frames=settings.crop_min_frames,
            max_frames=settings.crop_max_frames, native_fps=self.script.fps,
        )  # fmt: skip
        crop = self._view("crop", times, segment.start_seconds, end)
        self.messages.append(observation_message([crop], [], self.protocol, self.example))


def recall_row(protocol: Protocol, random: np.random.Generator) -> TrainRow:
    """Return a text-only row: four options, and six digits among them with their letters."""
    digits = random.permutation(10)[:4].tolist()
    colour, shape = (
        list(COLOURS)[int(random.integers(len(COLOURS)))],
        SHAPES[int(random.integers(len(SHAPES)))],
    )
    lines = [f"Which digit does the {shape} carry in the {colour} scene?"]
    lines += [f"{LETTERS[index]}. {digit}" for index, digit in enumerate(digits)]
    replies = [
        f"<think>The digit is {digits[index]} ({LETTERS[index]}).</think><answer>{LETTERS[index]}</answer>"
        for index in random.integers(4, size=6).tolist()
    ]
    question = Message(role="user", parts=(Text(text="\n".join(lines)),))
    return TrainRow((question, assistant("".join(replies))), (), ())
