"""Whether a reward pays for looking well: archetypes of policies are played on imagined videos, and ranked.

Every task that the reward covers and every phase of its training is judged by itself, since a mean over tasks would
hide one on which looking does not pay. All archetypes play the same scenes, so their differences are paired.

**The verdict.** A degenerate archetype outranks honest looking if it earns more than the honest policy with the same
knowledge (see ``archetypes``), by more than chance: the 95 % interval of the mean difference lies above 0. Earning the
same is no outranking: a reward that does not see how an answer was found is blind, not wrong. The reward fails if that
happens in any task and phase.

**The gap** is what looking brings: ``honest`` less ``never_look``, most of it through better answers; ``itself`` is the
part of it that is paid for looking with the same answer, and ``beginner`` the gap at the start of training.

Intervals are normal approximations over episodes: mean +- 1.96 standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from timeloupe.errors import ConfigError, boundary
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.archetypes import ARCHETYPES, Case, write_replies
from timeloupe.reward.base import Context
from timeloupe.reward.compose import TOTAL, Reward
from timeloupe.reward.scenes import enact, prompt_of, sample_scene, seeded
from timeloupe.reward.sight import BEGINNER, TRAINED, know_all, see
from timeloupe.trajectory import Score, Task

FEWEST_EPISODES = 20
ROUNDING = 1e-6
"""Differences of rewards up to this come from rounding."""

GAPS = {
    "total": ("honest", "never_look"),
    "itself": ("honest", "never_look_same_answer"),
    "beginner": ("beginner", "never_look_beginner"),
}
"""Name of a gap to the archetypes whose difference it is."""


@dataclass(frozen=True)
class Mean:
    """A mean over episodes with its 95 % interval; ``None`` throughout if none was scored."""

    mean: float | None
    low: float | None
    high: float | None
    num_scored: int
    num_total: int


@dataclass(frozen=True)
class Row:
    """What one archetype earned.

    Attributes:
        archetype: Its name.
        reward: Mean reward.
        parts: Mean of each part, before weight and gate, over the episodes in which it was scored.
        excess: Mean difference to the honest policy that it is measured against; ``None`` for honest ones.
        outranks: Whether it earns more than that one by more than chance.
        ties: Whether it earned the same in every episode: the reward does not see what it does, or there was nothing
            to do otherwise.
    """

    archetype: str
    reward: Mean
    parts: Mapping[str, float]
    excess: Mean | None
    outranks: bool
    ties: bool


@dataclass(frozen=True)
class Cell:
    """One task in one phase of the training.

    Attributes:
        task: What is asked for.
        phase: From and to, in progress of the training.
        rows: By mean reward, the highest first.
        gaps: What looking brings; see the module.
    """

    task: Task
    phase: tuple[float, float]
    rows: tuple[Row, ...]
    gaps: Mapping[str, Mean]


@dataclass(frozen=True)
class Simulation:
    """What came out.

    Attributes:
        name: The reward's.
        seed: Root seed.
        episodes: Episodes of each archetype in each cell.
        cells: Every task in every phase.
        overall: Mean reward of each archetype over the cells, the highest first.
    """

    name: str
    seed: int
    episodes: int
    cells: tuple[Cell, ...]
    overall: Mapping[str, float] = field(default_factory=dict)

    @property
    def outranking(self) -> tuple[tuple[Cell, Row], ...]:
        """Every degenerate archetype that outranks honest looking, with the cell it does so in."""
        return tuple((cell, row) for cell in self.cells for row in cell.rows if row.outranks)


def simulate(
    reward: Reward, *, seed: int = 0, episodes: int = 200, on_cell: Callable[[int, int], None] | None = None
) -> Simulation:
    """Return what each archetype earns by a reward.

    Args:
        reward: What is tried.
        seed: Same seed, same numbers.
        episodes: Episodes of each archetype in each task and phase, >= 20.
        on_cell: Called with (cells done, cells in all).

    Raises:
        ConfigError: Too few episodes; or an honest episode cannot be scored, so that nothing can be said.
    """
    if episodes < FEWEST_EPISODES:
        raise boundary("episodes of a simulation", episodes, f">= {FEWEST_EPISODES}")
    composite = reward.composite
    places: list[tuple[Task, tuple[float, float]]] = [
        (task, phase) for task in composite.tasks for phase in composite.phases
    ]
    cells: list[Cell] = []
    for task, phase in places:
        cells.append(_cell(reward, task, phase, seed, episodes))
        if on_cell is not None:
            on_cell(len(cells), len(places))
    means = {
        name: math.fsum(_row(cell, name).reward.mean or 0.0 for cell in cells) / len(cells)
        for name in ARCHETYPES
    }
    overall = dict(sorted(means.items(), key=lambda item: -item[1]))
    return Simulation(reward.name, seed, episodes, tuple(cells), overall)


def _cell(reward: Reward, task: Task, phase: tuple[float, float], seed: int, episodes: int) -> Cell:
    scores: dict[str, list[Score]] = {name: [] for name in ARCHETYPES}
    for number in range(episodes):
        # Spread over the phase, so that schedules within it are seen whole.
        progress = phase[0] + (phase[1] - phase[0]) * (number + 0.5) / episodes
        for name, score in _episode(reward, task, seed, number, progress).items():
            scores[name].append(score)
    totals = {name: [score.parts[TOTAL] for score in found] for name, found in scores.items()}
    for name in ("perfect", "honest", "beginner"):
        lost = [score.reasons[TOTAL] for score in scores[name] if score.parts[TOTAL] is None]
        if lost:
            raise ConfigError(
                f"reward {reward.name!r} cannot be simulated: it gives no score to {len(lost)} of {episodes} "
                f"{task} episodes of {name!r} ({lost[0]}), mark the part as optional or leave the task out"
            )
    rows = [_make_row(name, scores[name], totals) for name in ARCHETYPES]
    rows.sort(key=lambda row: -(row.reward.mean if row.reward.mean is not None else -math.inf))
    gaps = {name: _mean(_differences(totals[one], totals[other])) for name, (one, other) in GAPS.items()}
    return Cell(task, phase, tuple(rows), gaps)


def _episode(reward: Reward, task: Task, seed: int, number: int, progress: float) -> dict[str, Score]:
    """Return the score of every archetype on one scene; together they are the group that drops are compared in."""
    composite = reward.composite
    protocol = PROTOCOLS[composite.protocol]
    key = (seed, task, number)
    scene = sample_scene(task, seeded(*key, "scene"), f"{task}-{number}")
    perfect = know_all(scene)
    trained = see(scene, TRAINED, seeded(*key, "trained"), tools=composite.tools)
    novice = see(scene, BEGINNER, seeded(*key, "beginner"), tools=composite.tools)
    cases = {name: Case(scene, perfect, trained, novice, seeded(*key, name)) for name in ARCHETYPES}
    intents = {name: archetype.act(cases[name]) for name, archetype in ARCHETYPES.items()}
    threshold = math.fsum(intent.attends for intent in intents.values()) / len(intents)
    prompt = prompt_of(scene, protocol, tools=composite.tools)
    scores: dict[str, Score] = {}
    for name, intent in intents.items():
        replies = write_replies(cases[name], intent, protocol, tools=composite.tools)
        trajectory = enact(
            scene, replies, protocol, tools=composite.tools, policy=name, seed=seed, prompt=prompt
        )
        context = Context(
            progress=progress, log_prob_drop=intent.attends, log_prob_drop_threshold=threshold
        )  # fmt: skip
        scores[name] = reward.score(trajectory, context)
    return scores


def _make_row(name: str, scores: Sequence[Score], totals: Mapping[str, Sequence[float | None]]) -> Row:
    labels = dict.fromkeys(label for score in scores for label in score.parts if label != TOTAL)
    parts: dict[str, float] = {}
    for label in labels:
        values = [value for score in scores if (value := score.parts.get(label)) is not None]
        if values:
            parts[label] = math.fsum(values) / len(values)
    against = ARCHETYPES[name].against
    excess = None if against is None else _mean(_differences(totals[name], totals[against]))
    outranks = excess is not None and excess.low is not None and excess.low > ROUNDING
    ties = against is not None and all(
        one is not None and other is not None and abs(one - other) <= ROUNDING
        for one, other in zip(totals[name], totals[against], strict=True)
    )
    return Row(name, _mean(totals[name]), parts, excess, outranks, ties)


def _differences(ones: Sequence[float | None], twos: Sequence[float | None]) -> list[float | None]:
    return [None if one is None or two is None else one - two for one, two in zip(ones, twos, strict=True)]


def _mean(values: Sequence[float | None]) -> Mean:
    scored = [value for value in values if value is not None]
    if not scored:
        return Mean(None, None, None, 0, len(values))
    mean = math.fsum(scored) / len(scored)
    square = math.fsum((value - mean) ** 2 for value in scored)
    half = 1.96 * math.sqrt(square / max(1, len(scored) - 1) / len(scored))
    return Mean(mean, mean - half, mean + half, len(scored), len(values))


def _row(cell: Cell, name: str) -> Row:
    return next(row for row in cell.rows if row.archetype == name)
