"""``timeloupe ask``: one question about one video, turn by turn."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timeloupe.cli.flags import (
    ApiKeyEnvFlag,
    BaseUrlFlag,
    CacheBytesFlag,
    CacheDirFlag,
    DeadlineFlag,
    FramesFlag,
    ImageFormatFlag,
    LogprobsFlag,
    MaxNewTokensFlag,
    MaxRequestFlag,
    MaxTurnsFlag,
    ModelFlag,
    NoLogitBiasFlag,
    PolicyFlag,
    ProtocolFlag,
    ScriptFlag,
    SendFlag,
    SettingsFromFlag,
    SystemPromptFlag,
    TemperatureFlag,
    ThreadsFlag,
    TimeFormatFlag,
    TimeoutFlag,
)
from timeloupe.cli.policies import POLICIES, PolicyFlags, policy_name
from timeloupe.errors import ConfigError, MissingError, boundary

if TYPE_CHECKING:
    from timeloupe.trajectory import Example, Task

ASK_TASKS = ("multiple_choice", "grounding", "open")
MAX_CHARACTERS = 20_000
"""Of a question with its options: a longer one is a mistake, and would keep a local model busy for hours."""


def ask(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", help="The video file.", show_default=False)],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.", show_default=False)],
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--options",
            "-o",
            metavar="TEXT",
            help="An option; repeat it, or give all at once: 'red|blue|green'.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="multiple_choice, grounding (when?) or open.  [default: read off the question]",
            show_default=False,
        ),
    ] = None,
    policy: PolicyFlag = None,
    model: ModelFlag = None,
    script: ScriptFlag = None,
    base_url: BaseUrlFlag = None,
    api_key_env: ApiKeyEnvFlag = None,
    send: SendFlag = None,
    time_format: TimeFormatFlag = None,
    image_format: ImageFormatFlag = None,
    timeout: TimeoutFlag = None,
    max_request: MaxRequestFlag = None,
    logprobs: LogprobsFlag = False,
    settings_from: SettingsFromFlag = None,
    no_logit_bias: NoLogitBiasFlag = False,
    protocol: ProtocolFlag = None,
    system_prompt: SystemPromptFlag = None,
    max_turns: MaxTurnsFlag = None,
    frames: FramesFlag = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="TIME", help="Skim from here: seconds, mm:ss or h:mm:ss.", show_default=False
        ),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Skim up to here.", show_default=False)
    ] = None,
    approximate: Annotated[
        str | None,
        typer.Option(
            help="keyframes: skim by the nearest keyframes, cheap in long videos.  [default: none]",
            show_default=False,
        ),
    ] = None,
    deadline: DeadlineFlag = None,
    cache_dir: CacheDirFlag = None,
    cache_bytes: CacheBytesFlag = None,
    temperature: TemperatureFlag = None,
    max_new_tokens: MaxNewTokensFlag = None,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 0,
    threads: ThreadsFlag = 1,
    save: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Run folder to append the episode to.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the trajectory as one JSON object on stdout.")
    ] = False,
) -> None:
    """Ask a question about a video: the model skims it, looks closer where it wants to, and answers with evidence."""
    from rich.console import Console

    from timeloupe.cli.frame_cache import make_cache
    from timeloupe.cli.show import EpisodePrinter
    from timeloupe.environment.rollout import play
    from timeloupe.environment.settings import make_settings
    from timeloupe.prompt.protocol import PROTOCOLS
    from timeloupe.runs import create_run
    from timeloupe.trajectory import StopReason, to_line
    from timeloupe.video.probe import probe

    flags = {
        "max_turns": max_turns, "skim_frames": frames, "temperature": temperature,
        "max_new_tokens": max_new_tokens, "skim_approximate": approximate,
        "skim_start_seconds": None if from_ is None else parse_time("--from", from_),
        "skim_end_seconds": None if to is None else parse_time("--to", to),
    }  # fmt: skip
    given: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    if deadline is not None:
        given["video_deadline_seconds"] = deadline or None
    limit = make_settings(given).video_deadline_seconds
    probe(video, deadline_seconds=limit)  # a bad file is told before a model is loaded
    example = make_example(video, question, options or [], task)
    system = None if system_prompt is None else _read_text(system_prompt)
    if protocol is not None and protocol not in PROTOCOLS:
        raise boundary("--protocol", protocol, PROTOCOLS)
    cache = make_cache(cache_dir, cache_bytes)
    wanted = PolicyFlags(
        model=model, script=script, threads=threads, base_url=base_url, api_key_env=api_key_env, send=send,
        time_format=time_format, image_format=image_format, timeout=timeout, logprobs=logprobs,
        settings_from=settings_from, max_request=max_request, no_logit_bias=no_logit_bias,
    )  # fmt: skip
    name = policy_name(policy, wanted)
    console = Console(stderr=as_json, highlight=False)
    with console.status("looking"):
        chosen = POLICIES[name](wanted)
        settings = make_settings(chosen.episode, given)
        run = None if save is None else create_run(save, {"command": "ask"})
        if name == "small":
            _warn_of_unknown_words(chosen.policy, example)
        trajectory = play(
            [example], chosen.policy, PROTOCOLS[protocol or chosen.protocol], settings, seed=seed,
            on_event=EpisodePrinter(console, example), system_prompt=system, cache=cache,
        )[0]  # fmt: skip
    if run is not None:
        run.append(trajectory)
    if as_json:
        typer.echo(to_line(trajectory))
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        raise typer.Exit(1)


def _warn_of_unknown_words(policy: Any, example: Example) -> None:
    from timeloupe.policy.small import unknown_words

    unknown = unknown_words(policy, " ".join((example.question, *example.options)))
    if unknown:
        typer.echo(
            f"note: the small model was never taught {', '.join(unknown[:6])}; it knows the questions of "
            "`timeloupe world make` only, for others name a checkpoint with --model",
            err=True,
        )


def make_example(video: Path, question: str, options: list[str], task: str | None) -> Example:
    """Return the question as a dataset row.

    Raises:
        ConfigError: Task and options do not fit, or a text is empty.
    """
    from timeloupe.trajectory import Example

    if len(options) == 1:
        options = options[0].split("|")
        if len(options) == 1:
            raise ConfigError(
                f"--options needs two or more, got {options[0]!r}, repeat it (--options red --options blue) "
                f"or separate them: --options 'red|blue'"
            )
    options = [option.strip() for option in options]
    for text in (question, *options):
        if text != text.encode("utf-8", "replace").decode():
            raise boundary(
                "the question and its options", text[:200], "Unicode text (UTF-8 on the command line)"
            )
    if not question.strip() or not all(options):
        raise ConfigError("the question and every option need some text, got an empty one")
    length = len(question) + sum(len(option) for option in options)
    if length > MAX_CHARACTERS:
        raise boundary("characters of the question and its options", length, f"at most {MAX_CHARACTERS}")
    if len(options) > 26:
        raise boundary("number of options", len(options), "2 to 26, one per letter")
    kind = infer_task(question, options) if task is None else task
    if kind not in ASK_TASKS:
        raise boundary("--task", kind, ASK_TASKS)
    if (kind == "multiple_choice") != bool(options):
        raise ConfigError(f"--options go with --task multiple_choice and with no other, got --task {kind}")
    path = str(video.absolute())
    key = json.dumps([path, question, options]).encode()
    return Example.model_validate(
        {
            "id": f"ask-{hashlib.sha256(key).hexdigest()[:12]}", "video": path, "question": question.strip(),
            "options": options, "task": kind, "source": "ask",
        }
    )  # fmt: skip


def infer_task(question: str, options: list[str]) -> Task:
    """Return ``multiple_choice`` with options, ``grounding`` for a question that asks for a time, else ``open``."""
    if options:
        return "multiple_choice"
    asks_when = re.match(
        r"\s*(when|(at|during|in|on) (what|which) (time|second|minute|moment|part|segment|interval)|"
        r"(from|since) when|find the (time|moment|segment|part))\b",
        question,
        re.IGNORECASE,
    )
    return "grounding" if asks_when else "open"


def parse_time(flag: str, text: str) -> float:
    """Return seconds from ``90``, ``90.5``, ``1:30`` or ``1:02:03.5``.

    Raises:
        ConfigError: It is none of these.
    """
    if not re.fullmatch(r"(\d{1,3}:)?(\d{1,4}:)?\d{1,6}(\.\d{1,6})?", text.strip()):
        raise boundary(flag, text, "seconds, mm:ss or h:mm:ss, such as 90.5 or 1:30")
    seconds = 0.0
    for part in text.strip().split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _read_text(path: Path) -> str:
    if not path.is_file():
        raise MissingError(f"no system prompt at {str(path)!r}, expected a text file")
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not UTF-8 text: {error}") from error
