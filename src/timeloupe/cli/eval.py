"""``timeloupe eval``: play the agent over a benchmark and score it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from timeloupe.cli.eval_session import MACHINE_FLAGS, SESSION, Session, plain
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
from timeloupe.errors import ConfigError


def evaluate(
    context: typer.Context,
    bench: Annotated[
        str | None, typer.Argument(metavar="BENCH", help="Name of the benchmark.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Its annotation file or folder.", show_default=False),
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where its videos are.  [default: beside the annotations]", show_default=False
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="RUN", help="New folder for the episodes.", show_default=False)
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

    A run that was stopped or killed goes on with --resume RUN; what it has is not played again. Ctrl-C once: the
    episodes under way are finished; twice: at once.

    Raises:
        ConfigError: A flag is wrong, or the run folder holds another configuration (exit code 2).
        MissingError: A file or a run is not there (exit code 3).
    """
    from rich.console import Console

    from timeloupe.runs import lock_run

    flags = {key: value for key, value in locals().items() if key not in ("context", "Console", "lock_run")}
    given = {key for key in flags if context.get_parameter_source(key).name == "COMMANDLINE"}  # type: ignore[union-attr]
    flags = _resumed(flags, given) if resume is not None else flags
    console = Console(stderr=True, highlight=False)
    session = Session(flags, console)
    if flags["dry_run"]:
        _tell_plan(session, as_json)
        return
    with lock_run(session.folder):
        tally = session.play()
        if tally.left:
            session.tell_resume(f"{tally.left} episodes are left")
            raise typer.Exit(130)
        raise typer.Exit(session.report(tally, as_json))


def _resumed(flags: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Return the flags of the run that is resumed; only those that change no episode may be given anew."""
    from timeloupe.runs import open_run

    folder = flags["resume"]
    config = open_run(folder).config
    if config.get("command") != "eval":
        raise ConfigError(f"{str(folder)!r} is a run of `timeloupe {config.get('command')}`, none of eval")
    stored = dict(config["flags"])
    changed = [
        f"{key}: there {stored.get(key)}, now {plain(flags[key])}"
        for key in sorted(given - {"resume", "as_json", "dry_run", *MACHINE_FLAGS})
        if plain(flags[key]) != stored.get(key)
    ]
    if changed:
        raise ConfigError(
            f"run folder {str(folder)!r} holds another configuration ({'; '.join(changed)}); leave these flags out, or "
            "start a new run"
        )
    session = (
        json.loads((folder / SESSION).read_text(encoding="utf-8")) if (folder / SESSION).is_file() else {}
    )
    kept = {key: flags[key] if key in given else session.get(key, flags[key]) for key in MACHINE_FLAGS}
    merged = flags | stored | kept | {"run": folder}
    if "vote" in given and flags["vote"] != "evidence":  # the scorer of an earlier vote is none of this one
        merged |= {key: flags[key] for key in ("scorer_base_url", "scorer_model")}
    for key in ("data", "videos", "run", "script", "system_prompt", "cache_dir"):
        merged[key] = None if merged.get(key) is None else Path(merged[key])
    return merged


def _tell_plan(session: Session, as_json: bool) -> None:
    config = session.config | {"missing_videos": len(session.questions.missing)}
    if as_json:
        typer.echo(json.dumps(config, allow_nan=False))
        return
    count = len(session.questions.examples) * session.flags["repeats"]
    typer.echo(f"{count} episodes would be played with {session.policy.policy.name}; the configuration:")
    typer.echo(json.dumps(config, indent=2, allow_nan=False))
