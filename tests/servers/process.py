"""Starts the stub server as a process of its own, and sees to it that it ends."""

from __future__ import annotations

import contextlib
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

from tests.servers import warm

ROOT = Path(__file__).resolve().parents[2]
OF_THE_SMALL_MODEL = ("local_server", "faulty_server")
"""Servers that need torch: they begin warm."""


@dataclass
class Server:
    """A running server."""

    url: str
    process: subprocess.Popen[str] | warm.Process

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
    with contextlib.ExitStack() as stack:
        if module in OF_THE_SMALL_MODEL:
            end, sent = os.pipe()
            said = stack.enter_context(os.fdopen(end, encoding="utf-8"))
            process = warm.start(*flags, module=f"tests.servers.{module}", stdout=sent, stderr=2)
            os.close(sent)
        else:
            command = [sys.executable, "-m", f"tests.servers.{module}", *flags]
            process = stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            )
            assert process.stdout is not None
            said = process.stdout
        try:
            url = said.readline().strip()
            assert url.startswith("http"), "the stub server did not start"
            yield Server(url, process)
        finally:
            process.kill()
            process.wait()
