"""Composites: a reward as data. Named parts with weights and constants, by task and by progress of the training.

A composite is a TOML file; the presets are those in ``presets/``::

    title = "..."                          what it is
    source = "..."                         paper section, or script at a commit
    protocol = "videotemp"                 how the method speaks to its model (``prompt.protocol``)
    tools = true                           whether the model may look closer
    tasks = ["multiple_choice"]            what it can reward; other tasks are unscored
    clip = [-1.0, 3.0]                     optional: bounds of the total
    notes = ["..."]                        optional: numbered deviations and what else to know

    [[parts]]
    part = "videotemp.tool_iou"            a name in ``parts.PARTS``
    name = "iou"                           its name in scores; default: the part's
    weight = 1.0                           0 = reported, or a gate for others, without being paid itself
    constants = { threshold = 0.1 }        the part's own constants
    tasks = ["multiple_choice"]            default: all tasks of the composite
    from_progress = 0.0                    paid while from <= progress < to (to = 1 includes the end)
    to_progress = 1.0
    optional = false
    gate = { part = "accuracy", at_least = 1.0 }
    times = "accuracy"

The total is the sum of ``weight * value`` over the parts of the task and the moment, then clipped. ``gate`` pays a part
only while another one's value reaches a bound, else it adds 0; ``times`` multiplies it by another one's value.

**Unscored.** The total is ``None``, with the reason, if the machine ended the episode, if the composite does not know
the task, or if a part is ``None`` that is neither ``optional`` nor behind a closed gate. An optional part that is
``None`` adds nothing. So is a part ``None`` whose ``gate`` or ``times`` is. Nothing that could not be scored ever
counts as 0.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from timeloupe.config import load_recipe
from timeloupe.errors import ConfigError, boundary
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.base import Context
from timeloupe.reward.parts import PARTS, Entry
from timeloupe.trajectory import Example, Score, Segment, StopReason, Task, Trajectory

PRESETS = Path(__file__).parent / "presets"
TOTAL = "reward"
"""Name of the total among the parts of a score."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Gate(_Strict):
    """Pays a part only while the value of another, before its weight, is at least so much."""

    part: str
    at_least: float


class PartUse(_Strict):
    """One part of a composite; see the module."""

    part: str
    name: str = ""
    # Bounded so that no total is infinite.
    weight: float = Field(default=1.0, ge=-1e6, le=1e6)
    constants: dict[str, Any] = {}
    tasks: tuple[Task, ...] = ()
    from_progress: float = Field(default=0.0, ge=0, le=1)
    to_progress: float = Field(default=1.0, ge=0, le=1)
    optional: bool = False
    gate: Gate | None = None
    times: str | None = None

    @property
    def label(self) -> str:
        """Its name in scores."""
        return self.name or self.part

    @property
    def needs(self) -> tuple[str, ...]:
        """Labels of the parts that its pay depends on."""
        gates = () if self.gate is None else (self.gate.part,)
        return gates if self.times is None else (*gates, self.times)

    def counts(self, task: Task, progress: float) -> bool:
        """Whether it belongs to the sum for a task at a moment of the training."""
        over = progress >= self.to_progress and self.to_progress < 1
        return (not self.tasks or task in self.tasks) and progress >= self.from_progress and not over

    @model_validator(mode="after")
    def _phase(self) -> Self:
        if not self.from_progress < self.to_progress:
            raise ValueError(
                f"needs from_progress < to_progress, got {self.from_progress}, {self.to_progress}"
            )
        return self


class Composite(_Strict):
    """A whole reward; see the module."""

    title: str
    source: str
    protocol: str
    tools: bool
    tasks: tuple[Task, ...] = Field(min_length=1)
    clip: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()
    parts: tuple[PartUse, ...] = Field(min_length=1)

    def used(self, task: Task, progress: float) -> tuple[PartUse, ...]:
        """Return the parts that count for a task at a moment of the training."""
        return tuple(use for use in self.parts if use.counts(task, progress))

    @property
    def phases(self) -> tuple[tuple[float, float], ...]:
        """The stretches of the training between which the sum changes, as (from, to) in progress, in order."""
        ends = {0.0, 1.0} | {end for use in self.parts for end in (use.from_progress, use.to_progress)}
        return tuple(itertools.pairwise(sorted(ends)))


@dataclass(frozen=True)
class Reward:
    """A composite that has been checked against the parts there are.

    Attributes:
        name: Preset, or the file's name without its ending.
        composite: What it says.
        registry: The parts it draws on.
    """

    name: str
    composite: Composite
    registry: Mapping[str, Entry]

    def score(self, trajectory: Trajectory, context: Context) -> Score:
        """Return the total under ``reward``, every part's value before weight and gate, and why something is ``None``.

        The total is finite and within ``bounds`` of the task. A part that counts nothing for this task, or at this
        moment of the training, is not there.

        Raises:
            ValueError: ``context.progress`` is outside [0, 1], or a part broke its contract.
        """
        if not 0 <= context.progress <= 1:
            raise ValueError(f"progress must be in [0, 1], got {context.progress}")
        composite, task = self.composite, trajectory.example.task
        if trajectory.stop is StopReason.INFRASTRUCTURE:
            return Score(
                parts={TOTAL: None}, reasons={TOTAL: "infrastructure: the machine ended the episode"}
            )
        if task not in composite.tasks:
            return Score(parts={TOTAL: None}, reasons={TOTAL: f"task: {task} is not rewarded"})
        uses = composite.used(task, context.progress)
        values = {use.label: self._value(use, trajectory, context) for use in uses}
        reasons = {name: _lacks(trajectory, context) for name, value in values.items() if value is None}
        total = 0.0
        missing: list[str] = []
        for use in uses:
            paid = _paid(use, values)
            if paid is not None:
                total += use.weight * paid
            elif not use.optional:
                missing.append(use.label)
        if missing:
            reasons[TOTAL] = f"unscored: {', '.join(missing)}; {_lacks(trajectory, context)}"
            return Score(parts={TOTAL: None, **values}, reasons=reasons)
        if composite.clip is not None:
            total = min(max(total, composite.clip[0]), composite.clip[1])
        return Score(parts={TOTAL: total, **values}, reasons=reasons)

    def bounds(self, task: Task, progress: float) -> tuple[float, float]:
        """Return between what the total can lie, from the stated ranges of the parts; progress in [0, 1].

        The bounds are safe, not tight: parts are taken as independent of each other.
        """
        uses = self.composite.used(task, progress)
        spans = {use.label: self.registry[use.part][1] for use in uses}
        low = high = 0.0
        for use in uses:
            ends = list(spans[use.label])
            if use.times is not None:
                ends = [one * other for one in ends for other in spans[use.times]]
            if use.optional or use.gate is not None:
                ends.append(0.0)
            low += min(use.weight * end for end in ends)
            high += max(use.weight * end for end in ends)
        if self.composite.clip is not None:
            bottom, top = self.composite.clip
            low, high = min(max(low, bottom), top), min(max(high, bottom), top)
        return low, high

    def _value(self, use: PartUse, trajectory: Trajectory, context: Context) -> float | None:
        value = self.registry[use.part][0](trajectory, context, **use.constants)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"part {use.part!r} must return a finite number or None, got {value}")
        return None if value is None else float(value)


def _paid(use: PartUse, values: Mapping[str, float | None]) -> float | None:
    """Return what a part adds before its weight; ``None`` = that cannot be told."""
    if use.gate is not None:
        gate = values[use.gate.part]
        if gate is None:
            return None
        if gate < use.gate.at_least:
            return 0.0
    value = values[use.label]
    if value is None or use.times is None:
        return value
    factor = values[use.times]
    return None if factor is None else value * factor


def _lacks(trajectory: Trajectory, context: Context) -> str:
    """Return what the episode does not have of all that parts may need."""
    there = {
        "true answer": trajectory.example.answer is not None,
        "true segments": bool(trajectory.example.segments),
        "true boxes": bool(trajectory.example.boxes),
        "length of the video": bool(trajectory.skims),
        "judge": context.judge is not None,
        "measured drop of log-probability": context.log_prob_drop is not None,
    }
    lacking = [name for name, present in there.items() if not present]
    return f"not at hand: {', '.join(lacking)}" if lacking else "the part does not apply to this row"


def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_reward(name: str | Path, registry: Mapping[str, Entry] = PARTS) -> Reward:
    """Return a preset by its name, or the composite in a TOML file by its path.

    Args:
        name: One of ``preset_names()``, or a path that ends in ``.toml``.
        registry: The parts there are.

    Raises:
        ConfigError: There is no such preset; the file is not TOML; a key, part or constant is unknown; a value is
            wrong. The message names what is allowed.
        MissingError: There is no such file.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in preset_names():
            raise boundary("reward", str(name), [*preset_names(), "the path of a .toml file"])
        path = PRESETS / f"{name}.toml"
    composite = load_recipe(path, [], Composite)
    problems = _problems(composite, registry)
    if problems:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
    return Reward(path.stem, composite, registry)


def _problems(composite: Composite, registry: Mapping[str, Entry]) -> list[str]:
    """Return what is wrong with a composite that a model of single values cannot see."""
    found: list[str] = []
    if composite.protocol not in PROTOCOLS:
        found.append(str(boundary("protocol", composite.protocol, PROTOCOLS)))
    if composite.clip is not None and not composite.clip[0] < composite.clip[1]:
        found.append(str(boundary("clip", list(composite.clip), "[low, high] with low < high")))
    labels = [use.label for use in composite.parts]
    for label in sorted(set(labels)):
        if labels.count(label) > 1 or label == TOTAL:
            found.append(f"parts need names of their own, not {TOTAL!r}, got {label!r}, set name = ...")
    for use in composite.parts:
        if use.part not in registry:
            found.append(str(boundary("part", use.part, sorted(registry))))
        else:
            function = registry[use.part][0]
            found += _constant_problems(use, function) or _refusals(use, function)
        alien = [task for task in use.tasks if task not in composite.tasks]
        if alien:
            found.append(str(boundary(f"tasks of part {use.label!r}", alien, composite.tasks)))
    if not found:
        found += _sum_problems(composite)
    return found


def _constant_problems(use: PartUse, function: Any) -> list[str]:
    """Return which constants the part does not take, or takes with other values."""
    _, _, *constants = inspect.signature(function).parameters.values()
    legal = [one.name for one in constants if one.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = get_type_hints(function)
    found: list[str] = []
    for name, value in use.constants.items():
        if name not in legal:
            found.append(str(boundary(f"constant of part {use.part!r}", name, legal or "none")))
            continue
        try:
            # Strict, for the part is given the value as it stands: "0.1" would reach it as text.
            TypeAdapter(hints.get(name, Any), config=ConfigDict(allow_inf_nan=False)).validate_python(
                value, strict=True
            )
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"]
            found.append(f"constant {name!r} of part {use.part!r}: {said}, got {value!r}")
    return found


def _refusals(use: PartUse, function: Any) -> list[str]:
    """Return what a part says of constants that are out of range, before a training meets it in its first episode."""
    span = Segment(start_seconds=0.0, end_seconds=1.0)
    example = Example(id="1", video="v.mp4", question="?", task="grounding", segments=(span,))
    silent = Trajectory(example=example, policy="none", protocol="none", stop=StopReason.FORMAT)
    try:
        function(silent, Context(), **use.constants)
    except ConfigError as error:
        return [f"part {use.label!r}: {error}"]
    return []


def _sum_problems(composite: Composite) -> list[str]:
    """Return where a sum is empty or a part depends on one that is not in it."""
    found: dict[str, None] = {}
    for task, (start, _) in itertools.product(composite.tasks, composite.phases):
        uses = composite.used(task, start)
        labels = [use.label for use in uses]
        if not any(use.weight for use in uses):
            found[f"no part is paid for {task} at progress {start:g}; drop the task or add a part"] = None
        for use in uses:
            for needed in use.needs:
                if needed not in labels or needed == use.label:
                    others = [label for label in labels if label != use.label]
                    found[str(boundary(f"what part {use.label!r} depends on", needed, others or "none"))] = (
                        None
                    )
    return list(found)
