"""What several runs came to, benchmark by benchmark: figures with intervals, by category and by length, and their cost.

Runs whose configuration differs in the seed alone are one entry: the mean over all their repeats, with the spread
between them beside the interval over questions. Pure.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from timeloupe.eval.baselines import baselines
from timeloupe.eval.card import card_lines
from timeloupe.eval.figure_diff import Marks, marks, modes_of, rounding, table_of
from timeloupe.eval.metrics import Interval, bootstrap_interval
from timeloupe.eval.recorded import Asked, Recorded, Reply
from timeloupe.eval.scoreboard import STRICT
from timeloupe.eval.scoring import Row, Table

MAX_CATEGORIES = 40
"""A field with more values than this is no category but free text or an id."""

MAX_LOST = 0.05
"""With a larger share of episodes missing or lost to machines a score is marked as not whole."""

EDGES = (30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0)
"""Bounds of the bins of length, in seconds; where fewer than three are used, quarters of the questions."""


@dataclass(frozen=True)
class Figure:
    """A figure of an entry.

    Attributes:
        name: Its name.
        unit: ``fraction``, ``percent`` or ``points``.
        mean: Over all repeats of all its runs; ``None`` = there is none.
        interval: Over questions, by video; ``None`` where the figure is no mean over questions.
        spread: Standard deviation between repeats; ``None`` for one alone.
        least: Smallest of the repeats.
        most: Largest.
    """

    name: str
    unit: str
    mean: float | None
    interval: Interval | None = None
    spread: float | None = None
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Cost:
    """What an episode costs on average; ``None`` = not counted.

    Attributes:
        tokens: Prompt and completion.
        wall_seconds: Time of the run per episode, as its card says: depends on how many played at once.
        seconds: From an episode's first to its last turn.
        frames: Frames decoded.
        crops: Looks closer.
    """

    tokens: float | None
    wall_seconds: float | None
    seconds: float
    frames: float
    crops: float


@dataclass(frozen=True)
class Entry:
    """One or more runs of one configuration.

    Attributes:
        label: For tables and plots.
        runs: Names of the runs.
        samples: Repeats of all runs together.
        seeds: Their seeds, as far as known.
        strict: The strict figures.
        official: Script -> its figures, or what it ends with as a text.
        overall: Mean over questions of what each is worth, strict.
        categories: Field -> value -> strict mean over questions.
        durations: Bin of length -> strict mean over questions.
        failures: Reason -> replies of all samples that the strict mode could not read, or that are missing.
        stops: Stop reason -> episodes.
        wanted: Episodes there should be.
        lost: Of those, how many are missing or lost to machines.
        cost: Of an episode.
        card: The card in short, or why there is none.
    """

    label: str
    runs: tuple[str, ...]
    samples: int
    seeds: tuple[int, ...]
    strict: tuple[Figure, ...]
    official: Mapping[str, tuple[Figure, ...] | str]
    overall: Interval
    categories: Mapping[str, Mapping[str, Interval]]
    durations: Mapping[str, Interval]
    failures: Mapping[str, int]
    stops: Mapping[str, int]
    wanted: int
    lost: int
    cost: Cost
    card: tuple[str, ...]

    @property
    def is_whole(self) -> bool:
        """Whether no more than ``MAX_LOST`` of its episodes are missing or lost."""
        return self.lost <= MAX_LOST * self.wanted


@dataclass(frozen=True)
class BenchReport:
    """One set of questions.

    Attributes:
        name: The benchmark.
        title: Its name in papers.
        split: Which split.
        rows: Questions.
        sha256: Hash of the questions with their labels, if a run has it.
        entries: What was played, in the order given.
        trivial: Rule that sees nothing -> its strict figures.
        floor: The best of these rules: its name, and its mean over the questions that it answers.
        notes: What is to be said of the runs and the questions.
    """

    name: str
    title: str
    split: str
    rows: int
    sha256: str | None
    entries: tuple[Entry, ...]
    trivial: Mapping[str, tuple[Figure, ...]]
    floor: tuple[str, float] | None
    notes: tuple[str, ...] = field(default_factory=tuple)


def report(runs: Sequence[tuple[Recorded, Asked]], *, seed: int = 0) -> list[BenchReport]:
    """Return a report per benchmark and set of questions, in the order in which they come.

    Args:
        runs: Runs with the rows that each is scored on.
        seed: Of the intervals and the random baseline.

    Raises:
        ConfigError: A run says that it was scored in a mode that there is not.
    """
    sets: dict[tuple[str, Any], list[tuple[Recorded, Asked]]] = {}
    for run, asked in runs:
        same = run.questions_sha256 or tuple(row.id for row in asked.rows)
        sets.setdefault((asked.benchmark.name, same), []).append((run, asked))
    names = Counter(name for name, _ in sets)
    found = [_bench(some, seed) for some in sets.values()]
    several = (
        "other runs of this benchmark asked other questions: their figures stand in a table of their own"
    )
    return [
        BenchReport(**(vars(one) | {"notes": (*one.notes, several)})) if names[one.name] > 1 else one
        for one in found
    ]


def _bench(runs: Sequence[tuple[Recorded, Asked]], seed: int) -> BenchReport:
    asked = max((asked for _, asked in runs), key=lambda one: one.whole)
    lengths = _lengths(asked.rows, [run for run, _ in runs])
    bins = duration_bins(list(lengths.values()))
    groups: dict[str, list[Recorded]] = {}
    for run, _ in runs:
        groups.setdefault(configuration_key(run), []).append(run)
    labels = short_names([some[0].name for some in groups.values()])
    entries = tuple(
        _entry(some, label, asked, lengths, bins, seed)
        for label, some in zip(labels, groups.values(), strict=True)
    )
    trivial: dict[str, tuple[Figure, ...]] = {}
    floors: dict[str, float] = {}
    for name, guesses in baselines(asked.rows, seed, joint=asked.benchmark.joint).items():
        some = [row for row in asked.rows if row.id in guesses]
        table = asked.benchmark.strict(some, guesses)
        trivial[name] = tuple(
            Figure(str(key), table.unit, value)
            for key, value in table.figures.items()
            if isinstance(value, float)
        )
        if table.values:
            floors[name] = math.fsum(table.values.values()) / len(table.values)
    whole = {name: value for name, value in floors.items() if _covers(asked, name, seed)}
    best = max(whole or floors, key=lambda name: floors[name], default=None)
    notes = [f"{run.name} {note}" for run, _ in runs for note in run.notes]
    notes += [f"{run.name}: the questions are those of {one.source}" for run, one in runs if not one.whole]
    sha256 = next((run.questions_sha256 for run, _ in runs if run.questions_sha256), None)
    bench = asked.benchmark
    return BenchReport(
        bench.name, bench.title, bench.split, len(asked.rows), sha256, entries, trivial,
        None if best is None else (best, floors[best]), tuple(notes),
    )  # fmt: skip


def _covers(asked: Asked, rule: str, seed: int) -> bool:
    """Whether a rule answers every question."""
    guesses = baselines(asked.rows, seed, joint=asked.benchmark.joint).get(rule, {})
    return all(row.id in guesses for row in asked.rows)


def _entry(
    runs: Sequence[Recorded],
    label: str,
    asked: Asked,
    lengths: Mapping[str, float],
    bins: Mapping[str, tuple[float, float]],
    seed: int,
) -> Entry:
    rows = asked.rows
    strict = [marks(asked, STRICT, rows, run, missing=True) for run in runs]
    worth = {
        row.id: _mean([one.value(repeat, row.id) for one in strict for repeat in one.tables]) for row in rows
    }

    def over(some: Sequence[Row]) -> Interval:
        return bootstrap_interval([worth[row.id] for row in some], [row.video for row in some], seed=seed)

    categories = {
        name: {value: over([row for row in rows if _groups(row).get(name) == value]) for value in values}
        for name, values in category_values(rows).items()
    }
    durations = {
        name: over([row for row in rows if row.id in lengths and low <= lengths[row.id] < high])
        for name, (low, high) in bins.items()
    }
    failures: Counter[str] = Counter()
    for one in strict:
        for tables in one.tables.values():
            for table in tables.values():
                failures.update({why: count for why, count in table.failures.items() if count})
    replies = [reply for run in runs for reply in run.replies.values()]
    samples = sum(len(run.repeats) for run in runs)
    played = sum(not reply.is_fault for reply in replies)
    seeds = [run.card.get("sampling", {}).get("seed", run.spoken.get("seed")) for run in runs]
    return Entry(
        label, tuple(run.name for run in runs), samples, tuple(one for one in seeds if one is not None),
        _strict_figures(strict, rows, seed), _official(runs, asked, seed), over(rows), categories, durations,
        dict(failures), dict(Counter(reply.stop.value for reply in replies if reply.stop is not None)),
        samples * len(rows), max(0, samples * len(rows) - played), _cost(runs, replies), _card(runs[0]),
    )  # fmt: skip


def _strict_figures(found: Sequence[Marks], rows: Sequence[Row], seed: int) -> tuple[Figure, ...]:
    ids, videos = [row.id for row in rows], [row.video for row in rows]
    figures: list[Figure] = []
    for name in next(iter(found[0].figures.values()), {}):
        values = [_number(one.get(name)) for each in found for one in each.figures.values()]
        interval = None
        if all(one.is_mean(name) for one in found):
            columns = [one.by_question(name, ids) for one in found]
            interval = bootstrap_interval(
                [_mean(list(some)) for some in zip(*columns, strict=True)], videos, seed=seed
            )
        if any(value is not None for value in values):
            figures.append(_figure(str(name), found[0].unit, values, interval))
    return tuple(figures)


def _official(runs: Sequence[Recorded], asked: Asked, seed: int) -> dict[str, tuple[Figure, ...] | str]:
    """The figures of the scripts that the first run was scored by."""
    if not asked.benchmark.official:
        return {}
    found: dict[str, tuple[Figure, ...] | str] = {}
    for mode in modes_of(asked, runs[0].mode):
        if mode == STRICT:
            continue
        tables = [
            table_of(asked, mode, asked.rows, run.predictions(repeat))
            for run in runs
            for repeat in run.repeats
        ]
        error = next((table.error for table in tables if table.error), None)
        if error is not None:
            found[mode] = f"the script ends with {error}"
            continue
        figures: list[Figure] = []
        for name in tables[0].figures:
            values = [_number(table.figures.get(name)) for table in tables]
            if any(value is not None for value in values):
                interval = _interval_of(tables, name, asked.rows, seed) if len(figures) < 4 else None
                figures.append(_figure(str(name), tables[0].unit, values, interval))
        found[mode] = tuple(figures)
    return found


def _interval_of(tables: Sequence[Table], name: str, rows: Sequence[Row], seed: int) -> Interval | None:
    """The interval of an official figure that is the mean of what the script makes of each question."""
    scale = {"fraction": 1.0, "percent": 100.0}.get(tables[0].unit, 0.0)
    for table in tables:
        value, mean = _number(table.figures.get(name)), _mean(list(table.values.values()))
        if value is None or mean is None or abs(value - scale * mean) > rounding(value, table.unit):
            return None
    worth = [_mean([table.values.get(row.id) for table in tables]) for row in rows]
    scaled = [None if value is None else scale * value for value in worth]
    return bootstrap_interval(scaled, [row.video for row in rows], seed=seed)


def _figure(name: str, unit: str, values: Sequence[float | None], interval: Interval | None) -> Figure:
    known = [value for value in values if value is not None]
    spread = statistics.stdev(known) if len(known) > 1 else None
    several = len(known) > 1
    return Figure(
        name,
        unit,
        _mean(known),
        interval,
        spread,
        min(known) if several else None,
        max(known) if several else None,
    )


def category_values(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the fields that questions are split by, with their values, the most frequent first.

    A field with one value, or with more than ``MAX_CATEGORIES``, is left out.
    """
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in _groups(row).items():
            counts.setdefault(name, Counter())[value] += 1
    return {
        name: [value for value, _ in some.most_common()]
        for name, some in counts.items()
        if 2 <= len(some) <= MAX_CATEGORIES
    }


def _groups(row: Row) -> dict[str, str]:
    return {"task": row.task} | {str(name): str(value) for name, value in row.groups.items()}


def duration_bins(lengths: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Return bins of length by their name, ``[low, high)`` in seconds, only those that hold something.

    The bounds are ``EDGES``; where these would make fewer than three bins, the quartiles of the lengths.
    """
    if not lengths:
        return {}
    found = _bins(lengths, EDGES)
    if len(found) < 3 and len(set(lengths)) >= 4:
        found = _bins(lengths, statistics.quantiles(lengths, n=4))
    return found


def _bins(lengths: Sequence[float], edges: Sequence[float]) -> dict[str, tuple[float, float]]:
    bounds = [0.0, *sorted(set(edges)), math.inf]
    found: dict[str, tuple[float, float]] = {}
    for low, high in zip(bounds, bounds[1:], strict=False):
        if any(low <= length < high for length in lengths):
            found[_bin_name(low, high)] = (low, high)
    return found


def _bin_name(low: float, high: float) -> str:
    def words(seconds: float) -> str:
        return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.3g} min"

    if low == 0:
        return f"under {words(high)}"
    return f"{words(low)} and more" if math.isinf(high) else f"{words(low)} to {words(high)}"


def _lengths(rows: Sequence[Row], runs: Sequence[Recorded]) -> dict[str, float]:
    """Length of each question's video in seconds, from the annotations or from a whole first look."""
    seen = {id: one.duration_seconds for run in runs for (id, _), one in run.replies.items()}
    found = {row.id: row.duration_seconds or seen.get(row.id) for row in rows}
    return {id: length for id, length in found.items() if length is not None}


def configuration_key(run: Recorded) -> str:
    """Return what two runs share that differ in nothing but the seed; a run without configuration is alone."""
    if not run.config.get("episode"):
        return f"alone: {run.name}"
    config = dict(run.config)
    config["flags"] = {
        key: value for key, value in config.get("flags", {}).items() if key not in ("seed", "repeats")
    }
    weights = {key: value for key, value in run.card.get("model", {}).items() if key.endswith("sha256")}
    return json.dumps([config, weights, run.mode], sort_keys=True, default=str)


def short_names(names: Sequence[str]) -> list[str]:
    """Return the last parts of paths, as many as tell them apart."""
    for count in range(1, 8):
        found = ["/".join(name.rstrip("/").split("/")[-count:]) for name in names]
        if len(set(found)) == len(set(names)):
            return found
    return list(names)


def _cost(runs: Sequence[Recorded], replies: Sequence[Reply]) -> Cost:
    played = [reply for reply in replies if not reply.is_fault and reply.stop is not None]
    tokens = [
        None if one.prompt_tokens is None or one.completion_tokens is None else one.prompt_tokens + one.completion_tokens
        for one in played
    ]  # fmt: skip
    walls = [run.card.get("cost", {}).get("seconds_per_episode") for run in runs]

    def mean(values: Sequence[float | None]) -> float | None:
        return None if not values or None in values else _mean(values)

    return Cost(
        mean(tokens), mean(walls), _mean([one.seconds for one in played]) or 0.0,
        _mean([float(one.frames_decoded) for one in played]) or 0.0,
        _mean([float(len(one.looked)) for one in played]) or 0.0,
    )  # fmt: skip


def _card(run: Recorded) -> tuple[str, ...]:
    if not run.card:
        return ("no card",)
    try:
        return tuple(card_lines(run.card))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return (f"its card is of another form: {error!r}",)


def report_facts(found: Sequence[BenchReport]) -> dict[str, Any]:
    """Return reports as JSON data."""
    return {"benchmarks": [asdict(one) for one in found]}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
