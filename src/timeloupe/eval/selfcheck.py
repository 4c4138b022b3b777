"""All checks of a server, in the order in which they are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from timeloupe.eval.selfcheck_probe import Asked, Check
from timeloupe.eval.selfcheck_server import (
    check_grammar,
    check_logprobs,
    check_room,
    check_seed,
    check_stop,
    check_usage,
)
from timeloupe.eval.selfcheck_times import check_order, check_pictures, check_times, read


def selfcheck(asked: Asked, folder: Path) -> Iterator[Check]:
    """Yield the checks of a server, each as soon as it is known.

    Args:
        asked: The server, and how it is asked.
        folder: A video is written there.
    """
    yield check_usage(asked)
    yield check_logprobs(asked)
    reading = read(asked)
    of_input = [check_pictures(reading), *check_times(reading), check_order(reading)]
    yield from of_input
    clip, about = reading.clips["base"], reading.examples[0].question
    if of_input[0].finding == "pictures_refused":
        yield from (Check(name, "cannot tell", "no frames arrive") for name in ("stop string", "seed"))
    else:
        yield check_stop(asked, clip, about)
        yield check_seed(asked, clip)
    room = check_room(asked)
    yield from room
    grammar = check_grammar(asked, folder)
    if grammar.finding in ("grammar_broken", "grammar_slips") and any(
        one.verdict == "wrong" for one in (*of_input, *room)
    ):
        why = f"{grammar.seen}; that may follow from what is wrong above"
        grammar = Check("grammar", "cannot tell", why, do="Mend that first, then check again.")
    yield grammar


def lines_of(check: Check) -> list[str]:
    """Return a check in words for people: what was seen, what it means, what to do."""
    found = [f"{check.verdict:<12}{check.name:<13}{check.seen}"]
    found += [f"{'':<25}{text}" for text in (check.means, check.do) if text and check.verdict != "ok"]
    return found


def summary_of(checks: Sequence[Check]) -> str:
    """Return how many checks came to what, in one line."""
    counts = Counter(check.verdict for check in checks)
    parts = [f"{counts['ok']} ok", f"{counts['note']} noted", f"{counts['wrong']} wrong"]
    return f"{', '.join(parts)}, {counts['cannot tell']} cannot tell"
