"""`timeloupe eval` on bad days: is a row lost, is one there twice, does a fault of the way change a row?

    python benchmarks/eval_faults.py --work DIR [--only NAME] [--record]

A proxy between client and server (``tests/servers/fault_proxy.py``) cuts connections before and within replies, answers
500 and 429 with Retry-After, stalls, cuts JSON, sends replies without choices, takes stop strings off, and puts noise
in place of words; the server is killed and started again in the middle. Parts, each resumable and kept in DIR:

quick    1,000 episodes with a server that answers at once (replies drawn from the request's seed)
model    100 episodes with the embedded model behind an HTTP server
kills    300 of the first ones again, with faults, killed with SIGKILL at ten random moments and resumed
local    60 episodes of the embedded model in this process, killed at ten random moments and resumed

Every part is compared with the same episodes played with nothing in the way. The proxy logs which requests it touched;
requests carry the episode's own seed, so rows that no fault touched can be told from the others. Noise in place of
words cannot be told from a model's own reply: such a row counts as the model's. All other faults must leave no trace.
Fails (exit 1) if a row is lost or there twice, or differs although it met no noise.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import ROOT, record

sys.path.insert(0, str(ROOT))

from tests.eval.rows import MACHINE_FIELDS, Key, steady_rows
from tests.servers.process import serving
from timeloupe.cli.main import main as timeloupe
from timeloupe.environment.rollout import derive_seed
from timeloupe.eval.questions import load_questions
from timeloupe.eval.registry import benchmark
from timeloupe.policy.openai_server import OpenAIPolicy
from timeloupe.policy.openai_wire import SEED_MASK
from timeloupe.video import isolate

FORK = multiprocessing.get_context("fork")
PRELOADED = (timeloupe, OpenAIPolicy)
SEED = 7
KILLS = 10
RATES = {
    "drop": 0.03, "broken": 0.03, "500": 0.03, "429": 0.02, "stall": 0.005, "cut": 0.02, "empty": 0.02, "strip": 0.2,
    "garbage": 0.02,
}  # fmt: skip
"""Share of requests that meet each fault; 0.375 in all."""


@dataclass(frozen=True)
class Part:
    """One part of the study.

    Attributes:
        server: Module of ``tests.servers``; ``None`` = the model plays in the program itself.
        questions: How many.
        repeats: Episodes of each.
        faults: Whether the proxy is in the way, and the server restarted.
        kills: How often the run is killed.
        like: The part whose undisturbed run has the same episodes, and maybe more repeats of them.
    """

    server: str | None
    questions: int
    repeats: int
    faults: bool
    kills: int
    like: str

    @property
    def episodes(self) -> int:
        """How many episodes are played."""
        return self.questions * self.repeats


PARTS = {
    "quick": Part("quick_server", 100, 10, True, 0, "quick"),
    "model": Part("local_server", 100, 1, True, 0, "model"),
    "kills": Part("quick_server", 100, 3, True, KILLS, "quick"),
    "local": Part(None, 60, 1, False, KILLS, "local"),
}


def make_world(folder: Path) -> Path:
    """Return a folder of 110 questions over eleven short videos."""
    if not (folder / "truth.jsonl").exists():
        words = ["--videos", 11, "--seed", 1000123, "--minutes", "1:1.5", "--per-task", 5]
        Play("world", "make", folder, *words).said()
    return folder


class Play:
    """``timeloupe`` in a fork of this process, which has imported it already: starting it often costs little."""

    def __init__(self, *words: object) -> None:
        handle, path = tempfile.mkstemp(suffix=".json")
        os.close(handle)
        self.path = Path(path)
        self.process = FORK.Process(target=self._run, args=([str(word) for word in words],))
        self.process.start()

    def _run(self, words: list[str]) -> None:
        sys.stdout = self.path.open("w", encoding="utf-8")
        code = timeloupe(words)
        isolate._close()  # a fork ends without that
        sys.stdout.flush()
        os._exit(code)

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.process.kill()
        self.process.join()
        self.path.unlink()

    def said(self) -> dict[str, Any]:
        """Return the JSON that it says, when it has ended."""
        self.process.join()
        text = self.path.read_text(encoding="utf-8")
        self.path.unlink()
        assert self.process.exitcode == 0, f"it ended with {self.process.exitcode}"
        return json.loads(text or "{}")


def words_of(part: Part, world: Path, run: Path, url: str | None) -> list[object]:
    """Return the arguments of ``timeloupe`` for a part."""
    words: list[object] = [
        "eval", "world", "--data", world, "--run", run, "--seed", SEED, "--limit", part.questions,
        "--repeats", part.repeats, "--temperature", 1, "--fail-on-error", 1, "--json",
    ]  # fmt: skip
    if part.server is None:
        return [*words, "--policy", "small", "--concurrency", 3]  # ten kills need more than ten batches
    model = {"quick_server": "quick", "local_server": "small"}[part.server]
    protocol = {"quick_server": "videotemp", "local_server": "small"}[part.server]
    return [
        *words, "--base-url", url, "--model", model, "--settings-from", "small", "--protocol", protocol,
        "--image-format", "png", "--concurrency", 16, "--timeout", 20, "--retries", 6,
        *(("--send", "video") if model == "small" else ()),
    ]  # fmt: skip


@contextmanager
def behind_proxy(part: Part, work: Path, log: Path) -> Iterator[tuple[str, Any]]:
    """Run a part's server and the proxy; yield the URL to ask and a call that kills the server and starts it anew."""
    assert part.server is not None
    flags = ["--stops", "keep"] if part.server == "local_server" else []
    port = str(random.Random(str(work)).randrange(20_000, 30_000))
    # The small model's protocol asks for no stop strings, so no server takes any off its replies.
    rates = {
        fault: rate for fault, rate in RATES.items() if part.server != "local_server" or fault != "strip"
    }
    shares = [word for fault, rate in rates.items() for word in ("--rate", f"{fault}={rate}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start() -> subprocess.Popen[str]:
        words = [sys.executable, "-m", f"tests.servers.{part.server}", "--port", port, *flags]
        server = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None and server.stdout.readline().startswith("http")
        return server

    server = start()
    more = ["--to", f"http://127.0.0.1:{port}/v1", "--log", str(log), "--seed", str(SEED), "--stall", "60"]

    def restart() -> None:
        nonlocal server
        server.kill()
        server.wait()
        time.sleep(5)
        server = start()

    try:
        with serving(*more, *shares, module="fault_proxy") as proxy:
            yield proxy.url, restart
    finally:
        server.kill()


def num_rows(run: Path) -> int:
    """Return how many lines a run has."""
    path = run / "trajectories.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def play_calmly(name: str, work: Path) -> Path:
    """Return the run of a part with nothing in the way, played if it is not there."""
    part, run = PARTS[name], work / f"{name}-calm"
    if not (run / "card.json").exists():
        if part.server is None:
            play_on(words_of(part, make_world(work / "world"), run, None), run)
        else:
            flags = ["--stops", "keep"] if part.server == "local_server" else []
            with serving(*flags, module=part.server) as server:
                play_on(words_of(part, make_world(work / "world"), run, server.url), run)
    return run


def play_on(words: list[object], run: Path, url: str | None = None) -> dict[str, Any]:
    """Play a run from its start or from where it was stopped; return what it says."""
    return Play(*words_to_go_on(words, run, url)).said()


def disturb(name: str, work: Path) -> dict[str, Any]:
    """Play a part with its faults, restart and kills; return what came of it."""
    part, run, log = PARTS[name], work / name, work / f"{name}.faults.jsonl"
    if part.server is None:
        words = words_of(part, make_world(work / "world"), run, None)
        return compare(name, work, with_kills(part, words, run, None, None))
    with behind_proxy(part, run, log) as (url, restart):
        words = words_of(part, make_world(work / "world"), run, url)
        return compare(name, work, with_kills(part, words, run, url, restart))


def with_kills(part: Part, words: list[object], run: Path, url: str | None, restart: Any) -> dict[str, Any]:
    """Play a run; kill it, and restart the server, when it has the rows that chance says."""
    draw = random.Random(SEED)
    # Well before the end: the batches under way when the last kill falls must not be the last ones.
    moments = [(draw.randrange(1, part.episodes * 3 // 4), "kill") for _ in range(part.kills)]
    if restart is not None:
        moments.append((part.episodes // 2, "restart"))
    play: Play | None = None
    done = killed = 0
    for wanted, what in sorted(moments):
        if play is None:
            play, done = Play(*words_to_go_on(words, run, url)), num_rows(run)
        while play.process.is_alive() and num_rows(run) < max(wanted, done + 1):
            time.sleep(0.01)
        if what == "restart":
            restart()
            continue
        time.sleep(draw.random() * 0.1)
        killed += play.process.is_alive()
        play.kill()
        play = None
    return (play_on(words, run, url) if play is None else play.said()) | {"kills": killed}


def words_to_go_on(words: list[object], run: Path, url: str | None) -> list[object]:
    """Return the arguments that begin a run or go on with it."""
    if not (run / "config.json").exists():
        return words
    return ["eval", "--resume", run, "--json", *(("--base-url", url) if url else ())]


def compare(name: str, work: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Compare a disturbed run with the calm one."""
    part, log = PARTS[name], work / f"{name}.faults.jsonl"
    calm = {
        key: row for key, row in steady_rows(play_calmly(part.like, work)).items() if key[1] < part.repeats
    }
    rows = steady_rows(work / name)  # fails if an episode is there twice
    assert rows.keys() == calm.keys() and len(rows) == part.episodes, "rows are lost"
    met: dict[Key, Counter[str]] = {key: Counter() for key in rows}
    owners = {derive_seed(SEED, *key, turn) & SEED_MASK: key for key in rows for turn in range(3)}
    assert len(owners) == 3 * len(rows), "two requests have one seed"
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        found = json.loads(line)
        met[owners[found["seed"]]][found["fault"]] += 1
    noisy = {key for key, faults in met.items() if faults["garbage"]}
    way = {key for key, faults in met.items() if faults and key not in noisy}
    quiet = rows.keys() - noisy - way
    lost = {key for key, row in rows.items() if row["stop"] == "infrastructure"}
    differ = [sum(rows[key] != calm[key] for key in some - lost) for some in (quiet, way, noisy)]
    return {
        "episodes": len(rows), "faults": sum((met[key].total() for key in rows), 0),
        "kinds": dict(sum(met.values(), Counter())), "untouched": len(quiet), "of the way": len(way),
        "noise": len(noisy), "untouched that differ": differ[0], "of the way that differ": differ[1],
        "noise that differ": differ[2], "lost to machines": len(lost), "played again": document["retried"],
        "kills": document.get("kills", 0), "score, untouched": strict_score(rows, quiet, work),
        "score there with nothing in the way": strict_score(calm, quiet, work),
    }  # fmt: skip


def strict_score(rows: dict[Key, dict[str, Any]], keys: Collection[Key], work: Path) -> float:
    """Return the strict score of some rows, 0 to 1; mean over questions of both kinds."""
    questions = load_questions(benchmark("world"), work / "world")
    asked = {row.id: row for row in questions.rows}
    values: list[float] = []
    for key in sorted(keys):
        turns = rows[key]["turns"]
        said = turns[-1]["generation"]["text"] if turns and turns[-1]["answer"] is not None else ""
        values += [
            value or 0.0
            for value in questions.benchmark.strict([asked[key[0]]], {key[0]: said}).values.values()
        ]
    return sum(values) / max(len(values), 1)


def main() -> None:
    """Play what is missing, print the table, and record it if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, used again")
    parser.add_argument("--only", choices=PARTS, help="play one part")
    parser.add_argument("--record", action="store_true", help="write docs/results.json and docs/results.md")
    flags = parser.parse_args()
    work = flags.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for name in PARTS:
        kept = work / f"{name}.json"
        if not kept.exists() and flags.only in (None, name):
            kept.write_text(json.dumps(disturb(name, work)), encoding="utf-8")
        if kept.exists():
            found[name] = json.loads(kept.read_text(encoding="utf-8"))
            print(name, json.dumps(found[name], indent=1))
    if flags.record:
        write(found)
    wrong = [
        name for name, one in found.items() if one["untouched that differ"] or one["of the way that differ"]
    ]
    if wrong:
        sys.exit(f"rows differ that met no noise: {wrong}")


TITLES = {
    "quick": "server that answers at once, faults and a restart",
    "model": "embedded model behind HTTP, faults and a restart",
    "kills": "server that answers at once, faults, a restart, kills at ten random moments",
    "local": "embedded model in this process, kills at ten random moments",
}


def write(found: dict[str, dict[str, Any]]) -> None:
    """Record the study."""
    columns = (
        "episodes", "faults", "untouched", "untouched that differ", "of the way", "of the way that differ", "noise",
        "noise that differ", "lost to machines", "played again", "kills", "score, untouched",
        "score there with nothing in the way",
    )  # fmt: skip
    kinds = sum((Counter(one["kinds"]) for one in found.values()), Counter())
    shares = ", ".join(f"{fault} {rate:g}" for fault, rate in RATES.items())
    notes = [
        "Rows by the worst that they met: untouched = no fault; of the way = every fault but noise; noise = other "
        "words in place of the model's, which nobody can tell from a reply: such a row counts as the model's own. No "
        "row was missing and none was there twice; the study fails otherwise.",
        f"A row differs if anything in it differs but {MACHINE_FIELDS}.",
        f"Share of requests that meet each fault: {shares}. Met: "
        f"{', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))} (down: while the server started).",
        "Lost to machines = rows that hold a fault instead of an answer after all rounds; `--resume` plays them again.",
    ]
    record(
        "eval_faults", title="Evaluation on bad days", command="python benchmarks/eval_faults.py --work DIR --record",
        seeds=[SEED], n=sum(one["episodes"] for one in found.values()),
        figures={TITLES[name]: {column: one[column] for column in columns} for name, one in found.items()},
        notes=notes,
    )  # fmt: skip


if __name__ == "__main__":
    main()
