"""``timeloupe reward``: what rewards there are, what they say of a run, and what they would teach."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timeloupe.errors import boundary

if TYPE_CHECKING:
    from rich.console import Console

    from timeloupe.reward.compose import Reward
    from timeloupe.reward.simulate import Cell, Mean, Simulation
    from timeloupe.trajectory import Score, Trajectory

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A preset, or the path of a .toml file.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def list_rewards(as_json: AsJson = False) -> None:
    """List the presets, and the parts that composites can be made of with the range of their values."""
    from timeloupe.reward.compose import load_reward, preset_names
    from timeloupe.reward.parts import PARTS

    presets = {name: load_reward(name).composite for name in preset_names()}
    if as_json:
        facts = {
            "presets": {
                name: {"title": one.title, "tasks": one.tasks, "tools": one.tools} for name, one in presets.items()
            },
            "parts": {name: {"low": low, "high": high} for name, (_, (low, high)) in sorted(PARTS.items())},
        }  # fmt: skip
        typer.echo(json.dumps(facts, indent=2))
        return
    console = _console()
    _rows(console, [("preset", "what it is"), *((name, one.title) for name, one in presets.items())])
    console.print()
    ranges = ((name, f"{low:g} to {high:g}") for name, (_, (low, high)) in sorted(PARTS.items()))
    _rows(console, [("part", "range"), *ranges])


def show(name: Name, as_json: AsJson = False) -> None:
    """Show what a reward is made of, where it comes from, and between what its total lies.

    Raises:
        ConfigError: There is no such preset, or the file is wrong (exit code 2).
        MissingError: There is no such file (exit code 3).
    """
    from timeloupe.reward.compose import load_reward

    reward = load_reward(name)
    composite = reward.composite
    bounds = {
        task: [[start, end, *reward.bounds(task, start)] for start, end in composite.phases]
        for task in composite.tasks
    }
    if as_json:
        facts = {"name": reward.name, **composite.model_dump(mode="json"), "bounds": bounds}
        typer.echo(json.dumps(facts, indent=2, allow_nan=False))
        return
    console = _console()
    console.print(_text(f"{reward.name}: {composite.title}", "bold"), soft_wrap=True)
    console.print(_text(f"source: {composite.source}"), soft_wrap=True)
    looks = "may look closer" if composite.tools else "answers at once"
    console.print(_text(f"protocol: {composite.protocol}, the model {looks}"), soft_wrap=True)
    for note in composite.notes:
        console.print(_text(note, "dim"), soft_wrap=True)
    console.print()
    lines = [("weight", "part", "constants", "when")]
    for use in composite.parts:
        label = use.part if use.label == use.part else f"{use.label} = {use.part}"
        constants = ", ".join(f"{key} {value}" for key, value in use.constants.items())
        lines.append((f"{use.weight:g}", label, constants or "defaults", _when(use)))
    _rows(console, lines)
    console.print()
    for task, phases in bounds.items():
        for start, end, low, high in phases:
            during = "" if (start, end) == (0.0, 1.0) else f" from {start:.0%} to {end:.0%} of training"
            console.print(_text(f"{task}{during}: within {low:g} to {high:g}"), soft_wrap=True)


def score(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a JSONL file of trajectories.", show_default=False)
    ],
    reward: Annotated[
        str, typer.Option("--reward", metavar="NAME", help="A preset, or the path of a .toml file.", show_default=False)
    ],
    progress: Annotated[
        float, typer.Option(help="Share of the training that is done, 0 to 1; schedules follow it.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Score the episodes of a run: n of N scored, mean of each part, and why episodes have no score.

    Exit code 1 says that no episode could be scored.

    Raises:
        ConfigError: There is no such preset, or the file is wrong (exit code 2).
        MissingError: There is no such run or file (exit code 3).
        RecordError: A line is not a valid trajectory (exit code 1).
    """
    from timeloupe.reward.base import Context
    from timeloupe.reward.compose import TOTAL, load_reward
    from timeloupe.serve.export import read_run

    if not 0 <= progress <= 1:
        raise boundary("--progress", progress, "0 to 1")
    chosen = load_reward(reward)
    episodes = read_run(run)
    scores = [chosen.score(episode, Context(progress=progress)) for episode in episodes]
    facts = _summary(chosen, episodes, scores) | {"run": str(run), "progress": progress}
    if as_json:
        typer.echo(json.dumps(facts, indent=2, allow_nan=False))
    else:
        _show_scores(facts)
    if all(one.parts[TOTAL] is None for one in scores):
        raise typer.Exit(1)


def simulate(
    name: Name,
    seed: Annotated[int, typer.Option(help="Same seed, same numbers.")] = 0,
    episodes: Annotated[
        int, typer.Option(help="Episodes of each policy in each task and phase, at least 20.")
    ] = 200,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw it: .png, .svg or .pdf.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Play archetypes of policies against a reward and rank what they earn, before a model is trained on it.

    Exit code 1 says that in some task a degenerate policy outranks honest looking: it earns more, by more than chance,
    than the honest policy that knows as much.

    Raises:
        ConfigError: There is no such preset, the file is wrong, or it cannot be simulated (exit code 2).
        MissingError: There is no such file, or --plot lacks its folder or matplotlib (exit code 3).
    """
    from rich.console import Console
    from rich.progress import Progress

    from timeloupe.reward.compose import load_reward
    from timeloupe.reward.simulate import simulate as play
    from timeloupe.reward.simulate_plot import check_plot
    from timeloupe.reward.simulate_plot import plot as draw

    reward = load_reward(name)
    if plot is not None:
        check_plot(plot)
    with Progress(console=Console(stderr=True), transient=True, disable=as_json) as bar:
        line = bar.add_task("playing", total=None)
        done = play(
            reward, seed=seed, episodes=episodes,
            on_cell=lambda count, total: bar.update(line, completed=count, total=total),
        )  # fmt: skip
    if plot is not None:
        draw(done, plot)
    if as_json:
        facts = asdict(done)
        facts["outranking"] = [
            {"task": cell.task, "phase": cell.phase, "archetype": row.archetype} for cell, row in done.outranking
        ]  # fmt: skip
        typer.echo(json.dumps(facts, indent=2, allow_nan=False))
    else:
        _show_simulation(done)
    if done.outranking:
        raise typer.Exit(1)


# -- people's text -----------------------------------------------------------------------------------------------------


def _summary(reward: Reward, episodes: list[Trajectory], scores: list[Score]) -> dict[str, Any]:
    """Return n of N, means and reasons as JSON data."""
    from timeloupe.reward.compose import TOTAL
    from timeloupe.runs import training_step

    labels = dict.fromkeys(label for one in scores for label in one.parts)
    parts = {label: _mean_of([one.parts[label] for one in scores if label in one.parts]) for label in labels}
    tasks: dict[str, list[float | None]] = {}
    for episode, one in zip(episodes, scores, strict=True):
        tasks.setdefault(episode.example.task, []).append(one.parts[TOTAL])
    return {
        "reward": reward.name,
        **parts.pop(TOTAL),
        "tasks": {task: _mean_of(totals) for task, totals in tasks.items()},
        "parts": parts,
        "reasons": dict(Counter(one.reasons[TOTAL] for one in scores if TOTAL in one.reasons).most_common()),
        "protocol": reward.composite.protocol,
        "protocols_of_run": dict(Counter(episode.protocol for episode in episodes).most_common()),
        "episodes": [
            {"id": episode.example.id, "rollout_index": episode.rollout_index, "step": training_step(episode)}
            | one.model_dump()
            for episode, one in zip(episodes, scores, strict=True)
        ],
    }


def _mean_of(values: Sequence[float | None]) -> dict[str, Any]:
    scored = [value for value in values if value is not None]
    mean = math.fsum(scored) / len(scored) if scored else None
    return {"mean": mean, "scored": len(scored), "total": len(values)}


def _show_scores(facts: dict[str, Any]) -> None:
    console = _console()
    mean = "none" if facts["mean"] is None else f"{facts['mean']:.4f}"
    head = f"{facts['reward']}: mean reward {mean}, {facts['scored']} of {facts['total']} episodes scored"
    console.print(_text(f"{head}, progress {facts['progress']:g}", "bold"), soft_wrap=True)
    for heading, group in (("task", facts["tasks"]), ("part", facts["parts"])):
        if group and (heading == "part" or len(group) > 1):
            means = (
                (
                    name,
                    "-" if one["mean"] is None else f"{one['mean']:.4f}",
                    f"{one['scored']} of {one['total']}",
                )
                for name, one in group.items()
            )
            _rows(console, [(heading, "mean", "scored"), *means])
    for reason, count in facts["reasons"].items():
        console.print(_text(f"{count} not scored: {reason}", "yellow"), soft_wrap=True)
    for protocol, count in facts["protocols_of_run"].items():
        if protocol != facts["protocol"]:
            words = f"{count} episodes speak {protocol!r}; this reward was made for {facts['protocol']!r}"
            console.print(_text(words, "yellow"), soft_wrap=True)


def _show_simulation(simulation: Simulation) -> None:
    from timeloupe.reward.archetypes import ARCHETYPES

    console = _console()
    for cell in simulation.cells:
        console.print(_text(f"{simulation.name}, {_cell_name(cell)}", "bold"), soft_wrap=True)
        lines = [("", "policy", "mean reward", "difference to", "")]
        for rank, row in enumerate(cell.rows, 1):
            against = ARCHETYPES[row.archetype].against
            compared = "" if row.excess is None else f"{against} {_signed(row.excess)}"
            note = (
                "OUTRANKS"
                if row.outranks
                else "same pay"
                if row.ties
                else "honest"
                if against is None
                else ""
            )
            lines.append((str(rank), row.archetype, _interval(row.reward), compared, note))
        _rows(console, lines)
        gaps = cell.gaps
        console.print(
            _text(
                f"looking well less never looking: {_signed(gaps['total'])}; paid for looking itself: "
                f"{_signed(gaps['itself'])}; at the start of training: {_signed(gaps['beginner'])}"
            ),
            soft_wrap=True,
        )
        console.print()
    ranking = "  ".join(f"{name} {mean:.2f}" for name, mean in simulation.overall.items())
    console.print(_text(f"over all tasks: {ranking}"), soft_wrap=True)
    if not simulation.outranking:
        console.print(_text("verdict: no degenerate policy outranks honest looking", "green"), soft_wrap=True)
    for cell, row in simulation.outranking:
        assert row.excess is not None
        words = f"{row.archetype} earns {_signed(row.excess)} against {ARCHETYPES[row.archetype].against}"
        console.print(_text(f"verdict: {_cell_name(cell)}: {words}", "red"), soft_wrap=True)


def _cell_name(cell: Cell) -> str:
    during = "" if cell.phase == (0.0, 1.0) else f", {cell.phase[0]:.0%} to {cell.phase[1]:.0%} of training"
    return cell.task.replace("_", " ") + during


def _interval(mean: Mean) -> str:
    if mean.mean is None or mean.high is None:
        return "unscored"
    counted = "" if mean.num_scored == mean.num_total else f" ({mean.num_scored} of {mean.num_total})"
    return f"{mean.mean:.3f} ±{mean.high - mean.mean:.3f}{counted}"


def _signed(mean: Mean) -> str:
    if mean.mean is None or mean.high is None:
        return "unscored"
    return f"{mean.mean:+.3f} ±{mean.high - mean.mean:.3f}"


def _when(use: Any) -> str:
    words: list[str] = []
    if use.tasks:
        words.append(" and ".join(use.tasks))
    if (use.from_progress, use.to_progress) != (0.0, 1.0):
        words.append(f"{use.from_progress:.0%} to {use.to_progress:.0%} of training")
    if use.gate is not None:
        words.append(f"if {use.gate.part} >= {use.gate.at_least:g}")
    if use.times is not None:
        words.append(f"times {use.times}")
    if use.optional:
        words.append("skipped where unscored")
    return "; ".join(words) or "always"


def _rows(console: Console, lines: list[tuple[str, ...]]) -> None:
    """Print lines in columns, the first as their heading."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in lines[0]:
        table.add_column(title, overflow="fold")
    for line in lines[1:]:
        table.add_row(*(_text(cell) for cell in line))
    console.print(table)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _text(words: str, style: str = "") -> Any:
    from rich.text import Text

    from timeloupe.cli.show import printable

    return Text(printable(words), style=style)
