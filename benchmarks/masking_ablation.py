"""The unified mask against its ablations when the first grounding of a share of the tool rows is wrong.

    python benchmarks/masking_ablation.py WORK [--seeds 0 1 2] [--jobs 2]

The design, fixed before any figure was seen:

1. The base is the embedded small model, which already plays the loop: the question is which mask keeps it from learning
   what is wrong in the rows. (A base that had only seen single replies could not be had cheaply: teaching it the option
   letters wiped out its grounding. That was seen on the base alone, before any fine-tuning was scored.)
2. From the base, per seed (which draws other videos and rows), six fine-tunings of equal steps on the same kinds of
   rows: 25 % without the tool (as the release mixes direct rows in), the rest with it: once-call rows, whose first call
   is right and trained under every mask but `last_turn`; twice-call rows, where a first look finds nothing; and a share
   of 30 % or 60 % of the tool rows whose first call is wrong and whose second call, from the skim, is right. A wrong
   call errs as a labeller does: another scene's event (60 %, of the same shape if there is one) or a span that misses
   the event to one side (40 %).
   No read-outs: the replies alone teach. All fine-tunings share the base, so their spread understates that of whole
   trainings.
3. Three masks: all_turns, last_two_turns (the unified mask), last_turn. Rows, order, steps and rates are the same.
4. Scored on held-out MP4s of 3 to 40 minutes, greedy and sampled at temperature 1: mIoU and R@0.5 of grounding
   questions, option-letter accuracy, the IoU of the first call (0 without one), and the share that gave no answer.

The script can be repeated: finished trainings and evaluations are kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from record import ROOT, record

from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.train.masking import MASKS

SHARES = (0.3, 0.6)
TEMPERATURES = (0.0, 1.0)
STEPS = 100
VIDEOS = 20
FIGURES = ("miou", "recall_at_0.5", "accuracy", "first_call_iou", "crops_per_question", "no_answer")


def noisy_recipe(seed: int, mask: str, share: float) -> dict[str, Any]:
    """Return the recipe of one fine-tuning."""
    stage = {
        "name": "sft", "kind": "world", "world_seed": 30 + seed, "steps": STEPS, "batch": 16, "lr": 0.01, "decay": 0.6,
        "optimizer": "muon", "mask": mask, "readout_weight": 0.0, "mix": {"direct": 0.25, "wrong_first": share},
    }  # fmt: skip
    model = {"checkpoint": str(SMALL_CHECKPOINT), "device": "cpu", "dtype": "float32"}
    return {"seed": seed, "model": model, "stages": [stage]}


def train(recipe: dict[str, Any], folder: Path) -> Path:
    """Train in this process unless it is done; returns the finished model's folder."""
    import torch

    from timeloupe.train.recipe import SftRecipe
    from timeloupe.train.sft import train_sft

    torch.set_num_threads(1)
    if not (folder / "model" / "timeloupe.json").exists():
        train_sft(SftRecipe(**recipe), folder, resume=(folder / "recipe.json").exists())
    return folder / "model"


def evaluate(
    model: Path, world: Path, temperature: float, seed: int, *, figures: tuple[str, ...] = FIGURES
) -> dict[str, Any]:
    """Return the named figures of one model at one temperature; ``looks`` is the share of episodes with a crop."""
    import torch
    from agentic_vs_single_pass import BINS_MINUTES

    from timeloupe.environment.settings import make_settings
    from timeloupe.eval.compare import compare, summarise
    from timeloupe.grounding import tiou
    from timeloupe.model.load import load_model
    from timeloupe.policy.local import LocalPolicy
    from timeloupe.prompt.protocol import PROTOCOLS
    from timeloupe.trajectory import StopReason
    from timeloupe.world.encode import make_videos
    from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings

    torch.set_num_threads(1)
    lengths = [
        ScriptSettings(min_seconds=60 * low, max_seconds=60 * high) for low, high in BINS_MINUTES.values()
    ]
    made = make_videos(
        world, seed=EVALUATION_SEEDS[-2], num_videos=VIDEOS,
        settings_of=lambda index: lengths[index % len(lengths)], per_task=2,
    )  # fmt: skip
    examples = [e.model_copy(update={"video": str(v.path)}) for v in made for e in v.examples]
    loaded = load_model(model, device="cpu")
    settings = make_settings(loaded.layout.details["episode"], {"temperature": temperature})
    section = compare(
        examples, LocalPolicy(loaded), PROTOCOLS["small"], settings, seed=seed, sections=("agentic",)
    )["agentic"]
    table: dict[str, Any] = dict(summarise(section.outcomes, section.seconds))
    overlaps = [
        tiou(one.turns[0].call.segments[0], one.example.segments[0])
        for one in section.trajectories
        if one.turns and one.turns[0].call is not None
    ]
    table["first_call_iou"] = sum(overlaps) / len(examples)
    table["no_answer"] = sum(one.stop is not StopReason.ANSWERED for one in section.trajectories) / len(
        examples
    )
    table["looks"] = sum(bool(one.crops) for one in section.trajectories) / len(examples)
    return {name: table[name] for name in figures} | {"n": len(examples)}


def one(work: Path, seed: int, job: str) -> None:
    """Do one job in this process: ``MASK:SHARE``, or ``base``: score the base."""
    if job == "base":
        for temperature in TEMPERATURES:
            path = work / f"base-{temperature}.json"
            if not path.exists():
                figures = evaluate(SMALL_CHECKPOINT, work / "world", temperature, seed)
                path.write_text(json.dumps(figures), encoding="utf-8")
        return
    mask, share = job.split(":")
    folder = work / f"{mask}-{share}-{seed}"
    model = train(noisy_recipe(seed, mask, float(share)), folder)
    for temperature in TEMPERATURES:
        path = folder / f"figures-{temperature}.json"
        if not path.exists():
            path.write_text(json.dumps(evaluate(model, work / "world", temperature, seed)), encoding="utf-8")


def spread(values: list[float]) -> dict[str, float]:
    """Return mean, smallest and largest over seeds."""
    return {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}


def collect(work: Path, seeds: list[int]) -> dict[str, Any]:
    """Return the table: one row per share, mask and temperature, figures over seeds."""
    table: dict[str, Any] = {}
    for temperature in TEMPERATURES:
        path = work / f"base-{temperature}.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            table[f"base, T = {temperature:g}"] = {"seeds": 1} | {name: found[name] for name in FIGURES}
    for share in SHARES:
        for temperature in TEMPERATURES:
            for mask in MASKS:
                paths = [work / f"{mask}-{share}-{seed}" / f"figures-{temperature}.json" for seed in seeds]
                found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
                if found:
                    row = {name: spread([one[name] for one in found]) for name in FIGURES}
                    table[f"{share:.0%} wrong, {mask}, T = {temperature:g}"] = {"seeds": len(found)} | row
    return table


def plot(table: dict[str, Any], path: Path) -> None:
    """Draw mIoU and letter accuracy by mask, share and temperature; whiskers are the seeds' range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {"all_turns": "#b5651d", "last_two_turns": "#1f6f8b", "last_turn": "#8a8a8a"}
    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6), constrained_layout=True)
    groups = [(share, temperature) for share in SHARES for temperature in TEMPERATURES]
    titles = {
        "miou": "mIoU",
        "accuracy": "letter accuracy",
        "first_call_iou": "IoU of the first call",
    }
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for offset, mask in enumerate(MASKS):
            rows = [
                table.get(f"{share:.0%} wrong, {mask}, T = {temperature:g}") for share, temperature in groups
            ]
            places = [index + 0.26 * (offset - 1) for index, row in enumerate(rows) if row]
            values = [row[name] for row in rows if row]
            means = [value["mean"] for value in values]
            errors = [[v["mean"] - v["low"] for v in values], [v["high"] - v["mean"] for v in values]]
            axis.bar(
                places,
                means,
                0.24,
                yerr=errors,
                color=colours[mask],
                label=mask,
                error_kw={"lw": 1, "capsize": 2},
            )
        axis.set_xticks(range(len(groups)), [f"{s:.0%} wrong\nT = {t:g}" for s, t in groups], fontsize=8)
        axis.set_ylim(0, 1)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=3, fontsize=8, frameon=False, loc="outside lower center")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run all jobs in processes of one thread each, then record what is finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--job", nargs=2, metavar=("SEED", "JOB"), help="internal: run one job in this process"
    )
    parser.add_argument("--collect", action="store_true", help="only write down what is finished")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    if arguments.job:
        one(work, int(arguments.job[0]), arguments.job[1])
        return
    work.mkdir(parents=True, exist_ok=True)

    def run(seed: int, job: str) -> None:
        words = [sys.executable, __file__, str(work), "--job", str(seed), job]
        with (work / f"{seed}-{job.replace(':', '-')}.log").open("ab") as log:
            subprocess.run(words, check=True, stdout=log, stderr=log)

    if not arguments.collect:
        run(arguments.seeds[0], "base")  # makes the videos, too
        with ThreadPoolExecutor(arguments.jobs) as pool:
            jobs = [
                (seed, f"{mask}:{share}") for seed in arguments.seeds for share in SHARES for mask in MASKS
            ]
            list(pool.map(lambda job: run(*job), jobs))
    table = collect(work, arguments.seeds)
    plot(table, ROOT / "docs" / "masking.png")
    n = 4 * VIDEOS
    record(
        "masking-ablation", title="Which turns to train when early groundings are wrong",
        command="python benchmarks/masking_ablation.py WORK", seeds=arguments.seeds, n=n, figures=table,
        notes=[
            "Means over training seeds, brackets are the smallest and largest seed (not bootstraps).",
            "The design is in the script's docstring and was fixed before any figure was seen.",
            f"{VIDEOS} held-out MP4s of 3 to 40 minutes, two grounding and two multiple-choice questions each.",
        ],
        plots=["masking.png"],
    )  # fmt: skip


if __name__ == "__main__":
    main()
