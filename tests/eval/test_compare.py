"""The comparison: what counts as right, what the controls answer, how a section is summed up."""

import pytest

from timeloupe.eval.compare import Outcome, control, evidence_tiou, outcome, summarise
from timeloupe.trajectory import (
    Answer,
    Example,
    FrameRef,
    Generation,
    Message,
    Segment,
    StopReason,
    ToolCall,
    Trajectory,
    Turn,
)

TRUE = Segment(start_seconds=10, end_seconds=20)
GROUNDING = Example(id="g", video="v", question="When?", segments=(TRUE,), task="grounding")
CHOICE = Example(
    id="c",
    video="v",
    question="Which?",
    options=("1", "2", "3", "4"),
    answer="B",
    segments=(TRUE,),
    task="multiple_choice",
)


def played(example: Example, *turns: Turn, stop: StopReason = StopReason.ANSWERED) -> Trajectory:
    return Trajectory(example=example, policy="p", protocol="small", turns=turns, stop=stop)


def answered(answer: Answer) -> Turn:
    return Turn(generation=Generation(text="x"), answer=answer)


def looked(start: float, end: float) -> Turn:
    segment = Segment(start_seconds=start, end_seconds=end)
    ref = FrameRef(
        video="v", view="crop", start_seconds=start, end_seconds=end, at_seconds=(start,), size_wh=(32, 32)
    )
    return Turn(
        generation=Generation(text="x"), call=ToolCall(name="t", segments=(segment,)),
        observation=Message(role="user", parts=(ref,)),
    )  # fmt: skip


def test_outcomes() -> None:
    half = Answer(text="", segments=(Segment(start_seconds=10, end_seconds=15),))
    assert outcome(played(GROUNDING, answered(half))).tiou == 0.5
    assert outcome(played(GROUNDING, answered(half))).right is None
    assert outcome(played(CHOICE, answered(Answer(text="B", option="B")))).right == 1
    assert outcome(played(CHOICE, answered(Answer(text="A", option="A")))).right == 0
    assert outcome(played(CHOICE, answered(Answer(text="?")))).right == 0
    lost = played(GROUNDING, Turn(generation=Generation(text="x")), stop=StopReason.FORMAT)
    assert outcome(lost).tiou == 0, "an unreadable answer stays in the denominator"


def test_a_machines_fault_has_no_score_and_is_counted() -> None:
    dead = Turn(generation=Generation(text="", finish="error", error="gone"))
    outcomes = [
        outcome(played(GROUNDING, dead, stop=StopReason.INFRASTRUCTURE)),
        outcome(played(GROUNDING, answered(Answer(text="", segments=(TRUE,))))),
        outcome(played(CHOICE, stop=StopReason.INFRASTRUCTURE)),
    ]
    figures = summarise(outcomes, 3.0)
    assert (figures["n"], [one.unscored for one in outcomes]) == (3, [True, False, True])
    assert figures["miou"] == 1.0
    assert figures["accuracy"] is None


def test_evidence_of_a_choice_is_its_last_crop() -> None:
    trajectory = played(CHOICE, looked(0, 100), looked(10, 30), answered(Answer(text="B", option="B")))
    assert evidence_tiou(trajectory) == 0.5
    assert outcome(trajectory).crops == 2


@pytest.mark.parametrize(("name", "tiou"), [("whole_video", 0.1), ("middle", 0.0)])
def test_controls_answer_without_looking(name: str, tiou: float) -> None:
    assert control(name, GROUNDING, 100.0, seed=0).tiou == pytest.approx(tiou)
    assert control(name, CHOICE, 100.0, seed=0).right is None


def test_random_control_is_seeded_and_near_chance() -> None:
    examples = [CHOICE.model_copy(update={"id": str(number)}) for number in range(800)]
    rights = [control("random", example, 100.0, seed=0).right or 0.0 for example in examples]
    assert rights == [control("random", example, 100.0, seed=0).right or 0.0 for example in examples]
    assert 0.2 < sum(rights) / len(rights) < 0.3


def test_summary_keeps_the_kinds_apart() -> None:
    rows = [
        Outcome(GROUNDING, tiou=0.6, crops=2, frames_decoded=10, frames_cached=20),
        Outcome(GROUNDING, tiou=0.2),
        Outcome(CHOICE, right=1.0),
    ]
    figures = summarise(rows, seconds=6.0)
    assert figures["n"] == 3
    assert figures["miou"] == pytest.approx(0.4)
    assert (figures["recall_at_0.3"], figures["recall_at_0.5"], figures["recall_at_0.7"]) == (0.5, 0.5, 0.0)
    assert figures["accuracy"] == 1.0
    assert figures["seconds_per_question"] == 2.0
    assert figures["frames_cached_per_question"] == pytest.approx(20 / 3)
    assert summarise([rows[2]], 0.0)["miou"] is None
