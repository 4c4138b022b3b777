"""The viewer's server: one page, the runs' episodes one by one, their videos by number. Standard library only.

It only ever reads, and answers a closed list of addresses::

    /                                   the page
    /api/list                           a light line per episode of every run
    /api/episode?run&id&rollout&step    one episode; step is of a training
    /api/pictures?run&id&rollout&step   pictures of its frames
    /video/RUN/NUMBER                   a video that a record of the run lists, whole or a range of its bytes

No part of an address is ever made into a path.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

from timeloupe.errors import ConfigError, TimeloupeError, VideoError, boundary
from timeloupe.serve.byte_range import UnsatisfiableError, read_range
from timeloupe.serve.guard import Guard, make_token
from timeloupe.serve.page import content_policy, script_safe_json, served_page
from timeloupe.serve.page_data import episode_data, list_data
from timeloupe.serve.pictures import PictureDesk
from timeloupe.serve.shelf import Shelf
from timeloupe.serve.thumbnails import Gallery
from timeloupe.serve.video_file import check_video, open_video
from timeloupe.trajectory import Trajectory

IDLE_SECONDS = 30.0
"""A connection that neither asks nor takes what it asked for is closed after so long."""

_CHUNK_BYTES = 1 << 18
_VIDEO = re.compile(r"/video/([0-9]{1,2})/([0-9]{1,7})", re.ASCII)
_JSON = "application/json; charset=utf-8"


class _RefusalError(Exception):
    """A request that gets a status and a sentence instead of what it asked for."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Viewer:
    """What the server shows.

    Attributes:
        shelves: One or two runs.
        pictures: Where pictures of frames come from.
        follow_links: Whether a listed video may be a symbolic link.
    """

    shelves: Sequence[Shelf]
    pictures: PictureDesk = field(default_factory=PictureDesk)
    follow_links: bool = False

    def listing(self) -> dict[str, Any]:
        """Return the list of every run."""
        return {"runs": [list_data(shelf.entries(), shelf.title) for shelf in self.shelves]}

    def episode(self, query: dict[str, str]) -> dict[str, Any]:
        """Return the episode that a query names, with the address of its video or why there is none."""
        run, trajectory = self._find(query)
        video = trajectory.example.video
        number = self.shelves[run].video_number(video)
        data = episode_data(trajectory, Gallery())
        try:
            check_video(self._path(run, number), self.follow_links)
        except VideoError as error:
            return data | {"play": None, "no_play": f"{error.reason}; {error.hint}"}
        return data | {"play": f"/video/{run}/{number}", "no_play": None}

    def frames(self, query: dict[str, str]) -> dict[str, Any]:
        """Return the pictures of the episode that a query names."""
        run, trajectory = self._find(query)
        shelf = self.shelves[run]

        def locate(video: str) -> str:
            path = self._path(run, shelf.video_number(video))
            check_video(path, self.follow_links)
            return path

        return self.pictures.pictures(run, trajectory, locate)

    def _path(self, run: int, number: int | None) -> str:
        path = None if number is None else self.shelves[run].video_path(number)
        if path is None:
            raise VideoError("video", "no record lists it", hint="reload the page")
        return path

    def video(self, run: int, number: int) -> str:
        """Return the path of a video by the number of its run and its own."""
        path = self.shelves[run].video_path(number) if run < len(self.shelves) else None
        if path is None:
            raise _RefusalError(HTTPStatus.NOT_FOUND, "no record lists such a video")
        return path

    def _find(self, query: dict[str, str]) -> tuple[int, Trajectory]:
        run, rollout, step = (query.get(name, "0") for name in ("run", "rollout", "step"))
        if not all(re.fullmatch(r"[0-9]{1,9}", number, re.ASCII) for number in (run, rollout, step)):
            raise _RefusalError(HTTPStatus.BAD_REQUEST, "run, rollout and step are whole numbers")
        found = None
        if int(run) < len(self.shelves):
            found = self.shelves[int(run)].episode((query.get("id", ""), int(rollout), int(step)))
        if found is None:
            raise _RefusalError(HTTPStatus.NOT_FOUND, "the run has no such episode")
        return int(run), found


class ViewerServer(ThreadingHTTPServer):
    """The server; ``serve_forever`` runs it, ``server_close`` ends it.

    Attributes:
        viewer: What it shows.
        guard: Who may ask.
        url: What to open in a browser, token included.
    """

    daemon_threads = True
    request_queue_size = 64
    viewer: Viewer
    guard: Guard
    url: str

    def server_bind(self) -> None:
        """As the base class, without asking a name server who this machine is."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a video is no error; say anything else."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def make_server(
    viewer: Viewer, host: str = "127.0.0.1", port: int = 0, token: str | None = None
) -> ViewerServer:
    """Return a server that is bound and not yet running.

    Args:
        viewer: What it shows.
        host: Address or name to listen at. Wider than loopback, every request needs a token.
        port: Port; 0 = a free one.
        token: The token; ``None`` = none on loopback, a new one elsewhere.

    Raises:
        ConfigError: The host is unknown, or the port is taken or not allowed.
    """
    if not 0 <= port <= 65535:
        raise boundary("--port is not a port", port, "0 (a free one) to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host or "127.0.0.1", port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--host is not known here, got {host!r}: {error}; use 127.0.0.1 or 0.0.0.0"
        ) from error
    wide = not ipaddress.ip_address(str(address[0]).split("%")[0]).is_loopback

    class Server(ViewerServer):
        address_family = family

    try:
        server = Server((str(address[0]), port), _Handler)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen at {host}, port {port}: {reason}; name another --port (0 = a free one)"
        ) from error
    bound = server.server_address[1]
    names = {"localhost", host.lower()}
    if wide:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        token = token or make_token()
    server.viewer = viewer
    server.guard = Guard(frozenset(names), wide, token, f"timeloupe-{bound}")
    anywhere = ipaddress.ip_address(str(address[0]).split("%")[0]).is_unspecified
    shown = socket.gethostname() if anywhere else f"[{host}]" if ":" in host else host
    server.url = f"http://{shown}:{bound}/" + (f"?token={token}" if token else "")
    return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    @property
    def _here(self) -> ViewerServer:
        assert isinstance(self.server, ViewerServer)
        return self.server

    def do_GET(self) -> None:
        try:
            self._answer()
        except _RefusalError as refusal:
            self._send_text(refusal.status, str(refusal))
        except TimeloupeError as error:
            self._send_text(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except (ConnectionError, TimeoutError):
            raise  # nobody is there to be told
        except OSError as error:
            self._send_text(HTTPStatus.INTERNAL_SERVER_ERROR, f"a file cannot be read: {error}")

    do_HEAD = do_GET

    def version_string(self) -> str:
        """The server's name, without the versions that the base class tells everyone."""
        return "timeloupe"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses hold the token, and nobody reads a line per picture."""

    def _answer(self) -> None:
        try:
            parts = urlsplit(self.path)
            fields = parse_qs(parts.query, keep_blank_values=True, max_num_fields=8)
        except ValueError as error:
            raise _RefusalError(
                HTTPStatus.BAD_REQUEST, "the address is none, or has too many fields"
            ) from error
        query = {name: values[-1] for name, values in fields.items()}
        refused = self._here.guard.refusal(self.headers, query.get("token"))  # type: ignore[arg-type]
        if refused is not None:
            raise _RefusalError(*refused)
        viewer = self._here.viewer
        if parts.netloc:  # as a proxy would be asked
            raise _RefusalError(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        if parts.path == "/":
            if "token" in query and self._here.guard.token is not None:
                self._keep_token()
            else:
                self._send(HTTPStatus.OK, served_page().encode(), "text/html; charset=utf-8")
        elif parts.path == "/api/list":
            self._send(HTTPStatus.OK, script_safe_json(viewer.listing()).encode(), _JSON)
        elif parts.path == "/api/episode":
            self._send(HTTPStatus.OK, script_safe_json(viewer.episode(query)).encode(), _JSON)
        elif parts.path == "/api/pictures":
            self._send(HTTPStatus.OK, script_safe_json(viewer.frames(query)).encode(), _JSON)
        elif video := _VIDEO.fullmatch(parts.path):
            self._send_video(viewer.video(int(video[1]), int(video[2])))
        elif parts.path == "/favicon.ico":
            self._send(HTTPStatus.NO_CONTENT, b"", "image/x-icon")
        else:
            raise _RefusalError(HTTPStatus.NOT_FOUND, "there is nothing at this address")

    def _keep_token(self) -> None:
        """Put the token into a cookie and take it out of the address; browsers keep the part behind ``#``."""
        guard = self._here.guard
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"{guard.cookie}={guard.token}; Path=/; HttpOnly; SameSite=Lax")
        self._send_common({"Content-Length": "0", "Cache-Control": "no-store"})

    def _send_text(self, status: HTTPStatus, message: str) -> None:
        self._send(status, (message + "\n").encode("utf-8", "replace"), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        length = {} if status is HTTPStatus.NO_CONTENT else {"Content-Length": str(len(body))}
        self._send_common({"Content-Type": kind, "Cache-Control": "no-store", **length})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_common(self, headers: dict[str, str]) -> None:
        headers |= {
            "Content-Security-Policy": f"{content_policy(served=True)}; frame-ancestors 'none'",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_video(self, path: str) -> None:
        try:
            video = open_video(path, self._here.viewer.follow_links)
        except VideoError as error:
            raise _RefusalError(HTTPStatus.NOT_FOUND, f"{error.reason}; {error.hint}") from error
        with video.file:
            asked = self.headers.get("Range")
            if self.headers.get("If-Range", video.tag) != video.tag:
                asked = None
            headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-cache", "ETag": video.tag}
            try:
                span = read_range(asked, video.size)
            except UnsatisfiableError:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self._send_common(headers | {"Content-Range": f"bytes */{video.size}", "Content-Length": "0"})
                return
            if span is None and self.headers.get("If-None-Match") == video.tag:
                self.send_response(HTTPStatus.NOT_MODIFIED)
                self._send_common(headers)
                return
            start, end = span or (0, video.size)
            headers |= {"Content-Type": video.kind, "Content-Length": str(end - start)}
            if span is not None:
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{video.size}"
            self.send_response(HTTPStatus.OK if span is None else HTTPStatus.PARTIAL_CONTENT)
            self._send_common(headers)
            if self.command != "HEAD":
                self._send_bytes(video.file, start, end)

    def _send_bytes(self, file: BinaryIO, start: int, end: int) -> None:
        """Send a part of a file, or close the connection: with the status sent, no other answer can follow."""
        try:
            file.seek(start)
            while start < end:
                chunk = file.read(min(_CHUNK_BYTES, end - start))
                if not chunk:  # the file was cut while it was sent
                    self.close_connection = True
                    return
                self.wfile.write(chunk)
                start += len(chunk)
        except OSError:
            self.close_connection = True
