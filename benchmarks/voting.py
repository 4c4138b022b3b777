"""Does a vote of N samples help the small model, and what does it cost? Majority and self-weighted votes on the world.

    python benchmarks/voting.py WORK --record

WORK keeps the held-out world and one run of 8 samples per question, at temperature 1, for each seed; a stopped study
goes on. Votes of 4 are taken from the same samples (the first four and the last four, the mean of both).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import ROOT, record

from timeloupe.eval.card import cost
from timeloupe.eval.metrics import bootstrap_interval
from timeloupe.eval.predictions import of_episodes
from timeloupe.eval.questions import load_questions
from timeloupe.eval.registry import benchmark
from timeloupe.eval.scaling import by_question, equal_weights, self_weights, vote
from timeloupe.eval.scoring import Row
from timeloupe.runs import open_run
from timeloupe.trajectory import Trajectory

WORLD_SEED = 1_005_000
SAMPLES = 8
WAYS = {"majority": equal_weights, "self": self_weights}
Values = dict[tuple[int, str], float]
"""A question's value by seed and row id."""


def timeloupe(*words: str | Path) -> None:
    """Run a command; what it prints on stdout is not wanted."""
    subprocess.run(
        [sys.executable, "-m", "timeloupe", *map(str, words)], check=True, stdout=subprocess.DEVNULL
    )


def samples_of(work: Path, seed: int, questions: int) -> list[Trajectory]:
    """Return the episodes of one seed, played where they are missing."""
    run = work / f"samples-{seed}"
    timeloupe(
        "eval", "world", "--data", work / "world", "--policy", "small", "--run", run, "--json", "--seed", str(seed),
        "--samples", str(SAMPLES), "--temperature", "1", "--limit", str(questions), "--concurrency", "64",
    )  # fmt: skip
    return open_run(run).latest()


def chosen(rows: Sequence[Row], some: Sequence[Trajectory], way: str) -> dict[str, float]:
    """Return the strict value of each question that a vote of these samples has."""
    return dict(benchmark("world").strict(rows, vote(rows, by_question(some), WAYS[way]).by_id).values)


def of_sample(rows: Sequence[Row], some: Sequence[Trajectory], index: int) -> dict[str, float]:
    """Return the strict value of each question that one sample has."""
    loaded = of_episodes([one for one in some if one.rollout_index == index], "")
    return dict(benchmark("world").strict(rows, loaded.by_id).values)


def mean_of(tables: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of tables, question by question."""
    return {id: sum(table[id] for table in tables) / len(tables) for id in tables[0]}


def lines(rows: Sequence[Row], runs: dict[int, list[Trajectory]]) -> dict[str, Values]:
    """Return the values of each line of the table."""
    found: dict[str, Values] = {}

    def add(name: str, seed: int, table: dict[str, float]) -> None:
        found.setdefault(name, {}).update({(seed, id): value for id, value in table.items()})

    for seed, some in runs.items():
        singles = [of_sample(rows, some, index) for index in range(SAMPLES)]
        add("single sample, N = 1", seed, mean_of(singles))
        for count in (4, SAMPLES):
            parts = [range(at, at + count) for at in range(0, SAMPLES, count)]
            for way in WAYS:
                votes = [
                    chosen(rows, [one for one in some if one.rollout_index in part], way) for part in parts
                ]
                add(f"{way}, N = {count}", seed, mean_of(votes))
            best = [{id: max(singles[at][id] for at in part) for id in singles[0]} for part in parts]
            add(f"best of {count} (needs the truth)", seed, mean_of(best))
    return found


def row_of(
    values: Values, base: Values, rows: Sequence[Row], spent: dict[str, Any], count: int, num_episodes: int
) -> dict[str, Any]:
    """Return one line of the table: accuracy and mIoU, what is gained over one sample, and the cost per question."""
    by_id = {row.id: row for row in rows}
    keys = list(values)
    figures: dict[str, Any] = {"N": count}
    for name, task in (("letter accuracy", "multiple_choice"), ("mIoU", "grounding")):
        some = [key for key in keys if by_id[key[1]].task == task]
        videos = [by_id[id].video for _, id in some]
        for title, found in (
            (name, values),
            (f"{name} gained", {key: values[key] - base[key] for key in keys}),
        ):
            interval = bootstrap_interval([found[key] for key in some], videos, seed=0)
            figures[title] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    tokens = (spent["prompt_tokens"] or 0) + (spent["completion_tokens"] or 0)
    figures["tokens per question"] = round(count * tokens / num_episodes, 1)
    figures["frames decoded per question"] = round(count * spent["frames_decoded"] / num_episodes, 1)
    return figures


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw accuracy and mIoU against tokens per question."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    colours = {"majority": "#1f6f8b", "self": "#b5651d", "best": "#888888"}
    for axis, name in zip(axes, ("letter accuracy", "mIoU"), strict=True):
        single = next(row for title, row in figures.items() if title.startswith("single"))
        for number, (way, colour) in enumerate(colours.items()):
            some = [single, *(row for title, row in figures.items() if title.startswith(way))]
            errors = [[row[name]["mean"] - row[name]["low"] for row in some],
                      [row[name]["high"] - row[name]["mean"] for row in some]]  # fmt: skip
            axis.errorbar(
                [row["tokens per question"] * (1 + 0.03 * number) for row in some],
                [row[name]["mean"] for row in some], yerr=errors, color=colour, marker="o", ms=4, lw=1, capsize=2,
                ls="--" if way == "best" else "-", label="best of N" if way == "best" else way,
            )  # fmt: skip
        axis.set_xscale("log", base=2)
        ticks = [row["tokens per question"] for row in figures.values()]
        axis.set_xticks(sorted(set(ticks)), [f"{tick:.0f}" for tick in sorted(set(ticks))])
        axis.minorticks_off()
        axis.set_xlabel("tokens per question (N = 1, 4, 8)", fontsize=8)
        axis.set_title(name, fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=8, frameon=False)
    drawn.savefig(path, dpi=150)
    pyplot.close(drawn)


def main() -> None:
    """Run the study; with --record write docs/results.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--videos", type=int, default=60, help="of the world, where it is not there yet")
    parser.add_argument("--questions", type=int, default=80)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    world = arguments.work / "world"
    if not (world / "examples.jsonl").is_file():
        words = ("--videos", str(arguments.videos), "--seed", str(WORLD_SEED), "--per-task", "2")
        timeloupe("world", "make", world, *words)
    rows = load_questions(benchmark("world"), world, None, arguments.questions).rows
    runs = {seed: samples_of(arguments.work, seed, arguments.questions) for seed in arguments.seeds}
    episodes = [one for some in runs.values() for one in some]
    spent = cost(episodes, 0.0)
    found = lines(rows, runs)
    base = found["single sample, N = 1"]
    figures = {
        name: row_of(values, base, rows, spent, 1 if name.startswith("single") else int(name.split("(")[0].split()[-1]),
                     len(episodes))
        for name, values in found.items()
    }  # fmt: skip
    for name, row in figures.items():
        print(name, row)
    plot(figures, (ROOT / "docs" if arguments.record else arguments.work) / "voting.png")
    if not arguments.record:
        return
    record(
        "voting", title="Votes of several samples",
        command=f"python benchmarks/voting.py WORK --questions {arguments.questions} --record",
        seeds=arguments.seeds, n=len(rows), figures=figures,
        notes=[
            f"The small model, temperature 1, {SAMPLES} samples per question and seed; held-out world (evaluation seed "
            f"{WORLD_SEED}), videos of 3 to 10 minutes, half grounding and half multiple choice; intervals by video, "
            "seeds pooled.",
            "majority: the letter that most samples give; of segments the medoid by tIoU. self: a sample weighs what "
            "the others think of its evidence. N = 4 is the mean of the votes of both halves.",
            "best of N is what choosing with the truth would give: the room that a better vote has.",
            "The small model is sure of nearly all that it says, right or wrong, so its samples hardly differ and no "
            "vote can do much: see best of N.",
            "gained: against the mean of single samples, question by question. Tokens are prompt and reply, as the "
            "model counts them; the cache of frames is shared by the samples of a question.",
        ],
        plots=["voting.png"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
