"""The teacher of what, when and where: its claims are readable, true, and only of frames that are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.grounding import box_iou
from timeloupe.prompt.evidence import parse_claims
from timeloupe.prompt.parse import check_format, parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.base import Context
from timeloupe.reward.compose import load_reward
from timeloupe.reward.openo3_parse import release_claims
from timeloupe.trajectory import Example, Generation, StopReason, Trajectory, Turn
from timeloupe.video.sampling import uniform_times
from timeloupe.world.encode import world_examples
from timeloupe.world.script import ScriptSettings, WorldScript, make_script
from timeloupe.world.teach_evidence import BOX_GRID, EvidenceTeacher, asked_event, claim_text, digit_frames
from timeloupe.world.teacher import whole_seconds

SHORT = ScriptSettings(min_seconds=40, max_seconds=120, num_scenes=2)
SMALL = PROTOCOLS["small"]
indices = st.integers(0, 5000)
counts = st.integers(1, 64)


def asked(index: int) -> tuple[WorldScript, Example]:
    """A short video and a question about it."""
    script = make_script(17, index, SHORT)
    examples = world_examples(script, id="e", video="v.mp4", tasks=["what_when_where"], per_task=4)
    return script, examples[index % len(examples)]


def played(example: Example, text: str) -> Trajectory:
    """The episode in which ``text`` was replied."""
    parsed = parse_reply(text, SMALL)
    turn = Turn(generation=Generation(text=text), thought=parsed.thought, answer=parsed.answer)
    return Trajectory(
        example=example, policy="t", protocol="small", turns=(turn,), stop=StopReason.ANSWERED
    )  # fmt: skip


@given(indices, counts)
def test_every_reply_is_in_form_and_claims_only_frames_that_are_shown(index: int, count: int) -> None:
    script, example = asked(index)
    times = uniform_times(0, script.duration_seconds, count)
    text = EvidenceTeacher(script, example).reply(times)
    assert check_format(text, SMALL) is None
    parsed = parse_reply(text, SMALL)
    assert parsed.answer is not None and parsed.answer.text == example.answer
    claims = parse_claims(parsed.thought)
    assert claims and len(claims) == len(parsed.answer.boxes) == len(release_claims(parsed.thought))
    event = asked_event(script, example)
    shown = {whole_seconds(time) for time in times}
    assert all(claim.label == event.shape and claim.at_seconds in shown for claim in claims)
    corners = [value for claim in claims for box in claim.boxes for value in box]
    assert all(value % BOX_GRID == 0 and 0 <= value <= 1000 for value in corners)


@given(indices, counts)
def test_a_digit_that_is_shown_is_claimed_in_every_frame_that_shows_it(index: int, count: int) -> None:
    script, example = asked(index)
    times = uniform_times(0, script.duration_seconds, count)
    event = asked_event(script, example)
    with_digit = digit_frames(event, times)
    span = event.digit_segment
    assert all((span.start_seconds <= time < span.end_seconds) == (time in with_digit) for time in times)
    text = EvidenceTeacher(script, example).reply(times, unseen_digit=(event.digit + 1) % 10)
    claims = parse_claims(text)
    if with_digit:
        assert [claim.at_seconds for claim in claims] == [whole_seconds(time) for time in with_digit]
        for claim, time in zip(claims, with_digit, strict=True):
            true = event.box(time)
            # A step of the grid is 20 thousandths: off by 10 at most on each side of a box of 560.
            assert (
                box_iou(claim.boxes[0], tuple(1000 * v for v in (true.x1, true.y1, true.x2, true.y2))) > 0.9
            )  # type: ignore[arg-type]
    answered = parse_reply(text, SMALL).answer
    assert answered is not None and (answered.text == example.answer) == bool(with_digit)


@given(indices)
def test_rewards_like_what_the_teacher_says_where_it_saw_the_digit(index: int) -> None:
    script, example = asked(index)
    times = uniform_times(0, script.duration_seconds, 32)
    event = asked_event(script, example)
    if not digit_frames(event, times):
        return
    text = EvidenceTeacher(script, example).reply(times)
    for name in ("openo3_paper", "openo3_release"):
        parts = load_reward(name).score(played(example, text), Context(progress=1.0)).parts
        assert parts["answer_accuracy"] == pytest.approx(2 / 3)  # ROUGE of one right word
        assert parts["format"] == 1
        # Half a second to the true box next to it, and half a second of rounding.
        assert (parts["thought_point"] or 0) > 0.6
    # The paper's preset reads thousandths, so the boxes count: a second's way of the fastest path is a tenth.
    assert (
        load_reward("openo3_paper").score(played(example, text), Context()).parts["thought_spatial"] or 0
    ) > 0.5


def test_a_claim_by_hand() -> None:
    script, example = asked(3)
    event = asked_event(script, example)
    x, y = event.centre(event.segment.start_seconds)
    left, top = round(1000 * (x - 0.28) / 20) * 20, round(1000 * (y - 0.28) / 20) * 20
    right, bottom = round(1000 * (x + 0.28) / 20) * 20, round(1000 * (y + 0.28) / 20) * 20
    second = whole_seconds(event.segment.start_seconds)
    assert claim_text(event, event.segment.start_seconds) == (
        f"<obj>{event.shape}</obj><box>[{left}, {top}, {right}, {bottom}]</box>at<t>{second}</t>s"
    )


def test_rows_of_other_videos_and_tasks_are_refused() -> None:
    script, example = asked(3)
    with pytest.raises(ValueError, match="asks where no event"):
        EvidenceTeacher(make_script(18, 0, SHORT), example)
    with pytest.raises(ValueError, match="asks where no event"):
        EvidenceTeacher(script, example.model_copy(update={"task": "grounding"}))
