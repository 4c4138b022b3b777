"""The record: strict, frozen, one line, and its schema does not change by accident."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from timeloupe.errors import MissingError, RecordError
from timeloupe.trajectory import (
    Answer,
    Box,
    Example,
    FrameRef,
    Generation,
    Message,
    Problem,
    Score,
    Segment,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    Turn,
    Usage,
    read_examples,
    read_trajectories,
    to_line,
)

GOLDEN = Path(__file__).parent / "golden" / "trajectory.schema.json"

words = st.text(max_size=12)
seconds = st.floats(0, 1e5, allow_nan=False, width=32)
counts = st.integers(0, 10**6)


def segments() -> st.SearchStrategy[Segment]:
    spans = st.tuples(seconds, seconds).filter(lambda pair: pair[0] < pair[1])
    return spans.map(lambda pair: Segment(start_seconds=pair[0], end_seconds=pair[1]))


def boxes() -> st.SearchStrategy[Box]:
    sides = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2, unique=True).map(sorted)
    return st.builds(
        lambda at, xs, ys, label: Box(at_seconds=at, x1=xs[0], x2=xs[1], y1=ys[0], y2=ys[1], label=label),
        seconds, sides, sides, words,
    )  # fmt: skip


def tuples(of: st.SearchStrategy[Any], min_size: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(of, min_size=min_size, max_size=3).map(tuple)


examples = st.builds(
    Example, id=words, video=words, question=words, options=tuples(words), answer=st.none() | words,
    segments=tuples(segments()), boxes=tuples(boxes()),
    task=st.sampled_from(["multiple_choice", "grounding", "multi_segment", "what_when_where", "open"]), source=words,
)  # fmt: skip
refs = st.builds(
    FrameRef, video=words, view=st.sampled_from(["skim", "crop", "image"]), start_seconds=seconds, end_seconds=seconds,
    at_seconds=tuples(seconds, 1), size_wh=st.tuples(counts, counts),
)  # fmt: skip
messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant"]),
    parts=tuples(refs | st.builds(Text, text=words)),
)
problems = st.builds(Problem, reason=words, message=words)
generations = st.builds(
    Generation, text=words, finish=st.sampled_from(["stop", "length", "error"]),
    usage=st.builds(Usage, prompt_tokens=st.none() | counts, completion_tokens=st.none() | counts),
    token_ids=st.none() | tuples(counts), logprobs=st.none() | tuples(st.floats(-50, 0)), error=st.none() | words,
    seconds=seconds,
)  # fmt: skip
turns = st.builds(
    Turn,
    generation=generations,
    thought=words,
    call=st.none() | st.builds(ToolCall, name=words, segments=tuples(segments(), 1)),
    answer=st.none()
    | st.builds(
        Answer, text=words, option=st.none() | words, segments=tuples(segments()), boxes=tuples(boxes())
    ),
    problem=st.none() | problems,
    observation=st.none() | messages,
    seconds=seconds,
)
scores = st.builds(
    Score, parts=st.dictionaries(words, st.none() | st.floats(-2, 2), max_size=3),
    reasons=st.dictionaries(words, words, max_size=2),
)  # fmt: skip
trajectories = st.builds(
    Trajectory,
    example=examples,
    policy=words,
    protocol=words,
    seed=counts,
    rollout_index=counts,
    prompt=tuples(messages),
    turns=tuples(turns),
    stop=st.sampled_from(StopReason),
    problem=st.none() | problems,
    score=scores,
    frames_decoded=counts,
    frames_cached=counts,
    seconds=seconds,
    settings=st.dictionaries(words, st.none() | counts | words | st.lists(counts, max_size=2), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(trajectories)
def test_a_record_is_one_line_of_strict_json_and_comes_back_equal(trajectory: Trajectory) -> None:
    line = to_line(trajectory)
    assert "\n" not in line and "\r" not in line
    assert Trajectory.model_validate_json(line) == trajectory
    data = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert json.loads(to_line(Trajectory.model_validate_json(json.dumps(data)))) == data


@settings(max_examples=25, deadline=None)
@given(trajectories)
def test_a_record_fits_its_published_schema(trajectory: Trajectory) -> None:
    schema = jsonschema.Draft202012Validator(json.loads(GOLDEN.read_text(encoding="utf-8")))
    data = json.loads(to_line(trajectory))
    assert list(schema.iter_errors(data)) == []
    assert not schema.is_valid(data | {"unheard_of": 1}), "the schema must be able to refuse something"


def test_the_schema_is_the_published_one() -> None:
    now = json.dumps(Trajectory.model_json_schema(), indent=1, sort_keys=True) + "\n"
    assert GOLDEN.read_text(encoding="utf-8") == now, (
        "The record's schema changed: that breaks files people have. If it is meant, raise SCHEMA_VERSION where old "
        f"readers would misread, note it in CHANGELOG.md, and write the new schema to {GOLDEN.name}."
    )


EXAMPLE: dict[str, Any] = {"id": "a", "video": "a.mp4", "question": "?"}


def minimal(**changes: Any) -> dict[str, Any]:
    """The least that is a trajectory, with changes."""
    return {"example": EXAMPLE, "policy": "p", "protocol": "q", "stop": "format"} | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"schema_version": 2},
        {"seconds": math.nan},
        {"seconds": math.inf},
        {"seconds": -1.0},
        {"stop": "bored"},
        {"score": {"parts": {"accuracy": math.nan}}},
        {"example": EXAMPLE | {"segments": [{"start_seconds": 2, "end_seconds": 2}]}},
        {"example": EXAMPLE | {"segments": [{"start_seconds": -1, "end_seconds": 2}]}},
        {"rollout_index": -1},
    ],
)
def test_what_is_no_record_is_refused(changes: dict[str, Any]) -> None:
    Trajectory.model_validate(minimal())
    with pytest.raises(ValidationError):
        Trajectory.model_validate(minimal(**changes))


@pytest.mark.parametrize(
    "corners", [(0.5, 0.1, 0.5, 0.2), (0.6, 0.1, 0.5, 0.2), (0.1, 0.3, 0.5, 0.2), (0.1, 0.1, 1.5, 0.2)]
)
def test_a_box_has_an_area_inside_the_frame(corners: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValidationError):
        Box(at_seconds=1, x1=corners[0], y1=corners[1], x2=corners[2], y2=corners[3])


def test_records_do_not_change() -> None:
    trajectory = Trajectory.model_validate(minimal())
    with pytest.raises(ValidationError):
        trajectory.seed = 4  # type: ignore[misc]


def test_unscored_is_not_zero() -> None:
    line = to_line(Trajectory.model_validate(minimal(score={"parts": {"accuracy": None, "iou": 0.0}})))
    assert Trajectory.model_validate_json(line).score.parts == {"accuracy": None, "iou": 0.0}


def turn(call: Segment | None = None, answer: Answer | None = None, frames: bool = True) -> Turn:
    """A turn that looks at ``call``, with frames or refused, or answers."""
    if call is None:
        return Turn(generation=Generation(text="x"), answer=answer)
    ref = FrameRef(
        video="a.mp4", view="crop", start_seconds=call.start_seconds, end_seconds=call.end_seconds,
        at_seconds=(call.start_seconds,), size_wh=(28, 28),
    )  # fmt: skip
    seen = Message(role="user", parts=(ref,) if frames else (Text(text="no"),))
    return Turn(
        generation=Generation(text="x"), call=ToolCall(name="crop", segments=(call,)), observation=seen
    )


def test_evidence_is_the_answers_segments_else_the_last_crop_that_was_shown() -> None:
    one, two, three = (Segment(start_seconds=at, end_seconds=at + 5) for at in (10.0, 20.0, 30.0))
    base = Trajectory.model_validate(minimal())
    looked = (turn(one), turn(two, frames=False))
    answered = (*looked, turn(answer=Answer(text="[30, 35]", segments=(three,))))
    assert base.evidence == () and base.answer is None
    assert base.model_copy(update={"turns": looked}).evidence == (one,)
    assert len(base.model_copy(update={"turns": looked}).crops) == 1
    assert base.model_copy(
        update={"turns": (*looked, turn(answer=Answer(text="C", option="C")))}
    ).evidence == (one,)
    assert base.model_copy(update={"turns": answered}).evidence == (three,)


def test_reading_files(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    with pytest.raises(MissingError, match="no record file"):
        list(read_trajectories(path))
    good = to_line(Trajectory.model_validate(minimal()))
    path.write_text(f"{good}\n\n{good}\n")
    assert len(list(read_trajectories(path))) == 2
    path.write_text(f"{good}\n{{}}\n")
    with pytest.raises(RecordError, match=r"records.jsonl:2 is not a valid Trajectory: \w+"):
        list(read_trajectories(path))


def test_video_paths_are_relative_to_the_file_that_lists_them(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    rows = [
        Example(id="a", video="videos/a.mp4", question="?"),
        Example(id="b", video="/data/b.mp4", question="?"),
    ]
    path.write_text("".join(to_line(row) + "\n" for row in rows))
    assert [row.video for row in read_examples(path)] == [str(tmp_path / "videos/a.mp4"), "/data/b.mp4"]


def test_half_a_surrogate_pair_does_not_lose_the_episode() -> None:
    generation = Generation(text="cut \ud83d here")
    assert generation.text == "cut ? here"
    assert Generation.model_validate_json(to_line(generation)) == generation
