"""Every time at which something happens: what is asked of each, what a gap tells, what is left of a reply."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.build.by_hand import MOMENT, asks, kit, played, think, view_of
from timeloupe.data.build.stages.multiseg import MultisegStage, compared, gaps, most_multiseg_asks, multiseg
from timeloupe.data.build.steps import Ask, Outcome, Reply, Skim, Step
from timeloupe.data.build.yes_no import says_yes
from timeloupe.environment.tools import View
from timeloupe.grounding import overlap_seconds, set_iou
from timeloupe.prompt.segments import parse_segments
from timeloupe.trajectory import Example, Generation, Segment
from timeloupe.world.encode import world_examples
from timeloupe.world.labeller import OracleErrors
from timeloupe.world.labeller_multiseg import every_reply, visible_reply
from timeloupe.world.script import generator, make_script


def spans(*pairs: tuple[float, float]) -> tuple[Segment, ...]:
    return tuple(Segment(start_seconds=start, end_seconds=end) for start, end in pairs)


TRUTH = spans((10, 20), (40, 50), (70, 90))
ROW = Example(id="a", video="a.mp4", question="When is it, every time?", task="multi_segment", segments=TRUTH)


def truthful(ask: Ask) -> bool:
    """Whether more than the edge of a crop is in the truth."""
    shown = ask.views[0].ref
    return any(overlap_seconds(one, (shown.start_seconds, shown.end_seconds)) > 1 for one in TRUTH)


def found(
    text: str, says: Callable[[Ask], bool] = truthful, example: Example = ROW, **options: object
) -> tuple[Outcome, list[Step]]:
    part = MultisegStage.model_validate({"kind": "multiseg", **options})

    def reply(ask: Ask) -> str:
        if ask.purpose == "every":
            return f"<think>At 3 s.</think><answer>{text}</answer>"
        return f"<think>.</think><answer>{'Yes.' if says(ask) else 'unclear'}</answer>"

    plan = multiseg(example, part, kit("museg"))
    outcome, steps = played(plan, reply, kit("museg"))
    assert len(asks(steps)) <= most_multiseg_asks(part)
    return outcome, steps


def test_a_reply_that_holds_stays_as_it_was_said() -> None:
    outcome, steps = found("10.00-20.00 40.00-50.00 70.00-90.00")
    assert (outcome.kept, outcome.reason) == (True, "whole")
    assert outcome.example == ROW
    assert outcome.trajectory is not None and outcome.trajectory.turns[0].thought == "At 3 s."
    assert [(ask.sample, ask.views[0].ref.start_seconds) for ask in asks(steps, "instance")] == [
        (0, 10),
        (1, 40),
        (2, 70),
    ]
    assert outcome.figures["set_iou"] == 1.0 and not asks(steps, "gap")


def test_segments_without_a_yes_are_dropped_from_row_and_reply_and_the_label_decides_nothing() -> None:
    outcome, _ = found("70-80 10-20 10-20 25-35 300-400")
    kept = spans((10, 20), (70, 80))
    assert (outcome.kept, outcome.reason) == (True, "in_part")
    assert outcome.example is not None and outcome.example.segments == kept
    assert outcome.trajectory is not None and outcome.trajectory.example.segments == kept
    [turn] = outcome.trajectory.turns
    expected = "<think>Seen 10.00 to 20.00, 70.00 to 80.00.</think><answer>10.00-20.00 70.00-80.00</answer>"
    assert turn.generation.text == expected and turn.answer is not None and turn.answer.segments == kept
    assert outcome.figures == {
        "named": 4, "dropped": 2, "segments": 2, "precision": 1.0, "recall": 0.5, "set_iou": 0.5,
        "named_set_iou": pytest.approx(20 / 150),
    }  # fmt: skip
    assert found("10-20", use_label=True)[0].reason == "wrong"
    assert found("10-20 70-90", use_label=True)[0].kept
    unlabelled = ROW.model_copy(update={"segments": ()})
    assert set(found("10-20", example=unlabelled)[0].figures) == {"named", "dropped", "segments"}
    assert found("10-20", example=unlabelled, use_label=True)[0].reason == "no_label"


def test_gaps_that_show_it_end_the_row() -> None:
    outcome, steps = found("10-20 70-90", check_gaps=True)
    assert (outcome.kept, outcome.reason) == (False, "missed_instance")
    # [0, 10] and [90, 100] are not longer than 10 s; of [20, 70] the margins are left out.
    assert [(one.views[0].ref.start_seconds, one.views[0].ref.end_seconds) for one in asks(steps, "gap")] == [
        (22, 68)
    ]
    outcome, steps = found("10-20 40-50 70-90", check_gaps=True, gap_seconds=5)
    assert outcome.kept and outcome.figures["gaps_asked"] == 4 == len(asks(steps, "gap"))
    assert [one.sample for one in asks(steps, "gap")] == [0, 1, 2, 3]


MANY = " ".join(f"{at}-{at + 1}" for at in range(13))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("none", "no_segment"), ("21-30", "no_instance"), (MANY, "too_many_segments")],
)  # fmt: skip
def test_what_is_left_out(text: str, reason: str) -> None:
    outcome, _ = found(text)
    assert (outcome.kept, outcome.reason) == (False, reason)
    assert found("10-20", example=ROW.model_copy(update={"task": "grounding"}))[0].reason == "other_task"


def test_a_segment_that_was_rounded_over_the_end_is_cut_and_its_reply_stays() -> None:
    outcome, _ = found("70-100.4")
    assert outcome.reason == "whole" and outcome.example is not None
    assert outcome.example.segments == spans((70, 100))
    assert found("70-130")[0].reason == "in_part"


PAIRS = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 10)), max_size=6)


@given(PAIRS, st.integers(1, 20), st.integers(0, 5))
def test_gaps_are_free_of_segments_and_long_enough(
    pairs: list[tuple[int, int]], gap_seconds: int, margin: int
) -> None:
    held = spans(*((start, start + length) for start, length in pairs))
    skim = view_of(Skim(), 100.0)
    assert isinstance(skim, View)
    part = MultisegStage(kind="multiseg", gap_seconds=gap_seconds, gap_margin_seconds=margin)
    unseen = gaps(held, skim, part)
    for gap in unseen:
        assert all(overlap_seconds(gap, one) == 0 for one in held)
        assert 0 <= gap.start_seconds < gap.end_seconds <= 100
    # Every second further from a segment than the margin, in a stretch that is long enough, is in a gap.
    for second in range(100):
        before = max((one.end_seconds for one in held if one.start_seconds <= second), default=0)
        after = min((one.start_seconds for one in held if one.end_seconds > second), default=100)
        is_free = before + margin <= second and second + 1 <= after - margin
        if is_free and after - before > gap_seconds:
            assert any(gap.start_seconds <= second < gap.end_seconds for gap in unseen)


@given(PAIRS, PAIRS)
def test_comparing_is_of_time(ones: list[tuple[int, int]], twos: list[tuple[int, int]]) -> None:
    one, two = (spans(*((start, start + length) for start, length in pairs)) for pairs in (ones, twos))
    seconds = [
        {second for start, length in pairs for second in range(start, start + length)}
        for pairs in (ones, twos)
    ]
    common = len(seconds[0] & seconds[1])
    figures = compared(one, two)
    assert figures["precision"] == pytest.approx(common / len(seconds[0]) if seconds[0] else 0.0)
    assert figures["recall"] == pytest.approx(common / len(seconds[1]) if seconds[1] else 0.0)
    assert figures["set_iou"] == set_iou(one, two)


def test_the_oracle_names_all_times_and_errs_as_told() -> None:
    script = make_script(3, 0)
    [row] = world_examples(script, id="w", video="w.mp4", tasks=["multi_segment"])

    def named(**errors: float) -> tuple[Segment, ...]:
        text = every_reply(script, row, OracleErrors.model_validate(errors), generator("test", 1))
        read = parse_segments(text.partition("<answer>")[2].partition("</answer>")[0])
        return read if isinstance(read, tuple) else ()

    def visible(time: float, **errors: float) -> bool:
        said = OracleErrors.model_validate(errors)
        return "<answer>yes" in visible_reply(script, row, [time], said, generator("test", 2))

    assert set_iou(named(), row.segments) > 0.9 and len(named()) == len(row.segments)
    assert named(missed_instance=1.0) == ()
    assert len(named(invented_instance=1.0)) == 2 * len(row.segments)
    assert set_iou(named(boundary_seconds=5.0), row.segments) < set_iou(named(), row.segments)
    inside, outside = row.segments[0].start_seconds, row.segments[-1].end_seconds
    assert visible(inside) and not visible(outside)
    assert not visible(inside, wrong_answer=1.0) and visible(outside, wrong_answer=1.0)


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("yes", True), ("Yes, a dog.", True), ("**Yes**", True), ("__yes__", True), ("yes, no other cup", True),
        ("yes or no", False), ("Yes/No", False), ("yes and no", False), ("no", False), ("yesterday", False),
        ("it is: yes", False), ("", False),
    ],
)  # fmt: skip
def test_only_a_plain_yes_is_one(text: str, yes: bool) -> None:
    generation = Generation(text=think(text))
    assert says_yes(Reply(generation, kit().read(generation, MOMENT))) is yes
    assert not says_yes(Reply(Generation(text=text), kit().read(Generation(text=text), MOMENT)))
