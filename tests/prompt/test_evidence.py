"""Evidence claims in Open-o3's form."""

from __future__ import annotations

import pytest

from timeloupe.prompt.evidence import Claim, boxes_of, parse_claims
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Box

KETTLE = "<obj>red kettle</obj><box>[120, 80, 310, 402]</box>at<t>7.5</t>s"


def test_a_claim() -> None:
    assert parse_claims(f"The {KETTLE} boils.") == (Claim("red kettle", ((120.0, 80.0, 310.0, 402.0),), 7.5),)


def test_several_boxes_and_claims() -> None:
    text = f"<obj>cup</obj><box>[1,2,3,4]</box><box>[5,6,7.5,8]</box> at <t>1:05</t>s, {KETTLE}"
    cup, kettle = parse_claims(text)
    assert cup == Claim("cup", ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.5, 8.0)), 65.0)
    assert kettle.label == "red kettle"


def test_claims_do_not_cross() -> None:
    """The release's pattern lets a claim without a time or a box swallow the next one."""
    claims = parse_claims(f"<obj>cup</obj><box>[1,2,3,4]</box> and {KETTLE}")
    assert [(claim.label, claim.at_seconds) for claim in claims] == [("cup", None), ("red kettle", 7.5)]
    assert [claim.label for claim in parse_claims(f"<obj>cup</obj> and {KETTLE}")] == ["red kettle"]


@pytest.mark.parametrize(
    "box", ["[1,2,3]", "[1,2,3,4,5]", "[a,2,3,4]", "[-1,2,3,4]", "[1e9,2,3,4]", "[.5,1,2,3]", "[]"]
)
def test_what_is_no_box(box: str) -> None:
    assert parse_claims(f"<obj>cup</obj><box>{box}</box>at<t>1</t>s") == ()


def test_boxes_come_in_fractions() -> None:
    claims = parse_claims(f"{KETTLE} <obj>no time</obj><box>[1,2,3,4]</box>")
    assert boxes_of(claims, (1000, 1000)) == (
        Box(at_seconds=7.5, x1=0.12, y1=0.08, x2=0.31, y2=0.402, label="red kettle"),
    )
    assert boxes_of(claims, (300, 500)) == ()  # it reaches out of the frame
    assert boxes_of(parse_claims("<obj>a</obj><box>[9,2,3,4]</box>at<t>1</t>s"), (10, 10)) == ()


def test_an_answer_carries_the_boxes_of_its_reply() -> None:
    text = f"<think>I see a {KETTLE}.</think><answer>a kettle</answer>"
    parsed = parse_reply(text, PROTOCOLS["openo3"])
    assert parsed.answer is not None and [box.x1 for box in parsed.answer.boxes] == [0.12]
    pixels = PROTOCOLS["openo3_pixels"]
    parsed = parse_reply(text, pixels, frame_size_wh=(480, 804))
    assert parsed.answer is not None and [(box.x1, box.y2) for box in parsed.answer.boxes] == [(0.25, 0.5)]
    parsed = parse_reply(text, pixels)
    assert parsed.answer is not None and parsed.answer.boxes == ()
