"""The viewer's server over real sockets: what it gives, what it refuses, and how it ends."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from tests.serve.episodes import (
    HOSTILE,
    draw_video,
    every_kind,
    look_twice,
    single_pass,
    with_boxes,
    write_run,
)
from timeloupe.cli.main import main
from timeloupe.errors import ConfigError
from timeloupe.serve.page import source_hash
from timeloupe.serve.server import Viewer, ViewerServer, make_server
from timeloupe.serve.shelf import Shelf
from timeloupe.serve.video_file import VideoFile
from timeloupe.trajectory import to_line

SECONDS = 20


@contextmanager
def serving(*runs: Path, token: str | None = None, follow_links: bool = False) -> Iterator[ViewerServer]:
    server = make_server(Viewer([Shelf(run) for run in runs], follow_links=follow_links), token=token)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    video = str(draw_video(folder / "clip.mp4", SECONDS))
    (folder / "secret.txt").write_text("secret")
    (folder / "unlisted.mp4").write_bytes((folder / "clip.mp4").read_bytes())
    (folder / "link.mp4").symlink_to(folder / "clip.mp4")
    more = [
        single_pass(name, SECONDS, f"id {name}")
        for name in ("link.mp4", "/etc/passwd", "../x.mp4", "gone.mp4", "n" * 5000, "nul\0")
    ]
    return write_run(folder, [*every_kind(video, SECONDS), with_boxes(video, SECONDS), *more])


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[ViewerServer]:
    with serving(run) as running:
        yield running


def ask(
    server: ViewerServer, path: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[HTTPResponse, bytes]:
    """Send the path as it is, without making it tidy as clients do."""
    connection = HTTPConnection(*server.server_address[:2], timeout=20)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def get_json(server: ViewerServer, path: str, **query: object) -> dict:
    answer, body = ask(server, f"{path}?{urlencode(query)}" if query else path)
    assert answer.status == 200, body
    return json.loads(body)


def test_the_page_is_the_same_for_every_run_and_its_policy_fits(server: ViewerServer) -> None:
    answer, body = ask(server, "/")
    assert answer.status == 200
    page = body.decode()
    policy = answer.headers["Content-Security-Policy"]
    script = page.rsplit("<script>", 1)[1].split("</script>")[0]
    assert f"script-src '{source_hash(script)}'" in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert "q1" not in page
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in answer.headers["Server"]


def test_the_list_is_light_and_an_episode_is_whole(server: ViewerServer, run: Path) -> None:
    listing = get_json(server, "/api/list")["runs"][0]
    assert listing["title"] == run.name
    first = listing["entries"][0]
    assert (first["id"], first["outcome"], first["turns"], first["score"]["accuracy"]) == (
        "q1",
        "right",
        3,
        1.0,
    )
    assert "turns" in first
    assert "prompt" not in first
    episode = get_json(server, "/api/episode", run=0, id="q1", rollout=0)
    assert episode["turns"][0]["call"]["segments"] == [[0.35 * SECONDS, 0.55 * SECONDS]]
    assert episode["play"] == "/video/0/0"
    assert get_json(server, "/api/episode", run=0, id="q3", rollout=0)["turns"][0]["raw"] == HOSTILE


def test_pictures_of_an_episode(server: ViewerServer) -> None:
    found = get_json(server, "/api/pictures", run=0, id="boxes", rollout=0)
    assert found["note"] is None
    assert found["duration"] == pytest.approx(SECONDS)
    assert len(found["views"]) == 1
    assert [seconds for seconds, _ in found["stills"]] == [0.45 * SECONDS, 0.5 * SECONDS]
    assert found["pictures"][0].startswith("data:image/jpeg;base64,")
    assert found == get_json(server, "/api/pictures", run=0, id="boxes", rollout=0)
    gone = get_json(server, "/api/pictures", run=0, id="id gone.mp4", rollout=0)
    assert gone["pictures"] == []
    assert "No such file" in gone["note"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/episode?run=1&id=q1&rollout=0",
        "/api/episode?run=0&id=nobody&rollout=0",
        "/api/episode?run=0&id=q1&rollout=7",
        "/api/episode",
        "/video/0/99",
        "/video/1/0",
        "/video/0/0/",
        "/video/0/-1",
        "/video/0/%30",
        "/video/0/clip.mp4",
        "/clip.mp4",
        "/unlisted.mp4",
        "/secret.txt",
        "/trajectories.jsonl",
        "/index.html",
        "/../../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/video/../trajectories.jsonl",
        "/video/0/..%2f..%2fetc%2fpasswd",
        "/static/page.js",
        "http://evil.example/",
        "//evil.example/api/list",
    ],
)
def test_nothing_else_is_there(server: ViewerServer, path: str) -> None:
    answer, body = ask(server, path, {"Host": "127.0.0.1"})
    assert answer.status == 404
    assert len(body) < 200
    assert b"root:" not in body


@pytest.mark.parametrize("path", ["/api/episode?run=x&id=q1", "/api/episode?rollout=-1", "/?" + "a=1&" * 50])
def test_addresses_that_make_no_sense(server: ViewerServer, path: str) -> None:
    assert ask(server, path)[0].status == 400


def test_listed_files_that_are_no_videos_or_links_are_not_given(server: ViewerServer, run: Path) -> None:
    for number, reason in {
        1: "symbolic link",
        2: "does not begin like a video",
        3: "cannot be opened",
        4: "cannot",
        5: "too long",
        6: "cannot be opened",
    }.items():
        answer, body = ask(server, f"/video/0/{number}")
        assert answer.status == 404
        assert reason in body.decode()
        assert b"root:" not in body
    told = get_json(server, "/api/episode", run=0, id="id link.mp4", rollout=0)
    assert told["play"] is None
    assert "--follow-links" in told["no_play"]
    told = get_json(server, "/api/pictures", run=0, id="id link.mp4", rollout=0)
    assert (told["pictures"], told["note"]) == ([], "it is a symbolic link")
    with serving(run, follow_links=True) as following:
        assert ask(following, "/video/0/1")[1] == (run / "clip.mp4").read_bytes()
        assert ask(following, "/video/0/2")[0].status == 404


def test_a_video_that_cannot_be_read_on_ends_the_connection_and_nothing_else_is_said(
    server: ViewerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(errno.EIO, "Input/output error")
            return super().read(10)

    broken = VideoFile(Broken(b"x" * 100), 100, "video/mp4", '"tag"')
    monkeypatch.setattr("timeloupe.serve.server.open_video", lambda *_: broken)
    with socket.create_connection(server.server_address[:2], timeout=20) as connection:
        port = server.server_address[1]
        connection.sendall(f"GET /video/0/0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        said = b"".join(iter(lambda: connection.recv(4096), b""))
    head, body = said.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200") and b"Content-Length: 100" in head
    assert body == b"x" * 10


def test_a_video_whole_and_in_parts(server: ViewerServer, run: Path) -> None:
    content = (run / "clip.mp4").read_bytes()
    size = len(content)
    whole, body = ask(server, "/video/0/0")
    assert (whole.status, body) == (200, content)
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Content-Type"] == "video/mp4"
    for asked, (start, end) in {
        "bytes=0-": (0, size),
        "bytes=5-9": (5, 10),
        f"bytes={size - 3}-{size + 50}": (size - 3, size),
        "bytes=-7": (size - 7, size),
    }.items():
        answer, body = ask(server, "/video/0/0", {"Range": asked})
        assert (answer.status, body) == (206, content[start:end])
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
    answer, body = ask(server, "/video/0/0", {"Range": f"bytes={size}-"})
    assert (answer.status, answer.headers["Content-Range"], body) == (416, f"bytes */{size}", b"")
    answer, body = ask(server, "/video/0/0", {"Range": "bytes=0-1,4-5"})
    assert (answer.status, body) == (200, content)
    tag = whole.headers["ETag"]
    assert ask(server, "/video/0/0", {"Range": "bytes=0-1", "If-Range": tag})[0].status == 206
    assert ask(server, "/video/0/0", {"Range": "bytes=0-1", "If-Range": '"old"'})[0].status == 200
    assert ask(server, "/video/0/0", {"If-None-Match": tag})[0].status == 304


def test_head_tells_the_same_and_sends_nothing(server: ViewerServer) -> None:
    for path in ("/", "/api/list", "/video/0/0"):
        full, body = ask(server, path)
        head, nothing = ask(server, path, method="HEAD")
        assert nothing == b""
        assert head.status == full.status
        assert head.headers["Content-Length"] == str(len(body))
    part, nothing = ask(server, "/video/0/0", {"Range": "bytes=2-5"}, "HEAD")
    assert (part.status, part.headers["Content-Length"], nothing) == (206, "4", b"")


def test_it_only_reads(server: ViewerServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, "/api/list", method=method)[0].status == 501


def test_foreign_names_and_pages_are_refused(server: ViewerServer) -> None:
    port = server.server_address[1]
    for path in ("/", "/api/list", "/api/episode?run=0&id=q1&rollout=0", "/video/0/0"):
        assert ask(server, path, {"Host": "evil.example"})[0].status == 421
        assert ask(server, path, {"Origin": "https://evil.example"})[0].status == 403
        assert ask(server, path, {"Sec-Fetch-Site": "cross-site"})[0].status == 403
        assert ask(server, path, {"Origin": f"http://127.0.0.1:{port}"})[0].status == 200


def test_a_token_is_asked_of_everything_and_kept_in_a_cookie(run: Path) -> None:
    with serving(run, token="a-right-token-0123") as server:
        port = server.server_address[1]
        assert server.url == f"http://127.0.0.1:{port}/?token=a-right-token-0123"
        for path in ("/", "/api/list", "/video/0/0", "/nowhere"):
            assert ask(server, path)[0].status == 401
            assert ask(server, path, {"Cookie": f"timeloupe-{port}=wrong"})[0].status == 401
        answer, _ = ask(server, urlsplit(server.url).path + "?" + urlsplit(server.url).query)
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert ask(server, "/api/list", {"Cookie": cookie.split(";")[0]})[0].status == 200
        assert ask(server, "/api/list?token=a-right-token-0123")[0].status == 200


def test_wider_than_loopback_there_is_always_a_token(run: Path) -> None:
    server = make_server(Viewer([Shelf(run)]), "0.0.0.0")
    server.server_close()
    assert len(server.guard.token or "") >= 32
    assert server.guard.token is not None
    assert server.guard.token in server.url
    assert not server.guard.knows_host("evil.example")


def test_hosts_and_ports_that_cannot_be_used(run: Path) -> None:
    viewer = Viewer([Shelf(run)])
    with pytest.raises(ConfigError, match="--host"):
        make_server(viewer, "no.such.host.invalid")
    with pytest.raises(ConfigError, match="--port"):
        make_server(viewer, port=70000)
    taken = make_server(viewer)
    try:
        with pytest.raises(ConfigError, match="another --port"):
            make_server(viewer, port=taken.server_address[1])
    finally:
        taken.server_close()


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video = draw_video(tmp_path / "big.mp4", 2)
    with video.open("r+b") as file:
        file.truncate(300 * 2**20)  # sparse: far more than sockets hold
    with serving(write_run(tmp_path / "run", [single_pass(str(video), 2)])) as server:
        for _ in range(3):
            with socket.create_connection(server.server_address[:2]) as client:
                client.sendall(b"GET /video/0/0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 200")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
        assert ask(server, "/video/0/0", {"Range": "bytes=314572799-"})[1] == b"\0"
    assert "Traceback" not in capfd.readouterr().err


def test_it_listens_at_the_other_loopback_too(run: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = make_server(Viewer([Shelf(run)]), "::1")
    server.server_close()
    assert server.url == f"http://[::1]:{server.server_address[1]}/"
    assert server.guard.token is None


def test_two_runs(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", [look_twice(str(run / "clip.mp4"), SECONDS)])
    with serving(run, other) as server:
        assert [len(one["entries"]) for one in get_json(server, "/api/list")["runs"]] == [19, 1]
        assert get_json(server, "/api/episode", run=1, id="q1", rollout=0)["play"] == "/video/1/0"


def test_a_line_that_is_no_episode_is_told_to_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [single_pass("v.mp4", 2)])
    with serving(run) as server:
        with (run / "trajectories.jsonl").open("a") as file:
            file.write("not JSON\n")
        answer, body = ask(server, "/api/list")
    assert answer.status == 500
    assert b"trajectories.jsonl:2 is not a valid Trajectory" in body


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--out", "page.html"], 2, "add --export html"),
        (["--export", "html", "--port", "3"], 2, "--port is for the server"),
        (["--export", "html", "--token", "a-right-token-0123"], 2, "--token is for the server"),
        (["--export", "html", "--open"], 2, "--open is for the server"),
        (["--token", "short"], 2, "12 to 128"),
        (["--port", "-1"], 2, "0 (a free one) to 65535"),
    ],
)
def test_options_that_do_not_go_together(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, told: str
) -> None:
    assert main(["view", str(run), *words]) == code
    assert told in capsys.readouterr().err


@contextmanager
def command(*words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``timeloupe view`` in a process of its own, and the first line that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "timeloupe", "view", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
        # Tests that a shell runs in the background ignore Ctrl-C, and what they start would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_the_command_serves_until_ctrl_c(run: Path, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser.sh"
    browser.write_text(f"#!/bin/sh\necho \"$1\" > '{opened}'\n")
    browser.chmod(0o755)
    with command(str(run), "--open", "--token", "chosen-by-me-123", BROWSER=f"{browser} %s") as (
        process,
        url,
    ):
        parts = urlsplit(url)
        assert parts.hostname == "127.0.0.1"
        assert parts.query == "token=chosen-by-me-123"
        connection = HTTPConnection("127.0.0.1", parts.port or 0, timeout=20)
        connection.request("GET", f"/api/list?{parts.query}")
        assert len(json.loads(connection.getresponse().read())["runs"][0]["entries"]) == 19
        connection.request("GET", "/api/list")  # the same connection, without the token
        assert connection.getresponse().status == 401
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == ""
    assert err.strip() == "19 episodes; Ctrl-C ends the viewer"
    assert opened.read_text().strip() == url


def test_the_command_as_json_shows_what_is_written_later(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [single_pass("v.mp4", 2)])
    with command(str(run), "--json", "--no-pictures") as (_, line):
        facts = json.loads(line)
        assert facts["episodes"] == [1]
        with (run / "trajectories.jsonl").open("a") as file:
            file.write(to_line(single_pass("v.mp4", 2, "later")) + "\n" + '{"half')
        connection = HTTPConnection("127.0.0.1", urlsplit(facts["url"]).port or 0, timeout=20)
        connection.request("GET", "/api/list")
        entries = json.loads(connection.getresponse().read())["runs"][0]["entries"]
        assert [entry["id"] for entry in entries] == ["q2", "later"]
        connection.request("GET", "/api/pictures?run=0&id=q2&rollout=0")
        assert json.loads(connection.getresponse().read())["pictures"] == []
