"""Reinforcement learning after supervised training on noisy groundings, in the world: gains, and what rewards spoil.

    python benchmarks/rl_world.py WORK [--seeds 0 1 2] [--variants paper no_iou ...] [--jobs 2] [--record]

The design, fixed before any figure was scored:

1. Per seed: the embedded model is fine-tuned for 100 steps on rows of which 60 % have a wrong first call, all turns
   trained (``masking_ablation.py``): it plays the loop, but its first look is often wrong.
2. From there, 60 steps of GRPO on 40 training videos of 3 to 40 minutes: 9 questions x 8 roll-outs a step, KL 0.01.
   The variants differ in the reward alone:
   - ``paper``: accuracy, penalty-aware IoU, format
   - ``no_penalty``: the same without the deduction below IoU 0.1 or without a look
   - ``no_iou``: accuracy and format
   - ``release``: the rescaled and gated form of the release
3. Before and after, greedy and at temperature 1, on held-out MP4s: mIoU, option letters, share of episodes that look,
   IoU of the first call, crops.

The script can be repeated: what is finished is kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from masking_ablation import FIGURES, TEMPERATURES, evaluate, noisy_recipe, spread, train
from record import ROOT, record

STEPS = 60
SHARE = 0.6

PAPER = """
title = "{title}"
source = "benchmarks/rl_world.py, after arXiv 2602.07801"
protocol = "videotemp"
tools = true
tasks = ["multiple_choice", "grounding"]

[[parts]]
part = "videotemp.accuracy"
name = "accuracy"

[[parts]]
part = "videotemp.format"
name = "format"
"""

UNPUNISHED = """
[[parts]]
part = "videotemp.tool_iou"
name = "iou"
constants = { penalty = 0.0, no_call_penalty = 0.0, matching = "union" }
"""

VARIANTS = ("paper", "no_penalty", "no_iou", "release")


def reward_of(variant: str, folder: Path) -> str:
    """Return the reward of a variant: a preset's name, or the path of a file written to ``folder``."""
    if variant in ("paper", "release"):
        return f"videotemp_{variant}"
    path = folder / f"{variant}.toml"
    text = PAPER.format(title=variant) + (UNPUNISHED if variant == "no_penalty" else "")
    path.write_text(text, encoding="utf-8")
    return str(path)


def rl_recipe(seed: int, variant: str, work: Path) -> dict[str, Any]:
    """Return the recipe of one run."""
    return {
        "seed": seed, "steps": STEPS, "prompts": 9, "group": 8, "lr": 2e-4, "checkpoint_every": 10,
        "reward": reward_of(variant, work), "loss": {"kl_weight": 0.01}, "keep_rollouts": False,
        "model": {"checkpoint": str(work / f"noisy-{seed}" / "model"), "device": "cpu"},
        "data": {"world": {"seed": 2_100_000, "num_videos": 40, "folder": str(work / "training")}},
    }  # fmt: skip


def one(work: Path, seed: int, variant: str) -> None:
    """Do one job in this process: ``sft``, or a variant of the reward."""
    import torch

    from timeloupe.train.grpo import train_grpo
    from timeloupe.train.grpo_recipe import GrpoRecipe

    torch.set_num_threads(1)
    noisy = work / f"noisy-{seed}"
    folder = noisy if variant == "sft" else work / f"{variant}-{seed}"
    if variant == "sft":
        train(noisy_recipe(seed, "all_turns", SHARE), noisy)
    elif not (folder / "model" / "timeloupe.json").exists():
        recipe = GrpoRecipe.model_validate(rl_recipe(seed, variant, work))
        train_grpo(recipe, folder, resume=(folder / "recipe.json").exists())
    for temperature in TEMPERATURES:
        path = folder / f"figures-{temperature}.json"
        if not path.exists():
            found = evaluate(folder / "model", work / "heldout", temperature, seed)
            path.write_text(json.dumps(found), encoding="utf-8")


def collect(work: Path, seeds: list[int]) -> dict[str, Any]:
    """Return a row per variant and temperature, figures over seeds."""
    table: dict[str, Any] = {}
    for temperature in TEMPERATURES:
        for variant in ("sft", *VARIANTS):
            name = "noisy" if variant == "sft" else variant
            paths = [work / f"{name}-{seed}" / f"figures-{temperature}.json" for seed in seeds]
            found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
            if found:
                row = {figure: spread([item[figure] for item in found]) for figure in FIGURES}
                title = "noisy SFT" if variant == "sft" else f"then RL, {variant}"
                table[f"{title}, T = {temperature:g}"] = {"seeds": len(found)} | row
    return table


CURVES = ("reward", "looks", "crop_iou", "answer_iou", "right", "kl")


def plot(work: Path, seeds: list[int], path: Path) -> None:
    """Draw what happens while training: mean over seeds of each figure, smoothed over 5 steps, by variant."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    colours = {"paper": "#1f6f8b", "no_penalty": "#6a994e", "no_iou": "#b5651d", "release": "#8a8a8a"}
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6), constrained_layout=True)
    for axis, name in zip(axes.flat, CURVES, strict=True):
        for variant in VARIANTS:
            for seed in seeds:
                file = work / f"{variant}-{seed}" / "metrics.jsonl"
                if not file.exists():
                    continue
                rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
                places = [row["step"] for row in rows if name in row]
                values = np.array([row[name] for row in rows if name in row])
                smooth = [values[max(0, at - 4) : at + 1].mean() for at in range(len(values))]
                label = variant if seed == seeds[0] else None
                axis.plot(places, smooth, color=colours[variant], lw=1.3, alpha=0.8, label=label)
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("step", fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, fontsize=8, frameon=False, loc="outside lower center")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run all jobs in processes of one thread each, then print and record what is finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write docs/results.* and docs/rl_world.png")
    parser.add_argument("--one", nargs=2, metavar=("SEED", "JOB"), help="internal: one job")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        one(work, int(arguments.one[0]), arguments.one[1])
        return

    def run(job: tuple[int, str]) -> None:
        words = [sys.executable, __file__, str(work), "--one", str(job[0]), job[1]]
        print("running", *job, flush=True)
        subprocess.run(words, check=True, cwd=ROOT)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(run, [(seed, "sft") for seed in arguments.seeds[:1]]))  # makes the shared videos
        list(pool.map(run, [(seed, "sft") for seed in arguments.seeds[1:]]))
        jobs = [(seed, variant) for seed in arguments.seeds for variant in arguments.variants]
        list(pool.map(run, jobs[:1]))
        list(pool.map(run, jobs[1:]))
    table = collect(work, arguments.seeds)
    for name, row in table.items():
        print(name, row)
    plot(work, arguments.seeds, (ROOT / "docs" if arguments.record else work) / "rl_world.png")
    if arguments.record:
        record(
            "rl_world", title="Reinforcement learning after noisy supervision, in the world",
            command="python benchmarks/rl_world.py WORK --record", seeds=arguments.seeds,
            n=80, figures=table, plots=["rl_world.png"],
            notes=["Mean over seeds [lowest, highest]; a seed draws the noisy rows, the roll-outs and the order."],
        )  # fmt: skip


if __name__ == "__main__":
    main()
