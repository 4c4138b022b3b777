"""Processes that begin with the heavy libraries loaded: `timeloupe ...`, or any module, as a fork of a warm program.

To load torch and transformers costs a process several seconds of work, far more than most tests' commands do. This
program loads them once per test process and forks for every command that is asked of it. What runs is a process of its
own, as real as one begun cold: pid, signals, exit code, exit handlers, streams, working folder and environment are its
own. What it cannot show is how a command starts: that nothing heavy is loaded where it should not be, and what
variables do that libraries read as they load (``OMP_NUM_THREADS``: 1 here). Every command has a test elsewhere that
begins it cold.

``python -m tests.servers.warm FD`` serves the socket ``FD``; tests call ``run`` and ``start``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
LOADED = (
    "timeloupe.cli.main", "timeloupe.policy.small", "timeloupe.policy.local", "timeloupe.train.grpo",
    "timeloupe.world.encode", "timeloupe.video.reader", "timeloupe.policy.openai_server", "accelerate",
    "tests.servers.local_server",
)  # fmt: skip
MOST_BYTES = 1_000_000
"""Of one order: words and environment."""

_lock = threading.Lock()
_control: socket.socket | None = None
_ended: list[int] = []


@dataclass(eq=False)
class Process:
    """A process that was begun; ``returncode`` as in ``subprocess``."""

    args: list[str]
    pid: int
    link: socket.socket
    returncode: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def poll(self) -> int | None:
        """Return the exit code, or the signal that ended it as a negative number; None while it runs."""
        return self._ask(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: It runs still.
        """
        code = self._ask(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _ask(self, timeout: float | None) -> int | None:
        with self.lock:
            if self.returncode is None and select.select([self.link], [], [], timeout)[0]:
                told = self.link.recv(100)
                assert told, "the warm program ended"
                self.returncode = os.waitstatus_to_exitcode(int(told))
                self.link.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start(
    *words: str | Path,
    module: str = "timeloupe",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.DEVNULL,
) -> Process:
    """Begin ``python -m module words...`` and return it.

    Args:
        words: Of the command.
        module: What runs as ``__main__``.
        cwd: Its working folder; default: this process's.
        env: Its environment; default: this process's.
        stdout: A file descriptor, or ``DEVNULL``.
        stderr: A file descriptor, or ``DEVNULL``.
    """
    args = [str(word) for word in words]
    order = {"module": module, "args": args, "cwd": str(cwd or Path.cwd()), "env": dict(env or os.environ)}
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nowhere = os.open(os.devnull, os.O_RDWR)
    streams = [nowhere if one == subprocess.DEVNULL else one for one in (stdout, stderr)]
    data = json.dumps(order).encode()
    assert len(data) <= MOST_BYTES
    with tempfile.TemporaryFile() as file:  # an order may be longer than a message
        file.write(data)
        file.flush()
        with _lock, theirs:
            socket.send_fds(_program(), [b"go"], [theirs.fileno(), file.fileno(), *streams])
    os.close(nowhere)
    pid = mine.recv(100)
    assert pid, "the warm program ended"
    return Process([module, *args], int(pid), mine)


def run(*words: str | Path, timeout: float = 300, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module words...`` to its end and return it with what it said; ``how`` as in ``start``."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(*words, stdout=out.fileno(), stderr=err.fileno(), **how)
        try:
            process.wait(timeout)
        finally:
            process.kill()
        said = [_all_of(file) for file in (out, err)]
    return subprocess.CompletedProcess(process.args, process.wait(), *said)


def _all_of(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _program() -> socket.socket:
    """Return the socket of the warm program, begun on first use and ended with this process."""
    global _control
    if _control is None:
        _control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.warm", str(theirs.fileno())],
            cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        atexit.register(_end, process)
    return _control


def _end(process: subprocess.Popen[bytes]) -> None:
    assert _control is not None
    _control.close()
    process.wait()


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork for every order; returns only in a forked process, with its order.

    Raises:
        SystemExit: Whoever orders has gone; what still ran was killed.
    """
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    running: dict[int, socket.socket] = {}
    while True:
        ready = select.select([control, woken], [], [])[0]
        if woken in ready:
            woken.recv(1000)
            _tell_ends(running)
        if control not in ready:
            continue
        message, fds = socket.recv_fds(control, 10, 4)[:2]
        if not message:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            sys.exit()
        link = socket.socket(fileno=fds[0])
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for one in (control, woken, wake, link, *running.values()):
                one.close()
            return _take(*fds[1:])
        for fd in fds[1:]:
            os.close(fd)
        running[pid] = link
        link.send(str(pid).encode())


def _tell_ends(running: dict[int, socket.socket]) -> None:
    """Tell how processes ended that have."""
    for pid in list(running):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with running.pop(pid) as link, contextlib.suppress(BrokenPipeError):
                link.send(str(status).encode())


def _take(order: int, stdout: int, stderr: int) -> dict[str, Any]:
    """Make the order's streams, folder and environment this process's own and return the order."""
    with os.fdopen(order, "rb") as file:
        file.seek(0)
        found = json.load(file)
    for fd, place in ((stdout, 1), (stderr, 2)):
        os.dup2(fd, place)
        if fd > 2:
            os.close(fd)
    os.chdir(found["cwd"])
    os.environ.clear()
    os.environ.update(found["env"])
    return found


def play(order: dict[str, Any]) -> None:
    """Run what was ordered as a program runs, and note in ``_ended`` how it ends."""
    sys.argv = [order["module"], *order["args"]]
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        _ended.append(0)
    except SystemExit as end:
        _ended.append(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
    except BaseException as error:
        _ended.append(-signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1)
        raise


def leave() -> None:
    """End a forked process when all else has been done: to take the libraries apart costs as much as to load them."""
    if not _ended:
        return
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    if _ended[0] < 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(_ended[0])


if __name__ == "__main__":
    atexit.register(leave)  # the first to be registered is the last to be called
    for name in LOADED:
        importlib.import_module(name)
    gc.freeze()
    play(serve(socket.socket(fileno=int(sys.argv[1]))))
