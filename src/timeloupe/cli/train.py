"""``timeloupe train``: supervised fine-tuning and reinforcement learning from recipes."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timeloupe.errors import ConfigError, MissingError, TimeloupeError

if TYPE_CHECKING:
    from rich.console import Console

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML recipe.", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="Run folder; default: runs/KIND-NAME of the recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe value.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")]
Threads = Annotated[int, typer.Option(help="CPU threads; more than one was slower wherever we measured.")]


def sft(
    recipe: RecipePath,
    out: Out = None,
    set_: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    threads: Threads = 1,
) -> None:
    """Fine-tune a checkpoint, or train the small model from nothing; the finished model is in OUT/model."""
    with _needs_torch():
        from timeloupe.train.recipe import SftRecipe
        from timeloupe.train.sft import train_sft
    resolved = _resolved(recipe, set_, SftRecipe, dry_run, threads)
    if resolved is None:
        return
    folder = out or default_folder("sft", recipe)
    console = _console()

    def show(row: dict[str, Any]) -> None:
        figures = "  ".join(
            f"{key} {value:.3f}" for key, value in row.items() if key not in ("stage", "step", "targets")
        )
        console.print(f"{row['stage']} {row['step']:>5}  {figures}", highlight=False)

    with _says_how_to_go_on(console, "sft", recipe, folder, threads, set_):
        typer.echo(str(train_sft(resolved, folder, resume=resume, on_log=show)))


SHOWN = (
    "reward",
    "looks",
    "crop_iou",
    "answer_iou",
    "right",
    "kl",
    "clip_share",
    "gap_max",
    "rollout_seconds",
    "update_seconds",
)


def grpo(
    recipe: RecipePath,
    out: Out = None,
    set_: Overrides = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    threads: Threads = 1,
) -> None:
    """Train a model by reinforcement learning on its own multi-turn episodes; the finished model is in OUT/model.

    Every step is a line of OUT/metrics.jsonl; the episodes are in OUT/trajectories.jsonl (`timeloupe view OUT`).
    Several processes: `torchrun --nproc-per-node 8 -m timeloupe train grpo RECIPE` shares each batch among them; with
    `accelerate launch --config_file recipes/accelerate/fsdp.yaml -m ...` the model is cut among them as well.
    """
    with _needs_torch():
        from timeloupe.engines.rollouts import make_policy
        from timeloupe.train.grpo import train_grpo
        from timeloupe.train.grpo_recipe import GrpoRecipe
    resolved = _resolved(recipe, set_, GrpoRecipe, dry_run, threads)
    if resolved is None:
        return
    folder = out or default_folder("grpo", recipe)
    console = _console()

    def show(row: dict[str, Any]) -> None:
        console.print(step_line(row, resolved.steps), highlight=False)

    with (
        _says_how_to_go_on(console, "grpo", recipe, folder, threads, set_),
        tells_of_videos(console) as on_video,
    ):
        made = train_grpo(
            resolved, folder, resume=resume, on_log=show, on_video=on_video, make_policy=make_policy
        )
        typer.echo(str(made))


def step_line(row: Mapping[str, Any], steps: int) -> str:
    """Return one step for people; how many roll-outs have a reward is said where not all have."""
    figures = [f"{key} {row[key]:.3f}" for key in SHOWN if key in row]
    if row["scored"] < row["rollouts"]:
        figures.insert(0, f"scored {row['scored']}/{row['rollouts']}")
    return f"{row['step']:>5}/{steps}  " + "  ".join(figures)


def plan(
    recipe: RecipePath,
    set_: Overrides = None,
    model: Annotated[
        str | None,
        typer.Option(help="Folder, or qwen2.5-vl-7b, qwen3-vl-8b; default: the recipe's checkpoint."),
    ] = None,
    gpus: Annotated[int, typer.Option(help="How many GPUs.")] = 8,
    gpu: Annotated[str, typer.Option(help="a100, h100 or h200.")] = "h100",
    sharded: Annotated[bool, typer.Option(help="Launched with recipes/accelerate/fsdp.yaml.")] = True,
    looks: Annotated[int, typer.Option(help="Turns of an episode that look.")] = 1,
    reply_tokens: Annotated[int, typer.Option(help="Mean tokens of a reply.")] = 300,
    utilisation: Annotated[float, typer.Option(help="Share of the GPU's peak that is reached.")] = 0.35,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compute what a recipe of reinforcement learning needs per GPU: memory and time. Nothing is run or downloaded."""
    with _needs_torch():
        from timeloupe.model.sizes import model_sizes
        from timeloupe.train.grpo_recipe import GrpoRecipe
        from timeloupe.train.plan import Assumptions, episode_settings, plan, show
    resolved = _resolved(recipe, set_, GrpoRecipe, False, 1)
    source = model or str(resolved.model.checkpoint)
    sizes = model_sizes(source)
    given = Assumptions(gpus, gpu, sharded and gpus > 1, looks, reply_tokens, utilisation=utilisation)
    found = plan(resolved, sizes, episode_settings(resolved, sizes, source), given)
    typer.echo(json.dumps(found, indent=2) if json_ else show(found))


def default_folder(kind: str, recipe: Path) -> Path:
    """Return the run folder of a recipe that is given no other: recipes of two kinds may have one name."""
    return Path("runs") / f"{kind}-{recipe.stem}"


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


@contextmanager
def _needs_torch() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingError(
            f"training needs {error.name!r}; install it with `pip install torch==2.13.0` and "
            "`pip install 'timeloupe[train]'`"
        ) from error


def _resolved(recipe: Path, set_: list[str] | None, kind: Any, dry_run: bool, threads: int) -> Any:
    """Return the recipe, or ``None`` where it was only to be printed."""
    import torch

    from timeloupe.config import load_recipe

    resolved = load_recipe(recipe, set_ or [], kind)
    if dry_run:
        typer.echo(resolved.model_dump_json(indent=2))
        return None
    if threads < 1:
        raise ConfigError(f"--threads must be >= 1, got {threads}")
    torch.set_num_threads(threads)
    return resolved


@contextmanager
def _says_how_to_go_on(
    console: Console, command: str, recipe: Path, folder: Path, threads: int, set_: list[str] | None
) -> Iterator[None]:
    """Print the command that goes on with a run which Ctrl-C ends, or a full disk.

    Raises:
        TimeloupeError: A file could not be written or read; says how to go on afterwards.
    """

    def how() -> str:
        words = ["timeloupe", "train", command, str(recipe), "--out", str(folder), "--threads", str(threads)]
        begun = (folder / "recipe.json").exists()
        words += ["--resume"] if begun else []
        for override in set_ or []:
            words += ["--set", override]
        # What was made before the run began, such as videos, is used again.
        return f"{'go on' if begun else 'no step was done, begin again'} with: {shlex.join(words)}"

    try:
        yield
    except KeyboardInterrupt:
        console.print(f"stopped; {how()}", highlight=False, markup=False, soft_wrap=True)
        raise
    except BrokenPipeError:  # whoever read our output has gone: no fault of the run
        raise
    except OSError as error:
        raise TimeloupeError(f"{error}; when that is mended, {how()}") from error


VIDEOS_EVERY_SECONDS = 10.0


@contextmanager
def tells_of_videos(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Give what shows how many videos are made, of how many: a bar on a terminal, else now and then a line."""
    from rich.progress import Progress

    with ExitStack() as held:
        bars: list[Progress] = []
        said = [time.monotonic()]

        def tell(done: int, total: int) -> None:
            if not console.is_terminal:
                if time.monotonic() - said[0] >= VIDEOS_EVERY_SECONDS:
                    said[0] = time.monotonic()
                    console.print(f"making the world: {done} of {total} videos", highlight=False)
                return
            if not bars:
                bars.append(held.enter_context(Progress(console=console)))
                bars[0].add_task("making the world", total=total)
            bars[0].update(bars[0].task_ids[0], completed=done)
            if done == total:
                bars[0].stop()

        yield tell
