"""What one call of ``timeloupe eval`` does: load, play, score, write the card."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from timeloupe.cli.eval_progress import Progress, two_stages
from timeloupe.cli.eval_vote import Outcome, check_temperature, hold_vote, settle_flags, tell_vote
from timeloupe.cli.policies import POLICIES, Chosen, PolicyFlags, policy_name
from timeloupe.cli.score import finite
from timeloupe.errors import ConfigError, MissingError, boundary

if TYPE_CHECKING:
    from rich.console import Console

    from timeloupe.environment.settings import EpisodeSettings
    from timeloupe.eval.questions import Questions
    from timeloupe.eval.runner import Job, PlayBatch, Tally
    from timeloupe.eval.scoreboard import Scoreboard
    from timeloupe.trajectory import Trajectory

SESSION = "session.json"
"""How the run was last played: flags that change no episode, and so may differ from session to session."""

NOTE_SECONDS = 1.0
"""How often the seconds of a session are written down while it plays."""

MACHINE_FLAGS = (
    "base_url", "api_key_env", "timeout", "episode_deadline", "threads", "concurrency", "retries", "patience",
    "fail_on_error", "price", "cache_dir", "cache_bytes", "mode", "videos", "samples", "vote", "scorer_base_url",
    "scorer_model",
)  # fmt: skip


def plain(value: Any) -> Any:
    return str(value.absolute()) if isinstance(value, Path) else value


def read_session(folder: Path) -> dict[str, Any]:
    """Return how a run was last played; empty where nothing says it.

    Raises:
        ConfigError: The file is not a JSON object.
    """
    from timeloupe.runs import read_json

    path = folder / SESSION
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise ConfigError(f"{str(path)!r} must hold a JSON object, got {type(found).__name__}")
    return found


def read_text(path: Path | None) -> str | None:
    if path is None:
        return None
    if not path.is_file():
        raise MissingError(f"no system prompt at {str(path)!r}, expected a text file")
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not UTF-8 text: {error}") from error


class Session:
    """One run's part in a call of the command: what is asked, of whom, how, and where it is kept.

    Args:
        flags: Of the run.
        console: Where to tell what happens.
        policies: Those that other runs of the call have made, to be shared.
        whole: The folder that is resumed where the run is one of several; ``None`` = the run's own.
    """

    def __init__(
        self,
        flags: dict[str, Any],
        console: Console,
        *,
        policies: dict[tuple[str, PolicyFlags], Chosen] | None = None,
        whole: Path | None = None,
    ) -> None:
        from timeloupe.eval.questions import load_questions
        from timeloupe.eval.registry import benchmark
        from timeloupe.eval.scoreboard import scripts_of
        from timeloupe.prompt.protocol import PROTOCOLS

        self.flags, self.console, self.whole = flags, console, whole
        self._policies = {} if policies is None else policies
        for key, words in (("bench", "the benchmark's name"), ("data", "--data, its annotations")):
            if flags[key] is None:
                raise ConfigError(f"timeloupe eval needs {words} (or --resume RUN)")
        self._check_flags()
        if flags["run"] is None and not flags["dry_run"]:
            raise ConfigError("timeloupe eval needs --run, a new folder for the episodes (or --resume RUN)")
        chosen = benchmark(flags["bench"])
        scripts_of(chosen, flags["mode"])
        if flags["protocol"] is not None and flags["protocol"] not in PROTOCOLS:
            raise boundary("--protocol", flags["protocol"], PROTOCOLS)
        self.system = read_text(flags["system_prompt"])
        self.questions: Questions = load_questions(chosen, flags["data"], flags["videos"], flags["limit"])
        self.policy = self._policy()
        self.settings = self._settings()
        check_temperature(flags, self.settings.temperature)
        self.protocol = PROTOCOLS[flags["protocol"] or self.policy.protocol]
        # As asked for: the name of the only served model, once it is found out, is no part of the configuration.
        policy = self.policy.policy
        self._asked = dict(getattr(policy, "settings", None) or {"name": policy.name})
        self._asked.pop("base_url", None)

    def _check_flags(self) -> None:
        settle_flags(self.flags)
        seconds, price, patience = (self.flags[key] for key in ("episode_deadline", "price", "patience"))
        if seconds is not None and not 0 < seconds < float("inf"):
            raise boundary("--episode-deadline", seconds, "seconds > 0")
        if not 0 <= patience < float("inf"):
            raise boundary("--patience", patience, "seconds >= 0 and finite, such as 86400 for a day")
        if price is not None and not all(0 <= one < float("inf") for one in price):
            raise boundary("--price", price, "two numbers >= 0, US dollars for a million tokens in and out")

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
            no_logit_bias=flags["no_logit_bias"],
        )  # fmt: skip
        # Named in the configuration: a resumed run must not fall back to another policy where --base-url is missing.
        self.kind = flags["policy"] = policy_name(flags["policy"], wanted)
        key = (self.kind, wanted)
        if key not in self._policies:
            self._policies[key] = POLICIES[self.kind](wanted)
        return self._policies[key]

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
            key: plain(value) for key, value in self.flags.items()
            if key not in MACHINE_FLAGS and key not in ("run", "resume", "dry_run", "as_json")
            and (value or key != "no_logit_bias")  # so that runs from before there was such a flag go on
        }  # fmt: skip
        return {
            "command": "eval", "benchmark": self.questions.benchmark.name, "questions": len(self.questions.rows),
            "questions_sha256": self.questions.sha256, "policy": self._asked, "protocol": self.protocol.name,
            "system_prompt": self.system, "episode": self.settings.model_dump(mode="json"), "flags": stored,
        }  # fmt: skip

    def play(self) -> Tally:
        """Play what the run lacks, and return what came of it."""
        from timeloupe.eval.runner import Pace, run_episodes
        from timeloupe.runs import create_run

        flags = self.flags
        run = create_run(self.folder, self.config)
        before = self.seconds()
        self._note_session(before)
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
        if jobs:
            self._note_server()
        size = flags["concurrency"]
        pace = Pace(
            size if served else 1, 1 if served else size, flags["retries"], patience_seconds=flags["patience"]
        )
        server: Any = self.policy.policy if served else None
        stop = threading.Event()
        began = noted = time.perf_counter()

        def on_played(trajectory: Trajectory, tally: Tally) -> None:
            nonlocal noted
            progress(trajectory, tally)
            now = time.perf_counter()
            if tally.written == 1 or now - noted >= NOTE_SECONDS:
                noted = now
                self._note_session(before + now - began)

        try:
            with (
                two_stages(stop, self.console),
                Progress(self.questions, len(jobs), self.console) as progress,
            ):
                return run_episodes(
                    jobs, run, self._play_batch(), pace, stop=stop, on_played=on_played, server=server,
                    on_away=self._tell_away,
                )  # fmt: skip
        except (KeyboardInterrupt, OSError) as error:  # such as a disk without room
            self.tell_resume("interrupted" if isinstance(error, KeyboardInterrupt) else "broken off")
            raise
        finally:
            self._note_session(before + time.perf_counter() - began)

    def _tell_away(self) -> None:
        self.console.print(
            f"the server does not answer: waiting for it, at most {self.flags['patience']:g} s (--patience); "
            "Ctrl-C ends the run, --resume goes on with it when the server is back"
        )

    def tell_resume(self, why: str) -> None:
        """Say how the run goes on."""
        self.console.print(
            f"{why}; go on with: timeloupe eval --resume {self.whole or self.folder}",
            markup=False,
            soft_wrap=True,
        )

    def _note_session(self, seconds: float) -> None:
        """Write how the run is played, and the seconds that it has taken; a password stays out of the file."""
        from timeloupe.runs import write_json

        stored = {key: plain(self.flags[key]) for key in MACHINE_FLAGS}
        for key in ("base_url", "scorer_base_url"):
            if "@" in (self.flags[key] or ""):
                stored[key] = None
        more = {"seconds": seconds, "servers": self.servers()}
        write_json(self.folder / SESSION, stored | more)

    def _note_server(self) -> None:
        """Write what the server says of itself, if it says anything that it did not say before.

        Raises:
            ConfigError: No model was named, and the only one there is not the one that played so far.
        """
        from timeloupe.runs import write_json

        ask = getattr(self.policy.policy, "server_facts", None)
        found = ask() if ask else {}
        known = self.servers()
        now = (found.get("model") or {}).get("id")
        played = self._played_model() if now and self.flags["model"] is None else None
        if played is not None and played != now:
            raise ConfigError(
                f"run folder {str(self.folder)!r} was played by the served model {played!r}, and now {now!r} is "
                "served; serve that one, or start a new run"
            )
        if any(found.values()) and (not known or known[-1] != found):
            write_json(self.folder / SESSION, self._noted() | {"servers": [*known, found]})

    def _played_model(self) -> str | None:
        """The served name that the latest episode was asked for by; ``None`` = no server has played yet."""
        from timeloupe.runs import open_run

        named: str | None = None
        for one in open_run(self.folder):
            asked = one.settings.get("policy")
            named = (asked.get("model") if isinstance(asked, dict) else None) or named
        return named

    def _noted(self) -> dict[str, Any]:
        return read_session(self.folder)

    def seconds(self) -> float:
        """Wall time that all sessions of this run took; of one that was killed, up to an episode near its end: the
        seconds are noted as episodes come in, at most once in ``NOTE_SECONDS``."""
        return self._noted().get("seconds", 0.0)

    def servers(self) -> list[dict[str, Any]]:
        """What the servers of all sessions said of themselves, the last one last."""
        return self._noted().get("servers", [])

    def _play_batch(self) -> PlayBatch:
        from timeloupe.cli.frame_cache import make_cache
        from timeloupe.environment.rollout import DEFAULT_CACHE_BYTES, play
        from timeloupe.video.cache import FrameCache

        cache = make_cache(self.flags["cache_dir"], self.flags["cache_bytes"]) or FrameCache(
            DEFAULT_CACHE_BYTES
        )

        def play_batch(jobs: Sequence[Job]) -> list[Trajectory]:
            return play(
                [example for example, _ in jobs], self.policy.policy, self.protocol, self.settings,
                seed=self.flags["seed"], rollout_index=[repeat for _, repeat in jobs], cache=cache,
                system_prompt=self.system, deadline_seconds=self.flags["episode_deadline"],
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

    def _card(
        self, trajectories: Sequence[Trajectory], boards: Sequence[Scoreboard], voted: Outcome | None = None
    ) -> dict[str, Any]:
        """Write and return the run's card."""
        from timeloupe.cli.policies import policy_facts
        from timeloupe.eval.card import CARD, make_card
        from timeloupe.runs import snapshot_environment, write_json

        facts = policy_facts(self.policy.policy)
        if self.kind == "openai" and facts["model"] is None and (played := self._played_model()):
            # Nothing was left to play, so nobody asked the server for its name in this session.
            facts |= {"name": f"openai:{played}", "model": played}
        card = make_card(
            self.questions, self.protocol, self.settings, trajectories, boards, system_prompt=self.system,
            policy=facts, environment=snapshot_environment(), seed=self.flags["seed"],
            wall_seconds=self.seconds(), mode=self.flags["mode"], price=self.flags["price"], servers=self.servers(),
        )  # fmt: skip
        if voted is not None:
            card["voting"] = voted.facts
        write_json(self.folder / CARD, finite(card))
        return card

    def scores(self, trajectories: Sequence[Trajectory]) -> list[Scoreboard]:
        """Return the scores of each repeat."""
        from timeloupe.eval.predictions import of_episodes
        from timeloupe.eval.scoreboard import score

        found = []
        for repeat in range(self.flags["repeats"]):
            some = [one for one in trajectories if one.rollout_index == repeat]
            loaded = of_episodes(some, "run folder")
            # The run's seed is that of its episodes: `score` and `report` say the same of them.
            found.append(score(self.questions.benchmark, self.questions.rows, loaded, self.flags["mode"]))
        return found

    def report(self, tally: Tally, as_json: bool) -> tuple[int, dict[str, Any]]:
        """Print the scores, unless they are wanted as JSON; return the exit code and them as JSON data.

        The code is 1 where too many episodes were lost to machines.
        """
        from timeloupe.cli.score import facts, show
        from timeloupe.eval.card import card_lines, fault_of
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
        card = self._card(trajectories, boards)
        voted = hold_vote(self, trajectories) if boards and self.flags["samples"] > 1 else None
        if voted is not None:  # the card above stands also where there can be no vote
            card = self._card(trajectories, boards, voted)
        for line in card_lines(card):
            self.console.print(line, markup=False, soft_wrap=True, style="dim")
        stops = {reason.value: sum(one.stop is reason for one in trajectories) for reason in StopReason}
        document: dict[str, Any] = {
            "run": str(self.folder), "episodes": len(trajectories), "stops": stops, "lost": len(faults),
            "faults": dict(Counter(map(fault_of, faults))),
            "played_now": tally.written, "retried": tally.retried, "seconds": round(self.seconds(), 3),
            "scores": [facts(board) for board in boards],
        }  # fmt: skip
        if voted is not None:
            document["voting"] = voted.facts | {"score": facts(voted.board) if voted.board else None}
        if voted is not None and not as_json:
            tell_vote(voted)
        for number, board in enumerate([] if as_json or voted is not None else boards):
            if len(boards) > 1:
                typer.echo(f"repeat {number}")
            show(board, False)
        if not whole:
            self.console.print(
                f"{len(faults)} of {len(trajectories)} episodes were lost to machines ({share:.1%}, allowed are "
                f"{self.flags['fail_on_error']:.1%}): no score. Mend the cause and go on with: timeloupe eval --resume "
                f"{self.whole or self.folder}", style="red", soft_wrap=True,
            )  # fmt: skip
            return 1, document
        return int(voted is not None and voted.board is None), document
