"""Marked evidence: which claims are checked, what is left of a reply, and what the row then says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.build.by_hand import asks, kit, played
from timeloupe.data.build.stages.evidence import EvidenceStage, box_question, evidence, plain, stretches
from timeloupe.data.build.steps import Ask, BoxCrop, Outcome, Step
from timeloupe.grounding import box_iou
from timeloupe.prompt.evidence import boxes_of, parse_claims
from timeloupe.trajectory import Box, Example, FrameRef, Segment
from timeloupe.world.encode import world_examples
from timeloupe.world.labeller import OracleErrors
from timeloupe.world.labeller_evidence import box_reply, evidence_reply
from timeloupe.world.script import generator, make_script

ROW = Example(
    id="a", video="a.mp4", question="What, when, where?", answer="a red kettle", task="what_when_where"
)
CUP = "<obj>cup</obj><box>[100, 200, 300, 400]</box>at<t>20.2</t>s"
KETTLE = "<obj>kettle</obj><box>[0, 0, 500, 500]</box>at<t>30</t>s"


def answer(thought: str, text: str = "a red kettle") -> str:
    return f"<think>{thought}</think><answer>{text}</answer>"


def proven(
    text: str, says: Callable[[Ask], bool] = lambda _: True, example: Example = ROW, **options: object
) -> tuple[Outcome, list[Step]]:
    part = EvidenceStage.model_validate({"kind": "evidence", **options})

    def reply(ask: Ask) -> str:
        return text if ask.purpose == "evidence" else answer("Seen.", "Yes, so." if says(ask) else "No.")

    return played(evidence(example, part, kit("openo3")), reply, kit("openo3"))


def test_a_reply_whose_claims_all_hold_stays_as_it_was_said() -> None:
    text = answer(f"First {CUP}, then {KETTLE}.")
    outcome, steps = proven(text)
    assert (outcome.kept, outcome.reason) == (True, "whole")
    cuts = [step.box for step in steps if isinstance(step, BoxCrop)]
    cup = Box(at_seconds=20.0, x1=0.1, y1=0.2, x2=0.3, y2=0.4, label="cup")  # the frame nearest to 20.2 s
    kettle = Box(at_seconds=30.0, x1=0, y1=0, x2=0.5, y2=0.5, label="kettle")
    assert cuts == [cup, kettle]
    assert [ask.sample for ask in asks(steps, "box")] == [0, 1]
    assert all(ask.example.id == ROW.id and ask.views[0].ref.view == "image" for ask in asks(steps, "box"))
    assert outcome.example is not None and outcome.trajectory is not None
    assert outcome.example.boxes == (cup, kettle)
    assert outcome.example.segments == (Segment(start_seconds=15, end_seconds=35),)
    assert outcome.trajectory.example == outcome.example
    assert outcome.trajectory.turns[0].generation.text == text


def test_claims_that_do_not_hold_are_out_of_everything_that_is_kept() -> None:
    text = answer(f"First {CUP}, then {KETTLE}, and <obj>hen</obj> too.", f"a red {KETTLE}")
    outcome, _ = proven(text, lambda ask: "kettle" in ask.example.question)
    assert (outcome.kept, outcome.reason) == (True, "in_part")
    assert outcome.figures == {"claims": 4, "unreadable": 2, "unchecked": 0, "refused": 1, "verified": 1}
    assert outcome.trajectory is not None and outcome.example is not None
    [turn] = outcome.trajectory.turns
    assert turn.generation.text == answer(KETTLE) and turn.thought == KETTLE
    assert turn.answer is not None and turn.answer.text == "a red kettle"
    assert turn.answer.boxes == (outcome.example.boxes[0].model_copy(update={"at_seconds": 30.0}),)
    assert outcome.trajectory.settings["build"]["rebuilt"] is True


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        (answer(CUP, "a dog"), {}, "wrong"),
        (answer("No marks."), {}, "no_claims"),
        (answer(CUP.replace("300", "50")), {}, "no_claims"),
        (answer(CUP.replace("at<t>20.2</t>s", "")), {}, "no_claims"),
        (answer(CUP.replace("20.2", "400")), {}, "too_few_claims"),
        (answer(CUP), {"min_claims": 2}, "too_few_claims"),
        (answer(f"{CUP}{CUP}"), {"min_claims": 2}, "too_few_claims"),
        (answer(f"{CUP}{KETTLE}"), {"max_claims": 1, "min_claims": 2}, "too_few_claims"),
        ("<think>x</think>", {}, "no_answer"),
    ],
)
def test_what_is_left_out(text: str, options: dict[str, int], reason: str) -> None:
    outcome, _ = proven(text, lambda _: True, ROW, **options)
    assert (outcome.kept, outcome.reason) == (False, reason)


def test_only_rows_with_a_free_answer_are_asked() -> None:
    for row in (ROW.model_copy(update={"task": "grounding"}), ROW.model_copy(update={"answer": None})):
        outcome, steps = proven(answer(CUP), example=row)
        assert (outcome.kept, steps) == (False, [])
    outcome, _ = proven(answer(CUP), example=ROW.model_copy(update={"task": "open"}))
    assert outcome.example is not None and outcome.example.task == "what_when_where"


def test_a_claim_far_from_every_frame_keeps_its_own_time() -> None:
    outcome, _ = proven(answer(CUP.replace("20.2", "23.5")))
    assert outcome.example is not None
    assert [box.at_seconds for box in outcome.example.boxes] == [23.5]
    assert outcome.example.segments == (Segment(start_seconds=21.75, end_seconds=26.75),)


def test_claims_in_an_answer_are_bare_names_when_it_is_compared() -> None:
    assert plain(f"a red {KETTLE} and <obj>hen</obj>") == "a red kettle and hen"


@given(st.lists(st.integers(0, 99), min_size=1, max_size=20, unique=True), st.data())
def test_stretches_hold_their_times_and_no_frame_that_was_not_marked(
    frames: list[int], data: st.DataObject
) -> None:
    at_seconds = tuple(float(time) for time in sorted(frames))
    shown = FrameRef(
        video="a", view="skim", start_seconds=0, end_seconds=100, at_seconds=at_seconds, size_wh=(4, 4)
    )
    times = data.draw(st.lists(st.sampled_from(at_seconds), min_size=1, unique=True))
    found = stretches(shown, times)
    assert all(one.end_seconds < two.start_seconds for one, two in zip(found, found[1:], strict=False))
    inside = {
        time for time in at_seconds if any(one.start_seconds <= time < one.end_seconds for one in found)
    }
    assert inside == {*times}


def test_the_oracle_marks_what_the_frames_show_and_knows_what_a_cut_shows() -> None:
    script = make_script(3, 0)
    [row] = world_examples(script, id="w", video="w.mp4", tasks=["what_when_where"])
    event = next(one for one in script.events if one.digit_segment in row.segments)
    times = [float(second) for second in range(int(script.duration_seconds))]

    def marked(**errors: float) -> tuple[Box, ...]:
        text = evidence_reply(script, row, times, OracleErrors.model_validate(errors), generator("test", 1))
        assert f"<answer>{row.answer}</answer>" in text
        return boxes_of(parse_claims(text), (1000, 1000))

    def yes(box: Box, **errors: float) -> bool:
        said = OracleErrors.model_validate(errors)
        return "<answer>yes" in box_reply(
            script, row, box.at_seconds, box_question(box), said, generator("test", 2)
        )

    true = marked()
    span = event.digit_segment
    assert [box.at_seconds for box in true] == [
        one for one in times if span.start_seconds <= one < span.end_seconds
    ]
    assert all(box_iou(box, event.box(box.at_seconds)) > 0.98 and yes(box) for box in true)
    assert not any(yes(box, wrong_answer=1.0) for box in true)
    assert not any(yes(box) for box in marked(wrong_box=1.0))
    noisy = [box_iou(box, event.box(box.at_seconds)) for box in marked(box_noise=0.1)]
    assert 0.3 < sum(noisy) / len(noisy) < 0.9
    assert not yes(true[0].model_copy(update={"at_seconds": event.segment.end_seconds}))
    with pytest.raises(ValueError, match="no part of a frame"):
        box_reply(script, row, 1.0, "Is it a cup?", OracleErrors(), generator("test", 3))
