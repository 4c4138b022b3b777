"""What Open-o3 Video's release reads from a reply: blocks, times, boxes, and claims that may run into each other.

Every function finds what the release's regular expression finds (marinero4972/Open-o3-Video@1eb6ecae,
``src/r1-v/src/open_r1/reward_func.py`` and ``eval/tts.py``), in time linear in the length of the text; several of those
expressions take quadratic, that for claims exponential time. The project's own reading of claims is
``prompt.evidence``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from timeloupe.grounding import Corners

_TIME = re.compile(r"<t>([\d.]+)</t>s")
_ANY_TIME = re.compile(r"<t>([^<>]*)</t>")
_SPAN = re.compile(r"<t>(\d+(?:\.\d*)?)</t>s to <t>(\d+(?:\.\d*)?)</t>s")
_OBJECT_AND_BOX = re.compile(r"<obj>\w+</obj><box>\[")


@dataclass(frozen=True)
class ReleaseClaim:
    """An object, its boxes as the JSON lists they are written as, whatever is in them, and its time in seconds."""

    label: str
    boxes: tuple[list[Any], ...]
    at_seconds: float


def block(text: str, tag: str) -> str | None:
    """Return the inside of the first ``<tag>...</tag>``, or ``None``."""
    opened = text.find(f"<{tag}>")
    start = opened + len(tag) + 2
    end = text.find(f"</{tag}>", start) if opened >= 0 else -1
    return text[start:end] if end >= 0 else None


def answer_text(text: str) -> str:
    """Return the inside of the first answer block without blanks around it; "" if there is none."""
    return (block(text, "answer") or "").strip()


def marked_times(text: str) -> Iterator[str]:
    """Yield what stands in each ``<t>...</t>``, whatever it is, without blanks around it."""
    return (found.group(1).strip() for found in _ANY_TIME.finditer(text))


def thought_times(thought: str) -> list[float]:
    """Return the times ``<t>9.2</t>s`` of a thought; none at all if one of them is not a number."""
    try:
        return [float(time) for time in _TIME.findall(thought)]
    except ValueError:
        return []


def answered_span(answer: str) -> tuple[float, float] | None:
    """Return the first ``<t>1.0</t>s to <t>2.0</t>s``; ``None`` if there is none or it is reversed."""
    found = _SPAN.search(answer)
    if found is None:
        return None
    start, end = float(found.group(1)), float(found.group(2))
    return None if end < start else (start, end)


def marked_boxes(text: str) -> Iterator[str]:
    """Yield the lists in ``<box>[...]</box>`` as written, brackets included; none reaches over the end of a line."""
    for line in text.split("\n"):
        at = line.find("<box>[")
        while at >= 0:
            end = line.find("]</box>", at + len("<box>["))
            if end < 0:
                break
            yield line[at + len("<box>") : end + 1]
            at = line.find("<box>[", end + len("]</box>"))


def names_a_box(text: str) -> bool:
    """Return whether an object of one word stands right before a box, on one line."""
    for line in text.split("\n"):
        found = _OBJECT_AND_BOX.search(line)
        if found is not None and line.find("]</box>", found.end()) >= 0:
            return True
    return False


def read_list(text: str) -> list[Any] | None:
    """Return the JSON list that a text is, or ``None``; NaN and Infinity are numbers."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def box_numbers(box: object) -> Corners | None:
    """Return the four numbers of a box, which may be written as strings; ``None`` if it is not a list of four."""
    if not isinstance(box, list) or len(box) != 4:
        return None
    try:
        x1, y1, x2, y2 = (float(value) for value in box)
    except (ValueError, TypeError, OverflowError):
        return None
    return (x1, y1, x2, y2)


def raw_claims(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield (object, boxes, time) of each claim as the release's pattern cuts them.

    The pattern is an object, right after it a box list, anything, a box list's end right before ``at<t>``, and the time
    up to the next ``</t>s``. So an object without a box swallows the next object, and a box without a time all that
    comes before the next time.
    """
    at = 0
    while True:
        opened = text.find("<obj>", at)
        named = text.find("</obj><box>[", opened + len("<obj>")) if opened >= 0 else -1
        boxes = text.find("]</box>at<t>", named + len("</obj><box>[")) if named >= 0 else -1
        time = boxes + len("]</box>at<t>")
        end = text.find("</t>s", time) if boxes >= 0 else -1
        if end < 0:  # no later object can do better: each of these searches only moves on
            return
        yield (
            text[opened + len("<obj>") : named],
            text[named + len("</obj>") : time - len("at<t>")],
            text[time:end],
        )
        at = end + len("</t>s")


def release_claims(thought: str) -> list[ReleaseClaim]:
    """Return the claims of a thought; those whose time is no number, or one of whose boxes is no JSON, are left out."""
    claims: list[ReleaseClaim] = []
    for label, written, time in raw_claims(thought):
        boxes = [read_list(inside) for inside in _bracketed(written)]
        known = tuple(box for box in boxes if box is not None)
        try:
            at_seconds = float(time.strip())
        except ValueError:
            continue
        if len(known) == len(boxes):
            claims.append(ReleaseClaim(label.strip(), known, at_seconds))
    return claims


def _bracketed(text: str) -> Iterator[str]:
    """Yield each ``[...]`` up to the first closing bracket on its line."""
    for line in text.split("\n"):
        at = line.find("[")
        while at >= 0:
            end = line.find("]", at)
            if end < 0:
                break
            yield line[at : end + 1]
            at = line.find("[", end)
