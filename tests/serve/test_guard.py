"""Who may ask: names, foreign pages, tokens."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.errors import ConfigError
from timeloupe.serve.guard import Guard, checked_token, make_token, same_site

NEAR = Guard(frozenset({"localhost"}), wide=False, token=None, cookie="timeloupe-8000")
FAR = Guard(frozenset({"localhost", "lab"}), wide=True, token="a-right-token-0123", cookie="timeloupe-8000")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:9", "[::1]:8000", "127.9.9.9"])
def test_own_names(host: str) -> None:
    assert NEAR.knows_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "10.0.0.5",
        "[bad",
        "127.0.0.1.nip.io",
    ],
)
def test_other_names(host: str) -> None:
    assert not NEAR.knows_host(host)
    refused = NEAR.refusal({"Host": host}, None)
    assert refused is not None
    assert refused[0] is HTTPStatus.MISDIRECTED_REQUEST


def test_bound_wider_it_answers_to_addresses_and_its_own_names_only() -> None:
    assert FAR.knows_host("10.0.0.5:8000")
    assert FAR.knows_host("lab:8000")
    assert not FAR.knows_host("evil.example")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "file://"},
        {"Origin": "http://[bad"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "video"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_foreign_pages(headers: dict[str, str]) -> None:
    assert not same_site(headers, "127.0.0.1:8000")
    refused = NEAR.refusal({"Host": "127.0.0.1:8000", **headers}, None)
    assert refused is not None
    assert refused[0] is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_own_page_address_bar_and_links(headers: dict[str, str]) -> None:
    assert NEAR.refusal({"Host": "127.0.0.1:8000", **headers}, None) is None


def test_the_token_comes_by_address_or_cookie() -> None:
    host = {"Host": "lab"}
    assert FAR.refusal(host, "a-right-token-0123") is None
    assert FAR.refusal({**host, "Cookie": "x=1; timeloupe-8000=a-right-token-0123"}, None) is None
    assert FAR.refusal({**host, "Cookie": "timeloupe-8000=a-right-token-0123"}, "wrong") is None
    for shown, cookies in (
        (None, ""),
        ("", ""),
        ("wrong", ""),
        (None, "timeloupe-9=a-right-token-0123"),
        (None, "\x00=;;"),
    ):
        refused = FAR.refusal({**host, "Cookie": cookies}, shown)
        assert refused is not None
        assert refused[0] is HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(
    "other", ['prefs={"a":1}', "a[b]=1", "flag", "n=J\u00f6rg", "=", "timeloupe-8000=wrong"]
)
def test_cookies_of_other_programs_on_the_host_do_not_hide_ours(other: str) -> None:
    assert FAR.knows_token(None, f"{other}; timeloupe-8000=a-right-token-0123")
    assert FAR.knows_token(None, f"timeloupe-8000=a-right-token-0123; {other}")


@given(st.text(max_size=40), st.text(max_size=60))
def test_only_the_token_is_the_token(shown: str, cookies: str) -> None:
    assert FAR.knows_token(shown, cookies) == (shown == FAR.token)


def test_tokens_are_long_and_fit_an_address() -> None:
    assert checked_token(make_token())
    assert make_token() != make_token()
    for bad in ("short", "a" * 200, "has a space in it", "semi;colon;semi;colon", "únicode-únicode"):
        with pytest.raises(ConfigError, match="12 to 128"):
            checked_token(bad)
