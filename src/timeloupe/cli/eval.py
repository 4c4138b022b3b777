"""``timeloupe eval``: play the agent over a benchmark and score it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from timeloupe.cli.eval_many import parts_of, play_all, sessions_of
from timeloupe.cli.eval_session import Session
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


def evaluate(
    context: typer.Context,
    bench: Annotated[
        list[str] | None,
        typer.Argument(metavar="BENCH...", help="Name of the benchmark, or of several.", show_default=False),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[BENCH=]PATH",
            help="Its annotation file or folder; of several benchmarks one for each.",
            show_default=False,
        ),
    ] = None,
    videos: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[BENCH=]DIR",
            help="Where its videos are, or those of all.  [default: beside the annotations]",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="New folder for the episodes; of several benchmarks, for a run of each.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Play what this run lacks or a machine's fault ended; its settings stand.",
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
    single_pass: Annotated[
        bool, typer.Option("--single-pass", help="Without the tool: the same first look, then the answer.")
    ] = False,
    frames: FramesFlag = None,
    pixels: Annotated[
        int | None, typer.Option(help="Area of a frame at most, in pixels.", show_default=False)
    ] = None,
    temperature: TemperatureFlag = None,
    max_new_tokens: MaxNewTokensFlag = None,
    seed: Annotated[int, typer.Option(help="Same seed, same episodes.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Episodes per question.")] = 1,
    samples: Annotated[
        int, typer.Option(min=1, help="Episodes per question that vote on one answer; needs --temperature.")
    ] = 1,
    vote: Annotated[
        str | None,
        typer.Option(
            help="majority, evidence or self.  [default: majority, with --samples]", show_default=False
        ),
    ] = None,
    scorer_base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Server that scores evidence.  [default: the model itself]",
            show_default=False,
        ),
    ] = None,
    scorer_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Served model that scores evidence.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many questions.", show_default=False)
    ] = None,
    deadline: DeadlineFlag = None,
    episode_deadline: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="End an episode that takes longer as a machine's fault; it is played again like others.",
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Episodes under way at once.")] = 16,
    retries: Annotated[
        int, typer.Option(min=0, help="Rounds for episodes that a machine's fault ended.")
    ] = 3,
    patience: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Before each such round wait at most so long for a server that went away.",
        ),
    ] = 600.0,
    fail_on_error: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="With a larger share of episodes lost to machines, print no score and exit with 1.",
        ),
    ] = 0.05,
    price: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="IN OUT", help="US dollars for a million tokens in and out.", show_default=False
        ),
    ] = None,
    cache_dir: CacheDirFlag = None,
    cache_bytes: CacheBytesFlag = None,
    threads: ThreadsFlag = 1,
    mode: Annotated[str, typer.Option(help="strict, official, official:SCRIPT or all.")] = "all",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be asked, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Play the agent over a benchmark, keep every episode, and score them.

    Several benchmarks, `timeloupe eval A B --data A=PATH --data B=PATH --run DIR`, are played one after another, into
    DIR/A and DIR/B. A run that was stopped or killed goes on with --resume RUN (or DIR); what it has is not played
    again. Ctrl-C once: the episodes under way are finished; twice: at once.

    Raises:
        ConfigError: A flag is wrong, or the run folder holds another configuration (exit code 2).
        MissingError: A file or a run is not there (exit code 3).
    """
    from rich.console import Console

    from timeloupe.runs import lock_run

    flags = {key: value for key, value in locals().items() if key not in ("context", "Console", "lock_run")}
    given = {key for key in flags if context.get_parameter_source(key).name == "COMMANDLINE"}  # type: ignore[union-attr]
    parts, whole = parts_of(flags, given)
    console = Console(stderr=True, highlight=False)
    if dry_run:
        _tell_plan(sessions_of(parts, console, whole), as_json)
        return
    if whole is not None:
        raise typer.Exit(play_all(parts, whole, console, as_json))
    session = Session(parts[0], console)
    with lock_run(session.folder):
        tally = session.play()
        if tally.left:
            session.tell_resume(f"{tally.left} episodes are left")
            raise typer.Exit(130)
        code, facts = session.report(tally, as_json)
        if as_json:
            typer.echo(json.dumps(facts, allow_nan=False))
        raise typer.Exit(code)


def _tell_plan(sessions: list[Session], as_json: bool) -> None:
    configs = [session.config | {"missing_videos": len(session.questions.missing)} for session in sessions]
    if as_json:
        typer.echo(json.dumps(configs[0] if len(configs) == 1 else {"runs": configs}, allow_nan=False))
        return
    for session, config in zip(sessions, configs, strict=True):
        count = len(session.questions.examples) * session.flags["repeats"]
        name = session.policy.policy.name
        typer.echo(f"{count} episodes would be played with {name}; the configuration:")
        typer.echo(json.dumps(config, indent=2, allow_nan=False))
