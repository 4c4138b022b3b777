"""The record: one dataset row (``Example``) and one episode over it (``Trajectory``).

Everything in timeloupe makes a ``Trajectory``, changes one by copy, or reads one. Records are frozen, carry a
``schema_version``, and are strict JSON: one line per episode, no NaN, unknown keys are errors.

Units: times are float seconds from the first presented frame of the ORIGINAL video, half-open ``[start, end)``;
boxes are xyxy fractions of the uncropped frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from timeloupe.errors import MissingError, RecordError

SCHEMA_VERSION = 1

Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class Record(BaseModel):
    """Base of every record: frozen, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings")


RecordT = TypeVar("RecordT", bound=Record)


class Segment(Record):
    """A half-open span ``[start_seconds, end_seconds)`` of the original video; ``start < end``."""

    start_seconds: Seconds
    end_seconds: Seconds

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.start_seconds < self.end_seconds:
            raise ValueError(f"a segment needs start < end, got [{self.start_seconds}, {self.end_seconds})")
        return self

    @property
    def length_seconds(self) -> float:
        """Length in seconds, > 0."""
        return self.end_seconds - self.start_seconds


class Box(Record):
    """One object's box in one frame: xyxy fractions of the uncropped frame, ``x1 < x2`` and ``y1 < y2``."""

    at_seconds: Seconds
    x1: Fraction
    y1: Fraction
    x2: Fraction
    y2: Fraction
    label: str = ""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (self.x1 < self.x2 and self.y1 < self.y2):
            raise ValueError(f"a box needs x1 < x2 and y1 < y2, got {(self.x1, self.y1, self.x2, self.y2)}")
        return self


Task = Literal["multiple_choice", "grounding", "multi_segment", "what_when_where", "open"]


class Example(Record):
    """One dataset row.

    Attributes:
        id: Unique within its dataset.
        video: Path of the video file; relative paths are relative to the file that lists the row.
        question: The question's stem, without its options.
        options: Option texts without letters; the n-th option has the n-th capital letter. Empty unless MCQ.
        answer: The option letter of a multiple-choice row, the text of an open one, ``None`` if unknown.
        segments: True evidence segments, or empty if unknown.
        boxes: True evidence boxes, or empty.
        task: What is asked for.
        source: Dataset and split the row comes from.
    """

    id: str
    video: str
    question: str
    options: tuple[str, ...] = ()
    answer: str | None = None
    segments: tuple[Segment, ...] = ()
    boxes: tuple[Box, ...] = ()
    task: Task = "open"
    source: str = ""


class Text(Record):
    """Text in a message."""

    type: Literal["text"] = "text"
    text: str


class FrameRef(Record):
    """The frames of one view of one video, by reference: the record never holds pixels.

    Attributes:
        video: Path of the original video (a crop is never cut from a crop).
        view: ``skim`` = the whole video at a low rate, ``crop`` = a segment at a higher rate, ``image`` = one still.
        start_seconds: Where the view begins.
        end_seconds: Where the view ends.
        at_seconds: The presentation time of each frame shown, ascending.
        size_wh: Width and height in pixels of the frames as the model got them.
    """

    type: Literal["frames"] = "frames"
    video: str
    view: Literal["skim", "crop", "image"]
    start_seconds: Seconds
    end_seconds: Seconds
    at_seconds: tuple[Seconds, ...] = Field(min_length=1)
    size_wh: tuple[int, int]


Part = Annotated[Text | FrameRef, Field(discriminator="type")]


class Message(Record):
    """One chat message; tool results are messages of role ``user``, as VideoTemp-o3 has them."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The message's text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def frame_refs(self) -> tuple[FrameRef, ...]:
        """The message's views, in order."""
        return tuple(part for part in self.parts if isinstance(part, FrameRef))


class Usage(Record):
    """Tokens that one generation cost, as the model or server counted them; ``None`` = it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Generation(Record):
    """What a policy returned for one turn.

    Attributes:
        text: The reply's text, special end-of-turn tokens removed.
        finish: ``stop`` = ended by itself, ``length`` = cut by the token limit, ``error`` = the machine failed.
        usage: Token counts.
        token_ids: Sampled token ids with the end-of-turn token, if the policy knows them (text is not re-tokenised).
        logprobs: Natural-log probability of each of ``token_ids`` under the sampling policy.
        error: The machine's error text when ``finish`` is ``error``.
        seconds: Wall time of the generation.
    """

    text: str
    finish: Literal["stop", "length", "error"] = "stop"
    usage: Usage = Usage()
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    error: str | None = None
    seconds: Seconds = 0.0

    @field_validator("text", "error")
    @classmethod
    def _encodable(cls, text: str | None) -> str | None:
        """Half a surrogate pair, as a server may cut one, has no UTF-8 and would lose the whole episode."""
        return None if text is None else text.encode("utf-8", "replace").decode("utf-8")


class ToolCall(Record):
    """A parsed request to look closer: one or more segments of the original video."""

    name: str
    segments: tuple[Segment, ...] = Field(min_length=1)


class Answer(Record):
    """A parsed final answer.

    Attributes:
        text: The answer as written, without its tags.
        option: Its option letter if the text names exactly one, else ``None``.
        segments: The time segments it names, possibly none.
        boxes: Evidence boxes it names (Open-o3 form), possibly none.
    """

    text: str
    option: str | None = None
    segments: tuple[Segment, ...] = ()
    boxes: tuple[Box, ...] = ()


class Problem(Record):
    """Why a reply, a call or an episode went wrong; ``reason`` is a stable word, ``message`` is for people."""

    reason: str
    message: str


class Turn(Record):
    """One assistant turn and what came back.

    Exactly one of ``call``, ``answer`` and ``problem`` says what the reply was; a call that the tool refused also has
    ``problem``, and its error text is the observation.
    """

    generation: Generation
    thought: str = ""
    call: ToolCall | None = None
    answer: Answer | None = None
    problem: Problem | None = None
    observation: Message | None = None
    seconds: Seconds = 0.0


class StopReason(StrEnum):
    """Why an episode ended."""

    ANSWERED = "answered"
    MAX_TURNS = "max_turns"
    MAX_TOKENS = "max_tokens"
    FORMAT = "format"
    INFRASTRUCTURE = "infrastructure"


class Score(Record):
    """Reward or metric parts of an episode; ``None`` = could not be scored, which is not zero."""

    parts: dict[str, float | None] = {}
    reasons: dict[str, str] = {}


class Trajectory(Record):
    """One episode: the example, what was shown and said, why it stopped, and its score if it has one.

    Attributes:
        policy: Name of the policy that played it.
        protocol: Name of the prompt protocol.
        seed: Root seed of the run; the episode's own seeds derive from it, the example id and ``rollout_index``.
        rollout_index: Which roll-out of this example it is, from 0.
        prompt: The messages before the first turn.
        turns: The turns in order.
        stop: Why it ended.
        problem: The reason behind ``format`` and ``infrastructure`` stops.
        frames_decoded: Frames the decoder had to decode for this episode (frames served from the cache cost none).
        frames_cached: Frames that it got from the cache of decoded frames. A skim that another episode of its batch
            had read already is neither.
        seconds: Wall time of the episode; in a lockstep batch, from the batch's start to this episode's end.
        settings: The episode settings in force.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    example: Example
    policy: str
    protocol: str
    seed: int = 0
    rollout_index: int = Field(default=0, ge=0)
    prompt: tuple[Message, ...] = ()
    turns: tuple[Turn, ...] = ()
    stop: StopReason
    problem: Problem | None = None
    score: Score = Score()
    frames_decoded: int = Field(default=0, ge=0)
    frames_cached: int = Field(default=0, ge=0)
    seconds: Seconds = 0.0
    settings: dict[str, Any] = {}

    @property
    def answer(self) -> Answer | None:
        """The final answer, or ``None`` if the episode ended without one."""
        return self.turns[-1].answer if self.turns else None

    @property
    def crops(self) -> tuple[FrameRef, ...]:
        """Every crop that was shown, in order."""
        return tuple(ref for turn in self.turns if turn.observation for ref in turn.observation.frame_refs)

    @property
    def skims(self) -> tuple[FrameRef, ...]:
        """The views of the prompt, normally one skim."""
        return tuple(ref for message in self.prompt for ref in message.frame_refs)

    @property
    def evidence(self) -> tuple[Segment, ...]:
        """What the episode stands on: the segments of its answer, else those of the last call that were shown."""
        if self.answer is not None and self.answer.segments:
            return self.answer.segments
        for turn in reversed(self.turns):
            if turn.call is not None and turn.observation is not None and turn.observation.frame_refs:
                return tuple(segment for segment in turn.call.segments if _shown(segment, turn.observation))
        return ()


def _shown(segment: Segment, observation: Message) -> bool:
    """Whether a crop of the segment came back; a call may be refused in part."""
    return any(ref.start_seconds <= segment.start_seconds < ref.end_seconds for ref in observation.frame_refs)


def to_line(record: Record) -> str:
    """Return ``record`` as one line of strict JSON without a newline."""
    return record.model_dump_json()


def read_trajectories(path: str | Path) -> Iterator[Trajectory]:
    """Yield the trajectories of a JSONL file in order.

    Raises:
        MissingError: The file is not there.
        RecordError: A line is not a valid trajectory; the message names the file and line.
    """
    yield from _read_lines(path, Trajectory)


def read_examples(path: str | Path) -> Iterator[Example]:
    """Yield the examples of a JSONL file in order; relative video paths are resolved against the file's folder.

    Raises:
        MissingError: The file is not there.
        RecordError: A line is not a valid example; the message names the file and line.
    """
    folder = Path(path).parent
    for example in _read_lines(path, Example):
        yield example.model_copy(update={"video": str(folder / example.video)})


def _read_lines(path: str | Path, kind: type[RecordT]) -> Iterator[RecordT]:
    path = Path(path)
    if not path.is_file():
        raise MissingError(
            f"no record file at {str(path)!r}, expected a JSONL file with one {kind.__name__} a line"
        )
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(step) for step in first["loc"])
                raise RecordError(
                    f"{path}:{number} is not a valid {kind.__name__}: {where or 'line'}: {first['msg']}; "
                    f"fix or remove that line"
                ) from error
