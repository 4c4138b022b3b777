"""``timeloupe plan``: what an evaluation will take, before it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timeloupe.cli.flags import (
    FramesFlag,
    MaxNewTokensFlag,
    MaxTurnsFlag,
    ProtocolFlag,
    SendFlag,
    SystemPromptFlag,
    TimeFormatFlag,
)
from timeloupe.errors import ConfigError, MissingError, boundary

if TYPE_CHECKING:
    from timeloupe.environment.settings import EpisodeSettings
    from timeloupe.eval.plan_tokens import Ruler
    from timeloupe.eval.questions import Questions
    from timeloupe.model.sizes import ModelSizes

GIB = 2**30
WEIGHT_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1}


def plan(
    bench: Annotated[str, typer.Argument(metavar="BENCH", help="Name of the benchmark.")],
    data: Annotated[
        Path, typer.Option(metavar="PATH", help="Its annotation file or folder.", show_default=False)
    ],
    model_config: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="Checkpoint folder, config.json, small, or qwen2.5-vl-7b or qwen3-vl-8b; weights are not read.",
            show_default=False,
        ),
    ],
    videos: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where its videos are.  [default: beside the annotations]", show_default=False
        ),
    ] = None,
    protocol: ProtocolFlag = None,
    system_prompt: SystemPromptFlag = None,
    send: SendFlag = None,
    time_format: TimeFormatFlag = None,
    max_turns: MaxTurnsFlag = None,
    single_pass: Annotated[bool, typer.Option("--single-pass", help="Without the tool.")] = False,
    frames: FramesFlag = None,
    pixels: Annotated[
        int | None, typer.Option(help="Area of a frame at most, in pixels.", show_default=False)
    ] = None,
    max_new_tokens: MaxNewTokensFlag = None,
    concurrency: Annotated[int, typer.Option(help="Episodes under way at once.")] = 16,
    repeats: Annotated[int, typer.Option(help="Episodes per question.")] = 1,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many questions.", show_default=False)
    ] = None,
    looks: Annotated[float, typer.Option(help="Mean turns of an episode that look at one crop.")] = 1.0,
    reply_tokens: Annotated[int, typer.Option(help="Mean tokens of a reply.")] = 150,
    gpu: Annotated[str, typer.Option(help="a100, h100 or h200.")] = "h100",
    gpus: Annotated[int, typer.Option(help="How many share the model.")] = 1,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16, float32 or fp8.")] = "bfloat16",
    tokens_per_second: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="READ WRITE", help="Rates that a server is known to reach, in place of the GPU's peaks."
        ),
    ] = None,
    price: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="IN OUT", help="US dollars for a million prompt and reply tokens."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A run of the same evaluation, to compare the plan with."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Compute frames, tokens, context, memory, time and money of an evaluation. Nothing is run or downloaded.

    Give it the flags that the evaluation will have. Lengths of videos are read from the files, or from the annotation
    where files are missing.

    Raises:
        ConfigError: A flag is wrong (exit code 2).
        MissingError: A file is not there (exit code 3).
    """
    flags = dict(locals())
    if dtype not in WEIGHT_BYTES:
        raise boundary("--dtype", dtype, WEIGHT_BYTES)
    found = _plan(flags)
    if against is not None:
        found["against"] = _compared(found, against)
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
    else:
        typer.echo("\n".join(lines_of(found)))


def _plan(flags: dict[str, Any]) -> dict[str, Any]:
    from timeloupe.cli.eval_session import read_text
    from timeloupe.eval.plan import Assumed, make_plan
    from timeloupe.eval.questions import load_questions
    from timeloupe.eval.registry import benchmark
    from timeloupe.prompt.protocol import PROTOCOLS

    assumed = Assumed(
        looks=flags["looks"], reply_tokens=flags["reply_tokens"], gpu=flags["gpu"], gpus=flags["gpus"],
        weight_bytes=WEIGHT_BYTES[flags["dtype"]], rates=flags["tokens_per_second"], price=flags["price"],
    )  # fmt: skip
    if flags["protocol"] is not None and flags["protocol"] not in PROTOCOLS:
        raise boundary("--protocol", flags["protocol"], PROTOCOLS)
    questions: Questions = load_questions(
        benchmark(flags["bench"]), flags["data"], flags["videos"], flags["limit"]
    )
    sizes, settings, protocol, ruler = _model(flags)
    found = make_plan(
        questions, PROTOCOLS[flags["protocol"] or protocol], settings, sizes, ruler, assumed,
        concurrency=flags["concurrency"], repeats=flags["repeats"], system_prompt=read_text(flags["system_prompt"]),
    )  # fmt: skip
    return found | {
        "episode": settings.model_dump(mode="json"), "protocol": flags["protocol"] or protocol,
        "concurrency": flags["concurrency"], "repeats": flags["repeats"], "dtype": flags["dtype"],
    }  # fmt: skip


def _model(flags: dict[str, Any]) -> tuple[ModelSizes, EpisodeSettings, str, Ruler]:
    """Return the sizes, episode settings, protocol and ruler of the model that the flags name."""
    from timeloupe.cli.policies import DEFAULT_PROTOCOL
    from timeloupe.environment.settings import make_settings
    from timeloupe.eval.plan_tokens import make_ruler
    from timeloupe.policy.openai_wire import SendForm
    from timeloupe.policy.small import SMALL_CHECKPOINT
    from timeloupe.prompt.frames_as_images import DEFAULT_TIME_FORMAT, check_time_format

    try:
        from timeloupe.model.layout import read_episode_defaults
        from timeloupe.model.sizes import PUBLISHED, model_sizes
    except ModuleNotFoundError as error:
        raise MissingError(
            f"a plan needs {error.name!r} to read a model's configuration; install it with `pip install torch==2.13.0` "
            "and `pip install 'timeloupe[local]'`"
        ) from error
    send, allowed = flags["send"] or "video", SendForm.__args__
    if send not in allowed:
        raise boundary("--send", send, allowed)
    if flags["time_format"] is not None and send == "video":
        raise ConfigError("--time-format goes with --send images, a video's times are printed by the server")
    name = str(SMALL_CHECKPOINT) if flags["model_config"] == "small" else flags["model_config"]
    sizes = model_sizes(name)
    if name in PUBLISHED:
        folder, family = None, PUBLISHED[name]["model_type"]
        episode, protocol = {"size_multiple": round(sizes.token_pixels**0.5)}, None
    else:
        config = Path(name) if Path(name).is_file() else Path(name) / "config.json"
        folder = config.parent
        family = json.loads(config.read_text(encoding="utf-8"))["model_type"]
        episode, protocol = (
            read_episode_defaults(folder)
            if config.name == "config.json"
            else ({"size_multiple": round(sizes.token_pixels**0.5)}, None)
        )
    named = {
        "max_turns": flags["max_turns"], "skim_frames": flags["frames"], "skim_pixels": flags["pixels"],
        "crop_pixels": flags["pixels"], "max_new_tokens": flags["max_new_tokens"],
        "tools": False if flags["single_pass"] else None,
    }  # fmt: skip
    settings = make_settings(episode, {key: value for key, value in named.items() if value is not None})
    if flags["pixels"] is not None and settings.frame_size_wh is not None:
        raise ConfigError(
            f"--pixels does nothing for this model: its frames are always {settings.frame_size_wh}, leave it out"
        )
    time_format = check_time_format(flags["time_format"] or DEFAULT_TIME_FORMAT)
    ruler = make_ruler(folder, sizes, family == "qwen3_vl", send, time_format)
    return sizes, settings, protocol or DEFAULT_PROTOCOL, ruler


def _compared(found: dict[str, Any], against: Path) -> dict[str, Any]:
    """Return planned and measured figures side by side.

    Raises:
        ConfigError: The run is no evaluation, has no card, or asked other questions or showed other frames.
    """
    from timeloupe.eval.card import CARD
    from timeloupe.eval.plan import measured
    from timeloupe.runs import open_run

    run = open_run(against)
    if run.config.get("command") != "eval" or not (against / CARD).is_file():
        raise ConfigError(
            f"{str(against)!r} holds no card.json of `timeloupe eval`, name a run that is finished"
        )
    there, here = run.config.get("episode", {}), found["episode"]
    same = ("temperature", "top_p", "top_k", "video_deadline_seconds")
    other = [
        f"{key}: there {there.get(key)}, planned {value}"
        for key, value in here.items() if key not in same and there.get(key) != value
    ]  # fmt: skip
    if run.config.get("questions_sha256") != found["questions_sha256"]:
        other.append("questions")
    if run.config.get("protocol") != found["protocol"]:
        other.append(f"protocol: there {run.config.get('protocol')}, planned {found['protocol']}")
    if other:
        raise ConfigError(
            f"{str(against)!r} is a run of another evaluation ({'; '.join(other)}); plan with its flags"
        )
    card = json.loads((against / CARD).read_text(encoding="utf-8"))
    real = measured(run.latest(), card)
    planned = {
        "episodes": found["episodes"], "skim_frames": found["frames"]["total"],
        "first_turn_tokens": found["prompt_tokens"]["total"], "context_most": found["context"]["worst"],
        "billed_prompt_tokens": found["billed_prompt_tokens"], "reply_tokens_total": found["reply_tokens_total"],
        "looks": found["looks"], "seconds": round(found["time"]["seconds"], 3),
    }  # fmt: skip
    return {key: {"planned": planned[key], "measured": real[key]} for key in planned}


def lines_of(found: dict[str, Any]) -> list[str]:
    """Return a plan in lines for people."""
    videos, context, memory, time = found["videos"], found["context"], found["memory_bytes"], found["time"]
    assumed = found["assumed"]
    exact = "exact" if found["exact_tokens"] else "about (no tokenizer beside the configuration)"
    seen = f"{videos['file']} videos measured, {videos['annotation']} by the annotation's length"
    if videos["nothing"]:
        seen += f", {videos['nothing']} of unknown length taken to fill the first look"
    if videos["unreadable"]:
        seen += f", {videos['unreadable']} CANNOT BE READ and are left out, such as {found['unreadable'][0]}"
    lines = [
        f"{found['benchmark']}: {found['questions']} questions, {found['episodes']} episodes with {found['model']}    "
        "COMPUTED, NOT MEASURED",
        f"{seen}; {videos['seconds']:.0f} s on average",
        "",
        f"{'per episode':<24}{'mean':>12}{'most':>12}{'all':>16}",
    ]
    rows = (("frames of first look", "frames"), ("visual tokens", "visual_tokens"), ("text tokens", "text_tokens"),
            ("first turn, tokens", "prompt_tokens"))  # fmt: skip
    for title, key in rows:
        row = found[key]
        lines.append(f"{title:<24}{row['mean']:>12,.1f}{row['most']:>12,}{row['total']:>16,}")
    fits = {True: "fits", False: "DOES NOT FIT"}
    at_once = min(found["concurrency"], found["episodes"])
    lines += [
        f"tokens of first turns are {exact}",
        "",
        f"context needed          {context['worst']:,} tokens at worst, {context['mean']:,.0f} on average with "
        f"{found['looks']:g} looks and replies of {found['reply_tokens']} tokens",
        f"memory                  weights {_size(memory['weights'])}, cache of {at_once} episodes "
        f"{_size(memory['cache_mean'])} on average ({fits[memory['fits_mean']]}), {_size(memory['cache_worst'])} at "
        f"worst ({fits[memory['fits_worst']]}), in {assumed['gpus']} x {assumed['gpu']} with {_size(memory['there'])}",
        f"time                    {_duration(time['seconds'])} by {time['by']}: reading "
        f"{_duration(time['read_seconds'])}, writing {_duration(time['write_seconds'])}; decoding videos is not in it",
        f"billed                  {found['billed_prompt_tokens']:,} prompt and {found['reply_tokens_total']:,} reply "
        + ("tokens" if found["dollars"] is None else f"tokens, ${found['dollars']:,.2f}"),
    ]  # fmt: skip
    if "against" in found:
        lines += ["", f"{'':<24}{'planned':>16}{'measured':>16}"]
        for key, row in found["against"].items():
            title = "context (bound, most)" if key == "context_most" else key.replace("_", " ")
            real = "not counted" if row["measured"] is None else f"{row['measured']:,.6g}"
            lines.append(f"{title:<24}{row['planned']:>16,.6g}{real:>16}")
    return lines


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
