"""What an audit changes in a chat, and how its rows become figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.environment.clips import seconds_of, write_clip
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import PolicyError, RecordError
from timeloupe.eval.audit import (
    Auditor,
    AuditRow,
    all_rows,
    auditable,
    drop_faults,
    read_rows,
    same_answer,
)
from timeloupe.eval.audit_table import BEYOND, facts, lines_of, reproduced, tables
from timeloupe.eval.perturb import CONDITIONS, Shown, change, evidence_spans, true_spans
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.scripted import ScriptedPolicy
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.runs import append_records
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
from timeloupe.video.cache import FrameCache


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
    true = Example(
        id="a", video="v.mp4", question="what?", segments=(Segment(start_seconds=7, end_seconds=9),)
    )
    assert true_spans(episode(named).model_copy(update={"example": true})) == ((7, 9),)
    early = view([29.5, 37], "crop", 30, 38)  # the frame displayed at 30 s began before
    assert evidence_spans(episode(Answer(text="A"), early)) == ((29.5, 38),)


class Blind:
    """A policy that answers B if it is shown any picture of 12 s or later, else it asks to look; keeps what it saw."""

    name = "blind"

    def __init__(self) -> None:
        self.requests: list[GenerationRequest] = []

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        self.requests += requests
        return [Generation(text=self.reply(request)) for request in requests]

    def reply(self, request: GenerationRequest) -> str:
        if any(max(seconds_of(clip)) >= 12 for clip in request.clips):
            return "<think>seen</think><answer>B</answer>"
        call = '{"name": "get_video_clip_frame", "arguments": [{"start_time": 1, "end_time": 2}]}'
        return f"<think>gone</think><tool_call>{call}</tool_call>"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> list[Trajectory]:
    """Two episodes over a real video of 20 s: one that looked at 12 to 16 s, one that answered at once."""
    video = str(write_clip(tmp_path_factory.mktemp("audit") / "red.mp4", "red", 20))
    call = '{"name": "get_video_clip_frame", "arguments": [{"start_time": 12, "end_time": 16}]}'
    ends = "<think>it is B</think><answer>B</answer>"
    script = {"looks": [f"<think>look</think><tool_call>{call}</tool_call>", ends], "at_once": [ends]}
    examples = [
        Example(id=id, video=video, question="which?", options=("x", "y"), answer="B", task="multiple_choice")
        for id in script
    ]
    settings = EpisodeSettings(skim_frames=5, frame_size_wh=(64, 64), temperature=0.7)
    policy = ScriptedPolicy.from_replies(script)
    return play(examples, policy, PROTOCOLS["videotemp"], settings, seed=0)


def test_an_episode_is_asked_again_with_its_history_and_other_frames(
    played: list[Trajectory], tmp_path: Path
) -> None:
    found, left = auditable(played)
    assert [one.example.id for one in found] == ["looks"]
    assert left == {"no_answer": 0, "no_evidence": 1, "no_frames": 0}
    policy = Blind()
    asked: list[Sequence[Generation]] = []

    def logprobs(
        requests: Sequence[GenerationRequest], replies: Sequence[Generation]
    ) -> list[tuple[float, ...]]:
        asked.append(replies)
        return [(-1.0, -float(sum(map(len, request.clips)))) for request in requests]

    auditor = Auditor("a", policy, PROTOCOLS, 0, FrameCache(2**22), logprobs)
    rows = {row.condition: row for row in auditor.ask(found)}
    assert list(rows) == list(CONDITIONS)
    for request in policy.requests:
        assert [message.role for message in request.messages] == ["system", "user", "assistant", "user"]
        assert [one.text for one in request.generations] == [played[0].turns[0].generation.text]
        assert request.sampling.temperature == 0 and request.sampling.stop == PROTOCOLS["videotemp"].stop
    assert asked == [[played[0].turns[-1].generation] * 5]
    assert {name: row.outcome for name, row in rows.items()} == {
        "again": "answer", "without": "answer", "elsewhere": "answer", "only": "answer", "shuffled": "answer",
    }  # fmt: skip
    without = policy.requests[1]
    assert len(without.clips) == 1 and all(not 12 <= second < 16 for second in seconds_of(without.clips[0]))
    shown = sum(len(ref.at_seconds) for ref in (*played[0].skims, *played[0].crops))
    assert rows["again"].num_frames == shown and rows["again"].score == 1.0
    assert rows["again"].logprob == -1 - shown and rows["without"].logprob == -1 - rows["without"].num_frames
    path = tmp_path / "audit.jsonl"
    append_records(path, [*rows.values(), rows["only"].model_copy(update={"audit": "other"})])
    path.write_bytes(path.read_bytes() + b'{"torn')
    assert drop_faults(path, "a") == 0
    done = read_rows(path, "a")
    assert list(done.values()) == list(rows.values()) and auditor.ask(found, frozenset(done)) == []
    path.write_text("{}\n")
    with pytest.raises(RecordError, match=r"audit.jsonl:1 is not a valid AuditRow: audit: "):
        read_rows(path, "a")


def test_the_machines_faults_are_rows_that_are_asked_again(played: list[Trajectory], tmp_path: Path) -> None:
    class Gone:
        name = "gone"

        def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
            raise PolicyError("nobody there")

    rows = Auditor("a", Gone(), PROTOCOLS, 0, FrameCache(2**22)).ask(played[:1])
    assert {(row.outcome, row.reason) for row in rows} == {("fault", "nobody there")}
    example = played[0].example.model_copy(update={"video": "gone.mp4"})
    views = [
        message.model_copy(update={"parts": tuple(
            part.model_copy(update={"video": "gone.mp4"}) if isinstance(part, FrameRef) else part
            for part in message.parts
        )})
        for message in played[0].prompt
    ]  # fmt: skip
    lost = played[0].model_copy(update={"example": example, "prompt": tuple(views)})
    rows += Auditor("a", Blind(), PROTOCOLS, 0, FrameCache(0)).ask([lost])
    assert all(row.outcome == "fault" for row in rows) and "gone.mp4" in rows[-1].reason
    append_records(tmp_path / "a", rows)
    assert read_rows(tmp_path / "a", "a") == {}
    assert drop_faults(tmp_path / "a", "a") == 10 and all_rows(tmp_path / "a", "a") == []


def row(
    condition: str, answer: Answer | None, *, id: str = "q", logprob: float | None = None, **more: str
) -> AuditRow:
    fields = {"outcome": "answer" if answer is not None else "look", "task": "grounding"} | more
    return AuditRow.model_validate(
        {"audit": "a", "id": id, "rollout_index": 0, "video": id, "condition": condition, "answer": answer,
         "logprob": logprob} | fields
    )  # fmt: skip


def span(start: float, end: float) -> Answer:
    return Answer(text="x", segments=(Segment(start_seconds=start, end_seconds=end),))


def test_the_table_counts_changes_against_the_same_frames() -> None:
    rows = [
        row("again", span(0, 10), logprob=-1.0), row("without", None, logprob=-5.0),
        row("elsewhere", span(0, 9), logprob=-1.5), row("only", span(8, 20)),
        row("shuffled", None, outcome="not_asked", reason="single_frames"),
        row("again", span(0, 10), id="r"), row("without", span(0, 10), id="r"), row("elsewhere", span(50, 60), id="r"),
        row("only", None, id="r", outcome="fault"),
        row("again", None, id="s"), row("without", span(0, 1), id="s"),
    ]  # fmt: skip
    lines = {line.condition: line for line in tables(rows)["grounding"]}
    assert [lines[name].changed.mean for name in ("again", "without", "elsewhere", "only")] == [
        0,
        0.5,
        0.5,
        1,
    ]
    assert (lines["without"].num_asked, lines["without"].num_compared) == (3, 2)
    assert lines["without"].looks == 0.5 and lines["without"].logprob_fall.mean == 4
    assert lines["shuffled"].changed.mean is None and lines["shuffled"].not_asked == {"single_frames": 1}
    assert lines["only"].faults == 1
    assert lines[BEYOND].changed.mean == 0 and lines[BEYOND].num_compared == 2
    assert lines[BEYOND].logprob_fall.mean == 3.5
    said = "\n".join(lines_of(tables(rows)))
    assert "1 single_frames" in said and "1 lost to machines" in said
    json.dumps(facts(tables(rows)), allow_nan=False)
    assert list(tables([*rows, row("again", span(0, 1), task="open")])) == ["grounding", "open", "all"]
    recorded = Example(id="q", video="v", question="w")
    assert reproduced(rows, [episode(span(0, 10)).model_copy(update={"example": recorded})]) == (1, 1)


def test_what_the_same_answer_is() -> None:
    assert same_answer(Answer(text="A.", option="A"), Answer(text="a cat", option="A"))
    assert not same_answer(Answer(text="A.", option="A"), Answer(text="A."))
    assert same_answer(span(0, 10), span(0, 5)) and not same_answer(span(0, 10), span(0, 4.9))
    assert same_answer(Answer(text="A  dog"), Answer(text="a dog"))
