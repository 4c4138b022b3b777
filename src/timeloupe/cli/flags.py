"""The options that several commands have: about the model, about what it is shown, about how it samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PolicyFlag = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help="small, local, scripted or openai.  [default: what --base-url, --model or --script needs, else small]",
        show_default=False,
    ),
]
ModelFlag = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME", help="Checkpoint folder or hub id, for local; served name, for openai."
    ),
]
ScriptFlag = Annotated[
    Path | None, typer.Option("--script", metavar="FILE", help="JSON file of replies, for scripted.")
]
BaseUrlFlag = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="Server to ask, such as http://localhost:8000/v1."),
]
ApiKeyEnvFlag = Annotated[
    str | None,
    typer.Option(
        "--api-key-env",
        metavar="NAME",
        help="Environment variable with the server's key.  [default: OPENAI_API_KEY, none on this machine]",
        show_default=False,
    ),
]
SendFlag = Annotated[
    str | None,
    typer.Option(
        "--send",
        help="Frames to a server as timed images, or video (vLLM).  [default: images]",
        show_default=False,
    ),
]
TimeFormatFlag = Annotated[
    str | None,
    typer.Option(
        "--time-format",
        metavar="TEXT",
        help="Time before an image, for --send images.  [default: '<{:.1f} seconds>']",
        show_default=False,
    ),
]
ImageFormatFlag = Annotated[
    str | None,
    typer.Option("--image-format", help="jpeg or png, to a server.  [default: jpeg]", show_default=False),
]
TimeoutFlag = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="Wait for a server's whole reply this long, each try.  [default: 600]",
        show_default=False,
    ),
]
MaxRequestFlag = Annotated[
    str | None,
    typer.Option(
        "--max-request",
        metavar="SIZE",
        help="Send a server no larger request.  [default: 64MiB]",
        show_default=False,
    ),
]
LogprobsFlag = Annotated[
    bool, typer.Option("--logprobs", help="Ask a server for token ids and log-probabilities.")
]
SettingsFromFlag = Annotated[
    str | None,
    typer.Option(
        "--settings-from",
        metavar="PATH",
        help="Checkpoint folder (or small) that a server runs: its frames, protocol and tokens.",
    ),
]
NoLogitBiasFlag = Annotated[
    bool,
    typer.Option(
        "--no-logit-bias",
        help="With --settings-from, let a server sample the tokens that a local model never does.",
    ),
]
ThreadsFlag = Annotated[int, typer.Option("--threads", min=1, help="CPU threads of a model in this process.")]

ProtocolFlag = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        help="Prompt protocol.  [default: the checkpoint's, else videotemp]",
        show_default=False,
    ),
]
SystemPromptFlag = Annotated[
    Path | None,
    typer.Option(
        "--system-prompt", metavar="FILE", help="Text file that replaces the protocol's system prompt."
    ),
]
MaxTurnsFlag = Annotated[
    int | None, typer.Option("--max-turns", help="Turns at most; 1 = a single look.", show_default=False)
]
FramesFlag = Annotated[
    int | None, typer.Option("--frames", help="Frames of the first look at most.", show_default=False)
]
DeadlineFlag = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        metavar="SECONDS",
        help="Give the video up when its decoder shows no sign of life so long; 0 = never.  [default: 60]",
        show_default=False,
    ),
]
CacheDirFlag = Annotated[
    Path | None,
    typer.Option(
        "--cache-dir",
        metavar="DIR",
        envvar="TIMELOUPE_CACHE_DIR",
        help="Keep decoded frames there, to use again.",
    ),
]
CacheBytesFlag = Annotated[
    str | None,
    typer.Option(
        "--cache-bytes",
        metavar="SIZE",
        help="How much at most, such as 500MB.  [default: 2GiB]",
        show_default=False,
    ),
]
TemperatureFlag = Annotated[
    float | None, typer.Option("--temperature", help="0 = always the likeliest word.", show_default=False)
]
MaxNewTokensFlag = Annotated[
    int | None, typer.Option("--max-new-tokens", help="Tokens of one reply at most.", show_default=False)
]
