"""What a step of reinforcement learning looked like: figures of its roll-outs and updates, one JSON line per step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from timeloupe.errors import RecordError
from timeloupe.grounding import set_iou
from timeloupe.runs import TRAJECTORIES, write_atomic
from timeloupe.train.exploration import is_constructed
from timeloupe.train.trackers import Trackers
from timeloupe.train.training_run import step_line
from timeloupe.trajectory import Segment, StopReason, Trajectory, to_line

METRICS = "metrics.jsonl"


def step_figures(
    trajectories: Sequence[Trajectory], lengths: Sequence[int], updates: Sequence[dict[str, float]]
) -> dict[str, Any]:
    """Return the figures of one step.

    Args:
        trajectories: All roll-outs.
        lengths: Learnt tokens of each that was scored.
        updates: Figures of each pass.

    Returns:
        ``reward`` and ``reward/PART`` (means over scored roll-outs), ``scored`` of ``rollouts``, ``looks`` (share of
        episodes with a crop), ``turns`` and ``crops`` per episode (these three without episodes that a machine's fault
        ended, and missing where it ended all), ``crop_iou`` and ``answer_iou`` (union of the last
        crops, of the answered segments, with the truth; only rows that have one), ``right`` (share of right option
        letters), ``stop/REASON`` shares, ``reply_tokens`` (mean of a reply) and ``reply_tokens_max``,
        ``generated_tokens`` (what the policy began itself; ``constructed_tokens``, if there are any, of the other
        roll-outs) and ``learnt_tokens`` (total), ``tokens`` (learnt ones per roll-out), ``flat_groups``
        (share of groups whose rewards are all equal), ``frames_decoded``, ``frames_cached``, the updates' means, and
        with several updates ``clip_share/N`` and ``ratio_distance/N`` of each, from 1.
    """
    count = max(len(trajectories), 1)
    figures: dict[str, Any] = {"rollouts": len(trajectories), "scored": len(lengths)}
    parts: dict[str, list[float]] = {}
    for one in trajectories:
        for name, value in one.score.parts.items():
            if value is not None:
                parts.setdefault(name, []).append(value)
    for name, values in sorted(parts.items()):
        figures["reward" if name == "reward" else f"reward/{name}"] = _mean(values)
    ended = [one for one in trajectories if one.stop is not StopReason.INFRASTRUCTURE]
    if ended:
        figures["looks"] = _mean([bool(one.crops) for one in ended])
        figures["turns"] = _mean([len(one.turns) for one in ended])
        figures["crops"] = _mean([len(one.crops) for one in ended])
    figures |= _quality(trajectories)
    stops = Counter(one.stop for one in trajectories)
    figures |= {f"stop/{reason.value}": stops[reason] / count for reason in StopReason if stops[reason]}
    replies = [one for trajectory in trajectories for one in _reply_lengths(trajectory)]
    figures["reply_tokens"] = sum(replies) / max(len(replies), 1)
    figures["reply_tokens_max"] = max(replies, default=0)
    begun = [
        one for trajectory in trajectories if is_constructed(trajectory) for one in _reply_lengths(trajectory)
    ]
    # Part of a constructed reply was given, not sampled, and how much of it is not recorded.
    figures["generated_tokens"], figures["learnt_tokens"] = sum(replies) - sum(begun), sum(lengths)
    if begun:
        figures["constructed_tokens"] = sum(begun)
    figures["tokens"] = sum(lengths) / max(len(lengths), 1)
    figures["flat_groups"] = _flat(trajectories)
    figures["frames_decoded"] = sum(one.frames_decoded for one in trajectories)
    figures["frames_cached"] = sum(one.frames_cached for one in trajectories)
    taken = [one for one in updates if one]
    for name in dict.fromkeys(name for one in taken for name in one):
        figures[name] = _mean([one[name] for one in taken])
    for number, one in enumerate(taken if len(updates) > 1 else (), 1):
        # The first update is at the policy that sampled; only the later ones have anything to clip.
        figures |= {f"{name}/{number}": one[name] for name in ("clip_share", "ratio_distance") if name in one}
    return figures


def phase_seconds(
    figures: Mapping[str, Any], began: float, rolled: float, prepared: float, ended: float
) -> dict[str, float]:
    """Return how long the phases of a step took, and the tokens per second of all processes together.

    Args:
        figures: Of the step, for its token counts.
        began: When the step began, on any clock in seconds; then, in order:
        rolled: When the roll-outs were played.
        prepared: When they were scored and made samples.
        ended: When the last update was over.
    """
    rollout, update = rolled - began, ended - prepared
    return {
        "rollout_seconds": rollout, "prepare_seconds": prepared - rolled, "update_seconds": update,
        "generated_tokens_per_second": figures["generated_tokens"] / max(rollout, 1e-9),
        "learnt_tokens_per_second": figures["learnt_tokens"] / max(update, 1e-9),
    }  # fmt: skip


def _reply_lengths(trajectory: Trajectory) -> list[int]:
    """Tokens of every reply, begun ones with their beginning; a reply that a machine's fault cut off is none."""
    generations = [turn.generation for turn in trajectory.turns]
    return [
        (one.usage.completion_tokens or 0) if one.token_ids is None else len(one.token_ids)
        for one in generations
        if one.finish != "error"
    ]


def _quality(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Means that no reward enters: what the crops and answers are worth."""
    crops: list[float] = []
    answers: list[float] = []
    right: list[float] = []
    for one in trajectories:
        if one.stop is StopReason.INFRASTRUCTURE:
            continue
        truth = one.example.segments
        if truth and one.crops:
            crops.append(set_iou(_last_crops(one), truth))
        if truth and one.example.task != "multiple_choice":
            answers.append(set_iou(one.answer.segments if one.answer else (), truth))
        if one.example.options:
            right.append(float(one.answer is not None and one.answer.option == one.example.answer))
    named = {"crop_iou": crops, "answer_iou": answers, "right": right}
    return {name: _mean(values) for name, values in named.items() if values}


def _last_crops(trajectory: Trajectory) -> list[Segment]:
    for turn in reversed(trajectory.turns):
        if turn.observation is not None and turn.observation.frame_refs and turn.call is not None:
            return list(turn.call.segments)
    return []


def _flat(trajectories: Sequence[Trajectory]) -> float:
    groups: dict[str, set[float]] = {}
    for one in trajectories:
        value = one.score.parts.get("reward")
        if value is not None:
            groups.setdefault(one.example.id, set()).add(value)
    return sum(len(values) == 1 for values in groups.values()) / max(len(groups), 1)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class StepLog:
    """Appends steps to metrics.jsonl and their roll-outs to trajectories.jsonl.

    Args:
        folder: Run folder. Lines of steps from ``done`` on are of a killed run behind its last checkpoint; they are
            dropped, since these steps are played again.
        done: Steps that stand.
        on_log: Called with every line.
        trackers: Sent every line.

    Raises:
        RecordError: A line of a resumed run is damaged.
    """

    def __init__(
        self,
        folder: Path,
        done: int,
        on_log: Callable[[dict[str, Any]], None] | None,
        trackers: Trackers | None = None,
    ) -> None:
        self.folder = folder
        self.trackers = trackers
        self.on_log = on_log
        self._keep(folder / METRICS, done, lambda line: int(line["step"]))
        self._keep(folder / TRAJECTORIES, done, lambda line: int(line["settings"]["step"]))

    def __call__(self, step: int, figures: dict[str, Any], trajectories: Sequence[Trajectory]) -> None:
        """Write one step: its roll-outs first, so that a step with metrics has them all."""
        with (self.folder / TRAJECTORIES).open("a", encoding="utf-8") as out:
            for one in trajectories:
                marked = one.model_copy(update={"settings": one.settings | {"step": step}})
                out.write(to_line(marked) + "\n")
        row = {"step": step} | {name: _rounded(value) for name, value in figures.items()}
        with (self.folder / METRICS).open("a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")
        if self.trackers is not None:
            self.trackers(row)
        if self.on_log is not None:
            self.on_log(row)

    @staticmethod
    def _keep(path: Path, done: int, step_of: Callable[[dict[str, Any]], int]) -> None:
        if not path.exists():
            return
        # Only "\n" ends a line: a reply may hold what else ``splitlines`` takes for an end, such as U+2028.
        with path.open("rb") as lines:
            kept: list[bytes] = []
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    continue
                try:
                    step = step_of(step_line(path, number, line))
                except (KeyError, TypeError, ValueError) as error:
                    raise RecordError(
                        f"{path}:{number} names no step; mend or remove that line and resume"
                    ) from error
                if step < done:
                    kept.append(line)
        write_atomic(path, b"".join(kept))


def _rounded(value: Any) -> Any:
    """Six decimals, and four digits of what is smaller than a thousandth: a rate of 1e-7 is not 0."""
    if not isinstance(value, float):
        return value
    return round(value, 6) if abs(value) >= 1e-3 else float(f"{value:.4g}")
