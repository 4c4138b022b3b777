"""What each preset reward would teach: its simulation as a table and a plot in docs/rewards.md.

    python benchmarks/reward_simulations.py [NAME ...] [--episodes 400] [--seed 0] [--record]

Prints the tables. With --record it writes them between the marks ``<!-- simulation: NAME -->`` and
``<!-- end of simulation -->`` of docs/rewards.md, and the plots to docs/rewards/NAME.png. A preset without marks is
an error; the phases of MUSEG, which have presets of their own, are cells of ``museg``.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from timeloupe.reward.archetypes import ARCHETYPES
from timeloupe.reward.compose import load_reward, preset_names
from timeloupe.reward.simulate import Cell, Mean, Simulation, simulate
from timeloupe.reward.simulate_plot import plot

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "rewards.md"
SKIPPED = ("museg_phase1", "museg_phase2")


def main() -> None:
    """Simulate the named presets, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="presets; default: all but the phases of MUSEG")
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", action="store_true", help="write docs/rewards.md and docs/rewards/*.png")
    options = parser.parse_args()
    names = options.names or [name for name in preset_names() if name not in SKIPPED]
    for name in names:
        simulation = simulate(load_reward(name), seed=options.seed, episodes=options.episodes)
        text = table(simulation)
        print(f"\n{text}\n", flush=True)
        if options.record:
            page = placed(PAGE.read_text(encoding="utf-8"), name, text)
            (DOCS / "rewards").mkdir(exist_ok=True)
            plot(simulation, DOCS / "rewards" / f"{name}.png")
            PAGE.write_text(page, encoding="utf-8")


def placed(page: str, name: str, text: str) -> str:
    """Return the page with ``text`` between the marks of ``name``."""
    start, end = f"<!-- simulation: {name} -->", "<!-- end of simulation -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE} has no place for {name!r}: it needs the lines {start} and {end}")
    return pattern.sub(lambda _: f"{start}\n\n{text}\n\n{end}", page)


def table(simulation: Simulation) -> str:
    """Return a simulation as Markdown: mean rewards, gaps, verdict."""
    cells = simulation.cells
    rows = [{row.archetype: row for row in cell.rows} for cell in cells]
    lines = [
        f"`timeloupe reward simulate {simulation.name} --seed {simulation.seed} --episodes {simulation.episodes}`",
        "",
        "| policy | measured against | " + " | ".join(heading(cell) for cell in cells) + " |",
        "|---|---|" + "---|" * len(cells),
    ]
    for name in simulation.overall:
        against = ARCHETYPES[name].against
        means = [
            f"**{written(of[name].reward)}**" if of[name].outranks else written(of[name].reward)
            for of in rows
        ]
        shown = name if against else f"*{name}*"
        lines.append(f"| {shown} | {against or '-'} | " + " | ".join(means) + " |")
    for label, gap in (
        ("looking well less never looking", "total"), ("paid for looking itself", "itself"),
        ("the gap at the start of training", "beginner"),
    ):  # fmt: skip
        lines.append(
            f"| {label} | | " + " | ".join(written(cell.gaps[gap], signed=True) for cell in cells) + " |"
        )
    found = [f"{heading(cell)}: `{row.archetype}`" for cell, row in simulation.outranking]
    verdict = f"fails, exit code 1 ({'; '.join(found)})" if found else "passes, exit code 0"
    return "\n".join([*lines, "", f"Verdict: {verdict}."])


def heading(cell: Cell) -> str:
    """Return a cell's name."""
    during = "" if cell.phase == (0.0, 1.0) else f", {cell.phase[0]:.0%} to {cell.phase[1]:.0%}"
    return cell.task.replace("_", " ") + during


def written(mean: Mean, *, signed: bool = False) -> str:
    """Return a mean with half the width of its interval."""
    if mean.mean is None or mean.high is None:
        return "-"
    value = f"{mean.mean:+.2f}" if signed else f"{mean.mean:.2f}"
    return f"{value} ±{mean.high - mean.mean:.2f}"


if __name__ == "__main__":
    main()
