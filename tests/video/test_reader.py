"""The frame at time t is the one displayed at t: against numbered frames, for many kinds of file."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.video.conftest import KINDS
from tests.video.painting import Clip, read_number, write_clip
from timeloupe.errors import VideoError
from timeloupe.video.cache import FrameCache
from timeloupe.video.decode import plan_runs
from timeloupe.video.index import load_index
from timeloupe.video.probe import probe
from timeloupe.video.reader import VideoReader, make_decoder
from timeloupe.video.sampling import uniform_times

GetClip = Callable[[str], Clip]


def numbers_at(reader: VideoReader, times: list[float], size_wh: tuple[int, int] | None = None) -> list[int]:
    return [read_number(picture) for picture in reader.read(times, size_wh).pixels]


@pytest.mark.parametrize("name", KINDS)
def test_no_wrong_frame(clip: GetClip, name: str) -> None:
    truth = clip(name)
    rng = random.Random(name)
    with VideoReader(truth.path) as reader:
        starts = reader.read([]).at_seconds
        assert starts == ()
        duration = reader.info.duration_seconds
        assert reader.info.num_frames == len(truth.seconds)
        # Containers with millisecond times round; the truth is then what the file says.
        index = load_index(truth.path)
        assert np.abs(index.times_N - np.array(truth.seconds)).max() < 0.0011
        filed = Clip(truth.path, tuple(index.times_N.tolist()))
        for count in (1, 1, 1, 3, 12, 40):
            times = [rng.random() * duration for _ in range(count)]
            got = reader.read(times)
            assert [read_number(picture) for picture in got.pixels] == [
                filed.number_at(time) for time in times
            ]
            assert got.requested_seconds == tuple(times)
            for time, at, stays in zip(times, got.at_seconds, got.duration_seconds, strict=True):
                assert at - 1e-6 <= time < at + stays + 1e-6
        exact = list(range(len(truth.seconds)))
        rng.shuffle(exact)
        assert numbers_at(reader, [filed.seconds[number] for number in exact]) == exact
        late = [np.nextafter(filed.seconds[n + 1], 0) - 2e-6 for n in range(len(exact) - 1)]
        assert numbers_at(reader, late) == list(range(len(late)))
        assert numbers_at(reader, [duration]) == [len(truth.seconds) - 1]


@pytest.mark.parametrize("name", ["uneven.mp4", "open_gop.ts", "gradual_refresh.mp4", "bframes.mp4"])
def test_each_frame_read_alone_by_a_fresh_reader(clip: GetClip, name: str) -> None:
    truth = clip(name)
    seconds = load_index(truth.path).times_N.tolist()
    for number in range(0, len(seconds), 7):
        with VideoReader(truth.path) as reader:
            assert numbers_at(reader, [seconds[number]]) == [number]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_times_in_any_order(clip: GetClip, data: st.DataObject) -> None:
    truth = clip(data.draw(st.sampled_from(["bframes.mp4", "uneven.mp4", "open_gop.mp4"])))
    duration = probe(truth.path).duration_seconds
    times = data.draw(st.lists(st.floats(0, duration), max_size=12))
    with VideoReader(truth.path, FrameCache(data.draw(st.sampled_from([0, 60_000, 10**7])))) as reader:
        for _ in range(2):
            assert numbers_at(reader, times) == [truth.number_at(time) for time in times]


def test_facts(clip: GetClip) -> None:
    info = probe(clip("ntsc.mp4").path)
    assert info.fps == pytest.approx(30000 / 1001, rel=1e-4)
    assert info.duration_seconds == pytest.approx(60 * 1001 / 30000, abs=1e-6)
    assert (info.size_wh, info.codec, info.rotation_degrees, info.start_seconds) == (
        (128, 128),
        "h264",
        0,
        0.0,
    )
    assert info.constant_rate and not probe(clip("uneven.mp4").path).constant_rate
    assert probe(clip("late_start.mp4").path).start_seconds == pytest.approx(0.5)
    assert probe(clip("one_frame.mp4").path).duration_seconds == pytest.approx(0.1)
    assert probe(clip("odd_size.mp4").path).size_wh == (131, 77)


def test_frames_before_the_edit_list_are_not_presented(tmp_path: Path) -> None:
    cut = write_clip(
        tmp_path / "cut.mp4",
        options={"g": "24", "sc_threshold": "0", "bf": "2"},
        ticks=[-500 + 100 * n for n in range(60)],
        ticks_per_second=1000,
        container_options={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )
    with VideoReader(cut.path) as reader:
        assert reader.info.num_frames == 55
        assert reader.info.duration_seconds == pytest.approx(5.5)
        assert numbers_at(reader, [0.05, 0.0, 5.49, 1.95]) == [5, 5, 59, 24]


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_and_mirroring_are_applied(tmp_path: Path, degrees: int, flips: tuple[bool, bool]) -> None:
    upright = np.zeros((96, 160, 3), np.uint8)
    upright[:20, :30] = (250, 20, 20)  # red in the top left corner, green along the left side
    upright[40:, :16] = (20, 250, 20)
    path = tmp_path / "turned.mp4"
    write_clip(path, size_wh=(160, 96), num_frames=2, rotation=(degrees, *flips), picture=upright)
    with VideoReader(path) as reader:
        native, small = reader.read([0.0]), reader.read([0.0], (40, 24))
        info = reader.info
    expected = np.rot90(upright, degrees // 90)  # counter-clockwise, then the mirrors
    expected = expected[:, ::-1] if flips[0] else expected
    expected = expected[::-1] if flips[1] else expected
    assert np.abs(expected.astype(int) - native.pixels[0]).mean() < 12
    if flips == (False, False):
        assert info.rotation_degrees == degrees
    assert native.size_wh == info.size_wh == ((96, 160) if degrees in (90, 270) else (160, 96))
    assert small.pixels.shape == (1, 24, 40, 3)
    assert info.mirrored == (flips[0] != flips[1])


def test_sizes(clip: GetClip) -> None:
    with VideoReader(clip("constant.mp4").path) as reader:
        native = reader.read([1.0, 2.0])
        assert native.pixels.shape == (2, 128, 128, 3) and native.pixels.dtype == np.uint8
        for size in ((28, 28), (64, 32), (200, 300), (33, 57)):
            got = reader.read([1.05, 2.05], size)
            assert got.size_wh == size
            assert got.pixels.shape == (2, size[1], size[0], 3)
            assert [read_number(picture) for picture in got.pixels] == [10, 20]
        assert reader.read([], (28, 28)).pixels.shape == (0, 28, 28, 3)
        with pytest.raises(ValueError, match="size_wh"):
            reader.read([1.0], (0, 28))


def test_repeats_and_order_are_kept_and_decoded_once(clip: GetClip) -> None:
    with VideoReader(clip("constant.mp4").path) as reader:
        times = [3.0, 0.1, 3.05, 0.1, 5.9]
        assert numbers_at(reader, times) == [30, 1, 30, 1, 59]
        assert reader.frames_decoded <= 24 * 3


@pytest.mark.parametrize("time", [-0.01, 6.01, 1e9, float("nan"), float("inf")])
def test_times_outside_are_errors_that_name_the_range(clip: GetClip, time: float) -> None:
    with VideoReader(clip("constant.mp4").path) as reader:
        with pytest.raises(VideoError, match=r"allowed: 0 to 6\.0") as caught:
            reader.read([1.0, time])
        assert "h264" in str(caught.value) and reader.frames_decoded == 0


def test_few_frames_are_decoded(clip: GetClip) -> None:
    truth = clip("constant.mp4")  # keyframes at 0, 24, 48
    index = load_index(truth.path)
    assert [(run.key, run.frames) for run in plan_runs(index, [0, 5, 23, 50])] == [(0, [0, 5, 23]), (2, [50])]
    assert [(run.key, run.frames) for run in plan_runs(index, [23, 24])] == [(0, [23, 24])]
    with VideoReader(truth.path) as reader:
        reader.read([0.05, 2.45, 4.85])
        assert reader.frames_decoded == 3
    with VideoReader(clip("bframes.mp4").path) as reader:
        reader.read([2.75])
        assert (
            reader.frames_decoded <= 12
        )  # frame 82: ten after its keyframe, and non-reference frames are skipped


class TestCache:
    def test_second_reader_decodes_nothing(self, clip: GetClip) -> None:
        cache = FrameCache(2**22)
        path = clip("bframes.mp4").path
        times = uniform_times(0, 2.9, 16)
        with VideoReader(path, cache) as first:
            one = first.read(times, (32, 32))
        with VideoReader(path, cache) as second:
            two = second.read(times, (32, 32))
            assert second.frames_decoded == 0
        assert np.array_equal(one.pixels, two.pixels)
        assert cache.hits == 16 and len(cache) == 16
        two.pixels[:] = 0  # a caller may change what it got
        with VideoReader(path, cache) as third:
            assert np.array_equal(third.read(times, (32, 32)).pixels, one.pixels)

    def test_is_bounded_and_drops_the_least_recently_used(self) -> None:
        cache = FrameCache(5000)
        keys = [(("/v", 1, 1), number, (20, 20)) for number in range(4)]
        for key in keys[:2]:
            cache.put(key, np.zeros((20, 20, 3), np.uint8))
        assert cache.get(keys[0]) is not None
        for key in keys[2:]:
            cache.put(key, np.zeros((20, 20, 3), np.uint8))
            assert cache.num_bytes <= 5000
        assert len(cache) == 2
        assert cache.get(keys[1]) is None
        cache.put(keys[0], np.zeros((100, 100, 3), np.uint8))
        assert len(cache) == 2  # larger than the cache: not kept
        with pytest.raises(ValueError, match="max_bytes"):
            FrameCache(-1)

    def test_threads_share_it(self, clip: GetClip) -> None:
        cache = FrameCache(200_000)
        names = ["bframes.mp4", "uneven.mp4"]
        truths = [clip(name) for name in names]
        wrong: list[str] = []

        def work(seed: int) -> None:
            rng = random.Random(seed)
            try:
                for _ in range(6):
                    truth = rng.choice(truths)
                    with VideoReader(truth.path, cache) as reader:
                        times = [rng.random() * truth.seconds[-1] for _ in range(6)]
                        if numbers_at(reader, times, (40, 40)) != [truth.number_at(time) for time in times]:
                            wrong.append(f"{truth.path.name}: {times}")
            except Exception as error:
                wrong.append(repr(error))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong


def test_index_is_kept_and_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_clip(path, num_frames=10)
    first = load_index(path)
    assert load_index(path) is first
    reader = VideoReader(path)
    write_clip(path, num_frames=20)
    os.utime(path, ns=(1, 10**18))
    assert len(load_index(path).times_N) == 20
    with pytest.raises(VideoError, match="changed"):
        reader.read([0.0])


def test_a_reader_can_go_on_after_close(clip: GetClip) -> None:
    reader = VideoReader(clip("constant.mp4").path)
    assert numbers_at(reader, [1.0]) == [10]
    reader.close()
    assert numbers_at(reader, [2.0]) == [20]
    reader.close()


@pytest.mark.parametrize("deadline_seconds", [None, 60.0])
@pytest.mark.parametrize("name", ["bframes.mp4", "h264.avi", "turned_90.mp4"])
def test_frames_are_written_where_the_caller_wants_them(
    clip: GetClip, name: str, deadline_seconds: float | None
) -> None:
    path = clip(name).path
    index = load_index(path)
    decoder = make_decoder(index, str(path), deadline_seconds)
    frames, size = [2, 3, 29], (32, 48)
    plain = dict(decoder.decode(frames, size))
    rows = {frame: np.zeros((48, 32, 3), np.uint8) for frame in frames}
    given = dict(decoder.decode(frames, size, rows))
    decoder.close()
    assert sorted(given) == sorted(plain) == frames
    for frame in frames:
        assert given[frame] is rows[frame]
        assert np.array_equal(rows[frame], plain[frame]) and plain[frame].any()


@pytest.mark.parametrize("deadline_seconds", [None, 60.0])
def test_a_file_overwritten_under_an_open_reader(
    clip: GetClip, tmp_path: Path, deadline_seconds: float | None
) -> None:
    path, cache = tmp_path / "a.mkv", FrameCache(10**7)
    path.write_bytes(clip("lossless.mkv").path.read_bytes())
    with VideoReader(path, cache, deadline_seconds=deadline_seconds) as reader:
        assert numbers_at(reader, [0.0]) == [0]
        path.write_bytes(clip("open_gop.mkv").path.read_bytes())
        with pytest.raises(VideoError, match="the file changed"):
            reader.read([3.0])
    assert len(cache) == 1


def test_a_file_overwritten_while_it_is_decoded(clip: GetClip, tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(clip("lossless.mkv").path.read_bytes())
    frames = make_decoder(load_index(path), str(path), None).decode([1, 2], (64, 64), _Overwriting(path))
    with pytest.raises(VideoError, match="the file changed"):
        next(frames)


class _Overwriting(dict[int, np.ndarray]):
    """Rows of pixels; taking one overwrites the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __getitem__(self, frame: int) -> np.ndarray:
        os.utime(self._path, ns=(1, 10**18))
        return np.empty((64, 64, 3), np.uint8)


def test_threads_that_share_a_reader_take_turns(clip: GetClip) -> None:
    wrong: list[object] = []
    with VideoReader(clip("bframes.mp4").path) as reader:

        def read(first: int) -> None:
            for number in range(first, 90, 9):
                try:
                    found = numbers_at(reader, [(number + 0.5) / 30])
                except BaseException as error:
                    found = [error]
                if found != [number]:
                    wrong.append((number, found))

        threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_an_error_names_the_file_as_this_caller_did(clip: GetClip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clip("constant.mp4").path
    monkeypatch.chdir(path.parent)
    absolute, relative = load_index(path), load_index(path.name)
    assert relative.times_N is absolute.times_N
    for name in (path.name, str(path)):
        with VideoReader(name) as reader, pytest.raises(VideoError) as caught:
            reader.read([99.0])
        assert caught.value.path == name


def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have(clip: GetClip) -> None:
    script = f"""
import os, threading
from timeloupe.video import index
from timeloupe.video.cache import FrameCache
from timeloupe.video.reader import VideoReader
path = {str(clip("constant.mp4").path)!r}
cache, fork_now, go_on = FrameCache(10**8), threading.Event(), threading.Event()
with VideoReader(path, cache) as reader:
    turn, build = reader._decoder._turn, index._build

    def wait(*args):
        fork_now.set()
        go_on.wait()
        return build(*args)

    index._build = wait
    index._indices._kept.clear()
    thread = threading.Thread(target=index.load_index, args=(path,))
    thread.start()
    fork_now.wait()
    index_kept = reader._index
    cache.claim([(index_kept.identity, int(index_kept.pts_N[10]), (128, 128))])
    with cache._changed, turn:
        child = os.fork()
        if child == 0:
            index._build = build
            assert not cache._claimed
            same = VideoReader(path, cache).read([1.0]).pixels == reader.read([1.0]).pixels
            os._exit(0 if same.all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    go_on.set()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=50)
