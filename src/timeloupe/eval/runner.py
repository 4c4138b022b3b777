"""Plays the episodes of a benchmark: each is in the run exactly once, whatever fails on the way.

A model in this process plays lockstep batches in one thread; a served one plays episodes in threads, one each, so that
none waits for another. What an episode gets does not depend on that: its seeds derive from its own id.

Machine's faults (a dead server, a stalled one, an answer that is no JSON) are played again after all others, in rounds,
later and later, and no round begins while a server that answered before is away, within patience. What still fails is
written down as an episode without a score. A video that cannot be read is not played again: it will not get better.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from timeloupe.errors import boundary
from timeloupe.eval.threads import in_threads
from timeloupe.runs import RunFolder
from timeloupe.trajectory import Example, StopReason, Trajectory

Job = tuple[Example, int]
"""An example, and which of its repeats."""

PlayBatch = Callable[[Sequence[Job]], list[Trajectory]]

MAX_WAIT_SECONDS = 60.0
MAX_PROBE_SECONDS = 30.0


@dataclass(frozen=True)
class Pace:
    """How episodes are played.

    Attributes:
        threads: Batches under way at once, >= 1.
        batch: Episodes of a batch, >= 1.
        retries: Further rounds for episodes that a machine's fault ended, >= 0.
        wait_seconds: Before the first of them; each further wait is twice as long, up to ``MAX_WAIT_SECONDS``.
        patience_seconds: Longest further wait before each of them, for a server that answered before and is away.
    """

    threads: int = 1
    batch: int = 1
    retries: int = 3
    wait_seconds: float = 2.0
    patience_seconds: float = 0.0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("threads", self.threads, 1), ("batch", self.batch, 1), ("retries", self.retries, 0),
            ("wait_seconds", self.wait_seconds, 0), ("patience_seconds", self.patience_seconds, 0),
        ):  # fmt: skip
            if value < least:
                raise boundary(f"{name} of the runner", value, f">= {least}")


@dataclass
class Tally:
    """What has come of the episodes so far.

    Attributes:
        wanted: Episodes that were asked for.
        written: Episodes that this call wrote to the run.
        stops: Of those, how many ended for each reason.
        retried: Times that an episode was put back to be played again.
    """

    wanted: int
    written: int = 0
    stops: Counter[StopReason] = field(default_factory=Counter)
    retried: int = 0

    @property
    def left(self) -> int:
        """Episodes that are not in the run: the call was stopped."""
        return self.wanted - self.written


class Server(Protocol):
    """A server that may go away.

    Attributes:
        answered: Whether it has answered anything in this process.
    """

    answered: bool

    def is_there(self) -> bool:
        """Return whether it answers now."""
        ...


OnPlayed = Callable[[Trajectory, Tally], None]
"""Called with every episode that was written."""


def run_episodes(
    jobs: Sequence[Job],
    run: RunFolder,
    play_batch: PlayBatch,
    pace: Pace,
    *,
    stop: threading.Event | None = None,
    on_played: OnPlayed | None = None,
    server: Server | None = None,
    on_away: Callable[[], None] | None = None,
) -> Tally:
    """Play jobs and append their episodes to a run, in the order in which they end.

    Args:
        jobs: What to play; none twice, and none that the run holds already.
        run: Where the episodes go.
        play_batch: Plays some jobs and returns their episodes in order; called from ``pace.threads`` threads.
        pace: How.
        stop: Once it is set no further batch begins; those under way are waited for.
        on_played: Called in this thread.
        server: Who is waited for where it has answered and is away; ``None`` = nobody.
        on_away: Called when a round begins to wait for the server.

    Returns:
        What came of them; ``left`` > 0 if ``stop`` was set.

    Raises:
        ConfigError: As ``play_batch`` raises it, after what has ended by then is written; batches under way are left to
            themselves.
    """
    stop = stop or threading.Event()
    tally = Tally(len(jobs))
    pending = list(jobs)
    for round_number in range(pace.retries + 1):
        if round_number and pending:
            stop.wait(min(pace.wait_seconds * 2 ** (round_number - 1), MAX_WAIT_SECONDS))
            if server is not None and server.answered:  # a wrong address will not get better
                _await_server(server, pace, stop, on_away)
        again: list[Job] = []
        batches = [pending[at : at + pace.batch] for at in range(0, len(pending), pace.batch)]
        for job, trajectory in in_threads(batches, play_batch, pace.threads, stop):
            if round_number < pace.retries and worth_retrying(trajectory):
                again.append(job)
                tally.retried += 1
                continue
            run.append(trajectory)
            tally.written += 1
            tally.stops[trajectory.stop] += 1
            if on_played is not None:
                on_played(trajectory, tally)
        pending = again
        if stop.is_set() or not pending:
            break
    return tally


def _await_server(
    server: Server, pace: Pace, stop: threading.Event, on_away: Callable[[], None] | None
) -> None:
    """Return once the server is there, or patience has ended."""
    end = time.monotonic() + pace.patience_seconds
    pause = pace.wait_seconds
    while not stop.is_set() and time.monotonic() < end and not server.is_there():
        if on_away is not None:
            on_away()
            on_away = None
        stop.wait(max(0.0, min(pause, end - time.monotonic())))
        pause = min(2 * pause, MAX_PROBE_SECONDS)


def worth_retrying(trajectory: Trajectory) -> bool:
    """Whether a machine's fault ended the episode, of a kind that may be gone when it is played again."""
    problem = trajectory.problem
    return trajectory.stop is StopReason.INFRASTRUCTURE and (problem is None or problem.reason != "video")


@dataclass
class Clock:
    """How long a run has taken and how long it will.

    Attributes:
        began: ``time.perf_counter()`` at its start.
    """

    began: float = field(default_factory=time.perf_counter)

    def words(self, done: int, wanted: int) -> str:
        """Return ``12.3/min, 4 min left`` for ``done`` of ``wanted`` episodes; empty before the first."""
        elapsed = time.perf_counter() - self.began
        if not done or elapsed <= 0:
            return ""
        left = (wanted - done) * elapsed / done
        unit = (
            f"{left:.0f} s"
            if left < 90
            else f"{left / 60:.0f} min"
            if left < 5400
            else f"{left / 3600:.1f} h"
        )
        return f"{60 * done / elapsed:.1f}/min, {unit} left"
