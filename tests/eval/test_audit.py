"""What an audit changes in a chat, and how its rows become figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.eval.perturb import CONDITIONS, Shown, change, evidence_spans
from timeloupe.trajectory import (
    Answer,
    Box,
    Example,
    FrameRef,
    Generation,
    Message,
    Segment,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    Turn,
)


def view(times: list[float], kind: str = "skim", start: float = 0.0, end: float = 100.0) -> FrameRef:
    return FrameRef.model_validate(
        {"video": "v.mp4", "view": kind, "start_seconds": start, "end_seconds": end, "at_seconds": times,
         "size_wh": (2, 2)}
    )  # fmt: skip


def pixels(ref: FrameRef) -> np.ndarray:
    """Each frame is filled with its own time, so that a picture says where it comes from."""
    return np.stack([np.full((2, 2, 3), round(time), np.uint8) for time in ref.at_seconds])


SKIM = view([5, 15, 25, 35, 45, 55, 65, 75, 85, 95])
CROP = view([31, 33, 35, 37], "crop", 30, 38)


def chat(*refs: FrameRef) -> Shown:
    messages = tuple(Message(role="user", parts=(ref, Text(text="what?"))) for ref in refs)
    return Shown(messages, tuple(pixels(ref) for ref in refs))


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def seen(shown: Shown) -> list[list[tuple[float, int]]]:
    """(time said, picture shown) of each view."""
    refs = [ref for message in shown.messages for ref in message.frame_refs]
    assert [len(ref.at_seconds) for ref in refs] == [len(clip) for clip in shown.clips]
    return [
        [(time, int(picture[0, 0, 0])) for time, picture in zip(ref.at_seconds, clip, strict=True)]
        for ref, clip in zip(refs, shown.clips, strict=True)
    ]


def test_without_the_evidence_its_frames_and_its_crop_are_gone_and_the_words_stay() -> None:
    shown = chat(SKIM, CROP)
    changed = change(shown, [(30, 38)], "without", random())
    assert isinstance(changed, Shown)
    assert seen(changed) == [[(time, time) for time in (5, 15, 25, 45, 55, 65, 75, 85, 95)]]
    assert [message.text for message in changed.messages] == ["what?", "what?"]
    assert changed.num_changed == 5 and changed.num_frames == 9


def test_only_the_evidence() -> None:
    changed = change(chat(SKIM, CROP), [(30, 38)], "only", random())
    assert isinstance(changed, Shown)
    assert seen(changed) == [[(35, 35)], [(31, 31), (33, 33), (35, 35), (37, 37)]]
    between = change(chat(SKIM, view([26, 27], "crop", 26, 28)), [(26, 28)], "only", random())
    assert isinstance(between, Shown) and seen(between) == [[(26, 26), (27, 27)]]


def test_shuffled_pictures_stay_inside_the_evidence_and_times_stay_everywhere() -> None:
    changed = change(chat(SKIM, CROP), [(10, 38)], "shuffled", random())
    assert isinstance(changed, Shown)
    skim, crop = seen(changed)
    assert [time for time, _ in skim] == list(SKIM.at_seconds)
    assert [pair for pair in skim if pair[0] != pair[1]] and sorted(p for _, p in skim) == [
        *range(5, 100, 10)
    ]
    assert all(time == picture for time, picture in skim if not 10 <= time < 38)
    assert sorted(picture for _, picture in crop) == [31, 33, 35, 37]
    assert change(chat(SKIM), [(30, 38)], "shuffled", random()) == "single_frames"


def test_the_control_cuts_as_many_frames_elsewhere_and_leaves_the_evidence() -> None:
    for seed in range(20):
        changed = change(chat(SKIM, CROP), [(30, 50)], "elsewhere", random(seed))
        assert isinstance(changed, Shown)
        skim, crop = seen(changed)
        assert len(skim) == 8 and {35, 45} <= {time for time, _ in skim}
        assert len(crop) == 4
    between = change(chat(SKIM), [(26, 28)], "without", random())
    assert between == "no_frame_cited"
    assert change(chat(SKIM), [(0, 60)], "elsewhere", random()) == "no_room"
    assert change(chat(SKIM), [(0, 100)], "without", random()) == "no_frame_left"
    assert change(chat(SKIM, CROP), [(0, 100)], "only", random()) == "all_cited"
    with pytest.raises(ValueError, match="condition"):
        change(chat(SKIM), [(0, 100)], "blurred", random())


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 60)), max_size=3),
    st.sampled_from(CONDITIONS),
    st.integers(0, 5),
)
def test_no_frame_is_new_and_a_condition_does_what_it_says(
    pairs: list[tuple[float, float]], condition: str, seed: int
) -> None:
    spans = [(start, start + length) for start, length in pairs]
    shown = chat(SKIM, CROP)
    changed = change(shown, spans, condition, random(seed))
    if isinstance(changed, str):
        assert condition != "again"
        return
    before = [pair for one in seen(shown) for pair in one]
    after = [pair for one in seen(changed) for pair in one]
    inside = {time for time, _ in before if any(start <= time < end for start, end in spans)}
    assert {time for time, _ in after} <= {time for time, _ in before}
    if condition == "without":
        assert not inside & {time for time, _ in after}
    elif condition == "only":
        assert {time for time, _ in after} == inside
    elif condition == "elsewhere":
        assert inside <= {time for time, _ in after} and len(after) < len(before)
    elif condition == "shuffled":
        assert sorted(picture for _, picture in after) == sorted(picture for _, picture in before)
    assert changed.num_changed >= (condition != "again")
    again = change(shown, spans, condition, random(seed))
    assert isinstance(again, Shown) and seen(again) == seen(changed)


def episode(answer: Answer, *crops: FrameRef) -> Trajectory:
    turns = [
        Turn(
            generation=Generation(text="look"),
            call=ToolCall(name="t", segments=(Segment(start_seconds=1, end_seconds=2),)),
            observation=Message(role="user", parts=(crop,)),
        )
        for crop in crops
    ]  # fmt: skip
    return Trajectory(
        example=Example(id="a", video="v.mp4", question="what?"), policy="p", protocol="small",
        turns=(*turns, Turn(generation=Generation(text="x"), answer=answer)), stop=StopReason.ANSWERED,
    )  # fmt: skip


def test_the_evidence_is_the_answers_segments_else_the_last_crop_else_the_boxes() -> None:
    box = Box(at_seconds=12, x1=0, y1=0, x2=1, y2=1)
    named = Answer(text="x", segments=(Segment(start_seconds=3, end_seconds=4),), boxes=(box,))
    assert evidence_spans(episode(named, CROP)) == ((3, 4),)
    assert evidence_spans(episode(Answer(text="A", boxes=(box,)), view([1], "crop", 1, 2), CROP)) == (
        (30, 38),
    )
    assert evidence_spans(episode(Answer(text="A", boxes=(box, box)))) == ((11.5, 12.5),)
    assert evidence_spans(episode(Answer(text="A"))) == ()
    early = view([29.5, 37], "crop", 30, 38)  # the frame displayed at 30 s began before
    assert evidence_spans(episode(Answer(text="A"), early)) == ((29.5, 38),)
