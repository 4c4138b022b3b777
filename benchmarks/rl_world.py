"""Reinforcement learning in the world after noisy and after reluctant supervision: gains, and what rewards do.

    python benchmarks/rl_world.py WORK [--seeds 0 1 2] [--bases noisy] [--variants paper ...] [--jobs 2] [--record]

The design, fixed before any figure was scored:

1. Two bases per seed, both fine-tuned from the embedded model, all turns trained:
   - ``noisy``: 100 steps on rows of which 60 % have a wrong first call (``masking_ablation.py``): it plays the loop,
     but its first look is often wrong;
   - ``reluctant``: 60 steps on recorded episodes of which 85 % answer after the skim although a look was offered: it
     can look and seldom does. Here a reward can be had without looking, which is where the penalty is said to matter.
2. From each, GRPO on 40 training videos of 3 to 40 minutes: 9 questions x 8 roll-outs a step, KL 0.01; 60 steps from
   the noisy base, 40 from the reluctant one. The variants differ in the reward, the last in the data:
   - ``paper``: accuracy, penalty-aware IoU, format
   - ``no_penalty``: the same without the deduction below IoU 0.1 or without a look
   - ``no_iou``: accuracy and format
   - ``release``: the rescaled and gated form of the release
   - ``no_grounding``: the paper's reward on multiple-choice rows alone
3. Before and after, greedy and at temperature 1, on 80 held-out questions over MP4s: mIoU, option letters, share of
   episodes that look, IoU of the first call, crops.

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

from timeloupe.environment.rollout import play
from timeloupe.environment.settings import make_settings
from timeloupe.environment.teacher_policy import TeacherPolicy
from timeloupe.model.load import load_model
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import to_line
from timeloupe.world.encode import make_videos, write_world
from timeloupe.world.script import ScriptSettings, generator

STEPS = {"noisy": 60, "reluctant": 40}
SHARE = 0.6
SHARE_WITHOUT_LOOK = 0.85

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

VARIANTS = ("paper", "no_penalty", "no_iou", "release", "no_grounding")
MEASURED = (*FIGURES, "looks")


def reward_of(variant: str, folder: Path) -> str:
    """Return the reward of a variant: a preset's name, or the path of a file written to ``folder``."""
    if variant in ("paper", "release", "no_grounding"):
        return "videotemp_release" if variant == "release" else "videotemp_paper"
    path = folder / f"{variant}.toml"
    text = PAPER.format(title=variant) + (UNPUNISHED if variant == "no_penalty" else "")
    path.write_text(text, encoding="utf-8")
    return str(path)


def rl_recipe(seed: int, base: str, variant: str, work: Path) -> dict[str, Any]:
    """Return the recipe of one run."""
    tasks = ["multiple_choice"] if variant == "no_grounding" else ["grounding", "multiple_choice"]
    # Made with both tasks' questions: a run with fewer tasks shares the folder and leaves the others out.
    rows = work / "training" / "examples.jsonl"
    return {
        "seed": seed, "steps": STEPS[base], "prompts": 9, "group": 8, "lr": 2e-4, "checkpoint_every": 10,
        "reward": reward_of(variant, work), "loss": {"kl_weight": 0.01}, "keep_rollouts": False,
        "model": {"checkpoint": str(work / f"{base}-{seed}" / "model"), "device": "cpu"},
        "data": {"examples": [str(rows)], "tasks": tasks},
    }  # fmt: skip


def make_training(work: Path) -> None:
    """Make the training videos and their questions."""
    settings = ScriptSettings(min_seconds=180, max_seconds=2400)
    made = make_videos(work / "training", seed=2_100_000, num_videos=40, settings=settings)
    write_world(work / "training", iter(made))


def reluctant_recipe(seed: int, work: Path) -> dict[str, Any]:
    """Record the teacher's episodes, most of which do not look, and return the recipe that learns from them."""
    folder = work / "reluctant-rows"
    path = folder / f"trajectories-{seed}.jsonl"
    if not path.exists():
        made = list(
            make_videos(
                folder,
                seed=45,
                num_videos=60,
                settings=ScriptSettings(min_seconds=180, max_seconds=2400),
                per_task=4,
            )
        )
        rows = [(v.script, e.model_copy(update={"video": str(v.path)})) for v in made for e in v.examples]
        looks = generator("reluctant", seed).random(len(rows)) >= SHARE_WITHOUT_LOOK
        settings = make_settings(load_model(SMALL_CHECKPOINT, device="cpu").layout.details["episode"])
        lines = []
        for tools in (True, False):
            chosen = [row for row, look in zip(rows, looks, strict=True) if look == tools]
            teacher = TeacherPolicy(
                {example.id: (script, example) for script, example in chosen}, tools=tools
            )
            played = play(
                [example for _, example in chosen], teacher, PROTOCOLS["small"], settings, seed=seed
            )
            lines += [to_line(one) + "\n" for one in played]
        path.write_text("".join(lines), encoding="utf-8")
    stage = {
        "name": "sft", "kind": "trajectories", "path": str(path), "steps": 60, "batch": 16, "lr": 0.01, "decay": 0.6,
        "optimizer": "muon", "mask": "all_turns",
    }  # fmt: skip
    model = {"checkpoint": str(SMALL_CHECKPOINT), "device": "cpu", "dtype": "float32"}
    return {"seed": seed, "model": model, "stages": [stage]}


def folder_of(work: Path, seed: int, base: str, variant: str) -> Path:
    """Return where a job's run lies; variants of the noisy base have no prefix."""
    if variant == "sft":
        return work / f"{base}-{seed}"
    return work / (f"{variant}-{seed}" if base == "noisy" else f"{base}-{variant}-{seed}")


def one(work: Path, seed: int, base: str, variant: str) -> None:
    """Do one job in this process: ``sft``, or a variant of the reward."""
    import torch

    from timeloupe.train.grpo import train_grpo
    from timeloupe.train.grpo_recipe import GrpoRecipe

    torch.set_num_threads(1)
    folder = folder_of(work, seed, base, variant)
    if variant == "sft":
        make_training(work)
        train(
            noisy_recipe(seed, "all_turns", SHARE) if base == "noisy" else reluctant_recipe(seed, work),
            folder,
        )
    elif not (folder / "model" / "timeloupe.json").exists():
        recipe = GrpoRecipe.model_validate(rl_recipe(seed, base, variant, work))
        train_grpo(recipe, folder, resume=(folder / "recipe.json").exists())
    for temperature in TEMPERATURES:
        path = folder / f"figures-{temperature}.json"
        if not path.exists() or "looks" not in json.loads(path.read_text(encoding="utf-8")):
            found = evaluate(folder / "model", work / "heldout", temperature, seed, figures=MEASURED)
            path.write_text(json.dumps(found), encoding="utf-8")


def figures_of(
    work: Path, seeds: list[int], base: str, variant: str, temperature: float
) -> list[dict[str, Any]]:
    """Return the figures of every finished seed."""
    paths = [folder_of(work, seed, base, variant) / f"figures-{temperature}.json" for seed in seeds]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def collect(work: Path, seeds: list[int]) -> dict[str, Any]:
    """Return a row per base, variant and temperature, figures over seeds."""
    table: dict[str, Any] = {}
    for base in STEPS:
        for temperature in TEMPERATURES:
            for variant in ("sft", *VARIANTS):
                found = figures_of(work, seeds, base, variant, temperature)
                if found:
                    row = {figure: spread([item[figure] for item in found]) for figure in MEASURED}
                    title = f"{base} SFT" if variant == "sft" else f"{base}, then RL {variant}"
                    table[f"{title}, T = {temperature:g}"] = {"seeds": len(found)} | row
    return table


CLAIMS = (
    # base, words, figure, the better run, the worse one
    ("noisy", "reinforcement learning raises mIoU", "miou", "paper", "sft"),
    ("noisy", "reinforcement learning raises accuracy", "accuracy", "paper", "sft"),
    ("noisy", "the IoU reward grounds better", "miou", "paper", "no_iou"),
    ("noisy", "the IoU reward answers better", "accuracy", "paper", "no_iou"),
    ("noisy", "the penalty grounds better", "miou", "paper", "no_penalty"),
    ("noisy", "the penalty answers better", "accuracy", "paper", "no_penalty"),
    ("noisy", "the paper's reward grounds better than the release's", "miou", "paper", "release"),
    ("noisy", "grounding rows ground better", "miou", "paper", "no_grounding"),
    ("noisy", "grounding rows answer better", "accuracy", "paper", "no_grounding"),
    ("reluctant", "reinforcement learning raises mIoU", "miou", "paper", "sft"),
    ("reluctant", "reinforcement learning raises accuracy", "accuracy", "paper", "sft"),
    ("reluctant", "the IoU reward makes it look", "looks", "paper", "no_iou"),
    ("reluctant", "the IoU reward answers better", "accuracy", "paper", "no_iou"),
    ("reluctant", "the penalty makes it look", "looks", "paper", "no_penalty"),
    ("reluctant", "the penalty answers better", "accuracy", "paper", "no_penalty"),
    ("reluctant", "the paper's reward makes it look more than the release's", "looks", "paper", "release"),
    ("reluctant", "the paper's reward answers better than the release's", "accuracy", "paper", "release"),
    ("reluctant", "grounding rows ground better", "miou", "paper", "no_grounding"),
    ("reluctant", "grounding rows answer better", "accuracy", "paper", "no_grounding"),
)


def verdicts(work: Path, seeds: list[int]) -> list[str]:
    """Return a sentence per claim, under greedy decoding.

    It holds if every seed says so and the mean gain is more than one question is worth (40 ask for a moment, 40 for a
    letter, all 80 may look); it does not if every seed denies it by as much.
    """
    sentences = []
    for base, words, figure, better, worse in CLAIMS:
        ones, others = (figures_of(work, seeds, base, variant, 0.0) for variant in (better, worse))
        if len(ones) == len(others) == len(seeds):
            gains = [one[figure] - other[figure] for one, other in zip(ones, others, strict=True)]
            said = "cannot be told at this size: the seeds disagree"
            mean, question = sum(gains) / len(gains), 1 / 80 if figure == "looks" else 1 / 40
            if min(gains) > 0 and mean > question:
                said = "yes, in every seed"
            elif max(gains) <= 0 and mean < -question:
                said = "no, in no seed"
            elif abs(mean) <= question:
                said = "cannot be told at this size: less than a question on average"
            by_seed = ", ".join(f"{gain:+.3f}" for gain in gains)
            sentences.append(f"From the {base} base, {words}: {said} ({figure}, by seed {by_seed}).")
    return sentences


def summary(work: Path, seeds: list[int]) -> dict[str, Any]:
    """Return what the entry holds beside its table: greedy figures before and after RL with the paper's reward."""
    found: dict[str, Any] = {}
    for when, variant in (("before", "sft"), ("after", "paper")):
        rows = figures_of(work, seeds, "noisy", variant, 0.0)
        for name in ("miou", "accuracy", "looks"):
            found[f"{name}_{when}"] = spread([row[name] for row in rows])
    return found


CURVES = (
    "reward", "reward/accuracy", "reward/iou", "reward/format", "looks", "crop_iou", "answer_iou", "right", "tokens",
    "kl",
)  # fmt: skip
COLOURS = {
    "paper": "#1f6f8b", "no_penalty": "#6a994e", "no_iou": "#b5651d", "release": "#8a8a8a", "no_grounding": "#8e5ea2",
}  # fmt: skip


def plot(work: Path, seeds: list[int], base: str, path: Path) -> None:
    """Draw what happens while training from a base: every figure, smoothed over 5 steps, a line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 5, figsize=(15, 6), constrained_layout=True)
    for axis, name in zip(axes.flat, CURVES, strict=True):
        for variant in VARIANTS:
            for number, seed in enumerate(seeds):
                file = folder_of(work, seed, base, variant) / "metrics.jsonl"
                if not file.exists():
                    continue
                rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
                places = [row["step"] for row in rows if name in row]
                values = np.array([row[name] for row in rows if name in row])
                smooth = [values[max(0, at - 4) : at + 1].mean() for at in range(len(values))]
                label = variant.replace("_", " ") if not number else None
                axis.plot(places, smooth, color=COLOURS[variant], lw=1.3, alpha=0.8, label=label)
        axis.set_title(name.replace("_", " "), fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("step", fontsize=8)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, fontsize=9, frameon=False, loc="outside lower center")
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run all jobs in processes of one thread each, then print and record what is finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bases", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write docs/results.* and docs/rl_world_*.png")
    parser.add_argument("--collect", action="store_true", help="only write down what is finished")
    parser.add_argument("--one", nargs=3, metavar=("SEED", "BASE", "JOB"), help="internal: one job")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.one:
        one(work, int(arguments.one[0]), *arguments.one[1:])
        return

    def run(job: tuple[int, str, str]) -> None:
        words = [sys.executable, __file__, str(work), "--one", *map(str, job)]
        print("running", *job, flush=True)
        subprocess.run(words, check=True, cwd=ROOT)

    if not arguments.collect:
        bases = [(seed, base, "sft") for base in arguments.bases for seed in arguments.seeds]
        with ThreadPoolExecutor(arguments.jobs) as pool:
            run(bases[0])  # makes the shared videos
            list(pool.map(run, bases[1:]))
            list(pool.map(run, [(s, b, variant) for variant in arguments.variants for s, b, _ in bases]))
    table = collect(work, arguments.seeds)
    for name, row in table.items():
        print(name, row)
    print(*verdicts(work, arguments.seeds), sep="\n")
    for base in STEPS:
        plot(
            work,
            arguments.seeds,
            base,
            (ROOT / "docs" if arguments.record else work) / f"rl_world_{base}.png",
        )
    if arguments.record:
        record(
            "rl_world", title="Reinforcement learning in the world, after noisy and after reluctant supervision",
            command="python benchmarks/rl_world.py WORK --record", seeds=arguments.seeds,
            n=80, figures=table, plots=[f"rl_world_{base}.png" for base in STEPS],
            notes=[
                "Mean over seeds [lowest, highest]; a seed draws the rows of the base, the roll-outs and the order.",
                *verdicts(work, arguments.seeds),
            ],
            more=summary(work, arguments.seeds),
        )  # fmt: skip


if __name__ == "__main__":
    main()
