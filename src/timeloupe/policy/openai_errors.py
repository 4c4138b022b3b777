"""Why a served model did not answer, and what to do: one sentence for the record, without secrets."""

from __future__ import annotations

import html
import json
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import openai

MAX_SAID = 400
"""Characters of a server's own words that are passed on."""

HIDDEN = "***"
MIN_SECRET = 6


class Scrubber:
    """Takes secrets out of text, in every way that servers write them: as they are, or with any of their characters
    escaped for JSON, Python, a URL or a web page. Nothing may be cut before it was here: half a secret is not found.

    Args:
        secrets: Texts that must appear nowhere. Those of less than ``MIN_SECRET`` characters are left out: they are
            placeholders such as ``EMPTY``, and replies that hold the same letters would be spoilt.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = sorted({one for one in secrets if len(one) >= MIN_SECRET}, key=len, reverse=True)
        patterns = ["".join(map(_written, re.findall(r"\\+|[^\\]", one))) for one in self._secrets]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def __call__(self, text: str) -> str:
        """Return ``text`` with every secret replaced, and half surrogates, which have no UTF-8."""
        text = text.encode("utf-8", "replace").decode("utf-8")
        if self._pattern is None:
            return text
        if any(sign in text for sign in "\\%&"):  # nothing is escaped without these
            return self._pattern.sub(HIDDEN, text)
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def tree(self, value: Any) -> Any:
        """Return a JSON value with every secret replaced in every text and key of it."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, list):
            return [self.tree(one) for one in value]
        if isinstance(value, dict):
            return {self(key): self.tree(one) for key, one in value.items()}
        return value


def _written(piece: str) -> str:
    """Return a pattern of the ways to write one character that is no backslash, or a run of backslashes."""
    if piece[0] == "\\":
        escapes = rf"(?:\\{{1,8}}(?i:u005c|x5c)|%5[cC]|&#(?i:92|x5c);){{{len(piece)}}}"
        return rf"(?:{escapes}|\\{{{len(piece)},{8 * len(piece)}}})"
    ways: list[str] = []
    units = json.dumps(piece)[1:-1] if ord(piece) > 0xFFFF else f"\\u{ord(piece):04x}"
    ways.append("".join(rf"\\{{1,8}}(?i:{unit})" for unit in units.split("\\")[1:]))
    if ord(piece) < 0x100:
        ways.append(rf"\\{{1,8}}(?i:x{ord(piece):02x})")
    ways.append("".join(f"(?i:%{byte:02x})" for byte in piece.encode()))
    ways.append(f"&#(?i:0{{0,4}}{ord(piece)}|x0{{0,4}}{ord(piece):x});")
    ways += [re.escape(way) for way in (html.escape(piece), quote(piece, safe="")) if way != piece]
    # \/ and \" are legal in JSON, and may be escaped once more. Last, or the "amp;" of "&amp;" would be left over.
    ways.append(rf"\\{{0,8}}{re.escape(piece)}")
    return f"(?:{'|'.join(ways)})"


def parse_json(text: str, scrub: Scrubber) -> Any:
    """Return the JSON value of a server's text without secrets: what is escaped in it is no longer.

    Raises:
        ValueError: It is no JSON, or nested too deep.
    """
    try:  # Python makes no whole numbers of more than some thousand digits
        return scrub.tree(json.loads(text, parse_int=_whole))
    except RecursionError:
        raise ValueError("nested too deep") from None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= 300 else float(digits)


def explain(
    error: Exception, *, url: str, model: str, timeout_seconds: float, num_tries: int, scrub: Scrubber
) -> str:
    """Return what happened and what to do.

    Args:
        error: What the SDK raised.
        url: The base URL without user and password.
        model: The model that was asked.
        timeout_seconds: Limit of one try.
        num_tries: How often the SDK tried, retries included.
        scrub: Takes secrets out; before anything is cut, so that no half of one is left.
    """
    if isinstance(error, openai.APITimeoutError):
        return (
            f"no answer from {url} within {timeout_seconds:g} s in {num_tries} tries; raise --timeout, or show fewer "
            f"or smaller frames"
        )
    if isinstance(error, openai.APIConnectionError):
        return scrub(f"{_no_connection(error, url)} ({num_tries} tries)")
    if isinstance(error, openai.APIStatusError):
        return scrub(
            _refused(error.status_code, said_by_server(error.response.text, scrub), url=url, model=model)
        )
    return f"asking {url} failed: {type(error).__name__}: {scrub(str(error))[:MAX_SAID]}"


def _no_connection(error: Exception, url: str) -> str:
    chain = list(_causes(error))
    texts = " ".join(str(one) for one in chain)
    last = str(chain[-1]) or type(chain[-1]).__name__
    if any(isinstance(one, ssl.SSLError) for one in chain) or "SSL" in texts:
        return (
            f"TLS with {url} failed: {last}; use http:// for a server without TLS, or give its certificate in "
            f"SSL_CERT_FILE"
        )
    if any(isinstance(one, socket.gaierror) for one in chain) or "Name or service" in texts:
        return f"the host of {url} is not known: {last}; check the name in --base-url"
    if any(isinstance(one, ConnectionRefusedError) for one in chain) or "refused" in texts:
        return f"nothing listens at {url} (connection refused); start the server, or correct --base-url"
    return f"the connection to {url} broke: {last}; look into the server's log, it may have died"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


_BY_STATUS = {
    401: ("refused the key", "put a valid key into the environment variable that --api-key-env names"),
    403: ("refused the key", "put a valid key into the environment variable that --api-key-env names"),
    404: ("knows no such model or no such address", "check --model, and that --base-url ends in /v1"),
    413: ("takes no request of this size", "show fewer or smaller frames (--frames), or send jpeg"),
    429: ("is over its rate limit or quota", "wait, or ask less at once"),
}

_BY_WORDS = (
    (
        r"logit_?bias",
        (
            "takes no logit_bias",
            "see that --settings-from names the checkpoint it runs, or leave the bans off with --no-logit-bias",
        ),
    ),
    (
        r"context.{0,20}length|maximum.{0,20}(context|model).{0,20}len|too (long|many tokens)|max_model_len",
        ("has no context for a request of this length", "lower --frames or --max-new-tokens"),
    ),
    (
        r"at most \d+ (image|video)|too many (image|video)|limit.{0,10}mm",
        (
            "takes fewer pictures or videos in a request",
            "lower --frames, or start it with a higher limit (vLLM: --limit-mm-per-prompt)",
        ),
    ),
    (
        r"trust-request-mm-kwargs",
        ("takes no video arguments", "start it with --trust-request-mm-kwargs, or use --send images"),
    ),
    (
        r"video loader|video_backend|not found in the registry|timeloupe",
        ("cannot read clip files", "install timeloupe in the server's environment, or use --send images"),
    ),
)


def _refused(status: int, said: str, *, url: str, model: str) -> str:
    what, do = _BY_STATUS.get(status, ("refused the request", ""))
    if what == "refused the request":  # 400, 422 and 500 mean anything: the words decide
        found = [phrases for pattern, phrases in _BY_WORDS if re.search(pattern, said.lower())]
        fallback = ("failed inside", "look into the server's log") if status >= 500 else (what, do)
        what, do = found[0] if found else fallback
    asked = f" for {model!r}" if model else ""
    return f"{url} {what}{asked} (HTTP {status}): {said}" + (f"; {do}" if do else "")


def said_by_server(text: str, scrub: Scrubber) -> str:
    """Return the message of an error body, one line without secrets, cut to ``MAX_SAID`` characters.

    A web page is named as such.
    """
    if text.lstrip()[:15].lower().startswith(("<!doctype", "<html")):
        return "it sent a web page, so this is not the API of a model"
    try:
        body = parse_json(text, scrub)
    except ValueError:
        body = text
    for key in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(key):
            body = body[key]
    said = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    said = " ".join(scrub(said).split())
    said = re.sub(r"data:[\w/.+-]+;base64,[\w+/=,]+", "data:...", said)
    return said[:MAX_SAID] or "it gave no reason"
