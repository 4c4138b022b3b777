"""All stages by kind: what a recipe may say of one, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from timeloupe.data.build.record import BuiltRow
from timeloupe.data.build.stages.direct import DirectStage, direct
from timeloupe.data.build.stages.ground import GroundStage, ground
from timeloupe.data.build.steps import Plan
from timeloupe.trajectory import Example

Stage = Annotated[DirectStage | GroundStage, Field(discriminator="kind")]


def as_they_are(examples: Sequence[Example], part: Any) -> list[Example]:
    """Return the rows that a stage reads as its items."""
    return list(examples)


def all_of_them(rows: Sequence[BuiltRow], part: Any) -> list[BuiltRow]:
    """Return the kept rows as what the stage has made."""
    return list(rows)


@dataclass(frozen=True)
class StageKind:
    """What a stage does, all of it pure.

    Attributes:
        plan: (example, its part of the recipe, kit) to a plan.
        most_asks: (its part of the recipe) to the number of questions of one item at most.
        items: (rows that it reads, part) to its items, such as one per video.
        choose: (kept rows in the order of the items, part) to those that the stage hands on, such as as many of each
            length.
    """

    plan: Callable[..., Plan]
    most_asks: Callable[[Any], int]
    items: Callable[[Sequence[Example], Any], list[Example]] = as_they_are
    choose: Callable[[Sequence[BuiltRow], Any], list[BuiltRow]] = all_of_them


STAGES: dict[str, StageKind] = {
    "direct": StageKind(direct, lambda part: 1),
    "ground": StageKind(ground, lambda part: (part.regrounds + 1) * (1 + len({*part.checks, "process"}))),
}
"""Kind of a stage, as recipes name it, to what it does."""


def stage_name(part: Any) -> str:
    """Return what a stage is called: its name, or its kind if it has none."""
    return part.name or part.kind
