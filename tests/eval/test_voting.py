"""Replies that vote with the weight of their evidence."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reward.hostile import BOMBS, texts
from timeloupe.eval.voting import (
    Ballot,
    Evidence,
    evidence_weight,
    frame_index,
    read_ballot,
    read_box,
    read_evidence,
    relevance_weight,
    vote,
)

SEEN = "<obj>cat</obj><box>[1, 2,3,4]</box>at<t>5.129</t>s"
CAT = Evidence("cat", (1, 2, 3, 4), 5.13)


def test_ballots() -> None:
    assert read_ballot(f"<think>{SEEN}</think><answer> B </answer>") == Ballot("B", (CAT,))
    assert read_ballot("<think>x</think><answer>B.</answer>") == Ballot(None)
    assert read_ballot("<think>x</think><answer>E</answer>") == Ballot(None)
    assert read_ballot("<think>x</think><answer>E</answer>", letters="ABCDE") == Ballot("E")
    assert read_ballot("<answer>B</answer>") == Ballot(None)
    assert read_ballot("B") == Ballot(None)


def test_evidence_has_one_sound_box_and_a_time() -> None:
    assert read_evidence(f"{SEEN} and {SEEN}") == (CAT, CAT)
    assert read_evidence(SEEN.replace("5.129", "soon")) == ()
    assert read_evidence(SEEN.replace("</box>", "</box><box>[5,6,7,8]</box>")) == ()
    assert read_evidence(SEEN.replace("[1, 2,3,4]", "[9,2,3,4]")) == ()


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[3,4,1,2]", None), ("[[1,2,3,4]]", (1, 2, 3, 4)), ("1, 2, 3, 4", (1, 2, 3, 4)), ("[a,b,c,d]", None),
        ("", None),
        ("[1,2,3,4,5]", None), ("[1,1,1,1]", (1, 1, 1, 1)), ("[nan,2,3,4]", None), ("[1,2,inf,4]", (1, 2, math.inf, 4)),
    ],
)  # fmt: skip
def test_boxes(text: str, box: tuple[float, ...] | None) -> None:
    assert read_box(text) == box


def test_frames() -> None:
    assert [frame_index(10, 2.0, time) for time in (0, 4.4, 4.74, 4.75, 100)] == [0, 9, 9, None, None]
    assert frame_index(10, 0.5, 3) == 2  # 1.5 is rounded to the even number
    assert (
        frame_index(10, 2.0, -1) is frame_index(10, 2.0, math.inf) is frame_index(10, 2.0, math.nan) is None
    )
    assert frame_index(10, 2.0, -1, wraps=True) == 8
    with pytest.raises(IndexError):
        frame_index(10, 2.0, -20, wraps=True)
    with pytest.raises(OverflowError):
        frame_index(10, 2.0, math.inf, wraps=True)


def test_weights() -> None:
    assert [relevance_weight(score) for score in (2, 1, 0, 3, -1, None)] == [1.0, 0.6, 0.2, 0.2, 0.2, 0.2]
    assert evidence_weight([2, 0]) == 0.6
    assert evidence_weight([2], num_crops=10) == 1.0
    assert evidence_weight([2], num_crops=11) == evidence_weight([2] * 11) == evidence_weight([]) == 0.2
    assert evidence_weight([None, 2]) == 0.6


def test_votes() -> None:
    counted = vote(["B", None, "A", "B"], [0.2, 5, 1.0, 0.6])
    assert counted.answer == "A" and counted.scores == {"A": 1.0, "B": 0.8, "C": 0, "D": 0}
    assert vote(["C", "B"], [0.6, 0.6]).answer == "B"  # the first letter of equals
    assert vote(["B", None], [0, 1]).answer is None
    assert vote(["B", None], [0, 1], when_empty="A").answer == "A"
    assert vote(["E"], [1], "ABCDE").answer == "E"
    with pytest.raises(ValueError, match="one weight per answer"):
        vote(["A"], [])
    with pytest.raises(ValueError, match="none of A, B"):
        vote(["E"], [1])


@given(st.lists(st.tuples(st.sampled_from([None, "A", "B", "C", "D"]), st.floats(0, 1)), max_size=8))
def test_the_winner_has_the_largest_sum(ballots: list[tuple[str | None, float]]) -> None:
    counted = vote([letter for letter, _ in ballots], [weight for _, weight in ballots])
    assert math.isclose(
        math.fsum(counted.scores.values()), math.fsum(weight for letter, weight in ballots if letter)
    )
    if counted.answer is not None:
        assert counted.scores[counted.answer] == max(counted.scores.values()) > 0
    assert vote([letter for letter, _ in reversed(ballots)], [1.0] * len(ballots)).answer in (None, *"ABCD")


@given(texts())
def test_hostile_replies(text: str) -> None:
    ballot = read_ballot(f"<think>{text}</think><answer>B</answer>")
    for found in ballot.evidence:
        x1, y1, x2, y2 = found.box
        assert x1 <= x2 and y1 <= y2


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_quarter_megabyte_is_read_in_linear_time(bomb: str) -> None:
    assert read_ballot(f"<think>{bomb}</think><answer>{bomb}</answer>").letter is None
    assert all(found.label for found in read_evidence(bomb))
