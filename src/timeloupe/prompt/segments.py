"""Read time segments from an answer's text.

Strict mode reads what the text says and never guesses. A segment is two times joined in one of these ways:

- a dash (``-``, en, em, ``~``), ``to``, ``until``, ``till``: ``24.3-30.4``, ``00:24 - 00:30``, ``24.3s to 30.4s``
- brackets around exactly two: ``[24.3, 30.4]``, ``(24.3, 30.4)``, also nested: ``[[1, 2], [3, 4]]``
- a start and an end: ``{"start_time": 24.3, "end_time": 30.4}``, ``starts at 24.3 s and ends at 30.4 s``
- nothing but numbers, read in pairs: ``24.3, 30.4`` or ``10 and 20``

A time is a plain number of seconds with or without a unit, ``M:SS`` or ``H:MM:SS``, bare or inside ``<t>...</t>`` or
``<...>``. Other words may stand around a segment that is plainly one of time (unit, clock form, brackets, tags, start
and end); around a bare ``10-20`` only words that speak of a moment may. Every number of the text must belong to a
segment. A dash never makes a number negative where it can join two times.

Tolerant mode is looser in four ways, and still invents nothing:

1. where some times are plainly joined, all other numbers and words are ignored;
2. where none are, all readable times are taken in pairs, a last odd one is left out;
3. reversed segments are turned round, empty ones left out;
4. numbers that cannot be read, are negative, or count another unit are skipped.

Reasons of problems: ``segments_missing`` (no time), ``segments_too_long`` (over 10,000 characters), ``numbers_odd``,
``number_malformed``, ``segments_ambiguous``, ``brackets_unbalanced``, ``unit_unknown``, ``segment_negative``,
``segment_empty`` (end <= start), ``segment_not_finite``.

Reading takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from timeloupe.errors import boundary
from timeloupe.prompt.times import Item, Kind, RefusedText, read_items
from timeloupe.trajectory import Problem, Segment

MAX_CHARACTERS = 10_000

_TAGGED = re.compile(r"<t>([0-9.:]{1,32})</t>s? to <t>([0-9.:]{1,32})</t>")


def parse_segments(
    text: str, mode: Literal["strict", "tolerant"] = "strict"
) -> tuple[Segment, ...] | Problem:
    """Return the time segments that ``text`` names, in the order of the text, or why there are none to be had.

    Args:
        text: The inside of an answer, without its tags.
        mode: ``strict`` refuses whatever could be read in two ways; ``tolerant`` as the module says.

    Returns:
        At least one segment, in seconds, each with ``0 <= start < end``; or a ``Problem``.

    Raises:
        ConfigError: ``mode`` is neither.
    """
    if mode not in ("strict", "tolerant"):
        raise boundary("mode of parse_segments", mode, ("strict", "tolerant"))
    if len(text) > MAX_CHARACTERS:
        message = f"an answer of {len(text)} characters is not read, at most {MAX_CHARACTERS} are"
        return Problem(reason="segments_too_long", message=message)
    try:
        items = read_items(text, strict=mode == "strict")
        pairs = _strict_pairs(items) if mode == "strict" else _tolerant_pairs(items)
    except RefusedText as refused:
        return refused.problem
    return tuple(Segment(start_seconds=start, end_seconds=end) for start, end in pairs)


def parse_tagged_segments(text: str) -> tuple[Segment, ...]:
    """Return the segments written ``<t>1</t>s to <t>2</t>s``, or none if one of them cannot be read.

    The rest of the text is not looked at: this is for answers that name an option as well.
    """
    spans = _TAGGED.findall(text[:MAX_CHARACTERS])
    found = parse_segments("\n".join(f"{start}s to {end}s" for start, end in spans))
    return () if isinstance(found, Problem) else found


@dataclass
class _Found:
    """A segment and the items it was read from. ``marked``: it is plainly one of time."""

    start: float
    end: float
    first: int
    last: int
    marked: bool


def _explicit(items: list[Item]) -> list[_Found]:
    """Return the segments that are plainly joined, left to right, no two sharing an item."""
    found: list[_Found] = []
    at = 0
    while at < len(items):
        hit = next((hit for read in _READERS if (hit := read(items, at)) is not None), None)
        if hit is None:
            at += 1
        else:
            found.append(hit)
            at = hit.last + 1
    return found


def _kind(items: list[Item], at: int) -> Kind | None:
    return items[at].kind if 0 <= at < len(items) else None


def _joined(items: list[Item], at: int) -> _Found | None:
    """``T join T``, on its own: not part of a chain ``T join T join T``."""
    if _kind(items, at) != "time" or _kind(items, at + 1) != "join":
        return None
    right = at + 2
    if _kind(items, right) != "time" or "join" in (_kind(items, at - 1), _kind(items, right + 1)):
        return None
    one, two = items[at], items[right]
    if one.clock != two.clock:
        return None
    inside = _kind(items, at - 1) == "open" and _kind(items, right + 1) == "close"
    return _Found(one.seconds, two.seconds, at, right, one.marked or two.marked or inside)


def _bracketed(items: list[Item], at: int) -> _Found | None:
    """``( T , T )``"""
    if _kind(items, at) != "open" or _kind(items, at + 1) != "time":
        return None
    right = at + 3 if _kind(items, at + 2) in ("separator", "and") else at + 2
    if _kind(items, right) != "time" or _kind(items, right + 1) != "close":
        return None
    one, two = items[at + 1], items[right]
    return _Found(one.seconds, two.seconds, at + 1, right, True) if one.clock == two.clock else None


def _keyed(items: list[Item], at: int) -> _Found | None:
    """``start ... T ... end ... T``, or the end first; only what adds nothing may stand between."""
    first = _kind(items, at)
    if first not in ("start", "end"):
        return None
    left = _skip(items, at + 1, ("filler",))
    second = _skip(items, left + 1, ("filler", "separator", "and"))
    right = _skip(items, second + 1, ("filler",))
    if _kind(items, left) != "time" or _kind(items, right) != "time" or _kind(items, right + 1) == "join":
        return None
    if _kind(items, second) not in ("start", "end") or _kind(items, second) == first:
        return None
    one, two = items[left], items[right]
    if one.clock != two.clock:
        return None
    start, end = (one, two) if first == "start" else (two, one)
    return _Found(start.seconds, end.seconds, at, right, True)


_READERS: tuple[Callable[[list[Item], int], _Found | None], ...] = (_keyed, _bracketed, _joined)


def _skip(items: list[Item], at: int, kinds: tuple[Kind, ...]) -> int:
    """Return the first place from ``at`` on that is none of ``kinds``, looking at most 8 places ahead."""
    last = at + 8
    while at < last and _kind(items, at) in kinds:
        at += 1
    return at


def _strict_pairs(items: list[Item]) -> list[tuple[float, float]]:
    times = [item for item in items if item.kind == "time"]
    if not times:
        raise RefusedText("segments_missing", "the text names no time")
    _check_brackets(items)
    found = _explicit(items)
    if found:
        _check_rest(items, found, len(times))
        pairs = [(hit.start, hit.end) for hit in found]
    else:
        pairs = _flat_pairs(items, times)
    for start, end in pairs:
        if start >= end:
            raise RefusedText(
                "segment_empty", f"a segment must end after it begins, got {start:g} to {end:g}"
            )
    return pairs


def _check_brackets(items: list[Item]) -> None:
    depth = 0
    for item in items:
        depth += {"open": 1, "close": -1}.get(item.kind, 0)
        if depth < 0:
            break
    if depth:
        raise RefusedText(
            "brackets_unbalanced", "a bracket is opened and not closed, or closed and not opened"
        )


def _check_rest(items: list[Item], found: list[_Found], num_times: int) -> None:
    """Refuse a text that says more than its segments."""
    used = {index for hit in found for index in range(hit.first, hit.last + 1)}
    rest = [(index, item) for index, item in enumerate(items) if index not in used]
    prose = any(item.kind in ("free", "stray") for _, item in rest)
    if any(item.kind == "time" for _, item in rest):
        reason = "numbers_odd" if num_times % 2 and not prose else "segments_ambiguous"
        raise RefusedText(reason, f"of {num_times} times only {2 * len(found)} are joined to segments")
    for index, item in rest:
        beside = "time" in (_kind(items, index - 1), _kind(items, index + 1))
        if item.kind in ("join", "stray") and beside:
            raise RefusedText("segments_ambiguous", "a sign stands beside a time and joins it to nothing")
    if prose and not all(hit.marked for hit in found):
        raise RefusedText("segments_ambiguous", "the numbers stand among words and need not be times")


def _flat_pairs(items: list[Item], times: list[Item]) -> list[tuple[float, float]]:
    """Pairs of a text that is nothing but times, separators, and words of a moment around them."""
    kinds = [item.kind for item in items]
    first, last = kinds.index("time"), len(kinds) - 1 - kinds[::-1].index("time")
    between = set(kinds[first:last]) - {"time", "separator", "and", "open", "close"}
    prose = set(kinds) & {"free", "stray", "start", "end", "join"}
    if len(times) % 2 and not prose and not between:
        raise RefusedText("numbers_odd", f"segments need an even number of times, got {len(times)}")
    if between or prose or len({item.clock for item in times}) > 1:
        raise RefusedText("segments_ambiguous", f"nothing joins the {len(times)} times to segments")
    return _by_two(times)


def _tolerant_pairs(items: list[Item]) -> list[tuple[float, float]]:
    found = [(hit.start, hit.end) for hit in _explicit(items)]
    pairs = found or _by_two([item for item in items if item.kind == "time"])
    pairs = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]
    if not pairs:
        raise RefusedText("segments_missing", "the text names no segment")
    return pairs


def _by_two(times: list[Item]) -> list[tuple[float, float]]:
    return [(one.seconds, two.seconds) for one, two in zip(times[::2], times[1::2], strict=False)]
