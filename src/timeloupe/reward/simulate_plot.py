"""A picture of a simulation: what each archetype earns, task by task."""

from __future__ import annotations

from pathlib import Path

from timeloupe.errors import MissingError, boundary
from timeloupe.reward.archetypes import ARCHETYPES
from timeloupe.reward.simulate import Row, Simulation

ENDINGS = (".png", ".svg", ".pdf")
HONEST, DEGENERATE, OUTRANKS = "#1f6fb2", "#8a8a8a", "#c8321f"


def check_plot(path: Path) -> None:
    """Raise unless a plot can be drawn to ``path``.

    Raises:
        ConfigError: The path has another ending than those of ``ENDINGS``.
        MissingError: matplotlib is not installed, or the folder is not there.
    """
    if path.suffix.lower() not in ENDINGS:
        raise boundary("ending of the plot's file", path.suffix, ENDINGS)
    if not path.parent.is_dir():
        raise MissingError(
            f"no folder {str(path.parent)!r} to draw {path.name!r} in; make it, or name another"
        )
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingError(
            f"--plot needs {error.name!r}; install it with `pip install matplotlib`, or leave --plot out"
        ) from error


def plot(simulation: Simulation, path: Path) -> None:
    """Write one panel per task and phase: each archetype's mean reward and interval, in order of the overall mean.

    Raises:
        ConfigError: See ``check_plot``.
        MissingError: See ``check_plot``.
    """
    check_plot(path)
    from matplotlib.figure import Figure

    names = list(simulation.overall)[::-1]
    cells = simulation.cells
    figure = Figure(figsize=(2.6 + 2.7 * len(cells), 0.9 + 0.3 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    for panel, cell in zip(panels, cells, strict=True):
        rows = {row.archetype: row for row in cell.rows}
        for height, name in enumerate(names):
            mean = rows[name].reward
            if mean.mean is None or mean.low is None or mean.high is None:
                continue
            panel.plot([mean.low, mean.high], [height, height], color=_colour(rows[name]), linewidth=2)
            panel.plot(
                mean.mean, height, marker="D" if _is_honest(name) else "o", color=_colour(rows[name]), markersize=5
            )  # fmt: skip
        for name, style in (("perfect", ":"), ("honest", "--")):
            panel.axvline(rows[name].reward.mean or 0.0, color=HONEST, linestyle=style, linewidth=0.8)
        phase = (
            "" if cell.phase == (0.0, 1.0) else f"\n{cell.phase[0]:.0%} to {cell.phase[1]:.0%} of training"
        )
        panel.set_title(cell.task.replace("_", " ") + phase, fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", color="#e4e4e4", linewidth=0.6)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    for label, name in zip(panels[0].get_yticklabels(), names, strict=True):
        label.set_color(HONEST if _is_honest(name) else "black")
    verdict = "a" if simulation.outranking else "no"
    wide = len(cells) > 2
    figure.suptitle(
        f"{simulation.name}: {verdict} degenerate policy outranks honest looking", fontsize=10 if wide else 8
    )
    legend = (
        "mean reward and 95 % interval; blue: honest, the dotted line perfect, the dashed one honest;",
        "red: outranks the honest policy that knows as much",
    )
    figure.supxlabel((" " if wide else "\n").join(legend), fontsize=8 if wide else 6)
    # No date in the file: the same simulation gives the same bytes.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    figure.savefig(path, dpi=130, metadata=metadata)


def _is_honest(name: str) -> bool:
    return ARCHETYPES[name].against is None


def _colour(row: Row) -> str:
    if row.outranks:
        return OUTRANKS
    return HONEST if _is_honest(row.archetype) else DEGENERATE
