"""Rows that the current policy solves sometimes: what reinforcement learning can learn from.

The labeller of the recipe is the policy that will be trained. It tries every row ``samples`` times, as it would in a
roll-out; rows that it always or never solves have no advantage to learn from and are left out. What goes on is split
into questions and groundings as the recipe says: VideoTemp-o3's release has 2.8k questions to 3.2k groundings.

Source: VideoTemp-o3 (arXiv 2602.07801), its data of reinforcement learning. How its rows were chosen was not
published. What counts as solved is ``Kit.is_right``: of a grounding, an IoU of ``min_iou``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from timeloupe.data.build.recipe_part import StagePart
from timeloupe.data.build.record import BuiltRow
from timeloupe.data.build.stages.attempt import Attempt, attempt
from timeloupe.data.build.stages.lots import lot
from timeloupe.data.build.steps import Kit, Outcome, Plan, Skim
from timeloupe.data.formats.swift_rl import GROUNDING_TASKS
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import View
from timeloupe.trajectory import Example

QA, GROUNDING = "qa", "grounding"


class DifficultyStage(StagePart):
    """Try, count, and keep what is neither too easy nor too hard.

    Attributes:
        samples: Tries of each row.
        temperature: Of every turn of a try; at 0 all tries of most policies are the same one.
        tools: Whether a try may look closer; where the episode settings offer no tool, it may not.
        min_pass: Share of right tries that a row needs at least; 0 keeps rows that were never solved.
        max_pass: Share of right tries that a row may have at most; 1 keeps rows that were always solved. By default
            both are left out.
        qa_share: Share of questions, against groundings, among what is handed on; default: as it comes.
        size: Rows handed on at most; default: as many as there are in that share.
        seed: Of which rows of a kind are handed on.
    """

    kind: Literal["difficulty"]
    samples: int = Field(default=8, ge=1, le=1024)
    temperature: float = Field(default=1.0, ge=0)
    tools: bool = True
    min_pass: float | None = Field(default=None, ge=0, le=1)
    max_pass: float | None = Field(default=None, ge=0, le=1)
    qa_share: float | None = Field(default=None, ge=0, le=1)
    size: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _something_is_kept(self) -> Self:
        least, most = self.bounds
        if not any(least <= right <= most for right in range(self.samples + 1)):
            raise ValueError(
                f"no number of right tries out of {self.samples} is between min_pass and max_pass, which are "
                f"{_said(self.min_pass)} and {_said(self.max_pass)}; ask for more samples or widen them"
            )
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Right tries that a row needs at least and may have at most; a share that is met exactly counts."""
        least = 1.0 if self.min_pass is None else self.min_pass * self.samples
        most = self.samples - 1.0 if self.max_pass is None else self.max_pass * self.samples
        return least - 1e-9, most + 1e-9


def _said(share: float | None) -> str:
    return "left to the default (not 0, not 1)" if share is None else f"{share:g}"


def difficulty(example: Example, part: DifficultyStage, kit: Kit) -> Plan:
    """Return the plan of one item: its tries, one after the other."""
    if not kit.can_judge(example):
        return Outcome(False, "no_label", "nothing says what a right answer is")
    skim: View = yield Skim()
    tools = part.tools and kit.settings.offers_tool
    tries: list[Attempt] = []
    for sample in range(part.samples):
        one = yield from attempt(example, kit, skim, tools=tools, sample=sample, temperature=part.temperature)
        tries.append(one)
    right = sum(one.right for one in tries)
    figures = {"pass_rate": right / part.samples, "mean_calls": _mean([one.calls for one in tries])}
    if example.task in GROUNDING_TASKS:
        figures["mean_iou"] = _mean([one.iou(example) for one in tries])
    least, most = part.bounds
    reason = "too_hard" if right < least else "too_easy" if right > most else "kept"
    unanswered = sum(one.answer is None for one in tries)
    detail = f"{right} of {part.samples} right" + (f", {unanswered} without an answer" if unanswered else "")
    return Outcome(reason == "kept", reason, detail, figures=figures)


def turns_of_a_try(part: DifficultyStage, settings: EpisodeSettings) -> int:
    """Return how many turns a try has at most."""
    return settings.num_turns if part.tools else 1


def rl_split(rows: Sequence[BuiltRow], part: DifficultyStage) -> list[BuiltRow]:
    """Return the rows to learn from, in their order: the largest set with the share, within the size.

    Which rows of a kind are left out depends on ``seed`` and the rows' ids alone.
    """
    of_kind = {kind: [row for row in rows if kind_of(row.example) == kind] for kind in (QA, GROUNDING)}
    qa, grounding = _sizes(len(of_kind[QA]), len(of_kind[GROUNDING]), part)
    drawn = {row.id for row in _draw(of_kind[QA], qa, part) + _draw(of_kind[GROUNDING], grounding, part)}
    return [row for row in rows if row.id in drawn]


def kind_of(example: Example) -> str:
    """Return ``grounding`` or ``qa``, as the release sorts its rows."""
    return GROUNDING if example.task in GROUNDING_TASKS else QA


def split_facts(
    folder: Path, rows: Sequence[BuiltRow], handed_on: Sequence[BuiltRow], part: DifficultyStage
) -> dict[str, Any]:
    """Return for the summary how many kept rows of each kind there were, and how many of them the split took."""
    there = Counter(kind_of(row.example) for row in rows if row.kept)
    taken = Counter(kind_of(row.example) for row in handed_on)
    split = {kind: {"kept": there[kind], "handed_on": taken[kind]} for kind in (QA, GROUNDING)}
    left = sum(there.values()) - sum(taken.values())
    taken_of = [f"{taken[kind]} of {there[kind]} {kind} rows" for kind in (QA, GROUNDING)]
    notes = [f"{' and '.join(taken_of)} handed on: the split leaves {left} out"]
    if part.size is not None and sum(taken.values()) < part.size:
        notes.append(f"{part.size} rows were asked for: there are not more in that share")
    return {"split": split, "notes": notes if left or len(notes) > 1 else []}


def _sizes(qa: int, grounding: int, part: DifficultyStage) -> tuple[int, int]:
    """Return how many rows of each kind to hand on, of so many that there are."""
    most = qa + grounding if part.size is None else min(part.size, qa + grounding)
    share = part.qa_share
    if share is None:  # as they come, in the share that they have
        of_qa = round(most * qa / max(qa + grounding, 1))
        return of_qa, most - of_qa
    for total in range(most, 0, -1):
        of_qa = round(total * share)
        if of_qa <= qa and total - of_qa <= grounding:
            return of_qa, total - of_qa
    return 0, 0


def _draw(rows: Sequence[BuiltRow], number: int, part: DifficultyStage) -> list[BuiltRow]:
    """Return so many of the rows, drawn without regard to their order."""
    return sorted(rows, key=lambda row: lot(part.seed, row.id))[:number]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
