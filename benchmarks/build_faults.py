"""`timeloupe data build` on bad days: is a row lost, is one there twice, does a fault change a row?

    python benchmarks/build_faults.py --work DIR [--only NAME] [--record]

Parts, each resumable and kept in DIR; both stages ``direct`` and ``ground``, with one re-grounding:

kills    a world's rows labelled by its oracle, which errs, in two threads; killed with SIGKILL at ten random moments
         and taken up again with --resume
served   rows labelled by the embedded model behind an HTTP server, with a proxy in between that lets a fifth of the
         calls fail: cut connections, replies that break off, HTTP 500, JSON cut short, replies without choices
both     the same, and killed at ten random moments

Each is compared with a build of the same recipe that nothing disturbed. Fails (exit 1) if a row is missing, is there
twice, or differs in anything but how long it took and how many calls a reply needed; the files made from the rows
(kept.jsonl, trajectories.jsonl, ...) must be the same too.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval_faults import Play
from record import ROOT, record

sys.path.insert(0, str(ROOT))

from tests.data.build.rows import MACHINE_FIELDS, steady_products, steady_rows
from tests.servers.process import serving

SEED = 11
KILLS = 10
RATES = {"drop": 0.05, "broken": 0.05, "500": 0.04, "cut": 0.03, "empty": 0.03}
"""Share of calls that meet each fault; 0.2 in all."""

RECIPE = """
seed = 11
prompts = "protocol"
protocol = "small"
[source]
path = "{world}/examples.jsonl"
[episode]
skim_frames = 16
crop_max_frames = 12
frame_size_wh = [32, 32]
[[stages]]
kind = "direct"
[[stages]]
kind = "ground"
reground_over_seconds = 0
[labeller]
price = [0.5, 2.0]
"""

ORACLE = """policy = "oracle"
batch = 3
[labeller.oracle]
boundary_seconds = 2.0
wrong_instance = 0.3
hallucinated = 0.1
lazy = 0.05
wrong_answer = 0.05
"""

SERVED = """policy = "openai"
model = "small"
base_url = "http://127.0.0.1:1/v1"
send = "video"
settings_from = "small"
timeout = 60
tries = 10
"""


@dataclass(frozen=True)
class Part:
    """One part of the study.

    Attributes:
        title: In the table.
        served: Whether the labeller is behind an HTTP server.
        limit: Rows of the source.
        faults: Whether the proxy is in the way.
        kills: How often the build is killed.
        like: The part whose undisturbed build has the same rows.
    """

    title: str
    served: bool
    limit: int
    faults: bool
    kills: int
    like: str


PARTS = {
    "kills": Part("oracle, killed", False, 88, False, KILLS, "kills"),
    "served": Part("small model behind HTTP, a fifth of calls fails", True, 36, True, 0, "served"),
    "both": Part("the same, and killed", True, 36, True, KILLS, "served"),
}


def make_home(work: Path) -> Path:
    """Return the folder of eleven short videos with some 88 rows."""
    world = work / "world"
    if not (world / "truth.jsonl").exists():
        words = ["--videos", 11, "--seed", 1000123, "--minutes", "1:1.5", "--per-task", 4]
        Play("world", "make", world, *words, "--tasks", "multiple_choice,grounding").said()
    return world


def words_of(part: Part, work: Path, out: Path) -> list[object]:
    """Return the arguments of ``timeloupe`` that begin a build or go on with it."""
    world = make_home(work)
    recipe = work / f"{'served' if part.served else 'oracle'}.toml"
    text = RECIPE.replace("{world}", str(world)) + (SERVED if part.served else ORACLE)
    recipe.write_text(text, encoding="utf-8")
    words: list[object] = ["data", "build", recipe, "--out", out, "--limit", part.limit, "--json"]
    words += ["--concurrency", 4 if part.served else 2]
    return [*words, "--resume"] if (out / "config.json").exists() else words


@contextmanager
def server_of(part: Part, log: Path | None) -> Iterator[list[object]]:
    """Run a part's server, with the proxy in the way if there is a log; yield what the command needs to know of it."""
    if not part.served:
        yield []
        return
    with serving("--stops", "keep") as server:
        if log is None:
            yield ["--set", f"labeller.base_url={server.url}"]
            return
        shares = [word for fault, rate in RATES.items() for word in ("--rate", f"{fault}={rate}")]
        more = ["--to", server.url, "--log", str(log), "--seed", str(SEED)]
        with serving(*more, *shares, module="fault_proxy") as proxy:
            yield ["--set", f"labeller.base_url={proxy.url}"]


def build_calmly(name: str, work: Path) -> tuple[Path, float]:
    """Return the build of a part that nothing disturbed, made if it is not there, and how long it took in seconds."""
    out, part = work / f"{name}-calm", PARTS[name]
    took = work / f"{name}-calm.seconds"
    if not took.exists():
        began = time.perf_counter()
        with server_of(part, None) as where:
            Play(*words_of(part, work, out), *where).said()
        took.write_text(str(time.perf_counter() - began), encoding="utf-8")
    return out, float(took.read_text(encoding="utf-8"))


def num_rows(out: Path) -> int:
    """Return how many rows a build has."""
    return sum(path.read_bytes().count(b"\n") for path in out.glob("*/rows.jsonl"))


def disturb(name: str, work: Path) -> dict[str, Any]:
    """Build a part with its faults and kills; return what came of it."""
    part, out, log = PARTS[name], work / name, work / f"{name}.faults.jsonl"
    calm, calm_seconds = build_calmly(part.like, work)
    draw, killed = random.Random(SEED), 0
    most = num_rows(calm)
    began = time.perf_counter()
    with server_of(part, log if part.faults else None) as where:
        for wanted in sorted(draw.sample(range(1, most - 4), part.kills)):
            play = Play(*words_of(part, work, out), *where)
            while play.process.is_alive() and num_rows(out) < wanted:
                time.sleep(0.005)
            time.sleep(draw.random() * 0.2)
            killed += play.process.is_alive()
            play.kill()
        summary = Play(*words_of(part, work, out), *where).said()
    seconds = time.perf_counter() - began
    rows, expected = steady_rows(out), steady_rows(calm)  # fails if a row is there twice
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return {
        "rows": len(rows), "kept": sum(row["kept"] for row in rows.values()),
        "lost": len(expected.keys() - rows.keys()),
        "too many": len(rows.keys() - expected.keys()),
        "differ": sum(rows[key] != expected[key] for key in rows.keys() & expected.keys()),
        "files the same": steady_products(out) == steady_products(calm), "kills": killed,
        "faults met": dict(Counter(json.loads(line)["fault"] for line in lines)),
        "calls": sum(sum(stage["asked"].values()) for stage in summary["stages"].values()),
        "calls that failed": sum(stage["failed_calls"] for stage in summary["stages"].values()),
        "seconds": seconds, "seconds undisturbed": calm_seconds, "ended": summary["ended"],
    }  # fmt: skip


def main() -> None:
    """Build what is missing, print the table, and record it if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the builds, used again")
    parser.add_argument("--only", choices=PARTS, help="build one part")
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
    wrong = [
        name
        for name, one in found.items()
        if one["lost"]
        or one["too many"]
        or one["differ"]
        or not one["files the same"]
        or one["ended"] != "done"
    ]
    if wrong:
        sys.exit(f"builds that are not what an undisturbed one is: {wrong}")
    if flags.record:
        write(found)


def write(found: dict[str, dict[str, Any]]) -> None:
    """Record the study."""
    columns = ("rows", "kept", "kills", "lost", "too many", "differ", "calls", "calls that failed")
    met = sum((Counter(one["faults met"]) for one in found.values()), Counter())
    shares = ", ".join(f"{fault} {rate:g}" for fault, rate in RATES.items())
    figures = {
        PARTS[name].title: {column: one[column] for column in columns}
        | {"time, undisturbed = 1": one["seconds"] / one["seconds undisturbed"]}
        for name, one in found.items()
    }
    notes = [
        f"Against a build that nothing disturbed. A row differs if anything in it does but {MACHINE_FIELDS}. The files "
        "made from the rows were the same; the study fails otherwise.",
        f"Share of calls that the proxy lets fail: {shares}. Met: "
        f"{', '.join(f'{kind} {count}' for kind, count in sorted(met.items()))}. Calls that failed = those "
        "that the rows at the end say of: the client itself asks again where a connection broke, and what a kill "
        "interrupted is in no row, and was paid for twice.",
        "Kills = SIGKILLs that met a process at work. Time: wall time on a machine that others used too, with "
        "the start of Python after every kill.",
    ]
    record(
        "build_faults", title="Data construction on bad days",
        command="python benchmarks/build_faults.py --work DIR --record", seeds=[SEED],
        n=sum(one["rows"] for one in found.values()), figures=figures, notes=notes,
    )  # fmt: skip


if __name__ == "__main__":
    main()
