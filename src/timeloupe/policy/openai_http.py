"""How a served model is reached: its URL, and an SDK client whose every try ends in time and in size.

The SDK's own timeout is one for each piece of a response, so a server that sends a byte now and then would keep a
caller for ever. Here a try as a whole, from the name's look-up to the last byte, has one limit. That needs requests
that can be given up from outside, so they run on an event loop in a thread of its own; it ends them also when the
caller is interrupted.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import ssl
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import openai

from timeloupe.errors import ConfigError, boundary
from timeloupe.policy.openai_errors import MIN_SECRET

# The SDK moved from one HTTP package to another and brings the one that it uses.
http_package = import_module(openai.DefaultAsyncHttpxClient.__bases__[0].__module__.partition(".")[0])

NO_KEY = "no-key"
"""Sent where there is no key: the SDK demands one, and a local server does not look at it."""

CONNECT_SECONDS = 30.0
MAX_RESPONSE_BYTES = 64 * 2**20
"""Of a response's body as it reads when it is unpacked."""

GIVE_UP_SECONDS = 2.0
"""How long an interrupted caller waits for its requests to be closed."""

Result = TypeVar("Result")


class ResponseTooLarge(openai.OpenAIError):
    """A response has more bytes than allowed; the SDK does not try again."""


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """The SDK's HTTP client with a limit of time and of bytes for each try.

    Args:
        limit_seconds: Of one try.
        options: As the SDK's own client takes them.
    """

    def __init__(self, limit_seconds: float, **options: Any) -> None:
        super().__init__(
            verify=_certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")), **options
        )
        self.limit_seconds = limit_seconds

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> Any:
        """Return the response with its whole body, read and unpacked.

        Raises:
            ResponseTooLarge: The body has more than ``MAX_RESPONSE_BYTES``.
        """
        try:
            async with asyncio.timeout(self.limit_seconds):
                return await self._read(await super().send(request, stream=True, **options))
        except TimeoutError as error:
            said = f"no whole response within {self.limit_seconds:g} s"
            raise http_package.ReadTimeout(said, request=request) from error

    async def _read(self, response: Any) -> Any:
        body = bytearray()
        try:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_RESPONSE_BYTES:
                    raise ResponseTooLarge(f"the response has more than {MAX_RESPONSE_BYTES} bytes")
        finally:
            await response.aclose()
        headers = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name not in ("content-encoding", "content-length", "transfer-encoding")
        ]
        return http_package.Response(
            response.status_code, headers=headers, content=bytes(body), request=response.request
        )


@cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Whom to trust, read once for each setting of the variables that say so: it takes 30 ms, too much for a turn."""
    return http_package.create_ssl_context()


def make_client(
    url: str, *, api_key: str, headers: Mapping[str, str], max_retries: int, timeout_seconds: float
) -> openai.AsyncOpenAI:
    """Return a client that sends what is given here and nothing of what the SDK finds in the environment."""
    timeout = openai.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS))
    client = openai.AsyncOpenAI(
        base_url=url, api_key=api_key or NO_KEY, max_retries=max_retries, timeout=timeout,
        http_client=BoundedClient(timeout_seconds, timeout=timeout),
    )  # fmt: skip
    client.organization = client.project = client.admin_api_key = None
    client._custom_headers = dict(headers)  # there is no public way to be without OPENAI_CUSTOM_HEADERS
    return client


class RequestLoop:
    """An event loop in a thread of its own, with one client for all requests that run on it.

    Also for callers whose own thread has a loop, as in a notebook, and for many threads at once: they share the loop
    and the open connections of the client. Both begin with the first request, and end when this object does.

    Args:
        make: Makes the client.
    """

    def __init__(self, make: Callable[[], openai.AsyncOpenAI]) -> None:
        self._make = make
        self._begin = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clients: list[openai.AsyncOpenAI] = []

    def run(self, work: Callable[[openai.AsyncOpenAI], Coroutine[Any, Any, Result]]) -> Result:
        """Return what a coroutine returns; ``work`` makes it of the client.

        If the caller is interrupted the coroutine is cancelled; the interrupt goes on when it is closed, at the latest
        after ``GIVE_UP_SECONDS``.
        """
        ended = threading.Event()

        async def watched() -> Result:
            try:
                if not self._clients:
                    self._clients.append(self._make())
                return await work(self._clients[0])
            finally:
                ended.set()

        done = asyncio.run_coroutine_threadsafe(watched(), self._started())
        try:
            return done.result()
        except BaseException:
            if not done.done():
                done.cancel()
                ended.wait(GIVE_UP_SECONDS)
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._begin:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                # A daemon: an interrupted program must not wait for a server that never answers.
                threading.Thread(target=_serve, args=(loop,), name="timeloupe-openai", daemon=True).start()
                # Not at the program's exit: the thread is gone by then, and nobody could close anything.
                weakref.finalize(self, _end, loop, self._clients).atexit = False
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(loop: asyncio.AbstractEventLoop, clients: Sequence[openai.AsyncOpenAI]) -> None:
    async def close() -> None:
        for client in clients:
            await client.close()
        await loop.shutdown_default_executor()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)


def split_url(base_url: str) -> tuple[str, dict[str, str], list[str]]:
    """Return the URL without user and password, the headers that carry these, and what must not be shown.

    Raises:
        ConfigError: It is no http or https URL, it has a query, or a password that could not be kept out of records;
            the message shows neither user nor password.
    """
    allowed, example = "http(s)://HOST[:PORT]/v1 without a query", "as http://localhost:8000/v1"
    shown = re.split(r"[?#]", base_url.rpartition("@")[2])[0]
    base_url = base_url.strip()
    try:
        parts = urlsplit(base_url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise boundary("--base-url", shown, allowed, example) from None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise boundary("--base-url", shown, allowed, example)
    if "@" in parts.path:
        allowed, example = f'{allowed}, or "@" in the path', 'write "/" in a password as %2F'
        raise boundary("--base-url", shown, allowed, example)
    where = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{where}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
    try:
        if not base_url.isprintable() or " " in base_url:
            raise ValueError("a character that no URL has")
        http_package.URL(url).raw_host  # noqa: B018  # it is the HTTP package that decides what a host is
    except (ValueError, http_package.InvalidURL):
        raise boundary("--base-url", shown, allowed, example) from None
    if parts.username is None and parts.password is None:
        return url, {}, []
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if 0 < len(password) < MIN_SECRET:
        raise ConfigError(
            f"the password in --base-url has less than {MIN_SECRET} characters, too few to be kept out of records "
            f"where a server repeats it; use a longer one"
        )
    basic = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    secrets = [basic, f"{user}:{password}", password, parts.password or ""]
    return url, {"Authorization": f"Basic {basic}"}, secrets if password else [basic, user]
