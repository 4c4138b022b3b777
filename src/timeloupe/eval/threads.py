"""Batches of jobs worked on in threads, their results as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def in_threads(
    batches: Sequence[Sequence[JobT]],
    work: Callable[[Sequence[JobT]], Sequence[ResultT]],
    num_threads: int,
    stop: threading.Event,
) -> Iterator[tuple[JobT, ResultT]]:
    """Yield every job with its result as the batches end.

    Args:
        batches: Begun in this order.
        work: Returns one result per job of a batch, in order; called from ``num_threads`` threads, or from this one if
            that is 1.
        num_threads: Batches under way at once, >= 1.
        stop: Once it is set no further batch begins; those under way are waited for.

    Raises:
        Exception: As ``work`` raises it. What other threads have finished by then is yielded first: it was paid for.
            Batches under way are left to themselves.
    """
    if num_threads == 1:
        for batch in batches:
            if stop.is_set():
                return
            yield from zip(batch, work(batch), strict=True)
        return
    waiting: queue.SimpleQueue[Sequence[JobT]] = queue.SimpleQueue()
    for batch in batches:
        waiting.put(batch)
    ended: queue.SimpleQueue[tuple[Sequence[JobT], Sequence[ResultT] | BaseException] | None] = (
        queue.SimpleQueue()
    )
    given_up = threading.Event()

    def take_batches() -> None:
        while not (stop.is_set() or given_up.is_set()):
            try:
                batch = waiting.get_nowait()
            except queue.Empty:
                break
            try:
                ended.put((batch, work(batch)))
            except BaseException as error:  # it is raised in the thread that asked
                ended.put((batch, error))
                break
        ended.put(None)

    running = min(num_threads, len(batches))
    for number in range(running):
        # A daemon: an interrupted program must not wait for a server that never answers.
        threading.Thread(target=take_batches, name=f"batches-{number}", daemon=True).start()
    failed: BaseException | None = None
    try:
        while running and failed is None:
            found = ended.get()
            if found is None:
                running -= 1
            elif isinstance(found[1], BaseException):
                failed = found[1]
            else:
                yield from zip(found[0], found[1], strict=True)
    finally:
        given_up.set()
    if failed is not None:
        yield from _finished(ended)
        raise failed


def _finished(
    ended: queue.SimpleQueue[tuple[Sequence[JobT], Sequence[ResultT] | BaseException] | None],
) -> Iterator[tuple[JobT, ResultT]]:
    """Yield what lies in the queue already."""
    while True:
        try:
            found = ended.get_nowait()
        except queue.Empty:
            return
        if found is not None and not isinstance(found[1], BaseException):
            yield from zip(found[0], found[1], strict=True)
