"""The runner: every episode once, whatever fails, whatever the pace."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.errors import ConfigError
from timeloupe.eval.runner import Clock, Job, Pace, run_episodes, worth_retrying
from timeloupe.runs import create_run
from timeloupe.trajectory import Example, Problem, StopReason, Trajectory


def episode(job: Job, stop: StopReason = StopReason.ANSWERED, reason: str = "policy") -> Trajectory:
    problem = Problem(reason=reason, message="gone") if stop is StopReason.INFRASTRUCTURE else None
    return Trajectory(
        example=job[0], policy="fake", protocol="small", rollout_index=job[1], stop=stop, problem=problem
    )


def jobs_of(count: int) -> list[Job]:
    return [(Example(id=f"q{number}", video="v.mp4", question="when?"), 0) for number in range(count)]


class Flaky:
    """Fails each episode as often as it is told to."""

    def __init__(self, faults: dict[str, int], reason: str = "policy") -> None:
        self.faults = faults
        self.reason = reason
        self.played: Counter[str] = Counter()
        self.lock = threading.Lock()

    def __call__(self, jobs: Sequence[Job]) -> list[Trajectory]:
        found = []
        for job in jobs:
            with self.lock:
                self.played[job[0].id] += 1
                failing = self.played[job[0].id] <= self.faults.get(job[0].id, 0)
            stop = StopReason.INFRASTRUCTURE if failing else StopReason.ANSWERED
            found.append(episode(job, stop, self.reason))
        return found


@given(
    faults=st.lists(st.integers(0, 5), max_size=12), threads=st.integers(1, 4), batch=st.integers(1, 5),
    retries=st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_every_episode_is_written_once(
    tmp_path_factory: pytest.TempPathFactory, faults: list[int], threads: int, batch: int, retries: int
) -> None:
    run = create_run(tmp_path_factory.mktemp("run"), {"command": "eval"})
    jobs = jobs_of(len(faults))
    flaky = Flaky({f"q{number}": count for number, count in enumerate(faults)})
    tally = run_episodes(jobs, run, flaky, Pace(threads, batch, retries, wait_seconds=0))
    written = Counter(one.example.id for one in run)
    assert written == Counter(job[0].id for job in jobs)
    lost = {one.example.id for one in run if one.stop is StopReason.INFRASTRUCTURE}
    assert lost == {f"q{number}" for number, count in enumerate(faults) if count > retries}
    assert tally.left == 0 and tally.retried == sum(min(count, retries) for count in faults)
    assert tally.stops[StopReason.INFRASTRUCTURE] == len(lost)


def test_a_video_that_cannot_be_read_is_not_tried_again(tmp_path: Path) -> None:
    run = create_run(tmp_path, {"command": "eval"})
    flaky = Flaky({"q0": 9}, reason="video")
    run_episodes(jobs_of(2), run, flaky, Pace(2, 1, 3, wait_seconds=0))
    assert flaky.played == {"q0": 1, "q1": 1}
    assert not worth_retrying(episode(jobs_of(1)[0]))


class Away:
    """A server that is asked for, and away so many times."""

    def __init__(self, times: float, answered: bool = True) -> None:
        self.times, self.answered, self.asked = times, answered, 0

    def is_there(self) -> bool:
        self.asked += 1
        return self.asked > self.times


def test_a_round_waits_for_a_server_that_answered_before(tmp_path: Path) -> None:
    run = create_run(tmp_path, {"command": "eval"})
    server, told = Away(2), list[str]()
    pace = Pace(1, 1, 2, wait_seconds=0, patience_seconds=60)
    run_episodes(
        jobs_of(2), run, Flaky({"q0": 1, "q1": 2}), pace, server=server, on_away=lambda: told.append("away")
    )
    assert [one.stop for one in run] == [StopReason.ANSWERED] * 2
    assert told == ["away"] and server.asked == 4, (
        "three times before the first round, once before the second"
    )


def test_patience_ends_and_a_server_that_never_answered_gets_none(tmp_path: Path) -> None:
    for name, server in (("dead", Away(99, answered=False)), ("gone", Away(float("inf")))):
        run = create_run(tmp_path / name, {"command": "eval"})
        run_episodes(jobs_of(2), run, Flaky({"q0": 9, "q1": 9}), Pace(1, 1, 2, 0.01, 0.05), server=server)
        assert {one.stop for one in run} == {StopReason.INFRASTRUCTURE}
        assert (server.asked >= 2) is server.answered


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_stopped_goes_on_later(tmp_path: Path, threads: int) -> None:
    run = create_run(tmp_path, {"command": "eval"})
    jobs = jobs_of(20)
    stop = threading.Event()
    seen: list[str] = []

    def played(trajectory: Trajectory, tally: object) -> None:
        seen.append(trajectory.example.id)
        if len(seen) == 4:
            stop.set()

    def slowly(jobs: Sequence[Job]) -> list[Trajectory]:
        time.sleep(0.02)  # else all would be over before the first is told of
        return [episode(job) for job in jobs]

    first = run_episodes(jobs, run, slowly, Pace(threads, 1), stop=stop, on_played=played)
    assert 4 <= first.written < 20 and first.left == 20 - first.written
    done = run.done()
    rest = [job for job in jobs if (job[0].id, job[1]) not in done]
    assert run_episodes(rest, run, Flaky({}), Pace(threads, 1)).left == 0
    assert Counter(one.example.id for one in run) == Counter(job[0].id for job in jobs)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_wrong_setting_ends_the_run(tmp_path: Path, threads: int) -> None:
    run = create_run(tmp_path, {"command": "eval"})

    def wrong(jobs: Sequence[Job]) -> list[Trajectory]:
        raise ConfigError("no such thing")

    with pytest.raises(ConfigError, match="no such thing"):
        run_episodes(jobs_of(5), run, wrong, Pace(threads, 1))


def test_what_others_have_played_is_kept_when_one_thread_fails(tmp_path: Path) -> None:
    run = create_run(tmp_path, {"command": "eval"})
    threads: dict[str, threading.Thread] = {}
    known = {f"q{number}": threading.Event() for number in range(3)}

    def play(jobs: Sequence[Job]) -> list[Trajectory]:
        name = jobs[0][0].id
        threads[name] = threading.current_thread()
        known[name].set()
        if name == "q1":
            raise ConfigError("no such thing")
        if name == "q2":  # ends when the error is in the queue already
            known["q1"].wait()
            threads["q1"].join()
        return [episode(job) for job in jobs]

    def played(trajectory: Trajectory, tally: object) -> None:
        if trajectory.example.id == "q0":  # nothing is taken out of the queue until all have ended
            known["q2"].wait()
            threads["q2"].join()

    with pytest.raises(ConfigError, match="no such thing"):
        run_episodes(jobs_of(3), run, play, Pace(3, 1), on_played=played)
    assert [one.example.id for one in run] == ["q0", "q2"]


@pytest.mark.parametrize(
    "change",
    [{"threads": 0}, {"batch": 0}, {"retries": -1}, {"wait_seconds": -1.0}, {"patience_seconds": -1.0}],
)
def test_a_pace_out_of_range_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="runner"):
        Pace(**change)  # type: ignore[arg-type]


def test_faults_are_taken_out_before_they_are_played_again(tmp_path: Path) -> None:
    run = create_run(tmp_path, {"command": "eval"})
    jobs = jobs_of(4)
    for job in jobs:
        lost = job[0].id in ("q1", "q3")
        run.append(episode(job, StopReason.INFRASTRUCTURE if lost else StopReason.ANSWERED))
    run.append(episode(jobs[0]))  # an older run may hold an episode twice
    assert run.drop_faults() == 2
    assert [one.example.id for one in run] == ["q0", "q2"]
    assert run.drop_faults() == 0


def test_the_clock_says_rate_and_time_left() -> None:
    clock = Clock()
    assert clock.words(0, 10) == ""
    clock.began -= 60
    assert clock.words(10, 100).startswith("10.0/min, 9 min left")
