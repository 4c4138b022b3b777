"""TaRO in the laboratory: thoughts that begin with captions, and a bonus for replies that depend on their frames.

    python benchmarks/ablations/taro.py WORK [--seeds 0 1 2] [--variants free ...] [--jobs 1] [--record]

The design, fixed before any figure of a variant was scored:

1. **Single pass, no tool**, as in the paper: "When is the circle visible in the red scene?" about videos of 60 to
   100 s, seen as 24 frames. A perfect observer of these frames, who brackets what it sees, has a mIoU of about .75
   (IoU >= .7 in two thirds of the questions, so that the gate of the bonus can open); one who guesses the middle of
   each gap has .83.
2. **Base**, one for all seeds (``recipes/sft/taro-small.toml``): the embedded model after 70 steps on replies of that
   observer. Where the question asks for it, in 60 % of its rows, the thought first says when the asked scene and
   event can be seen (``12s to 40s red scene``, a line each). Of the others one in twenty has one or both lines; the
   rest say "Found.": it can reason with times, and seldom does so unasked, like the models that the paper starts
   from. It was chosen by looking at bases alone, on the held-out videos: it grounds equally well either way, unasked
   and asked, with a greedy mIoU of .69 and .68, which leaves little room, and a sampled one of .50 and .46. (An
   earlier base wrote the timeline of the whole video. It learnt the form and not the sight: 1 % of its lines were
   about right, so nothing could be learnt from it, and one run from it was thrown away.)
3. From the base, per seed (which draws the order of the questions, the roll-outs and the captions; the spread
   understates that of whole trainings), STEPS steps of GRPO on 120 questions about 60 other videos, 4 questions x 8
   roll-outs a step, temperature 1, reward format + tIoU with boundary factors, loss, clip and KL as in the release, the
   same rate for all. Four variants, two by two:
   - ``free``: the policy speaks for itself from the first step
   - ``warm``: in the first third of the steps every thought begins with one or both of these lines, as the observer
     writes them, learnt by AW-BC; then free
   - ``free_bonus``: ``free`` with 0.3 for a thought whose log-probability falls more than its group's on frames mixed
     within 6 s of the true boundaries (about 4 frames each; in the paper 12), if IoU >= .7
   - ``warm_bonus``: both; this is TaRO

   The first study, of 15 steps at a rate of 6e-4, fell in the warm-up: replies ran from the line of a thought into the
   answer. The rate was then lowered on ``warm`` with a seed of its own: 3e-4 loses 48 % of the answers on the way and
   5 to 8 % at the end, 1e-4 loses 35 % and 3 %. No rate tried is without the fall; the lowest was taken.
4. **Scored** on 80 questions about 40 held-out videos, greedily, as in the paper, and at temperature 1: mIoU, R@.5,
   R@.7; the share of thoughts that name a time; lines per thought, the share of them whose span is about right (IoU
   >= .5 with the asked scene or event as the observer sees it) and whose words are, too; the mean drop of the
   thoughts. Every CURVE_EVERY steps, greedily, on one question per video, for the curves.

Two in three constructed thoughts hold the answer, as the paper's often do. A claim is said to be reproduced
only if it holds in every seed under greedy decoding, and not to be if it fails in every seed. The script can be
repeated: what is finished is kept.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timeloupe.model.load import LoadedModel
    from timeloupe.trajectory import Segment, Trajectory
    from timeloupe.video.cache import FrameCache
    from timeloupe.world.encode import WorldVideo

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = ("free", "warm", "free_bonus", "warm_bonus")
FIGURES = (
    "miou", "recall_0.5", "recall_0.7", "timed_thoughts", "lines", "true_spans", "true_lines", "drop", "no_answer",
)  # fmt: skip
TEMPERATURES = (0.0, 1.0)
STEPS, CURVE_EVERY = 24, 4
LR = 1e-4
TRAINING_VIDEOS, HELDOUT_VIDEOS = 60, 40
TRAINING_SEED = 2_500_000
SECONDS = (60.0, 100.0)
FRAMES = 24
RADIUS_SECONDS = 6.0


# -- base and runs -----------------------------------------------------------------------------------------------------


def done(folder: Path) -> bool:
    """Whether the training in a folder is finished."""
    return (folder / "model" / "timeloupe.json").exists()


def train_base(work: Path) -> Path:
    """Return the folder of the base model, trained unless it is there."""
    from timeloupe.config import load_recipe
    from timeloupe.train.recipe import SftRecipe
    from timeloupe.train.sft import train_sft

    folder = work / "base"
    if not done(folder):
        recipe = load_recipe(ROOT / "recipes" / "sft" / "taro-small.toml", [], SftRecipe)
        train_sft(recipe, folder, resume=(folder / "recipe.json").exists())
    return folder / "model"


def rl_recipe(work: Path, seed: int, variant: str) -> dict[str, Any]:
    """Return the recipe of one run."""
    recipe: dict[str, Any] = {
        "seed": seed, "steps": STEPS, "prompts": 4, "group": 8, "lr": LR, "micro_batch": 16, "reward": "taro",
        "checkpoint_every": CURVE_EVERY, "keep_rollouts": False, "epsilon": 1e-6,
        "episode": {"tools": False, "skim_frames": FRAMES, "max_new_tokens": 64},
        "model": {"checkpoint": str(work / "base" / "model"), "device": "cpu"},
        "loss": {"aggregate": "token_mean", "dual_clip": 3.0, "kl_weight": 0.01, "kl_bound": 10.0},
        "data": {
            "tasks": ["grounding"],
            "world": {
                "seed": TRAINING_SEED, "num_videos": TRAINING_VIDEOS, "per_task": 2, "min_seconds": SECONDS[0],
                "max_seconds": SECONDS[1], "folder": str(work / "training"),
            },
        },
    }  # fmt: skip
    if "warm" in variant:
        recipe["exploration"] = {"opening": "", "until": 1 / 3}
    if variant.endswith("bonus"):
        recipe["sensitivity"] = {"radius_seconds": RADIUS_SECONDS}
    return recipe


def train_variant(work: Path, seed: int, variant: str) -> Path:
    """Train one variant unless it is there, with its curve on held-out videos; returns the model's folder."""
    from timeloupe.policy.local import LocalPolicy
    from timeloupe.train.grpo import train_grpo
    from timeloupe.train.grpo_recipe import GrpoRecipe
    from timeloupe.video.cache import FrameCache

    folder = work / f"{variant}-{seed}"
    if done(folder):
        return folder / "model"
    shown, models = FrameCache(1 << 28), []

    def make_policy(loaded: LoadedModel, part: Any) -> LocalPolicy:
        models.append(loaded)
        return LocalPolicy(loaded)

    def curve(row: dict[str, Any]) -> None:
        done_steps = row["step"] + 1
        if done_steps % CURVE_EVERY == 0:
            found = {"step": done_steps} | score(work, models[-1], 0.0, per_video=1, cache=shown)
            with (folder / "curve.jsonl").open("a", encoding="utf-8") as out:
                out.write(json.dumps(found) + "\n")

    recipe = GrpoRecipe.model_validate(rl_recipe(work, seed, variant))
    train_grpo(
        recipe, folder, resume=(folder / "recipe.json").exists(), on_log=curve, make_policy=make_policy
    )
    return folder / "model"


# -- scoring -----------------------------------------------------------------------------------------------------------


def heldout(work: Path) -> list[WorldVideo]:
    """Return the held-out videos with two questions each, made on first use."""
    from timeloupe.world.encode import make_videos
    from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings

    settings = ScriptSettings(min_seconds=SECONDS[0], max_seconds=SECONDS[1])
    return list(
        make_videos(
            work / "heldout", seed=EVALUATION_SEEDS[-3], num_videos=HELDOUT_VIDEOS, settings=settings,
            tasks=["grounding"], per_task=2,
        )
    )  # fmt: skip


def score(
    work: Path,
    loaded: LoadedModel,
    temperature: float,
    *,
    per_video: int = 2,
    cache: FrameCache | None = None,
    asked: bool = False,
) -> dict[str, Any]:
    """Return the figures of a model on the held-out questions; ``asked`` = they ask for the timeline first."""
    from timeloupe.environment.rollout import play
    from timeloupe.environment.settings import make_settings
    from timeloupe.eval.compare import outcome
    from timeloupe.policy.local import LocalPolicy
    from timeloupe.prompt.protocol import PROTOCOLS
    from timeloupe.train.exploration import names_times
    from timeloupe.train.grpo_recipe import SensitivityPart
    from timeloupe.train.sensitivity import measure_drops
    from timeloupe.trajectory import StopReason
    from timeloupe.video.cache import FrameCache
    from timeloupe.world.timeline import TIMELINE_QUESTION

    videos = {
        row.id: (one, row.model_copy(update={"video": str(one.path)}))
        for one in heldout(work)
        for row in one.examples[:per_video]
    }
    loaded.model.eval()
    cache = cache or FrameCache(1 << 28)
    settings = make_settings(
        loaded.layout.details["episode"],
        {"tools": False, "skim_frames": FRAMES, "max_new_tokens": 64, "temperature": temperature},
    )
    examples = [row for _, row in videos.values()]
    if asked:
        examples = [
            row.model_copy(update={"question": f"{TIMELINE_QUESTION}\n{row.question}"}) for row in examples
        ]
    played = play(examples, LocalPolicy(loaded), PROTOCOLS["small"], settings, seed=0, cache=cache)
    overlaps = [outcome(one).tiou or 0.0 for one in played]
    lines = [line for one in played for line in judged_lines(one, videos[one.example.id][0])]
    part = SensitivityPart(radius_seconds=RADIUS_SECONDS, threshold=0.0)
    drops = [one.value for one in measure_drops(played, loaded, cache, part, seed=0, micro_batch=16)]
    known = [value for value in drops if value is not None]
    n = len(played)
    return {
        "miou": sum(overlaps) / n,
        "recall_0.5": sum(value >= 0.5 for value in overlaps) / n,
        "recall_0.7": sum(value >= 0.7 for value in overlaps) / n,
        "timed_thoughts": sum(names_times(one.turns[0].thought) for one in played if one.turns) / n,
        "lines": len(lines) / n,
        "true_spans": sum(span for span, _ in lines) / len(lines) if lines else None,
        "true_lines": sum(words for _, words in lines) / len(lines) if lines else None,
        "drop": sum(known) / len(known) if known else None,
        "no_answer": sum(one.stop is not StopReason.ANSWERED for one in played) / n,
        "n": n,
    }


def judged_lines(trajectory: Trajectory, video: WorldVideo) -> list[tuple[bool, bool]]:
    """Return, for each line of the thought that names a time, whether its span is right, and its words as well.

    A span is right if an observer of the frames has one of IoU >= 0.5 for the asked scene or the asked event; the words
    are, if they are those of that line.
    """
    from timeloupe.grounding import tiou
    from timeloupe.train.exploration import names_times
    from timeloupe.world.teacher import question_of
    from timeloupe.world.timeline import timeline

    if not (trajectory.turns and trajectory.skims):
        return []
    question = question_of(video.script, trajectory.example)
    seen = timeline(video.script, trajectory.skims[0].at_seconds, question)
    true = [one for line in seen if (one := read_line(line)) is not None]
    judged: list[tuple[bool, bool]] = []
    for line in trajectory.turns[0].thought.splitlines():
        if names_times(line):
            said = read_line(line)
            near = [words for span, words in true if said is not None and tiou(span, said[0]) >= 0.5]
            judged.append((bool(near), said is not None and said[1] in near))
    return judged


def read_line(line: str) -> tuple[Segment, str] | None:
    """Return span and words of a line such as ``12s to 40s red scene``, ``None`` if it is none."""
    from timeloupe.trajectory import Segment

    found = re.fullmatch(r"\s*(\d+)s to (\d+)s (.+?)\s*", line)
    if found is None or int(found[1]) >= int(found[2]):
        return None
    return Segment(start_seconds=int(found[1]), end_seconds=int(found[2])), found[3]


def one(work: Path, seed: int, job: str) -> None:
    """Do one job in this process: ``base``, or a variant; train and score."""
    import torch

    from timeloupe.model.load import load_model

    torch.set_num_threads(1)
    model = train_base(work) if job == "base" else train_variant(work, seed, job)
    loaded = load_model(model, device="cpu")
    for temperature in TEMPERATURES:
        for asked in (False, True) if job == "base" else (False,):
            path = model.parent / f"figures-{'asked-' if asked else ''}{temperature}.json"
            if not path.exists():
                found = score(work, loaded, temperature, asked=asked)
                path.write_text(json.dumps(found), encoding="utf-8")


# -- tables, plot, verdicts --------------------------------------------------------------------------------------------


def figures_of(work: Path, row: str, seed: int, temperature: float) -> dict[str, Any] | None:
    """Return the figures of the base, the base asked for times, or a run; ``None`` before it is finished."""
    name, _, asked = row.partition(", ")
    folder = work / (name if name == "base" else f"{name}-{seed}")
    path = folder / f"figures-{'asked-' if asked else ''}{temperature}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def collect(work: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Return a row for the base and each variant, by temperature: mean, lowest and highest over seeds."""
    table: dict[str, Any] = {}
    rows = ("base", "base, asked for times")
    for temperature in TEMPERATURES:
        for name in (*rows, *VARIANTS):
            drawn = seeds[:1] if name in rows else seeds
            found = [figures_of(work, name, seed, temperature) for seed in drawn]
            kept = [row for row in found if row is not None]
            if not kept:
                continue
            row: dict[str, Any] = {"seeds": len(kept)}
            for figure in FIGURES:
                values = [one[figure] for one in kept if one[figure] is not None]
                row[figure] = spread(values) if values else None
            table[f"{name}, T = {temperature:g}"] = row
    return table


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return mean, lowest and highest."""
    return {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}


CLAIMS = (
    # words, figure, the better variant, the worse one
    ("the warm start makes thoughts name times", "timed_thoughts", "warm", "free"),
    ("the warm start grounds better", "miou", "warm", "free"),
    ("with the bonus, too, the warm start grounds better", "miou", "warm_bonus", "free_bonus"),
    ("after a warm start the bonus grounds better", "miou", "warm_bonus", "warm"),
    ("without a warm start the bonus grounds better", "miou", "free_bonus", "free"),
    ("after a warm start the bonus makes thoughts depend more on their frames", "drop", "warm_bonus", "warm"),
    ("TaRO grounds better than plain GRPO", "miou", "warm_bonus", "free"),
)


def verdicts(work: Path, seeds: Sequence[int]) -> list[str]:
    """Return a sentence per claim, by the rule of the design."""
    sentences: list[str] = []
    for words, figure, better, worse in CLAIMS:
        gains: list[float] = []
        for seed in seeds:
            ones, others = (figures_of(work, variant, seed, 0.0) for variant in (better, worse))
            if ones is not None and others is not None:
                gains.append((ones[figure] or 0.0) - (others[figure] or 0.0))
        if not gains:
            continue
        said = "cannot be told at this size: the seeds disagree"
        if min(gains) > 0:
            said = "reproduces the paper's direction"
        elif max(gains) <= 0:
            said = "does not reproduce the paper's direction"
        by_seed = ", ".join(f"{gain:+.3f}" for gain in gains)
        sentences.append(f"{words[:1].upper()}{words[1:]}: {said} ({figure}, by seed {by_seed}).")
    return sentences


COLOURS = {"free": "#8a8a8a", "warm": "#1f6f8b", "free_bonus": "#d9a441", "warm_bonus": "#b5413b"}


def plot(work: Path, seeds: Sequence[int], path: Path) -> None:
    """Draw the greedy curves on held-out videos by variant: each seed thin, the mean thick."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {
        "timed_thoughts": "share of thoughts that name a time",
        "miou": "mIoU",
        "drop": "drop of the thought, nats a token",
    }
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.9), constrained_layout=True)
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        for variant in VARIANTS:
            curves: list[list[float]] = []
            for seed in seeds:
                file = work / f"{variant}-{seed}" / "curve.jsonl"
                if file.exists():
                    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
                    found = {row["step"]: row[name] for row in rows}
                    curves.append([found[step] or 0.0 for step in sorted(found)])
                    axis.plot(sorted(found), curves[-1], color=COLOURS[variant], lw=0.7, alpha=0.45)
            if curves:
                length = min(map(len, curves))
                means = [sum(one[place] for one in curves) / len(curves) for place in range(length)]
                places = [CURVE_EVERY * (place + 1) for place in range(length)]
                axis.plot(places, means, color=COLOURS[variant], lw=2.2, label=variant)
        axis.set_xlim(left=0)
        axis.axvline(STEPS / 3, color="black", lw=0.8, ls=":")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step (dotted: the warm-up ends)", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, fontsize=9, frameon=False, loc="outside lower center")
    figure.savefig(path, dpi=150)


def write_down(work: Path, seeds: list[int]) -> None:
    """Record what is finished."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from record import record

    record(
        "ablation_taro", title="TaRO on the world: a warm start from captions, and a bonus for depending on frames",
        command="python benchmarks/ablations/taro.py WORK --record", seeds=seeds, n=2 * HELDOUT_VIDEOS,
        figures=collect(work, seeds),
        notes=[
            "Mean over seeds [lowest, highest]; a seed draws the order of questions, the roll-outs and the captions. "
            "The base is one for all seeds, so the spread understates that of whole trainings.",
            "A perfect observer of the 24 frames who brackets what it sees has a mIoU of about .75.",
            "The runs are short. Without being asked the base grounds as well as with times in its thought, so naming "
            "them had little to add: what the warm start costs here is of this base, and of the fall at the end of the "
            "warm-up, as much as of the method.",
            *verdicts(work, seeds),
        ],
        plots=["ablation_taro.png"],
    )  # fmt: skip


def main() -> None:
    """Run all jobs in processes of one thread each, then print, draw and record what is finished."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--collect", action="store_true", help="only write down what is finished")
    parser.add_argument(
        "--record", action="store_true", help="write docs/results.* and docs/ablation_taro.png"
    )
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

    if not arguments.collect:
        jobs = [(seed, variant) for variant in arguments.variants for seed in arguments.seeds]
        run((arguments.seeds[0], "base"))
        run(jobs[0])  # makes the shared videos
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(run, jobs[1:]))
    for name, row in collect(work, arguments.seeds).items():
        print(name, json.dumps(row))
    print(*verdicts(work, arguments.seeds), sep="\n")
    plot(work, arguments.seeds, (ROOT / "docs" if arguments.record else work) / "ablation_taro.png")
    if arguments.record:
        write_down(work, arguments.seeds)


if __name__ == "__main__":
    main()
