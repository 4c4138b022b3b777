"""The ``timeloupe`` command: one table of commands, each imported only when it is called.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 something is missing, 130 interrupted.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from timeloupe import __version__
from timeloupe.errors import TimeloupeError


@dataclass(frozen=True)
class Command:
    """A line of the command table.

    Attributes:
        words: What the user types: the command, or group and command.
        target: ``module:function`` under ``timeloupe.cli``.
        summary: One line for the list of commands.
    """

    words: tuple[str, ...]
    target: str
    summary: str


COMMANDS = (
    Command(("ask",), "ask:ask", "Ask a question about a video and watch the model look."),
    Command(("probe",), "probe:probe", "Show length, frame rate, size, codec and start of a video."),
    Command(("frames",), "frames:frames", "Read the frames at given times."),
    Command(("view",), "view:view", "Look at the episodes of a run, or of two side by side."),
    Command(("eval",), "eval:evaluate", "Play the agent over a benchmark and score it."),
    Command(("audit",), "audit:audit", "See whether answers depend on the evidence they name."),
    Command(("plan",), "plan:plan", "Compute what an evaluation will take before it is run."),
    Command(
        ("selfcheck",), "selfcheck:selfcheck", "Find out what a server does to times, order, stops and seeds."
    ),
    Command(("diff",), "diff:diff", "Say why one run's score is not the other's."),
    Command(("report",), "report:report", "Put runs side by side, as a page, as Markdown or as JSON."),
    Command(("score",), "score:score", "Score predictions as official scripts do, and strictly."),
    Command(("reward", "list"), "reward:list_rewards", "List the presets and the parts there are."),
    Command(("reward", "show"), "reward:show", "Show what a reward is made of."),
    Command(("reward", "score"), "reward:score", "Score the episodes of a run."),
    Command(
        ("reward", "simulate"), "reward:simulate", "See what a reward would teach, before training on it."
    ),
    Command(("data", "check"), "data:check", "Find faults in annotations."),
    Command(("data", "build"), "data_build:build", "Make training rows from videos, labelled and checked."),
    Command(("data", "convert"), "convert:convert", "Write training rows in another format."),
    Command(("demo",), "demo:demo", "Watch the small model look closer, against a single pass."),
    Command(("world", "make"), "world:make", "Write procedural videos, questions about them and the truth."),
    Command(("train", "sft"), "train:sft", "Fine-tune a checkpoint, or train the small model from nothing."),
    Command(
        ("train", "grpo"), "train:grpo", "Train a model that looks, by reinforcement on its own episodes."
    ),
    Command(("train", "plan"), "train:plan", "Compute what a recipe needs: memory and time per GPU."),
)

GROUPS = {
    "data": "Annotations and training rows.",
    "world": "Procedural videos with exact ground truth.",
    "train": "Train a model from a recipe.",
    "reward": "Rewards of published methods: what they are, what they pay, what they teach.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: What stands behind the program's name; ``None`` = this process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    atexit.register(gc.freeze)  # nobody looks for garbage at the end: with torch loaded that takes a second
    try:
        build(words)(args=words, prog_name="timeloupe")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except TimeloupeError as error:
        print(f"timeloupe: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, _InterruptedError):
        print("timeloupe: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone, such as `| head`. Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A path that cannot be made, read or written: the user's to mend, not a fault of the program.
        print(f"timeloupe: {error}", file=sys.stderr)
        return 1
    return 0


def build(words: Sequence[str]) -> typer.Typer:
    """Return the program, with the one command that ``words`` calls for imported and all others by name only."""
    app = _group("Think with videos: skim, find the moment, look closer, answer, show the evidence.")
    app.callback(invoke_without_command=True)(_root)
    groups: dict[str, typer.Typer] = {}
    called = [word for word in words if not word.startswith("-")]
    for command in COMMANDS:
        parent = app
        if len(command.words) == 2:
            name = command.words[0]
            if name not in groups:
                groups[name] = _group(GROUPS[name])
                app.add_typer(groups[name], name=name)
            parent = groups[name]
        if tuple(called[: len(command.words)]) == command.words:
            function = _load(command.target)
            parent.command(command.words[-1], help=_help(function))(_interruptible(function))
        else:
            parent.command(command.words[-1], help=command.summary)(_by_name_only)
    return app


def _group(summary: str) -> typer.Typer:
    return typer.Typer(
        help=summary, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
        rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]},
    )  # fmt: skip


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"timeloupe {__version__}")
        raise typer.Exit


def _by_name_only() -> None:
    raise AssertionError("a command that was not asked for")


def _load(target: str) -> Callable[..., Any]:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(f"timeloupe.cli.{module}"), function)


def _help(function: Callable[..., Any]) -> str:
    """Return a docstring without the part that is for programmers."""
    return re.split(r"\n\s*(?:Args|Raises|Returns):\n", inspect.getdoc(function) or "")[0].strip()


class _InterruptedError(Exception):
    """Ctrl-C inside a command, past typer's own handling of it."""


def _interruptible(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except KeyboardInterrupt as error:
            raise _InterruptedError from error

    return call
