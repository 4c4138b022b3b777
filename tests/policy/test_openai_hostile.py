"""The served policy against servers that mean harm or are broken, over real HTTP: secrets stay, every try ends."""

from __future__ import annotations

import gzip
import html
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.servers.raw_server import Answer, RawHandler, answering, completion
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.openai_errors import HIDDEN, Scrubber, parse_json
from timeloupe.policy.openai_http import MAX_RESPONSE_BYTES
from timeloupe.policy.openai_server import OpenAIPolicy
from timeloupe.trajectory import Generation, Message, Text

KEY = "sk-abc/def+ghi=0123456789&xyz"
HELLO = GenerationRequest(messages=(Message(role="user", parts=(Text(text="hello"),)),))


def ask(answer: Answer, model: str | None = "m", **options: object) -> Generation:
    with answering(answer) as server:
        given = {"api_key": KEY, "max_retries": 0, "timeout_seconds": 60.0, **options}
        return OpenAIPolicy(server.url, model, **given).generate([HELLO])[0]  # type: ignore[arg-type]


def in_units(text: str) -> str:
    return "".join(f"\\u{ord(one):04X}" for one in text)


WAYS = [
    str, in_units, lambda key: key.replace("/", "\\/"), lambda key: quote(key, safe=""), lambda key: quote(key),
    lambda key: quote(key, safe="").lower(), html.escape,
    lambda key: in_units(key).replace("\\", "\\\\"), lambda key: "".join(f"&#{ord(one)};" for one in key),
    lambda key: "".join(f"\\\\x{ord(one):02x}" for one in key),
]  # fmt: skip


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("write", WAYS)
def test_the_key_is_nowhere_however_it_is_written(write, status: int) -> None:
    for form in ('{"error": {"message": "bad key %s"}}', '{"%s": 1}', "bad key %s", '{"broken": "%s"'):
        found = ask(lambda request, form=form: request.reply((form % write(request.token)).encode(), status))
        error = str(found.error)
        assert found.finish == "error" and HIDDEN in error
        for piece in ("abc", "def", "ghi", "01234", "xyz"):
            assert piece not in error and in_units(piece).lower() not in error.lower()


def test_no_part_of_the_key_is_left_where_a_text_is_cut() -> None:
    for before in range(150, 420, 18):
        for form in ('{"error": {"message": "%s"}}', "%s", '{"choices": [{"finish_reason": "%s"}]}'):
            found = ask(
                lambda request, form=form, before=before: request.reply(
                    (form % ("x" * before + request.token)).encode()
                )
            )
            assert found.error and "sk" not in found.error and "xxx" in found.error


def test_a_key_in_a_reply_is_hidden_and_the_reply_stays() -> None:
    def answer(request: RawHandler) -> None:
        pieces = [{"type": "text", "text": one} for one in ("a ", request.token[:9], request.token[9:], " b")]
        request.reply(completion("", message={"content": pieces}))

    assert ask(answer).text == f"a {HIDDEN} b"


@given(st.text(min_size=6, max_size=20).filter(lambda text: text.isprintable() and not text.isspace()))
@example("00000&")
@example("x&amp;y&")
def test_every_way_to_write_a_secret_is_found(secret: str) -> None:
    scrub = Scrubber([secret])
    once = json.dumps(secret)[1:-1]
    ways = [
        secret,
        once,
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(once)[1:-1],
        repr(secret)[1:-1],
    ]
    for way in [
        *ways,
        quote(secret, safe=""),
        html.escape(secret),
        in_units(secret) if secret.isascii() else secret,
    ]:
        assert scrub(f"\n{way}\n") == f"\n{HIDDEN}\n"
    body = {"a": [f"<{secret}>", {secret: 1}], "b": None}
    assert parse_json(json.dumps(body), scrub) == {"a": [f"<{HIDDEN}>", {HIDDEN: 1}], "b": None}


@given(st.text(), st.text(min_size=6, max_size=12))
def test_a_text_without_the_secret_is_left_alone(text: str, secret: str) -> None:
    if not any(one in text for one in secret):
        assert Scrubber([secret])(text) == text


def drip(request: RawHandler) -> None:
    request.send_response(200)
    request.send_header("content-length", "1000000")
    request.end_headers()
    while not request.server_state.ended.wait(0.02):
        request.wfile.write(b" ")


def drip_headers(request: RawHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
    while not request.server_state.ended.wait(0.02):
        request.wfile.write(b"a")


def redirect_for_ever(request: RawHandler) -> None:
    request.server_state.ended.wait(0.1)
    request.reply(b"", 307, location=request.path)


@pytest.mark.parametrize("answer", [drip, drip_headers])
def test_a_try_ends_also_if_bytes_keep_coming(answer: Answer) -> None:
    with answering(answer) as server:
        policy = OpenAIPolicy(server.url, "m", timeout_seconds=0.4, max_retries=1)
        (found,) = policy.generate([HELLO])
        assert "within 0.4 s in 2 tries; raise --timeout" in str(found.error)
        assert len(server.headers) == 2, "the SDK's own retry"


def test_redirects_without_end_are_a_failure() -> None:
    assert ask(redirect_for_ever).finish == "error"


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    def flood(request: RawHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.close_connection = True
        while not request.server_state.ended.is_set():
            request.wfile.write(b" " * 2**20)

    def bomb(request: RawHandler) -> None:
        request.reply(gzip.compress(bytes(MAX_RESPONSE_BYTES + 1), 1), content_encoding="gzip")

    for answer in (flood, bomb):
        assert f"more than {MAX_RESPONSE_BYTES} bytes" in str(ask(answer).error)


def test_a_packed_reply_is_read() -> None:
    packed = gzip.compress(completion("<answer>é"))
    assert ask(lambda request: request.reply(packed, content_encoding="gzip")).text == "<answer>é"


def test_half_a_surrogate_in_a_name_or_an_error_is_replaced() -> None:
    def answer(request: RawHandler) -> None:
        if request.command == "GET":
            request.reply(b'{"data": [{"id": "\\ud83dm"}]}')
        else:
            request.reply(b'{"error": {"message": "no \\ud83d"}}', 400)

    with answering(answer) as server:
        policy = OpenAIPolicy(server.url, max_retries=0)
        (found,) = policy.generate([HELLO])
    assert policy.name == "openai:?m" and "no ?" in str(found.error)
    found.model_dump_json()


def test_nothing_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "of-the-environment")
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "x-mine: of-the-environment\nAuthorization: of-the-environment"
    )
    with answering(lambda request: request.reply(completion("<answer>a"))) as server:
        for url in (server.url, server.url.replace("//", "//someone:password@")):
            assert OpenAIPolicy(url, "m").generate([HELLO])[0].text == "<answer>a"
        assert len(server.headers) == 2 and "of-the-environment" not in str(server.headers)
        assert server.headers[0]["authorization"] == "Bearer no-key"
        assert server.headers[1]["authorization"].startswith("Basic ")


def test_an_interrupt_ends_a_batch() -> None:
    asked = threading.Semaphore(0)

    def hang(request: RawHandler) -> None:
        asked.release()
        request.server_state.ended.wait(300)

    code = (
        # Whoever starts the tests in the background has the signal ignored, and so would the child.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from timeloupe.policy.openai_server import GenerationRequest, OpenAIPolicy;"
        "policy = OpenAIPolicy(sys.argv[1], 'm', concurrency=2, timeout_seconds=3000);"
        "policy.generate([GenerationRequest(messages=())] * 5)"
    )
    with (
        answering(hang) as server,
        subprocess.Popen(
            [sys.executable, "-c", code, server.url], stderr=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2], env=os.environ,
        ) as process,
    ):  # fmt: skip
        try:
            for _ in range(2):
                assert asked.acquire(timeout=120)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)  # without an end of its requests it would be 9000 s
        finally:
            process.kill()
    assert "KeyboardInterrupt" in errors and process.returncode != 0
    assert len(server.headers) == 2, "no further request"
