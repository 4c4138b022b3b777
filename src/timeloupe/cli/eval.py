"""``timeloupe eval``: play the agent over a benchmark and score it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from timeloupe.cli.eval_progress import Progress, two_stages
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
from timeloupe.cli.policies import POLICIES, Chosen, PolicyFlags, policy_name
from timeloupe.errors import ConfigError, MissingError, boundary

if TYPE_CHECKING:
    from rich.console import Console

    from timeloupe.environment.settings import EpisodeSettings
    from timeloupe.eval.questions import Questions
    from timeloupe.eval.runner import Job, PlayBatch, Tally
    from timeloupe.eval.scoreboard import Scoreboard
    from timeloupe.runs import RunFolder
    from timeloupe.trajectory import Trajectory

SESSION = "session.json"
"""How the run was last played: flags that change no episode, and so may differ from session to session."""

MACHINE_FLAGS = (
    "base_url", "api_key_env", "timeout", "threads", "concurrency", "retries", "fail_on_error", "cache_dir",
    "cache_bytes", "mode", "videos",
)  # fmt: skip


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
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many questions.", show_default=False)
    ] = None,
    deadline: DeadlineFlag = None,
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

    flags = {key: value for key, value in locals().items() if key not in ("context", "Console")}
    given = {key for key in flags if context.get_parameter_source(key).name == "COMMANDLINE"}  # type: ignore[union-attr]
    flags = _resumed(flags, given) if resume is not None else flags
    console = Console(stderr=True, highlight=False)
    session = _Session(flags, console)
    if flags["dry_run"]:
        _tell_plan(session, as_json)
        return
    tally, seconds = session.play()
    if tally.left:
        console.print(f"{tally.left} episodes are left; go on with: timeloupe eval --resume {session.folder}")
        raise typer.Exit(130)
    raise typer.Exit(session.report(tally, seconds, as_json))


def _resumed(flags: dict[str, Any], given: set[str]) -> dict[str, Any]:
    """Return the flags of the run that is resumed; only those that change no episode may be given anew."""
    from timeloupe.runs import open_run

    folder = flags["resume"]
    config = open_run(folder).config
    if config.get("command") != "eval":
        raise ConfigError(f"{str(folder)!r} is a run of `timeloupe {config.get('command')}`, none of eval")
    stored = dict(config["flags"])
    changed = [
        f"{key}: there {stored.get(key)}, now {_plain(flags[key])}"
        for key in sorted(given - {"resume", "as_json", "dry_run", *MACHINE_FLAGS})
        if _plain(flags[key]) != stored.get(key)
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
    for key in ("data", "videos", "run", "script", "system_prompt", "cache_dir"):
        merged[key] = None if merged.get(key) is None else Path(merged[key])
    return merged


def _plain(value: Any) -> Any:
    return str(value.absolute()) if isinstance(value, Path) else value


class _Session:
    """One call of the command: what is asked, of whom, how, and where it is kept."""

    def __init__(self, flags: dict[str, Any], console: Console) -> None:
        from timeloupe.eval.questions import load_questions
        from timeloupe.eval.registry import benchmark
        from timeloupe.eval.scoreboard import scripts_of
        from timeloupe.prompt.protocol import PROTOCOLS

        self.flags, self.console = flags, console
        for key, words in (("bench", "the benchmark's name"), ("data", "--data, its annotations")):
            if flags[key] is None:
                raise ConfigError(f"timeloupe eval needs {words} (or --resume RUN)")
        if flags["run"] is None and not flags["dry_run"]:
            raise ConfigError("timeloupe eval needs --run, a new folder for the episodes (or --resume RUN)")
        chosen = benchmark(flags["bench"])
        scripts_of(chosen, flags["mode"])
        if flags["protocol"] is not None and flags["protocol"] not in PROTOCOLS:
            raise boundary("--protocol", flags["protocol"], PROTOCOLS)
        self.system = _read_text(flags["system_prompt"])
        self.questions: Questions = load_questions(chosen, flags["data"], flags["videos"], flags["limit"])
        self.policy = self._policy()
        self.settings = self._settings()
        self.protocol = PROTOCOLS[flags["protocol"] or self.policy.protocol]

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.flags["run"]

    def _policy(self) -> Chosen:
        flags = self.flags
        wanted = PolicyFlags(
            model=flags["model"], script=flags["script"], threads=flags["threads"], base_url=flags["base_url"],
            api_key_env=flags["api_key_env"], send=flags["send"], time_format=flags["time_format"],
            image_format=flags["image_format"], timeout=flags["timeout"], logprobs=flags["logprobs"],
            settings_from=flags["settings_from"], max_request=flags["max_request"],
        )  # fmt: skip
        self.kind = policy_name(flags["policy"], wanted)
        return POLICIES[self.kind](wanted)

    def _settings(self) -> EpisodeSettings:
        from timeloupe.environment.settings import make_settings

        flags = self.flags
        named = {
            "max_turns": flags["max_turns"], "skim_frames": flags["frames"], "skim_pixels": flags["pixels"],
            "crop_pixels": flags["pixels"], "temperature": flags["temperature"],
            "max_new_tokens": flags["max_new_tokens"], "tools": False if flags["single_pass"] else None,
        }  # fmt: skip
        given: dict[str, Any] = {key: value for key, value in named.items() if value is not None}
        if flags["deadline"] is not None:
            given["video_deadline_seconds"] = flags["deadline"] or None
        settings = make_settings(self.policy.episode, given)
        if flags["pixels"] is not None and settings.frame_size_wh is not None:
            raise ConfigError(
                f"--pixels does nothing for this model: its frames are always {settings.frame_size_wh}, leave it out"
            )
        return settings

    @property
    def config(self) -> dict[str, Any]:
        """What an episode depends on."""
        stored = {
            key: _plain(value) for key, value in self.flags.items()
            if key not in MACHINE_FLAGS and key not in ("run", "resume", "dry_run", "as_json")
        }  # fmt: skip
        of_policy = dict(getattr(self.policy.policy, "settings", None) or {"name": self.policy.policy.name})
        of_policy.pop("base_url", None)
        return {
            "command": "eval", "benchmark": self.questions.benchmark.name, "questions": len(self.questions.rows),
            "questions_sha256": self.questions.sha256, "policy": of_policy, "protocol": self.protocol.name,
            "system_prompt": self.system, "episode": self.settings.model_dump(mode="json"), "flags": stored,
        }  # fmt: skip

    def play(self) -> tuple[Tally, float]:
        """Play what the run lacks; returns what came of it and the seconds it took."""
        from timeloupe.eval.runner import Pace, run_episodes
        from timeloupe.runs import create_run, write_json

        flags = self.flags
        run = create_run(self.folder, self.config)
        write_json(self.folder / SESSION, {key: _plain(flags[key]) for key in MACHINE_FLAGS})
        again = run.drop_faults()
        done = run.done()
        jobs: list[Job] = [
            (example, repeat)
            for repeat in range(flags["repeats"])
            for example in self.questions.examples
            if (example.id, repeat) not in done
        ]
        self._announce(len(jobs), len(done), again)
        served = self.kind == "openai"
        size = flags["concurrency"]
        pace = Pace(size if served else 1, 1 if served else size, flags["retries"])
        stop = threading.Event()
        began = time.perf_counter()
        with two_stages(stop, self.console), Progress(self.questions, len(jobs), self.console) as progress:
            tally = run_episodes(jobs, run, self._play_batch(run), pace, stop=stop, on_played=progress)
        return tally, time.perf_counter() - began

    def _play_batch(self, run: RunFolder) -> PlayBatch:
        from timeloupe.cli.frame_cache import make_cache
        from timeloupe.environment.rollout import DEFAULT_CACHE_BYTES, play
        from timeloupe.video.cache import FrameCache

        del run
        cache = make_cache(self.flags["cache_dir"], self.flags["cache_bytes"]) or FrameCache(
            DEFAULT_CACHE_BYTES
        )

        def play_batch(jobs: Sequence[Job]) -> list[Trajectory]:
            return play(
                [example for example, _ in jobs], self.policy.policy, self.protocol, self.settings,
                seed=self.flags["seed"], rollout_index=[repeat for _, repeat in jobs], cache=cache,
                system_prompt=self.system,
            )  # fmt: skip

        return play_batch

    def _announce(self, num_jobs: int, num_done: int, again: int) -> None:
        questions = self.questions
        words = f"{len(questions.rows)} of {questions.num_rows} questions of {questions.benchmark.title}"
        if self.flags["repeats"] > 1:
            words += f", {self.flags['repeats']} episodes each"
        if num_done or again:
            words += f"; {num_done} episodes are there, {again} that a machine's fault ended are played again"
        self.console.print(f"{words}; {num_jobs} to play with {self.policy.policy.name}")
        if questions.missing:
            self.console.print(
                f"{len(questions.missing)} videos are not there, such as {questions.missing[0]!r}: their questions end "
                "without a score", style="yellow",
            )  # fmt: skip

    def scores(self, trajectories: Sequence[Trajectory]) -> list[Scoreboard]:
        """Return the scores of each repeat."""
        from timeloupe.eval.predictions import of_episodes
        from timeloupe.eval.scoreboard import score

        found = []
        for repeat in range(self.flags["repeats"]):
            some = [one for one in trajectories if one.rollout_index == repeat]
            loaded = of_episodes(some, "run folder")
            found.append(
                score(self.questions.benchmark, self.questions.rows, loaded, self.flags["mode"],
                      seed=self.flags["seed"])
            )  # fmt: skip
        return found

    def report(self, tally: Tally, seconds: float, as_json: bool) -> int:
        """Print the scores and return the exit code: 1 where too many episodes were lost to machines."""
        from timeloupe.cli.score import facts, show
        from timeloupe.runs import open_run
        from timeloupe.trajectory import StopReason

        trajectories = open_run(self.folder).latest()
        faults = [one for one in trajectories if one.stop is StopReason.INFRASTRUCTURE]
        share = len(faults) / max(len(trajectories), 1)
        whole = share <= self.flags["fail_on_error"]
        for one in faults[:3]:
            reason = one.problem.message if one.problem else "no reason"
            self.console.print(f"{one.example.id}: {reason}", style="red", markup=False, soft_wrap=True)
        boards = self.scores(trajectories) if whole else []
        if as_json:
            stops = {reason.value: sum(one.stop is reason for one in trajectories) for reason in StopReason}
            document = {
                "run": str(self.folder), "episodes": len(trajectories), "stops": stops, "lost": len(faults),
                "played_now": tally.written, "retried": tally.retried, "seconds": round(seconds, 3),
                "scores": [facts(board) for board in boards],
            }  # fmt: skip
            typer.echo(json.dumps(document, allow_nan=False))
        for number, board in enumerate(boards):
            if not as_json:
                if len(boards) > 1:
                    typer.echo(f"repeat {number}")
                show(board, False)
        if not whole:
            self.console.print(
                f"{len(faults)} of {len(trajectories)} episodes were lost to machines ({share:.1%}, allowed are "
                f"{self.flags['fail_on_error']:.1%}): no score. Mend the cause and go on with: timeloupe eval --resume "
                f"{self.folder}", style="red", soft_wrap=True,
            )  # fmt: skip
            return 1
        return 0


def _tell_plan(session: _Session, as_json: bool) -> None:
    config = session.config | {"missing_videos": len(session.questions.missing)}
    if as_json:
        typer.echo(json.dumps(config, allow_nan=False))
        return
    count = len(session.questions.examples) * session.flags["repeats"]
    typer.echo(f"{count} episodes would be played with {session.policy.policy.name}; the configuration:")
    typer.echo(json.dumps(config, indent=2, allow_nan=False))


def _read_text(path: Path | None) -> str | None:
    if path is None:
        return None
    if not path.is_file():
        raise MissingError(f"no system prompt at {str(path)!r}, expected a text file")
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not UTF-8 text: {error}") from error
