"""All stages by kind: what a recipe may say of one, and what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from timeloupe.data.build.record import BuiltRow
from timeloupe.data.build.stages.bench import BenchStage, bench, checked_items
from timeloupe.data.build.stages.bench_choice import choose, write_bench
from timeloupe.data.build.stages.caption import CaptionStage, caption, videos
from timeloupe.data.build.stages.difficulty import (
    DifficultyStage,
    difficulty,
    rl_split,
    split_facts,
    turns_of_a_try,
)
from timeloupe.data.build.stages.direct import DirectStage, direct
from timeloupe.data.build.stages.evidence import EvidenceStage, evidence
from timeloupe.data.build.stages.ground import GroundStage, ground
from timeloupe.data.build.stages.multiseg import MultisegStage, most_multiseg_asks, multiseg
from timeloupe.data.build.steps import Plan
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.trajectory import Example

Stage = Annotated[
    DirectStage | GroundStage | DifficultyStage | BenchStage | CaptionStage | EvidenceStage | MultisegStage,
    Field(discriminator="kind"),
]


def as_they_are(examples: Sequence[Example], part: Any) -> list[Example]:
    """Return the rows that a stage reads as its items."""
    return list(examples)


def all_of_them(rows: Sequence[BuiltRow], part: Any) -> list[BuiltRow]:
    """Return the kept rows as what the stage has made."""
    return list(rows)


def one_turn(part: Any, settings: EpisodeSettings) -> int:
    """Return that a question takes one reply."""
    return 1


def no_more(
    folder: Path, rows: Sequence[BuiltRow], handed_on: Sequence[BuiltRow], part: Any
) -> Mapping[str, Any]:
    """Return that there is nothing to write or to say beside the rows."""
    return {}


@dataclass(frozen=True)
class StageKind:
    """What a stage does, all of it pure but ``write``.

    Attributes:
        plan: (example, its part of the recipe, kit) to a plan.
        most_asks: (its part of the recipe) to the number of questions of one item at most.
        items: (rows that it reads, part) to its items, such as one per video.
        choose: (kept rows in the order of the items, part) to those that the stage hands on, such as as many of each
            length.
        turns: (part, episode settings) to how many replies one of its questions takes at most.
        write: (folder of the stage, rows of all items, rows handed on, part): writes files of its own there, if it has
            any, and returns what the summary says of the stage; ``notes`` among it are lines for people.
        trains: Whether its rows are to be learnt from; others stand in the stage's own folder alone.
    """

    plan: Callable[..., Plan]
    most_asks: Callable[[Any], int]
    items: Callable[[Sequence[Example], Any], list[Example]] = as_they_are
    choose: Callable[[Sequence[BuiltRow], Any], list[BuiltRow]] = all_of_them
    turns: Callable[[Any, EpisodeSettings], int] = one_turn
    write: Callable[[Path, Sequence[BuiltRow], Sequence[BuiltRow], Any], Mapping[str, Any]] = no_more
    trains: bool = True


STAGES: dict[str, StageKind] = {
    "direct": StageKind(direct, lambda part: 1),
    "ground": StageKind(ground, lambda part: (part.regrounds + 1) * (1 + len({*part.checks, "process"}))),
    "difficulty": StageKind(
        difficulty, lambda part: part.samples, choose=rl_split, turns=turns_of_a_try, write=split_facts
    ),
    "bench": StageKind(
        bench, lambda part: 2 * part.controls + 1, checked_items, choose, write=write_bench, trains=False
    ),
    "caption": StageKind(caption, lambda part: part.max_windows, videos),
    "evidence": StageKind(evidence, lambda part: 1 + part.max_claims),
    "multiseg": StageKind(multiseg, most_multiseg_asks),
}
"""Kind of a stage, as recipes name it, to what it does."""


def stage_name(part: Any) -> str:
    """Return what a stage is called: its name, or its kind if it has none."""
    return part.name or part.kind
