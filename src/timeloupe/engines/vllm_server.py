"""vLLM's OpenAI server on a machine without a GPU: the settings it needs there, and a server for the length of a block.

    .venv-vllm/bin/python -m timeloupe.engines.vllm_server CHECKPOINT [FLAGS OF VLLM]

starts one in the foreground. Nothing here imports vLLM: the server is another process, of another environment.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from timeloupe.errors import MissingError, PolicyError

CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process less, and about 0.5 GB
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_COLOR": "0",
}
"""Settings of the process; what the caller's environment says goes first."""

CPU_FLAGS = (
    "--dtype", "float32", "--enforce-eager", "--skip-mm-profiling", "--max-num-seqs", "8",
    "--max-model-len", "4096", "--trust-request-mm-kwargs",
)  # fmt: skip
"""Flags of the server. The last lets a request name the loader of ``timeloupe.engines.vllm_plugin``."""

STOP_SECONDS = 20.0


def server_command(
    python: str | Path, checkpoint: str | Path, *, port: int, name: str, flags: Sequence[str] = ()
) -> list[str]:
    """Return the command of a server on the loopback address; later ``flags`` go before those of ``CPU_FLAGS``."""
    return [
        str(python), "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port),
        "--model", str(checkpoint), "--served-model-name", name, *CPU_FLAGS, *flags,
    ]  # fmt: skip


@contextmanager
def cpu_server(
    python: str | Path,
    checkpoint: str | Path,
    *,
    log: Path,
    name: str = "served",
    flags: Sequence[str] = (),
    wait_seconds: float = 300.0,
    tell: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Yield the base URL (``http://127.0.0.1:PORT/v1``) of a server that ends with the block, whatever happens in it.

    Args:
        python: Interpreter of an environment with vLLM.
        checkpoint: What to serve.
        log: File for what the server prints.
        name: Model name that requests use.
        flags: Further flags.
        wait_seconds: How long it may take to come up.
        tell: Called about every five seconds while it comes up.

    Raises:
        MissingError: There is no such interpreter.
        PolicyError: The server ends or is not up in time; the message ends with the last lines of its log.
    """
    port = _free_port()
    environment = {**CPU_ENVIRONMENT, **os.environ}
    command = server_command(python, checkpoint, port=port, name=name, flags=flags)
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise MissingError(
                f"cannot start {str(python)!r}: {error}; make that environment with `make vllm-env`"
            ) from error
    try:
        _wait(process, port, log, wait_seconds, tell)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _wait(
    process: subprocess.Popen[bytes], port: int, log: Path, seconds: float, tell: Callable[[str], None] | None
) -> None:
    began = told = time.monotonic()
    # Loopback is never behind a proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None:
        now = time.monotonic()
        try:
            with opener.open(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass  # not up yet
        if now - began > seconds:
            raise PolicyError(f"vLLM was not up after {seconds:.0f} s; its last words:\n{_tail(log)}")
        if tell is not None and now - told >= 5:
            told = now
            tell(f"vLLM is starting, {now - began:.0f} s")
        time.sleep(0.25)
    raise PolicyError(f"vLLM ended with code {process.returncode}; its last words:\n{_tail(log)}")


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and what it started: its whole process group, kindly first."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue


def main(arguments: Sequence[str]) -> None:
    """Become a server of ``arguments[0]`` on port 8000, or the port that the further flags name."""
    if not arguments or arguments[0].startswith("-"):
        sys.exit("usage: python -m timeloupe.engines.vllm_server CHECKPOINT [FLAGS OF VLLM]")
    checkpoint, *flags = arguments
    name = Path(checkpoint).name
    command = server_command(sys.executable, checkpoint, port=8000, name=name, flags=flags)
    os.execve(sys.executable, command, {**CPU_ENVIRONMENT, **os.environ})


if __name__ == "__main__":
    main(sys.argv[1:])
