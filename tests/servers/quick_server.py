"""A server with OpenAI's chat completions that answers at once: what remains of a run's time is the client's own.

``python -m tests.servers.quick_server --port 0`` prints its base URL as soon as it listens. No model: the reply is
drawn from the request's seed, so the same seed gets the same words from any such server. Some replies look closer, some
answer, a few are malformed and a few refuse. Stop strings are kept in the text. Headers and bodies are read just as far
as that needs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
from typing import Any

MODEL = "quick"
VERSION = "1.2.3"
SEED = re.compile(rb'"seed":\s*(\d+)')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
ASSISTANT = re.compile(rb'"role":\s*"assistant"')


def reply_to(seed: int, num_replies: int, letters: bool) -> str:
    """Return what the server says.

    Args:
        seed: Of the request.
        num_replies: How many replies the chat holds already.
        letters: Whether the answer is a letter, else it is a segment.
    """
    draw = random.Random(seed)
    chance = draw.random()
    start = draw.randrange(0, 50)
    end = start + draw.randrange(2, 10)
    thought = f"<think>It may be near second {start}.</think>"
    if chance < 0.02:
        return f"{thought} I forgot the tags."
    if chance < 0.04:
        return "I am sorry, I cannot help with that."
    if chance < (0.7, 0.3, 0.0)[min(num_replies, 2)]:
        call = {
            "name": "get_video_clip_frame",
            "arguments": [{"start_time": start, "end_time": end}],
        }
        return f"{thought}<tool_call>{json.dumps(call)}</tool_call>"
    answer = draw.choice("ABCD") if letters else f"[{start}, {end}]"
    return f"{thought}<answer>{answer}</answer>"


def completion(text: str) -> dict[str, Any]:
    """Return a chat completion that says ``text``."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": len(text.split()), "total_tokens": 0}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [choice],
        "usage": usage,
    }


class Quick(asyncio.Protocol):
    """One connection, kept open."""

    model = MODEL

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.pieces: list[bytes] = []
        self.missing = 0

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.missing -= len(data)
        if self.missing > 0:
            return
        request = b"".join(self.pieces)
        head, _, body = request.partition(b"\r\n\r\n")
        if not _:
            self.pieces = [request]
            return
        length = LENGTH.search(head)
        self.missing = (int(length[1]) if length else 0) - len(body)
        self.pieces = [request]
        if self.missing <= 0:
            self.pieces, self.missing = [], 0
            self.answer(head.split(b" ", 2)[1].decode(), body)

    def answer(self, path: str, body: bytes) -> None:
        found: dict[str, Any]
        if path == "/version":
            found = {"version": VERSION}
        elif path == "/v1/models":
            found = {
                "object": "list",
                "data": [{"id": self.model, "object": "model", "owned_by": "timeloupe"}],
            }
        else:
            seed = SEED.findall(body)
            letters = b"the right option" in body
            found = completion(reply_to(int(seed[-1]), len(ASSISTANT.findall(body)), letters))
        data = json.dumps(found).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: quick/{VERSION}\r\n"
        self.transport.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)


async def serve(port: int) -> None:
    """Listen until the process is killed."""
    server = await asyncio.get_running_loop().create_server(Quick, "127.0.0.1", port, reuse_address=True)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


def main() -> None:
    """Run the server until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 = any free one")
    parser.add_argument("--model", default=MODEL, help="the only name in the list of models")
    flags = parser.parse_args()
    Quick.model = flags.model
    asyncio.run(serve(flags.port))


if __name__ == "__main__":
    main()
