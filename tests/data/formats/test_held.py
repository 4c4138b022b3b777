"""What each format holds of our rows, and that the losses it is said to have are exactly the others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.data.formats.rows_for_tests import context, episodes, questions
from tests.test_trajectory import examples as any_examples
from tests.test_trajectory import trajectories as any_trajectories
from timeloupe.data.formats.convert import read_row, write_row
from timeloupe.data.formats.files import encoded
from timeloupe.data.formats.losses import facts, losses
from timeloupe.data.formats.registry import MODULES, format_named
from timeloupe.data.formats.row import Row
from timeloupe.errors import RecordError
from timeloupe.eval.files.records import Record
from timeloupe.trajectory import (
    Example,
    FrameRef,
    Generation,
    Message,
    StopReason,
    Task,
    Text,
    Trajectory,
    Turn,
)

QUESTION = {f"example.{name}" for name in Example.model_fields}
PROMPT = {"prompt"}
REPLIES = {"turns.text", "turns.observation"}
READ_FROM_REPLIES = {"turns.thought", "turns.call", "turns.answer", "turns.problem", "stop", "protocol"}
RECORDED = {
    "policy", "seed", "rollout_index", "problem", "score", "frames_decoded", "frames_cached", "seconds", "settings",
    "turns.seconds", *(f"turns.generation.{name}" for name in ("finish", "usage", "token_ids", "logprobs", "error",
    "seconds")),
}  # fmt: skip
VIEWS = {
    f"views.{name}"
    for name in ("video", "view", "start_seconds", "end_seconds", "fps", "at_seconds", "size_wh")
}
ASKED = {"example.video", "example.question", "example.options", "example.task"}

HOLDS: dict[str, set[str]] = {
    "examples": QUESTION,
    "trajectories": QUESTION | PROMPT | REPLIES | READ_FROM_REPLIES | RECORDED | VIEWS,
    "swift_sft": ASKED
    | PROMPT
    | REPLIES
    | READ_FROM_REPLIES
    | {"views.video", "views.view", "views.start_seconds"},
    "swift_rl": ASKED | PROMPT | {"example.segments"},
    "trl": QUESTION
    | PROMPT
    | REPLIES
    | READ_FROM_REPLIES
    | {"views.video", "views.view", "views.at_seconds"},
    "openai": ASKED
    | PROMPT
    | REPLIES
    | READ_FROM_REPLIES
    | {"views.video", "views.view", "views.at_seconds"},
    "verl": QUESTION | PROMPT,
    "museg": {"example.video", "example.question", "example.segments", "example.task"},
    "museg_eval": {"example.video", "example.question", "example.segments", "example.task"},
    "taro": {
        "example.video",
        "example.question",
        "example.segments",
        "example.task",
        "example.source",
        *PROMPT,
    },
    "taro_eval": {"example.id", "example.video", "example.question", "example.segments", "example.task"},
    "openo3": (QUESTION - {"example.id", "example.segments"}) | {"stop", "protocol"},
}
"""Fields that come back as they were, of a complete episode of any task that the format takes."""

ALSO: dict[str, dict[Task, set[str]]] = {
    "swift_rl": {
        "multiple_choice": {"example.answer"}, "what_when_where": {"example.answer"}, "open": {"example.answer"},
    },
    "openo3": {"grounding": {"example.segments"}, "multiple_choice": {"example.segments"}},
}  # fmt: skip
"""What a format holds of some tasks beyond that."""

TAKES: dict[str, tuple[Task, ...]] = {
    "museg": ("grounding", "multi_segment"),
    "museg_eval": ("grounding", "multi_segment"),
    "taro": ("grounding",),
    "taro_eval": ("grounding", "multi_segment"),
    "openo3": ("grounding", "multiple_choice", "what_when_where", "open"),
}
"""Tasks of the formats that do not take all."""

ALL_TASKS: tuple[Task, ...] = ("multiple_choice", "grounding", "multi_segment", "what_when_where", "open")


def there_and_back(name: str, row: Row) -> tuple[dict[str, Any], Row]:
    """The record of a row in a format, through JSON, and what it reads as."""
    format = format_named(name)
    record = json.loads(encoded(write_row(format, row, 0, context(), own=False)))
    return record, read_row(format, Record("f:1", record), 0, context())


def said(row: Row) -> dict[str, Any]:
    return {name: value for name, value in facts(row).items() if value not in (None, "", (), [], {})}


def test_the_table_speaks_of_every_format() -> None:
    assert list(HOLDS) == list(MODULES)


@pytest.mark.parametrize("name", HOLDS)
def test_the_losses_of_an_episode_are_the_fields_that_the_format_does_not_hold(name: str) -> None:
    @settings(max_examples=15)
    @given(episodes(TAKES.get(name, ALL_TASKS)))
    def check(trajectory: Trajectory) -> None:
        row = Row(trajectory.example, trajectory=trajectory)
        _, back = there_and_back(name, row)
        before, after = said(row), facts(back)
        held = HOLDS[name] | ALSO.get(name, {}).get(trajectory.example.task, set())
        lost = set(losses(row, back, "trajectories", context()))
        kept = before.keys() & held
        # Of a field that is there in part (a skim's frames but not its crops') nothing is promised.
        assert lost >= {field for field in before if field not in held and not field.startswith("views.")}
        assert not lost & kept
        for field in kept - READ_FROM_REPLIES:
            if field in after:
                assert after[field] == before[field], field
        assert lost <= before.keys()

    check()


@pytest.mark.parametrize(
    "name", [name for name in HOLDS if name not in ("swift_sft", "openai", "trajectories", "trl")]
)
def test_a_question_comes_back_as_far_as_the_format_holds_it(name: str) -> None:
    @settings(max_examples=15)
    @given(questions(TAKES.get(name, ALL_TASKS)))
    def check(example: Example) -> None:
        extra = {"duration_seconds": 601.0}
        row = Row(example, extra=extra)
        _, back = there_and_back(name, row)
        held = HOLDS[name] | ALSO.get(name, {}).get(example.task, set())
        lost = set(losses(row, back, "examples", context()))
        keeps_duration = name in ("verl", "museg", "taro", "taro_eval")
        expected = {field for field in said(row) if field.startswith("example.") and field not in held}
        assert lost == expected | (set() if keeps_duration else {"extra.duration_seconds"})
        for field in said(Row(example)).keys() & held & QUESTION:
            assert facts(back)[field] == facts(row)[field], field
        assert back.extra.get("duration_seconds") == (601.0 if keeps_duration else None)

    check()


@pytest.mark.parametrize("name", ["swift_sft", "openai", "trajectories"])
@given(questions())
def test_formats_of_replies_refuse_a_question_alone(name: str, example: Example) -> None:
    with pytest.raises(RecordError, match=r"turns"):
        there_and_back(name, Row(example))


@pytest.mark.parametrize("name", TAKES)
@given(episodes())
def test_tasks_that_a_format_lacks_are_refused_by_name(name: str, trajectory: Trajectory) -> None:
    assume(trajectory.example.task not in TAKES[name])
    with pytest.raises(RecordError, match=r"'(task|segments)'"):
        there_and_back(name, Row(trajectory.example, trajectory=trajectory))


@pytest.mark.parametrize("name", HOLDS)
@settings(max_examples=12)
@given(data=st.data())
def test_whatever_an_episode_holds_is_held_or_named_or_refused(name: str, data: st.DataObject) -> None:
    """Texts of any kind, times of any kind: nothing changes in silence, and nothing but a refusal is raised."""
    trajectory = data.draw(st.none() | any_trajectories)
    row = (
        Row(data.draw(any_examples)) if trajectory is None else Row(trajectory.example, trajectory=trajectory)
    )
    try:
        _, back = there_and_back(name, row)
    except RecordError as error:
        assert str(error)
        return
    lost = losses(row, back, "trajectories", context())
    after = facts(back)
    for field, value in said(row).items():
        if field in lost or field not in after or value == after[field] or not any(map(bool, value)):
            continue
        # A view's rate that nobody said may be a reader's own.
        assert field == "views.fps" and len(value) == len(after[field])
        assert all(one in (None, other) for one, other in zip(value, after[field], strict=True))


@pytest.mark.parametrize("name", ["swift_sft", "swift_rl", "trl", "openai", "verl"])
def test_a_still_in_a_prompt_is_named_by_its_time(name: str) -> None:
    still = FrameRef(
        video="v.mp4", view="image", start_seconds=2.5, end_seconds=2.5, at_seconds=(2.5,), size_wh=(8, 8)
    )
    example = Example(id="a", video="v.mp4", question="What is it?", answer="a cup")
    reply = Turn(generation=Generation(text="<think>A cup.</think><answer>a cup</answer>"))
    asked = Message(role="user", parts=(Text(text="Look:"), still, Text(text="\nWhat is it?")))
    trajectory = Trajectory(
        example=example,
        policy="p",
        protocol="videotemp",
        prompt=(asked,),
        turns=(reply,),
        stop=StopReason.ANSWERED,
    )
    row = Row(example, trajectory=trajectory)
    record, back = there_and_back(name, row)
    assert "v.mp4#t=2.5" in json.dumps(record)
    assert (
        not {"prompt", "views.video", "views.view", "views.at_seconds"}
        & losses(row, back, "x", context()).keys()
    )


@pytest.mark.parametrize(("name", "held"), [("trl", True), ("openai", False), ("swift_sft", True)])
def test_two_crops_in_one_message_stay_two_or_are_said_not_to(name: str, held: bool) -> None:
    crops = tuple(
        FrameRef(
            video="v.mp4", view="crop", start_seconds=start, end_seconds=start + 2, at_seconds=(start, start + 1),
            size_wh=(8, 8),
        )
        for start in (2.0, 6.0)
    )  # fmt: skip
    shown = Message(role="user", parts=(*crops, Text(text="\nThere.")))
    first = Turn(generation=Generation(text="<think>Closer.</think>"), observation=shown)
    last = Turn(generation=Generation(text="<think>A cup.</think><answer>a cup</answer>"))
    asked = Message(role="user", parts=(Text(text="What is it?"),))
    trajectory = Trajectory(
        example=Example(id="a", video="v.mp4", question="What is it?"), policy="p", protocol="videotemp",
        prompt=(asked,), turns=(first, last), stop=StopReason.ANSWERED,
    )  # fmt: skip
    row = Row(trajectory.example, trajectory=trajectory)
    _, back = there_and_back(name, row)
    told = {"views.video", "turns.observation"} & losses(row, back, "x", context()).keys()
    assert told == (set() if held else {"views.video", "turns.observation"})
