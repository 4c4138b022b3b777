"""Read the evidence that a reply marks in Open-o3 Video's form: an object, where it is, and when.

``<obj>red kettle</obj><box>[120, 80, 310, 402]</box>at<t>7.5</t>s``

A claim ends where its own tags end: one without a box or without a time does not swallow the next one (the release's
pattern does). Reading takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from timeloupe.prompt.times import read_seconds
from timeloupe.trajectory import Box

Corners = tuple[float, float, float, float]

_CLAIM = re.compile(
    r"<obj>([^<>]{1,200})</obj>((?:\s{0,4}<box>\[[0-9., ]{1,100}\]</box>){1,16})"
    r"(?:\s{0,4}at\s{0,4}<t>([0-9.:]{1,32})</t>)?"
)
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,20})?")


@dataclass(frozen=True)
class Claim:
    """One object that a reply says it saw.

    Attributes:
        label: The object's name as written.
        boxes: At least one (x1, y1, x2, y2), as written: in whatever coordinates the model uses, ordered or not.
        at_seconds: When; ``None`` if the claim gives no readable time.
    """

    label: str
    boxes: tuple[Corners, ...]
    at_seconds: float | None


def parse_claims(text: str) -> tuple[Claim, ...]:
    """Return the claims of a text in order; boxes without four numbers are left out, and claims without a box."""
    claims: list[Claim] = []
    for match in _CLAIM.finditer(text):
        label, written, time = match.groups()
        boxes = [
            box for inside in re.findall(r"\[([^\]]*)\]", written) if (box := _read_box(inside)) is not None
        ]
        if boxes:
            claims.append(Claim(label.strip(), tuple(boxes), read_seconds(time) if time else None))
    return tuple(claims)


def boxes_of(claims: Sequence[Claim], frame_wh: tuple[float, float]) -> tuple[Box, ...]:
    """Return the boxes of claims in fractions of the frame.

    Left out are claims without a time, and boxes that are reversed, empty, or reach out of the frame.

    Args:
        claims: What was read.
        frame_wh: Width and height of the frame in the model's coordinates, both > 0: (1000, 1000) for thousandths.
    """
    width, height = frame_wh
    boxes: list[Box] = []
    for claim in claims:
        for x1, y1, x2, y2 in claim.boxes:
            if claim.at_seconds is not None and x1 < x2 <= width and y1 < y2 <= height:
                boxes.append(
                    Box(
                        at_seconds=claim.at_seconds, label=claim.label,
                        x1=x1 / width, y1=y1 / height, x2=x2 / width, y2=y2 / height,
                    )
                )  # fmt: skip
    return tuple(boxes)


def _read_box(inside: str) -> Corners | None:
    numbers = [number.strip() for number in inside.split(",")]
    if len(numbers) != 4 or not all(_NUMBER.fullmatch(number) for number in numbers):
        return None
    x1, y1, x2, y2 = (float(number) for number in numbers)
    return (x1, y1, x2, y2)
