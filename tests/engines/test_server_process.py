"""A served model lives as long as its block: with a stand-in for vLLM that is a real process."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from textwrap import dedent

import pytest

from timeloupe.engines.vllm_server import CPU_FLAGS, cpu_server, main, server_command
from timeloupe.errors import MissingError, PolicyError

SERVER = """
import http.server, json, os, subprocess, sys
if "--die" in sys.argv: sys.exit("out of luck")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        up = "--never" not in sys.argv
        self.send_response(200 if up else 503); self.end_headers()
        self.wfile.write(json.dumps([os.getpid(), child.pid, sys.argv, os.environ["VLLM_CPU_KVCACHE_SPACE"]]).encode())
port = int(sys.argv[sys.argv.index("--port") + 1])
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that runs ``SERVER`` whatever module it is asked for."""
    (tmp_path / "server.py").write_text(dedent(SERVER))
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path / "server.py"}" "$@"\n')
    path.chmod(0o755)
    return path


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A killed child of a killed parent waits for the system to collect it.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("fails", [False, True])
def test_it_ends_with_the_block_and_so_do_its_children(python: Path, tmp_path: Path, fails: bool) -> None:
    pids: list[int] = []
    try:
        with cpu_server(python, "model", log=tmp_path / "log", name="m", flags=["--seed", "3"]) as url:
            with urllib.request.urlopen(url, timeout=60) as answer:
                *pids, arguments, cache = json.load(answer)
            assert all(alive(pid) for pid in pids)
            assert arguments[arguments.index("--model") + 1] == "model" and arguments[-2:] == ["--seed", "3"]
            assert cache == os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert len(pids) == 2 and not alive(pids[0])
    while alive(pids[1]):  # has its signal, and is on its way
        time.sleep(0.05)


def test_a_server_that_dies_is_told_with_its_last_words(python: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(PolicyError, match="(?s)ended with code 1.*out of luck"),
        cpu_server(python, "model", log=tmp_path / "log", flags=["--die"]),
    ):
        pass


def test_a_server_that_does_not_come_up_is_ended(python: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(PolicyError, match="not up after 0 s"),
        cpu_server(python, "model", log=tmp_path / "log", flags=["--never"], wait_seconds=0),
    ):
        pass


def test_no_interpreter(tmp_path: Path) -> None:
    with (
        pytest.raises(MissingError, match="make vllm-env"),
        cpu_server(tmp_path / "none", "model", log=tmp_path / "log"),
    ):
        pass


def test_the_command_of_a_foreground_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    became: list[object] = []
    monkeypatch.setattr(os, "execve", lambda *what: became.extend(what))
    main(["folder/small", "--port", "9"])
    program, command, environment = became
    assert program == sys.executable
    assert command == server_command(
        sys.executable, "folder/small", port=8000, name="small", flags=["--port", "9"]
    )
    assert isinstance(environment, dict) and environment["VLLM_NO_USAGE_STATS"] == "1"
    with pytest.raises(SystemExit, match="usage"):
        main(["--port"])
    assert "--trust-request-mm-kwargs" in CPU_FLAGS
