"""Figures of a step: counted from known roll-outs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from timeloupe.cli.train import step_line
from timeloupe.train.grpo_log import StepLog, phase_seconds, step_figures
from timeloupe.trajectory import (
    Example,
    Generation,
    Score,
    Segment,
    StopReason,
    Trajectory,
    Turn,
    Usage,
    read_trajectories,
)


def trajectory(*lengths: int, reward: float | None = 1.0, **last: Any) -> Trajectory:
    """A roll-out whose replies have these many tokens; ``last`` changes the last reply."""
    replies = [Generation(text="x", token_ids=(1,) * length, logprobs=(-0.5,) * length) for length in lengths]
    replies[-1] = replies[-1].model_copy(update=last)
    example = Example(
        id="a", video="a.mp4", question="When?", task="grounding",
        segments=(Segment(start_seconds=1.0, end_seconds=2.0),),
    )  # fmt: skip
    return Trajectory(
        example=example, turns=tuple(Turn(generation=one) for one in replies), stop=StopReason.FORMAT,
        score=Score(parts={"reward": reward}), policy="test", protocol="small",
    )  # fmt: skip


def test_reply_lengths_count_every_reply_and_no_fault_of_the_machine() -> None:
    ones = [
        trajectory(3, 5),
        trajectory(8),
        trajectory(4, 1, finish="error", token_ids=None, usage=Usage(completion_tokens=9)),
        trajectory(1, token_ids=None, usage=Usage(completion_tokens=10)),
    ]
    figures = step_figures(ones, [8, 8], [{"entropy": 1.0}, {"entropy": 2.0}, {}])
    assert figures["generated_tokens"] == 30 and figures["learnt_tokens"] == 16
    assert figures["reply_tokens"] == pytest.approx(6.0) and figures["reply_tokens_max"] == 10
    assert figures["tokens"] == 8 and figures["entropy"] == 1.5


def test_an_episode_that_a_machine_ended_is_in_no_mean() -> None:
    broken = trajectory(3, reward=None).model_copy(update={"turns": (), "stop": StopReason.INFRASTRUCTURE})
    figures = step_figures([trajectory(3, 5), broken, trajectory(2, 2)], [8, 4], [])
    assert (figures["turns"], figures["scored"], figures["rollouts"]) == (2.0, 2, 3)
    assert figures["stop/infrastructure"] == pytest.approx(1 / 3)
    assert not {"looks", "turns", "crops"} & step_figures([broken], [], []).keys()


@pytest.mark.parametrize(
    ("scored", "said"), [(8, "    3/9  reward 0.500"), (5, "    3/9  scored 5/8  reward 0.500")]
)
def test_the_console_says_how_many_were_scored_where_not_all_were(scored: int, said: str) -> None:
    assert step_line({"step": 3, "reward": 0.5, "scored": scored, "rollouts": 8}, 9) == said


def test_constructed_replies_are_not_what_the_policy_generated() -> None:
    begun = trajectory(7).model_copy(update={"settings": {"reply_prefix": "<think>"}})
    figures = step_figures([trajectory(3, 5), begun], [8, 7], [])
    assert (figures["generated_tokens"], figures["constructed_tokens"], figures["learnt_tokens"]) == (
        8,
        7,
        15,
    )
    assert "constructed_tokens" not in step_figures([trajectory(3, 5)], [8], [])


def test_phases_share_the_step() -> None:
    found = phase_seconds({"generated_tokens": 100, "learnt_tokens": 60}, 1.0, 3.0, 4.0, 10.0)
    assert found == {
        "rollout_seconds": 2.0, "prepare_seconds": 1.0, "update_seconds": 6.0,
        "generated_tokens_per_second": 50.0, "learnt_tokens_per_second": 10.0,
    }  # fmt: skip


def test_a_small_rate_is_not_rounded_to_nothing(tmp_path: Path) -> None:
    StepLog(tmp_path, 0, None)(0, {"lr": 1.25e-8, "reward": 0.12345678}, ())
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {
        "step": 0,
        "lr": 1.25e-8,
        "reward": 0.123457,
    }


def test_a_resumed_log_keeps_the_lines_of_steps_that_stand_whatever_the_model_wrote(tmp_path: Path) -> None:
    strange = trajectory(1, text="a\u2028b\x85c\x0bd")
    log = StepLog(tmp_path, 0, None)
    for step in range(3):
        log(step, {"reward": 1.0}, (strange,))
    with (tmp_path / "trajectories.jsonl").open("a", encoding="utf-8") as out:
        out.write('{"example": {"id": "cut o')
    StepLog(tmp_path, 2, None)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_bytes().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    kept = list(read_trajectories(tmp_path / "trajectories.jsonl"))
    assert [one.settings["step"] for one in kept] == [0, 1]
    assert {one.turns[0].generation.text for one in kept} == {"a\u2028b\x85c\x0bd"}
