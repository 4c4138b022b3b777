"""A process that does nothing but index and decode videos for another one: ``python -m timeloupe.video.worker``.

It answers one request at a time from its standard input on its standard output (:mod:`timeloupe.video.wire`)
and gives a sign of life while it works. It ends when its input is closed, so it never outlives its caller.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

import av.logging

from timeloupe.errors import VideoError
from timeloupe.video.container import FileIdentity, identify, on_sign_of_life
from timeloupe.video.decode import Decoder
from timeloupe.video.index import FrameIndex, load_index
from timeloupe.video.wire import LENGTHS, index_from, index_message, pack

MAX_ADDRESS_BYTES = 4 * 2**30
"""Memory a worker may map; a file that wants more ends in an error and not in a full machine."""

_OPEN_FILES = 4
_BEAT_SECONDS = 0.2


class _Worker:
    """Answers requests; keeps the files it read last open."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source = source
        self._target = target
        self._decoders: OrderedDict[FileIdentity, Decoder] = OrderedDict()
        self._built: FrameIndex | None = None
        self._beat_seconds = _BEAT_SECONDS
        self._last_beat = 0.0

    def run(self) -> None:
        """Answer until the input ends."""
        answers: dict[str, Callable[[dict[str, Any]], None]] = {
            "identify": self._identify,
            "index": self._index,
            "decode": self._decode,
        }
        on_sign_of_life(self._beat)
        self._send({"ready": os.getpid()})
        while (message := self._receive()) is not None:
            request = message[0]
            self._beat_seconds = min(_BEAT_SECONDS, request["deadline_seconds"] / 4)
            try:
                answers[request["do"]](request)
            except VideoError as error:
                self._send({"error": error.fields()})
            except MemoryError:
                allowed = resource.getrlimit(resource.RLIMIT_AS)[0] / 2**30
                reason = f"decoding it takes more memory than the {allowed:.3g} GiB allowed"
                hint = "the file may be damaged or made to exhaust memory; else ask for a smaller size"
                self._send({"error": VideoError(request["path"], reason, hint=hint).fields()})

    def _identify(self, request: dict[str, Any]) -> None:
        self._send({"identity": identify(request["path"])})

    def _index(self, request: dict[str, Any]) -> None:
        self._built = load_index(request["path"])
        self._send(*index_message(self._built))

    def _decode(self, request: dict[str, Any]) -> None:
        width, height = request["size_wh"]
        decoder = self._decoder(request["path"], tuple(request["identity"]))
        before = decoder.frames_decoded
        try:
            for frame, pixels in decoder.decode(request["frames"], (width, height)):
                self._send({"frame": frame}, pixels.data.cast("B"))
        finally:
            self._send({"decoded": decoder.frames_decoded - before})
        self._send({"done": True})

    def _decoder(self, path: str, identity: FileIdentity) -> Decoder:
        decoder = self._decoders.pop(identity, None)
        if decoder is not None and identify(path) != identity:
            decoder.close()  # the file that is open is not the one of that name any more; opening it says so
        if decoder is None:
            index = self._built
            if index is None or index.identity != identity:
                self._send({"need": "index"})
                message = self._receive()
                if message is None:
                    raise SystemExit
                index = index_from(*message, path)
            decoder = Decoder(index, path)
        self._decoders[identity] = decoder
        while len(self._decoders) > _OPEN_FILES:
            self._decoders.popitem(last=False)[1].close()
        return decoder

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._last_beat > self._beat_seconds:
            self._last_beat = now
            self._send({"alive": True})

    def _send(self, header: dict[str, Any], body: bytes | memoryview = b"") -> None:
        self._target.write(pack(header, len(body)))
        self._target.write(body)
        self._target.flush()

    def _receive(self) -> tuple[dict[str, Any], bytes] | None:
        lengths = self._source.read(LENGTHS.size)
        if len(lengths) < LENGTHS.size:
            return None
        header_bytes, body_bytes = LENGTHS.unpack(lengths)
        return json.loads(self._source.read(header_bytes)), self._source.read(body_bytes)


def _end_with_caller() -> None:
    """End this process at once when its input is closed, even in the middle of a decoder's endless loop."""
    poll = select.poll()
    poll.register(0, 0)  # no event asked for: only the hang-up is told
    poll.poll()
    os._exit(0)


def main() -> None:
    """Serve the caller at the other end of standard input and output."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]  # only a privileged process may raise it
    soft = MAX_ADDRESS_BYTES if hard == resource.RLIM_INFINITY else min(MAX_ADDRESS_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to act on
    # Whatever a library prints must not get between the messages.
    target = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_caller, daemon=True).start()
    av.logging.set_level(None)
    try:
        _Worker(os.fdopen(0, "rb", closefd=False), target).run()
    except BrokenPipeError:
        pass  # the caller is gone
    os._exit(0)  # no clean-up of open decoders: it could hang as they can


if __name__ == "__main__":
    main()
