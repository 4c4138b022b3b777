"""A proxy between a client and a model's server that does what networks, gateways and servers do on bad days.

``python -m tests.servers.fault_proxy --to URL --log FILE`` prints its own base URL as soon as it listens. Which request
meets which fault is drawn from the proxy's seed, the request's seed and how often that request came, so it does not
depend on the order in which requests arrive. Every fault is a line of the log, with the seed of the request that met
it: seeds derive from the episode, so the log says which rows of a run were touched, and by what.

Faults::

    drop     the connection is cut before the reply          cut      JSON that ends in the middle
    broken   the connection is cut within the reply          empty    a reply without choices
    500      the server failed                               strip    the stop string is taken off (the client mends it)
    429      too many requests, with Retry-After             garbage  other words: the client takes them for the model's
    stall    nothing comes for a long time                   down     the server itself could not be reached
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("drop", "broken", "500", "429", "stall", "cut", "empty", "strip", "garbage")
SEED = re.compile(rb'"seed":\s*(\d+)')
STOPS = ("</tool_call>", "</answer>")


class Weather:
    """Draws the faults and keeps the log."""

    def __init__(self, seed: int, rates: dict[str, float], log: Path | None) -> None:
        self.seed, self.rates, self.log = seed, rates, log
        self.tries: Counter[int] = Counter()
        self.lock = threading.Lock()

    def draw(self, request: int) -> str | None:
        """Return the fault that this try of a request meets, or ``None``."""
        with self.lock:
            self.tries[request] += 1
            chance = random.Random(f"{self.seed} {request} {self.tries[request]}").random()
        for fault, rate in self.rates.items():
            chance -= rate
            if chance < 0:
                return fault
        return None

    def note(self, request: int, fault: str) -> None:
        """Write a line of the log."""
        if self.log is None:
            return
        with self.lock, self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seed": request, "fault": fault}) + "\n")


class Proxy(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    weather: Weather
    upstream: str
    stall_seconds: float

    def do_GET(self) -> None:
        status, body = self.ask(b"")
        self.send(status, body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        seed = int(SEED.findall(body)[-1])
        fault = self.weather.draw(seed)
        if fault is not None:
            self.weather.note(seed, fault)
        try:
            self.relay(body, fault)
        except (OSError, http.client.HTTPException):  # the server or the client has gone
            self.weather.note(seed, "down")
            self.hang_up()

    def relay(self, body: bytes, fault: str | None) -> None:
        if fault == "drop":
            self.hang_up()
        elif fault == "stall":
            time.sleep(self.stall_seconds)
            self.hang_up()
        elif fault == "500":
            self.send(500, b'{"error": {"message": "engine core died"}}')
        elif fault == "429":
            self.send(429, b'{"error": {"message": "slow down"}}', retry_after="1")
        elif fault == "empty":
            self.send(200, b'{"object": "chat.completion", "choices": []}')
        else:
            status, found = self.ask(body)
            if fault == "broken":
                self.send(status, found[: len(found) // 2], length=len(found))
                self.hang_up()
            elif fault == "cut":
                self.send(status, found[: len(found) // 2])
            elif fault in ("strip", "garbage"):
                self.send(status, changed(found, fault))
            else:
                self.send(status, found)

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """Return the server's answer."""
        connection = http.client.HTTPConnection(self.upstream, timeout=600)
        try:
            headers = {"content-type": "application/json"} if body else {}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def send(
        self, status: int, body: bytes, *, length: int | None = None, retry_after: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body) if length is None else length))
        if retry_after is not None:
            self.send_header("retry-after", retry_after)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def hang_up(self) -> None:
        """Close the connection so that the client sees it broken, not ended."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        self.wfile = self.rfile = open("/dev/null", "r+b", buffering=0)  # noqa: SIM115  # the base class flushes it

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def changed(body: bytes, fault: str) -> bytes:
    """Return a reply without its stop string, or with noise for words."""
    found = json.loads(body)
    message = found["choices"][0]["message"]
    if fault == "garbage":
        draw = random.Random(message["content"])
        message["content"] = "".join(draw.choice("abc <>/{}[]\n\u00e9\u4e16") for _ in range(80))
    else:
        for stop in STOPS:
            message["content"] = message["content"].removesuffix(stop)
    return json.dumps(found).encode()


class QuietServer(ThreadingHTTPServer):
    """Many connections at once; those that break are no news."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing."""


def main() -> None:
    """Run the proxy until it is killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", required=True, help="base URL of the server behind it")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", action="append", default=[], metavar="FAULT=SHARE", help="of all requests")
    parser.add_argument("--stall", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--log", type=Path)
    flags = parser.parse_args()
    rates = {name: float(share) for name, _, share in (one.partition("=") for one in flags.rate)}
    unknown = set(rates) - set(FAULTS)
    if unknown:
        parser.error(f"no such fault {sorted(unknown)}, there are {FAULTS}")
    Proxy.weather = Weather(flags.seed, rates, flags.log)
    Proxy.upstream = urlsplit(flags.to).netloc
    Proxy.stall_seconds = flags.stall
    with QuietServer(("127.0.0.1", flags.port), Proxy) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
