"""A policy that asks any server with OpenAI's chat completions: vLLM, SGLang, ms-swift, hosted ones.

Only the ``openai`` SDK talks to the server, with its own retries and no others. How it reaches the server is in
``openai_http``, what is sent in ``openai_wire``, how a response is read in ``openai_reply``, what a failure is called
in ``openai_errors``.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import openai

from timeloupe.errors import ConfigError, boundary
from timeloupe.model.never_sampled import in_ranges
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.openai_errors import Scrubber, explain, parse_json, said_by_server
from timeloupe.policy.openai_facts import is_there, server_facts
from timeloupe.policy.openai_http import RequestLoop, http_package, make_client, split_url
from timeloupe.policy.openai_reply import BadReply, read_reply
from timeloupe.policy.openai_wire import (
    DEFAULT_REQUEST_BYTES,
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

DEFAULT_TIMEOUT_SECONDS = 600.0
MAX_TIMEOUT_SECONDS = 1e6

NEVER = -100
"""The lowest ``logit_bias`` that servers take; it outweighs any logit."""


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
        timeout_seconds: Limit of one try as a whole, up to its last byte; at most ``MAX_TIMEOUT_SECONDS``.
        max_retries: Of the SDK: connection errors, timeouts, and the status 408, 409, 429 and 5xx.
        concurrency: Requests of a batch under way at the same time.
        logprobs: Ask for token ids and log-probabilities; a server that does not give both leaves them out.
        never_sample: Token ids that the server must not sample, sent as ``logit_bias``: those that a local policy bans.
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
        max_request_bytes: int = DEFAULT_REQUEST_BYTES,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        max_retries: int = 2,
        concurrency: int = 8,
        logprobs: bool = False,
        never_sample: Sequence[int] = (),
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
        if not 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS:
            raise boundary("timeout", timeout_seconds, f"seconds > 0, at most {MAX_TIMEOUT_SECONDS:,.0f}")
        _check_sendable(model, name, extra_body)
        self.form = WireForm(
            send, check_time_format(time_format), image_format, jpeg_quality, max_request_bytes
        )
        self.url, headers, secrets = split_url(base_url)
        self.timeout_seconds = timeout_seconds
        self.max_retries = max_retries
        self.concurrency = concurrency
        self.logprobs = logprobs
        key = _checked_key(api_key)
        self._scrub = Scrubber([key, *secrets])
        self._reach = {"url": self.url, "api_key": key, "headers": headers, "max_retries": max_retries,
                       "timeout_seconds": timeout_seconds}  # fmt: skip
        reach = self._reach
        self._requests = RequestLoop(lambda: make_client(**reach))
        self._extra = dict(extra_body or {})
        self._never_sample = tuple(never_sample)
        self._model = model
        self._given_name = name
        self._limit_key = "max_tokens"
        self._store = PictureStore()
        self.answered = False

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
        if self._never_sample:
            found["never_sample"] = in_ranges(self._never_sample)
        found |= {"logprobs": self.logprobs, "extra_body": self._extra, "limit_key": self._limit_key}
        return self._scrub.tree(found)

    def server_facts(self) -> dict[str, Any]:
        """Return what the server says of itself: ``name``, ``version``, ``model``; ``None`` for what it does not."""
        found = self._requests.run(lambda _: server_facts(self._reach, self._model, self._scrub))
        self.answered |= any(found.values())
        return found

    def is_there(self) -> bool:
        """Return whether the server answers now; it has ``openai_facts.FACTS_SECONDS``."""
        there = self._requests.run(lambda _: is_there(self._reach))
        self.answered |= there
        return there

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one generation per request, in order; a machine's fault is ``finish="error"``.

        An interrupt ends the requests under way and starts no other.

        Raises:
            ConfigError: A request is wrong in itself, or no model was named and the server has several.
        """
        for request in requests:
            check_request(request)
        if not requests:
            return []
        return self._requests.run(lambda client: self._ask_all(client, requests))

    async def _ask_all(
        self, client: openai.AsyncOpenAI, requests: Sequence[GenerationRequest]
    ) -> list[Generation]:
        try:
            async with asyncio.timeout(_left(requests)):
                error = await self._find_model(client)
        except TimeoutError:
            error = f"{self.url} did not list its models in time"
        if error is not None:
            return [Generation(text="", finish="error", error=error) for _ in requests]
        room = asyncio.Semaphore(self.concurrency)
        return await asyncio.gather(*(self._ask(client, request, room) for request in requests))

    async def _find_model(self, client: openai.AsyncOpenAI) -> str | None:
        """Set the model if none was named; return why it cannot be found out, or ``None``."""
        if self._model is not None:
            return None
        try:
            served = await self._served_models(client)
        except Exception as error:  # the machine's fault becomes a value
            return await self._explain(client, error)
        if len(served) > 1:
            raise ConfigError(
                f"{self.url} serves {len(served)} models, name one with --model: {', '.join(sorted(served))}"
            )
        if not served:
            return f"{self.url} lists no model; name the one to ask with --model"
        self._model = served[0]
        return None

    async def _served_models(self, client: openai.AsyncOpenAI) -> list[str]:
        body = self._parsed((await client.models.with_raw_response.list()).text)
        rows = body.get("data") if isinstance(body, dict) else None
        if not isinstance(rows, list):
            said = said_by_server(json.dumps(body), self._scrub)
            raise BadReply(f"{self.url} has no list of models: {said}")
        return [str(row["id"]) for row in rows if isinstance(row, dict) and row.get("id")]

    async def _ask(
        self, client: openai.AsyncOpenAI, request: GenerationRequest, room: asyncio.Semaphore
    ) -> Generation:
        """Return the generation of one request."""
        async with room:
            start = time.perf_counter()
            try:
                async with asyncio.timeout(_left([request])):
                    generation = await self._send(client, request)
            except TimeoutError:
                seconds = time.perf_counter() - start
                said = f"no answer from {self.url} in the {seconds:.1f} s that were left"
                generation = Generation(text="", finish="error", error=said)
            except Exception as error:  # the machine's fault becomes a value
                generation = Generation(text="", finish="error", error=await self._explain(client, error))
        # Scrubbed once more: a text may be put together from pieces.
        return generation.model_copy(
            update={"text": self._scrub(generation.text), "seconds": time.perf_counter() - start}
        )

    async def _send(self, client: openai.AsyncOpenAI, request: GenerationRequest) -> Generation:
        assert self._model is not None
        limit_key = self._limit_key
        # Pictures are encoded elsewhere: the loop has the clocks of the requests under way.
        body = await asyncio.to_thread(
            build_body, request, self._model, self.form, self._store, limit_key=limit_key
        )
        if self.logprobs:
            body |= {"logprobs": True, "return_tokens_as_token_ids": True}
        if self._never_sample:
            body["logit_bias"] = {str(id): NEVER for id in self._never_sample}
        body |= self._extra
        try:
            response = await _post(client, body)
        except openai.BadRequestError as error:
            if limit_key != "max_tokens" or "max_completion_tokens" not in error.response.text:
                raise
            self._limit_key = "max_completion_tokens"
            body[self._limit_key] = body.pop("max_tokens")
            response = await _post(client, body)
        self.answered = True
        return read_reply(self._parsed(response), stop=request.sampling.stop, logprobs=self.logprobs)

    def _parsed(self, text: str) -> Any:
        """Return the JSON of a response without secrets."""
        try:
            return parse_json(text, self._scrub)
        except ValueError:
            said = said_by_server(text, self._scrub)
            raise BadReply(f"the answer is not JSON: {said}; does --base-url end in /v1?") from None

    async def _explain(self, client: openai.AsyncOpenAI, error: Exception) -> str:
        if isinstance(error, BadReply | RequestTooLarge):
            return self._scrub(str(error))
        text = explain(
            error, url=self.url, model=self._model or "", timeout_seconds=self.timeout_seconds,
            num_tries=self.max_retries + 1, scrub=self._scrub,
        )  # fmt: skip
        if isinstance(error, openai.NotFoundError):
            text += await self._models_hint(client)
        return text

    async def _models_hint(self, client: openai.AsyncOpenAI) -> str:
        try:
            served = await self._served_models(client)
        except Exception:  # the first error is the one to tell
            return ""
        return f"; it serves: {', '.join(served[:20]) or 'nothing'}"


def _left(requests: Sequence[GenerationRequest]) -> float | None:
    """Return the seconds until none of the requests is of use any more, ``None`` = no end; negative = over."""
    ends = [request.give_up_at for request in requests if request.give_up_at is not None]
    return max(ends) - time.perf_counter() if len(ends) == len(requests) else None


async def _post(client: openai.AsyncOpenAI, body: dict[str, Any]) -> str:
    """Return the text of the response.

    By the SDK's own requests and retries, but not by its typed ``create``: that knows a part of what servers take, and
    looking through a chat's pictures for files to convert cost more than all else of a turn here.
    """
    return (await client.post("/chat/completions", cast_to=http_package.Response, body=body)).text


def _check_sendable(model: str | None, name: str | None, extra_body: Mapping[str, Any] | None) -> None:
    if model is not None and not model.strip():
        raise boundary("--model", model, "the name of a served model, or none for the only one there")
    for what, value in (("--model", model), ("name", name), ("extra_body", extra_body)):
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, TypeError):
            raise boundary(what, value, "Unicode text or JSON of it") from None


def _checked_key(api_key: str | None) -> str:
    if api_key is not None and (not api_key.isascii() or not api_key.isprintable() or " " in api_key):
        raise ConfigError("the API key holds a blank or a character outside ASCII, copy it again")
    return api_key or ""
