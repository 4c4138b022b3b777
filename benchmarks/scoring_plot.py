"""Headline figures as dots: one line per benchmark, one dot per script, one for the strict mode."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Dots = Mapping[str, tuple[Mapping[str, float], float, Mapping[str, float]]]
"""Name of a line -> percent by script, of the strict mode, by rule that sees nothing."""

OFFICIAL, STRICT, UNSEEN = "#3b6fb6", "#c0392b", "#8a8a8a"
LEVELS = 4
WIDTH_OF_LETTER = 0.62
"""Percent of the axis that a letter of a label takes, at this width of the picture."""


def plot(dots: Dots, path: Path) -> None:
    """Draw the lines in order, the first on top; labels that would touch stand at different heights."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(13, 0.95 * len(dots) + 1.4))
    for place, (scripts, strict, unseen) in enumerate(dots.values()):
        at = -float(place)
        axes.axhline(at, color="#dddddd", linewidth=0.8, zorder=0)
        axes.plot(
            list(unseen.values()), [at] * len(unseen), "|", color=UNSEEN, markersize=13, markeredgewidth=2
        )
        axes.plot(list(scripts.values()), [at] * len(scripts), "o", color=OFFICIAL, markersize=7)
        axes.plot([strict], [at], "D", color=STRICT, markersize=9, zorder=3)
        ends = [-1e9] * LEVELS
        for name, percent in sorted(scripts.items(), key=lambda item: item[1]):
            half = WIDTH_OF_LETTER * len(name) / 2
            level = next((one for one in range(LEVELS) if ends[one] < percent - half), LEVELS - 1)
            ends[level] = percent + half
            height = at + 0.19 + 0.19 * level
            axes.plot([percent, percent], [at, height - 0.06], color=OFFICIAL, linewidth=0.5, alpha=0.6)
            axes.text(percent, height, name, ha="center", va="center", fontsize=7.5, color="#22406b")
    axes.set_yticks([-float(place) for place in range(len(dots))], list(dots))
    axes.set_ylim(-len(dots) + 0.5, 1.0)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 10))
    axes.set_xlabel("percent")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for label, mark, color in (
        ("official script", "o", OFFICIAL), ("strict mode", "D", STRICT), ("without looking, strict", "|", UNSEEN),
    ):  # fmt: skip
        axes.plot(
            [], [], mark, color=color, label=label, markersize=8, markeredgewidth=2 if mark == "|" else 1
        )
    figure.legend(loc="upper center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / (0.95 * len(dots) + 1.4)))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
