"""docs/results.json and its readable twin docs/results.md, written by the benchmark scripts and never by hand."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results.json"


def hardware() -> str:
    """Return processor, cores and memory in words."""
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{os.cpu_count()} cores ({model}), {pages / 2**30:.0f} GiB, no GPU, one thread per process"


def commit() -> str:
    """Return the commit, marked if the tree differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "src", "recipes", "benchmarks") else ""
    )


def record(
    id: str, *, title: str, command: str, seeds: list[int], n: int, figures: dict[str, Any], notes: list[str],
    plots: list[str] | None = None, more: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Add or replace the entry ``id`` and write both files.

    Args:
        id: Stable name of the study.
        title: Heading in results.md.
        command: What was run.
        seeds: Training (or root) seeds.
        n: Number of questions or rows behind the figures.
        figures: Row name to column name to a number, ``None`` or ``{"mean", "low", "high"}``.
        notes: Sentences below the table.
        plots: Picture files beside results.md.
        more: Further keys of the entry, for programs that read results.json.
    """
    entries = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    entry = {
        "id": id, "title": title, "command": command, "commit": commit(), "date": date.today().isoformat(),
        "seeds": seeds, "hardware": hardware(), "n": n, "figures": figures, "notes": notes, "plots": plots or [],
    } | (more or {})  # fmt: skip
    entries = [old for old in entries if old["id"] != id] + [entry]
    RESULTS.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    RESULTS.with_suffix(".md").write_text(page(entries), encoding="utf-8")


def page(entries: list[dict[str, Any]]) -> str:
    """Return results.md."""
    lines = [
        "# Results",
        "",
        "Written by the scripts in `benchmarks/` from `results.json`; do not edit by hand.",
    ]
    lines += ["Intervals are 95 % percentile bootstraps over videos unless a note says otherwise."]
    for entry in entries:
        lines += ["", f"## {entry['title']}", ""]
        lines += [
            f"`{entry['command']}` at commit {entry['commit']}, {entry['date']}, "
            f"seeds {entry['seeds']}, n = {entry['n']}."
        ]
        lines += [f"Hardware: {entry['hardware']}.", ""]
        columns = list(dict.fromkeys(key for row in entry["figures"].values() for key in row))
        lines += ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for name, row in entry["figures"].items():
            lines += [f"| {name} | " + " | ".join(cell(row.get(column)) for column in columns) + " |"]
        lines += [""] + [f"- {note}" for note in entry["notes"]]
        lines += [f"\n![{entry['title']}]({plot})" for plot in entry["plots"]]
    return "\n".join(lines) + "\n"


def cell(value: Any) -> str:
    """Return one figure as text."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
