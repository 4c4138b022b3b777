"""``timeloupe demo``: the small model looks for a moment in a long video, then its figures on held-out questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from timeloupe.trajectory import Example

LONG_MINUTES = (20.0, 40.0)
BINS_MINUTES = ((3.0, 10.0), (10.0, 20.0), (20.0, 40.0))
CONTROLS = ("question_only", "whole_video", "middle", "random")


def demo(
    seed: Annotated[int, typer.Option(help="Any seed gives fresh videos.", min=0)] = 0,
    questions: Annotated[int, typer.Option(help="Held-out questions for the table.", min=2)] = 40,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/demo-SEED.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the table as one JSON object on stdout.")
    ] = False,
) -> None:
    """Make a 20 to 40 minute video, ask one question about it, then compare looking closer with a single pass."""
    from rich.console import Console
    from rich.progress import Progress

    from timeloupe.cli.show import EpisodePrinter
    from timeloupe.environment.rollout import play
    from timeloupe.environment.settings import make_settings
    from timeloupe.eval.compare import SECTIONS, compare, summarise
    from timeloupe.policy.small import load_small_policy
    from timeloupe.prompt.protocol import PROTOCOLS
    from timeloupe.runs import create_run
    from timeloupe.serve.export import export_page

    console = Console(stderr=True)
    policy, episode, protocol_name = load_small_policy()
    settings, protocol = make_settings(episode), PROTOCOLS[protocol_name]
    folder = out or Path("runs") / f"demo-{seed}"
    run = create_run(folder, {"command": "demo", "seed": seed, "questions": questions, "episode": episode})

    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("making a long video", total=1)
        example = _make(
            folder / "world" / "long", 2 * seed, 1, (LONG_MINUTES,), lambda: progress.advance(bar)
        )[0]
    console.rule("one question about a long video")
    run.append(
        play([example], policy, protocol, settings, seed=seed, on_event=EpisodePrinter(console, example))[0]
    )
    console.rule(f"{questions} held-out questions")
    with Progress(console=console, transient=True) as progress:
        num_videos = (questions + 1) // 2
        bar = progress.add_task("making held-out videos", total=num_videos)
        held_out = _make(
            folder / "world" / "held-out",
            2 * seed + 1,
            num_videos,
            BINS_MINUTES,
            lambda: progress.advance(bar),
        )[:questions]
        bars = {name: progress.add_task(name.replace("_", " "), total=len(held_out)) for name in SECTIONS[:3]}
        sections = compare(
            held_out, policy, protocol, settings, seed=seed,
            on_progress=lambda name, count: progress.advance(bars[name], count),
        )  # fmt: skip
    for trajectory in sections["agentic"].trajectories:
        run.append(trajectory)
    table = {name: summarise(section.outcomes, section.seconds) for name, section in sections.items()}
    if as_json:
        kept = {"agentic": table["agentic"], "single_pass": table["single_pass"]}
        typer.echo(json.dumps(kept | {"controls": {name: table[name] for name in CONTROLS}}))
    _print_table(table, console)
    for name, section in sections.items():
        if unscored := sum(one.unscored for one in section.outcomes):
            console.print(
                f"{name.replace('_', ' ')}: {unscored} of {len(section.outcomes)} questions have no score, the machine "
                "failed",
                style="red",
            )
    console.print(f"page: {export_page(folder).path}", highlight=False, soft_wrap=True)


def _make(
    folder: Path, number: int, num_videos: int, bins: tuple[tuple[float, float], ...], tick: Any
) -> list[Example]:
    """Make evaluation videos, one length bin after another, and return their questions, two a video."""
    from timeloupe.trajectory import Task
    from timeloupe.world.encode import make_videos
    from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings

    lengths = [ScriptSettings(min_seconds=60 * low, max_seconds=60 * high) for low, high in bins]
    tasks: tuple[Task, ...] = ("multiple_choice", "grounding")
    made = make_videos(
        folder, seed=EVALUATION_SEEDS[number % len(EVALUATION_SEEDS)], num_videos=num_videos,
        settings_of=lambda index: lengths[index % len(lengths)], tasks=tasks,
    )  # fmt: skip
    examples: list[Example] = []
    for video in made:
        examples += [example.model_copy(update={"video": str(video.path)}) for example in video.examples]
        tick()
    return examples


def _print_table(table: dict[str, dict[str, float | int | None]], console: Console) -> None:
    from rich.table import Table

    columns = {
        "miou": "mIoU", "recall_at_0.3": "R@.3", "recall_at_0.5": "R@.5", "recall_at_0.7": "R@.7",
        "accuracy": "letter", "crops_per_question": "crops", "seconds_per_question": "secs",
        "frames_decoded_per_question": "frames",
    }  # fmt: skip
    shown = Table(title="Looking closer against one look: same questions, same skim", title_justify="left")
    shown.add_column("", no_wrap=True)
    for title in columns.values():
        shown.add_column(title, justify="right", no_wrap=True)
    for name, figures in table.items():
        looks = name not in CONTROLS[1:]
        costs = ("crops_per_question", "seconds_per_question", "frames_decoded_per_question")
        cells = [_cell(figures[key] if looks or key not in costs else None) for key in columns]
        shown.add_row(name.replace("_", " "), *cells)
    console.print(shown)
    console.print(
        "mIoU and R@ over grounding questions, letter accuracy over multiple choice; secs, decoded frames a question",
        style="dim",
    )


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"
