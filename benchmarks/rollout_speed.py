"""Roll-outs against the library's ``generate``, a training step against TRL's, in CPU seconds of one thread.

    make trl-env
    python benchmarks/rollout_speed.py WORK [--rounds 5] [--cases small random] [--record]

Two models: the embedded small one, and a random Qwen3-VL of 4.7 M parameters with a video of about 1,600 tokens.

1. Roll-outs: one group of 8, 3 turns, each member a crop of its own between turns, 16 forced tokens a turn. Ours reads
   a prompt once and keeps keys and values between turns; ``generate`` gets the whole batch, and every turn reads the
   whole prompt again, which is how it is used in training loops.
2. A whole step (roll-out, log-probabilities, gradient, AdamW): 8 completions of 48 forced tokens to one prompt of
   pictures, a single turn, no KL term, vision tower frozen: the setting that TRL 1.16 has too.

Everything is measured in processes of their own, one step each in turn, so that what else the machine does falls on all
alike; the first round is thrown away. Times are CPU seconds of the process, memory its peak resident size. The script
can be repeated: rounds that are in WORK are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import ROOT, record
from speed_cases import CASES, GROUP, TURNS, checkpoint_of

HERE = Path(__file__).resolve().parent
TRL_PYTHON = ROOT / ".venv-trl" / "bin" / "python"
KINDS = (
    "roll-outs, ours",
    "roll-outs, generate",
    "roll-outs, generate with our vision",
    "step, ours",
    "step, TRL",
)


WHY = {
    "small": {
        "vs_generate": "A prompt of some 80 tokens leaves little to share: both sides spend their time in 45 steps of "
        "eight tokens each, which are calls rather than products (a step's products alone take about a tenth of it)."
    },
    "random": {
        "vs_generate": "About three quarters of our time is reading: frames, and each member's own crops, 3,400 tokens "
        "that look at 1,800 others each and that nobody shares."
    },
}
"""What a profile of the roll-outs says where an aim is missed."""


class Worker:
    """One measured process."""

    def __init__(self, kind: str, case: str, work: Path) -> None:
        command = [sys.executable, str(HERE / "speed_workers.py"), kind, case, str(work)]
        if kind == "step, TRL":
            command = [str(TRL_PYTHON), str(HERE / "trl_step.py"), case, str(checkpoint_of(case, work))]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.log = work / f"{case}-{kind.replace(' ', '_').replace(',', '')}.log"
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True,
            env=environment, cwd=HERE,
        )  # fmt: skip

    def step(self) -> dict[str, Any]:
        """Let it work once and return what it says."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"a worker ended: {self.log.read_text(encoding='utf-8')[-2000:]}")

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def measure(case: str, work: Path, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Return what every process said in every round; rounds that are finished are kept in WORK and not repeated."""
    path = work / f"{case}-rounds.jsonl"
    done = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )
    if len(done) < rounds:
        workers = {kind: Worker(kind, case, work) for kind in KINDS}
        for number in range(rounds + 1 - len(done)):
            rows = {}
            for kind, worker in workers.items():
                rows[kind] = worker.step()
                print(case, number, kind, rows[kind], flush=True)
            if number:  # the first one warms up
                done.append(rows)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows) + "\n")
        for worker in workers.values():
            worker.close()
    return {kind: [rows[kind] for rows in done] for kind in KINDS}


def ratio(found: dict[str, list[dict[str, Any]]], other: str, ours: str) -> dict[str, float]:
    """Return the median over rounds of the other's seconds by ours, with the lowest and highest round."""
    ratios = [one["cpu"] / two["cpu"] for one, two in zip(found[other], found[ours], strict=True)]
    return {"mean": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def row_of(found: dict[str, list[dict[str, Any]]], profile: dict[str, Any]) -> dict[str, Any]:
    """Return a case's figures, after a look at whether both sides did the same work."""
    for side in ("roll-outs", "step"):
        counts = {
            (row["prompt_tokens"], row["new_tokens"])
            for kind in KINDS
            if kind.startswith(side)
            for row in found[kind]
        }
        if len(counts) != 1:
            raise RuntimeError(f"the {side} are not the same work: {sorted(counts)} prompt and new tokens")
    figures: dict[str, Any] = {
        "rounds": len(found["step, ours"]),
        "vs_generate": ratio(found, "roll-outs, generate", "roll-outs, ours"),
        "vs_generate_our_vision": ratio(found, "roll-outs, generate with our vision", "roll-outs, ours"),
        "step_vs_trl": ratio(found, "step, TRL", "step, ours"),
        "matmul_fraction": profile["matmul_fraction"],
    }
    for kind, name in (
        ("roll-outs, ours", "rollout"), ("roll-outs, generate", "generate"), ("step, ours", "step"),
        ("step, TRL", "trl"),
    ):  # fmt: skip
        rows = found[kind]
        figures[f"{name}_seconds"] = statistics.median(row["cpu"] for row in rows)
        figures[f"{name}_peak_mib"] = round(max(row["peak_mib"] for row in rows))
    figures["rollout_prompt_tokens"] = found["roll-outs, ours"][0]["prompt_tokens"] // GROUP
    figures["step_prompt_tokens"] = found["step, ours"][0]["prompt_tokens"] // GROUP
    return figures


def plot(table: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw ratios and memory: bars per model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.6), constrained_layout=True)
    names = list(table)
    for axis, key, title, aims in (
        (
            axes[0],
            "vs_generate",
            "roll-outs: generate / ours\n(CPU time)",
            [CASES[name].aim for name in names],
        ),
        (axes[1], "step_vs_trl", "training step: TRL / ours\n(CPU time)", [1.5] * len(names)),
    ):
        for place, (name, aim) in enumerate(zip(names, aims, strict=True)):
            value = table[name][key]
            axis.bar(place, value["mean"], 0.55, color="#1f6f8b")
            axis.vlines(place, value["low"], value["high"], color="#222222", lw=1.5)
            axis.hlines(
                aim, place - 0.38, place + 0.38, color="#b5651d", lw=2, label="aim" if not place else None
            )
            axis.text(
                place, value["mean"] / 2, f"{value['mean']:.1f}x", ha="center", color="white", fontsize=11
            )
        axis.set_title(title, fontsize=10)
        axis.set_xticks(range(len(names)), [CASES[name].name for name in names], fontsize=8)
        axis.legend(frameon=False, fontsize=8, loc="upper left")
    kinds = (
        ("rollout", "roll-outs, ours", "#1f6f8b"), ("generate", "roll-outs, generate", "#9cc5d3"),
        ("step", "step, ours", "#6a994e"), ("trl", "step, TRL", "#c5d8b5"),
    )  # fmt: skip
    for number, (key, label, colour) in enumerate(kinds):
        places = [place + 0.2 * (number - 1.5) for place in range(len(names))]
        axes[2].bar(
            places, [table[name][f"{key}_peak_mib"] for name in names], 0.18, color=colour, label=label
        )
    axes[2].set_xticks(range(len(names)), [CASES[name].name for name in names], fontsize=8)
    axes[2].set_title("peak memory of the process, MiB\n(about 390 are Python and torch)", fontsize=10)
    axes[2].legend(frameon=False, fontsize=8, loc="upper left")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def notes(table: dict[str, dict[str, Any]], profiles: dict[str, dict[str, Any]]) -> list[str]:
    """Return the sentences below the table."""
    found = [
        f"Group of {GROUP}, {TURNS} turns of {CASES['small'].new_tokens} forced tokens with a crop between; a step has "
        f"one turn of {CASES['small'].step_tokens}. Prompt tokens of roll-outs are of all turns. Ratios: median over "
        "interleaved rounds [lowest, highest]; seconds: CPU seconds of one thread, median.",
        "vs_generate_our_vision: generate with our quicker vision tower. TRL 1.16.0, its defaults but for what is said "
        "in benchmarks/trl_step.py; both sides train the same weights on the same number of tokens.",
        "matmul_fraction: floating-point operations of all products of a step (attention among them), at the rate that "
        "a single product of the model's shape reaches here, by the CPU seconds of the step.",
    ]
    for name, row in table.items():
        for key, aim in (("vs_generate", CASES[name].aim), ("step_vs_trl", 1.5)):
            word = "reached" if row[key]["mean"] >= aim else "MISSED"
            found.append(f"{CASES[name].name}: {key} {row[key]['mean']:.2f}, aim {aim:g}: {word}.")
            if row[key]["mean"] < aim and key in WHY[name]:
                found[-1] += f" {WHY[name][key]}"
        found.append(f"{CASES[name].name}, where our step's time goes: {profiles[name]['words']}.")
    return found


def main() -> None:
    """Measure, draw, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="at least so many, with those that WORK holds")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument(
        "--record", action="store_true", help="write docs/results.* and docs/rollout_speed.png"
    )
    arguments = parser.parse_args()
    if not TRL_PYTHON.exists():
        parser.error(f"no {TRL_PYTHON.relative_to(ROOT)}: run make trl-env")
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    table, profiles = {}, {}
    for case in arguments.cases:
        checkpoint_of(case, work)
        found = measure(case, work, arguments.rounds)
        path = work / f"{case}-profile.json"
        if not path.exists():
            path.write_text(json.dumps(Worker("profile", case, work).step()), encoding="utf-8")
        profiles[case] = json.loads(path.read_text(encoding="utf-8"))
        table[case] = row_of(found, profiles[case])
    for line in [json.dumps(table, indent=1), *notes(table, profiles)]:
        print(line)
    plot(table, (ROOT / "docs" if arguments.record else work) / "rollout_speed.png")
    if arguments.record:
        record(
            "rollout_speed", title="Speed of roll-outs and of a training step",
            command="python benchmarks/rollout_speed.py WORK --record", seeds=list(range(arguments.rounds)),
            n=arguments.rounds, figures={CASES[name].name: row for name, row in table.items()},
            notes=notes(table, profiles), plots=["rollout_speed.png"],
        )  # fmt: skip


if __name__ == "__main__":
    main()
