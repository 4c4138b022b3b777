"""The memory tier: bounded whatever is put in, the right frame for the right key, decoded once by many threads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video.painting import Clip, read_number
from timeloupe.errors import VideoError
from timeloupe.video.cache import FrameCache, FrameKey
from timeloupe.video.disk_cache import DiskCache
from timeloupe.video.reader import VideoReader

GetClip = Callable[[str], Clip]

identities = st.tuples(st.sampled_from(["/a.mp4", "/b.mp4"]), st.integers(1, 2), st.integers(1, 2))
sizes = st.sampled_from([(1, 1), (20, 10), (10, 20), (74, 74), (100, 100), (300, 200)])
keys = st.tuples(identities, st.integers(0, 3), sizes)


def picture_of(key: FrameKey) -> np.ndarray:
    """Return a frame that only this key has."""
    (path, size, mtime), pts, (width, height) = key
    value = "/a.mp4/b.mp4".index(path) // 6 * 128 + size * 32 + mtime * 8 + pts
    return np.full((height, width, 3), value, np.uint8)


@given(st.integers(0, 400_000), st.lists(st.tuples(st.booleans(), keys), max_size=60))
def test_bound_and_content(max_bytes: int, steps: list[tuple[bool, FrameKey]]) -> None:
    cache = FrameCache(max_bytes)
    asked = 0
    for put, key in steps:
        if put:
            picture = picture_of(key)
            cache.put(key, picture)
            picture[:] = 255  # the cache has a copy of its own
        else:
            asked += 1
            found = cache.get(key)
            if found is not None:
                assert np.array_equal(found, picture_of(key)) and not found.flags.writeable
        assert 0 <= cache.num_bytes <= max_bytes
    assert cache.hits + cache.misses == asked
    if len(cache) == 0:
        assert cache.num_bytes == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=60))
def test_the_least_recently_used_goes_first(steps: list[tuple[bool, int]]) -> None:
    cache, model = FrameCache(3 * (300 + 512)), OrderedDict[int, None]()
    for put, number in steps:
        key = (("/v", 1, 1), number, (10, 10))
        if put:
            cache.put(key, np.zeros((10, 10, 3), np.uint8))
            model[number] = None
            model.move_to_end(number)
            if len(model) > 3:
                model.popitem(last=False)
        else:
            assert (cache.get(key) is not None) == (number in model)
            if number in model:
                model.move_to_end(number)
    assert len(cache) == len(model)


def test_figures(clip: GetClip, tmp_path: Path) -> None:
    cache = FrameCache(10**7, DiskCache(tmp_path, 10**8))
    assert cache.figures() == {
        "memory_hits": 0, "disk_hits": 0, "misses": 0, "hit_rate": 0.0, "num_bytes": 0
    }  # fmt: skip
    with VideoReader(clip("constant.mp4").path, cache) as reader:
        reader.read([0.0, 1.0, 1.0, 2.0])
        assert reader.frames_cached == 0
        reader.read([1.0, 3.0])
        assert reader.frames_cached == 1
    figures = cache.figures()
    assert (figures["memory_hits"], figures["disk_hits"], figures["misses"]) == (1, 0, 4)
    assert figures["hit_rate"] == 0.2 and figures["num_bytes"] == cache.num_bytes > 4 * 128 * 128 * 3
    fresh = FrameCache(10**7, DiskCache(tmp_path, 10**8))
    with VideoReader(clip("constant.mp4").path, fresh) as reader:
        for _ in range(2):
            assert [read_number(one) for one in reader.read([0.0, 1.0, 2.0, 3.0]).pixels] == [0, 10, 20, 30]
        assert (reader.frames_decoded, reader.frames_cached) == (0, 8)
    figures = fresh.figures()
    assert (figures["memory_hits"], figures["disk_hits"], figures["misses"]) == (4, 4, 0)


def test_threads_that_want_the_same_frames_decode_them_once(clip: GetClip) -> None:
    path = clip("all_intra.mp4").path  # every wanted frame costs exactly one decoded frame
    cache = FrameCache(10**7)
    together = threading.Barrier(4)

    def read(_: int) -> tuple[int, int, list[int]]:
        with VideoReader(path, cache) as reader:
            together.wait(60)
            found = reader.read([number / 10 for number in range(30)], (64, 64))
            return reader.frames_decoded, reader.frames_cached, [read_number(one) for one in found.pixels]

    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(read, range(4)))
    assert all(numbers == list(range(30)) for _, _, numbers in rows)
    assert sum(decoded for decoded, _, _ in rows) == 30
    assert sum(cached for _, cached, _ in rows) == 90
    assert (cache.hits, cache.misses) == (90, 30)


def test_waiting_threads_get_their_frames_where_the_cache_keeps_nothing(clip: GetClip) -> None:
    path, cache = clip("constant.mp4").path, FrameCache(0)

    def read(_: int) -> list[int]:
        with VideoReader(path, cache) as reader:
            return [read_number(one) for one in reader.read([0.0, 2.0, 5.0], (40, 40)).pixels]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(12))) == [[0, 20, 50]] * 12
    assert cache.hits == 0


def test_a_failed_read_gives_its_claims_back(clip: GetClip, monkeypatch: pytest.MonkeyPatch) -> None:
    path, cache = clip("constant.mp4").path, FrameCache(10**7)

    def fail(*_: object) -> None:
        raise VideoError(path, "made up")

    with VideoReader(path, cache) as reader:
        with monkeypatch.context() as patch:
            patch.setattr("timeloupe.video.decode.Decoder.decode", fail)
            with pytest.raises(VideoError, match="made up"):
                reader.read([1.0])
        assert cache.claim([(reader._index.identity, int(reader._index.pts_N[10]), (128, 128))])
