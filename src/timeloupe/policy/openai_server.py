"""A policy that asks any server with OpenAI's chat completions: vLLM, SGLang, ms-swift, hosted ones.

Only the ``openai`` SDK talks to the server: its retries and its timeouts, nothing on top. What is sent is in
``openai_wire``, how a response is read in ``openai_reply``, what a failure is called in ``openai_errors``.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast, get_args
from urllib.parse import unquote, urlsplit

import openai

from timeloupe.errors import ConfigError, boundary
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.openai_errors import Scrubber, explain, said_by_server
from timeloupe.policy.openai_reply import BadReply, read_reply
from timeloupe.policy.openai_wire import (
    ImageFormat,
    PictureStore,
    RequestTooLarge,
    SendForm,
    WireForm,
    build_body,
    check_request,
)
from timeloupe.prompt.frames_as_images import DEFAULT_TIME_FORMAT, check_time_format
from timeloupe.trajectory import Generation

NO_KEY = "no-key"
"""Sent where there is no key: the SDK demands one, and a local server does not look at it."""

DEFAULT_TIMEOUT_SECONDS = 600.0
CONNECT_SECONDS = 30.0


class OpenAIPolicy:
    """Plays with a served model.

    Args:
        base_url: Such as ``http://localhost:8000/v1``. A user and password in it are sent as basic authorisation.
        model: The served name; ``None`` = the only one that the server has.
        api_key: Sent as bearer token; ``None`` = a placeholder.
        send: ``images`` = every frame is a picture after its time, ``video`` = a clip is a video (vLLM).
        time_format: How a frame's time is printed (``images`` only).
        image_format: ``jpeg`` or ``png``.
        jpeg_quality: 1 to 95.
        max_request_bytes: A request with more bytes of text and pixels is not sent.
        timeout_seconds: Limit of one try.
        max_retries: Of the SDK: connection errors, timeouts, and the status 408, 409, 429 and 5xx.
        concurrency: Requests of a batch under way at the same time.
        logprobs: Ask for token ids and log-probabilities; a server that does not give both leaves them out.
        extra_body: Further fields of every request.
        name: Name in records; default ``openai:`` and the model.

    The key and the password appear in no record, error or representation, also if a server repeats them.

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        send: SendForm = "images",
        time_format: str = DEFAULT_TIME_FORMAT,
        image_format: ImageFormat = "jpeg",
        jpeg_quality: int = 90,
        max_request_bytes: int = 64 * 2**20,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 2,
        concurrency: int = 8,
        logprobs: bool = False,
        extra_body: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        if send not in get_args(SendForm):
            raise boundary("send", send, get_args(SendForm))
        if image_format not in get_args(ImageFormat):
            raise boundary("image format", image_format, get_args(ImageFormat))
        if not 1 <= jpeg_quality <= 95:
            raise boundary("JPEG quality", jpeg_quality, "1 to 95")
        for what, value, low in (
            ("concurrency", concurrency, 1), ("retries", max_retries, 0), ("max_request_bytes", max_request_bytes, 1),
        ):  # fmt: skip
            if value < low:
                raise boundary(what, value, f">= {low}")
        if not 0 < timeout_seconds < float("inf"):
            raise boundary("timeout", timeout_seconds, "seconds > 0")
        self.form = WireForm(
            send, check_time_format(time_format), image_format, jpeg_quality, max_request_bytes
        )
        self.url, headers, secrets = split_url(base_url)
        self.timeout_seconds = timeout_seconds
        self.max_retries = max_retries
        self.concurrency = concurrency
        self.logprobs = logprobs
        self._scrub = Scrubber([_checked_key(api_key), *secrets])
        self._extra = dict(extra_body or {})
        self._model = model
        self._given_name = name
        self._limit_key = "max_tokens"
        self._lock = threading.Lock()
        self._store = PictureStore()
        self._client = openai.OpenAI(
            base_url=self.url, api_key=api_key or NO_KEY, max_retries=max_retries, default_headers=headers,
            timeout=openai.Timeout(timeout_seconds, connect=min(timeout_seconds, CONNECT_SECONDS)),
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Short name for records; without the model as long as that is not known."""
        return self._given_name or (f"openai:{self._scrub(self._model)}" if self._model else "openai")

    @property
    def settings(self) -> dict[str, Any]:
        """How requests are made, beside what the record holds anyway: JSON, without secrets."""
        form = self.form
        found: dict[str, Any] = {"base_url": self.url, "model": self._model, "send": form.send}
        if form.send == "images":
            found["time_format"] = form.time_format
        found["image_format"] = form.image_format
        if form.image_format == "jpeg":
            found["jpeg_quality"] = form.jpeg_quality
        found |= {"logprobs": self.logprobs, "extra_body": self._extra, "limit_key": self._limit_key}
        return json.loads(self._scrub(json.dumps(found)))

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one generation per request, in order; a machine's fault is ``finish="error"``.

        Raises:
            ConfigError: A request is wrong in itself, or no model was named and the server has several.
        """
        for request in requests:
            check_request(request)
        if not requests:
            return []
        error = self._find_model()
        if error is not None:
            return [Generation(text="", finish="error", error=error) for _ in requests]
        if len(requests) == 1:
            return [self._ask(requests[0])]
        pool = ThreadPoolExecutor(min(self.concurrency, len(requests)))
        try:
            return list(pool.map(self._ask, requests))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # an interrupted batch starts no further request

    def _find_model(self) -> str | None:
        """Set the model if none was named; return why it cannot be found out, or ``None``."""
        if self._model is not None:
            return None
        try:
            served = self._served_models()
        except Exception as error:  # the machine's fault becomes a value
            return self._explain(error)
        if len(served) > 1:
            raise ConfigError(
                f"{self.url} serves {len(served)} models, name one with --model: {', '.join(sorted(served))}"
            )
        if not served:
            return f"{self.url} lists no model; name the one to ask with --model"
        self._model = served[0]
        return None

    def _served_models(self) -> list[str]:
        body = _parsed(self._client.models.with_raw_response.list().text)
        rows = body.get("data") if isinstance(body, dict) else None
        if not isinstance(rows, list):
            raise BadReply(f"{self.url} has no list of models: {said_by_server(json.dumps(body))}")
        return [self._scrub(str(row["id"])) for row in rows if isinstance(row, dict) and row.get("id")]

    def _ask(self, request: GenerationRequest) -> Generation:
        """Return the generation of one request."""
        start = time.perf_counter()
        try:
            generation = self._send(request)
        except Exception as error:  # the machine's fault becomes a value
            generation = Generation(text="", finish="error", error=self._explain(error))
        return generation.model_copy(
            update={"text": self._scrub(generation.text), "seconds": time.perf_counter() - start}
        )

    def _send(self, request: GenerationRequest) -> Generation:
        assert self._model is not None
        limit_key = self._limit_key
        body = build_body(request, self._model, self.form, self._store, limit_key=limit_key)
        if self.logprobs:
            body |= {"logprobs": True, "return_tokens_as_token_ids": True}
        body |= self._extra
        try:
            response = self._post(body)
        except openai.BadRequestError as error:
            if limit_key != "max_tokens" or "max_completion_tokens" not in error.response.text:
                raise
            self._limit_key = "max_completion_tokens"
            body[self._limit_key] = body.pop("max_tokens")
            response = self._post(body)
        return read_reply(_parsed(response), stop=request.sampling.stop, logprobs=self.logprobs)

    def _post(self, body: dict[str, Any]) -> str:
        """Return the text of the response; the SDK's typed arguments are a part of what servers take."""
        messages, model = body["messages"], body["model"]
        rest = {key: value for key, value in body.items() if key not in ("messages", "model")}
        create = self._client.chat.completions.with_raw_response.create
        return create(messages=cast(Any, messages), model=model, extra_body=rest).text

    def _explain(self, error: Exception) -> str:
        if isinstance(error, BadReply | RequestTooLarge):
            return self._scrub(str(error))
        text = explain(
            error, url=self.url, model=self._model or "", timeout_seconds=self.timeout_seconds,
            num_tries=self.max_retries + 1, scrub=self._scrub,
        )  # fmt: skip
        if isinstance(error, openai.NotFoundError):
            text += self._models_hint()
        return text

    def _models_hint(self) -> str:
        try:
            served = self._served_models()
        except Exception:  # the first error is the one to tell
            return ""
        return f"; it serves: {', '.join(served[:20]) or 'nothing'}"


def split_url(base_url: str) -> tuple[str, dict[str, str], list[str]]:
    """Return the URL without user and password, the headers that carry these, and what must not be shown.

    Raises:
        ConfigError: It is no http or https URL, or it has a query; the message shows neither user nor password.
    """
    try:
        parts = urlsplit(base_url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        shown = base_url.rpartition("@")[2].partition("?")[0]
        raise boundary(
            "--base-url", shown, "http(s)://HOST[:PORT]/v1 without a query", "as http://localhost:8000/v1"
        )
    where = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{where}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
    if parts.username is None and parts.password is None:
        return url, {}, []
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    basic = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    secrets = [basic, f"{user}:{password}", password, parts.password or ""]
    return url, {"Authorization": f"Basic {basic}"}, secrets if password else [basic, user]


def _checked_key(api_key: str | None) -> str:
    if api_key is not None and (not api_key.isascii() or not api_key.isprintable() or " " in api_key):
        raise ConfigError("the API key holds a blank or a character outside ASCII, copy it again")
    return api_key or ""


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadReply(
            f"the answer is not JSON: {said_by_server(text)}; does --base-url end in /v1?"
        ) from None
