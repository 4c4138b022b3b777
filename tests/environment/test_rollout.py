"""The episode loop: every way an episode can end, and that episodes do not touch each other."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.environment.clips import COLOURS, colour_of, seconds_of, write_clip
from timeloupe.environment.rollout import (
    EpisodeFinished,
    EpisodeStarted,
    Event,
    TurnFinished,
    derive_seed,
    play,
)
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import PolicyError
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.scripted import ScriptedPolicy
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, Generation, StopReason, Trajectory, to_line
from timeloupe.video.cache import FrameCache

PROTOCOL = PROTOCOLS["videotemp"]
SETTINGS = EpisodeSettings(skim_frames=8, crop_max_frames=16, frame_size_wh=(64, 64))
OPTIONS = ("a cat", "a dog", "a fish")


def look(*segments: tuple[float, float], thought: str = "Closer.") -> str:
    """A reply that asks to look."""
    arguments = [{"start_time": start, "end_time": end} for start, end in segments]
    call = json.dumps({"name": "get_video_clip_frame", "arguments": arguments})
    return f"<think>{thought}</think><tool_call>{call}</tool_call>"


def answer(text: str = "C") -> str:
    """A reply that answers."""
    return f"<think>Seen.</think><answer>{text}</answer>"


def example(video: str, id: str = "a") -> Example:
    return Example(id=id, video=video, question="What is it?", options=OPTIONS, task="multiple_choice")


class Recorder:
    """A scripted policy that keeps every batch of requests it was given."""

    name = "recorder"

    def __init__(self, *turns: str | Generation, **replies: Sequence[str | Generation]) -> None:
        self.script = ScriptedPolicy.from_replies({"*": turns, **replies} if turns else replies)
        self.batches: list[list[GenerationRequest]] = []

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        self.batches.append(list(requests))
        return self.script.generate(requests)


def play_one(video: str, *turns: str | Generation, settings: EpisodeSettings = SETTINGS) -> Trajectory:
    policy = ScriptedPolicy.from_replies({"*": turns})
    return play([example(video)], policy, PROTOCOL, settings, seed=0)[0]


def without_times(trajectory: Trajectory) -> str:
    """The record without wall times."""
    turns = tuple(turn.model_copy(update={"seconds": 0.0}) for turn in trajectory.turns)
    return to_line(trajectory.model_copy(update={"seconds": 0.0, "turns": turns}))


# How an episode ends


def test_look_then_answer(clips: dict[str, str]) -> None:
    found = play_one(clips["red"], look((4, 8)), answer())
    assert found.stop is StopReason.ANSWERED and found.problem is None
    assert found.answer is not None and found.answer.option == "C"
    assert [ref.view for ref in (*found.skims, *found.crops)] == ["skim", "crop"]
    assert [segment.start_seconds for segment in found.evidence] == [4.0]
    assert found.turns[0].thought == "Closer." and found.turns[0].problem is None
    assert found.frames_decoded > 0 and found.seconds > 0 and found.turns[0].seconds > 0
    assert (found.policy, found.protocol, found.settings["skim_frames"]) == ("scripted", "videotemp", 8)
    assert Trajectory.model_validate_json(to_line(found)) == found


def test_the_last_turn_must_answer_and_its_call_stays_in_the_record(clips: dict[str, str]) -> None:
    found = play_one(clips["red"], look((1, 2)), look((3, 4)), look((5, 6)))
    assert found.stop is StopReason.MAX_TURNS and found.problem is None
    assert len(found.turns) == 3 and len(found.crops) == 2
    last = found.turns[-1]
    assert last.call is not None and last.call.segments[0].start_seconds == 5.0
    assert last.observation is None and found.answer is None


def test_a_reply_that_was_cut_off(clips: dict[str, str]) -> None:
    cut = Generation(text="<think>Well, let me", finish="length")
    found = play_one(clips["red"], look((1, 2)), cut)
    assert found.stop is StopReason.MAX_TOKENS
    assert found.turns[-1].problem is not None and found.turns[-1].generation == cut
    half = Generation(text="<think>x</think><answer>C", finish="length")
    assert play_one(clips["red"], half).stop is StopReason.MAX_TOKENS, "half an answer is none"
    whole = Generation(text=answer(), finish="length")
    assert play_one(clips["red"], whole).stop is StopReason.ANSWERED


@pytest.mark.parametrize(
    "text", ["", "It is a fish.", "<think>x</think>", "<think>x</think><tool_call>{}</tool_call>"]
)
def test_a_reply_that_says_nothing(clips: dict[str, str], text: str) -> None:
    found = play_one(clips["red"], text, answer())
    assert found.stop is StopReason.FORMAT
    assert found.problem is not None and found.problem == found.turns[0].problem
    assert len(found.turns) == 1 and found.turns[0].generation.text == text


def test_a_closing_tag_that_the_server_took_away_is_no_problem(clips: dict[str, str]) -> None:
    found = play_one(clips["red"], look((4, 8)).removesuffix("</tool_call>"), "<think>x</think><answer>C")
    assert found.stop is StopReason.ANSWERED and len(found.crops) == 1
    assert found.answer is not None and (found.answer.text, found.answer.option) == ("C", "C")


def test_times_of_an_answer_are_read_as_they_are_written(clips: dict[str, str]) -> None:
    when = Example(id="a", video=clips["red"], question="When?", task="grounding")
    for text, start, end in (
        ("24.3-30.4", 24.3, 30.4),
        ("00:24 - 00:30", 24.0, 30.0),
        ("[4, 8.5]", 4.0, 8.5),
    ):
        policy = ScriptedPolicy.from_replies({"*": [answer(text)]})
        (segment,) = play([when], policy, PROTOCOL, SETTINGS, seed=0)[0].evidence
        assert (segment.start_seconds, segment.end_seconds) == (start, end)


def test_a_server_that_fails_is_the_machines_fault(clips: dict[str, str]) -> None:
    found = play_one(clips["red"], look((1, 2)), Generation(text="", finish="error", error="out of memory"))
    assert found.stop is StopReason.INFRASTRUCTURE
    assert found.problem is not None and (found.problem.reason, found.problem.message) == (
        "policy",
        "out of memory",
    )
    assert len(found.turns) == 2 and len(found.crops) == 1


def test_a_policy_that_raises_loses_no_episode(clips: dict[str, str]) -> None:
    class Dead:
        name = "dead"

        def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
            raise PolicyError("connection refused")

    found = play([example(clips["red"]), example(clips["blue"], "b")], Dead(), PROTOCOL, SETTINGS, seed=0)
    assert [item.stop for item in found] == [StopReason.INFRASTRUCTURE] * 2
    assert all(item.problem is not None and item.problem.message == "connection refused" for item in found)


def test_an_episode_that_takes_too_long_ends_and_one_that_has_answered_does_not(
    clips: dict[str, str],
) -> None:
    class Slow(Recorder):
        def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
            ends = [request.give_up_at for request in requests]
            time.sleep(max(max(end or 0.0 for end in ends) - time.perf_counter(), 0) + 0.02)
            return super().generate(requests)

    policy = Slow(
        a=[answer()], b=[look((1, 2)), answer()], c=[Generation(text="", finish="error", error="stalled")]
    )
    here = SETTINGS.model_copy(update={"video_deadline_seconds": None})
    examples = [example(clips["red"], id) for id in "abc"]
    fast, slow, stalled = play(examples, policy, PROTOCOL, here, seed=0, deadline_seconds=2)
    assert fast.stop is StopReason.ANSWERED and len(policy.batches) == 1
    for late in (slow, stalled):
        assert late.stop is StopReason.INFRASTRUCTURE and len(late.turns) == 1
        assert late.problem is not None and late.problem.reason == "deadline"
        assert "no end after 2 s" in late.problem.message
    assert stalled.problem is not None and stalled.problem.message.endswith(": stalled")
    recorder = Recorder(b=[look((1, 2)), answer()])
    (whole,) = play(examples[1:2], recorder, PROTOCOL, here, seed=0, deadline_seconds=600)
    assert whole.stop is StopReason.ANSWERED


def test_a_policy_that_miscounts_is_a_programmers_error(clips: dict[str, str]) -> None:
    class Short:
        name = "short"

        def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
            return []

    with pytest.raises(ValueError, match="one generation per request"):
        play([example(clips["red"])], Short(), PROTOCOL, SETTINGS, seed=0)


def test_unreadable_videos_stay_in_the_record(clips: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video" * 100)
    policy = Recorder(answer())
    rows = [example(str(tmp_path / "none.mp4"), "1"), example(clips["red"], "2"), example(str(broken), "3")]
    found = play(rows, policy, PROTOCOL, SETTINGS, seed=0)
    assert [item.example.id for item in found] == ["1", "2", "3"]
    assert [item.stop.value for item in found] == ["infrastructure", "answered", "infrastructure"]
    assert found[0].problem is not None and found[0].problem.reason == "video"
    assert "none.mp4" in found[0].problem.message and found[0].turns == ()
    assert [[request.example_id for request in batch] for batch in policy.batches] == [["2"]]


def test_a_video_that_fails_between_turns_is_the_machines_fault(
    clips: dict[str, str], tmp_path: Path
) -> None:
    video = tmp_path / "gone.mp4"
    video.write_bytes(Path(clips["red"]).read_bytes())

    def drop(event: Event) -> None:
        if isinstance(event, EpisodeStarted):
            video.unlink()

    policy = ScriptedPolicy.from_replies({"*": [look((4, 8)), answer()]})
    found = play([example(str(video))], policy, PROTOCOL, SETTINGS, seed=0, on_event=drop)[0]
    assert found.stop is StopReason.INFRASTRUCTURE
    assert found.problem is not None and found.problem.reason == "video"
    assert len(found.turns) == 1 and found.turns[0].call is not None and found.turns[0].observation is None


# What the tool refuses


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([(50.0, 60.0)], "segment_beyond_end"),
        ([(5.0, 5.0)], "segment_empty"),
        ([(-3.0, 5.0)], "segment_negative"),
        ([(1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0)], "too_many_segments"),
    ],
)
def test_a_refused_call_is_told_and_the_episode_goes_on(
    clips: dict[str, str], segments: list[tuple[float, float]], reason: str
) -> None:
    policy = Recorder(look(*segments), answer())
    found = play([example(clips["red"])], policy, PROTOCOL, SETTINGS, seed=0)[0]
    assert found.stop is StopReason.ANSWERED
    turn = found.turns[0]
    assert turn.problem is not None and turn.problem.reason == reason
    assert turn.observation is not None and turn.observation.frame_refs == ()
    assert turn.problem.message in turn.observation.text
    assert policy.batches[1][0].messages[-1] == turn.observation
    assert found.evidence == ()


def test_what_can_be_cut_is_shown_beside_what_cannot(clips: dict[str, str]) -> None:
    found = play_one(clips["red"], look((2, 4), (90, 99), (10, 12)), answer())
    turn = found.turns[0]
    assert turn.observation is not None and turn.problem is not None
    assert [ref.start_seconds for ref in turn.observation.frame_refs] == [2.0, 10.0]
    assert turn.problem.reason == "segment_beyond_end" and "[90, 99]" in turn.observation.text


def test_an_unreadable_call_on_the_last_turn_ends_the_episode(clips: dict[str, str]) -> None:
    found = play_one(clips["red"], look((5, 5)), look((5, 5)), look((5, 5)))
    assert found.stop is StopReason.FORMAT and len(found.turns) == 3


def test_crops_are_widened_by_an_interval_of_the_view_before(clips: dict[str, str]) -> None:
    settings = SETTINGS.model_copy(
        update={"crop_margin_intervals": 1.0, "crop_min_frames": 10, "crop_max_frames": 10}
    )
    found = play_one(clips["red"], look((10, 12)), look((11, 11.5)), answer(), settings=settings)
    first, second = found.crops
    assert (first.start_seconds, first.end_seconds) == pytest.approx((7.5, 14.5)), (
        "the skim has a frame every 2.5 s"
    )
    assert (second.start_seconds, second.end_seconds) == pytest.approx((10.3, 12.2)), (
        "that crop one every 0.7 s"
    )
    assert [segment.start_seconds for segment in found.evidence] == [11.0], "evidence is what was asked for"


# Without looking


def test_a_single_pass_offers_no_tool(clips: dict[str, str]) -> None:
    single = SETTINGS.model_copy(update={"tools": False})
    policy = Recorder(answer())
    play([example(clips["red"])], policy, PROTOCOL, single, seed=0)
    system = policy.batches[0][0].messages[0]
    assert system.role == "system" and PROTOCOL.tool_name not in system.text
    looked = play_one(clips["red"], look((1, 2)), answer(), settings=single)
    assert looked.stop is StopReason.MAX_TURNS and len(looked.turns) == 1 and looked.crops == ()
    assert play_one(clips["red"], look((5, 5)), settings=single).stop is StopReason.FORMAT


def test_question_only_shows_nothing_and_needs_no_video(tmp_path: Path) -> None:
    policy = Recorder(answer())
    blind = SETTINGS.model_copy(update={"question_only": True})
    found = play([example(str(tmp_path / "none.mp4"))], policy, PROTOCOL, blind, seed=0)[0]
    assert found.stop is StopReason.ANSWERED and found.skims == () and found.frames_decoded == 0
    assert policy.batches[0][0].clips == ()


# What the policy is given


def test_a_round_is_one_call_and_each_request_has_its_own_history(clips: dict[str, str]) -> None:
    policy = Recorder(
        **{
            "1": [look((1, 3)), look((4, 6), (8, 10)), answer()],
            "2": [answer()],
            "3": [look((2, 3)), answer()],
        }
    )
    rows = [example(clips[colour], id) for id, colour in zip("123", COLOURS, strict=False)]
    found = play(rows, policy, PROTOCOL, SETTINGS, seed=0)
    assert [[request.example_id for request in batch] for batch in policy.batches] == [
        ["1", "2", "3"],
        ["1", "3"],
        ["1"],
    ]
    last = policy.batches[2][0]
    assert [message.role for message in last.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert [generation.text for generation in last.generations] == [look((1, 3)), look((4, 6), (8, 10))]
    refs = [ref for message in last.messages for ref in message.frame_refs]
    assert [ref.start_seconds for ref in refs] == [0.0, 1.0, 4.0, 8.0]
    for ref, pixels in zip(refs, last.clips, strict=True):
        assert pixels.shape == (len(ref.at_seconds), 64, 64, 3) and pixels.dtype == np.uint8
        assert seconds_of(pixels) == [int(at) for at in ref.at_seconds]
    assert last.sampling.stop == PROTOCOL.stop
    assert [len(item.turns) for item in found] == [3, 1, 2]


def test_system_prompt_replaces_the_protocols(clips: dict[str, str]) -> None:
    policy = Recorder(answer())
    play([example(clips["red"])], policy, PROTOCOL, SETTINGS, seed=0, system_prompt="Be brief.")
    assert policy.batches[0][0].messages[0].text == "Be brief."


def test_vision_placeholders_in_a_reply_stay_text(clips: dict[str, str]) -> None:
    policy = Recorder(look((1, 2), thought="<|vision_start|><|video_pad|><|vision_end|>"), answer())
    found = play([example(clips["red"])], policy, PROTOCOL, SETTINGS, seed=0)[0]
    assert found.stop is StopReason.ANSWERED
    request = policy.batches[1][0]
    assert len(request.clips) == sum(len(message.frame_refs) for message in request.messages) == 2


def test_seeds_differ_by_everything_they_derive_from_and_by_nothing_else(clips: dict[str, str]) -> None:
    keys = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1), (0, "a0", 0, 0)]
    seeds = [derive_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys) and all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "a", 0, 0) == 8741045578939222240, "seeds must not change between versions"
    policy = Recorder(look((1, 2)), answer())
    rows = [example(clips["red"]), example(clips["red"]), example(clips["blue"], "b")]
    play(rows, policy, PROTOCOL, SETTINGS, seed=5, rollout_index=[0, 1, 0])
    given = [[request.seed for request in batch] for batch in policy.batches]
    assert given == [
        [derive_seed(5, id, index, turn) for id, index in (("a", 0), ("a", 1), ("b", 0))] for turn in (0, 1)
    ]


def test_rollout_indices_must_fit(clips: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="need 1 rollout indices"):
        play([example(clips["red"])], Recorder(answer()), PROTOCOL, SETTINGS, seed=0, rollout_index=[0, 1])


def test_only_the_first_reply_is_begun_and_the_record_says_so(clips: dict[str, str]) -> None:
    class Beginner(Recorder):
        def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
            self.batches.append(list(requests))
            return self.script.generate([replace(request, reply_prefix="") for request in requests])

    policy = Beginner(look((4, 8)), answer())
    rows = [example(clips["red"]), example(clips["red"], "b")]
    begun, free = play(rows, policy, PROTOCOL, SETTINGS, seed=0, reply_prefixes=["<think>Cl", ""])
    given = [[request.reply_prefix for request in batch] for batch in policy.batches]
    assert given == [["<think>Cl", ""], ["", ""]]
    assert begun.settings["reply_prefix"] == "<think>Cl" and "reply_prefix" not in free.settings
    with pytest.raises(ValueError, match="need 2 reply prefixes"):
        play(rows, policy, PROTOCOL, SETTINGS, seed=0, reply_prefixes=["a"])


# Events


def test_events_tell_the_story_in_order(clips: dict[str, str]) -> None:
    events: list[Event] = []
    policy = ScriptedPolicy.from_replies({"1": [look((1, 2)), answer()], "2": [answer()]})
    rows = [example(clips["red"], "1"), example(clips["blue"], "2")]
    found = play(rows, policy, PROTOCOL, SETTINGS, seed=0, on_event=events.append)
    story = [(type(event).__name__, event.index) for event in events]
    assert story == [
        ("EpisodeStarted", 0), ("EpisodeStarted", 1), ("TurnFinished", 0), ("TurnFinished", 1), ("EpisodeFinished", 1),
        ("TurnFinished", 0), ("EpisodeFinished", 0),
    ]  # fmt: skip
    assert [event.trajectory for event in events if isinstance(event, EpisodeFinished)] == [
        found[1],
        found[0],
    ]
    turns = [event.turn for event in events if isinstance(event, TurnFinished) and event.index == 0]
    assert tuple(turns) == found[0].turns


# Nothing shared


def calls_of(number: int) -> list[str]:
    """Different segments for every episode."""
    return [
        look((number, number + 2.0)),
        look((number + 1.0, number + 3.0), (number + 5.0, number + 6.0)),
        answer(),
    ]


def check_own_frames(requests: Sequence[GenerationRequest], colours: dict[str, str]) -> None:
    """Every clip comes from the request's own video, at the times that its reference names."""
    for request in requests:
        refs = [ref for message in request.messages for ref in message.frame_refs]
        for ref, pixels in zip(refs, request.clips, strict=True):
            assert colour_of(pixels) == colours[request.example_id]
            assert seconds_of(pixels) == [int(at) for at in ref.at_seconds]


def many(clips: dict[str, str]) -> tuple[list[Example], dict[str, str], dict[str, list[str]]]:
    """Twelve episodes over four videos, interleaved; their colours and replies by id."""
    names = [list(COLOURS)[number % 4] for number in range(12)]
    rows = [example(clips[name], str(number)) for number, name in enumerate(names)]
    colours = {str(number): name for number, name in enumerate(names)}
    return rows, colours, {str(number): calls_of(number) for number in range(12)}


def test_episodes_of_one_batch_crop_their_own_video(clips: dict[str, str]) -> None:
    rows, colours, replies = many(clips)
    policy = Recorder(**replies)
    found = play(rows, policy, PROTOCOL, SETTINGS, seed=0)
    for batch in policy.batches:
        check_own_frames(batch, colours)
    for row, trajectory in zip(rows, found, strict=True):
        assert {ref.video for ref in (*trajectory.skims, *trajectory.crops)} == {row.video}
        assert [crop.start_seconds - int(row.id) for crop in trajectory.crops] == [0.0, 1.0, 5.0]


def test_episodes_in_threads_crop_their_own_video(clips: dict[str, str]) -> None:
    rows, colours, replies = many(clips)
    cache = FrameCache(64 * 2**20)

    def run(row: Example) -> Trajectory:
        policy = Recorder(**{row.id: replies[row.id]})
        trajectory = play([row], policy, PROTOCOL, SETTINGS, seed=0, cache=cache)[0]
        for batch in policy.batches:
            check_own_frames(batch, colours)
        return trajectory

    with ThreadPoolExecutor(6) as pool:
        threaded = list(pool.map(run, rows))
    together = play(rows, ScriptedPolicy.from_replies(replies), PROTOCOL, SETTINGS, seed=0)
    for one, other in zip(threaded, together, strict=True):
        assert one.crops == other.crops and one.skims == other.skims and one.stop is other.stop


def test_an_episode_is_the_same_alone_and_in_a_batch(clips: dict[str, str]) -> None:
    rows, _, replies = many(clips)
    policy = ScriptedPolicy.from_replies(replies)
    together = play(rows, policy, PROTOCOL, SETTINGS, seed=3, cache=FrameCache(0))
    again = play(rows, policy, PROTOCOL, SETTINGS, seed=3, cache=FrameCache(0))
    assert [without_times(item) for item in together] == [without_times(item) for item in again]
    for row, expected in zip(rows[:4], together, strict=False):
        alone = play([row], policy, PROTOCOL, SETTINGS, seed=3, cache=FrameCache(0))[0]
        assert without_times(alone) == without_times(expected)


def test_a_skim_is_decoded_once_per_video_and_frames_are_shared(clips: dict[str, str]) -> None:
    cache = FrameCache(64 * 2**20)
    policy = ScriptedPolicy.from_replies({"*": [look((4, 8)), answer()]})
    rows = [example(clips["red"], str(number)) for number in range(4)]
    first = play(rows, policy, PROTOCOL, SETTINGS, seed=0, cache=cache)
    assert first[0].frames_decoded > 0
    assert [item.frames_decoded for item in first[1:]] == [0, 0, 0]
    later = play(rows, policy, PROTOCOL, SETTINGS, seed=0, cache=cache)
    assert [item.frames_decoded for item in later] == [0, 0, 0, 0]
    # Each episode has the frames that it caused to be fetched: the first one the skim too, all of them their crop.
    shown = {at for ref in first[0].crops for at in ref.at_seconds}
    crop, in_skim = len(shown), len(shown.intersection(first[0].skims[0].at_seconds))
    assert [item.frames_cached for item in first] == [in_skim, crop, crop, crop]
    assert [item.frames_cached for item in later] == [8 + crop, crop, crop, crop]
    assert [item.crops for item in later] == [item.crops for item in first]


def test_a_skim_by_keyframes_is_in_the_record_and_too_few_of_them_end_one_episode_alone(
    clips: dict[str, str], tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(update={"skim_approximate": "keyframes", "video_deadline_seconds": None})
    short = write_clip(tmp_path / "short.mp4", "red", 0.5)  # one keyframe a second
    rows = [example(clips["red"], "long"), example(str(short), "short")]
    policy = ScriptedPolicy.from_replies({"*": [answer()]})
    found = play(rows, policy, PROTOCOL, settings, seed=0)
    assert found[0].stop is StopReason.ANSWERED and found[0].settings["skim_approximate"] == "keyframes"
    assert found[0].frames_decoded == len(found[0].skims[0].at_seconds) > 2
    assert found[1].stop is StopReason.INFRASTRUCTURE and found[1].problem is not None
    assert "2 are needed" in found[1].problem.message


def test_no_examples_no_calls() -> None:
    policy = Recorder(answer())
    assert play([], policy, PROTOCOL, SETTINGS, seed=0) == []
    assert policy.batches == []
