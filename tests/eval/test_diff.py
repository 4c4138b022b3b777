"""Comparing two runs: causes in their order, what only the episodes show, figures, and rows with reasons."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import ConfigError, MissingError
from timeloupe.eval.config_diff import AREAS, area_of, differences, known_settings
from timeloupe.eval.diff import RunDiff, compare_runs, diff_facts
from timeloupe.eval.figure_diff import ROW_VALUE, marks, rounding
from timeloupe.eval.recorded import Asked, Recorded, asked_rows, read_beside, read_recorded
from timeloupe.eval.recorded_reply import reply_of
from timeloupe.eval.registry import benchmark
from timeloupe.eval.row_diff import REASONS, UNPAIRED
from timeloupe.eval.scoring import Row
from timeloupe.runs import create_run
from timeloupe.trajectory import (
    Answer,
    Example,
    FrameRef,
    Generation,
    Message,
    Problem,
    Segment,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    Turn,
)

SETTINGS = EpisodeSettings().model_dump(mode="json")
WORLD = benchmark("world")


def example(number: int, *, grounding: bool = False, answer: str = "A", end: float = 20.0) -> Example:
    truth = (Segment(start_seconds=10, end_seconds=end),)
    if grounding:
        return Example(
            id=f"q{number}", video=f"v{number}.mp4", question="When?", segments=truth, task="grounding"
        )
    return Example(
        id=f"q{number}", video=f"v{number}.mp4", question="Which?", options=("a", "b", "c"), answer=answer,
        segments=truth, task="multiple_choice",
    )  # fmt: skip


def view(kind: str, start: float, end: float, count: int = 4, size: int = 32) -> FrameRef:
    step = (end - start) / count
    return FrameRef(
        video="v.mp4", view=kind, start_seconds=start, end_seconds=end,  # type: ignore[arg-type]
        at_seconds=tuple(start + step * (at + 0.5) for at in range(count)), size_wh=(size, size),
    )  # fmt: skip


def episode(
    asked: Example, said: str | None, looked: tuple[float, float] | None = None, *, repeat: int = 0,
    stop: StopReason = StopReason.ANSWERED, frames: int = 4, size: int = 32, system: str = "Look.",
    settings: dict[str, Any] | None = None,
) -> Trajectory:  # fmt: skip
    """An episode that answers ``said``: a letter, ``start-end``, or anything; ``None`` = it ended without an answer."""
    turns: list[Turn] = []
    if looked is not None:
        call = ToolCall(name="look", segments=(Segment(start_seconds=looked[0], end_seconds=looked[1]),))
        shown = Message(role="user", parts=(view("crop", *looked, size=size),))
        turns.append(Turn(generation=Generation(text=f"look {looked}"), call=call, observation=shown))
    problem = None
    if said is None:
        problem = Problem(reason="policy", message="connection refused")
        if stop is not StopReason.INFRASTRUCTURE:
            turns.append(Turn(generation=Generation(text="hmm"), problem=problem))
    else:
        parts = said.split("-")
        spans = ()
        if len(parts) == 2 and all(part.isdigit() for part in parts):
            spans = (Segment(start_seconds=float(parts[0]), end_seconds=float(parts[1])),)
            said = f"[{parts[0]}, {parts[1]}]"
        answer = Answer(text=said, option=said if len(said) == 1 else None, segments=spans)
        turns.append(Turn(generation=Generation(text=f"<answer>{said}</answer>"), answer=answer))
    prompt = (
        Message(role="system", parts=(Text(text=system),)),
        Message(role="user", parts=(view("skim", 0, 60, frames, size), Text(text=asked.question))),
    )
    return Trajectory(
        example=asked, policy="test", protocol="small", prompt=prompt, turns=tuple(turns), stop=stop, problem=problem,
        rollout_index=repeat, settings=SETTINGS if settings is None else settings,
    )  # fmt: skip


def recorded(episodes: Sequence[Trajectory], name: str = "run", **config: Any) -> Recorded:
    """A run with a configuration and a card."""
    replies = {(one.example.id, one.rollout_index): reply_of(one) for one in episodes}
    whole = {
        "benchmark": "world",
        "protocol": "small",
        "episode": SETTINGS,
        "flags": {"seed": 0, "repeats": 1},
    }
    card = {
        "prompt": {"sha256": "1" * 64, "system": "Look."},
        "scorer": {"mode": "strict"},
        "model": {"name": "m"},
    }
    whole |= config.pop("config", {})
    return Recorded(name, "run folder", replies, card=card | config.pop("card", {}), config=whole, **config)


def compared(one: Recorded, two: Recorded, modes: Sequence[str] = ()) -> RunDiff:
    asked = asked_rows(one)
    other = asked_rows(two)
    known = {row.id for row in asked.rows}
    both = replace(asked, rows=(*asked.rows, *(row for row in other.rows if row.id not in known)))
    return compare_runs(one, two, both, modes)


def reasons(found: RunDiff) -> dict[str, str]:
    return {change.id: change.reason for change in found.rows.changes}


def every_reason(found: RunDiff) -> set[tuple[str, int, str]]:
    return {(change.id, change.repeat, change.reason) for change in found.rows.changes}


SAID = st.sampled_from(["A", "B", "C", "10-20", "12-30", "mumble", None, "fault"])
LOOKS = st.sampled_from([None, (5.0, 15.0), (30.0, 40.0)])


@st.composite
def runs(draw: st.DrawFn) -> tuple[Recorded, Recorded]:
    """Two runs over the same questions with anything in them, and with at least one question in common."""
    pair: list[list[Trajectory]] = [[], []]
    for number in range(draw(st.integers(1, 6))):
        asked = example(number, grounding=draw(st.booleans()))
        for side in pair:
            for repeat in range(draw(st.integers(1 if number == 0 else 0, 2))):
                said = draw(SAID)
                stop = StopReason.ANSWERED
                if said in (None, "fault"):
                    stop = StopReason.INFRASTRUCTURE if said == "fault" else StopReason.FORMAT
                side.append(
                    episode(asked, None if said == "fault" else said, draw(LOOKS), repeat=repeat, stop=stop)
                )
    return recorded(pair[0], "one"), recorded(pair[1], "two")


@settings(max_examples=25, deadline=None)
@given(runs())
def test_a_run_differs_from_itself_in_nothing(pair: tuple[Recorded, Recorded]) -> None:
    for run in pair:
        found = compared(run, run)
        assert found.differences == () and found.rows.changes == () and not found.rows.effects
        assert found.reach.prompt == found.reach.frames == found.reach.pixels == found.reach.first == 0
        for figure in found.scored[0].figures:
            assert figure.one == figure.two and (figure.change is None or figure.change.mean in (None, 0.0))


@settings(max_examples=25, deadline=None)
@given(runs())
def test_swapped_runs_differ_by_the_negative(pair: tuple[Recorded, Recorded]) -> None:
    asked = asked_rows(pair[0])
    there, back = (compare_runs(one, two, asked) for one, two in (pair, pair[::-1]))
    assert every_reason(there) == every_reason(back)
    others = {figure.name: figure for figure in back.scored[0].figures}
    assert others.keys() == {figure.name for figure in there.scored[0].figures}
    for figure in there.scored[0].figures:
        other = others[figure.name]
        assert (figure.one, figure.two) == (other.two, other.one)
        assert figure.change is not None and other.change is not None
        if figure.change.mean is not None and other.change.mean is not None:
            assert figure.change.mean == pytest.approx(-other.change.mean, abs=1e-12)
    assert {key: -value for key, value in there.rows.effects.items()} == pytest.approx(
        dict(back.rows.effects)
    )


@settings(max_examples=25, deadline=None)
@given(runs())
def test_what_the_reasons_cost_sums_up_and_every_row_is_counted_once(pair: tuple[Recorded, Recorded]) -> None:
    """Whatever episodes one side lacks: difference, scores and reasons speak of those that both have."""
    one, two = pair
    both = {
        key for key in one.replies.keys() & two.replies.keys()
        if not one.replies[key].is_fault and not two.replies[key].is_fault
    }  # fmt: skip
    found = compared(one, two)
    assert found.pairs == len(both) and {row.id for row in found.shared} == {id for id, _ in both}
    assert found.rows.compared == len(found.rows.changes) + found.rows.same
    assert sum(found.rows.counts().values()) == len(found.rows.changes)
    if not both:
        assert found.scored[0].figures == () and not found.rows.effects
        return
    first = found.scored[0].figures[0]
    assert first.change is not None and first.change.mean is not None
    trimmed = [replace(run, replies={key: run.replies[key] for key in both}) for run in pair]
    ones, twos = (marks(found.asked, "strict", found.shared, run) for run in trimmed)
    means = [
        math.fsum(x.mean_value(row.id) or 0.0 for row in found.shared) / len(found.shared)
        for x in (ones, twos)
    ]
    assert first.change.mean == pytest.approx(means[1] - means[0], abs=1e-12)
    if first.name == ROW_VALUE:
        assert (first.one, first.two) == pytest.approx(means)
    assert math.fsum(found.rows.effects.values()) == pytest.approx(means[1] - means[0], abs=1e-12)


def test_repeats_that_one_run_alone_has_are_in_no_figure() -> None:
    """The second run's other repeats are all right; against the first run's one repeat that is no gain."""
    one = recorded([episode(example(at), "B") for at in range(3)], "one")
    two = recorded(
        [
            episode(example(at), "A" if repeat else "B", repeat=repeat)
            for at in range(3)
            for repeat in range(4)
        ],
        "two",
    )
    for found in (compared(one, two), compared(two, one)):
        assert found.rows.extra_repeats == (1, 2, 3) and found.rows.changes == () and found.pairs == 3
        for figure in found.scored[0].figures:
            assert figure.one == figure.two == 0.0 and figure.change is not None and figure.change.mean == 0.0
    other = recorded([episode(example(at), "A", repeat=1) for at in range(3)], "other")
    found = compared(one, other)
    assert found.shared == () and found.pairs == 0 and found.scored[0].figures == ()
    assert "no repeat in common" in " ".join(found.notes)


def test_every_change_has_its_reason() -> None:
    cases: dict[str, tuple[Trajectory, Trajectory]] = {
        "fault": (episode(example(0), "A"), episode(example(0), None, stop=StopReason.INFRASTRUCTURE)),
        "question": (
            episode(example(1), "A"),
            episode(example(1).model_copy(update={"question": "Who?"}), "A"),
        ),
        "label": (episode(example(2), "A"), episode(example(2, answer="B"), "A")),
        "parse": (episode(example(3), "A"), episode(example(3), None, stop=StopReason.FORMAT)),
        "segment": (episode(example(4), "A", (10, 20)), episode(example(4), "B", (40, 50))),
        "answer": (episode(example(5), "A", (10, 20)), episode(example(5), "B", (10, 20))),
    }
    one = [pair[0] for pair in cases.values()] + [
        episode(example(6), "A"),
        episode(example(7), "A", (10, 20)),
    ]
    two = [pair[1] for pair in cases.values()] + [episode(example(7), "A", (1, 2))]
    one.append(episode(example(8, grounding=True), "10-20"))
    two.append(episode(example(8, grounding=True), "40-50"))
    found = compared(recorded(one, "one"), recorded(two, "two"))
    wanted = {f"q{number}": reason for number, reason in enumerate(cases)} | {
        "q6": "missing",
        "q8": "segment",
    }
    assert reasons(found) == wanted
    assert found.rows.same == 1 and found.rows.looked_elsewhere == 1
    assert set(found.rows.effects) <= set(REASONS) - set(UNPAIRED)
    words = {change.reason: change.words for change in found.rows.changes}
    assert words["answer"] == "A -> B"
    assert "looked at 10 s to 20 s -> 40 s to 50 s" in {c.id: c.words for c in found.rows.changes}["q4"]
    assert "connection refused" in words["fault"]
    json.dumps(diff_facts(found), allow_nan=False)


def test_two_scorers_of_one_run_differ_by_the_scorer_and_nothing_else() -> None:
    bench = benchmark("charades_sta")
    run = recorded(
        [episode(example(at, grounding=True), "10-20") for at in range(4)],
        config={"benchmark": "charades_sta"},
    )
    rows = tuple(
        Row(f"q{at}", f"v{at}", "When?", "grounding", windows=((10.0, 20.0),), duration_seconds=60.0)
        for at in range(4)
    )
    asked = Asked(bench, rows, "made by hand", True)
    found = compare_runs(run, run, asked, ["official:time-r1", "strict"])
    assert [one.area.name for one in found.differences] == ["scorer"] and not found.differences[0].idle
    assert [one.modes for one in found.scored] == [("official:time-r1", "strict"), ("strict", "strict")]
    first = found.scored[0].figures[0]
    assert (first.one, first.two) == (0.0, 1.0) and first.change is not None and first.change.mean == 1.0
    assert set(reasons(found).values()) == {"scorer"} and found.rows.effects == {"scorer": pytest.approx(1.0)}
    same = compare_runs(run, run, asked, ["strict"])
    assert same.differences == () and same.rows.changes == ()


def test_causes_come_in_their_order_and_those_that_reach_no_episode_come_last() -> None:
    asked = [example(at) for at in range(3)]
    one = recorded([episode(each, "A") for each in asked])
    changes = SETTINGS | {"skim_frames": 8, "skim_pixels": 100_352, "temperature": 1.0}
    two = recorded(
        [episode(each, "A", frames=8, settings=changes) for each in asked],
        config={"episode": changes}, card={"prompt": {"sha256": "2" * 64, "system": "Look!"}},
    )  # fmt: skip
    found = differences(one, two)
    names = [item.area.name for item in found]
    assert names == ["frames", "sampling", "prompt", "pixels"]
    by_name = {item.area.name: item for item in found}
    assert by_name["frames"].reached == by_name["frames"].compared == 3
    assert by_name["pixels"].idle == "it shows in none of 3 episodes" == by_name["prompt"].idle
    assert [one.words for one in by_name["frames"].settings] == ["first look, frames at most: 256 -> 8"]


def test_what_only_the_episodes_show_is_a_difference_too() -> None:
    one = recorded([episode(example(0), "A")])
    for name, two in (
        ("prompt", episode(example(0), "A", system="Look well.")),
        ("frames", episode(example(0), "A", frames=5)),
        ("pixels", episode(example(0), "A", size=64)),
    ):
        (found,) = differences(one, recorded([two]))
        assert found.area.name == name and not found.settings and found.reached == 1


def test_the_tool_taken_away_is_one_difference_though_the_prompt_follows() -> None:
    without = SETTINGS | {"tools": False}
    one = recorded([episode(example(0), "A")])
    two = recorded(
        [episode(example(0), "A", system="Answer.", settings=without)],
        config={"episode": without}, card={"prompt": {"sha256": "1" * 64, "system": "Answer."}},
    )  # fmt: skip
    assert [item.area.name for item in differences(one, two)] == ["looking"]


def test_a_seed_means_nothing_where_nothing_is_drawn_and_the_same_weights_are_the_same_model() -> None:
    one = recorded([episode(example(0), "A")], card={"model": {"name": "a", "weights_sha256": "3" * 64}})
    two = recorded(
        [episode(example(0), "A")],
        config={"flags": {"seed": 7, "repeats": 1}}, card={"model": {"name": "b", "weights_sha256": "3" * 64}},
    )  # fmt: skip
    (found,) = differences(one, two)
    assert found.area.name == "seed" and found.idle
    third = recorded([episode(example(0), "A")], card={"model": {"name": "a", "weights_sha256": "4" * 64}})
    assert [item.area.name for item in differences(one, third)] == ["model"]


def test_a_run_without_a_card_is_compared_as_far_as_it_goes() -> None:
    one = recorded([episode(example(0), "A")])
    bare = Recorded(
        "file", "JSONL of trajectories", one.replies, spoken={"policy": "m", "settings": SETTINGS}
    )
    assert differences(one, bare) == []
    other = Recorded(
        "file", "JSONL", one.replies, spoken={"policy": "m", "settings": SETTINGS | {"skim_fps": 1.0}}
    )
    assert [item.area.name for item in differences(one, other)] == ["frames"]
    assert compared(one, bare).rows.changes == ()


def test_every_setting_of_an_episode_and_of_a_card_has_its_area() -> None:
    for key in SETTINGS:
        assert area_of(f"settings.{key}").name != "other", key
    for area in AREAS:
        for key in area.keys:
            assert area_of(f"{key}x" if key.endswith(".") else key) is area
    card = {"server": {"name": "vLLM", "version": "0.1"}, "judge": None, "voting": {"changed": 3}}
    session = {"samples": 8, "vote": "majority", "threads": 1}
    known = known_settings(recorded([episode(example(0), "A")], card=card, session=session))
    assert (
        known["server.version"] == "0.1" and known["voting.vote"] == "majority" and known["pace.threads"] == 1
    )
    assert area_of("voting.vote").name == "sampling"
    assert not any(key.startswith("other") for key in known)


def test_runs_that_have_nothing_in_common_are_refused_in_words() -> None:
    one = recorded([episode(example(0), "A")], "first")
    with pytest.raises(ConfigError, match="different benchmarks.*'world' .first.*'videomme' .second"):
        compared(one, recorded([episode(example(0), "A")], "second", config={"benchmark": "videomme"}))
    with pytest.raises(ConfigError, match="no question in common, got 1 such as 'q0'.*'q5'"):
        compared(one, recorded([episode(example(5), "A")]))
    with pytest.raises(ConfigError, match="allowed: strict"):
        compared(one, one, ["loose"])


def test_a_folder_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no run at"):
        read_recorded(tmp_path / "none")
    with pytest.raises(MissingError, match="no run folder"):
        read_recorded(tmp_path)
    run = create_run(tmp_path / "run", {"benchmark": "world", "questions": 1})
    with pytest.raises(MissingError, match="no episode yet"):
        read_recorded(tmp_path / "run")
    run.append(episode(example(0), "A"))
    with run.trajectories_path.open("ab") as file:
        file.write(b'{"torn')
    found = read_recorded(tmp_path / "run")
    assert len(found.replies) == 1 and "card.json" in found.notes[0]
    assert read_recorded(tmp_path / "run" / "trajectories.jsonl") == found, "the file stands for its folder"
    predictions = tmp_path / "theirs.jsonl"
    predictions.write_text(json.dumps({"id": "q0", "prediction": "<answer>B</answer>"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="file of predictions"):
        read_recorded(predictions)
    asked = asked_rows(found)
    theirs = compare_runs(found, read_beside(predictions, found, asked), asked)
    assert reasons(theirs) == {"q0": "answer"} and theirs.rows.changes[0].words == "A -> B"
    predictions.write_text(json.dumps({"id": "q0", "prediction": "The answer is (A)."}), encoding="utf-8")
    assert compare_runs(found, read_beside(predictions, found, asked), asked).rows.changes == ()
    assert any("nothing is known of how they were made" in note for note in theirs.notes)


def test_a_rounded_figure_may_be_off_by_half_of_its_last_decimal() -> None:
    assert rounding(63.3, "percent") == pytest.approx(0.05)
    assert rounding(0.5) == pytest.approx(0.005), (
        "half may be exact: no script rounds to less than hundredths"
    )
    assert rounding(1 / 3) == pytest.approx(1e-9)
