"""The stage ``difficulty``: tries as episodes, pass rates, the split for reinforcement learning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.data.build.by_hand import choice, driven, kit, look, moment, think
from tests.video.painting import write_clip
from timeloupe.data.build.labelling import Labeller
from timeloupe.data.build.record import BuiltRow
from timeloupe.data.build.stages.attempt import attempt
from timeloupe.data.build.stages.difficulty import (
    DifficultyStage,
    difficulty,
    kind_of,
    rl_split,
    split_facts,
    turns_of_a_try,
)
from timeloupe.data.build.steps import Ask, Kit, Outcome, Plan, Skim
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.scripted import ScriptedPolicy
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, Generation, StopReason
from timeloupe.video.cache import FrameCache


def stage(**options: object) -> DifficultyStage:
    return DifficultyStage.model_validate({"kind": "difficulty"} | options)


def test_tries_are_episodes_with_turns_samples_and_a_temperature() -> None:
    tools = kit()

    def reply(ask: Ask) -> str:
        return look((20, 30)) if ask.round == 0 else think("B" if ask.sample < 3 else "C")

    outcome, asks, replies = driven(
        difficulty(choice(), stage(samples=4, temperature=0.7), tools), tools, reply
    )
    assert (outcome.kept, outcome.reason, outcome.detail) == (True, "kept", "3 of 4 right")
    assert outcome.figures == {"pass_rate": 0.75, "mean_calls": 1.0}
    assert [(ask.sample, ask.round) for ask in asks] == [(n, t) for n in range(4) for t in range(2)]
    assert {ask.temperature for ask in asks} == {0.7}
    assert [len(ask.views) for ask in asks] == [1, 2] * 4 and [len(ask.generations) for ask in asks] == [
        0,
        1,
    ] * 4
    assert [one.right for one in replies] == [None, True, None, True, None, True, None, False]


@pytest.mark.parametrize(
    ("rights", "options", "reason"),
    [
        (0, {}, "too_hard"), (1, {}, "kept"), (3, {}, "kept"), (4, {}, "too_easy"),
        (0, {"min_pass": 0}, "kept"), (4, {"max_pass": 1}, "kept"),
        (1, {"min_pass": 0.25}, "kept"), (1, {"min_pass": 0.3}, "too_hard"), (3, {"max_pass": 0.7}, "too_easy"),
    ],
)  # fmt: skip
def test_pass_rates_at_the_bounds(rights: int, options: dict[str, float], reason: str) -> None:
    tools = kit()
    part = stage(samples=4, tools=False, **options)
    outcome, asks, _ = driven(
        difficulty(choice(), part, tools), tools, lambda ask: think("B" if ask.sample < rights else "A")
    )
    assert outcome.reason == reason and outcome.kept == (reason == "kept")
    assert len(asks) == 4 and {ask.purpose for ask in asks} == {"single"}


def test_bounds_that_no_number_of_tries_meets_are_refused() -> None:
    stage(samples=1, min_pass=0, max_pass=1)
    for options in (
        {"samples": 1},
        {"min_pass": 0.6, "max_pass": 0.5},
        {"samples": 4, "min_pass": 0.3, "max_pass": 0.45},
    ):
        with pytest.raises(ValidationError, match="no number of right tries out of"):
            stage(**options)


def test_a_grounding_has_its_mean_iou() -> None:
    tools = kit()
    said = {0: think("[20, 30]"), 1: think("[20, 40]"), 2: think("[90, 99]"), 3: "<think>Nothing."}
    outcome, _, _ = driven(difficulty(moment(), stage(samples=4), tools), tools, lambda ask: said[ask.sample])
    assert outcome.figures == {"pass_rate": 0.5, "mean_calls": 0.0, "mean_iou": pytest.approx(1.5 / 4)}
    assert outcome.detail == "2 of 4 right, 1 without an answer"


def test_a_row_without_a_label_is_not_tried() -> None:
    tools = kit()
    outcome, asks, _ = driven(difficulty(choice(answer=None), stage(), tools), tools, lambda ask: think("B"))
    assert (outcome.reason, asks) == ("no_label", [])


def test_where_the_settings_offer_no_tool_there_is_none() -> None:
    tools = kit(tools=False)
    _, asks, _ = driven(difficulty(choice(), stage(samples=2), tools), tools, lambda ask: look((1, 2)))
    assert [ask.purpose for ask in asks] == ["single"] * 2
    assert turns_of_a_try(stage(), EpisodeSettings(max_turns=5)) == 5
    assert turns_of_a_try(stage(tools=False), EpisodeSettings(max_turns=5)) == 1


REPLIES: dict[str, list[str | Generation]] = {
    "at once": [think("B")],
    "one look": [look((1, 2)), think("B")],
    "two segments": [look((1, 2), (3, 4)), think("A")],
    "a segment that cannot be cut": [look((90, 95)), think("B")],
    "one of two cannot be cut": [look((1, 2), (90, 95)), look((2, 3)), think("B")],
    "a call that is refused": [look((3, 2)), think("B")],
    "too many segments": [look((0, 1), (1, 2), (2, 3), (3, 4)), think("B")],
    "never answers": [look((1, 2)), look((2, 3)), look((3, 4))],
    "not a reply": ["hello", think("B")],
    "cut": [Generation(text="<think>So", finish="length"), think("B")],
    "a refused call that was cut": [Generation(text=look((3, 2)), finish="length"), think("B")],
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4").path)


class _Recording:
    """Asks another policy and remembers what it was shown."""

    name = "recording"

    def __init__(self, inner: ScriptedPolicy) -> None:
        self.inner, self.asked = inner, []

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        self.asked += [(one.messages, one.sampling, len(one.generations)) for one in requests]
        self.asked += [("pixels", *(int(clip.sum()) for clip in one.clips)) for one in requests]
        return self.inner.generate(requests)


@pytest.mark.parametrize("replies", REPLIES.values(), ids=REPLIES)
def test_a_try_asks_and_ends_as_a_rollout_does(replies: list[str | Generation], clip: str) -> None:
    example = choice(video=clip)
    settings = EpisodeSettings(
        temperature=0.9, video_deadline_seconds=None, skim_frames=4, crop_margin_intervals=1.0
    )
    rollout = _Recording(ScriptedPolicy.from_replies({"c": replies}))
    played = play([example], rollout, PROTOCOLS["videotemp"], settings, seed=0)[0]

    def plan(example: Example, kit: Kit) -> Plan:
        skim = yield Skim()
        one = yield from attempt(example, kit, skim, tools=True, sample=0, temperature=0.9)
        return Outcome(one.right, one.answer.text if one.answer else "", figures={"calls": one.calls})

    tried = _Recording(ScriptedPolicy.from_replies({"attempt:c": replies}))
    of_stage = Kit(PROTOCOLS["videotemp"], settings, {}, "scripted", seed=0)
    labeller = Labeller(tried, of_stage, FrameCache(2**24))
    (row,) = labeller.work("try", [example], lambda example: plan(example, of_stage))
    assert tried.asked == rollout.asked
    assert row.reason == (played.answer.text if played.answer else "")
    assert row.kept == (played.stop == StopReason.ANSWERED and row.reason == "B")
    looked = sum(turn.call is not None or (turn.observation is not None) for turn in played.turns)
    assert row.figures["calls"] == looked


def built(example: Example, kept: bool = True) -> BuiltRow:
    return BuiltRow(stage="s", id=example.id, example=example, kept=kept, reason="kept", labeller="nobody")


def many(qa: int, grounding: int) -> list[BuiltRow]:
    rows = [built(choice(f"c{n}")) for n in range(qa)] + [built(moment(f"m{n}")) for n in range(grounding)]
    return sorted(rows, key=lambda row: row.id[1:])


@given(
    st.integers(0, 40), st.integers(0, 40), st.none() | st.floats(0, 1), st.none() | st.integers(1, 90),
    st.integers(0, 5),
)  # fmt: skip
def test_the_split_has_the_share_and_cannot_be_larger(
    qa: int, grounding: int, share: float | None, size: int | None, seed: int
) -> None:
    rows = many(qa, grounding)
    part = stage(qa_share=share, size=size, seed=seed)
    drawn = rl_split(rows, part)
    ids = [row.id for row in drawn]
    assert len(set(ids)) == len(ids) and ids == [row.id for row in rows if row.id in set(ids)]
    assert ids == [row.id for row in rl_split(rows, part)]
    assert set(ids) == {row.id for row in rl_split(rows[::-1], part)}
    most = len(rows) if size is None else min(size, len(rows))
    of_qa = sum(kind_of(row.example) == "qa" for row in drawn)
    if share is None:
        assert len(drawn) == most
        return
    assert len(drawn) <= most and of_qa == round(len(drawn) * share)
    for larger in range(len(drawn) + 1, most + 1):
        wanted = round(larger * share)
        assert wanted > qa or larger - wanted > grounding


def test_the_split_of_the_release_and_what_it_says(tmp_path: Path) -> None:
    part = stage(qa_share=2.8 / 6, size=60)
    rows = [*many(40, 40), built(moment("hard"), kept=False)]
    drawn = rl_split([row for row in rows if row.kept], part)
    facts = split_facts(tmp_path, rows, drawn, part)
    assert facts["split"] == {"qa": {"kept": 40, "handed_on": 28}, "grounding": {"kept": 40, "handed_on": 32}}
    assert facts["notes"] == [
        "28 of 40 qa rows and 32 of 40 grounding rows handed on: the split leaves 20 out"
    ]
    few = split_facts(tmp_path, rows, rl_split(many(0, 40), part), part)
    assert "not more in that share" in few["notes"][1]
    assert rl_split(many(3, 3), stage(seed=1)) == many(3, 3)
    assert {row.id for row in rl_split(many(9, 9), stage(size=6, seed=1))} != {
        row.id for row in rl_split(many(9, 9), stage(size=6, seed=2))
    }
