"""A real HTTP server with OpenAI's chat completions over the embedded small model, with the manners of other servers.

``python -m tests.servers.local_server --port 0`` prints its base URL as soon as it listens. Requests are turned back
into messages and clips, so that a local policy plays; the switches bend the replies as servers in the wild do.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image

from timeloupe.policy.base import GenerationRequest, Sampling
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import load_small_policy
from timeloupe.trajectory import FrameRef, Generation, Message, Text
from timeloupe.video.clip_file import MIME_TYPE, decode_clip

MODEL = "small"


@dataclass
class Manners:
    """How the server behaves; see the flags."""

    stops: str = "strip"
    reasoning: bool = False
    tools: bool = False
    key: str | None = None
    models: list[str] = field(default_factory=lambda: [MODEL])
    mode: str = "fine"
    failures: int = 0
    clip_files: bool = True
    limit_key: str = "max_tokens"
    free: bool = False
    biased: bool = True


class Stub:
    """The server's state: the policy, its manners, and what was asked."""

    def __init__(self, manners: Manners) -> None:
        self.manners = manners
        self.policy: LocalPolicy | None = None  # loaded when it is first asked: most failures need none
        self.lock = threading.Lock()
        self.requests: list[dict[str, Any]] = []

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the response of a request."""
        video = (body.get("media_io_kwargs") or {}).get("video")
        messages, clips = read_messages(body["messages"], video)
        stop = tuple(body.get("stop", ())) if self.manners.stops != "ignore" else ()
        sampling = Sampling(
            temperature=body["temperature"], top_p=body["top_p"], top_k=body.get("top_k", 0),
            max_new_tokens=body[self.manners.limit_key], stop=stop,
        )  # fmt: skip
        request = GenerationRequest(
            messages=tuple(messages), clips=tuple(clips), seed=body["seed"], sampling=sampling
        )
        with self.lock:
            self.policy = self.policy or load_small_policy()[0]
            if self.manners.free:  # nothing is banned but what the request bans, as on a server
                ids = [int(id) for id, bias in body.get("logit_bias", {}).items() if bias <= -100]
                self.policy.banned_V = torch.zeros_like(self.policy.banned_V)
                self.policy.banned_V[ids] = True
            generation = self.policy.generate([request])[0]
        assert generation.finish != "error", generation.error
        return response_of(generation, body, stop, self.manners)


def read_messages(
    found: list[dict[str, Any]], video: dict[str, Any] | None
) -> tuple[list[Message], list[np.ndarray]]:
    """Return the chat of a request, and the pixels of its pictures and videos."""
    messages: list[Message] = []
    clips: list[np.ndarray] = []
    for message in found:
        content = message["content"]
        parts: list[Text | FrameRef] = []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                parts.append(Text(text=part["text"]))
                continue
            pixels, at_seconds = read_media(part[part["type"]]["url"], video)
            clips.append(pixels)
            parts.append(
                FrameRef(
                    video="sent", view="image" if part["type"] == "image_url" else "skim",
                    start_seconds=0, end_seconds=at_seconds[-1], at_seconds=at_seconds,
                    size_wh=(pixels.shape[2], pixels.shape[1]),
                )
            )  # fmt: skip
        messages.append(Message(role=message["role"], parts=tuple(parts)))
    return messages, clips


def read_media(url: str, video: dict[str, Any] | None) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return pixels and times of a data URI, as vLLM with our loader reads it; it takes nothing that vLLM would not."""
    head, _, data = url.partition(",")
    kind = re.fullmatch(r"data:([\w/.+-]+);base64", head)
    assert kind is not None, head
    if kind[1].startswith("image/"):
        return read_picture(data)[None], (0.0,)
    assert video is not None, "a video without media_io_kwargs"
    if kind[1] == "video/jpeg":
        pixels = np.stack([read_picture(one) for one in data.split(",")])
        ticks = video["frames_indices"]
        assert video["num_frames"] == -1 and video["do_sample_frames"] is False
        assert len(ticks) == len(pixels) and all(isinstance(tick, int) for tick in ticks)
        assert video["total_num_frames"] >= max(len(ticks), ticks[-1] + 1)
        return pixels, tuple(tick / float(video["fps"]) for tick in ticks)
    assert kind[1] == MIME_TYPE and video == {"video_backend": "timeloupe"}
    return decode_clip(base64.b64decode(data, validate=True))


def read_picture(data: str) -> np.ndarray:
    """Return the pixels (H, W, 3) of base64 PNG or JPEG."""
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
        return np.asarray(picture.convert("RGB"))


def response_of(
    generation: Generation, body: dict[str, Any], stop: tuple[str, ...], manners: Manners
) -> dict[str, Any]:
    """Return a generation as a chat completion, taken apart as the manners say."""
    text = generation.text
    message: dict[str, Any] = {"role": "assistant", "content": text}
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "finish_reason": generation.finish,
        "logprobs": None,
    }
    if manners.stops in ("strip", "say"):
        for one in stop:
            if one in text:
                text = message["content"] = text[: text.index(one)]
                if manners.stops == "say":
                    choice["stop_reason"] = one
    elif manners.stops == "ignore":  # and went on writing
        text = message["content"] = text + "\n<answer>[1, 2]</answer>\nand so on"
    if manners.reasoning:
        thought = re.match(r"<think>(.*?)</think>", text, re.DOTALL)
        if thought:
            message |= {"reasoning_content": thought[1], "content": text[thought.end() :]}
    if manners.tools:
        call = re.search(r"<tool_call>(.*?)(</tool_call>|$)", message["content"], re.DOTALL)
        if call:
            made = json.loads(call[1])
            function = {"name": made["name"], "arguments": json.dumps(made["arguments"])}
            message["tool_calls"] = [{"id": "1", "type": "function", "function": function}]
            message["content"] = message["content"][: call.start()] or None
            choice["finish_reason"] = "tool_calls"
    if body.get("logprobs") and body.get("return_tokens_as_token_ids"):
        pairs = zip(generation.token_ids or (), generation.logprobs or (), strict=True)
        choice["logprobs"] = {
            "content": [{"token": f"token_id:{token}", "logprob": value, "top_logprobs": []} for token, value in pairs]
        }  # fmt: skip
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice],
        "usage": {**generation.usage.model_dump(), "total_tokens": 0},
    }  # fmt: skip


def fault(stub: Stub, request: Request) -> Response | None:
    """Return the failure that the manners ask for, or ``None``."""
    mode = stub.manners.mode
    if stub.manners.failures > 0:
        stub.manners.failures -= 1
        return JSONResponse({"error": {"message": "engine died"}}, 500)
    if mode == "echo":
        said = f"bad header {request.headers.get('authorization')!r} in {dict(request.headers)}"
        return JSONResponse({"error": {"message": said}}, 400)
    if mode == "echo401":
        return Response(f"who is {request.headers.get('authorization')}?", 401, media_type="text/plain")
    if mode == "hang":
        time.sleep(60)
    plain: dict[str, Response] = {
        "429": JSONResponse({"error": {"message": "slow down"}}, 429, {"retry-after-ms": "1"}),
        "413": HTMLResponse("<html><h1>413 Request Entity Too Large</h1></html>", 413),
        "html": HTMLResponse("<!DOCTYPE html><html><body>Welcome</body></html>"),
        "cut": Response('{"choices": [{"mess', media_type="application/json"),
        "empty": JSONResponse({"choices": [], "usage": None}),
        "null": JSONResponse({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
        "filter": JSONResponse(
            {"choices": [{"message": {"content": "a"}, "finish_reason": "content_filter"}]}
        ),
        "long": JSONResponse(
            {"message": "This model's maximum context length is 128 tokens, you gave 999"}, 400
        ),
        "images": JSONResponse(
            {"error": {"message": "At most 4 image(s) may be provided in one prompt."}}, 400
        ),
    }
    return plain.get(mode)


def make_app(stub: Stub) -> FastAPI:
    """Return the application."""
    app = FastAPI()

    def refused(request: Request) -> Response | None:
        key = stub.manners.key
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            return JSONResponse({"error": {"message": "Incorrect API key"}}, 401)
        return None

    @app.get("/v1/models")
    def models(request: Request) -> Response:
        rows = [{"id": name, "object": "model"} for name in stub.manners.models]
        return refused(request) or JSONResponse({"object": "list", "data": rows})

    @app.post("/v1/chat/completions")
    def complete(request: Request, body: dict[str, Any]) -> Response:
        stub.requests.append({"headers": dict(request.headers), "body": body})
        found = refused(request) or fault(stub, request)
        if found is not None:
            return found
        if body["model"] not in stub.manners.models:
            said = f"The model `{body['model']}` does not exist."
            return JSONResponse({"error": {"message": said, "code": 404}}, 404)
        if stub.manners.limit_key not in body:
            said = f"Unsupported parameter: 'max_tokens'. Use '{stub.manners.limit_key}' instead."
            return JSONResponse({"error": {"message": said}}, 400)
        if "logit_bias" in body and not stub.manners.biased:
            said = "Unrecognized request argument supplied: logit_bias"
            return JSONResponse({"error": {"message": said}}, 400)
        backend = (body.get("media_io_kwargs") or {}).get("video", {}).get("video_backend")
        if backend and not stub.manners.clip_files:
            said = f"Video loader class {backend} not found."
            return JSONResponse({"error": {"message": said}}, 500)
        return JSONResponse(stub.reply(body))

    @app.get("/requests")
    def requests() -> Response:
        return JSONResponse(stub.requests)

    @app.post("/manners")
    def behave(manners: dict[str, Any]) -> Response:
        stub.manners = Manners(**manners)
        stub.requests.clear()
        return JSONResponse({})

    return app


def main() -> None:
    """Run the server until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--stops", choices=("strip", "say", "keep", "ignore"), default="strip")
    parser.add_argument("--reasoning", action="store_true", help="move thoughts to reasoning_content")
    parser.add_argument("--tools", action="store_true", help="move calls to tool_calls")
    parser.add_argument("--key", help="demand this key")
    parser.add_argument("--models", nargs="+", default=[MODEL])
    parser.add_argument("--mode", default="fine", help="how to fail, see fault()")
    parser.add_argument("--failures", type=int, default=0, help="HTTP 500 so many times, then fine")
    parser.add_argument(
        "--no-clip-files", dest="clip_files", action="store_false", help="as vLLM without timeloupe"
    )
    parser.add_argument("--limit-key", default="max_tokens")
    parser.add_argument("--free", action="store_true", help="ban no token but those of logit_bias")
    parser.add_argument("--no-bias", dest="biased", action="store_false", help="take no logit_bias")
    flags = vars(parser.parse_args())
    port = flags.pop("port")
    app = make_app(Stub(Manners(**flags)))
    with socket.create_server(("127.0.0.1", port)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run([listening])


if __name__ == "__main__":
    main()
