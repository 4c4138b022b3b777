"""Stages played over real videos with a scripted labeller: provenance, failing calls, videos that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.build.by_hand import kit, look, think
from tests.data.build.rows import steady
from tests.environment.clips import colour_of, seconds_of
from timeloupe.data.build.labelling import Labeller, Patience
from timeloupe.data.build.record import FAULT, VIDEO, BuiltRow
from timeloupe.data.build.stages.direct import DirectStage, direct
from timeloupe.data.build.stages.ground import GroundStage, ground
from timeloupe.data.build.steps import Ask, BoxCrop, Kit, Outcome, Plan
from timeloupe.environment.replay import trajectory_messages
from timeloupe.environment.rollout import derive_seed, play
from timeloupe.errors import PolicyError
from timeloupe.model.load import load_model
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.scripted import ScriptedPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.train.rows import to_episode, trajectory_row
from timeloupe.trajectory import Box, Example, Generation, Segment, Usage
from timeloupe.video.cache import FrameCache

PRICE = (2.0, 10.0)
SEGMENT = (Segment(start_seconds=6, end_seconds=8),)
TWICE = {"reground_over_seconds": 0}


def some_kit(**prompts: str) -> Kit:
    return kit(
        prompts=prompts, skim_frames=4, crop_max_frames=4, frame_size_wh=(64, 64), video_deadline_seconds=None
    )


def choice(video: str, id: str = "a", answer: str = "B") -> Example:
    return Example(
        id=id, video=video, question="Which?", options=("x", "y"), answer=answer, segments=SEGMENT,
        task="multiple_choice",
    )  # fmt: skip


class Spy:
    """A scripted policy that keeps what it was asked and counts tokens; calls fail as told.

    Args:
        replies: By ``purpose:id``; one turn for each number of earlier replies.
        fails: (key, earlier replies) to how many calls of it fail before one does not.
    """

    name = "spy"

    def __init__(
        self, replies: dict[str, list[str]], fails: dict[tuple[str, int], int] | None = None
    ) -> None:
        self.script = ScriptedPolicy.from_replies(
            {key: [Generation(text=text, usage=Usage(prompt_tokens=1000, completion_tokens=100),
                              token_ids=(1, 2), logprobs=(-0.1, -0.2)) for text in turns]
             for key, turns in replies.items()}
        )  # fmt: skip
        self.fails = dict(fails or {})
        self.requests: list[GenerationRequest] = []
        self.num_calls = 0

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        self.num_calls += 1
        self.requests += requests
        found = self.script.generate(requests)
        for at, request in enumerate(requests):
            key = (request.example_id, len(request.generations))
            if self.fails.get(key, 0) > 0:
                self.fails[key] -= 1
                if len(requests) == 1 and self.fails[key] % 2:
                    raise PolicyError("the server is down")
                found[at] = Generation(text="", finish="error", error="engine died")
        return found


def labeller(policy: Spy, kit: Kit | None = None, tries: int = 5) -> Labeller:
    return Labeller(
        policy, kit or some_kit(), FrameCache(1 << 26), PRICE, Patience(tries), sleep=lambda seconds: None
    )


def ground_rows(policy: Spy, examples: Sequence[Example], tries: int = 5, **part: object) -> list[BuiltRow]:
    found = labeller(policy, tries=tries)
    stage = GroundStage(kind="ground", **part)  # type: ignore[arg-type]
    return found.work("ground", examples, lambda example: ground(example, stage, found.kit))


def twice_replies(id: str = "a") -> dict[str, list[str]]:
    """A wrong segment, seen to be wrong, then another one."""
    return {
        f"ground:{id}": [look((1, 3))],
        f"alone:{id}": [think("A")],
        f"reground:{id}": ["-", look((6, 8))],
        f"process:{id}": ["-", "-", think("B")],
    }


class Answers:
    """Right from the segment at 6 s, wrong from any other, as a labeller that sees would be."""

    def __init__(self, spy: Spy) -> None:
        self.spy, self.name = spy, spy.name

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        found = self.spy.generate(requests)
        for at, request in enumerate(requests):
            if request.example_id.startswith("alone:") and found[at].finish != "error":
                right = seconds_of(request.clips[0])[0] >= 6
                found[at] = found[at].model_copy(update={"text": think("B" if right else "A")})
        return found


def twice_row(spy: Spy, video: str, **prompts: str) -> BuiltRow:
    found = replace(labeller(spy, some_kit(**prompts)), policy=Answers(spy))
    stage = GroundStage(kind="ground", reground_over_seconds=0)
    [row] = found.work("ground", [choice(video)], lambda one: ground(one, stage, found.kit))
    return row


def test_everything_asked_is_in_the_row(clips: dict[str, str]) -> None:
    used = some_kit(ground="Find it.", alone="Only this.", process="All of it.")
    spy = Spy({"ground:a": [look((6, 8))], "alone:a": [think("B")], "process:a": ["-", think("B")]})
    found = labeller(spy, used)
    stage = GroundStage(kind="ground")
    [row] = found.work("first", [choice(clips["red"])], lambda one: ground(one, stage, used))
    assert (row.kept, row.reason, row.stage, row.id, row.labeller) == (True, "once", "first", "a", "by-hand")
    assert [one.purpose for one in row.asked] == ["ground", "alone", "process"]
    assert [one.reply for one in row.asked] == [look((6, 8)), think("B"), think("B")]
    assert [[view.view for view in one.views] for one in row.asked] == [["skim"], ["crop"], ["skim", "crop"]]
    crop = row.asked[1].views[0]
    assert (crop.start_seconds, crop.end_seconds, crop.num_frames, crop.box) == (6.0, 8.0, 4, None)
    assert [one.segments for one in row.asked] == [SEGMENT, (), ()]
    assert [one.right for one in row.asked] == [None, True, True]
    assert [one.tries for one in row.asked] == [1, 1, 1]
    assert all(one.usage.prompt_tokens == 1000 and one.seconds >= 0 for one in row.asked)
    assert row.asked[0].cost == pytest.approx((2.0 * 1000 + 10.0 * 100) / 1e6)
    assert row.cost == pytest.approx(3 * (2.0 * 1000 + 10.0 * 100) / 1e6)
    assert len({one.prompt_sha256 for one in row.asked}) == 3
    # What was shown is what the record says.
    assert [request.example_id for request in spy.requests] == ["ground:a", "alone:a", "process:a"]
    assert [colour_of(clip) for request in spy.requests for clip in request.clips] == ["red"] * 4
    assert set(seconds_of(spy.requests[1].clips[0])) == {6, 7}
    # The labeller's own token ids would be read as the learner's.
    assert row.trajectory is not None
    assert all(turn.generation.token_ids is None for turn in row.trajectory.turns)


def test_other_words_are_another_prompt(clips: dict[str, str]) -> None:
    def asked(words: str) -> tuple[str, int]:
        spy = Spy({"direct:a": [think("B")]})
        found = labeller(spy, some_kit(direct=words))
        part = DirectStage(kind="direct")
        [row] = found.work("direct", [choice(clips["red"])], lambda one: direct(one, part, found.kit))
        return row.asked[0].prompt_sha256, spy.requests[0].seed

    assert asked("Teach.") == asked("Teach.")
    assert asked("Teach.")[0] != asked("Teach!")[0]
    assert asked("Teach.")[1] == asked("Teach!")[1], "the seed is the item's"


def test_without_a_price_nothing_is_said_of_the_cost(clips: dict[str, str]) -> None:
    found = replace(labeller(Spy({"direct:a": [think("B")]})), price=None)
    part = DirectStage(kind="direct")
    [row] = found.work("direct", [choice(clips["red"])], lambda one: direct(one, part, found.kit))
    assert row.asked[0].cost is None and row.cost is None


# -- failing calls -----------------------------------------------------------------------------------------------------


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fails=st.dictionaries(st.sampled_from(["ground", "alone", "reground", "process"]), st.integers(1, 4)))
def test_failing_calls_cost_tries_and_change_no_row(clips: dict[str, str], fails: dict[str, int]) -> None:
    earlier = {"ground": 0, "alone": 0, "reground": 1, "process": 2}
    failing = {(f"{name}:a", earlier[name]): number for name, number in fails.items()}
    calm, bad = Spy(twice_replies()), Spy(twice_replies(), failing)
    quiet, row = twice_row(calm, clips["red"]), twice_row(bad, clips["red"])
    assert quiet.reason == "twice" and steady(row) == steady(quiet)
    assert sum(one.tries for one in row.asked) == len(row.asked) + sum(fails.values())
    # The same call again, not another one: one seed for each key and round.
    seeds = {(request.example_id, len(request.generations), request.seed) for request in bad.requests}
    assert seeds == {
        (request.example_id, len(request.generations), request.seed) for request in calm.requests
    }
    assert row.cost == pytest.approx(quiet.cost)


def test_a_call_that_keeps_failing_is_a_fault_of_its_row_alone(clips: dict[str, str]) -> None:
    replies = {f"ground:{id}": [look((6, 8))] for id in "ab"} | {f"alone:{id}": [think("B")] for id in "ab"}
    replies |= {f"process:{id}": ["-", think("B")] for id in "ab"}
    spy = Spy(replies, {("alone:a", 0): 99})
    lost, whole = ground_rows(spy, [choice(clips["red"], "a"), choice(clips["green"], "b")], tries=3)
    assert (lost.kept, lost.reason, lost.detail) == (False, FAULT, "engine died")
    assert [(one.purpose, one.finish, one.tries) for one in lost.asked] == [
        ("ground", "stop", 1),
        ("alone", "error", 3),
    ]
    assert lost.cost == pytest.approx((2.0 * 1000 + 10.0 * 100) / 1e6), "what failed is not billed"
    assert (whole.kept, whole.reason) == (True, "once")
    assert Counter(request.example_id for request in spy.requests)["alone:b"] == 1


def test_waits_double_between_tries(clips: dict[str, str]) -> None:
    waits: list[float] = []
    spy = Spy({"direct:a": [think("B")]}, {("direct:a", 0): 99})
    found = replace(labeller(spy, tries=9), sleep=waits.append)
    part = DirectStage(kind="direct")
    [row] = found.work("direct", [choice(clips["red"])], lambda one: direct(one, part, found.kit))
    assert row.asked[0].tries == 9 == spy.num_calls
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


# -- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_gives_the_rows_of_its_items_alone(clips: dict[str, str]) -> None:
    examples = [choice(clips["red"], "a"), choice(clips["green"], "b", "A"), choice(clips["red"], "c")]
    replies = twice_replies("a") | {
        "ground:b": [look((1, 2))], "alone:b": [think("A")], "process:b": ["-", think("A")], "ground:c": ["hm"],
    }  # fmt: skip

    def made(batches: list[list[Example]]) -> list[BuiltRow]:
        spy = Spy(replies)
        return [row for batch in batches for row in ground_rows(spy, batch, **TWICE)]

    together, apart = made([examples]), made([[one] for one in examples])
    assert [steady(row) for row in together] == [steady(row) for row in apart]
    assert [row.reason for row in together] == ["wrong_alone", "once", "no_segment"]
    spy = Spy(replies)
    ground_rows(spy, examples, **TWICE)
    assert spy.num_calls < len(spy.requests), "the batch is not asked as one"
    first = next(request for request in spy.requests if request.example_id == "ground:a")
    assert first.seed == derive_seed(5, "ground:ground:a", 0, 0)


# -- videos ------------------------------------------------------------------------------------------------------------


def test_a_video_that_cannot_be_read_is_a_reason_of_its_own(clips: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    spy = Spy({"ground:b": [look((6, 8))], "alone:b": [think("B")], "process:b": ["-", think("B")]})
    bad, gone, good = ground_rows(
        spy, [choice(str(broken)), choice(str(tmp_path / "gone.mp4"), "g"), choice(clips["red"], "b")]
    )
    for row in (bad, gone):
        assert (row.kept, row.reason, row.asked) == (False, VIDEO, ())
        assert "cannot read video" in row.detail and row.example.video in row.detail
    assert good.kept


def test_a_box_is_written_down_with_its_view(clips: dict[str, str]) -> None:
    box = Box(at_seconds=2, x1=0, y1=0, x2=0.5, y2=1)
    found = labeller(Spy({"look:a": ["fine"]}))

    def plan(example: Example) -> Plan:
        for number in range(3):
            view = yield BoxCrop(box.model_copy(update={"x1": 0.1 * number}))
            messages = found.kit.first(example, [view], tools=False)
            yield Ask("look", messages, (view,), example, round=number)
        return Outcome(True, "done")

    [row] = found.work("look", [choice(clips["green"])], plan)
    assert [one.views[0].box.x1 for one in row.asked if one.views[0].box] == pytest.approx([0, 0.1, 0.2])
    assert [one.views[0].view for one in row.asked] == ["image"] * 3


# -- what is learnt from a row -----------------------------------------------------------------------------------------


def test_a_twice_row_is_the_episode_that_the_protocol_shows(clips: dict[str, str]) -> None:
    row = twice_row(Spy(twice_replies()), clips["red"], ground="Go.", reground="Again.")
    assert row.trajectory is not None and row.reason == "twice"
    said = [turn.generation.text for turn in row.trajectory.turns]
    assert said == [look((1, 3)), look((6, 8)), think("B")]
    policy, used = ScriptedPolicy.from_replies({"*": said}), some_kit()
    [played] = play([row.example], policy, used.protocol, used.settings, seed=0)
    assert trajectory_messages(row.trajectory) == trajectory_messages(played)
    for one, other in zip(row.trajectory.turns, played.turns, strict=True):
        assert (one.call, one.answer, one.thought, one.problem) == (
            other.call, other.answer, other.thought, other.problem,
        )  # fmt: skip


def test_the_unified_mask_hides_the_wrong_first_call(clips: dict[str, str]) -> None:
    row = twice_row(Spy(twice_replies()), clips["red"])
    assert row.trajectory is not None
    loaded = load_model(SMALL_CHECKPOINT, device="cpu")
    learnt = trajectory_row(row.trajectory)
    assert learnt.num_turns == 3 and [len(clip) for clip in learnt.clips] == [4, 4, 4]
    episode = to_episode(learnt, loaded, "last_two_turns")
    targets = [token for part in episode.segments for token in part.token_ids if part.trained]
    text = loaded.tokenizer.decode(targets)
    assert '"start_time":6' in text and "<answer>B" in text
    assert '"start_time":1' not in text
    whole = loaded.tokenizer.decode(to_episode(learnt, loaded, "all_turns").token_ids)
    assert '"start_time":1' in whole, "the first call stays in the context"
