"""Starts the stub server as a process of its own, and sees to it that it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[str]

    def requests(self) -> list[dict[str, Any]]:
        """Return the headers and bodies of the chat completions asked for so far."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/requests", timeout=60) as answer:
            return json.load(answer)

    def behave(self, **manners: Any) -> None:
        """Change how it replies, see ``local_server.Manners``, and forget what was asked."""
        request = urllib.request.Request(
            self.url.removesuffix("/v1") + "/manners",
            json.dumps(manners).encode(),
            {"content-type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=60).close()


@contextmanager
def serving(*flags: str, module: str = "local_server") -> Iterator[Server]:
    """Run ``tests.servers.local_server``, or another module there, with these flags while the block lasts."""
    command = [sys.executable, "-m", f"tests.servers.{module}", *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url.startswith("http"), "the stub server did not start"
            yield Server(url, process)
        finally:
            process.kill()
