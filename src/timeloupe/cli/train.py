"""``timeloupe train sft``: supervised fine-tuning from a recipe."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from timeloupe.errors import ConfigError, MissingError


def sft(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML recipe.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default: runs/ and the recipe's name.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe value.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
    threads: Annotated[
        int, typer.Option(help="CPU threads; more than one was slower wherever we measured.")
    ] = 1,
) -> None:
    """Fine-tune a checkpoint, or train the small model from nothing; the finished model is in OUT/model."""
    from timeloupe.config import load_recipe

    try:
        import torch

        from timeloupe.train.recipe import SftRecipe
        from timeloupe.train.sft import train_sft
    except ModuleNotFoundError as error:
        raise MissingError(
            f"training needs {error.name!r}; install it with `pip install torch==2.13.0` and "
            "`pip install 'timeloupe[train]'`"
        ) from error
    resolved = load_recipe(recipe, set_ or [], SftRecipe)
    if dry_run:
        typer.echo(resolved.model_dump_json(indent=2))
        return
    if threads < 1:
        raise ConfigError(f"--threads must be >= 1, got {threads}")
    torch.set_num_threads(threads)
    folder = out or Path("runs") / recipe.stem

    from rich.console import Console

    console = Console(stderr=True)

    def show(row: dict[str, Any]) -> None:
        figures = "  ".join(
            f"{key} {value:.3f}" for key, value in row.items() if key not in ("stage", "step", "targets")
        )
        console.print(f"{row['stage']} {row['step']:>5}  {figures}", highlight=False)

    try:
        finished = train_sft(resolved, folder, resume=resume, on_log=show)
    except KeyboardInterrupt:
        words = [
            "timeloupe",
            "train",
            "sft",
            str(recipe),
            "--out",
            str(folder),
            "--threads",
            str(threads),
            "--resume",
        ]
        for override in set_ or []:
            words += ["--set", override]
        console.print(
            f"stopped; go on with: {shlex.join(words)}", highlight=False, markup=False, soft_wrap=True
        )
        raise
    typer.echo(str(finished))
