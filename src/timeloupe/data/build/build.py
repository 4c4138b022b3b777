"""All stages of a build over all their items, in threads, within a budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timeloupe.data.build.labelling import Labeller
from timeloupe.data.build.ledger import StageLedger, summarise, write_products, write_summary
from timeloupe.data.build.recipe import BuildRecipe
from timeloupe.data.build.record import FAULT, BuiltRow
from timeloupe.data.build.stages.registry import STAGES, stage_name
from timeloupe.errors import ConfigError
from timeloupe.eval.threads import in_threads
from timeloupe.trajectory import Example

DONE, STOPPED, MONEY, TIME = "done", "stopped", "max_cost", "max_hours"


@dataclass(frozen=True)
class Budget:
    """When to stop before the end; ``None`` = never.

    Attributes:
        max_cost: US dollars of all that was asked for the build, earlier sessions included.
        max_seconds: Of this session.
    """

    max_cost: float | None = None
    max_seconds: float | None = None


@dataclass
class Tally:
    """How far a stage is.

    Attributes:
        stage: Its name.
        items: Items that it has.
        done: Items that have a row, made by this session or before.
        kept: Rows kept.
        faults: Rows that a machine's fault ended.
        cost: US dollars of the whole build so far; ``None`` = not known.
    """

    stage: str
    items: int
    done: int = 0
    kept: int = 0
    faults: int = 0
    cost: float | None = None


OnRow = Callable[[BuiltRow, Tally], None]
WorkThrough = Callable[[str, Any, Sequence[Sequence[Example]], threading.Event], Iterator[BuiltRow]]
"""(stage, part of the recipe, batches, stop) to the rows as their batches end; after ``stop`` none begins, and those
under way are waited for."""


@dataclass
class Build:
    """A build at work.

    Attributes:
        recipe: What is built.
        folder: Where.
        source: The rows that it begins with, videos by absolute path.
        work_through: Makes the rows of batches: ``threads``, or a cluster.
        batch: Items of a batch.
        budget: When to stop.
        fail_on_error: Share of a stage's items that may be lost to machine's faults, 0 to 1, for the build to go on to
            the next stage.
        retry_videos: Make rows again whose video could not be read.
        stop: Set from outside to stop when the batches under way have ended; the build sets it at its budget's end.
        on_row: Called with every row that was written.
    """

    recipe: BuildRecipe
    folder: Path
    source: Sequence[Example]
    work_through: WorkThrough
    batch: int = 1
    budget: Budget = Budget()
    fail_on_error: float = 0.0
    retry_videos: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    on_row: OnRow | None = None
    ended: str = DONE
    spent: float = 0.0
    priced: bool = True
    began: float = field(default_factory=time.perf_counter)

    def run(self) -> dict[str, Any]:
        """Make what is missing of every stage in order; return the summary, which is also written.

        A stage whose rows are not complete, or hold more faults than may be, is the last one of this session.

        Raises:
            ConfigError: A setting does not fit, or the budget is one of money and nobody knows what a call costs.
            MissingError: What a stage needs is not there.
            RecordError: The folder holds a line that is no row.
        """
        for part in self.recipe.stages:  # what it needs beside rows must be there before others are paid for
            STAGES[part.kind].items((), part)
        ledgers = {
            stage_name(part): StageLedger(self.folder / stage_name(part)) for part in self.recipe.stages
        }
        for ledger in ledgers.values():
            ledger.take_out(videos=self.retry_videos)
            for row in (*ledger.earlier(), *ledger.rows().values()):
                self._pay(row)
        kept: dict[str, list[BuiltRow]] = {}
        inputs: dict[str, Sequence[Example]] = {"source": self.source}
        summary: dict[str, Any] = {"stages": {}}
        for part in self.recipe.stages:
            name = stage_name(part)
            kind = STAGES[part.kind]
            items = kind.items(inputs[part.reads], part)
            rows = self._stage(name, part, items, ledgers[name])
            summary["stages"][name] = summarise([rows[one.id] for one in items if one.id in rows])
            if not self._whole(items, rows, summary["stages"][name]):
                break
            kept[name] = ledgers[name].finish(
                items, lambda rows, kind=kind, part=part: kind.choose(rows, part)
            )
            summary["stages"][name]["handed_on"] = len(kept[name])
            in_order = [rows[one.id] for one in items if one.id in rows]
            summary["stages"][name] |= kind.write(self.folder / name, in_order, kept[name], part)
            inputs[name] = [row.example for row in kept[name]]
        else:
            self.ended = DONE  # a budget that was just enough
        summary["ended"] = self.ended
        summary["cost"] = self.spent if self.priced and self.spent else None
        trains = {stage_name(part) for part in self.recipe.stages if STAGES[part.kind].trains}
        summary["files"] = write_products(
            self.folder, {name: rows for name, rows in kept.items() if name in trains}
        )
        episodes = sum(row.trajectory is not None for name in trains & kept.keys() for row in kept[name])
        twice = episodes - summary["files"]["trajectories.jsonl"]
        summary |= {"made_twice": twice} if twice else {}
        write_summary(self.folder, summary)
        return summary

    def _whole(self, items: Sequence[Example], rows: dict[str, BuiltRow], summary: dict[str, Any]) -> bool:
        """Return whether the next stage may go on from these rows; say in the summary what is lacking."""
        missing = sum(one.id not in rows for one in items)
        faults = sum(one.id in rows and rows[one.id].reason == FAULT for one in items)
        summary |= {key: value for key, value in (("missing", missing), ("faults", faults)) if value}
        whole = not missing and faults <= self.fail_on_error * len(items) + 1e-9  # 0.29 of 100 is 28.999...
        if not whole and self.ended == DONE:
            self.ended = FAULT
        return whole

    def _stage(
        self, name: str, part: Any, items: Sequence[Example], ledger: StageLedger
    ) -> dict[str, BuiltRow]:
        """Make the rows of a stage that are missing and return all there are, by id."""
        rows = ledger.rows()
        wanted = {one.id for one in items}
        here = [row for id, row in rows.items() if id in wanted]
        tally = Tally(name, len(items), len(here), sum(row.kept for row in here))
        missing = [one for one in items if one.id not in rows]
        batches = [missing[at : at + self.batch] for at in range(0, len(missing), self.batch)]
        if self._over() or not batches:
            return rows
        for row in self.work_through(name, part, batches, self.stop):
            ledger.append(row)
            rows[row.id] = row
            self._pay(row)
            tally.done += 1
            tally.kept += row.kept
            tally.faults += row.reason == FAULT
            tally.cost = self.spent if self.priced else None
            if self.on_row is not None:
                self.on_row(row, tally)
            if self._over():
                self.stop.set()
        return rows

    def _pay(self, row: BuiltRow) -> None:
        cost = row.cost
        if cost is None and row.asked:
            self.priced = False
            if self.budget.max_cost is not None:
                raise ConfigError(
                    f"--max-cost {self.budget.max_cost:g} needs the cost of every call, got none for {row.id!r}: set "
                    "labeller.price, and ask a server that counts tokens"
                )
        self.spent += cost or 0.0

    def _over(self) -> bool:
        """Whether the budget is spent, or somebody has stopped the build."""
        if self.ended == DONE:
            budget = self.budget
            if budget.max_cost is not None and self.spent >= budget.max_cost:
                self.ended = MONEY
            elif budget.max_seconds is not None and time.perf_counter() - self.began >= budget.max_seconds:
                self.ended = TIME
            elif self.stop.is_set():
                self.ended = STOPPED
        return self.ended != DONE


def threads(labeller: Labeller, number: int) -> WorkThrough:
    """Return what works through batches in ``number`` threads of this process."""

    def work_through(
        stage: str, part: Any, batches: Sequence[Sequence[Example]], stop: threading.Event
    ) -> Iterator[BuiltRow]:
        def work(batch: Sequence[Example]) -> list[BuiltRow]:
            return labeller.work(
                stage, batch, lambda example: STAGES[part.kind].plan(example, part, labeller.kit)
            )

        for _, row in in_threads(batches, work, number, stop):
            yield row

    return work_through
