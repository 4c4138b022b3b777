"""The stage ``bench``: controls, verification, leaks, and the choice of what is balanced."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.data.build.by_hand import SECONDS, choice, driven, kit, moment, think
from timeloupe.data.build.prompts import load_prompts
from timeloupe.data.build.record import BuiltRow
from timeloupe.data.build.stages.bench import BenchStage, bench
from timeloupe.data.build.stages.bench_choice import bench_record, bin_names, choose, is_fixed, write_bench
from timeloupe.data.build.stages.leaks import training
from timeloupe.data.build.steps import Ask
from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.eval.benchmarks import videotemp_bench_grounding, videotemp_bench_mcq
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, Segment, to_line

LETTERS = "ABCDEFGHIJ"


def stage(**options: object) -> BenchStage:
    return BenchStage.model_validate({"kind": "bench"} | options)


def right_in(**times: int) -> Callable[[Ask], str]:
    """Return a labeller that answers each purpose right in its first so many samples."""
    return lambda ask: think("B" if ask.sample < times.get(ask.purpose, 0) else "C")


def test_what_is_asked_of_a_row_that_goes_in() -> None:
    tools = kit()
    outcome, asks, replies = driven(
        bench(choice(), stage(controls=2, temperature=0.8), tools), tools, right_in(blind=1, verify=1)
    )
    assert (outcome.kept, outcome.reason) == (True, "verified")
    assert outcome.figures == {
        "blind_right": 0.5, "whole_right": 0.0, "duration_seconds": SECONDS,
        "blind_answered": 1.0, "whole_answered": 1.0,
    }  # fmt: skip
    assert [ask.purpose for ask in asks] == ["blind"] * 2 + ["whole"] * 2 + ["verify"]
    assert [len(ask.views) for ask in asks] == [0, 0, 1, 1, 1]
    assert [ask.sample for ask in asks] == [0, 1, 0, 1, 0]
    assert [ask.temperature for ask in asks] == [0.8] * 4 + [None]
    shown = asks[-1].views[0].ref
    assert (shown.view, shown.start_seconds, shown.end_seconds) == ("crop", 20, 30)
    assert not asks[0].messages[-1].frame_refs and "dog" in asks[0].messages[-1].text
    assert [one.right for one in replies] == [True, False, False, False, True]


def test_every_control_is_told_how_to_answer_and_one_without_answers_is_said(tmp_path: Path) -> None:
    texts = load_prompts("labeller", PROTOCOLS["videotemp"])
    tools = replace(kit(), prompts=texts)
    outcome, asks, _ = driven(
        bench(choice(), stage(controls=2), tools), tools,
        lambda ask: think("B") if ask.purpose == "verify" else "I cannot say.",
    )  # fmt: skip
    systems = {ask.purpose: ask.messages[0].text for ask in asks}
    assert systems == {"blind": texts["blind"], "whole": texts["direct"], "verify": texts["alone"]}
    assert outcome.kept and outcome.figures["blind_answered"] == outcome.figures["whole_answered"] == 0.0
    row = BuiltRow(
        stage="bench", id="a", example=choice(), kept=True, reason="verified", labeller="x",
        figures=dict(outcome.figures),
    )  # fmt: skip
    notes = write_bench(tmp_path, [row], [row], stage())["notes"]
    assert "1 of 1 verified rows: a control got no answer at all, so it tested nothing" in notes


@pytest.mark.parametrize(
    ("options", "times", "reason", "asked"),
    [
        ({}, {"blind": 2, "verify": 1}, "answered_blind", 3),
        ({}, {"blind": 1, "whole": 2, "verify": 1}, "answered_whole", 6),
        ({}, {"blind": 1, "whole": 1, "verify": 1}, "verified", 7),
        ({}, {}, "label_not_enough", 7),
        ({"max_blind": 0}, {"blind": 1}, "answered_blind", 3),
        ({"max_blind": 1, "max_whole": 1}, {"blind": 3, "whole": 3, "verify": 1}, "verified", 7),
        ({"controls": 4, "max_whole": 0.25}, {"whole": 2}, "answered_whole", 8),
        ({"controls": 4, "max_whole": 0.25}, {"whole": 1, "verify": 1}, "verified", 9),
        ({"controls": 1}, {"blind": 1}, "answered_blind", 1),
    ],
)  # fmt: skip
def test_controls_and_their_bounds(
    options: dict[str, float], times: dict[str, int], reason: str, asked: int
) -> None:
    tools = kit()
    outcome, asks, _ = driven(bench(choice(), stage(**options), tools), tools, right_in(**times))
    assert (outcome.reason, outcome.kept, len(asks)) == (reason, reason == "verified", asked)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (moment(), "not_a_choice"),
        (choice(answer=None), "not_a_choice"),
        (choice(answer="Z"), "not_a_choice"),
        (choice(options=()), "not_a_choice"),
        (choice(segments=()), "not_one_segment"),
        (choice(segments=moment().segments * 2), "not_one_segment"),
        (choice(options=("cat", "a dog\nC. or two", "cow")), "not_writable"),
        (choice(question="A. first\nB. then"), "not_writable"),
    ],
)
def test_rows_that_cannot_stand_in_the_benchmark_are_not_asked_about(example: Example, reason: str) -> None:
    tools = kit()
    outcome, asks, _ = driven(bench(example, stage(), tools), tools, right_in())
    assert (outcome.reason, outcome.kept, asks) == (reason, False, [])


def test_a_label_behind_the_end_is_a_bad_one() -> None:
    tools = kit()
    late = choice(segments=(Segment(start_seconds=SECONDS + 1, end_seconds=SECONDS + 2),))
    assert driven(bench(late, stage(), tools), tools, right_in())[0].reason == "bad_label"


def test_a_control_must_see_the_whole_video() -> None:
    for unfit in ({"skim_end_seconds": 50.0}, {"skim_start_seconds": 5.0}):
        tools = kit(**unfit)
        with pytest.raises(ConfigError, match="a control sees the whole video"):
            driven(bench(choice(), stage(), tools), tools, right_in())


@pytest.mark.parametrize("edges", [(0.0, 5.0), (5.0, 5.0), (9.0, 5.0), (-1.0,)])
def test_edges_ascend(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="ascending"):
        stage(edges=edges)


# ---- leaks


def leak(example: Example, train: Path, **options: object) -> str:
    tools = kit()
    part = stage(train=[str(train)], **options)
    return driven(bench(example, part, tools), tools, right_in(verify=1))[0].reason


def test_leaks_by_name_content_and_question(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"one")
    (tmp_path / "b.mp4").write_bytes(b"two")
    (tmp_path / "copy.mp4").write_bytes(b"one")
    rows = [choice("1", video="a.mp4", question="What?"), choice("2", video="elsewhere/gone.mp4")]
    train = tmp_path / "train.jsonl"
    train.write_text("".join(to_line(row) + "\n" for row in rows))

    def found(video: str, question: str, **options: object) -> str:
        return leak(choice(video=str(tmp_path / video), question=question), train, **options)

    assert found("b.mp4", "What?") == "verified"
    assert found("a.mp4", "Why?") == "leak_video" and found("copy.mp4", "Why?") == "leak_video"
    assert found("a.mp4", " what") == "leak_question" and found("copy.mp4", "WHAT?") == "leak_question"
    assert found("a.mp4", "Why?", share_videos=True) == "verified"
    assert found("a.mp4", "what ?", share_videos=True) == "leak_question"
    assert found("other/gone.webm", "Why?") == "leak_video"
    assert training((train,)).absent == 1


def test_a_build_is_read_by_what_it_trains_on(tmp_path: Path) -> None:
    (tmp_path / "trajectories.jsonl").write_text("")
    with pytest.raises(MissingError, match="are empty"):
        training((tmp_path,))
    (tmp_path / "examples.jsonl").write_text(to_line(choice("c", video="/v/trained.mp4")) + "\n")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "rows.jsonl").write_text("{}\n")
    training.cache_clear()
    assert leak(choice("x", video="/w/trained.mp4"), tmp_path) == "leak_video"
    assert leak(choice("x", video="/w/not.mp4"), tmp_path) == "verified"


def test_training_rows_that_cannot_be_read_stop_the_build(tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text(to_line(choice("c")) + '\n{"id": "d", "video": "v.mp4", "question": 3}\n')
    with pytest.raises(RecordError, match=r"training rows that cannot be read: .*train.jsonl:2"):
        leak(choice(), train)
    with pytest.raises(MissingError):
        leak(choice(), tmp_path / "none.jsonl")


# ---- choosing


def built(example: Example, seconds: float) -> BuiltRow:
    return BuiltRow(
        stage="bench", id=example.id, example=example, kept=True, reason="verified", labeller="nobody",
        figures={"duration_seconds": seconds},
    )  # fmt: skip


@st.composite
def verified(draw: st.DrawFn) -> list[BuiltRow]:
    rows = []
    lengths = draw(st.lists(st.sampled_from([60.0, 180.0, 599.0, 700.0, 1200.0, 9000.0]), max_size=12))
    for video, seconds in enumerate(lengths):
        for number in range(draw(st.integers(1, 4))):
            options = tuple(
                f"{word} {video}" for word in draw(st.permutations("klmnop"[: draw(st.integers(2, 6))]))
            )
            rows.append(
                built(
                    choice(
                        f"{video}-{number}", video=f"/v/{video}.mp4", question=f"What {draw(st.integers(0, 2))}?",
                        options=options, answer=LETTERS[draw(st.integers(0, len(options) - 1))],
                    ),
                    seconds,
                )
            )  # fmt: skip
    return draw(st.permutations(rows))


@settings(max_examples=40)
@given(verified(), st.none() | st.integers(1, 6), st.integers(1, 3), st.integers(0, 3), st.randoms())
def test_the_choice_is_balanced_and_keeps_what_is_right(
    rows: list[BuiltRow], per_bin: int | None, per_video: int, seed: int, random: Random
) -> None:
    part = stage(per_bin=per_bin, per_video=per_video, seed=seed)
    taken = choose(rows, part)
    before = {row.id: row.example for row in rows}
    ids = [row.id for row in taken]
    assert len(set(ids)) == len(ids) and ids == [row.id for row in rows if row.id in set(ids)]
    assert len({(row.example.video, row.example.question) for row in taken}) == len(ids)
    assert max(Counter(row.example.video for row in taken).values(), default=0) <= per_video

    def bins(some: list[BuiltRow]) -> dict[int, int]:
        return Counter(sum(row.figures["duration_seconds"] >= edge for edge in part.edges) for row in some)

    could: Counter[int] = Counter()
    questions = defaultdict(set)
    for row in rows:
        questions[row.example.video, row.figures["duration_seconds"]].add(row.example.question)
    for (_, seconds), some in questions.items():
        could[sum(seconds >= edge for edge in part.edges)] += min(per_video, len(some))
    fullest = min(could.values(), default=0) if per_bin is None else per_bin
    assert bins(taken) == {at: min(number, fullest) for at, number in could.items()}

    for row in taken:
        old, new = before[row.id], row.example
        assert sorted(old.options) == sorted(new.options)
        assert old.options[LETTERS.index(old.answer)] == new.options[LETTERS.index(new.answer)]
        assert old == new.model_copy(update={"options": old.options, "answer": old.answer})
        if old.options != new.options:
            asked = row.detail.removeprefix("its options were asked as ")
            assert new.options == tuple(old.options[LETTERS.index(letter)] for letter in asked)
    for number in {len(row.example.options) for row in taken}:
        letters = Counter(row.example.answer for row in taken if len(row.example.options) == number)
        assert max(letters.values()) - min(letters[letter] for letter in LETTERS[:number]) <= 1

    shuffled = list(rows)
    random.shuffle(shuffled)
    assert sorted(map(to_line, choose(shuffled, part))) == sorted(map(to_line, taken))


def test_every_video_comes_once_before_one_comes_twice() -> None:
    rows = [
        built(choice(f"{video}-{n}", video=f"/v/{video}.mp4", question=f"What {n}?"), 60) for video in range(4)
        for n in range(3)
    ]  # fmt: skip
    for seed in range(5):
        taken = choose(rows, stage(per_bin=4, per_video=3, seed=seed))
        assert len({row.example.video for row in taken}) == 4
    drawn = {tuple(row.id for row in choose(rows, stage(seed=seed))) for seed in range(5)}
    assert len(drawn) > 1


def test_options_that_speak_of_places_stay_where_they_are() -> None:
    fixed = [
        "All of the above",
        "None of these",
        "Both A and C",
        "A or B",
        "option B is wrong",
        "neither of the others",
    ]
    free = ["both hands", "above the table", "a cat and a dog", "all of it", "Vitamin A"]
    assert all(is_fixed(choice(options=("x", text))) for text in fixed)
    assert not any(is_fixed(choice(options=("x", text))) for text in free)
    rows = [built(choice(f"f{n}", options=("x", "y", "All of the above"), answer="C"), 60) for n in range(4)]
    rows += [built(choice(f"l{n}", options=("x", "y", "z"), answer="C"), 60) for n in range(8)]
    taken = choose(rows, stage(per_bin=99))
    assert all(row.example.options[2] == "All of the above" for row in taken if row.id[0] == "f")
    assert Counter(row.example.answer for row in taken) == {"A": 4, "B": 4, "C": 4}


def test_the_file_is_read_as_it_was_meant_and_what_is_short_is_said(tmp_path: Path) -> None:
    rows = [built(choice("long"), 1300.0), built(choice("short", video="/v/b.mp4"), 60.0)]
    rows.append(rows[0].model_copy(update={"id": "not", "kept": False, "figures": {}}))
    part = stage(per_bin=2)
    taken = choose(rows[:2], part)
    facts = write_bench(tmp_path, rows, taken, part)
    assert facts["bins"]["<3 min"] == {"kept": 1, "handed_on": 1} and facts["videos"] == 2
    assert facts["bins"]["3-10 min"] == {"kept": 0, "handed_on": 0}
    assert facts["notes"][1] == "fewer than the 2 asked for: 1 <3 min, 0 3-10 min, 0 10-20 min, 1 >=20 min"
    assert sum(facts["letters"].values()) == 2 and json.dumps(facts)
    assert "no question at all: 3-10 min, 10-20 min" in write_bench(tmp_path, rows, taken, stage())["notes"]
    choices = videotemp_bench_mcq.load(tmp_path / "bench.jsonl")
    moments = videotemp_bench_grounding.BENCHMARK.load(tmp_path / "bench.jsonl")
    for row, asked, where in zip(taken, choices, moments, strict=True):
        example = row.example
        assert (asked.id, asked.video, asked.question) == (row.id, example.video, example.question)
        assert (asked.options, asked.answer) == (example.options, example.answer)
        assert asked.windows == where.windows == ((20.0, 30.0),)
        assert asked.duration_seconds == row.figures["duration_seconds"]
        assert where.raw["answer"] == f"{example.answer}. dog"
    record = bench_record(taken[1])
    assert list(record) == ["id", "videos", "question", "answer", "duration", "timestamp"]


def test_names_of_bins() -> None:
    assert bin_names((180, 600, 1200)) == ["<3 min", "3-10 min", "10-20 min", ">=20 min"]
    assert bin_names((90,)) == ["<1.5 min", ">=1.5 min"] and bin_names(()) == ["all"]
