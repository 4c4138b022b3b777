"""Do the small model's answers depend on the evidence they name? `timeloupe audit` of an agentic run and a single pass.

    python benchmarks/evidence_audit.py WORK --record

WORK keeps the held-out world (60 videos of 3 to 10 minutes, two grounding and two multiple-choice questions each), the
two runs (greedy, so one each) and their audits; a stopped study goes on, and
finished audits are not asked anew. About ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import ROOT, record

WORLD_SEED = 1_005_000
WAYS = {"agentic": [], "single pass": ["--single-pass"]}
EVIDENCE = ("cited", "true")
CONDITIONS = ("again", "without", "elsewhere", "only", "shuffled", "without, beyond elsewhere")
DRAWN = ("without", "elsewhere", "only", "shuffled")


def timeloupe(*words: str | Path) -> str:
    """Return what a command prints on stdout."""
    command = [sys.executable, "-m", "timeloupe", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def audits(work: Path, videos: int, true_limit: int) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the audit of each way of answering and each notion of evidence, as the command prints it."""
    world = work / "world"
    if not (world / "examples.jsonl").is_file():
        timeloupe(
            "world", "make", world, "--videos", str(videos), "--seed", str(WORLD_SEED), "--per-task", "2"
        )
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for way, flags in WAYS.items():
        run = work / way.replace(" ", "_")
        if not (run / "card.json").is_file():
            timeloupe("eval", "world", "--data", world, "--policy", "small", "--run", run, "--json", *flags)
        for evidence in EVIDENCE:
            kept = work / f"{run.name}-{evidence}.json"
            if not kept.is_file():
                few = ["--limit", str(true_limit)] if evidence == "true" else []
                kept.write_text(
                    timeloupe("audit", run, "--evidence", evidence, "--json", *few), encoding="utf-8"
                )
            found[way, evidence] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def span(interval: dict[str, Any]) -> dict[str, float] | None:
    """Return an interval as results.json has it."""
    if interval["mean"] is None or interval["low"] is None:
        return interval["mean"]
    return {key: interval[key] for key in ("mean", "low", "high")}


def figures_of(found: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """Return one row per way, evidence, task and condition."""
    figures: dict[str, Any] = {}
    for (way, evidence), document in found.items():
        for task, lines in document["tables"].items():
            if task == "all":
                continue
            for condition in CONDITIONS:
                line = lines[condition]
                figures[f"{way}, {evidence} evidence, {task.replace('_', ' ')}: {condition}"] = {
                    "n": line["num_compared"], "answer changed": span(line["changed"]), "looks again": line["looks"],
                    "score": span(line["score"]), "log-prob falls by": span(line["logprob_fall"]),
                    "frames": line["frames"], "frames changed": line["changed_frames"],
                    "not asked": sum(line["not_asked"].values()),
                }  # fmt: skip
    return figures


def plot(found: dict[tuple[str, str], dict[str, Any]], path: Path) -> None:
    """Draw how often the answer changes under each condition, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [
        (evidence, task) for evidence in EVIDENCE for task in ("grounding", "multiple_choice")
        if any(task in found[way, evidence]["tables"] for way in WAYS)
    ]  # fmt: skip
    drawn, axes = pyplot.subplots(
        1, len(panels), figsize=(3.1 * len(panels), 3.3), sharey=True, layout="constrained"
    )
    colours = {"agentic": "#1f6f8b", "single pass": "#b5651d"}
    for axis, (evidence, task) in zip(axes, panels, strict=True):
        for number, way in enumerate(WAYS):
            lines = found[way, evidence]["tables"].get(task)
            for at, condition in enumerate(DRAWN):
                place = at + 0.4 * (number - 0.5)
                interval = None if lines is None else lines[condition]["changed"]
                if interval is None or interval["mean"] is None:
                    axis.text(
                        place, 0.02, "names\nnone", ha="center", va="bottom", fontsize=6, color=colours[way]
                    )
                    continue
                mean, low, high = (interval[key] for key in ("mean", "low", "high"))
                axis.bar(
                    place, mean, 0.38, yerr=[[mean - low], [high - mean]], color=colours[way],
                    label=way if not at else None, error_kw={"lw": 1, "capsize": 2},
                )  # fmt: skip
        axis.set_xticks(range(len(DRAWN)), DRAWN, fontsize=8)
        axis.set_title(f"{task.replace('_', ' ')}, {evidence} evidence", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("share of answers that change", fontsize=8)
    axes[0].set_ylim(0, 1.02)
    handles, labels = axes[-1].get_legend_handles_labels()
    drawn.legend(handles, labels, ncols=2, fontsize=8, frameon=False, loc="outside lower center")
    drawn.savefig(path, dpi=150)
    pyplot.close(drawn)


def main() -> None:
    """Run the study; with --record write docs/results.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--true-limit", type=int, default=120, help="episodes audited with the true evidence")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    found = audits(arguments.work, arguments.videos, arguments.true_limit)
    figures = figures_of(found)
    for name, row in figures.items():
        print(name, row)
    plot(found, (ROOT / "docs" if arguments.record else arguments.work) / "evidence_audit.png")
    if not arguments.record:
        return
    left = {f"{way}, {evidence}": one["left_out"] for (way, evidence), one in found.items()}
    record(
        "evidence_audit", title="Does the answer depend on the evidence?",
        command="python benchmarks/evidence_audit.py WORK --record", seeds=[0],
        n=found["agentic", "cited"]["episodes"], figures=figures,
        notes=[
            f"{arguments.videos} held-out videos of 3 to 10 minutes (evaluation seed {WORLD_SEED}); the small model, "
            "greedy; `agentic` looks closer, `single pass` has the same first view and no tool.",
            "The last turn is asked again with other frames, words unchanged. `without`: frames of the evidence cut "
            "out, its crop with them; `elsewhere`: as many frames of the first view cut out at another place; `only`: "
            "nothing but the evidence; `shuffled`: pictures inside the evidence in another order.",
            "Evidence: `cited` is the answered segment, else the last crop; `true` is the annotation's. An answer "
            "changes where the letter is another one, the IoU with the answer under the same frames is below 0.5, or "
            "no answer is given (`looks again` is the share that calls the tool instead). The true one is taken for "
            f"the first {arguments.true_limit} episodes.",
            "A single pass names no evidence for a letter, so it is audited with the true one only. Its first view "
            "shows the moment asked for in a part of the questions; where it does not there is nothing to cut (`not "
            "asked`).",
            "Log-prob: of the recorded last reply, thought and answer, in nats; its fall is against the same frames.",
            f"Not audited, by reason: {json.dumps(left)}.",
        ],
        plots=["evidence_audit.png"],
        more={
            "audit": {
                f"{way}, {evidence}": {
                    task: {name: span(lines[name]["changed"]) for name in CONDITIONS}
                    for task, lines in one["tables"].items()
                }
                for (way, evidence), one in found.items()
            }
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
