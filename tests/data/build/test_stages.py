"""The stages ``direct`` and ``ground`` as generators, driven by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.build.by_hand import CHOICE, FREE, MOMENT, Played, drive, kit, look, think
from timeloupe.data.build.stages.direct import DirectStage, direct
from timeloupe.data.build.stages.ground import GroundStage, ground
from timeloupe.data.build.stages.registry import STAGES
from timeloupe.data.build.steps import Ask, Crop, Kit
from timeloupe.environment.replay import trajectory_messages
from timeloupe.trajectory import Example, Segment, StopReason

RIGHT, WRONG = think("B"), think("A")
LOOK, OTHER = look((20, 30)), look((100, 110))


def directly(*replies: str, example: Example = CHOICE, with_kit: Kit | None = None) -> Played:
    used = with_kit or kit()
    return drive(direct(example, DirectStage(kind="direct"), used), replies, used)


def grounded(
    *replies: str,
    example: Example = CHOICE,
    seconds: float = 200.0,
    with_kit: Kit | None = None,
    **part: object,
) -> Played:
    used = with_kit or kit()
    stage = GroundStage(kind="ground", **part)  # type: ignore[arg-type]
    return drive(ground(example, stage, used), replies, used, seconds)


def verdict(played: Played) -> tuple[bool, str]:
    return played.outcome.kept, played.outcome.reason


# -- direct ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("example", "reply", "kept", "reason", "detail"),
    [
        (CHOICE, RIGHT, True, "right", ""),
        (CHOICE, think("B. green"), True, "right", ""),
        (CHOICE, WRONG, False, "wrong", "'A'"),
        (CHOICE, think("either"), False, "wrong", "'either'"),
        (CHOICE, LOOK, False, "no_answer", "asked to look"),
        (CHOICE, "who knows", False, "no_answer", ""),
        (CHOICE, "", False, "no_answer", "empty"),
        (MOMENT, think("[100, 110]"), True, "right", ""),
        (MOMENT, think("[100, 105]"), True, "right", ""),  # half of it: the threshold is a right answer
        (MOMENT, think("[100, 104.9]"), False, "wrong", ""),
        (MOMENT, think("no idea"), False, "wrong", ""),
        (FREE, think("a red ball rolls by"), True, "right", ""),
        (FREE, think("nothing"), False, "wrong", ""),
    ],
)
def test_direct(example: Example, reply: str, kept: bool, reason: str, detail: str) -> None:
    played = directly(reply, example=example)
    assert verdict(played) == (kept, reason)
    assert detail in played.outcome.detail
    assert played.asked == ["direct"]
    assert (played.outcome.trajectory is not None) == kept
    assert played.replies[0].right == (None if reason == "no_answer" else kept)


@pytest.mark.parametrize(
    "example",
    [
        CHOICE.model_copy(update={"answer": None}),
        CHOICE.model_copy(update={"answer": "Z"}),
        MOMENT.model_copy(update={"segments": ()}),
        FREE.model_copy(update={"answer": " "}),
    ],
    ids=["no letter", "no option", "no segment", "blank"],
)
def test_a_row_without_a_label_is_not_asked(example: Example) -> None:
    for played in (directly(example=example), grounded(example=example)):
        assert verdict(played) == (False, "no_label")
        assert played.steps == []


def test_a_direct_row_is_a_single_pass_of_the_protocol() -> None:
    used = kit(prompts={"direct": "Teach it."})
    played = directly(RIGHT, with_kit=used)
    assert played.asks[0].messages[0].text == "Teach it."
    trajectory = played.outcome.trajectory
    assert trajectory is not None and trajectory.stop is StopReason.ANSWERED
    # The learner is asked as in an episode: the words that moved the labeller are not in the row.
    assert trajectory.prompt == used.first(CHOICE, [played.asks[0].views[0]], tools=False)
    assert trajectory.prompt[0].text == used.protocol.system_without_tool
    assert trajectory.settings["build"] == {"labeller": "by-hand", "stage": "direct"}


# -- ground: every way to end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replies", "kept", "reason", "asked", "detail"),
    [
        ([LOOK, RIGHT, RIGHT], True, "once", "ground alone process", ""),
        ([RIGHT], False, "no_segment", "ground", "without looking"),
        (["hm"], False, "no_segment", "ground", ""),
        ([look((300, 310))], False, "bad_segment", "ground", "behind the end"),
        ([look((30, 20))], False, "bad_segment", "ground", "30"),
        ([look((1, 2), (3, 4), (5, 6), (7, 8))], False, "bad_segment", "ground", "4 segments"),
        (
            [LOOK, WRONG, OTHER, RIGHT, RIGHT], True, "twice", "ground alone reground alone process", "",
        ),
        (
            [LOOK, RIGHT, WRONG, OTHER, RIGHT, RIGHT], True, "twice",
            "ground alone process reground alone process", "",
        ),
        ([LOOK, WRONG, OTHER, WRONG], False, "wrong_alone", "ground alone reground alone", "[100, 110] alone"),
        (
            [LOOK, WRONG, OTHER, RIGHT, WRONG], False, "wrong_process",
            "ground alone reground alone process", "after [100, 110]",
        ),
        ([LOOK, RIGHT, LOOK, OTHER, RIGHT, "x"], False, "no_answer", None, "after [100, 110]"),
        ([LOOK, WRONG, RIGHT], False, "wrong_alone", "ground alone reground", "asked again: it answered without"),
        ([LOOK, WRONG, look((900, 901))], False, "wrong_alone", None, "asked again: it lies behind"),
    ],
)  # fmt: skip
def test_ground(replies: list[str], kept: bool, reason: str, asked: str | None, detail: str) -> None:
    played = grounded(*replies)
    assert verdict(played) == (kept, reason)
    assert asked is None or played.asked == asked.split()
    assert detail in played.outcome.detail
    assert (played.outcome.trajectory is not None) == kept


def test_ground_again_only_in_videos_over_the_length() -> None:
    assert verdict(grounded(LOOK, WRONG, seconds=180.0)) == (False, "wrong_alone")
    assert verdict(grounded(LOOK, WRONG, OTHER, RIGHT, RIGHT, seconds=180.5)) == (True, "twice")
    short = grounded(LOOK, WRONG, look((40, 50)), RIGHT, RIGHT, seconds=60.0, reground_over_seconds=0)
    assert verdict(short) == (True, "twice")


@given(regrounds=st.integers(0, 4), passes_in=st.integers(0, 6))
def test_ground_again_up_to_so_often(regrounds: int, passes_in: int) -> None:
    rounds = regrounds + 1
    replies: list[str] = []
    for number in range(min(passes_in, rounds)):
        replies += [look((number, number + 1)), WRONG]
    if passes_in < rounds:
        replies += [look((50 + passes_in, 60)), RIGHT, RIGHT]
    played = grounded(*replies, regrounds=regrounds)
    assert played.outcome.kept == (passes_in < rounds)
    assert len(played.asked) <= STAGES["ground"].most_asks(GroundStage(kind="ground", regrounds=regrounds))
    assert [one.round for one in played.asks if one.purpose in ("ground", "reground")] == list(
        range(min(passes_in + 1, rounds))
    )
    if played.outcome.kept:
        assert played.outcome.figures["calls"] == passes_in + 1
        assert played.outcome.trajectory is not None
        assert len(played.outcome.trajectory.turns) == passes_in + 2


def test_alone_sees_the_segment_and_nothing_else() -> None:
    played = grounded(look((10, 20), (50, 60)), RIGHT, RIGHT)
    alone = played.asks[1]
    assert [(one.ref.view, one.ref.start_seconds) for one in alone.views] == [("crop", 10), ("crop", 50)]
    assert alone.generations == () and [one.role for one in alone.messages] == ["system", "user"]
    whole = played.asks[2]
    assert [one.ref.view for one in whole.views] == ["skim", "crop", "crop"]
    assert [one.right for one in played.replies] == [None, True, True]


def test_a_part_of_a_call_that_can_be_cut_is_enough() -> None:
    played = grounded(look((10, 20), (500, 510)), RIGHT, RIGHT)
    assert verdict(played) == (True, "once")
    assert played.outcome.trajectory is not None
    turn = played.outcome.trajectory.turns[0]
    assert turn.problem is not None and turn.problem.reason == "segment_beyond_end"
    assert turn.observation is not None and "behind the end" in turn.observation.text


def test_checks_that_are_not_asked_for() -> None:
    assert grounded(LOOK, RIGHT, checks=("process",)).asked == ["ground", "process"]
    # The last reply is needed to end the episode; without check B it is not compared.
    unchecked = grounded(LOOK, RIGHT, WRONG, checks=("alone",))
    assert verdict(unchecked) == (True, "once") and unchecked.replies[-1].right is None
    raw = grounded(LOOK, WRONG, checks=())
    assert verdict(raw) == (True, "once") and raw.asked == ["ground", "process"]


def test_every_check_changes_no_decision() -> None:
    measured = grounded(LOOK, WRONG, RIGHT, OTHER, RIGHT, RIGHT, every_check=True)
    assert measured.asked == ["ground", "alone", "process", "reground", "alone", "process"]
    assert verdict(measured) == (True, "twice")
    assert [one.right for one in measured.replies[1:3]] == [False, True]
    assert verdict(grounded(LOOK, WRONG, "x", seconds=60.0, every_check=True)) == (False, "wrong_alone")
    assert verdict(grounded(LOOK, WRONG, WRONG, seconds=60.0, every_check=True)) == (False, "wrong_alone")


def test_moments_are_compared_by_overlap() -> None:
    near, far = think("[99, 111]"), think("[20, 30]")
    assert verdict(grounded(LOOK, near, near, example=MOMENT)) == (True, "once")
    assert verdict(grounded(LOOK, far, OTHER, near, near, example=MOMENT)) == (True, "twice")


def test_crops_are_widened_by_the_view_that_was_read() -> None:
    played = grounded(LOOK, WRONG, OTHER, RIGHT, RIGHT)
    first, second = [step for step in played.steps if isinstance(step, Crop)]
    assert [one.ref.view for one in first.read_from] == ["skim"]
    assert [one.ref.view for one in second.read_from] == ["crop"]


# -- the episode of two calls ------------------------------------------------------------------------------------------


def test_a_twice_episode_keeps_its_wrong_first_call() -> None:
    used = kit(prompts={name: f"As {name}." for name in ("ground", "alone", "process", "reground")})
    played = grounded(LOOK, WRONG, OTHER, RIGHT, RIGHT, with_kit=used)
    assert [one.messages[0].text for one in played.asks] == [f"As {name}." for name in played.asked]
    assert [one.round for one in played.asks] == [0, 0, 1, 1, 1]
    episode = played.outcome.trajectory
    assert episode is not None and episode.stop is StopReason.ANSWERED
    first, second, last = episode.turns
    assert first.call is not None and first.call.segments == (Segment(start_seconds=20, end_seconds=30),)
    assert first.observation is not None and first.observation.frame_refs[0].start_seconds == 20
    assert second.observation is not None and second.observation.frame_refs[0].start_seconds == 100
    assert last.answer is not None and last.answer.option == "B" and last.observation is None
    # What check A saw and said is not in it.
    assert [message.role for message in trajectory_messages(episode)] == [
        "system", "user", "assistant", "user", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert episode.prompt[0].text == used.protocol.system_with_tool
    # The failure is in context when it is asked again.
    again = played.asks[2]
    assert [one.text for one in again.generations] == [LOOK]
    assert again.messages[1:] == trajectory_messages(episode)[1:4]


@given(
    words=st.text(min_size=1, max_size=30),
    others=st.text(min_size=1, max_size=30),
)
def test_the_hash_is_of_the_words_that_no_model_said(words: str, others: str) -> None:
    def ask(system: str) -> Ask:
        return directly(RIGHT, with_kit=kit(prompts={"direct": system})).asks[0]

    assert (ask(words).prompt_sha256 == ask(others).prompt_sha256) == (words == others)
    assert len(ask(words).prompt_sha256) == 16
    a, b = grounded(LOOK, RIGHT, RIGHT), grounded(look((20, 30), thought="other words"), RIGHT, RIGHT)
    assert a.asks[2].messages != b.asks[2].messages
    assert a.asks[2].prompt_sha256 == b.asks[2].prompt_sha256
    assert a.asks[0].prompt_sha256 != a.asks[1].prompt_sha256
