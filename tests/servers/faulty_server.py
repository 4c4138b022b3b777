"""The stub server of ``local_server`` with one fault of the kind that real servers have; see ``FAULTS``.

``python -m tests.servers.faulty_server --fault NAME`` prints its base URL as soon as it listens.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import socket
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import uvicorn

from tests.servers import local_server
from tests.servers.local_server import Manners, Stub, make_app
from timeloupe.model.layout import Layout
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import load_small_policy
from timeloupe.trajectory import FrameRef, Message, Part, Text
from timeloupe.video.clip_file import clock_of, ticks_of

OWN_CLOCK = 24
"""Ticks a second of a server that does not listen."""

MOST_FRAMES = 8
"""Frames that a server reads which drops the rest."""

Chat = tuple[list[Message], list[np.ndarray]]


def ignore_clock(messages: list[Message], clips: list[np.ndarray]) -> Chat:
    """Frame numbers are read with a clock of the server's own (videos only)."""
    return _retimed(messages, lambda times: [tick / OWN_CLOCK for tick in _ticks(times)]), clips


def count_frames(messages: list[Message], clips: list[np.ndarray]) -> Chat:
    """Numbers of frames stand where seconds should: a video's ticks, an image's place in the request."""
    numbers = itertools.count()
    shown = [
        message.model_copy(update={"parts": tuple(
            Text(text=f"{next(numbers)}") if _is_time(part, after) else part
            for part, after in _pairs(message)
        )})
        for message in messages
    ]  # fmt: skip
    return _retimed(shown, lambda times: [float(tick) for tick in _ticks(times)]), clips


def drop_times(messages: list[Message], clips: list[np.ndarray]) -> Chat:
    """The text before a picture is lost; a video's times are by ``Faulty``, whose model prints none."""
    return [
        message.model_copy(update={"parts": tuple(
            part for part, after in _pairs(message) if not _is_time(part, after)
        )})
        for message in messages
    ], clips  # fmt: skip


def reverse(messages: list[Message], clips: list[np.ndarray]) -> Chat:
    """The pictures of a request, or the frames of each video, come in reverse."""
    if all(len(clip) == 1 for clip in clips):
        return messages, clips[::-1]
    return messages, [clip[::-1] for clip in clips]


def drop_frames(messages: list[Message], clips: list[np.ndarray]) -> Chat:
    """Only the first frames of a request are read."""
    left, kept = MOST_FRAMES, []
    shown: list[Message] = []
    found = iter(clips)
    for message in messages:
        parts: list[Part] = []
        for part in message.parts:
            if isinstance(part, FrameRef):
                clip = next(found)[:left]
                left -= len(clip)
                if not len(clip):
                    continue
                kept.append(clip)
                part = part.model_copy(update={"at_seconds": part.at_seconds[: len(clip)]})
            parts.append(part)
        shown.append(message.model_copy(update={"parts": tuple(parts)}))
    return shown, kept


def _pairs(message: Message) -> list[tuple[Part, Part | None]]:
    return list(zip(message.parts, (*message.parts[1:], None), strict=True))


def _is_time(part: Part, after: Part | None) -> bool:
    """Whether a text is the time that stands before an image; a question ends with a new line."""
    is_image = isinstance(after, FrameRef) and after.view == "image"
    return isinstance(part, Text) and is_image and not part.text.endswith("\n")


def _ticks(times: tuple[float, ...]) -> list[int]:
    return ticks_of(times, clock_of(times))


def _retimed(messages: list[Message], change: Callable[[tuple[float, ...]], list[float]]) -> list[Message]:
    return [
        message.model_copy(update={"parts": tuple(
            part.model_copy(update={"at_seconds": tuple(change(part.at_seconds)), "end_seconds": 1e6})
            if isinstance(part, FrameRef) and part.view != "image" else part
            for part in message.parts
        )})
        for message in messages
    ]  # fmt: skip


FAULTS: dict[str, Callable[[list[Message], list[np.ndarray]], Chat]] = {
    "clock_ignored": ignore_clock,
    "indices_for_seconds": count_frames,
    "times_dropped": drop_times,
    "order_reversed": reverse,
    "frames_dropped": drop_frames,
}
"""Faults that change what the model is shown."""

NAMES = (*FAULTS, "stop_stripped", "seed_ignored", "none")


class Faulty(Stub):
    """The server's state, with a fault that can be changed."""

    def __init__(self) -> None:
        super().__init__(Manners())
        self.policy = self.honest = load_small_policy()[0]
        layout: Layout = dataclasses.replace(self.honest.loaded.layout, timestamp_format="")
        loaded = dataclasses.replace(self.honest.loaded, layout=layout)
        self.timeless = LocalPolicy(loaded, name="small")
        self.seeds = itertools.count(1)
        self.read_messages = local_server.read_messages
        self.set("none", False)

    def set(self, fault: str, bare: bool) -> None:
        """Have a fault from now on; ``bare`` = give neither usage nor log-probabilities."""
        assert fault in NAMES, fault
        self.fault, self.bare = fault, bare
        self.manners = Manners(stops="strip" if fault == "stop_stripped" else "keep")
        self.policy = self.timeless if fault == "times_dropped" else self.honest
        change = FAULTS.get(fault, lambda messages, clips: (messages, clips))
        cast(Any, local_server).read_messages = lambda *sent: change(*self.read_messages(*sent))

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.fault == "seed_ignored":
            body = body | {"seed": next(self.seeds)}
        found = super().reply(body)
        if self.bare:
            found.pop("usage")
            found["choices"][0]["logprobs"] = None
        return found


def main() -> None:
    """Run the server until it is killed; ``POST /fault`` changes its fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=NAMES, default="none")
    parser.add_argument("--bare", action="store_true", help="neither usage nor log-probabilities")
    flags = parser.parse_args()
    server = Faulty()
    server.set(flags.fault, flags.bare)
    app = make_app(server)

    @app.post("/fault")
    def change(fault: dict[str, Any]) -> dict[str, Any]:
        server.set(fault["fault"], fault["bare"])
        return {}

    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])


if __name__ == "__main__":
    main()
