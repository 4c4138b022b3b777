"""`timeloupe data build` in one process against Ray Data on this machine: rows a minute, cost of a kept row, same rows.

    python benchmarks/build_engines.py --work DIR [--rounds 3] [--record]

A world's rows, labelled by its oracle with errors, both stages. Each round builds them once with one thread and once
with Ray and two actors, in turn, in fresh folders, Ray being up already: its start is timed apart. Needs
``pip install 'timeloupe[ray]' -c constraints.txt``. Fails (exit 1) if the two make different rows.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from build_faults import ORACLE, RECIPE, SEED, make_home
from record import ROOT, record

sys.path.insert(0, str(ROOT))

from tests.data.build.rows import steady_rows
from timeloupe.cli.data_build import make_labeller
from timeloupe.config import load_recipe
from timeloupe.data.build.build import Build, WorkThrough, threads
from timeloupe.data.build.recipe import BuildRecipe
from timeloupe.data.build.source import read_source
from timeloupe.engines.ray import Actors, ray_actors
from timeloupe.trajectory import Example


def play(
    recipe: BuildRecipe, rows: list[Example], folder: Path, work_through: WorkThrough
) -> tuple[float, dict[str, Any]]:
    """Return how long a build took in seconds, and its summary."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    began = time.perf_counter()
    summary = Build(recipe, folder, rows, work_through, batch=recipe.labeller.batch).run()
    assert summary["ended"] == "done", summary
    return time.perf_counter() - began, summary


def main() -> None:
    """Build, print, and record if asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the builds and their world")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="write docs/results.json and docs/results.md")
    flags = parser.parse_args()
    work = flags.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    path = work / "engines.toml"
    path.write_text(RECIPE.replace("{world}", str(make_home(work))) + ORACLE, encoding="utf-8")
    recipe = load_recipe(path, [], BuildRecipe)
    rows = read_source(recipe.source)
    make = partial(make_labeller, recipe, rows)
    began = time.perf_counter()
    through_ray = ray_actors(make, Actors(2))
    start = time.perf_counter() - began
    seconds: dict[str, list[float]] = {"threads": [], "ray": []}
    summaries: dict[str, dict[str, Any]] = {}
    for number in range(flags.rounds):
        # A labeller of its own for each round: Ray's actors begin with an empty cache of frames too.
        for name, through in (("threads", threads(make(), 1)), ("ray", through_ray)):
            took, summaries[name] = play(recipe, rows, work / f"engine-{name}", through)
            seconds[name].append(took)
            print(f"round {number}, {name}: {took:.1f} s", flush=True)
        if steady_rows(work / "engine-ray") != steady_rows(work / "engine-threads"):
            sys.exit("Ray makes other rows than threads")
    count = len(steady_rows(work / "engine-ray"))
    ratios = [one / other for one, other in zip(seconds["threads"], seconds["ray"], strict=True)]
    titles = {"threads": "one process, one thread", "ray": "Ray Data, two actors"}
    figures: dict[str, dict[str, Any]] = {
        titles[name]: {
            "rows": count, "rows a minute": 60 * count / statistics.median(seconds[name]),
            "USD a kept row of `ground`": summaries[name]["stages"]["ground"]["cost_per_kept_row"],
        }
        for name in titles
    }  # fmt: skip
    figures[titles["threads"]] |= {"speed, one process = 1": 1.0, "seconds to start": 0.0}
    figures[titles["ray"]] |= {"speed, one process = 1": statistics.median(ratios), "seconds to start": start}
    print(figures, ratios)
    if flags.record:
        record(
            "build_engines", title="Data construction: one process against Ray",
            command="python benchmarks/build_engines.py --work DIR --record", seeds=[SEED], n=count,
            figures=figures,
            notes=[
                f"Median of {flags.rounds} rounds of both in turn; ratios of the "
                f"rounds: {', '.join(f'{one:.3f}' for one in ratios)}. The rows of both were the same; the study fails "
                "otherwise.",
                "Ray's actors start anew for each stage, import timeloupe and index the videos; that is in its time, "
                "the start of Ray itself is not and stands apart. The thread's process has the videos' indexes in "
                "memory from its second round on. The labeller is an oracle that answers at once; one that takes "
                "seconds for a reply would weigh on both alike. On one machine threads are the "
                "engine to use; Ray is for several.",
                "US dollars by the recipe's made-up price; the same calls in both.",
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
