"""A chat with pixels as the body of a chat-completion request: pure functions, and a bounded store of pictures.

Two forms of a clip:

``images``
    Every frame is an ``image_url`` data URI after a text with its time. Every server with pictures reads it.
``video``
    A clip is one ``video_url``. Alone in a request it is ``data:video/jpeg;base64,FRAME,FRAME,...`` (frames may be
    PNG) with ``media_io_kwargs``: ``fps`` is the clock of ``video.clip_file.clock_of`` and ``frames_indices`` the
    frames' times in its ticks, so that index / fps is the true time of each frame; plain vLLM reads that. It applies
    these arguments to ALL videos of a request, so two or more clips go as files of the same pictures that carry their
    own times (``video.clip_file``); a server needs timeloupe beside it to read them.
"""

from __future__ import annotations

import base64
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from timeloupe.errors import ConfigError
from timeloupe.policy.base import GenerationRequest, refuse_prefix
from timeloupe.prompt.frames_as_images import DEFAULT_TIME_FORMAT, check_clips, image_parts
from timeloupe.trajectory import FrameRef, Message, Text
from timeloupe.video.clip_file import MIME_TYPE, clock_of, encode_clip, ticks_of
from timeloupe.video.image import to_jpeg, to_png

SendForm = Literal["images", "video"]
ImageFormat = Literal["jpeg", "png"]

VIDEO_LOADER = "timeloupe"
"""Name of the vLLM video loader that reads clip files."""

MAX_STOPS = 4
"""Stop strings that a request may hold; hosted servers refuse more."""

SEED_MASK = 2**31 - 1
"""Seeds are cut to 31 bits: some servers hold them in a signed 32-bit number."""

DEFAULT_STORE_BYTES = 256 * 2**20
DEFAULT_REQUEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class WireForm:
    """How frames are sent.

    Attributes:
        send: ``images`` or ``video``.
        time_format: How a frame's time is printed before it (``images`` only).
        image_format: Of every picture, also in clip files.
        jpeg_quality: 1 to 95.
        max_request_bytes: Limit of a request's pixels and text as sent, in bytes.
    """

    send: SendForm = "images"
    time_format: str = DEFAULT_TIME_FORMAT
    image_format: ImageFormat = "jpeg"
    jpeg_quality: int = 90
    max_request_bytes: int = DEFAULT_REQUEST_BYTES


class RequestTooLarge(Exception):
    """A request has more bytes than allowed; says how many frames and bytes."""


class PictureStore:
    """Encoded clips in base64, kept while their pixels live and as long as there is room.

    A clip is the same clip as long as it is the same array, which must not be written to: the turns and roll-outs of a
    batch share the arrays of their views, so each is encoded once.

    Args:
        max_bytes: Room; the clip that was used least recently goes first.
    """

    def __init__(self, max_bytes: int = DEFAULT_STORE_BYTES) -> None:
        self.max_bytes = max_bytes
        self.num_encoded = 0
        self._bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str], tuple[weakref.ref[np.ndarray], tuple[str, ...]]] = (
            OrderedDict()
        )

    def get(self, clip: np.ndarray, kind: str, encode: Callable[[], Sequence[bytes]]) -> tuple[str, ...]:
        """Return the base64 texts of a clip in one form, encoding it if it is not here."""
        key = (id(clip), kind)
        with self._lock:  # one thread encodes, the others of the batch wait and find it
            found = self._kept.get(key)
            if found is not None and found[0]() is clip:
                self._kept.move_to_end(key)
                return found[1]
            texts = tuple(base64.b64encode(data).decode("ascii") for data in encode())
            self.num_encoded += 1
            if found is not None:
                self._drop(key)
            self._kept[key] = (weakref.ref(clip), texts)
            self._bytes += _size(texts)
            for other in [one for one, (ref, _) in self._kept.items() if ref() is None]:
                self._drop(other)
            while self._bytes > self.max_bytes:
                self._drop(next(iter(self._kept)))
            return texts

    def _drop(self, key: tuple[int, str]) -> None:
        self._bytes -= _size(self._kept.pop(key)[1])


def _size(texts: Sequence[str]) -> int:
    return sum(len(text) for text in texts)


def build_body(
    request: GenerationRequest,
    model: str,
    form: WireForm,
    store: PictureStore,
    *,
    limit_key: str = "max_tokens",
) -> dict[str, Any]:
    """Return the JSON body of a request, but for what a caller adds.

    Args:
        request: The turn to generate.
        model: The served model's name.
        form: How frames are sent.
        store: Encoded pictures of earlier requests.
        limit_key: What the server calls the limit of new tokens.

    Raises:
        ConfigError: Clips and views do not match, an assistant message holds frames, or there are too many stop
            strings.
        RequestTooLarge: It would have more bytes than allowed.
    """
    check_request(request)
    sampling = request.sampling
    pen = _Pen(request, form, store)
    body: dict[str, Any] = {
        "model": model,
        "messages": [pen.message(message) for message in request.messages],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": request.seed & SEED_MASK,
        limit_key: sampling.max_new_tokens,
    }
    if sampling.top_k > 0:
        body["top_k"] = sampling.top_k
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if pen.media_io:
        body["media_io_kwargs"] = {"video": pen.media_io}
    return body


def check_request(request: GenerationRequest) -> None:
    """Do nothing if a request is right in itself.

    Raises:
        ConfigError: As ``build_body``.
    """
    refuse_prefix([request], "openai")
    check_clips(request.messages, request.clips)
    if any(message.role == "assistant" and message.frame_refs for message in request.messages):
        raise ConfigError("an assistant message holds frames: only system and user messages can show them")
    if len(request.sampling.stop) > MAX_STOPS:
        raise ConfigError(
            f"{len(request.sampling.stop)} stop strings, a served model takes at most {MAX_STOPS}: use a protocol "
            f"with fewer"
        )


class _Pen:
    """Writes the messages of one request and counts its bytes."""

    def __init__(self, request: GenerationRequest, form: WireForm, store: PictureStore) -> None:
        self.form = form
        self.store = store
        self.clips = iter(request.clips)
        refs = [ref for message in request.messages for ref in message.frame_refs]
        self.num_frames = sum(len(ref.at_seconds) for ref in refs)
        self.num_videos = sum(ref.view != "image" for ref in refs)
        self.num_bytes = 0
        self.media_io: dict[str, Any] = {}

    def message(self, message: Message) -> dict[str, Any]:
        parts = [one for part in message.parts for one in self.part(part)]
        if all(part["type"] == "text" for part in parts):
            return {"role": message.role, "content": "".join(part["text"] for part in parts)}
        return {"role": message.role, "content": parts}

    def part(self, part: Text | FrameRef) -> list[dict[str, Any]]:
        if isinstance(part, Text):
            return [self.text(part.text)]
        clip = next(self.clips)
        if self.form.send == "video" and part.view != "image":
            return [self.video(part, clip)]
        pictures = iter(self.pictures(clip))
        return [
            self.text(one.text) if isinstance(one, Text) else self.media("image", self.uri(next(pictures)))
            for one in image_parts(part, self.form.time_format)
        ]

    def text(self, text: str) -> dict[str, Any]:
        self.count(len(text.encode()))
        return {"type": "text", "text": text}

    def media(self, kind: str, url: str) -> dict[str, Any]:
        return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}

    def uri(self, picture: str) -> str:
        self.count(len(picture))
        return f"data:image/{self.form.image_format};base64,{picture}"

    def video(self, ref: FrameRef, clip: np.ndarray) -> dict[str, Any]:
        if self.num_videos > 1:
            at_seconds = ref.at_seconds
            quality = None if self.form.image_format == "png" else self.form.jpeg_quality
            (data,) = self.store.get(
                clip, f"clip {quality} {at_seconds}",
                lambda: [encode_clip(clip, at_seconds, jpeg_quality=quality)],
            )  # fmt: skip
            self.count(len(data))
            self.media_io = {"video_backend": VIDEO_LOADER}
            return self.media("video", f"data:{MIME_TYPE};base64,{data}")
        clock = clock_of(ref.at_seconds)
        ticks = ticks_of(ref.at_seconds, clock)
        self.media_io = {
            "num_frames": -1, "fps": clock, "frames_indices": ticks, "total_num_frames": ticks[-1] + 1,
            "do_sample_frames": False,
        }  # fmt: skip
        pictures = self.pictures(clip)
        self.count(_size(pictures))
        return self.media("video", f"data:video/jpeg;base64,{','.join(pictures)}")

    def pictures(self, clip: np.ndarray) -> tuple[str, ...]:
        quality = self.form.jpeg_quality
        if self.form.image_format == "png":
            return self.store.get(clip, "png", lambda: [to_png(picture) for picture in clip])
        return self.store.get(
            clip, f"jpeg {quality}", lambda: [to_jpeg(picture, quality) for picture in clip]
        )

    def count(self, num_bytes: int) -> None:
        self.num_bytes += num_bytes
        if self.num_bytes > self.form.max_request_bytes:
            smaller = ", send jpeg (--image-format)" if self.form.image_format == "png" else ""
            raise RequestTooLarge(
                f"the request is too large to send: {self.num_frames} frames as {self.form.image_format} have more "
                f"than {self.form.max_request_bytes} bytes; show fewer (--frames) or smaller ones{smaller}, or raise "
                f"the limit (--max-request)"
            )
