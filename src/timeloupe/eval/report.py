"""What several runs came to, benchmark by benchmark: figures with intervals, by category and by length, and their cost.

Runs that differ in the seed alone are one entry: the mean over all their repeats, with the spread
between them beside the interval over questions. Pure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from timeloupe.eval.baselines import baselines
from timeloupe.eval.card import card_lines
from timeloupe.eval.figure_diff import marks
from timeloupe.eval.metrics import Interval, bootstrap_interval
from timeloupe.eval.recorded import Asked, Recorded
from timeloupe.eval.recorded_reply import Reply
from timeloupe.eval.report_figures import Figure, mean_of, official_figures, strict_figures
from timeloupe.eval.report_groups import category_values, duration_bins, groups_of
from timeloupe.eval.report_runs import apart_notes, same_but_seeds, seed_of, short_names
from timeloupe.eval.scoreboard import STRICT
from timeloupe.eval.scoring import Row

MAX_LOST = 0.05
"""With a larger share of episodes missing or lost to machines a score is marked as not whole."""


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
        samples: Repeats of all runs together, those that were not begun left out.
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
        not_begun: Repeats that there should be and of which there is no episode; they are in ``wanted`` and ``lost``,
            and in no figure.
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
    not_begun: int
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
    return [replace(one, notes=(*one.notes, several)) if names[one.name] > 1 else one for one in found]


def _bench(runs: Sequence[tuple[Recorded, Asked]], seed: int) -> BenchReport:
    asked = max((asked for _, asked in runs), key=lambda one: one.whole)
    lengths = _lengths(asked.rows, [run for run, _ in runs])
    bins = duration_bins(list(lengths.values()))
    groups = same_but_seeds([run for run, _ in runs])
    labels = short_names([some[0].name for some in groups])
    entries = tuple(
        _entry(some, label, asked, lengths, bins, seed) for label, some in zip(labels, groups, strict=True)
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
    notes += apart_notes(groups, labels)
    notes += [f"{run.name}: it is scored on {one.source}" for run, one in runs if not one.whole]
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
        row.id: mean_of([one.value(repeat, row.id) for one in strict for repeat in one.tables])
        for row in rows
    }

    def over(some: Sequence[Row]) -> Interval:
        return bootstrap_interval([worth[row.id] for row in some], [row.video for row in some], seed=seed)

    categories = {
        name: {value: over([row for row in rows if groups_of(row).get(name) == value]) for value in values}
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
    wanted = sum(run.num_wanted_repeats for run in runs)
    played = sum(not reply.is_fault for reply in replies)
    seeds = [seed_of(run) for run in runs]
    return Entry(
        label, tuple(run.name for run in runs), samples, tuple(one for one in seeds if one is not None),
        strict_figures(strict, rows, seed), official_figures(runs, asked, seed), over(rows), categories, durations,
        dict(failures), dict(Counter(reply.stop.value for reply in replies if reply.stop is not None)),
        wanted * len(rows), max(0, wanted * len(rows) - played), wanted - samples, _cost(runs, replies), _card(runs[0]),
    )  # fmt: skip


def _lengths(rows: Sequence[Row], runs: Sequence[Recorded]) -> dict[str, float]:
    """Length of each question's video in seconds, from the annotations or from a whole first look."""
    seen = {id: one.duration_seconds for run in runs for (id, _), one in run.replies.items()}
    found = {row.id: row.duration_seconds or seen.get(row.id) for row in rows}
    return {id: length for id, length in found.items() if length is not None}


def _cost(runs: Sequence[Recorded], replies: Sequence[Reply]) -> Cost:
    played = [reply for reply in replies if not reply.is_fault and reply.stop is not None]
    counts = [(one.prompt_tokens, one.completion_tokens) for one in played]
    tokens = [None if one is None or two is None else one + two for one, two in counts]
    walls = [run.card.get("cost", {}).get("seconds_per_episode") for run in runs]

    def mean(values: Sequence[float | None]) -> float | None:
        return None if not values or None in values else mean_of(values)

    return Cost(
        mean(tokens), mean(walls), mean_of([one.seconds for one in played]) or 0.0,
        mean_of([float(one.frames_decoded) for one in played]) or 0.0,
        mean_of([float(len(one.looked)) for one in played]) or 0.0,
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
