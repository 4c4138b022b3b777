"""``timeloupe world make``: procedural videos with exact ground truth, as real MP4 files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from timeloupe.errors import boundary

MAX_MINUTES = 24 * 60


def make(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write to.", show_default=False)],
    seed: Annotated[int, typer.Option(help="Root seed; 1000000 to 1999999 is kept for evaluation.")] = 0,
    videos: Annotated[int, typer.Option(help="Number of videos.")] = 4,
    minutes: Annotated[
        str, typer.Option(metavar="LO:HI", help="Shortest and longest video in minutes.")
    ] = "3:10",
    tasks: Annotated[
        str,
        typer.Option(
            help="Kinds of questions, comma-separated: grounding, multiple_choice, multi_segment, what_when_where."
        ),
    ] = "grounding,multiple_choice",
    per_task: Annotated[int, typer.Option(help="Questions of each kind per video.")] = 1,
) -> None:
    """Write OUT/videos/*.mp4, OUT/examples.jsonl (questions) and OUT/truth.jsonl (everything that is true in them)."""
    from rich.console import Console
    from rich.progress import track

    from timeloupe.trajectory import Task
    from timeloupe.world.encode import TASKS, make_videos, plan_videos, refuse_other_world, write_world
    from timeloupe.world.script import ScriptSettings

    wanted = [task.strip() for task in tasks.split(",") if task.strip()]
    kinds: list[Task] = [task for task in TASKS if task in wanted]
    for task in wanted:
        if task not in TASKS:
            raise boundary("world task", task, TASKS)
    if not kinds:
        raise boundary("--tasks", tasks, TASKS, "name one or more")
    low, high = _minutes(minutes)
    if per_task < 1:
        raise boundary("questions per task", per_task, ">= 1")
    settings = ScriptSettings(min_seconds=60 * low, max_seconds=60 * high)
    # Before the first file is written: videos of other settings would have the same names.
    planned = plan_videos(
        out, seed=seed, num_videos=videos, settings=settings, tasks=kinds, per_task=per_task
    )
    refuse_other_world(out, list(planned))
    made = make_videos(out, seed=seed, num_videos=videos, settings=settings, tasks=kinds, per_task=per_task)
    console = Console(stderr=True)
    shown = track(made, "encoding", total=videos, console=console)
    num_videos, num_examples = write_world(out, iter(shown))
    console.print(f"{num_videos} videos and {num_examples} questions in {out}", highlight=False)


def _minutes(text: str) -> tuple[float, float]:
    parts = text.split(":")
    try:
        low, high = (float(part) for part in parts) if len(parts) == 2 else (float(text), float(text))
    except ValueError as error:
        raise boundary("--minutes", text, "LO:HI in minutes, such as 3:40") from error
    if not 0 < low <= high <= MAX_MINUTES:
        raise boundary("--minutes", text, f"LO:HI in minutes, 0 < LO <= HI <= {MAX_MINUTES}")
    return low, high
