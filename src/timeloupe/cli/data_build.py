"""``timeloupe data build``: training rows from videos, labelled by a model and checked."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timeloupe.cli.train import default_folder
from timeloupe.errors import TimeloupeError, boundary

if TYPE_CHECKING:
    from rich.console import Console

    from timeloupe.data.build.labelling import Labeller
    from timeloupe.data.build.recipe import BuildRecipe
    from timeloupe.trajectory import Example


def build(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="TOML recipe.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the build; default: runs/build-NAME of the recipe.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe value.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="threads, or ray: actors on this machine or a cluster.")
    ] = "threads",
    actors: Annotated[int, typer.Option(min=1, help="Actors of Ray, each with a labeller of its own.")] = 2,
    actor_gpus: Annotated[float, typer.Option(min=0, help="GPUs of one actor, or a part of one.")] = 0.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the build in the folder.")] = False,
    concurrency: Annotated[
        int, typer.Option(help="Batches at once, of each actor; for a served labeller: items at once.")
    ] = 1,
    limit: Annotated[int | None, typer.Option(help="Only the first so many rows of the source.")] = None,
    max_cost: Annotated[
        float | None, typer.Option(metavar="USD", help="Stop when the build has cost so much, resumably.")
    ] = None,
    max_hours: Annotated[float | None, typer.Option(help="Stop after so long, resumably.")] = None,
    fail_on_error: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Go on to the next stage when no larger share of a stage's items was lost to failing calls.",
        ),
    ] = 0.0,
    retry_videos: Annotated[
        bool, typer.Option("--retry-videos", help="Make rows again whose video could not be read.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and what it will take, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON document.")] = False,
) -> None:
    """Label, check, ground again: rows to learn from, in OUT/trajectories.jsonl, with why each one was kept or not.

    Exit code 1 says that the build is not complete: the budget was spent, or calls kept failing.

    Raises:
        ConfigError: A flag or the recipe is wrong, or the folder holds another build (exit code 2).
        MissingError: A file is not there (exit code 3).
    """
    from rich.console import Console

    from timeloupe.config import load_recipe
    from timeloupe.data.build.build import DONE, MONEY, STOPPED, Budget, Build, threads
    from timeloupe.data.build.recipe import BuildRecipe
    from timeloupe.data.build.source import missing_videos, read_source
    from timeloupe.runs import lock_run

    if engine not in ENGINES:
        raise boundary("--engine", engine, ENGINES)
    for name, value in (("--concurrency", concurrency), ("--max-cost", max_cost), ("--max-hours", max_hours)):
        if value is not None and not 0 < value < float("inf"):
            raise boundary(name, value, "> 0")
    resolved = load_recipe(recipe, set_ or [], BuildRecipe)
    examples = read_source(resolved.source, limit)
    console = Console(stderr=True, soft_wrap=True)
    if missing := missing_videos(examples):
        console.print(
            f"{len(missing)} videos are not there, such as {missing[0]!r:.300}: their rows end with the reason "
            "'video', and are made again with --resume --retry-videos; source.videos names their folder",
            highlight=False, markup=False, style="yellow",
        )  # fmt: skip
    if dry_run:
        _plan(resolved, make_labeller(resolved, examples), examples, as_json)
        return
    if max_cost is not None and resolved.labeller.price is None:
        raise boundary(
            "--max-cost", max_cost, "a recipe with labeller.price", "set it, as USD for a million tokens"
        )
    folder = out or default_folder("build", recipe)
    words = ["timeloupe", "data", "build", str(recipe), "--out", str(folder), "--resume"]
    words += [word for override in set_ or [] for word in ("--set", override)]
    words += ["--limit", str(limit)] if limit is not None else []
    words += ["--concurrency", str(concurrency)] if concurrency != 1 else []
    words += ["--fail-on-error", f"{fail_on_error:g}"] if fail_on_error else []
    words += ["--engine", engine, "--actors", str(actors)] if engine != "threads" else []
    words += ["--actor-gpus", f"{actor_gpus:g}"] if actor_gpus else []
    # What was a limit stays one: whoever copies the command must not spend without end.
    words += ["--max-cost", f"{max_cost:g}"] if max_cost is not None else []
    words += ["--max-hours", f"{max_hours:g}"] if max_hours is not None else []
    stop = threading.Event()
    if engine == "ray":
        from timeloupe.engines.ray import Actors, ray_actors

        make = partial(make_labeller, resolved, examples)
        work_through = ray_actors(make, Actors(actors, concurrency, actor_gpus))
    else:
        # A stopped build does not wait for a server to come back.
        labeller = replace(make_labeller(resolved, examples), sleep=stop.wait)
        work_through = threads(labeller, concurrency)
    with lock_run(folder), _says_how_to_go_on(console, words):
        _open(folder, resolved, examples, limit, resume)
        show = _Progress(console)
        at_work = Build(
            resolved, folder, examples, work_through,
            batch=resolved.labeller.batch if resolved.labeller.policy in ("small", "local", "oracle") else 1,
            budget=Budget(max_cost, None if max_hours is None else 3600 * max_hours), on_row=show, stop=stop,
            fail_on_error=fail_on_error, retry_videos=retry_videos,
        )  # fmt: skip
        with _two_stages(stop, console):
            summary = at_work.run()
    show.end()
    if as_json:
        typer.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        _show(summary, folder)
    for name, stage in summary["stages"].items():
        if stage.get("faults"):
            _say_faults(console, name, stage, fail_on_error)
    if summary["ended"] != DONE:
        raised = ", with a larger --max-cost," if summary["ended"] == MONEY else ""
        line = f"not complete ({summary['ended']}); go on{raised} with: {shlex.join(words)}"
        console.print(line, highlight=False, markup=False)
        if summary["ended"] == STOPPED:
            raise KeyboardInterrupt
        raise typer.Exit(1)


def make_labeller(recipe: BuildRecipe, examples: list[Example]) -> Labeller:
    """Return who is asked, with the prompts and settings that go with it.

    Raises:
        ConfigError: A name, setting or price is wrong.
        MissingError: A file or library is not there.
    """
    from timeloupe.cli.policies import DEFAULT_PROTOCOL, POLICIES, Chosen, PolicyFlags
    from timeloupe.data.build.labelling import Labeller, Patience
    from timeloupe.data.build.prompts import load_prompts
    from timeloupe.data.build.source import make_oracle
    from timeloupe.data.build.steps import Kit
    from timeloupe.environment.settings import make_settings
    from timeloupe.prompt.protocol import PROTOCOLS
    from timeloupe.video.cache import FrameCache

    part = recipe.labeller
    if part.policy == "oracle":
        chosen = Chosen(make_oracle(part, recipe.source, examples), {}, DEFAULT_PROTOCOL)
    else:
        flags = PolicyFlags(
            model=part.model, script=part.script, base_url=part.base_url, api_key_env=part.api_key_env,
            send=part.send, timeout=part.timeout, settings_from=part.settings_from,
        )  # fmt: skip
        chosen = POLICIES[part.policy](flags)
    name = recipe.protocol or chosen.protocol
    if name not in PROTOCOLS:
        raise boundary("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    settings = make_settings(chosen.episode, recipe.episode)
    kit = Kit(
        protocol, settings, load_prompts(recipe.prompts, protocol), chosen.policy.name, recipe.seed,
        recipe.min_iou, recipe.min_rouge,
    )  # fmt: skip
    return Labeller(chosen.policy, kit, FrameCache(CACHE_BYTES), part.price, Patience(part.tries))


CACHE_BYTES = 512 * 2**20
ENGINES = ("threads", "ray")


def _open(
    folder: Path, recipe: BuildRecipe, examples: list[Example], limit: int | None, resume: bool
) -> None:
    """Make the folder, or check that it holds this build: the recipe, and what the files say that it names."""
    from timeloupe.data.build.prompts import templates_sha256
    from timeloupe.data.build.recipe import WAY
    from timeloupe.data.build.source import files_sha256, rows_sha256
    from timeloupe.runs import CONFIG, create_run, read_json

    begun = (folder / CONFIG).is_file()
    if begun and not resume:
        raise boundary(
            f"folder {str(folder)!r}", "a build that was begun", "a new folder", "go on with --resume"
        )
    if resume and not begun:
        raise boundary(
            f"folder {str(folder)!r}", "no build", "the folder of one", "leave --resume out to begin"
        )
    said = recipe.model_dump(mode="json", exclude={"labeller": WAY})
    files = {"source_sha256": rows_sha256(examples), "prompts_sha256": templates_sha256(recipe.prompts)}
    others = {"files_sha256": found} if (found := files_sha256(recipe)) else {}
    if begun and "files_sha256" not in read_json(folder / CONFIG):
        others = {}  # it was begun before such files were hashed
    create_run(folder, {"kind": "build", "recipe": said, "limit": limit, **files, **others})


def _plan(recipe: BuildRecipe, labeller: Labeller, examples: list[Example], as_json: bool) -> None:
    from timeloupe.data.build.plan import plan_build, plan_lines

    plan = plan_build(recipe, labeller, examples)
    if as_json:
        typer.echo(json.dumps({"recipe": recipe.model_dump(mode="json"), "plan": plan}, indent=2))
        return
    typer.echo(recipe.model_dump_json(indent=2))
    for line in plan_lines(plan):
        typer.echo(line)


@contextmanager
def _says_how_to_go_on(console: Console, words: list[str]) -> Iterator[None]:
    """Say how to go on when Ctrl-C or a full disk ends the build."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(f"stopped; go on with: {shlex.join(words)}", highlight=False, markup=False)
        raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise TimeloupeError(f"{error}; when that is mended, go on with: {shlex.join(words)}") from error


@contextmanager
def _two_stages(stop: threading.Event, console: Console) -> Iterator[None]:
    from timeloupe.cli.eval_progress import two_stages

    with two_stages(stop, console, "batches"):
        yield


class _Progress:
    """Says how far a build is: a line that stays on a terminal, one now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        import time

        self.console, self.clock = console, time.perf_counter
        self.stage, self.begun, self.first, self.told = "", 0.0, 0, 0.0
        self.last, self.failed = self.clock(), False
        self.status = console.status("building") if sys.stderr.isatty() else None

    def __call__(self, row: Any, tally: Any) -> None:
        """Show the row's stage."""
        now = self.clock()
        if tally.stage != self.stage:
            # From the last row of the stage before: the first batch of this one has taken its time already.
            self.stage, self.begun, self.first, self.told = tally.stage, self.last, tally.done - 1, now
            if self.status is not None:
                self.status.start()
        self.last = now
        if tally.faults and not self.failed:
            self.failed = True
            line = f"{tally.stage}: the calls for {row.id!r:.100} failed: {row.detail:.400}"
            self.console.print(line, highlight=False, markup=False, style="red")
        if tally.done < tally.items and now - self.told < (0.2 if self.status is not None else 10.0):
            return
        self.told = now
        rate = (tally.done - self.first) / max(now - self.begun, 1e-6)
        left = (
            f", {(tally.items - tally.done) / rate / 60:.1f} min left"
            if tally.done < tally.items and now > self.begun
            else ""
        )
        faults = f", {tally.faults} failed" if tally.faults else ""
        cost = f", {tally.cost:.4f} USD" if tally.cost else ""
        done = f"{tally.stage}: {tally.done} of {tally.items}, {tally.kept} kept"
        line = f"{done}{faults}, {60 * rate:.0f}/min{left}{cost}"
        if self.status is not None and tally.done < tally.items:
            self.status.update(line)
        else:
            self.console.print(line, highlight=False, markup=False)

    def end(self) -> None:
        """Take the line away."""
        if self.status is not None:
            self.status.stop()


def _say_faults(console: Console, name: str, stage: dict[str, Any], allowed: float) -> None:
    share = stage["faults"] / stage["items"]
    console.print(
        f"{name}: {stage['faults']} of {stage['items']} items were lost to failing calls ({share:.1%}, allowed are "
        f"{allowed:.1%}); --resume makes them again", highlight=False, markup=False, style="red",
    )  # fmt: skip


def _show(summary: dict[str, Any], folder: Path) -> None:
    for name, stage in summary["stages"].items():
        reasons = ", ".join(f"{count} {reason}" for reason, count in stage["reasons"].items())
        missing = f", {stage['missing']} not made yet" if stage.get("missing") else ""
        handed = (
            f", {stage['handed_on']} handed on"
            if stage.get("handed_on", stage["kept"]) != stage["kept"]
            else ""
        )
        typer.echo(
            f"{name}: {stage['kept']} of {stage['items']} kept{handed}{missing} ({reasons or 'no rows'})"
        )
        for note in stage.get("notes", ()):
            typer.echo(f"  {note}")
    if summary["cost"]:
        typer.echo(f"cost {summary['cost']:.4f} USD")
    files = ", ".join(f"{count} in {name}" for name, count in summary["files"].items() if count)
    typer.echo(f"{folder}: {files or 'nothing kept'}")
    if summary.get("made_twice"):
        typer.echo(
            f"  {summary['made_twice']} episodes of earlier stages are not among them: a later stage kept one of the "
            "same row; all stand in STAGE/kept.jsonl"
        )
