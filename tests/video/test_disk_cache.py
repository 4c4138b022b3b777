"""The disk tier: never a wrong frame, whatever happens to the files; bounded; no fault of the disk fails a read."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.video.painting import Clip, read_number
from timeloupe.errors import ConfigError
from timeloupe.video.cache import FrameCache, FrameKey
from timeloupe.video.disk_cache import DiskCache
from timeloupe.video.reader import VideoReader

GetClip = Callable[[str], Clip]
ROOT = Path(__file__).resolve().parents[2]
SIZE = (12, 24)


def key_of(number: int, size: tuple[int, int] = SIZE) -> FrameKey:
    return ("/v.mp4", 1, 1), number, size


def picture_of(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    rng = np.random.default_rng([number, *size])
    return rng.integers(0, 256, (size[1], size[0], 3), np.uint8)


def only_file(folder: Path) -> Path:
    [path] = folder.iterdir()
    return path


def test_a_frame_comes_back_and_survives_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    DiskCache(folder, 10**6).put(key_of(1), picture_of(1))
    found = DiskCache(folder, 10**6).get(key_of(1))
    assert found is not None and np.array_equal(found, picture_of(1))
    assert found.shape == (24, 12, 3) and not found.flags.writeable
    assert only_file(folder).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "other",
    [
        (("/v.mp4", 1, 1), 2, SIZE),
        (("/w.mp4", 1, 1), 1, SIZE),
        (("/v.mp4", 2, 1), 1, SIZE),
        (("/v.mp4", 1, 2), 1, SIZE),
        (("/v.mp4", 1, 1), 1, (24, 12)),
    ],
)
def test_every_part_of_the_key_counts(tmp_path: Path, other: FrameKey) -> None:
    disk = DiskCache(tmp_path, 10**6)
    disk.put(key_of(1), picture_of(1))
    assert disk.get(other) is None
    os.replace(only_file(tmp_path), tmp_path / "moved")
    disk.put(other, picture_of(9, other[2]))
    os.replace(tmp_path / "moved", next(path for path in tmp_path.iterdir() if path.name != "moved"))
    assert disk.get(other) is None  # whole, but of another key
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_never_used_and_goes(tmp_path: Path, data: st.DataObject) -> None:
    disk = DiskCache(tmp_path, 10**6)
    disk.put(key_of(1), picture_of(1))
    path = only_file(tmp_path)
    good = path.read_bytes()
    kind = data.draw(st.sampled_from(["flip", "cut", "longer", "foreign", "zeros"]))
    if kind == "flip":
        bad = bytearray(good)
        bad[data.draw(st.integers(0, len(good) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        bad = good[: data.draw(st.integers(0, len(good) - 1))]
    elif kind == "longer":
        bad = good + data.draw(st.binary(min_size=1, max_size=9))
    elif kind == "foreign":
        bad = data.draw(st.binary(max_size=2000))
    else:  # what a power cut leaves of a file that was not yet on the disk
        at = data.draw(st.integers(0, len(good) - 1))
        bad = good[:at] + bytes(len(good) - at)
    path.write_bytes(bytes(bad))
    found = disk.get(key_of(1))
    if bytes(bad) == good:
        assert found is not None
    else:
        assert found is None and not path.exists()


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_file_is_never_used(tmp_path: Path, kind: str) -> None:
    disk = DiskCache(tmp_path / "frames", 10**6)
    disk.put(key_of(1), picture_of(1))
    path = only_file(disk.folder)
    good = tmp_path / "good"
    os.replace(path, good)
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(good)
    else:
        os.mkfifo(path)
    open_files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert disk.get(key_of(1)) is None
        disk.put(key_of(1), picture_of(1))
        disk.put(key_of(2), picture_of(2))
    if open_files:
        assert len(os.listdir("/proc/self/fd")) == open_files
    assert disk.get(key_of(2)) is not None
    assert (disk.get(key_of(1)) is None) == (kind == "folder")
    assert good.exists() and not list(disk.folder.glob("*.tmp"))


def held_bytes(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.iterdir())


def test_is_bounded_and_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a frame")
    disk = DiskCache(tmp_path, 40 * 4096)
    for number in range(100):
        disk.put(key_of(number), picture_of(number))
        assert held_bytes(tmp_path) - 4096 <= 40 * 4096
        for path in tmp_path.iterdir():  # a second older each step; what is used becomes new again
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 100 * 10**9))
        found = disk.get(key_of(0))
        assert found is not None and np.array_equal(found, picture_of(0))
    kept = [number for number in range(100) if disk.get(key_of(number)) is not None]
    assert kept[0] == 0 and kept[1:] == list(range(kept[1], 100)) and len(kept) > 20
    assert (tmp_path / "notes.txt").read_text() == "not a frame"


def test_a_hit_marks_the_file_at_most_once_a_minute(tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, 10**6)
    disk.put(key_of(1), picture_of(1))
    path = only_file(tmp_path)
    for age, marked in ((30, False), (90, True), (-900, True)):
        then = time.time_ns() - age * 10**9
        os.utime(path, ns=(then, then))
        disk.get(key_of(1))
        assert (path.stat().st_mtime_ns != then) == marked


def test_a_frame_too_large_for_the_bound_is_not_kept(tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, 16 * 4096)
    disk.put(key_of(1, (100, 100)), picture_of(1, (100, 100)))
    assert list(tmp_path.iterdir()) == []
    DiskCache(tmp_path, 0).put(key_of(1), picture_of(1))
    assert list(tmp_path.iterdir()) == []


def test_old_temporary_files_are_cleaned(tmp_path: Path) -> None:
    old, new, foreign = (
        tmp_path / name for name in (f"{'a' * 32}.{'1' * 16}.tmp", f"{'a' * 32}.{'2' * 16}.tmp", "x.tmp")
    )
    for path in (old, new, foreign):
        path.write_bytes(b"half a frame")
    for path in (old, foreign):
        os.utime(path, (1, 1))
    DiskCache(tmp_path, 10**6).put(key_of(1), picture_of(1))
    assert not old.exists() and new.exists() and foreign.exists()


def test_a_folder_that_is_none_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match="the frame cache needs a folder, got"):
            DiskCache(folder, 10**6)
    with pytest.raises(ConfigError, match="got -1"):
        DiskCache(tmp_path, -1)


def read_with(disk: DiskCache, path: Path) -> list[str]:
    """Read frames twice through the disk tier, check them, and return the warnings there were."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            with VideoReader(path, FrameCache(0, disk)) as reader:
                assert [read_number(one) for one in reader.read([0.0, 1.0, 2.0]).pixels] == [0, 10, 20]
    return [str(one.message) for one in told]


def test_a_vanished_folder_is_one_warning(clip: GetClip, tmp_path: Path) -> None:
    disk = DiskCache(tmp_path / "frames", 10**8)
    disk.folder.rmdir()
    [told] = read_with(disk, clip("constant.mp4").path)
    assert "no more frames are written to the cache folder" in told and "No such file" in told


def test_a_folder_that_cannot_be_written_is_one_warning(clip: GetClip) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a folder that not even root can write")
    [told] = read_with(DiskCache("/proc/self", 10**8), clip("constant.mp4").path)
    assert "no more frames are written" in told


def test_a_full_disk_is_one_warning_and_leaves_no_rest(clip: GetClip, tmp_path: Path) -> None:
    path, folder = clip("constant.mp4").path, tmp_path / "frames"
    script = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.video.test_disk_cache import read_with
from timeloupe.video.disk_cache import DiskCache
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # a write stops in the middle of a frame
[told] = read_with(DiskCache({str(folder)!r}, 10**8), Path({str(path)!r}))
assert "no more frames are written" in told, told
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert list(folder.iterdir()) == []


WRITER = """
import sys
sys.path.insert(0, {root!r})
import random
from tests.video.painting import read_number
from timeloupe.video.cache import FrameCache
from timeloupe.video.disk_cache import DiskCache
from timeloupe.video.reader import VideoReader
rng = random.Random({seed})
cache = FrameCache(0, DiskCache({folder!r}, {max_bytes}))
print("ready", flush=True)
with VideoReader({video!r}, cache) as reader:
    for _ in range({rounds}):
        numbers = [rng.randrange(60) for _ in range(6)]
        size = rng.choice([(24, 24), (64, 64), (128, 128)])
        found = [read_number(one) for one in reader.read([n / 10 for n in numbers], size).pixels]
        if found != numbers:
            sys.exit(f"wrong frames: {{found}} for {{numbers}}")
"""


def start_writer(**values: Any) -> subprocess.Popen[str]:
    script = WRITER.format(root=str(ROOT), **values)
    writer = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    return writer


def test_processes_share_a_folder_within_the_bound(clip: GetClip, tmp_path: Path) -> None:
    video, most = str(clip("constant.mp4").path), 1_600_000
    writers = [
        start_writer(video=video, folder=str(tmp_path), max_bytes=most, rounds=60, seed=seed)
        for seed in range(3)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    assert 0.3 * most < held_bytes(tmp_path) <= most + 2 * most / 16
    assert not list(tmp_path.glob("*.tmp"))


def test_killed_writers_leave_no_wrong_frame(clip: GetClip, tmp_path: Path) -> None:
    truth, rng = clip("constant.mp4"), random.Random(0)
    disk = DiskCache(tmp_path, 10**7)
    served = 0
    for seed in range(5):
        writer = start_writer(
            video=str(truth.path), folder=str(tmp_path), max_bytes=10**7, rounds=10**6, seed=seed
        )
        until = time.monotonic() + rng.uniform(0.05, 0.6)
        while time.monotonic() < until or seed == served == 0:
            number, size = rng.randrange(60), rng.choice([(24, 24), (64, 64), (128, 128)])
            with VideoReader(truth.path, FrameCache(0, disk)) as reader:
                assert read_number(reader.read([number / 10], size).pixels[0]) == number
                served += reader.frames_cached
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    assert served > 0
    for number in range(60):
        for size in ((24, 24), (64, 64), (128, 128)):
            with VideoReader(truth.path, FrameCache(0, disk)) as reader:
                assert read_number(reader.read([number / 10], size).pixels[0]) == number
