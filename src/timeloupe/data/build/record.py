"""The rows that a build writes: one per item of a stage, kept or not, with everything that was asked for it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from timeloupe.trajectory import Box, Example, FrameRef, Record, Seconds, Segment, Trajectory, Usage

FAULT = "fault"
"""Reason of a row that a machine's fault ended: a resumed build makes it again."""

VIDEO = "video"
"""Reason of a row whose video cannot be read. That is a finding, not a fault: a later session reads it no better unless
somebody mends the file, so it is made again only when that is asked for."""


class ShownView(Record):
    """A view that the labeller was shown: which part of the video, and how many frames of it.

    Attributes:
        view: As in ``FrameRef``.
        start_seconds: Where it begins.
        end_seconds: Where it ends.
        num_frames: Frames shown.
        box: The part of the frame that was cut out, if it was.
    """

    view: Literal["skim", "crop", "image"]
    start_seconds: Seconds
    end_seconds: Seconds
    num_frames: int = Field(ge=0)
    box: Box | None = None

    @classmethod
    def of(cls, ref: FrameRef, box: Box | None = None) -> ShownView:
        """Return what a frame reference shows."""
        return cls(
            view=ref.view, start_seconds=ref.start_seconds, end_seconds=ref.end_seconds,
            num_frames=len(ref.at_seconds), box=box,
        )  # fmt: skip


class Asked(Record):
    """One question to the labeller and what came of it.

    Attributes:
        purpose: What it was asked for, such as ``ground`` or ``alone``.
        round: Which attempt it belongs to, from 0; a re-grounding is round 1.
        prompt_sha256: Of the system text and of what was said beside the frames, first 16 hex digits.
        views: What was shown.
        reply: What it said, as it said it.
        finish: As in ``Generation``.
        segments: The segments that the reply names, as they were read.
        right: Whether it said what the label says; ``None`` where nothing was compared.
        usage: Tokens.
        cost: US dollars; ``None`` = the price or the tokens are not known. A call that failed is taken to cost nothing.
        tries: Calls that it took: those before the last one failed.
        seconds: Wall time of the last of them.
    """

    purpose: str
    round: int = Field(default=0, ge=0)
    prompt_sha256: str
    views: tuple[ShownView, ...] = ()
    reply: str
    finish: Literal["stop", "length", "error"] = "stop"
    segments: tuple[Segment, ...] = ()
    right: bool | None = None
    usage: Usage = Usage()
    cost: float | None = None
    tries: int = Field(default=1, ge=1)
    seconds: Seconds = 0.0


class Caption(Record):
    """What happens in a segment, in words."""

    segment: Segment
    text: str


class BuiltRow(Record):
    """What a stage made of one item.

    Attributes:
        stage: Name of the stage in the recipe.
        id: The item's id, unique in the stage.
        example: The dataset row, with what the stage has added to it.
        kept: Whether it goes on.
        reason: Why, as a stable word.
        detail: Why, for people; may be empty.
        labeller: Who was asked.
        asked: All that was asked, in order.
        trajectory: The episode to learn from, of a kept row of a stage that makes one.
        captions: Captions in order of start, of a stage that makes them.
        figures: Numbers that the stage found, such as ``pass_rate``.
        seconds: Wall time of the item, its waiting for others of its batch included.
    """

    schema_version: Literal[1] = 1
    stage: str
    id: str
    example: Example
    kept: bool
    reason: str
    detail: str = ""
    labeller: str
    asked: tuple[Asked, ...] = ()
    trajectory: Trajectory | None = None
    captions: tuple[Caption, ...] = ()
    figures: dict[str, float] = {}
    seconds: Seconds = 0.0

    @property
    def cost(self) -> float | None:
        """US dollars of all that was asked; ``None`` if that of one question is not known."""
        costs = [one.cost for one in self.asked]
        return None if None in costs else sum(one for one in costs if one is not None)
