"""Several replies become one: who is chosen, what weighs how much, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.environment.clips import colour_of, seconds_of, write_clip
from timeloupe.cli.eval_vote import check_temperature, settle_flags
from timeloupe.errors import ConfigError, PolicyError
from timeloupe.eval.benchmarks.world import BENCHMARK
from timeloupe.eval.relevance import (
    Relevance,
    Scorer,
    cut_out,
    evidence_weights,
    mend,
    read_rows,
    read_score,
    scorer_cost,
)
from timeloupe.eval.scaling import (
    Pointed,
    agreement_weights,
    by_question,
    check_evidence,
    choose,
    equal_weights,
    gains,
    overlap_of,
    pointed_at,
    self_weights,
    vote,
)
from timeloupe.eval.scoring import Row
from timeloupe.eval.voting import Evidence
from timeloupe.policy.base import GenerationRequest
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.runs import append_records
from timeloupe.trajectory import (
    Example,
    FrameRef,
    Generation,
    Message,
    StopReason,
    Task,
    Trajectory,
    Turn,
    Usage,
)
from timeloupe.video.cache import FrameCache

LETTERS = Row(
    "q", "v.mp4", "which?", "multiple_choice", ("1", "2", "3", "4"), "B", groups={"task": "multiple_choice"}
)
TIMES = Row("g", "v.mp4", "when?", "grounding", windows=((10.0, 20.0),), groups={"task": "grounding"})


def said(
    text: str, *, index: int = 0, row: Row = LETTERS, thought: str = "so", video: str = "v.mp4",
    protocol: str = "videotemp",
) -> Trajectory:  # fmt: skip
    """An episode of one turn that answers ``text``."""
    reply = f"<think>{thought}</think><answer>{text}</answer>"
    parsed = parse_reply(reply, PROTOCOLS[protocol], num_options=len(row.options))
    task: Task = row.task
    example = Example(id=row.id, video=video, question=row.question, options=row.options, task=task)
    turn = Turn(generation=Generation(text=reply), thought=parsed.thought, answer=parsed.answer)
    skim = FrameRef(
        video=video, view="skim", start_seconds=0, end_seconds=20, at_seconds=(5.0, 15.0), size_wh=(64, 64)
    )
    return Trajectory(
        example=example, policy="p", protocol=protocol, rollout_index=index, turns=(turn,),
        prompt=(Message(role="user", parts=(skim,)),), stop=StopReason.ANSWERED, settings={"frame_size_wh": (64, 64)},
    )  # fmt: skip


def silent(stop: StopReason = StopReason.FORMAT, row: Row = LETTERS) -> Trajectory:
    return Trajectory(
        example=Example(id=row.id, video="v.mp4", question="q"), policy="p", protocol="videotemp", stop=stop,
        turns=(Turn(generation=Generation(text="hm")),),
    )  # fmt: skip


def test_the_letter_with_the_most_weight_wins_and_its_heaviest_reply_speaks() -> None:
    some = [said("C"), said("B"), said("B"), said("nothing"), silent(), silent(StopReason.INFRASTRUCTURE)]
    chosen = choose(LETTERS, some, [1, 0.4, 0.7, 1, 1, 1])
    assert (chosen.index, chosen.tied) == (2, False)
    assert (chosen.num_votes, chosen.num_silent, chosen.num_faults) == (3, 2, 1)
    assert choose(LETTERS, some, [1.0] * 6).index == 1
    tie = choose(LETTERS, [said("D"), said("A")], [0.6, 0.6])
    assert tie.index == 0 and tie.tied  # the reply that came first, not the first letter
    assert choose(LETTERS, [silent(), silent()], [1, 1]).index is None
    assert choose(LETTERS, [], []).index is None
    with pytest.raises(ValueError, match="one weight per sample"):
        choose(LETTERS, some, [1])


def test_of_segments_the_medoid_is_chosen_and_none_is_made_up() -> None:
    some = [said(text, row=TIMES) for text in ("[0, 2]", "[10, 20]", "[11, 21]", "[9, 30]")]
    assert choose(TIMES, some, [1.0] * 4).index == 1
    assert choose(TIMES, some, [1, 0.2, 0.2, 1]).index == 3
    assert choose(TIMES, [said("[0, 2]", row=TIMES), said("[5, 9]", row=TIMES)], [1, 1]).tied
    assert not choose(TIMES, [said("[5, 9]", row=TIMES), said("5 to 9 s", row=TIMES)], [1, 1]).tied
    assert choose(TIMES, [said("soon", row=TIMES), said("[1, 2]", row=TIMES)], [1, 1]).index == 1


def test_short_answers_are_the_same_but_for_case_and_blanks() -> None:
    row = Row("o", "v.mp4", "what?", "open")
    some = [said(text, row=row) for text in ("a dog", "A  cat", "a cat")]
    assert choose(row, some, [1, 1, 1]).index == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["A", "B", "C", "nothing"]), st.floats(0.2, 1)), min_size=1, max_size=6
    )
)
def test_a_vote_has_the_largest_sum_and_doubling_all_weights_changes_nothing(
    pairs: list[tuple[str, float]],
) -> None:
    some, weights = [said(text) for text, _ in pairs], [weight for _, weight in pairs]
    chosen = choose(LETTERS, some, weights)
    sums = {
        text: sum(weight for other, weight in pairs if other == text)
        for text, _ in pairs
        if text != "nothing"
    }
    if not sums:
        assert chosen.index is None
        return
    assert chosen.index is not None
    assert sums[pairs[chosen.index][0]] == pytest.approx(max(sums.values()))
    assert choose(LETTERS, some, [2 * weight for weight in weights]).index == chosen.index


def test_self_weights_are_how_far_others_point_at_the_same() -> None:
    same, far = Pointed(spans=((0, 10),)), Pointed(spans=((50, 60),))
    assert agreement_weights([same, same, far]) == pytest.approx([0.6, 0.6, 0.2])
    assert agreement_weights([same, Pointed(), Pointed()]) == [0.2, 0.2, 0.2]
    assert agreement_weights([same, same, Pointed()]) == pytest.approx([1.0, 1.0, 0.2])
    cat = Evidence("cat", (0, 0, 10, 10), 5.0)
    near, late = Evidence("cat", (0, 0, 10, 20), 5.6), Evidence("cat", (0, 0, 10, 10), 7.0)
    assert overlap_of(Pointed((cat,)), Pointed((near,))) == 0.5
    assert overlap_of(Pointed((cat,)), Pointed((late,))) == overlap_of(Pointed((cat,)), same) == 0
    assert overlap_of(Pointed((cat,)), Pointed((cat, late))) == 0.75


def test_what_a_reply_points_at() -> None:
    claim = "<obj>cat</obj><box>[1, 2, 3, 4]</box>at<t>5.0</t>s"
    assert pointed_at(said("B", thought=claim)).claims == (Evidence("cat", (1, 2, 3, 4), 5.0),)
    assert pointed_at(said("[3, 4]", row=TIMES)).spans == ((3, 4),)
    assert not pointed_at(said("B")) and not pointed_at(silent())
    assert check_evidence([said("B"), said("B", thought=claim)], "self") == 1
    with pytest.raises(ConfigError, match="none of 2 replies points at any"):
        check_evidence([said("B"), said("C")], "self")


def test_a_vote_is_scored_beside_its_samples_and_the_best_of_them() -> None:
    some = [said(text, index=index) for index, text in enumerate(("A", "B", "B", "C"))]
    some += [
        said(text, index=index, row=TIMES)
        for index, text in enumerate(("[10, 20]", "[30, 40]", "[30, 40]", "x"))
    ]
    voted = vote([LETTERS, TIMES], by_question(some[::-1]), equal_weights)
    found = gains(BENCHMARK, [LETTERS, TIMES], some, voted)
    letters, times = found["multiple_choice"], found["grounding"]
    assert (letters.single.mean, letters.voted.mean, letters.gain.mean, letters.best.mean) == (0.5, 1, 0.5, 1)
    assert (times.single.mean, times.voted.mean, times.best.mean) == (0.25, 0, 1)
    assert found["all"].num_questions == 2 and voted.counts()["samples_without_answer"] == 1
    lost = [silent(StopReason.INFRASTRUCTURE), silent(StopReason.INFRASTRUCTURE)]
    nobody = vote([LETTERS, TIMES], {"q": lost, "g": [silent(row=TIMES)]}, self_weights)
    assert nobody.by_id == {"g": ""}
    assert nobody.counts() == {
        "questions_tied": 0, "questions_without_vote": 1, "questions_lost": 1, "samples_without_answer": 1,
        "samples_lost": 2,
    }  # fmt: skip


class Judge:
    """A scorer that says what it is told to and keeps what it was shown."""

    name = "judge"

    def __init__(self, *replies: str | None) -> None:
        self.replies = list(replies)
        self.shown: list[GenerationRequest] = []

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        self.shown += requests
        if self.replies == [None]:
            raise PolicyError("the judge has gone home")
        usage = Usage(prompt_tokens=10, completion_tokens=1)
        return [Generation(text=self.replies.pop(0) or "", usage=usage) for _ in requests]


def test_the_scorer_sees_each_crop_alone_and_its_digits_become_weights(tmp_path: Path) -> None:
    video = str(write_clip(tmp_path / "red.mp4", "red", 20))
    left = "<obj>wall</obj><box>[0, 0, 500, 1000]</box>at<t>5.0</t>s"
    right = "<obj>clock</obj><box>[500, 0, 1000, 1000]</box>at<t>12.0</t>s"
    late = "<obj>clock</obj><box>[500, 0, 1000, 1000]</box>at<t>99.0</t>s"
    judge = Judge("2", "<think>1 or 2</think>0", "both 1 and 2", "1")
    some = [
        said("B", thought=left + right, video=video), said("C", thought="none", video=video),
        said("A", thought=late + left, video=video), said("[4, 8]", row=TIMES, video=video),
        said("D", thought=left * 11, video=video),
    ]  # fmt: skip
    rows = Scorer("s", judge, "thousandths", FrameCache(2**22)).score(some)
    assert [row.scores for row in rows] == [(2, 0), (), (None,), (1,), ()]
    assert [row.num_crops for row in rows] == [2, 0, 2, 1, 11]
    assert [row.weight for row in rows] == [0.6, 0.2, 0.2, 0.6, 0.2]
    assert [len(request.clips) for request in judge.shown] == [1] * 4
    assert "which?" in judge.shown[0].messages[0].text and "B. 2" in judge.shown[0].messages[0].text
    clip = judge.shown[3].clips[0]
    assert colour_of(clip) == "red" and set(seconds_of(clip)) <= {4, 5, 6, 7}
    clock = judge.shown[1].clips[0]
    assert clock.shape == (1, 64, 64, 3) and abs(float(clock.mean()) - 8 * 12) < 4
    assert scorer_cost(rows) | {"seconds": 0} == {
        "crops": 4, "prompt_tokens": 40, "completion_tokens": 4, "frames": 3 + len(clip), "seconds": 0,
    }  # fmt: skip
    weights = evidence_weights(some[:2], {rows[0].key: rows[0]})
    assert weights == [0.6, 0.6]  # one row, one key: both episodes are of question q, sample 0


def test_what_the_scorer_said_is_kept_and_faults_are_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "relevance.jsonl"
    gone = Scorer("s", Judge(None), "thousandths", FrameCache(0)).score(
        [said("[1, 2]", row=TIMES, video="gone.mp4")]
    )
    assert "gone.mp4" in gone[0].fault
    video = str(write_clip(tmp_path / "red.mp4", "red", 4))
    home = Scorer("s", Judge(None), "thousandths", FrameCache(0)).score(
        [said("[1, 2]", row=TIMES, video=video)]
    )
    assert home[0].fault == "the judge has gone home" and home[0].scores == ()
    good = Relevance(scorer="s", id="q", rollout_index=1, num_crops=1, scores=(2,))
    append_records(path, [*gone, good, good.model_copy(update={"scorer": "other"})])
    path.write_bytes(path.read_bytes() + b'{"torn')
    mend(path, "s")
    assert read_rows(path, "s") == {("q", 1): good} and len(read_rows(path, "other")) == 1


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("2", 2),
        (" Score: 1.", 1),
        ("<think>0</think>\n2", 2),
        ("3", None),
        ("", None),
        ("1 or 2", None),
        ("10", None),
    ],
)
def test_scores(text: str, score: int | None) -> None:
    assert read_score(text) == score


def test_boxes_that_cover_nothing_are_no_pictures() -> None:
    frame = np.zeros((8, 10, 3), np.uint8)
    frame[:, 5:] = 200
    part = cut_out(frame, (500, 0, 1000, 1000), (1000, 1000))
    assert part is not None and part.shape == frame.shape and part.min() == 200
    assert cut_out(frame, (2000, 0, 3000, 1000), (1000, 1000)) is None
    assert cut_out(frame, (0, 0, float("inf"), 5), (1000, 1000)) is None
    assert cut_out(frame, (-5, -5, 4000, 4000), (1000, 1000)) is not None


def flags(**given: object) -> dict[str, object]:
    return {
        "samples": 1, "repeats": 1, "vote": None, "scorer_base_url": None, "scorer_model": None,
    } | given  # fmt: skip


def test_flags_that_do_not_go_together_are_refused() -> None:
    settled = flags(samples=4)
    settle_flags(settled)
    assert settled["repeats"] == 4 and settled["vote"] == "majority"
    settle_flags(flags(samples=4, repeats=4, vote="self"))
    for wrong, said_so in (
        ({"vote": "self"}, "needs --samples"), ({"samples": 4, "repeats": 2}, "does not go with --samples 4"),
        ({"samples": 4, "vote": "loudest"}, "majority, evidence, self"),
        ({"samples": 4, "scorer_base_url": "http://x/v1"}, "asks no scorer"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said_so):
            settle_flags(flags(**wrong))
    with pytest.raises(ConfigError, match="the same reply 4 times"):
        check_temperature({"samples": 4}, 0.0)
    check_temperature({"samples": 1}, 0.0)
    check_temperature({"samples": 4}, 0.5)
    json.dumps(settled)
