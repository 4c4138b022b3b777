"""The run folder: one configuration, every line kept, a kill survived."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.serve.episodes import look_twice, write_run
from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.eval.recorded import read_recorded
from timeloupe.runs import (
    RunFolder,
    create_run,
    differing_keys,
    lock_run,
    open_run,
    snapshot_environment,
    write_atomic,
    write_json,
)
from timeloupe.trajectory import Example, Problem, StopReason, Trajectory, to_line

CONFIG = {"policy": "scripted", "episode": {"max_turns": 3, "skim_frames": 16}, "seed": 0}


def episode(id: str, stop: StopReason = StopReason.ANSWERED, rollout_index: int = 0) -> Trajectory:
    """An episode without turns."""
    problem = Problem(reason="policy", message="no") if stop is StopReason.INFRASTRUCTURE else None
    return Trajectory(
        example=Example(id=id, video="a.mp4", question="When?"), policy="scripted", protocol="videotemp",
        rollout_index=rollout_index, stop=stop, problem=problem,
    )  # fmt: skip


def test_a_new_run_holds_its_configuration_and_environment(tmp_path: Path) -> None:
    run = create_run(tmp_path / "deep" / "run", CONFIG)
    assert json.loads((run.path / "config.json").read_text()) == CONFIG
    sessions = json.loads((run.path / "environment.json").read_text())["sessions"]
    assert len(sessions) == 1
    assert sessions[0]["packages"]["pydantic"]
    assert {"timeloupe", "commit", "python", "platform"} <= sessions[0].keys()
    assert list(run) == [] and run.done() == set()


def test_taking_up_the_same_run_keeps_what_is_there(tmp_path: Path) -> None:
    create_run(tmp_path, CONFIG).append(episode("one"))
    again = create_run(tmp_path, {**CONFIG})
    again.append(episode("two"))
    assert [item.example.id for item in open_run(tmp_path)] == ["one", "two"]
    assert len(json.loads((tmp_path / "environment.json").read_text())["sessions"]) == 1


def test_another_configuration_is_refused_and_the_keys_are_named(tmp_path: Path) -> None:
    create_run(tmp_path, CONFIG)
    other = {"policy": "small", "episode": {"max_turns": 3, "skim_frames": 32}, "temperature": 1.0, "seed": 0}
    with pytest.raises(ConfigError) as caught:
        create_run(tmp_path, other)
    message = str(caught.value)
    assert 'policy: there "scripted", now "small"' in message
    assert "episode.skim_frames: there 16, now 32" in message
    assert "temperature: there nothing, now 1.0" in message
    assert "max_turns" not in message and "seed" not in message
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG


def test_null_is_not_the_same_as_nothing() -> None:
    assert differing_keys({"a": None}, {}) == [("a", "null", "nothing")]
    assert differing_keys({"a": {"b": 1}}, {"a": 1}) == [("a", '{"b": 1}', "1")]


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(ConfigError, match="not empty"):
        create_run(tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="needs a folder"):
        create_run(tmp_path / "holiday.jpg", CONFIG)
    with pytest.raises(MissingError, match="no run at"):
        open_run(tmp_path)


def test_the_machines_fault_is_played_again_and_the_later_line_stands(tmp_path: Path) -> None:
    run = create_run(tmp_path, CONFIG)
    run.append(episode("one", StopReason.INFRASTRUCTURE))
    run.append(episode("two", StopReason.FORMAT))
    run.append(episode("two", StopReason.MAX_TURNS, rollout_index=1))
    assert run.done() == {("two", 0), ("two", 1)}
    run.append(episode("one"))
    assert run.done() == {("one", 0), ("two", 0), ("two", 1)}
    assert [(item.example.id, item.stop) for item in run.latest()] == [
        ("one", StopReason.ANSWERED), ("two", StopReason.FORMAT), ("two", StopReason.MAX_TURNS),
    ]  # fmt: skip
    assert len(list(run)) == 4


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_torn_last_line_is_passed_over_and_cut_off(tmp_path: Path, kept: int) -> None:
    run = create_run(tmp_path, CONFIG)
    run.append(episode("one"))
    torn = to_line(episode("two"))[:kept]
    with run.trajectories_path.open("a") as file:
        file.write(torn)
    assert [item.example.id for item in run] == ["one"]
    assert run.repair() == len(torn)
    again = create_run(tmp_path, CONFIG)
    again.append(episode("three"))
    assert [item.example.id for item in again] == ["one", "three"]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    run = create_run(tmp_path, CONFIG)
    run.trajectories_path.write_text(to_line(episode("one")))
    assert [item.example.id for item in run] == ["one"]
    assert run.repair() == 0
    run.append(episode("two"))
    assert [item.example.id for item in run] == ["one", "two"]


def test_a_torn_line_longer_than_a_block_is_found(tmp_path: Path) -> None:
    run = create_run(tmp_path, CONFIG)
    run.append(episode("one"))
    with run.trajectories_path.open("a") as file:
        file.write('{"schema_version": 1, "policy": "' + 200_000 * "x")
    assert run.repair() > 200_000
    assert [item.example.id for item in run] == ["one"]


def test_a_damaged_line_in_the_middle_is_an_error_with_its_place(tmp_path: Path) -> None:
    run = create_run(tmp_path, CONFIG)
    run.append(episode("one"))
    with run.trajectories_path.open("a") as file:
        file.write('{"policy": "scripted"}\n')
    run.append(episode("two"))
    with pytest.raises(RecordError, match=r"trajectories.jsonl:2 is not a valid Trajectory"):
        list(run)


def test_killed_while_writing_nothing_whole_is_lost(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_runs import CONFIG, create_run, episode
run = create_run({str(tmp_path)!r}, CONFIG)
number = 0
while True:
    run.append(episode(str(number)))
    number += 1
    print(number, flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    count = 0
    for _ in range(50):
        count = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait(timeout=20)
    writer.stdout.close()
    ids = [item.example.id for item in create_run(tmp_path, CONFIG)]
    assert ids == [str(number) for number in range(len(ids))]
    assert len(ids) >= count


def test_an_atomic_write_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [item.name for item in tmp_path.iterdir()] == ["config.json"]


def test_a_configuration_must_be_strict_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        create_run(tmp_path / "run", {"lr": float("nan")})


HOLDER = """
import sys, time
from timeloupe.runs import lock_run
with lock_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Start a process that holds a run folder, and return when it does."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    holder = hold(folder)
    try:
        refused = pytest.raises(ConfigError, match=f"being written.* beside process {holder.pid} on")
        with refused, lock_run(folder):
            raise AssertionError("two writers")
        assert (folder / ".lock").exists()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with lock_run(folder):  # a kill released it, and what it left is no hindrance
        run = create_run(folder, CONFIG)
    assert sorted(item.name for item in run.path.iterdir()) == ["config.json", "environment.json"]


def test_a_process_does_not_hold_a_folder_twice(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(ConfigError, match="being written"), lock_run(tmp_path):
        raise AssertionError("two writers")
    with lock_run(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_leaves_no_folder_that_was_not_there(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="refused"), lock_run(tmp_path / "new"):
        raise RuntimeError("refused")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="needs a folder"), lock_run(tmp_path / "file"):
        pass


def test_there_is_one_writer_however_many_try(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def attempt(number: int) -> None:
        for _ in range(200):
            try:
                with lock_run(tmp_path / "run"):  # each makes it, and takes it away again
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)
            except ConfigError:
                continue

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert max(most) == 1


def test_a_folder_taken_away_as_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, raised = Path.mkdir, []

    def mkdir(path: Path, *args: Any, **kwargs: Any) -> None:
        if not raised:  # as pathlib says when the folder was there for mkdir and not for the look after it
            raised.append(path)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with lock_run(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    monkeypatch.undo()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match="broken link"), lock_run(tmp_path / "nowhere"):
        pass


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("timeloupe.runs.fcntl.flock", flock)
    with pytest.warns(UserWarning, match="has no locks"), lock_run(tmp_path):
        pass


def test_roll_outs_of_a_training_are_kept_per_step(tmp_path: Path) -> None:
    one = look_twice("v.mp4", 60, "a")
    played = [one.model_copy(update={"settings": one.settings | {"step": step}}) for step in (0, 1, 2)]
    run = RunFolder(write_run(tmp_path / "run", [*played, played[1]]), {})
    assert [item.settings["step"] for item in run.latest()] == [0, 1, 2]
    write_json(tmp_path / "run" / "environment.json", snapshot_environment())  # as a training writes it
    found = read_recorded(tmp_path / "run")
    assert len(found.replies) == 1
    assert any("1 of its 3 roll-outs" in note for note in found.notes)
    assert len(found.environments) == 1
