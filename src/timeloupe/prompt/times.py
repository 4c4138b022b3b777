"""What an answer's text says about time, item by item: the first half of ``segments.py``.

A time is a plain number of seconds (``12``, ``12.5``), ``M:SS`` or ``H:MM:SS`` (decimals allowed), in the digits 0-9
only. Reading takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from timeloupe.trajectory import Problem

MAX_WHOLE_DIGITS = 12
MAX_DECIMALS = 20

Kind = Literal[
    "time", "join", "and", "separator", "open", "close", "start", "end", "filler", "free", "stray", "skip"
]
"""``filler`` = words and signs that add nothing, ``free`` = other words, ``stray`` = other signs and unread numbers,
``skip`` = the number that follows is no time."""

_TOKEN = re.compile(
    r"(?P<blank>[^\S\n]+)|(?P<line>\n)|(?P<number>[0-9.:]+)|(?P<word>[^\W\d_]+(?:_[^\W\d_]+)*)"
    r"|(?P<tag></?t>)|(?P<bold>\*\*)|(?P<dash>[-\u2010-\u2015\u2212~\u301c\uff5e])|(?P<open>[(\[{])|(?P<close>[)\]}])"
    r"|(?P<separator>[,;])|(?P<digit>\d)|(?P<angle>[<>])|(?P<quote>[\"'`\u2018\u2019\u201c\u201d])|(?P<other>.)"
)
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_CLOCK = re.compile(r"(?:([0-9]{1,4}):)?([0-9]{1,4}):([0-9]{2}(?:\.[0-9]+)?)")

_UNITS = frozenset({"s", "sec", "secs", "second", "seconds"})
_SHORT_OTHER_UNITS = frozenset({"ms", "m", "h", "f"})
_OTHER_UNITS = frozenset(
    {"min", "mins", "minute", "minutes", "hr", "hrs", "hour", "hours", "frame", "frames", "fps", "percent"}
    | {"msec", "millisecond", "milliseconds"}
)
_JOIN = frozenset({"to", "until", "till"})
_START = frozenset(
    {"start", "starts", "started", "starting", "begin", "begins", "began", "beginning"}
    | {"start_time", "starttime", "begin_time", "start_seconds"}
)
_END = frozenset(
    {"end", "ends", "ended", "ending", "finish", "finishes", "finished", "finishing"}
    | {"end_time", "endtime", "end_seconds"}
)
_NOT_FINITE = frozenset({"nan", "inf", "infinity"})
_FILLER = frozenset(
    {
        "the",
        "a",
        "an",
        "answer",
        "final",
        "is",
        "are",
        "it",
        "this",
        "that",
        "of",
        "in",
        "at",
        "on",
        "from",
        "between",
    }
    | {
        "about",
        "around",
        "approximately",
        "roughly",
        "event",
        "events",
        "moment",
        "moments",
        "segment",
        "segments",
    }
    | {"clip", "interval", "intervals", "span", "range", "time", "times", "timestamp", "timestamps", "video"}
    | {
        "happens",
        "happen",
        "occurs",
        "occur",
        "takes",
        "take",
        "place",
        "visible",
        "seen",
        "shown",
        "then",
        "also",
    }
)


@dataclass
class Item:
    """One thing the text says. ``clock`` and ``marked`` (a unit, tags or clock form) describe a time."""

    kind: Kind
    seconds: float = 0.0
    clock: bool = False
    marked: bool = False


class RefusedText(Exception):
    """Reading stops, with a problem."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(reason=reason, message=message)


def read_seconds(text: str) -> float | None:
    """Return the seconds of one plain or clock time such as ``12.5`` or ``1:05``; ``None`` if it is neither."""
    if _PLAIN.fullmatch(text):
        whole, _, decimals = text.partition(".")
        if len(whole) > MAX_WHOLE_DIGITS or len(decimals) > MAX_DECIMALS:
            return None
        return float(text)
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        return None
    hours, minutes, seconds = clock.groups()
    fits = hours is None or (len(minutes) == 2 and int(minutes) < 60)
    if not fits or len(seconds) > MAX_DECIMALS or float(seconds) >= 60:
        return None
    return 3600.0 * int(hours or 0) + 60.0 * int(minutes) + float(seconds)


def read_items(text: str, *, strict: bool) -> list[Item]:
    """Return what ``text`` says, in order.

    Args:
        text: The inside of an answer.
        strict: Refuse numbers that cannot be read; otherwise they become stray items, which join nothing.

    Raises:
        RefusedText: In strict mode only.
    """
    return _Reader(text, strict).items


class _Reader:
    """Turns tokens into items, left to right."""

    def __init__(self, text: str, strict: bool) -> None:
        self.strict = strict
        self.tokens = [(match.lastgroup or "other", match.group()) for match in _TOKEN.finditer(text)]
        self.items: list[Item] = []
        for at, (kind, token) in enumerate(self.tokens):
            self._read(kind, token, at)

    def _token(self, at: int) -> tuple[str, str]:
        return self.tokens[at] if 0 <= at < len(self.tokens) else ("line", "")

    def _last(self) -> Kind | None:
        return self.items[-1].kind if self.items else None

    def _add(self, kind: Kind) -> None:
        self.items.append(Item(kind))

    def _refuse(self, reason: str, message: str) -> None:
        if self.strict:
            raise RefusedText(reason, message)
        self._add("stray")

    def _read(self, kind: str, token: str, at: int) -> None:
        if kind == "number":
            self._number(token, at)
        elif kind == "word":
            self._word(token.lower(), at)
        elif kind == "dash":
            self._dash(at)
        elif kind in ("open", "close", "separator"):
            self.items.append(Item(kind))
        elif kind == "line" and self.items:
            self._add("separator")
        elif kind == "angle" and not self._wraps_number(token, at):
            self._add("stray")
        elif kind == "quote" and self._token(at - 1)[0] == "number" and self._token(at - 2)[1] != token:
            self._add("stray")  # feet, minutes or inches
        elif kind == "digit":
            self._refuse("number_malformed", f"{token!r} is not one of the digits 0-9")
        elif token == "\u221e":
            self._refuse("segment_not_finite", "a time must be finite, got an infinite one")
        elif kind == "other":
            self._add("filler" if token in "=*!?" else "stray")

    def _number(self, token: str, at: int) -> None:
        number = token.rstrip(".:").removeprefix(":")
        if not number.strip(".:"):
            if "." in token:
                self._add("filler")
            return
        before, after = self._token(at - 1), self._token(at + 1)
        seconds = read_seconds(number)
        known = _UNITS | _SHORT_OTHER_UNITS | _OTHER_UNITS | _JOIN
        glued = (
            (before[0] == "word" and before[1].lower() not in _JOIN)
            or (after[0] == "word" and after[1].lower() not in known)
            or "digit" in (before[0], after[0])
            or "_" in (before[1], after[1])
        )
        if self._last() == "skip":
            self.items.pop()
            self._refuse("segment_negative", f"a time must not be negative, got -{number[:40]}")
        elif seconds is None or glued:
            self._refuse("number_malformed", f"{_quote(token)} is not a time in seconds, M:SS or H:MM:SS")
        else:
            clock = ":" in number
            self.items.append(Item("time", seconds, clock, clock or before == ("tag", "<t>")))
        if token[-1] in ".:":
            self._add("filler")  # "10. 20" is one malformed number or two times

    def _word(self, word: str, at: int) -> None:
        before = self._token(at - 1)[0]
        after_time = self._last() == "time" and before in ("number", "blank", "tag")
        if word in _NOT_FINITE:
            self._refuse("segment_not_finite", f"a time must be finite, got {word}")
        elif word in _UNITS:
            if after_time:
                self.items[-1].marked = True
            else:
                self._add("filler")
        elif word in _OTHER_UNITS or (after_time and word in _SHORT_OTHER_UNITS):
            if after_time:
                self.items.pop()
            self._refuse("unit_unknown", f"times must be in seconds, M:SS or H:MM:SS, got {word}")
            if not after_time:
                self._add("skip")
        elif word in _JOIN:
            self._add("join")
        elif word == "and":
            self._add("and")
        elif word in _START:
            self._add("start")
        elif word in _END:
            self._add("end")
        else:
            self._add("filler" if word in _FILLER else "free")

    def _dash(self, at: int) -> None:
        """A dash joins after a time, is a sign before a number, opens an entry of a list, or belongs to prose."""
        if self._last() == "time":
            self._add("join")
            return
        before, after = self._token(at - 1), self._token(at + 1)
        if after[0] == "number":
            if before[0] == "word":
                self._add("stray")  # "scene-2"
            else:
                self._add("skip")
            return
        opens_line = before[0] == "line" or (before[0] == "blank" and self._token(at - 2)[0] == "line")
        if opens_line and after[0] == "blank":
            return
        following = self._token(at + 2) if after[0] == "blank" else after
        self._add("stray" if following[0] in ("number", "tag", "dash") else "filler")

    def _wraps_number(self, token: str, at: int) -> bool:
        """Whether an angle bracket is one of ``<12.5>`` or ``<12.5s>``."""
        step = 1 if token == "<" else -1
        near = [self._token(at + step * distance) for distance in (1, 2, 3)]
        if near[0][0] == "word" and near[0][1].lower() in _UNITS and step < 0:
            near.pop(0)
        elif near[1][0] == "word" and near[1][1].lower() in _UNITS and step > 0:
            near.pop(1)
        return near[0][0] == "number" and near[1] == ("angle", ">" if step > 0 else "<")


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
