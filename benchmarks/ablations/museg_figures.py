"""Figures, sentences and plot of MUSEG's study (``museg.py``, whose docstring has the design)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timeloupe.trajectory import Trajectory

VARIANTS = ("full", "always", "never", "no_local", "single_data")
FIGURES = (
    "multi_f1", "multi_f1_museg", "multi_set_iou", "multi_extra", "single_iou", "format", "names_times", "no_answer",
)  # fmt: skip
TEMPERATURES = (0.0, 1.0)
LEVELS = (0.3, 0.5, 0.7)

PHASES = {
    # variant: what the first run and the second run are called; a name is a reward and the questions
    "full": ("timed", "plain"),
    "always": ("timed", "timed"),
    "never": ("plain", "plain"),
    "no_local": ("timed-global", "plain-global"),
    "single_data": ("timed-single", "plain-single"),
}


def runs_of(variant: str, seed: int) -> tuple[str, str]:
    """Return the folders of a variant's two runs; variants that begin alike share the first."""
    first, second = PHASES[variant]
    return f"{first}-{seed}", f"{first}-then-{second}-{seed}"


def figures_of(played: Sequence[Trajectory]) -> dict[str, float]:
    """Return the figures of some episodes, means over the questions that they are about."""
    from timeloupe.eval.detection import segment_f1
    from timeloupe.eval.scripts.grounding_tensors import museg_stat
    from timeloupe.grounding import set_iou
    from timeloupe.reward.museg import score_format
    from timeloupe.reward.think_answer import answer_blocks, final_reply

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    truth = [[(s.start_seconds, s.end_seconds) for s in one.example.segments] for one in played]
    named = [
        [(s.start_seconds, s.end_seconds) for s in one.answer.segments] if one.answer else []
        for one in played
    ]
    texts = [final_reply(one) or "" for one in played]
    several = [at for at, one in enumerate(played) if one.example.task == "multi_segment"]
    single = [at for at, one in enumerate(played) if one.example.task == "grounding"]
    official = [(truth[at], "".join(answer_blocks(texts[at])[-1:])) for at in several]
    f1s = [segment_f1(named[at], truth[at], LEVELS) for at in several]
    counts = [len(named[at]) - len(truth[at]) for at in several]
    with_times = [score_format(text, timestamps=True, match="number") for text in texts]
    return {
        "multi_f1": mean([mean(list(one.values())) for one in f1s]),
        "multi_f1_museg": museg_stat(official, "tal")["mean_f1_multi"],
        "multi_set_iou": mean([set_iou(named[at], truth[at]) for at in several]),
        "multi_extra": mean([float(count) for count in counts]),
        "single_iou": mean([set_iou(named[at], truth[at]) for at in single]),
        "format": mean([score_format(text, timestamps=False) for text in texts]),
        "names_times": mean([float(score == 1) for score in with_times]),
        "no_answer": mean([float(not one) for one in named]),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return mean, smallest and largest over seeds."""
    return {"mean": sum(values) / len(values), "low": min(values), "high": max(values)}


def read_figures(
    work: Path, seeds: Sequence[int], variant: str, temperature: float
) -> list[dict[str, float]]:
    """Return the figures of a variant's finished seeds, in order."""
    paths = [work / runs_of(variant, seed)[1] / f"figures-{temperature}.json" for seed in seeds]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def collect(work: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Return a row per variant and temperature, figures over seeds."""
    table: dict[str, Any] = {}
    for temperature in TEMPERATURES:
        for title, folder in (("observer", work / "observer"), ("base", work / "base" / "figures")):
            path = folder.with_name(f"{folder.name}-{temperature}.json")
            if path.exists():
                found = json.loads(path.read_text(encoding="utf-8"))
                row = {figure: found[figure] for figure in FIGURES}
                table[f"{title}, T = {temperature:g}"] = {"seeds": 1} | row
        for variant in VARIANTS:
            found = read_figures(work, seeds, variant, temperature)
            if found:
                row = {figure: spread([item[figure] for item in found]) for figure in FIGURES}
                table[f"{variant}, T = {temperature:g}"] = {"seeds": len(found)} | row
    return table


CLAIMS = {
    "Questions for all moments in training help questions for all moments": ("single_data", "multi_f1"),
    "They help questions for one moment, too": ("single_data", "single_iou"),
    "Local matching helps": ("no_local", "multi_f1"),
    "Two phases beat timestamps to the end": ("always", "multi_f1"),
    "Two phases beat no timestamps at all": ("never", "multi_f1"),
}
"""What the paper says, as: ``full`` has more of a figure than this variant."""


def sentences(work: Path, seeds: Sequence[int], temperature: float = 0.0) -> list[str]:
    """Return one sentence per claim: reproduced where every seed agrees, contradicted where every seed disagrees."""
    found: list[str] = []
    whole = read_figures(work, seeds, "full", temperature)
    for claim, (variant, figure) in CLAIMS.items():
        other = read_figures(work, seeds, variant, temperature)
        if not (len(whole) == len(other) == len(seeds)):
            continue
        gains = [one[figure] - two[figure] for one, two in zip(whole, other, strict=True)]
        verdict = "cannot be told at this size: the seeds disagree"
        if min(gains) > 0:
            verdict = "reproduces the paper's direction"
        elif max(gains) < 0:
            verdict = "does not reproduce the paper's direction"
        text = ", ".join(f"{gain:+.3f}" for gain in gains)
        found.append(f"{claim}: {verdict} ({figure} of full less {variant}, by seed: {text}).")
    return found


def beside_single_data(work: Path, seeds: Sequence[int], temperature: float = 0.0) -> str:
    """Return how the runs on questions of both kinds stand to ``single_data`` of their seeds; not a planned test."""
    wins: dict[str, list[bool]] = {"multi_f1": [], "multi_set_iou": []}
    for seed in seeds:
        single = read_figures(work, [seed], "single_data", temperature)
        others = [row for name in VARIANTS[:-1] for row in read_figures(work, [seed], name, temperature)]
        for figure, found in wins.items():
            found += [row[figure] > single[0][figure] for row in others if single]
    said = ", ".join(f"{figure} in {sum(found)} of {len(found)}" for figure, found in wins.items())
    return f"Runs on both kinds of questions above single_data of the same seed (not a planned test): {said}."


PANELS = {
    "multi_f1": "every moment: F1", "multi_set_iou": "every moment: IoU of sets",
    "multi_extra": "every moment: named less true", "single_iou": "one moment: mIoU",
    "names_times": "thoughts that name the times",
}  # fmt: skip


def plot(table: dict[str, Any], path: Path) -> None:
    """Draw each figure by variant, greedy and at temperature 1; whiskers are the seeds' range, the line is the base."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = dict(zip(TEMPERATURES, ("#1f6f8b", "#c9a25d"), strict=True))
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(13, 3.8), constrained_layout=True)
    for axis, (name, title) in zip(axes, PANELS.items(), strict=True):
        for offset, temperature in zip((-0.2, 0.2), TEMPERATURES, strict=True):
            rows = [table.get(f"{variant}, T = {temperature:g}") for variant in VARIANTS]
            places = [at + offset for at, row in enumerate(rows) if row]
            cells = [row[name] for row in rows if row]
            means = [cell["mean"] for cell in cells]
            errors = [[c["mean"] - c["low"] for c in cells], [c["high"] - c["mean"] for c in cells]]
            axis.bar(
                places, means, 0.38, yerr=errors, color=colours[temperature], label=f"T = {temperature:g}",
                error_kw={"lw": 1, "capsize": 2},
            )  # fmt: skip
            base = table.get(f"base, T = {temperature:g}")
            if base:
                label = f"base, T = {temperature:g}"
                axis.axhline(base[name], color=colours[temperature], lw=1, ls="--", label=label)
        axis.axhline(0, color="#555555", lw=0.6)
        axis.set_xticks(range(len(VARIANTS)), VARIANTS, fontsize=8, rotation=35, ha="right")
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=4, fontsize=8, frameon=False, loc="outside lower center")
    figure.savefig(path, dpi=150)
