"""Questions for every moment: the teacher says what a perfect observer of the frames shown would say, no more."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.environment.rollout import play
from timeloupe.environment.settings import make_settings
from timeloupe.environment.teacher_policy import TeacherPolicy
from timeloupe.grounding import set_iou
from timeloupe.prompt.parse import ParsedReply, parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.museg import score_format, score_segments
from timeloupe.train.rows import trajectory_row
from timeloupe.trajectory import Segment, StopReason
from timeloupe.video.sampling import crop_times, uniform_times
from timeloupe.world.encode import make_videos, world_examples
from timeloupe.world.multi_segment import (
    SEGMENTS_PER_CALL,
    EveryTimeTeacher,
    scenes_showing,
    segments_of,
    shapes_by_count,
    teacher_of,
)
from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings, WorldScript, make_script
from timeloupe.world.teacher import Teacher, Voice, whole_seconds

SMALL = PROTOCOLS["small"]
indices = st.integers(0, 5000)
counts = st.integers(2, 40)
voices = st.builds(Voice, style=st.sampled_from(["list", "dash"]), names_times=st.booleans())
RETURNING = ScriptSettings(60, 600, return_rate=0.7)


def asked(index: int, rank: int = 0) -> tuple[WorldScript, str]:
    """A script and one of its shapes."""
    script = make_script(21, index, RETURNING)
    shapes = shapes_by_count(script)
    return script, shapes[rank % len(shapes)]


def named(parsed: ParsedReply) -> list[Segment]:
    """The segments of a call or an answer."""
    found = parsed.call.segments if parsed.call is not None else parsed.answer and parsed.answer.segments
    return list(found or ())


def follow(script: WorldScript, segments: Sequence[Segment]) -> list[tuple[float, ...]]:
    """The views that the environment shows of a call."""
    return [
        tuple(
            crop_times(
                one.start_seconds, min(one.end_seconds, script.duration_seconds), fps=2, min_frames=4, max_frames=12,
                native_fps=script.fps,
            )
        )
        for one in segments
    ]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(indices, st.integers(0, 5), counts, voices)
def test_an_answer_holds_every_visible_frame_and_no_time_that_no_frame_carries(
    index: int, rank: int, num_frames: int, voice: Voice
) -> None:
    script, shape = asked(index, rank)
    times = uniform_times(0, script.duration_seconds, num_frames)
    text = EveryTimeTeacher(script, shape, voice).reply([times], tools=False)
    parsed = parse_reply(text, SMALL)
    assert parsed.problem is None and parsed.answer is not None, text
    found = named(parsed)
    assert found, text
    shown = {whole_seconds(time) for time in times}
    for one in found:
        assert one.start_seconds in shown
        assert one.end_seconds in shown or one.end_seconds - 1 in shown
    seen = scenes_showing(script, shape, times)
    for time, scene in zip(times, seen, strict=True):
        if scene is not None:
            assert any(one.start_seconds <= whole_seconds(time) <= one.end_seconds for one in found)
    instances = {scene for scene in seen if scene is not None}
    assert len(found) == max(len(instances), 1), "one segment an instance"
    numbers = {int(number) for number in re.findall(r"\d+", parsed.thought)}
    ends = {int(bound) for one in found for bound in (one.start_seconds, one.end_seconds)}
    assert numbers == (ends if voice.names_times and instances else set())


@settings(max_examples=60, deadline=None)
@given(indices, st.integers(0, 5))
def test_it_looks_at_all_it_saw_and_then_answers_better(index: int, rank: int) -> None:
    script, shape = asked(index, rank)
    teacher = EveryTimeTeacher(script, shape)
    views = [tuple(uniform_times(0, script.duration_seconds, 16))]
    truth = segments_of(script, shape)
    single_pass = named(parse_reply(teacher.reply(views, tools=False), SMALL))
    for _ in range(8):
        parsed = parse_reply(teacher.reply(views, tools=True), SMALL)
        assert parsed.problem is None
        if parsed.call is None:
            break
        assert 1 <= len(parsed.call.segments) <= SEGMENTS_PER_CALL
        shown = {whole_seconds(time) for view in views for time in view}
        assert all(one.start_seconds in shown for one in parsed.call.segments)
        views += follow(script, parsed.call.segments)
    assert parsed.answer is not None, "it comes to an end"
    if any(scenes_showing(script, shape, views[0])):
        assert set_iou(pairs(named(parsed)), pairs(truth)) >= set_iou(pairs(single_pass), pairs(truth)) - 0.02
    assert parse_reply(teacher.reply(views[:1], tools=True, must_answer=True), SMALL).answer is not None


def pairs(segments: Sequence[Segment]) -> list[tuple[float, float]]:
    """Segments as pairs of seconds."""
    return [(one.start_seconds, one.end_seconds) for one in segments]


@settings(max_examples=60, deadline=None)
@given(indices)
def test_a_dense_look_finds_every_instance(index: int) -> None:
    script, shape = asked(index)
    times = uniform_times(0, script.duration_seconds, 800)
    text = EveryTimeTeacher(script, shape, Voice("dash", True)).reply([times], tools=False)
    truth = pairs(segments_of(script, shape))
    answer = parse_reply(text, SMALL).answer
    assert answer is not None and len(answer.segments) == len(truth)
    assert score_segments(text, truth) > 1.5
    assert score_format(text, timestamps=True, match="number") == 1.0
    plain = EveryTimeTeacher(script, shape, Voice("dash")).reply([times], tools=False)
    assert score_format(plain, timestamps=True, match="number") == 0.6
    assert score_format(plain, timestamps=False) == 1.0


def test_two_scenes_side_by_side_are_two_instances() -> None:
    for index in range(2000):
        script, shape = asked(index)
        times = uniform_times(0, script.duration_seconds, 16)
        seen = scenes_showing(script, shape, times)
        places = [at for at in range(15) if seen[at] is not None and None is not seen[at + 1] != seen[at]]
        if places:
            found = named(parse_reply(EveryTimeTeacher(script, shape).reply([times], tools=False), SMALL))
            one, two = times[places[0]], times[places[0] + 1]
            assert any(segment.end_seconds == whole_seconds(two) for segment in found)
            assert any(segment.start_seconds == whole_seconds(one) for segment in found)
            return
    pytest.fail("no such video among 2000")


def test_nothing_seen_is_searched_once_in_parts() -> None:
    script, shape = asked(0)
    nowhere = next(
        name for name in ("circle", "square", "triangle", "diamond", "cross", "ring") if name != shape
    )
    script = WorldScript(
        script.key, 100.0, 8.0, script.scenes, tuple(one for one in script.events if one.shape != nowhere)
    )
    times = tuple(float(second) for second in range(0, 96, 6))
    teacher = EveryTimeTeacher(script, nowhere)
    asked_for = named(parse_reply(teacher.reply([times], tools=True), SMALL))
    assert pairs(asked_for) == [(0, 30), (30, 60), (60, 90)]
    text = teacher.reply([times, *follow(script, asked_for)], tools=True)
    assert text == "<think>Not seen.</think><answer>[0, 90]</answer>"


def test_the_wording_of_voices() -> None:
    segments = [(20, 36), (84, 92)]
    assert Voice().answer(segments, seen=True) == "<think>Found.</think><answer>[[20, 36], [84, 92]]</answer>"
    assert Voice().answer(segments[:1], seen=False) == "<think>Not seen.</think><answer>[20, 36]</answer>"
    text = Voice("dash", True).answer(segments, seen=True)
    assert text == "<think>Seen 20 to 36, 84 to 92.</think><answer>20-36 84-92</answer>"


def test_a_row_finds_its_teacher_again() -> None:
    script, _ = asked(3)
    rows = world_examples(script, id="x", video="v", tasks=("grounding", "multi_segment"), per_task=2)
    for row in rows:
        teacher = teacher_of(script, row)
        assert isinstance(teacher, Teacher if row.task == "grounding" else EveryTimeTeacher)
        if isinstance(teacher, EveryTimeTeacher):
            assert segments_of(script, teacher.shape) == row.segments
            assert teacher.shape in row.question


@pytest.mark.parametrize("tools", [True, False])
def test_recorded_plays_become_training_rows(tmp_path: Path, tools: bool) -> None:
    short = ScriptSettings(60, 75, return_rate=1.0)
    videos = list(
        make_videos(
            tmp_path, seed=EVALUATION_SEEDS[7], num_videos=2, settings=short, tasks=("multi_segment",)
        )
    )
    rows = {one.id: (video, one) for video in videos for one in video.examples}
    policy = TeacherPolicy(
        {id: (video.script, one) for id, (video, one) in rows.items()}, tools=tools, voice=Voice("dash", True)
    )
    examples = [one.model_copy(update={"video": str(video.path)}) for video, one in rows.values()]
    episode = {"tools": tools, "skim_frames": 16, "crop_max_frames": 12, "frame_size_wh": (32, 32)}
    played = play(examples, policy, SMALL, make_settings(episode), seed=0)
    for one in played:
        assert one.stop is StopReason.ANSWERED and one.answer is not None
        assert len(one.example.segments) >= 2
        overlap = set_iou(pairs(one.answer.segments), pairs(one.example.segments))
        assert overlap > (0.6 if tools else 0.3)
        row = trajectory_row(one)
        assert row.num_turns == len(one.turns) and len(row.clips) == 1 + len(one.crops)
    assert any(len(turn.call.segments) > 1 for one in played for turn in one.turns if turn.call) == tools
