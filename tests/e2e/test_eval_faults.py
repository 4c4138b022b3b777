"""`timeloupe eval` on bad days: a proxy that plays them, kills, signals, full disks.

Servers are processes of their own. The command itself runs in a fork of this process where it is to be killed or
limited, else in this process: starting Python anew each time would cost more than all else here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.eval.rows import Key, steady_rows
from tests.servers.process import Server, serving
from timeloupe.cli.main import main
from timeloupe.environment.rollout import derive_seed
from timeloupe.policy.openai_wire import SEED_MASK

FAULTS = {"drop": 0.08, "broken": 0.08, "500": 0.08, "429": 0.04, "cut": 0.04, "empty": 0.04, "strip": 0.2}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    words = [
        "world",
        "make",
        str(folder),
        "--videos",
        "2",
        "--seed",
        "1000123",
        "--minutes",
        "1",
        "--per-task",
        "5",
    ]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def quick() -> Iterator[Server]:
    with serving(module="quick_server") as server:
        yield server


@pytest.fixture(scope="module")
def calm(world: Path, quick: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed: some 20 questions, two episodes each."""
    folder = tmp_path_factory.mktemp("calm") / "run"
    run(*words_for(world, quick.url, folder), "--concurrency", "1")
    return folder


@contextmanager
def bad_day(server: Server, log: Path, rates: dict[str, float], *more: str) -> Iterator[Server]:
    shares = [word for fault, rate in rates.items() for word in ("--rate", f"{fault}={rate}")]
    with serving("--to", server.url, "--log", str(log), *shares, *more, module="fault_proxy") as proxy:
        yield proxy


def words_for(world: Path, url: str, folder: Path) -> list[str]:
    return [
        "world", "--data", str(world), "--base-url", url, "--model", "quick", "--settings-from", "small",
        "--protocol", "videotemp", "--seed", "3", "--repeats", "2", "--run", str(folder),
    ]  # fmt: skip


@dataclass
class Done:
    """What a command said."""

    stdout: str
    stderr: str


def run(*words: str | Path, code: int = 0) -> Done:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = main(["eval", *map(str, words)])
    assert found == code, err.getvalue()
    return Done(out.getvalue(), err.getvalue())


@dataclass
class Fork:
    """A command that runs in a fork of this process and writes what it says to a file."""

    pid: int
    path: Path

    @property
    def said(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def wait_for(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + 240
        while not ready():
            assert time.monotonic() < end, self.said
            assert self.alive(), self.said
            time.sleep(0.005)

    def alive(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def end(self) -> int:
        """Return its exit code, or the signal that ended it as a negative number."""
        end = time.monotonic() + 240
        while self.alive() and time.monotonic() < end:
            time.sleep(0.01)
        if self.alive():
            os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def fork(words: list[str], said: Path, most_bytes: int | None = None) -> Fork:
    """Run ``timeloupe eval`` in a fork of this process; files that it writes have so many bytes at most."""
    said.write_bytes(b"")
    pid = os.fork()
    if pid:
        return Fork(pid, said)
    try:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        sys.stdout = sys.stderr = said.open("a", encoding="utf-8", buffering=1)
        os._exit(main(["eval", *words]))
    except BaseException as error:
        sys.stderr.write(f"Traceback: {error!r}")
    finally:
        os._exit(99)


def touched(log: Path, keys: list[Key], seed: int) -> dict[Key, set[str]]:
    """Return which faults the episodes of a run met."""
    owner = {
        derive_seed(seed, id, repeat, turn) & SEED_MASK: (id, repeat)
        for id, repeat in keys
        for turn in range(3)
    }
    found: dict[Key, set[str]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.setdefault(owner[row["seed"]], set()).add(row["fault"])
    return found


def test_faults_of_the_way_change_no_row_and_garbage_only_its_own(
    world: Path, quick: Server, calm: Path, tmp_path: Path
) -> None:
    log = tmp_path / "faults.jsonl"
    with bad_day(quick, log, FAULTS | {"garbage": 0.1}, "--seed", "5") as proxy:
        words = words_for(world, proxy.url, tmp_path / "run")
        document = json.loads(run(*words, "--concurrency", "8", "--retries", "6", "--json").stdout)
    whole, found = steady_rows(calm), steady_rows(tmp_path / "run")
    assert found.keys() == whole.keys() and len(found) > 30
    assert document["lost"] == 0 and document["retried"] > 0
    met = touched(log, list(whole), 3)
    assert set().union(*met.values()) == {*FAULTS, "garbage"}
    other = {key for key, row in found.items() if row != whole[key]}
    assert other and other <= {key for key, faults in met.items() if "garbage" in faults}


def test_a_stalled_server_costs_the_deadline_and_is_counted(
    world: Path, quick: Server, calm: Path, tmp_path: Path
) -> None:
    log = tmp_path / "faults.jsonl"
    with bad_day(quick, log, {"stall": 1.0}, "--stall", "600") as proxy:
        words = [*words_for(world, proxy.url, tmp_path / "run"), "--limit", "3"]
        slow = run(*words, "--episode-deadline", "2", "--retries", "1", "--fail-on-error", "1", "--json")
    document = json.loads(slow.stdout)
    assert document["lost"] == 6 and document["retried"] == 6 and document["faults"] == {"deadline": 6}
    assert json.loads((tmp_path / "run" / "card.json").read_text())["faults"] == {"deadline": 6}
    row = next(iter(steady_rows(tmp_path / "run").values()))
    assert "no end after 2 s" in row["problem"]["message"] and quick.url[:12] in row["problem"]["message"]
    resumed = run(
        "--resume", tmp_path / "run", "--base-url", quick.url, "--episode-deadline", "600", "--json"
    )
    assert json.loads(resumed.stdout)["lost"] == 0
    whole = steady_rows(calm)
    assert all(row["turns"] == whole[key]["turns"] for key, row in steady_rows(tmp_path / "run").items())


def test_a_server_that_goes_away_is_waited_for(world: Path, calm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with serving(module="quick_server") as first:
        words = [*words_for(world, first.url, folder), "--concurrency", "8", "--retries", "1"]
        process = fork(words, tmp_path / "said")
        process.wait_for(lambda: num_rows(folder) >= 3)
    process.wait_for(lambda: "waiting for it, at most 600 s" in process.said)
    lines = (folder / "trajectories.jsonl").read_bytes().count(b"\n")
    with serving("--port", first.url.removesuffix("/v1").rsplit(":", 1)[1], module="quick_server"):
        assert process.end() == 0, process.said
    assert 3 <= lines < len(steady_rows(calm)), "the server went away too late"
    assert steady_rows(folder) == steady_rows(calm)


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_change_nothing(
    world: Path, quick: Server, calm: Path, tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    folder = tmp_path / "run"
    words = [*words_for(world, quick.url, folder), "--concurrency", "4"]
    for wanted in sorted(draw.randrange(1, 30) for _ in range(2)):
        killed = fork(words, tmp_path / "said")
        killed.wait_for(lambda most=wanted: num_rows(folder) >= most)
        os.kill(killed.pid, signal.SIGKILL)
        assert killed.end() == -signal.SIGKILL
        words = ["--resume", str(folder)]
    with (folder / "trajectories.jsonl").open("ab") as file:
        file.write(b'{"example":{"id":"tor')  # a kill in the middle of a line
    last = json.loads(run("--resume", folder, "--json").stdout)
    assert steady_rows(folder) == steady_rows(calm)
    again = json.loads(run("--resume", folder, "--json").stdout)
    assert again["played_now"] == 0 and again["scores"] == last["scores"]
    assert steady_rows(folder) == steady_rows(calm)


def num_rows(folder: Path) -> int:
    lines = folder / "trajectories.jsonl"
    return lines.read_bytes().count(b"\n") if lines.exists() else 0


def test_ctrl_c_once_ends_after_the_episodes_under_way_and_twice_at_once(
    world: Path, quick: Server, calm: Path, tmp_path: Path
) -> None:
    once, folder = tmp_path / "once", tmp_path / "twice"
    process = fork([*words_for(world, quick.url, once), "--concurrency", "2"], tmp_path / "said")
    process.wait_for(lambda: num_rows(once) >= 1)
    os.kill(process.pid, signal.SIGINT)
    assert process.end() == 130
    assert "stopping when the episodes under way have ended" in process.said
    assert re.search(rf"\d+ episodes are left; go on with: timeloupe eval --resume {once}\n", process.said)
    with bad_day(quick, tmp_path / "log", {"stall": 1.0}, "--stall", "600") as proxy:
        process = fork(words_for(world, proxy.url, folder), tmp_path / "said")
        process.wait_for((tmp_path / "log").exists)  # from here on no episode can end
        os.kill(process.pid, signal.SIGINT)
        process.wait_for(lambda: "stopping" in process.said)
        os.kill(process.pid, signal.SIGINT)
        assert process.end() == 130
    assert f"interrupted; go on with: timeloupe eval --resume {folder}\n" in process.said
    assert num_rows(folder) == 0
    for run_folder in (once, folder):
        run("--resume", run_folder, "--base-url", quick.url)
        assert steady_rows(run_folder) == steady_rows(calm)


def test_a_run_has_one_writer(world: Path, quick: Server, calm: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with bad_day(quick, tmp_path / "log", {"stall": 1.0}, "--stall", "600") as proxy:
        first = fork(words_for(world, proxy.url, folder), tmp_path / "said")
        first.wait_for((tmp_path / "log").exists)
        refused = run("--resume", folder, "--base-url", quick.url, code=2)
        os.kill(first.pid, signal.SIGKILL)
        assert first.end() == -signal.SIGKILL
    assert f"is being written, got a second process beside process {first.pid}" in refused.stderr
    assert "to play with" not in refused.stderr
    run("--resume", folder, "--base-url", quick.url)
    assert steady_rows(folder) == steady_rows(calm)


def test_a_full_disk_ends_the_run_and_loses_nothing(
    world: Path, quick: Server, calm: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    size = (calm / "trajectories.jsonl").stat().st_size

    full = fork(words_for(world, quick.url, folder), tmp_path / "said", size // 2)
    assert full.end() == 1, full.said
    assert "File too large" in full.said and "Traceback" not in full.said
    assert f"go on with: timeloupe eval --resume {folder}" in full.said
    assert 0 < len((folder / "trajectories.jsonl").read_bytes()) <= size // 2
    run("--resume", folder)
    assert steady_rows(folder) == steady_rows(calm)


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [("--patience", "inf", "seconds >= 0 and finite"), ("--episode-deadline", "0", "seconds > 0")],
)
def test_a_limit_of_time_out_of_range_leaves_no_run(
    world: Path, quick: Server, tmp_path: Path, flag: str, value: str, allowed: str
) -> None:
    refused = run(*words_for(world, quick.url, tmp_path / "run"), flag, value, code=2)
    assert f"{flag}, got {float(value)}, allowed: {allowed}" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made_is_said(world: Path, quick: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    refused = run(*words_for(world, quick.url, tmp_path / "file" / "run"), code=1)
    assert "Not a directory" in refused.stderr and "Traceback" not in refused.stderr
    assert "got the file" in run(*words_for(world, quick.url, tmp_path / "file"), code=2).stderr


def test_malformed_replies_and_refusals_count_as_wrong_and_stand_with_their_reasons(
    world: Path, calm: Path
) -> None:
    found = json.loads(run("--resume", calm, "--json", "--price", "2", "8").stdout)
    assert found["stops"]["format"] > 0 and found["lost"] == 0 and found["played_now"] == 0
    rows = steady_rows(calm)
    for key, row in rows.items():
        if row["stop"] == "format":
            assert row["problem"]["reason"] and row["problem"]["message"], key
    refusals = [row for row in rows.values() if "cannot help" in row["turns"][-1]["generation"]["text"]]
    assert refusals and all(row["stop"] == "format" for row in refusals)
    asked = len(rows) // 2
    malformed = [
        sum(one["stop"] == "format" for (_, repeat), one in rows.items() if repeat == n) for n in (0, 1)
    ]
    for repeat, board in enumerate(found["scores"]):
        strict = board["modes"][-1]
        assert strict["scored"] == strict["total"] == asked and strict["failures"] == {
            "unparsed": malformed[repeat]
        }
        assert board["faults"] == {"format": malformed[repeat]}
    card = json.loads((calm / "card.json").read_text(encoding="utf-8"))
    assert card["server"]["version"] == "1.2.3" and card["server"]["model"]["owned_by"] == "timeloupe"
    spent = card["cost"]
    dollars = (2 * spent["prompt_tokens"] + 8 * spent["completion_tokens"]) / 1e6
    assert spent["dollars"] == pytest.approx(dollars) and spent["dollars_per_question"] == pytest.approx(
        dollars / asked
    )


def test_the_running_score_ends_as_the_strict_score(
    world: Path, calm: Path, quick: Server, tmp_path: Path
) -> None:
    words = [*words_for(world, quick.url, tmp_path / "run"), "--repeats", "1"]
    done = run(*words, "--json")
    last = [line for line in done.stderr.splitlines() if "strict score so far " in line][-1]
    told = float(last.split("strict score so far ")[1].split()[0])
    (board,) = json.loads(done.stdout)["scores"]
    kinds = Counter(key[0].rsplit("-", 2)[1] for key in steady_rows(tmp_path / "run"))
    assert last.startswith(f"{kinds.total()} of {kinds.total()} ")
    names = {"multiple_choice": "multiple_choice accuracy", "grounding": "grounding mIoU"}
    figures = board["modes"][-1]["figures"]
    whole = sum(figures[names[kind]] * count for kind, count in kinds.items()) / kinds.total()
    assert told == pytest.approx(whole, abs=6e-4)
