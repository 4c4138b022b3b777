"""Experiment trackers: the rows of metrics.jsonl, shown elsewhere too. The file stays the record; these are copies.

A tracker is an optional package, imported when a recipe names it. What was sent is remembered in ``trackers.json`` of
the run folder, so a run that is resumed sends no step twice: the steps that a killed run had done behind its last
checkpoint are played again to the same numbers.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal, Protocol

from timeloupe.errors import MissingError, RecordError, boundary
from timeloupe.runs import write_json

TrackerName = Literal["tensorboard", "wandb", "trackio"]

PROJECT = "timeloupe"
STATE_FILE = "trackers.json"


class Tracker(Protocol):
    """Where rows go."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Send one row so that it outlives a kill of this process."""
        ...

    def close(self) -> None:
        """Finish the run there."""
        ...


class _Tensorboard:
    """Event files in ``tensorboard`` of the run folder."""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], first_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # Steps from the purged one on, if a kill came between an event and its note, are hidden by the reader.
        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step or None)
        if not first_step:
            self.writer.add_text("recipe", f"```json\n{json.dumps(config, indent=2)}\n```", 0)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """A run of project ``timeloupe`` (``WANDB_PROJECT``), offline where ``WANDB_MODE=offline`` says so."""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], first_step: int) -> None:
        import os

        import wandb  # type: ignore[import-not-found]

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self.run: Any = wandb.init(
            project=project, name=folder.name, id=run_id, dir=str(folder), config=dict(config), resume="allow"
        )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=step, commit=True)

    def close(self) -> None:
        self.run.finish()


class _Trackio:
    """A run of project ``timeloupe`` in trackio's local store. It talks on stdout, which is not ours to fill."""

    def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], first_step: int) -> None:
        import trackio  # type: ignore[import-not-found]

        with redirect_stdout(sys.stderr):
            self.run: Any = trackio.init(
                project=PROJECT, name=f"{folder.name}-{run_id}", config=dict(config), resume="allow"
            )

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.run.log(dict(figures), step=step)

    def close(self) -> None:
        with redirect_stdout(sys.stderr):
            self.run.finish()


TRACKERS: dict[str, Callable[[Path, str, Mapping[str, Any], int], Tracker]] = {
    "tensorboard": _Tensorboard,
    "wandb": _Wandb,
    "trackio": _Trackio,
}


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages of these trackers are installed, before anything long begins.

    Raises:
        ConfigError: There is no tracker of this name.
        MissingError: Its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise boundary("tracker", name, TRACKERS)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # a mere folder of this name is no package
            raise MissingError(f"tracker {name!r} is not installed; install it with `pip install {name}`")


def _remembered(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        sent = known.get("sent", {}) if isinstance(known, dict) else None
        if not isinstance(sent, dict) or not all(isinstance(step, int) for step in sent.values()):
            raise ValueError("expected the last step sent by tracker, in 'sent'")
    except ValueError as error:
        raise RecordError(
            f"{path} is damaged: {error}; put back a copy of it, or delete it: the trackers then get a new run"
        ) from error
    return known


class Trackers:
    """The trackers of a run, opened at once; without names it does nothing.

    Args:
        names: Keys of ``TRACKERS``.
        folder: Run folder.
        config: Shown beside the run.

    Raises:
        ConfigError: See ``check_trackers``.
        MissingError: Likewise.
        RecordError: ``trackers.json`` cannot be read.
    """

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> None:
        check_trackers(names)
        self.path = folder / STATE_FILE
        known = _remembered(self.path) if self.path.exists() else {}
        self.state = {"run_id": known.get("run_id") or uuid.uuid4().hex[:12], "sent": known.get("sent", {})}
        if names:
            write_json(self.path, self.state)
        self.opened = {
            name: TRACKERS[name](folder, self.state["run_id"], config, self._next(name)) for name in names
        }

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Send a row to each tracker that has not had its ``step`` yet; what is no number stays in the file only."""
        step = int(row["step"])
        figures = {
            name: float(value)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
        }
        for name, tracker in self.opened.items():
            if step >= self._next(name):
                tracker.log(step, figures)
                self.state["sent"][name] = step
        if self.opened:
            write_json(self.path, self.state)

    def close(self) -> None:
        """Finish everywhere."""
        for tracker in self.opened.values():
            tracker.close()

    def _next(self, name: str) -> int:
        """The first step that the tracker lacks."""
        return self.state["sent"].get(name, -1) + 1
