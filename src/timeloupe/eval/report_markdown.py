"""A report as Markdown. Pure; names of files and models in it are text, whatever they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence

from timeloupe.eval.report import BenchReport
from timeloupe.eval.report_plots import Plot, one_line
from timeloupe.eval.report_tables import Grid, grids, heading, warnings

TITLE = "Evaluation report"


def markdown(found: Sequence[BenchReport], pictures: Sequence[Sequence[tuple[str, Plot]]] = ()) -> str:
    """Return the document.

    Args:
        found: The reports.
        pictures: For each of them, the plots with the names of their files; empty = none are shown.
    """
    lines = [f"# {TITLE}", ""]
    for at, bench in enumerate(found):
        lines += [f"## {plain(heading(bench))}", ""]
        if bench.sha256:
            lines += [f"Questions and labels: `{bench.sha256[:12]}`", ""]
        lines += [f"> {plain(one)}\n" for one in warnings(bench)]
        for grid in grids(bench):
            lines += _table(grid)
        for name, plot in pictures[at] if pictures else ():
            lines += [f"![{plain(plot.caption)}]({name})", ""]
        lines += ["### Cards", ""]
        for entry in bench.entries:
            lines += [f"{plain(entry.label)} ({plain(', '.join(entry.runs))}):", ""]
            lines += [f"    {one_line(line)}" for line in entry.card] + [""]
    return "\n".join(lines).rstrip() + "\n"


def plain(text: str) -> str:
    """Return text that Markdown shows as it is: nothing in it is markup, a link, or the end of a cell."""
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#!|~])", r"\\\1", escaped)


def _table(grid: Grid) -> list[str]:
    rows = [grid.head, ("---",) * len(grid.head), *grid.rows]
    lines = [f"### {plain(grid.title)}", ""]
    for at, row in enumerate(rows):
        cells = row if at == 1 else [plain(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", *([plain(grid.note), ""] if grid.note else [])]
