"""One set of predictions scored in every way that was asked for, with what is trivial beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from timeloupe.errors import boundary
from timeloupe.eval.baselines import baselines
from timeloupe.eval.metrics import Interval, bootstrap_interval
from timeloupe.eval.predictions import Loaded
from timeloupe.eval.scoring import Benchmark, Row, Table
from timeloupe.eval.scripts.errors import OfficialError, raising_as_script

STRICT, OFFICIAL, ALL = "strict", "official", "all"


@dataclass(frozen=True)
class Scoreboard:
    """The scores of one set of predictions.

    Attributes:
        benchmark: What was scored.
        num_rows: Rows of the benchmark.
        num_missing: Rows without a prediction.
        num_empty: Rows whose prediction is an empty text.
        tables: One per mode.
        trivial: Strict tables of rules that see nothing, by their name.
        interval: Of the mean of the strict mode's values, by bootstrap over videos; ``None`` without strict mode.
        loaded: The predictions and what was odd about the file.
    """

    benchmark: Benchmark
    num_rows: int
    num_missing: int
    num_empty: int
    tables: tuple[Table, ...]
    trivial: dict[str, Table]
    interval: Interval | None
    loaded: Loaded

    def warnings(self, table: Table) -> list[str]:
        """Return what of the predictions is not there, in a few words each, as far as the table does not say so."""
        counts = [
            (0 if "missing" in table.failures else self.num_missing, "missing"),
            (self.num_empty, "empty"),
            (len(self.loaded.unknown), "with an id that the benchmark does not have"),
            (self.loaded.repeated, "repeated, the last one stands"),
        ]
        return [f"{count} {what}" for count, what in counts if count]


def score(
    benchmark: Benchmark, rows: Sequence[Row], loaded: Loaded, mode: str = ALL, *, seed: int = 0
) -> Scoreboard:
    """Return the scores of predictions.

    Args:
        benchmark: Whose rows these are.
        rows: All rows that are to be answered.
        loaded: The predictions.
        mode: ``strict``, ``official`` (every script), ``official:<script>``, or ``all``.
        seed: Of the interval and the random baseline.

    Raises:
        ConfigError: There is no such mode.
    """
    predictions = loaded.by_id
    tables = [official_table(benchmark, name, rows, loaded) for name in scripts_of(benchmark, mode)]
    interval = None
    trivial: dict[str, Table] = {}
    if mode in (STRICT, ALL):
        table = benchmark.strict(rows, predictions)
        tables.append(table)
        values = [table.values.get(row.id) for row in rows]
        interval = bootstrap_interval(values, [row.video for row in rows], seed=seed)
        for name, guesses in baselines(rows, seed, joint=benchmark.joint).items():
            some = [row for row in rows if row.id in guesses]
            trivial[name] = benchmark.strict(some, guesses)
    return Scoreboard(
        benchmark, len(rows),
        sum(predictions.get(row.id) is None for row in rows),
        sum(predictions.get(row.id) == "" for row in rows),
        tuple(tables), trivial, interval, loaded,
    )  # fmt: skip


def scripts_of(benchmark: Benchmark, mode: str) -> list[str]:
    """Return which official scripts a mode asks for.

    Raises:
        ConfigError: There is no such mode or script.
    """
    legal = [STRICT, OFFICIAL, ALL, *(f"{OFFICIAL}:{name}" for name in benchmark.official)]
    if mode not in legal:
        raise boundary(f"mode of {benchmark.name}", mode, legal)
    if mode == STRICT:
        return []
    if mode in (OFFICIAL, ALL):
        return list(benchmark.official)
    return [mode.split(":", 1)[1]]


def official_table(benchmark: Benchmark, name: str, rows: Sequence[Row], loaded: Loaded) -> Table:
    """Return what an official script says, or the exception it ends with as a table without figures.

    Predictions that are no texts may be of a form that the script has no notion of; any exception is the script's then.
    """
    mode = f"{OFFICIAL}:{name}"
    odd = any(not isinstance(one, str | None) for one in loaded.by_id.values())
    try:
        with raising_as_script() if odd else nullcontext():
            return replace(benchmark.official[name](rows, loaded.by_id), mode=mode)
    except OfficialError as error:
        return Table(mode, {}, "fraction", 0, len(rows), error=str(error))
