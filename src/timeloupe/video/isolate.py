"""Indexing and decoding in another process, so that no file can hang, crash or exhaust the caller.

A caller that names a deadline gets its frames from a worker (:mod:`timeloupe.video.worker`). One that gives no
sign of life for that long is killed, and so is one whose answers make no sense; the caller gets one
``VideoError`` and the next read starts another. Idle workers are kept and used again, over files and threads.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from timeloupe.errors import VideoError
from timeloupe.video.container import FileIdentity
from timeloupe.video.index import FrameIndex
from timeloupe.video.wire import LENGTHS, MAX_HEADER_BYTES, index_from, index_message, pack

_MAX_IDLE = max(2, min(os.cpu_count() or 2, 16))
_PATIENCE_SECONDS = 2.0  # with a worker for each processor, one more is started if none gets done for so long
_START_SECONDS = 30.0  # starting Python says nothing about a file, so a busy machine gets at least this long
_REMEMBERED_FILES = 4
_PIPE_BYTES = 2**20
_LAST = {"identity", "index", "done", "error"}
_NONSENSE = "the decoder's process answered nonsense"
_EXITING = "this process is ending"
_MAX_INDEX_BYTES, _LONGEST_POLL_MS = 2**32, 2**31 - 1
# What comes of taking apart an answer that makes no sense.
_NO_SENSE = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)


class _Gone(Exception):
    """The worker ended, hangs or talks nonsense; the message says which."""


class _Ended(_Gone):
    """The worker is no longer there."""


class _Worker:
    """One worker process and the two pipes to it. Not for two threads at once."""

    def __init__(self) -> None:
        # The caller's own search path: what it runs from is what the worker runs from.
        paths = [str(Path(folder).absolute()) for folder in sys.path]  # '' is the current folder
        settings = {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "timeloupe.video.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, bufsize=0, env=os.environ | settings,
            process_group=0,  # Ctrl-C is for the caller; the worker ends with its input
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        os.set_blocking(self._to.fileno(), False)
        os.set_blocking(self._from.fileno(), False)
        for pipe in (self._to, self._from):
            try:
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            except (OSError, AttributeError):
                pass  # only slower: the user's share of pipe memory is used up
        self._owner = os.getpid()
        self._ready = False
        self.files: list[str] = []
        self.reused = False

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def alive(self) -> bool:
        """Return whether it still runs."""
        return self._process.poll() is None

    def send(self, header: dict[str, Any], body: bytes = b"", *, seconds: float) -> None:
        """Send a message; ``_Gone`` if it is not taken for ``seconds``."""
        for part in (pack(header, len(body)), body):
            left = memoryview(part)
            while left:
                self._wait(self._to.fileno(), select.POLLOUT, seconds)
                try:
                    left = left[os.write(self._to.fileno(), left) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    raise _Ended(self._ending()) from None

    def receive(self, seconds: float, max_body: int) -> tuple[dict[str, Any], bytearray]:
        """Return the next message; ``_Gone`` if ``seconds`` pass without a byte."""
        if not self._ready:
            self._message(max(seconds, _START_SECONDS), 0)
            self._ready = True
        return self._message(seconds, max_body)

    def kill(self) -> None:
        """End it, without waiting for one that the kernel does not let die."""
        self._to.close()
        self._from.close()
        if self._owner != os.getpid():
            self._process.returncode = 0  # another process's child: not ours to end or to wait for
            return
        self._process.kill()
        try:
            self._process.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            _undead.append(self._process)

    def _message(self, seconds: float, max_body: int) -> tuple[dict[str, Any], bytearray]:
        header_bytes, body_bytes = LENGTHS.unpack(self._bytes(LENGTHS.size, seconds))
        if header_bytes > MAX_HEADER_BYTES or body_bytes > max_body:
            raise _Gone(_NONSENSE)
        header = json.loads(self._bytes(header_bytes, seconds))
        return header, self._bytes(body_bytes, seconds)

    def _bytes(self, count: int, seconds: float) -> bytearray:
        data = bytearray(count)
        left = memoryview(data)
        while left:
            self._wait(self._from.fileno(), select.POLLIN, seconds)
            got = os.readv(self._from.fileno(), [left])
            if not got:
                raise _Ended(self._ending())
            left = left[got:]
        return data

    def _wait(self, pipe: int, event: int, seconds: float) -> None:
        if self._owner != os.getpid():
            raise _Gone("this process was forked in the middle of a read")
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(min(seconds * 1000, _LONGEST_POLL_MS)):
            raise _Gone(f"no sign of life from the decoder for {seconds:g} s")

    def _ending(self) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "the decoder's process stopped answering"
        if code < 0:
            return f"the decoder's process was ended by {signal.Signals(-code).name}"
        return f"the decoder's process ended with exit code {code}"


_undead: list[subprocess.Popen[bytes]] = []
"""Killed processes that wait for a disk; kept until the kernel lets them go."""


class _Pool:
    """Idle workers, the one used last at the end, and all workers there are."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._moved_at = 0.0

    def take(self, path: str) -> _Worker:
        """Return a worker for one read: one that has the file open, else the one used last, else a new one."""
        with self._lock:
            # Counted from the last answer of any worker: sixty-four who wait would else start sixty-four at once.
            while self._busy() and (left := self._moved_at + _PATIENCE_SECONDS - time.monotonic()) > 0:
                self._lock.wait(left)
            _undead[:] = [process for process in _undead if process.poll() is None]
            dead = [worker for worker in self._idle if not worker.alive()]
            self._idle = [worker for worker in self._idle if worker not in dead]
            self._all.difference_update(dead)
            known = [worker for worker in self._idle if path in worker.files]
            self._moved_at = time.monotonic()
            if known or self._idle:
                worker = (known or self._idle)[-1]
                self._idle.remove(worker)
                worker.reused = True
            else:
                self._all.add(worker := _Worker())
        for one in dead:
            one.kill()
        worker.files = [path, *(file for file in worker.files if file != path)][:_REMEMBERED_FILES]
        return worker

    def give(self, worker: _Worker) -> None:
        """Take a worker back that has answered in full."""
        with self._lock:
            self._idle.append(worker)
            self._moved_at = time.monotonic()
            self._lock.notify()
            surplus = [self._idle.pop(0)] if len(self._idle) > _MAX_IDLE else []
        for one in surplus:
            self.drop(one)

    def drop(self, worker: _Worker) -> None:
        """End a worker."""
        with self._lock:
            self._all.discard(worker)
            self._lock.notify()
        worker.kill()

    def close(self) -> None:
        """End all workers."""
        for worker in list(self._all):
            self.drop(worker)

    def _busy(self) -> bool:
        return not self._idle and len(self._all) >= _MAX_IDLE


_ending = False
_pool: _Pool | None = None
_pool_lock = threading.Lock()


def _workers() -> _Pool:
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = _Pool()
            atexit.register(_close, for_good=True)
            os.register_at_fork(after_in_child=_forget)
        return _pool


def _close(for_good: bool = False) -> None:
    """End all workers; if ``for_good``, threads that still read are told why."""
    global _ending
    _ending = for_good
    if _pool is not None:
        _pool.close()


def _forget() -> None:
    """In a forked process: leave the workers to the one that started them, and start others when needed."""
    global _pool, _pool_lock
    _pool_lock = threading.Lock()
    if _pool is not None:
        for worker in _pool._all:
            worker.kill()
        _pool._all.clear()
        _pool = _Pool()


def worker_pids() -> list[int]:
    """Return the process numbers of the workers that this process has now."""
    return [] if _pool is None else [worker.pid for worker in list(_pool._all)]


def _ask(
    path: str,
    request: dict[str, Any],
    seconds: float,
    *,
    max_body: int = 0,
    index: FrameIndex | None = None,
) -> Generator[tuple[dict[str, Any], bytearray], None, None]:
    """Yield a worker's answers to a request, the last one too.

    Raises:
        VideoError: The worker's own.
        _Gone: The worker hangs, ended or talks nonsense.
    """
    if _ending:
        raise _Gone(_EXITING)
    pool = _workers()
    # A worker keeps the folder it was started in, the caller may have gone elsewhere.
    absolute = str(Path(path).absolute())
    try:
        worker = pool.take(absolute)
    except OSError as error:
        raise _Gone(f"no process can be started to decode it in ({error.strerror})") from error
    answered = heard = again = False
    try:
        worker.send(request | {"path": absolute, "deadline_seconds": seconds}, seconds=seconds)
        while not answered:
            header, body = worker.receive(seconds, max_body)
            heard = True
            answered = not header.keys().isdisjoint(_LAST)
            if "error" in header:
                raise VideoError(**(header["error"] | {"path": path}))
            if "need" in header and index is not None:
                worker.send(*index_message(index), seconds=seconds)
            elif "alive" not in header:
                yield header, body
    except _Ended:
        # One that died while it had nothing to do says nothing about this file.
        if heard or not worker.reused:
            raise
        again = True
    except (*_NO_SENSE, OSError) as error:
        answered = False
        raise _Gone(_NONSENSE) from error
    finally:
        if answered:
            pool.give(worker)
        else:
            pool.drop(worker)
    if again:
        yield from _ask(path, request, seconds, max_body=max_body, index=index)


def _gone(path: str, gone: _Gone, codec: str | None = None, at_seconds: float | None = None) -> VideoError:
    if _ending:
        return VideoError(path, _EXITING, codec=codec, hint="nothing is known to be wrong with the file")
    hint = "the disk may hang, or the file is made to be slow or to crash decoders; try again or another file"
    return VideoError(path, str(gone), codec=codec, at_seconds=at_seconds, hint=hint)


@contextmanager
def _told_as_video_error(path: str, seconds: float) -> Iterator[None]:
    """Turn what comes of a worker's answer into ``VideoError``.

    Raises:
        ValueError: ``seconds`` is not > 0 and finite.
    """
    if not 0 < seconds < float("inf"):
        raise ValueError(f"deadline_seconds must be > 0 and finite, or None, got {seconds!r}")
    try:
        yield
    except _Gone as gone:
        raise _gone(path, gone) from gone
    except _NO_SENSE as error:
        raise _gone(path, _Gone(_NONSENSE)) from error


def identify(path: str, deadline_seconds: float) -> FileIdentity:
    """Return the identity of a file as ``container.identify`` does; no answer in time is a ``VideoError`` too."""
    with _told_as_video_error(path, deadline_seconds):
        [(header, _)] = _ask(path, {"do": "identify"}, deadline_seconds)
        name, num_bytes, changed_ns = header["identity"]
        return str(name), int(num_bytes), int(changed_ns)


def build_index(path: str, deadline_seconds: float) -> FrameIndex:
    """Return the index of a file, built in a worker.

    Raises:
        VideoError: The file cannot be indexed, or no sign of life for ``deadline_seconds``.
    """
    with _told_as_video_error(path, deadline_seconds):
        [(header, body)] = _ask(path, {"do": "index"}, deadline_seconds, max_body=_MAX_INDEX_BYTES)
        return index_from(header, body, path)


class WorkerDecoder:
    """Decodes frames of one video in a worker; otherwise as :class:`timeloupe.video.decode.Decoder`.

    Args:
        index: The video's frame index.
        path: The file as the caller named it.
        deadline_seconds: How long the worker may give no sign of life.

    Attributes:
        frames_decoded: Frames that the decoder gave out so far, unwanted ones on the way included; those of a
            worker that was ended are not known and not counted.
    """

    def __init__(self, index: FrameIndex, path: str, deadline_seconds: float) -> None:
        self.path = path
        self.frames_decoded = 0
        self._index = index
        self._deadline_seconds = deadline_seconds

    def close(self) -> None:
        """Do nothing: the worker closes a file when it has read a few others since."""

    def decode(
        self,
        frames: Sequence[int],
        size_wh: tuple[int, int],
        rows: Mapping[int, np.ndarray] | None = None,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each frame's number and its pixels (H, W, 3) uint8 RGB, in any order; see ``Decoder.decode``.

        Raises:
            VideoError: Frames are damaged or missing, raised after the good ones were given out; or the
                worker hangs or ended.
        """
        width, height = size_wh
        frame_bytes = width * height * 3
        left = set(frames)
        request = {
            "do": "decode",
            "identity": self._index.identity,
            "frames": list(frames),
            "size_wh": [width, height],
        }
        answers = _ask(self.path, request, self._deadline_seconds, max_body=frame_bytes, index=self._index)
        try:
            for header, body in answers:
                if "frame" in header:
                    frame = header["frame"]
                    if not isinstance(frame, int) or frame not in left or len(body) != frame_bytes:
                        raise _Gone(_NONSENSE)
                    left.remove(frame)
                    picture = np.frombuffer(body, np.uint8).reshape(height, width, 3)
                    if rows is not None:
                        rows[frame][:] = picture
                        picture = rows[frame]
                    yield frame, picture
                decoded = header.get("decoded", 0)
                if not isinstance(decoded, int) or decoded < 0:
                    raise _Gone(_NONSENSE)
                self.frames_decoded += decoded
            if left:
                raise _Gone(_NONSENSE)
        except _Gone as gone:
            at = self._index.frame_seconds(min(left))[0] if left else None
            raise _gone(self.path, gone, self._index.codec, at) from gone
        finally:
            answers.close()
