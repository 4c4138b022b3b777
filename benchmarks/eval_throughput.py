"""What `timeloupe eval` itself costs: episodes a second against a server that answers at once, and memory.

    python benchmarks/eval_throughput.py --work DIR [--episodes N] [--memory N] [--rounds N] [--record]

The server (``tests/servers/quick_server.py``, a process of its own) draws its replies from the request's seed, so all
time is the client's, the operating system's and a little the server's. Frames are 32 x 32, as the embedded model's:
with larger ones decoding and encoding pictures cost more, and a real model's time dwarfs all of it. Parts:

rate      episodes a second at concurrency 1, 8 and 64, interleaved; with frames in a cache on disk, and decoded anew
profile   where the time of one episode after another goes, by samples of the stack
memory    resident memory over many episodes, while they are played and while the report is made

Resumable: what is in DIR is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from eval_faults import FORK, Play
from record import ROOT, record

sys.path.insert(0, str(ROOT))

from tests.servers.process import serving

CONCURRENCY = (1, 8, 64)
SAMPLE_SECONDS = 0.003
QUESTIONS = 50


def make_world(work: Path) -> Path:
    """Return a folder of more than fifty questions over six short videos."""
    folder = work / "world"
    if not (folder / "truth.jsonl").exists():
        words = ["--videos", 6, "--seed", 1000123, "--minutes", "1:1.5", "--per-task", 5]
        Play("world", "make", folder, *words).said()
    return folder


def words_of(work: Path, url: str, run: Path, episodes: int, concurrency: int, cached: bool) -> list[str]:
    """Return the arguments of a run."""
    words: list[object] = [
        "eval", "world", "--data", make_world(work), "--base-url", url, "--model", "quick", "--settings-from", "small",
        "--protocol", "videotemp", "--limit", QUESTIONS, "--repeats", -(-episodes // QUESTIONS),
        "--concurrency", concurrency, "--run", run, "--seed", 1, "--mode", "strict", "--json",
        *(("--cache-dir", work / "frames") if cached else ()),
    ]  # fmt: skip
    return [str(word) for word in words]


def time_run(work: Path, url: str, episodes: int, concurrency: int, cached: bool) -> dict[str, float]:
    """Play a run; return its episodes, its seconds of play and the CPU seconds of the program and its decoders."""
    run = work / f"run-{os.getpid()}-{time.time_ns()}"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = words_of(work, url, run, episodes, concurrency, cached)
    document = Play(*words).said()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert document["lost"] == 0
    turns = json.loads((run / "card.json").read_text(encoding="utf-8"))["cost"]["turns"]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"episodes": document["episodes"], "turns": turns, "seconds": document["seconds"], "cpu": cpu}


PLACES = (
    ("waiting for the server and the network", ("selectors.py",)),
    ("frames from the cache on disk", ("video/disk_cache.py", "video/cache.py")),
    ("frames from the decoder", ("video/isolate.py", "video/decode.py")),
    ("reading frames, the rest", ("video/",)),
    ("pictures and request body", ("policy/openai_wire.py", "PIL/")),
    ("SDK and HTTP", ("openai/", "httpx", "httpcore", "anyio/", "h11/")),
    ("reading the reply, secrets", ("policy/openai_reply.py", "policy/openai_errors.py")),
    ("thread and event loop of a request", ("asyncio/", "policy/openai_http.py", "threading.py")),
    ("prompts, parsing, records", ("environment/", "prompt/", "trajectory.py", "pydantic/")),
    ("writing the row, progress, score", ("runs.py", "cli/", "eval/", "rich/")),
)
"""Where a sample belongs: the first of these names on the stack, from the inside."""


def place_of(frame: FrameType | None, loop: FrameType | None) -> str | None:
    """Return the place of the player's stack, or of the request loop's while it waits for that.

    ``None`` while no episode is played.
    """
    stack = list(walk(frame))
    if not any(one.f_code.co_name == "run_episodes" for one in stack):
        return None
    if loop is not None and any("openai_http.py" in one.f_code.co_filename for one in stack):
        stack = list(walk(loop))
    for name in (one.f_code.co_filename for one in stack):
        for place, parts in PLACES:
            if any(part in name for part in parts):
                return place
    return "other"


def walk(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames of a stack, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def profile(words: list[str], out: Path) -> None:
    """Play a run in this process and write how many samples fell where."""
    from timeloupe.cli.main import main as timeloupe

    found: Counter[str] = Counter()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            frames = sys._current_frames()
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            asking = [frame for ident, frame in frames.items() if names.get(ident) == "timeloupe-openai"]
            encoding = [
                frame for ident, frame in frames.items() if (names.get(ident) or "").startswith("asyncio")
            ]
            busy = [place for place in map(place_of_any, encoding) if place == "pictures and request body"]
            player = frames.get(threading.main_thread().ident or 0)
            place = busy[0] if busy else place_of(player, asking[0] if asking else None)
            if place is not None:
                found[place] += 1

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = timeloupe(words)
    ended.set()
    watcher.join()
    assert code == 0
    out.write_text(json.dumps(found), encoding="utf-8")


def place_of_any(frame: FrameType | None) -> str | None:
    """Return the place of a helper's stack: it is encoding pictures or idle."""
    encodes = any("openai_wire.py" in one.f_code.co_filename for one in walk(frame))
    return "pictures and request body" if encodes else None


def watch_memory(work: Path, url: str, episodes: int) -> dict[str, Any]:
    """Play a long run; return rows and MiB of resident memory over its time, and the peak."""
    run = work / f"memory-{time.time_ns()}"
    words = words_of(work, url, run, episodes, 16, True)
    with subprocess.Popen([sys.executable, "-m", "timeloupe", *words], stdout=subprocess.PIPE) as process:
        curve: list[tuple[int, float]] = []
        rows, at, peak = 0, 0, 0.0
        lines = run / "trajectories.jsonl"
        reader = threading.Thread(target=process.stdout.read if process.stdout else str, daemon=True)
        reader.start()
        while process.poll() is None:
            time.sleep(0.25)
            if lines.exists():
                with lines.open("rb") as file:
                    file.seek(at)
                    new = file.read()
                rows, at = rows + new.count(b"\n"), at + len(new)
            now = resident(process.pid)
            if now:
                peak = max(peak, now)
                curve.append((rows, now))
        assert process.returncode == 0
    size = lines.stat().st_size
    lines.unlink()
    return {"rows": rows, "curve": curve, "peak": peak, "bytes of a row": size / rows}


def resident(pid: int) -> float:
    """Return a process's resident memory in MiB, 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0.0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(work: Path, episodes: int, rounds: int, memory: int) -> dict[str, Any]:
    """Return all figures, measuring what DIR does not hold."""
    kept = work / "figures.json"
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"runs": {}}

    def keep() -> None:
        kept.write_text(json.dumps(found), encoding="utf-8")

    with serving(module="quick_server") as server:
        url = server.url
        if not found["runs"]:
            time_run(work, url, QUESTIONS, 8, True)  # fills the cache on disk
        for number in range(rounds):
            for cached in (True, False):
                for concurrency in CONCURRENCY:
                    name = f"{'cached' if cached else 'decoded'} {concurrency}"
                    runs = found["runs"].setdefault(name, [])
                    if len(runs) <= number:
                        runs.append(time_run(work, url, episodes, concurrency, cached))
                        print(name, runs[-1], flush=True)
                        keep()
        if "profile" not in found:
            out = work / "profile.json"
            words = words_of(work, url, work / f"profiled-{time.time_ns()}", episodes, 1, True)
            process = FORK.Process(target=profile, args=(words, out))
            process.start()
            process.join()
            found["profile"] = json.loads(out.read_text(encoding="utf-8"))
            found["profile_episodes"] = episodes
            keep()
        if memory and "memory" not in found:
            found["memory"] = watch_memory(work, url, memory)
            keep()
    return found


def table(found: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the figures of the record."""
    rows: dict[str, dict[str, float | None]] = {}
    for name, runs in found["runs"].items():
        kind, concurrency = name.split()
        title = (
            f"{'frames in the cache' if kind == 'cached' else 'frames decoded'}, concurrency {concurrency}"
        )
        cpu = statistics.median(run["cpu"] / run["episodes"] for run in runs)
        rows[title] = {
            "episodes/s": statistics.median(run["episodes"] / run["seconds"] for run in runs),
            "CPU ms an episode": 1000 * cpu,
            "turns an episode": runs[0]["turns"] / runs[0]["episodes"],
        }
    return rows


def plot(found: dict[str, Any], path: Path) -> None:
    """Draw memory over rows, and where the time goes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=(1, 1))
    total = sum(found["profile"].values())
    places = sorted(found["profile"].items(), key=lambda one: one[1])
    left.barh([place for place, _ in places], [100 * count / total for _, count in places], color="#4477aa")
    left.set_xlabel("% of an episode's time, concurrency 1")
    curve = found["memory"]["curve"]
    right.plot([rows for rows, _ in curve], [memory for _, memory in curve], color="#ee6677", lw=1.2)
    right.set_xlabel("episodes in the run (last rise: the report)")
    right.set_ylabel("resident MiB")
    right.set_ylim(0)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def write(found: dict[str, Any]) -> None:
    """Record the study."""
    total = sum(found["profile"].values())
    shares = ", ".join(
        f"{place} {count / total:.0%}" for place, count in Counter(found["profile"]).most_common()
    )
    notes = [
        "A server that answers at once, frames of 32 x 32: the runner's own cost. Medians of "
        f"{len(next(iter(found['runs'].values())))} rounds; episodes a second are wall time (mean load of the last "
        f"15 minutes, the study's own among it: {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores); "
        "CPU is of the program and its decoders without imports (the server's is not in it).",
        f"{found['profile_episodes']} episodes one after another, frames in the cache: {shares}. The decoder's part is "
        "its start and the indexing of six files, once for all episodes.",
    ]
    if "memory" not in found:
        notes.append("Memory over a long run is not measured yet (`--memory 10000`).")
    plots = []
    if "memory" in found:
        memory = found["memory"]
        at = {rows: mib for rows, mib in reversed(memory["curve"]) if rows}
        played = [mib for rows, mib in at.items() if rows < memory["rows"]]
        first = next((mib for rows, mib in sorted(at.items()) if rows >= memory["rows"] / 10), 0.0)
        plot(found, ROOT / "docs" / "eval_throughput.png")
        plots = ["eval_throughput.png"]
        notes.append(
            f"Memory over {memory['rows']:,} episodes at concurrency 16: {first:.0f} MiB after the first tenth, "
            f"{max(played):.0f} MiB at most while playing, {memory['peak']:.0f} MiB at most in the report, which reads "
            f"all episodes (a row has {memory['bytes of a row'] / 1000:.1f} kB)."
        )
    record(
        "eval_throughput", title="Evaluation: the runner's own cost",
        command="python benchmarks/eval_throughput.py --work DIR --record", seeds=[1],
        n=sum(run["episodes"] for runs in found["runs"].values() for run in runs), figures=table(found), notes=notes,
        plots=plots,
    )  # fmt: skip


def main() -> None:
    """Measure what is missing, print it, and record it if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, used again")
    parser.add_argument("--episodes", type=int, default=500, help="of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=10_000, help="episodes of the long run")
    parser.add_argument("--record", action="store_true", help="write docs/results.json and docs/results.md")
    flags = parser.parse_args()
    work = flags.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    found = measure(work, flags.episodes, flags.rounds, flags.memory)
    for title, row in table(found).items():
        print(
            f"{title:44} "
            + "  ".join(f"{name} {value:.2f}" for name, value in row.items() if value is not None)
        )
    print(found["profile"])
    if flags.record:
        write(found)


if __name__ == "__main__":
    main()
