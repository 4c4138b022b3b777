"""The figures of an audit: how often the answer changes with the frames, by task and condition, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from timeloupe.eval.audit import AuditRow, same_answer
from timeloupe.eval.metrics import Interval, bootstrap_interval
from timeloupe.eval.perturb import AGAIN, CONDITIONS, ELSEWHERE, WITHOUT
from timeloupe.runs import episode_key
from timeloupe.trajectory import Trajectory

ALL_TASKS = "all"

BEYOND = "without, beyond elsewhere"
"""Name of the line that says what cutting the evidence changes more than cutting as much elsewhere."""


@dataclass(frozen=True)
class Line:
    """One condition over the episodes of one task.

    Attributes:
        condition: Which.
        num_asked: Episodes that were asked, faults not counted.
        num_compared: Of these, those with an answer under the same frames; the only ones in the figures.
        changed: Share whose answer is not the one under the same frames; looking again and no answer are changes.
        looks: Share that asks to look instead of answering.
        unreadable: Share without answer and call.
        score: Mean letter accuracy, or mean IoU with the true segments.
        logprob_fall: Fall of the recorded reply's log-probability, nats per reply.
        frames: Frames shown, mean.
        changed_frames: Frames cut out or with another picture, mean.
        not_asked: Reason -> number.
        faults: Number of machine's faults.
    """

    condition: str
    num_asked: int
    num_compared: int
    changed: Interval
    looks: float | None
    unreadable: float | None
    score: Interval
    logprob_fall: Interval
    frames: float | None
    changed_frames: float | None
    not_asked: dict[str, int]
    faults: int


def tables(rows: Iterable[AuditRow], *, seed: int = 0) -> dict[str, list[Line]]:
    """Return the lines of each task, and of all tasks together if there are several.

    Args:
        rows: One per episode and condition.
        seed: Of the bootstraps, which resample videos.
    """
    rows = list(rows)
    tasks = list(dict.fromkeys(row.task for row in rows))
    found = {task: _lines([row for row in rows if row.task == task], seed) for task in tasks}
    return found | ({ALL_TASKS: _lines(rows, seed)} if len(tasks) > 1 else {})


def _lines(rows: Sequence[AuditRow], seed: int) -> list[Line]:
    by_key = {row.key: row for row in rows}
    return [_line(name, by_key, seed) for name in CONDITIONS] + [_beyond(by_key, seed)]


def reference(by_key: dict[Any, AuditRow], row: AuditRow) -> AuditRow | None:
    """Return the row of the same episode under the same frames, if it has an answer."""
    found = by_key.get((row.id, row.rollout_index, AGAIN))
    return found if found is not None and found.answer is not None else None


def changed(by_key: dict[Any, AuditRow], row: AuditRow) -> float | None:
    """Return 1 if an episode's answer is another one than under the same frames, else 0; ``None`` if nobody can say."""
    before = reference(by_key, row)
    if before is None or before.answer is None or row.outcome in ("fault", "not_asked"):
        return None
    return 1.0 - float(row.answer is not None and same_answer(row.answer, before.answer))


def reproduced(rows: Iterable[AuditRow], trajectories: Sequence[Trajectory]) -> tuple[int, int]:
    """Return how many episodes give their recorded answer under the same frames, and how many were asked."""
    recorded = {episode_key(one): one.answer for one in trajectories}
    same = known = 0
    for row in rows:
        answer = recorded.get((row.id, row.rollout_index))
        if row.condition == AGAIN and row.outcome != "fault" and answer is not None:
            known += 1
            same += row.answer is not None and same_answer(row.answer, answer)
    return same, known


def _fall(by_key: dict[Any, AuditRow], row: AuditRow) -> float | None:
    before = by_key.get((row.id, row.rollout_index, AGAIN))
    if before is None or before.logprob is None or row.logprob is None:
        return None
    return before.logprob - row.logprob


def _line(condition: str, by_key: dict[Any, AuditRow], seed: int) -> Line:
    rows = [row for row in by_key.values() if row.condition == condition]
    asked = [row for row in rows if row.outcome not in ("fault", "not_asked")]
    compared = [row for row in asked if reference(by_key, row) is not None]

    def interval(value: Callable[[AuditRow], float | None]) -> Interval:
        return bootstrap_interval(
            [value(row) for row in compared], [row.video for row in compared], seed=seed
        )

    def mean(values: Sequence[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return Line(
        condition, len(asked), len(compared),
        changed=interval(lambda row: changed(by_key, row)),
        looks=mean([float(row.outcome == "look") for row in compared]),
        unreadable=mean([float(row.outcome == "none") for row in compared]),
        score=interval(lambda row: row.score), logprob_fall=interval(lambda row: _fall(by_key, row)),
        frames=mean([float(row.num_frames) for row in compared]),
        changed_frames=mean([float(row.num_changed) for row in compared]),
        not_asked=dict(Counter(row.reason for row in rows if row.outcome == "not_asked")),
        faults=sum(row.outcome == "fault" for row in rows),
    )  # fmt: skip


def _beyond(by_key: dict[Any, AuditRow], seed: int) -> Line:
    """What ``without`` changes more than ``elsewhere``, episode by episode where both were asked."""
    pairs: list[tuple[AuditRow, AuditRow]] = []
    for row in by_key.values():
        other = by_key.get((row.id, row.rollout_index, ELSEWHERE))
        if row.condition == WITHOUT and other is not None and changed(by_key, row) is not None:
            pairs.append((row, other))
    pairs = [(one, two) for one, two in pairs if changed(by_key, two) is not None]

    def interval(value: Callable[[AuditRow], float | None]) -> Interval:
        ones, twos = [value(one) for one, _ in pairs], [value(two) for _, two in pairs]
        differences = [None if a is None or b is None else a - b for a, b in zip(ones, twos, strict=True)]
        return bootstrap_interval(differences, [one.video for one, _ in pairs], seed=seed)

    return Line(
        BEYOND, len(pairs), len(pairs), changed=interval(lambda row: changed(by_key, row)), looks=None,
        unreadable=None, score=interval(lambda row: row.score),
        logprob_fall=interval(lambda row: _fall(by_key, row)), frames=None, changed_frames=None,
        not_asked={}, faults=0,
    )  # fmt: skip


def facts(found: dict[str, list[Line]]) -> dict[str, Any]:
    """Return tables as JSON data: task -> condition -> figures."""
    return {task: {line.condition: asdict(line) for line in lines} for task, lines in found.items()}


def lines_of(found: dict[str, list[Line]]) -> list[str]:
    """Return tables as text for people."""
    said: list[str] = []
    width = len(BEYOND)
    for task, lines in found.items():
        said += ["", f"{task}: {lines[0].num_compared} answers"]
        said.append(
            f"  {'':<{width}}  {'asked':>5}  {'answer changed':<21}  {'looks':>5}  {'none':>5}  {'score':<21}  "
            f"{'log-prob falls by':<21}  {'frames':>6}  {'changed':>7}"
        )
        for line in lines:
            said.append(
                f"  {line.condition:<{width}}  {line.num_compared:>5}  {_span(line.changed):<21}  "
                f"{_cell(line.looks):>5}  {_cell(line.unreadable):>5}  {_span(line.score):<21}  "
                f"{_span(line.logprob_fall):<21}  {_cell(line.frames, 1):>6}  {_cell(line.changed_frames, 1):>7}"
            )
        for line in lines:
            if line.not_asked or line.faults:
                reasons = [f"{count} {reason}" for reason, count in line.not_asked.items()]
                reasons += [f"{line.faults} lost to machines"] if line.faults else []
                said.append(f"  {line.condition}: not asked {', '.join(reasons)}")
    return said


def _span(interval: Interval) -> str:
    if interval.mean is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3f}"
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _cell(value: float | None, decimals: int = 3) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
