"""What ``timeloupe eval`` shows and heeds while it plays: progress, and Ctrl-C in two stages."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from timeloupe.eval.questions import Questions
    from timeloupe.eval.runner import Tally
    from timeloupe.trajectory import Trajectory


@contextmanager
def two_stages(stop: threading.Event, console: Console, what: str = "episodes") -> Iterator[None]:
    """Take the first Ctrl-C as a wish to stop when ``what`` is under way has ended; the second one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupted(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        console.print(f"stopping when the {what} under way have ended; Ctrl-C again: at once")

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Progress:
    """Says how far a run is: a line that stays on a terminal, one now and then elsewhere.

    Args:
        questions: What is asked.
        wanted: Episodes to be played.
        console: Where to.
    """

    def __init__(self, questions: Questions, wanted: int, console: Console) -> None:
        from timeloupe.eval.runner import Clock

        self.questions, self.wanted, self.console = questions, wanted, console
        self.clock = Clock()
        self.total, self.num_scored = 0.0, 0
        self.lost = 0
        self.told = time.perf_counter()
        self.rows = {row.id: row for row in questions.rows}
        self.status = console.status("playing") if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        if self.status is not None:
            self.status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is not None:
            self.status.stop()

    def __call__(self, trajectory: Trajectory, tally: Tally) -> None:
        from timeloupe.trajectory import StopReason

        if trajectory.stop is StopReason.INFRASTRUCTURE:
            self.lost += 1
        else:
            row = self.rows[trajectory.example.id]
            text = trajectory.turns[-1].generation.text if trajectory.answer is not None else ""
            values = self.questions.benchmark.strict([row], {row.id: text}).values
            scored = [value for value in values.values() if value is not None]
            self.total, self.num_scored = self.total + sum(scored), self.num_scored + len(scored)
        words = f"{tally.written} of {self.wanted}  {self.clock.words(tally.written, self.wanted)}"
        if self.num_scored:
            words += f"  strict score so far {self.total / self.num_scored:.3f}"
        words += f"  lost {self.lost}" if self.lost else ""
        words += f"  put back {tally.retried}" if tally.retried else ""
        if self.status is not None:
            self.status.update(words)
        elif time.perf_counter() - self.told > 15 or tally.written == self.wanted:
            self.told = time.perf_counter()
            self.console.print(words)
