"""What was recorded of a run: its episodes in short, its card and configuration, and the rows that it answered.

An episode is read, cut down to what comparing and reporting need, and let go: a run of 10,000 long episodes fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from timeloupe.errors import ConfigError, MissingError, RecordError, TimeloupeError
from timeloupe.eval.benchmarks.world import score as score_by_task
from timeloupe.eval.card import CARD
from timeloupe.eval.predictions import first_object, read_predictions
from timeloupe.eval.questions import digest_rows
from timeloupe.eval.recorded_files import SESSION, check_object, read_object, read_sessions
from timeloupe.eval.recorded_reply import Key, Reply, reply_of
from timeloupe.eval.registry import benchmark as find_benchmark
from timeloupe.eval.scoring import Benchmark, Row
from timeloupe.eval.strict import read_letter, read_windows
from timeloupe.runs import (
    CONFIG,
    ENVIRONMENT,
    TRAJECTORIES,
    RolloutKey,
    RunFolder,
    open_run,
    rollout_key,
    runs_below,
    training_step,
)
from timeloupe.trajectory import Example, Trajectory, read_trajectories


@dataclass(frozen=True)
class Recorded:
    """A run as it lies on disk.

    Attributes:
        name: How people name it.
        layout: What it is: a run folder, a file of trajectories, a file of predictions.
        replies: By row id and repeat.
        card: ``card.json``; empty if there is none.
        config: ``config.json``; empty if there is none.
        session: ``session.json``; empty if there is none.
        environments: One per session.
        spoken: Policy, protocol, seed and settings as the first episode has them; empty without episodes.
        notes: What is missing, in words.
    """

    name: str
    layout: str
    replies: Mapping[Key, Reply]
    card: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    session: Mapping[str, Any] = field(default_factory=dict)
    environments: tuple[Mapping[str, Any], ...] = ()
    spoken: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def benchmark_name(self) -> str | None:
        """The benchmark's name if the run says it."""
        return self.config.get("benchmark") or self.card.get("benchmark", {}).get("name")

    @property
    def questions_sha256(self) -> str | None:
        """Hash of the rows that were asked, if the run says it."""
        return self.config.get("questions_sha256") or self.card.get("benchmark", {}).get("sha256")

    @property
    def mode(self) -> str | None:
        """How the run was scored, if it says so."""
        return self.card.get("scorer", {}).get("mode") or self.session.get("mode")

    @property
    def votes(self) -> int:
        """Episodes per question that voted on one answer; 0 where there was no vote."""
        samples = self.session.get("samples")
        return samples if isinstance(samples, int) and samples > 1 else 0

    @property
    def repeats(self) -> tuple[int, ...]:
        """Numbers of the repeats, ascending."""
        return tuple(sorted({repeat for _, repeat in self.replies}))

    @property
    def num_wanted_repeats(self) -> int:
        """How many repeats there should be: those that are there, and those that were asked for and not begun."""
        asked = (self.config.get("flags", {}).get("repeats"), self.votes)
        wanted = max((one for one in asked if isinstance(one, int)), default=0)
        return max(wanted, 0) + sum(repeat >= wanted for repeat in self.repeats)

    def predictions(self, repeat: int) -> dict[str, Any]:
        """Return what is scored of a repeat, by row id; faults of machines are not in it."""
        found = ((id, one) for (id, number), one in self.replies.items() if number == repeat)
        return {id: one.prediction for id, one in found if one.prediction is not None}

    @property
    def examples(self) -> dict[str, Example]:
        """The questions as they were asked, by id."""
        return {id: one.example for (id, _), one in self.replies.items() if one.example is not None}


@dataclass(frozen=True)
class Asked:
    """The rows that runs are scored on.

    Attributes:
        benchmark: Whose they are.
        rows: The rows.
        source: Where they come from, in words.
        whole: Whether they are all rows that were asked; else only those that were played are known.
    """

    benchmark: Benchmark
    rows: tuple[Row, ...]
    source: str
    whole: bool


def read_recorded(path: str | Path) -> Recorded:
    """Return a run folder, or the run of a file of trajectories.

    Raises:
        MissingError: There is nothing at ``path``, or no episode in it.
        ConfigError: It is a folder or a file of another kind.
        RecordError: A line is not a valid trajectory.
    """
    path = Path(path)
    if not path.exists():
        raise MissingError(f"no run at {str(path)!r}, expected a folder that `timeloupe eval --run` made")
    if path.is_file() and path.name == TRAJECTORIES and (path.parent / CONFIG).is_file():
        path = path.parent
    if path.is_file():
        return _of_file(path)
    if not (path / TRAJECTORIES).is_file():
        what = (
            "it has a configuration and no episode yet"
            if (path / CONFIG).is_file()
            else "it is no run folder"
        )
        do = runs_below(path) or "; play some with `timeloupe eval --run`"
        raise MissingError(f"no episodes in {str(path)!r}: {what}{do}")
    run = open_run(path) if (path / CONFIG).is_file() else RunFolder(path, {})
    config = check_object(path / CONFIG, run.config)
    replies, spoken, of_training = _replies(iter(run))
    if not replies:
        raise MissingError(f"no episodes in {str(path)!r}: its {TRAJECTORIES} is empty, go on with --resume")
    card, session = read_object(path / CARD), read_object(path / SESSION)
    environments = read_sessions(path / ENVIRONMENT)
    if not environments and card.get("environment"):
        environments = [card["environment"]]
    found = Recorded(
        str(path), "run folder", replies, card, config, session, tuple(environments), spoken, of_training
    )
    return replace(found, notes=(*_lacks(found), *of_training, *_of_vote(found)))


def _lacks(run: Recorded) -> list[str]:
    """Which of its files a run lacks, and what is not known for that."""
    notes: list[str] = []
    if not run.card:
        there = ""
        if isinstance(run.config.get("questions"), int):
            wanted = run.config["questions"] * run.num_wanted_repeats
            there = f"{len(run.replies)} of {wanted} episodes are there; "
        again = "; timeloupe eval --resume writes it" if run.config.get("command") == "eval" else ""
        notes.append(
            f"has no {CARD}: {there}hashes of prompt and weights, the server's version, price and seconds of the run "
            f"are not known{again}"
        )
    if not run.config:
        notes.append(
            f"has no {CONFIG}: it was not played by `timeloupe eval`, or copied in part; its flags are not known, "
            "nor where its annotations are"
        )
    return notes


def _of_vote(run: Recorded) -> list[str]:
    """Where the score of a run that voted stands."""
    if not run.votes:
        return []
    where = f"the vote's score is in {CARD} under 'voting'"
    if not run.card.get("voting"):
        where = "and there is no vote yet: timeloupe eval --resume holds it"
    return [f"votes with {run.votes} episodes per question: each counts by itself here, {where}"]


def read_beside(path: str | Path, other: Recorded, asked: Asked) -> Recorded:
    """Return a file of predictions as a run that answers the rows of another one."""
    path = Path(path)
    loaded = read_predictions(path, asked.benchmark, asked.rows)
    rows = {row.id: row for row in asked.rows}
    replies = {
        (id, 0): _reply_of_text(prediction, rows.get(id))
        for id, prediction in loaded.by_id.items()
        if prediction is not None
    }
    notes = [f"is a file of predictions ({loaded.layout}): nothing is known of how they were made"]
    if loaded.unknown:
        notes.append(f"has {len(loaded.unknown)} ids that the benchmark does not have: {loaded.unknown[0]!r}")
    return Recorded(
        str(path), loaded.layout, {key: one for key, one in replies.items() if key[0] in rows},
        config={"benchmark": other.benchmark_name}, notes=tuple(notes),
    )  # fmt: skip


def _reply_of_text(prediction: Any, row: Row | None) -> Reply:
    """A prediction of a file, read as the strict mode does."""
    if row is None:
        return Reply(None, 0, prediction)
    option = read_letter(prediction, row)[0] if row.options else None
    return Reply(
        None, 0, prediction, option=option, answered=() if option else read_windows(prediction, row)[0]
    )


def holds_trajectories(path: Path) -> bool:
    """Return whether a path is a run or a file of trajectories, not a file of predictions."""
    if not path.is_file():
        return True
    first = first_object(path)
    return first is None or {"schema_version", "example", "turns"} <= first.keys()


def asked_rows(run: Recorded, data: Path | None = None) -> Asked:
    """Return the rows that a run is scored on.

    They are those of the annotation file that the run names, as long as it is there and asks the same; else they are
    rebuilt from the questions as the episodes have them, and only the strict mode is left.

    Args:
        run: The run.
        data: Where the annotations are now; ``None`` = where the run says.

    Raises:
        ConfigError: ``data`` is given and holds none of the run's questions, or there is no such benchmark.
        TimeloupeError: ``data`` is given and cannot be read.
    """
    name = run.benchmark_name
    place = data or run.config.get("flags", {}).get("data")
    if name is None or place is None:
        return _of_examples(run, "the run names no annotations; give them by --data" if name else "")
    chosen = find_benchmark(name)
    try:
        rows = chosen.load(Path(place))
    except (TimeloupeError, OSError) as error:
        if data is not None:
            raise
        return _of_examples(run, f"the annotations cannot be read ({error}); name their place with --data")
    asked = tuple(rows[: run.config.get("questions", len(rows))])
    if run.questions_sha256 in (None, digest_rows(asked)):
        return Asked(chosen, asked, str(place), True)
    if data is None:
        return _of_examples(run, f"{place} asks something else than when the run was played")
    ids = {id for id, _ in run.replies}
    kept = tuple(row for row in rows if row.id in ids)
    if not kept:
        raise ConfigError(
            f"--data {str(data)!r} has no question of {run.name!r}, such as {next(iter(ids))!r}"
        )
    return Asked(chosen, kept, f"{data}, which asks something else than when the run was played", False)


def _of_examples(run: Recorded, why: str) -> Asked:
    """The rows as the episodes have them."""
    lengths = {id: one.duration_seconds for (id, _), one in run.replies.items()}
    rows = tuple(
        Row(
            id=id, video=one.video, question=one.question, task=one.task, options=one.options, answer=one.answer,
            windows=tuple((part.start_seconds, part.end_seconds) for part in one.segments),
            duration_seconds=lengths[id], groups={"task": one.task},
        )
        for id, one in run.examples.items()
    )  # fmt: skip
    name = run.benchmark_name or "recorded questions"
    source = "the questions as recorded in the episodes" + (f": {why}" if why else "")
    return Asked(Benchmark(name, name, "as recorded", "", _no_file, {}, score_by_task), rows, source, False)


def _no_file(path: Path) -> list[Row]:
    raise RecordError(f"recorded questions have no file, got {str(path)!r}")


def _of_file(path: Path) -> Recorded:
    if not holds_trajectories(path):
        raise ConfigError(
            f"{str(path)!r} is no run, got a file of predictions; it can be compared with a run "
            "(timeloupe diff RUN FILE) and scored with `timeloupe score`"
        )
    replies, spoken, of_training = _replies(read_trajectories(path))
    if not replies:
        raise MissingError(f"no episodes in {str(path)!r}: the file is empty")
    note = "is a file of trajectories: it has no card and no configuration, its episodes tell the rest"
    return Recorded(str(path), "JSONL of trajectories", replies, spoken=spoken, notes=(note, *of_training))


def _replies(episodes: Iterator[Trajectory]) -> tuple[dict[Key, Reply], dict[str, Any], tuple[str, ...]]:
    """The latest reply of every question and repeat, what the first episode says of how it was played, and notes.

    A training plays a question in several steps, with other weights: the last time counts, and a note says so.
    """
    found: dict[Key, Reply] = {}
    trained: set[RolloutKey] = set()
    spoken: dict[str, Any] = {}
    for episode in episodes:
        spoken = spoken or {
            "policy": episode.policy, "protocol": episode.protocol, "seed": episode.seed, "settings": episode.settings,
            "system": "".join(one.text for one in episode.prompt if one.role == "system"),
        }  # fmt: skip
        found[episode.example.id, episode.rollout_index] = reply_of(episode)
        if training_step(episode) is not None:
            trained.add(rollout_key(episode))
    if not trained:
        return found, spoken, ()
    note = (
        f"is a training: {len(found)} of its {len(trained)} roll-outs count here, those of the last step that played a "
        "question; `timeloupe view` and `timeloupe reward score` take all"
    )
    return found, spoken, (note,)
