"""Reading in a worker: the same frames and errors as in this process, and an end to whatever hangs or crashes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video.painting import Clip, read_number
from timeloupe.errors import VideoError
from timeloupe.video import index as index_module
from timeloupe.video import isolate
from timeloupe.video.image import Orientation
from timeloupe.video.index import FrameIndex, load_index
from timeloupe.video.probe import probe
from timeloupe.video.reader import VideoReader
from timeloupe.video.wire import index_from, index_message

GetClip = Callable[[str], Clip]

PATIENT = 60.0
"""A deadline that no healthy read meets, on however busy a machine."""


@pytest.fixture(autouse=True)
def no_workers_left() -> Iterator[None]:
    """Start and end without workers, and without indices in memory."""
    isolate._close()
    index_module._indices._kept.clear()
    yield
    isolate._close()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    """Return when ``true`` says so; the bound is only there to end a failing test."""
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come true within a minute")


def half_read(clip: Clip) -> tuple[Iterator[tuple[int, np.ndarray]], int]:
    """Return a native read that waits in the middle for its caller, and the worker's process."""
    decoder = isolate.WorkerDecoder(load_index(clip.path), str(clip.path), 0.5)
    # Far more than the pipe takes, so the worker cannot be through.
    frames = decoder.decode(range(len(clip.seconds)), (512, 512))
    next(frames)
    [pid] = isolate.worker_pids()
    return frames, pid


@pytest.mark.parametrize(
    "name", ["bframes.mp4", "uneven.mkv", "open_gop.ts", "mpeg4.avi", "raw.h264", "ten_bit.mp4", "vp9.webm"]
)
def test_a_worker_reads_the_same(clip: GetClip, name: str) -> None:
    source = clip(name)
    end = load_index(source.path).duration_seconds
    times = [0.0, end * 0.9, end * 0.31, end * 0.33, end]
    here = VideoReader(source.path)
    index_module._indices._kept.clear()
    there = VideoReader(source.path, deadline_seconds=PATIENT)
    assert here.info == there.info and len(isolate.worker_pids()) == 1
    for size in (None, (64, 48)):
        mine, its = here.read(times, size), there.read(times, size)
        assert np.array_equal(mine.pixels, its.pixels)
        assert (mine.at_seconds, mine.duration_seconds) == (its.at_seconds, its.duration_seconds)
        assert here.frames_decoded == there.frames_decoded > 0
    assert [read_number(picture) for picture in its.pixels] == [
        source.number_at(min(t, end - 1e-5)) for t in times
    ]


def test_errors_are_the_same(clip: GetClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    data = bytearray(clip("constant.mp4").path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 3000] = bytes(3000)
    (tmp_path / "damaged.mp4").write_bytes(data)
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("text.mp4", "empty.mp4", "damaged.mp4", "pipe.mp4", "none.mp4", ".", "a\0b", "\udcff.mp4"):
        found: list[VideoError] = []
        for deadline in (None, PATIENT):
            index_module._indices._kept.clear()
            with pytest.raises(VideoError) as caught:
                VideoReader(name, deadline_seconds=deadline).read([n / 10 for n in range(60)], (32, 32))
            found.append(caught.value)
        assert found[0].fields() == found[1].fields() and str(found[0]) == str(found[1])
        assert pickle.loads(pickle.dumps(found[1])).fields() == found[1].fields()  # noqa: S301
    assert len(isolate.worker_pids()) == 1  # a refusal is an answer: the worker goes on


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV])
def test_a_worker_that_ends_or_hangs_in_the_middle(clip: GetClip, how: signal.Signals) -> None:
    source = clip("constant.mp4")
    frames, pid = half_read(source)
    os.kill(pid, how)
    with pytest.raises(VideoError) as caught:
        list(frames)
    expected = "no sign of life from the decoder for 0.5 s" if how == signal.SIGSTOP else how.name
    assert expected in str(caught.value)
    assert caught.value.codec == "h264" and caught.value.at_seconds is not None
    wait_until(lambda: not is_running(pid))
    with VideoReader(source.path, deadline_seconds=PATIENT) as reader:
        assert read_number(reader.read([3.05]).pixels[0]) == 30


def test_an_idle_worker_that_was_ended_is_replaced(clip: GetClip) -> None:
    path = clip("constant.mp4").path
    probe(path, deadline_seconds=PATIENT)
    [pid] = isolate.worker_pids()
    os.kill(pid, signal.SIGKILL)  # it may or may not be gone when the next file is asked for
    assert probe(path, deadline_seconds=PATIENT).num_frames == 60
    assert isolate.worker_pids() != [pid]


def test_looking_a_file_up_has_the_deadline_too(clip: GetClip) -> None:
    path = clip("constant.mp4").path
    probe(path, deadline_seconds=PATIENT)
    [pid] = isolate.worker_pids()
    os.kill(pid, signal.SIGSTOP)  # as a worker in stat() on a disk that does not answer
    with pytest.raises(VideoError, match="no sign of life"):
        VideoReader(path, deadline_seconds=0.2)


def test_an_unfinished_read_leaves_no_worker_with_old_answers(clip: GetClip) -> None:
    source = clip("constant.mp4")
    frames, pid = half_read(source)
    del frames
    wait_until(lambda: not is_running(pid))
    with VideoReader(source.path, deadline_seconds=PATIENT) as reader:
        assert read_number(reader.read([1.05]).pixels[0]) == 10


def test_workers_are_used_again_and_few_are_kept(clip: GetClip) -> None:
    names = ["constant.mp4", "bframes.mp4", "uneven.mkv", "open_gop.ts", "vp9.webm", "two_frames.mp4"]
    for name in names:
        VideoReader(clip(name).path, deadline_seconds=PATIENT).read([0.0])
    assert len(isolate.worker_pids()) == 1
    wrong: list[object] = []
    together = threading.Barrier(4)

    def read(name: str) -> None:
        source = clip(name)
        together.wait()
        for turn in range(6):
            with VideoReader(source.path, deadline_seconds=PATIENT) as reader:
                time = source.seconds[-1] * turn / 6
                if read_number(reader.read([time]).pixels[0]) != source.number_at(time):
                    wrong.append((name, time))

    for name in names[:4]:
        clip(name)
    threads = [threading.Thread(target=read, args=(name,)) for name in names[:4]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 1 <= len(isolate.worker_pids()) <= isolate._MAX_IDLE


def test_more_threads_than_processors_share_the_workers(
    clip: GetClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "_PATIENCE_SECONDS", PATIENT)
    source = clip("constant.mp4")
    most: list[int] = []

    def read() -> None:
        with VideoReader(source.path, deadline_seconds=PATIENT) as reader:
            assert len(reader.read([0.0])) == 1
        most.append(len(isolate.worker_pids()))

    threads = [threading.Thread(target=read) for _ in range(4 * isolate._MAX_IDLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == len(threads) and max(most) <= isolate._MAX_IDLE


def test_a_busy_pool_starts_another_worker_in_the_end(clip: GetClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolate, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(isolate, "_MAX_IDLE", 1)
    reading, _ = half_read(clip("constant.mp4"))
    with VideoReader(clip("constant.mp4").path, deadline_seconds=PATIENT) as reader:
        assert len(reader.read([0.0])) == 1
    assert len(isolate.worker_pids()) == 2
    del reading


def test_a_worker_does_not_outlive_its_caller(clip: GetClip) -> None:
    script = f"""
import sys, time
from timeloupe.video import isolate
from timeloupe.video.index import load_index
path = {str(clip("constant.mp4").path)!r}
busy = isolate.WorkerDecoder(load_index(path), path, 60.0).decode(range(60), (512, 512))
next(busy)
load_index(path, deadline_seconds=60.0)
print(*isolate.worker_pids(), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as caller:
        assert caller.stdout is not None
        pids = [int(word) for word in caller.stdout.readline().split()]
        assert len(pids) == 2 and all(is_running(pid) for pid in pids)
        caller.kill()
    wait_until(lambda: not any(is_running(pid) for pid in pids))


def test_a_forked_process_uses_workers_of_its_own(clip: GetClip) -> None:
    script = f"""
import json
import os
from timeloupe.video import isolate
from timeloupe.video.reader import VideoReader
reader = VideoReader({str(clip("constant.mp4").path)!r}, deadline_seconds=60.0)
before = reader.read([1.0]).pixels
theirs = isolate.worker_pids()
child = os.fork()
same = (reader.read([1.0]).pixels == before).all() and (reader.read([2.0]).pixels != before).any()
if child == 0:
    os._exit(0 if same and not set(theirs) & set(isolate.worker_pids()) else 1)
assert os.waitpid(child, 0)[1] == 0 and same
assert isolate.worker_pids() == theirs, "the caller's worker was not touched"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_worker_is_light(clip: GetClip) -> None:
    script = "import sys, timeloupe.video.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    heavy = {"torch", "pydantic", "transformers", "typer", "openai", "rich", "asyncio"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.parametrize("deadline", [0, -1.0, float("inf"), float("nan")])
def test_a_deadline_is_a_number_of_seconds(clip: GetClip, deadline: float) -> None:
    with pytest.raises(ValueError, match="deadline_seconds must be > 0"):
        VideoReader(clip("constant.mp4").path, deadline_seconds=deadline)


@pytest.mark.parametrize(
    "what", [b"", b"\0\0\0\2\0\0\0\0\0\0\0\0{}", b"\xff" * 40, b"\0\0\0\1" + bytes(8) + b"x"]
)
def test_nonsense_from_a_worker_is_refused(
    clip: GetClip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: bytes
) -> None:
    """A worker taken over by its file may say anything."""
    (tmp_path / "said").write_bytes(what)
    stub = tmp_path / "stub"
    stub.write_text(f"#!/bin/sh\ncat {tmp_path / 'said'}\n")
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    with pytest.raises(VideoError, match="the decoder's process (answered nonsense|ended with exit code 0)"):
        probe(clip("constant.mp4").path, deadline_seconds=PATIENT)
    assert isolate.worker_pids() == []


@pytest.mark.parametrize(
    "header",
    [
        {"identity": 5},
        {"identity": ["a", "b", "c"]},
        {"done": True},
        {"identity": None},
        {"index": {}, "arrays": []},
    ],
)
@pytest.mark.parametrize("do", [isolate.identify, isolate.build_index])
def test_an_answer_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, do: Callable[[str, float], object], header: dict[str, object]
) -> None:
    monkeypatch.setattr(isolate, "_ask", lambda *_, **__: iter([(header, bytearray())]))
    with pytest.raises(VideoError, match="answered nonsense"):
        do("a.mp4", PATIENT)


@pytest.mark.parametrize("header", [{"frame": []}, {"frame": 7}, {"decoded": "1"}, {"decoded": -5}, {}])
def test_frames_that_are_none_are_refused(
    clip: GetClip, monkeypatch: pytest.MonkeyPatch, header: dict[str, object]
) -> None:
    path = clip("constant.mp4").path
    decoder = isolate.WorkerDecoder(load_index(path), str(path), PATIENT)

    def answers(*_: object, **__: object) -> Iterator[tuple[dict[str, object], bytearray]]:
        yield header, bytearray(3 * 64 * 64)

    monkeypatch.setattr(isolate, "_ask", answers)
    with pytest.raises(VideoError, match="answered nonsense"):
        list(decoder.decode([1], (64, 64)))


def test_a_long_deadline_is_no_trouble(clip: GetClip) -> None:
    with VideoReader(clip("constant.mp4").path, deadline_seconds=1e12) as reader:
        assert read_number(reader.read([1.0]).pixels[0]) == 10


def test_a_hard_limit_of_memory_is_kept_and_another_process_group_is_used(clip: GetClip) -> None:
    script = f"""
import os, resource
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))
from timeloupe.video import isolate
from timeloupe.video.probe import probe
assert probe({str(clip("constant.mp4").path)!r}, deadline_seconds=60.0).num_frames == 60
[pid] = isolate.worker_pids()
assert resource.prlimit(pid, resource.RLIMIT_AS) == (3 * 2**30, 3 * 2**30)
assert os.getpgid(pid) == pid != os.getpgid(0), "Ctrl-C must not reach it, not even while it starts"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_read_at_the_end_of_the_process_says_so(clip: GetClip) -> None:
    script = f"""
from timeloupe.errors import VideoError
from timeloupe.video import isolate
from timeloupe.video.index import load_index
path = {str(clip("constant.mp4").path)!r}
decoder = isolate.WorkerDecoder(load_index(path), path, 60.0)
frames = decoder.decode(range(60), (512, 512))
next(frames)
isolate._close(for_good=True)
for rest in (frames, decoder.decode([3], (64, 64))):
    try:
        list(rest)
    except VideoError as error:
        assert error.reason == "this process is ending", error
    else:
        raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_current_folder_on_the_search_path_stays_on_it(tmp_path: Path, clip: GetClip) -> None:
    """As where Python runs a command or a prompt: '' on the path."""
    (tmp_path / "timeloupe").symlink_to(Path(isolate.__file__).parents[1])
    script = f"""
import sys
assert sys.path[0] == ""
sys.path[:] = [folder for folder in sys.path if folder != {str(Path(isolate.__file__).parents[2])!r}]
from timeloupe.video.probe import probe
assert probe({str(clip("constant.mp4").path)!r}, deadline_seconds=60.0).num_frames == 60
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120, cwd=tmp_path)


ticks = st.lists(st.integers(-(2**60), 2**60), max_size=20)


@given(
    ticks,
    st.fractions(min_value=0, max_value=100, max_denominator=1000),
    st.none() | st.floats(0, 1e9),
    st.tuples(*[st.booleans()] * 3),
    st.booleans(),
)
def test_an_index_survives_the_way(
    pts: list[int], ratio: Fraction, announced: float | None, turns: tuple[bool, bool, bool], sequential: bool
) -> None:
    numbers = np.array(pts, np.int64)
    sent = FrameIndex(
        path="theirs", identity=("/a\udcffb", 5, 2**62), stream_index=3, container="x", codec="y", pixel_format="z",
        stored_wh=(7, 9), orientation=Orientation(*turns), sample_aspect_ratio=ratio, start_seconds=-0.1,
        duration_seconds=1 / 3, announced_seconds=announced, fps=29.97, sequential=sequential,
        times_N=numbers / 3, pts_N=numbers, packet_N=numbers[::-1].copy(), pts_P=numbers + 1, key_packets=numbers[:1],
        lost_packets=numbers[1:2],
    )  # fmt: skip
    header, body = index_message(sent)
    got = index_from(json.loads(json.dumps(header)), body, "mine")
    assert got.path == "mine"
    for name in FrameIndex.__dataclass_fields__:
        if name.endswith(("_N", "_P", "_packets")):
            mine, its = getattr(sent, name), getattr(got, name)
            assert np.array_equal(mine, its) and mine.dtype == its.dtype and not its.flags.writeable
        elif name != "path":
            assert getattr(sent, name) == getattr(got, name)
            assert type(getattr(sent, name)) is type(getattr(got, name))
