"""``timeloupe selfcheck``: does a server do what an evaluation takes for granted?"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timeloupe.cli.flags import (
    ApiKeyEnvFlag,
    BaseUrlFlag,
    FramesFlag,
    ImageFormatFlag,
    MaxNewTokensFlag,
    MaxRequestFlag,
    MaxTurnsFlag,
    ModelFlag,
    NoLogitBiasFlag,
    ProtocolFlag,
    SendFlag,
    SettingsFromFlag,
    SystemPromptFlag,
    TimeFormatFlag,
    TimeoutFlag,
)
from timeloupe.errors import ConfigError, boundary

if TYPE_CHECKING:
    from timeloupe.eval.selfcheck_probe import Asked


def selfcheck(
    base_url: BaseUrlFlag = None,
    model: ModelFlag = None,
    api_key_env: ApiKeyEnvFlag = None,
    send: SendFlag = None,
    time_format: TimeFormatFlag = None,
    image_format: ImageFormatFlag = None,
    timeout: TimeoutFlag = None,
    max_request: MaxRequestFlag = None,
    settings_from: SettingsFromFlag = None,
    no_logit_bias: NoLogitBiasFlag = False,
    protocol: ProtocolFlag = None,
    system_prompt: SystemPromptFlag = None,
    max_turns: MaxTurnsFlag = None,
    frames: FramesFlag = None,
    pixels: Annotated[
        int | None, typer.Option(help="Area of a frame at most, in pixels.", show_default=False)
    ] = None,
    max_new_tokens: MaxNewTokensFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Ask a server about clips of known content and times, and say what it does to times, order, stops and seeds.

    Give it the flags that the evaluation will have. Exit code: 0 no fault found, 1 a fault found, 3 no server. What
    cannot be told is said and counted, and is no fault.

    Raises:
        ConfigError: A flag is wrong (exit code 2).
        MissingError: There is no server, or it answers a plain question with an error (exit code 3).
    """
    from rich.console import Console

    from timeloupe.eval.selfcheck import lines_of, selfcheck, summary_of

    flags = dict(locals())
    asked = _asked(flags)
    console = Console(highlight=False)
    checks = []
    with TemporaryDirectory(prefix="timeloupe-selfcheck-") as folder:
        for check in selfcheck(asked, Path(folder)):
            checks.append(check)
            if not as_json:
                style = {"wrong": "red", "cannot tell": "yellow"}.get(check.verdict, "")
                for line in lines_of(check):
                    console.print(line, style=style, markup=False, soft_wrap=True)
    wrong = [check for check in checks if check.verdict == "wrong"]
    if as_json:
        facts = getattr(asked.policy, "settings", {})
        document = {
            "model": facts.get("model"), "base_url": facts.get("base_url"), "send": asked.send,
            "protocol": asked.protocol.name, "requests": asked.num_requests, "faults": len(wrong),
            "checks": [asdict(check) for check in checks],
        }  # fmt: skip
        typer.echo(json.dumps(document, allow_nan=False))
    else:
        console.print(f"{summary_of(checks)}; {asked.num_requests} requests", markup=False, soft_wrap=True)
    raise typer.Exit(1 if wrong else 0)


def _asked(flags: dict[str, Any]) -> Asked:
    """Return the server as the flags of an evaluation ask it."""
    from timeloupe.cli.eval_session import read_text
    from timeloupe.cli.policies import PolicyFlags, openai_options
    from timeloupe.environment.settings import make_settings
    from timeloupe.eval.selfcheck_probe import Asked
    from timeloupe.eval.selfcheck_server import MAX_FRAMES
    from timeloupe.policy.openai_server import OpenAIPolicy
    from timeloupe.prompt.protocol import PROTOCOLS

    if flags["base_url"] is None:
        raise ConfigError("timeloupe selfcheck needs --base-url, such as http://localhost:8000/v1")
    if flags["protocol"] is not None and flags["protocol"] not in PROTOCOLS:
        raise boundary("--protocol", flags["protocol"], PROTOCOLS)
    names = ("model", "base_url", "api_key_env", "send", "time_format", "image_format", "timeout", "max_request",
             "settings_from", "no_logit_bias")  # fmt: skip
    options, episode, protocol = openai_options(PolicyFlags(**{name: flags[name] for name in names}))
    options.pop("logprobs", None)
    given = {
        "max_turns": flags["max_turns"], "skim_frames": flags["frames"], "skim_pixels": flags["pixels"],
        "crop_pixels": flags["pixels"], "max_new_tokens": flags["max_new_tokens"],
    }  # fmt: skip
    settings = make_settings(episode, {key: value for key, value in given.items() if value is not None})
    if flags["pixels"] is not None and settings.frame_size_wh is not None:
        raise ConfigError(
            f"--pixels does nothing for this model: its frames are always {settings.frame_size_wh}, leave it out"
        )
    if settings.skim_frames > MAX_FRAMES:
        raise boundary(
            "--frames", settings.skim_frames, f"2 to {MAX_FRAMES} in a check, which makes them all at once"
        )
    return Asked(
        partial(OpenAIPolicy, **options), PROTOCOLS[flags["protocol"] or protocol], settings,
        send=options.get("send", "images"), system_prompt=read_text(flags["system_prompt"]),
    )  # fmt: skip
