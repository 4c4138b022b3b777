"""The stages of a build through Ray Data: actors that hold a labeller each, work sharded by video.

It stands in for ``data.build.build.threads``: the same plans, seeds and rows, so one build may begin in threads and go
on here. Rows come back, shard by shard, as the text that the ledger holds; only this process writes the folder. Every
machine of a cluster must see the videos, and the checkpoint of a local model, under the same paths.

Ray 2.60.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from timeloupe.data.build.build import WorkThrough, threads
from timeloupe.data.build.labelling import Labeller
from timeloupe.data.build.record import BuiltRow
from timeloupe.errors import ConfigError, MissingError, PolicyError, RecordError, TimeloupeError
from timeloupe.trajectory import Example, to_line

PIP_LINE = "pip install 'timeloupe[ray]'"
LOOK_SECONDS = 0.2
"""How often it is looked whether somebody has stopped the build."""


@dataclass(frozen=True)
class Actors:
    """How a build is spread.

    Attributes:
        number: Actors, each with a labeller of its own, >= 1.
        threads: Batches under way at once in each of them, >= 1.
        gpus: Of one actor; may be a part of one.
    """

    number: int = 2
    threads: int = 1
    gpus: float = 0.0


def ray_actors(make: Callable[[], Labeller], actors: Actors) -> WorkThrough:
    """Return what works through batches in Ray's actors.

    Args:
        make: Makes the labeller of an actor. It is called there, so what it holds must be able to travel.
        actors: How many, and what each may have.

    Raises:
        MissingError: Ray Data is not installed.
        ConfigError: The cluster, or this machine where there is none, has fewer CPUs or GPUs than the actors need.
    """
    _start(actors)

    def work_through(
        stage: str, part: Any, batches: Sequence[Sequence[Example]], stop: threading.Event
    ) -> Iterator[BuiltRow]:
        import ray.data

        flag = _flag()
        shards = [{"shard": "\n".join(map(to_line, one))} for one in shards_of(batches, actors.threads)]
        size = max(map(len, batches))
        told = threading.Event()
        watcher = threading.Thread(target=_tell, args=(stop, told, flag), daemon=True)
        watcher.start()
        try:
            made = ray.data.from_items(shards, override_num_blocks=len(shards)).map_batches(
                _Actor, fn_constructor_args=(make, stage, part, size, actors.threads, flag), batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=actors.number, max_tasks_in_flight_per_actor=1),
                num_cpus=1, num_gpus=actors.gpus,
            )  # fmt: skip
            for row in made.iter_rows():
                if row["error"]:
                    raise _error(row["error"], row["row"])
                if row["row"]:
                    yield BuiltRow.model_validate_json(row["row"])
        finally:
            told.set()
            ray.kill(flag)

    return work_through


def shards_of(batches: Sequence[Sequence[Example]], several: int) -> list[list[Example]]:
    """Return the items of batches sharded by video, so that each video is decoded by one actor.

    A shard has the items of as many videos as give it ``several`` batches, in the order in which the videos come.
    """
    videos: dict[str, list[Example]] = {}
    for batch in batches:
        for example in batch:
            videos.setdefault(example.video, []).append(example)
    least = several * max(map(len, batches))
    shards: list[list[Example]] = [[]]
    for items in videos.values():
        if len(shards[-1]) >= least:
            shards.append([])
        shards[-1] += items
    return shards


class _Actor:
    """Works through shards; Ray makes one in each of its processes."""

    def __init__(
        self, make: Callable[[], Labeller], stage: str, part: Any, size: int, number: int, flag: Any
    ) -> None:
        self.make, self.stage, self.part, self.size, self.number = make, stage, part, size, number
        self.stop = _FarStop(flag)
        self.labeller: Labeller | None = None

    def __call__(self, block: dict[str, Any]) -> dict[str, list[str]]:
        rows: list[str] = []
        try:
            # Made here and not above: an error there comes out as the death of an actor, which is tried again for ever.
            self.labeller = self.labeller or self.make()
            work = threads(self.labeller, self.number)
            for shard in block["shard"]:
                items = [Example.model_validate_json(line) for line in str(shard).split("\n")]
                batches = [items[at : at + self.size] for at in range(0, len(items), self.size)]
                rows += map(to_line, work(self.stage, self.part, batches, self.stop))
        except TimeloupeError as error:
            # As a value: raised, it would come out as an error of Ray's with a trace of its machinery.
            return {
                "row": [*rows, str(error)],
                "error": [""] * len(rows) + [type(error).__name__],
            }
        # A shard that was stopped before it began has no rows, and a column of nothing has no type: so never empty.
        return {"row": [*rows, ""], "error": [""] * (len(rows) + 1)}


class _FarStop(threading.Event):
    """Asks the flag whether the build was stopped."""

    def __init__(self, flag: Any) -> None:
        super().__init__()
        self._far = flag  # `_flag` is the event's own

    def is_set(self) -> bool:
        import ray

        return super().is_set() or bool(ray.get(self._far.is_set.remote()))


def _error(name: str, message: str) -> TimeloupeError:
    """Return an error of ours that an actor met; one with more than a message comes as the base of all."""
    kind = {one.__name__: one for one in (ConfigError, MissingError, PolicyError, RecordError)}.get(name)
    return (kind or TimeloupeError)(message)


def _flag() -> Any:
    """Return an actor that says whether the build was stopped: nothing else reaches work that has begun."""
    import ray

    class Flag:
        def __init__(self) -> None:
            self.up = False

        def set(self) -> None:
            self.up = True

        def is_set(self) -> bool:
            return self.up

    actor: Any = ray.remote(num_cpus=0)(Flag)
    return actor.remote()


def _tell(stop: threading.Event, told: threading.Event, flag: Any) -> None:
    """Set the flag when the build is stopped."""
    while not told.wait(LOOK_SECONDS):
        if stop.is_set():
            flag.set.remote()
            return


def _start(actors: Actors) -> None:
    """Join the cluster that ``RAY_ADDRESS`` names, or start Ray on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers about the cluster
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingError(
            f"--engine ray needs Ray Data, which is not installed ({error}); {PIP_LINE}"
        ) from error
    if not ray.is_initialized():
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
        )
    logging.getLogger("ray.data").setLevel(
        logging.ERROR
    )  # a page for each stage; how far it is we say ourselves
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    there = ray.cluster_resources()
    for what, needed, flag in (
        ("CPU", actors.number, "--actors"),
        ("GPU", actors.gpus * actors.number, "--actor-gpus"),
    ):
        if needed > there.get(what, 0):
            raise ConfigError(
                f"{actors.number} actors need {needed:g} {what}s, got {there.get(what, 0):g}, allowed: no more than "
                f"the cluster has, lower {flag}"
            )
