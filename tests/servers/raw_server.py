"""A real HTTP server whose answers are written byte by byte by a test: what no well-behaved server would send."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[["RawHandler"], None]


@dataclass
class RawServer:
    """A running server.

    Attributes:
        url: Its base URL.
        headers: Of every request so far, names in small letters.
        ended: Set when the test is over, so that an answer that takes long can end.
    """

    url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


class RawHandler(BaseHTTPRequestHandler):
    """One request; ``server_state`` is the server's."""

    protocol_version = "HTTP/1.1"
    server_state: RawServer
    answer: Answer

    @property
    def token(self) -> str:
        """The key that came with the request."""
        return self.headers.get("authorization", "").partition(" ")[2]

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        """Send a whole answer."""
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        self.server_state.headers.append({name.lower(): value for name, value in self.headers.items()})
        try:
            type(self).answer(self)
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


@contextmanager
def answering(answer: Answer) -> Iterator[RawServer]:
    """Run a server that answers every request so while the block lasts."""
    state = RawServer()
    handler = type("Handler", (RawHandler,), {"server_state": state, "answer": staticmethod(answer)})
    with _QuietServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.ended.set()
            server.shutdown()
            thread.join()


def completion(text: str, **of_choice: Any) -> bytes:
    """Return a chat completion that says ``text``."""
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop", **of_choice}
    return json.dumps({"choices": [choice]}).encode()
