"""Who may read from the server: addresses it answers to, foreign pages, and the token. Pure.

A page from elsewhere that a browser has open can send requests to loopback. Two things give it away: the ``Host`` it
used, when it points a name of its own at this machine (DNS rebinding), and the ``Origin`` or ``Sec-Fetch-Site`` that
the browser adds. Requests of other programs carry none of these and are judged by the token alone.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from timeloupe.errors import boundary

_TOKEN = re.compile(r"[A-Za-z0-9_-]{12,128}")


@dataclass(frozen=True)
class Guard:
    """The rules of one server.

    Attributes:
        names: Names other than numeric addresses that it answers to, in lower case.
        wide: Whether it listens on more than loopback; it then answers to any numeric address.
        token: What every request has to show; ``None`` = nothing.
        cookie: Name of the cookie that holds the token. Cookies do not know ports, so it has to.
    """

    names: frozenset[str]
    wide: bool
    token: str | None
    cookie: str

    def refusal(self, headers: Mapping[str, str], shown: str | None) -> tuple[HTTPStatus, str] | None:
        """Return why a request is refused, or ``None`` if it may pass.

        Args:
            headers: The request's headers; names are looked up as given here.
            shown: The token in the request's address, if there is one.
        """
        host = headers.get("Host") or ""
        if not self.knows_host(host):
            return (
                HTTPStatus.MISDIRECTED_REQUEST,
                f"this server does not answer to the name {host[:80]!r}; open the address that it printed, "
                f"or start it with --host and that name",
            )
        if not same_site(headers, host):
            return HTTPStatus.FORBIDDEN, "a page from another site asked; open the viewer's own address"
        if self.token is not None and not self.knows_token(shown, headers.get("Cookie") or ""):
            return (
                HTTPStatus.UNAUTHORIZED,
                "the token is missing or wrong; open the whole address that the command printed",
            )
        return None

    def knows_host(self, host: str) -> bool:
        """Return whether a ``Host`` header names this server; the port may be another one, as behind a tunnel."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return self.wide or address.is_loopback

    def knows_token(self, shown: str | None, cookies: str) -> bool:
        """Return whether the token in the address or the cookie is the right one, in constant time."""
        # Read piece by piece: other programs on this host set cookies of any form, and those come along.
        kept = [value.strip() for name, _, value in (one.partition("=") for one in cookies.split(";"))
                if name.strip() == self.cookie]  # fmt: skip
        candidates = [shown or "", *kept]
        right = _digest(self.token or "")
        return any(hmac.compare_digest(_digest(one), right) for one in candidates)


def same_site(headers: Mapping[str, str], host: str) -> bool:
    """Return whether a request comes from the viewer's own page, from its address bar, or from no page at all."""
    origin = headers.get("Origin")
    if origin is not None:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != host.lower():
            return False
    if headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin"):
        return True
    # A link from elsewhere may open the page; nothing else from elsewhere may ask, or hold it in a frame.
    return headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"


def make_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(24)


def checked_token(token: str) -> str:
    """Return the token that a user chose.

    Raises:
        ConfigError: It is short, or has signs that an address or a cookie cannot hold.
    """
    if not _TOKEN.fullmatch(token):
        raise boundary(
            "--token is not usable",
            f"{len(token)} characters",
            "12 to 128 letters, digits, - and _",
            "or leave it out to have one made",
        )
    return token


def _digest(text: str) -> bytes:
    """Digests are of one length, so that comparing them tells nothing about the token's."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
