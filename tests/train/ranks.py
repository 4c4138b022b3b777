"""The processes of one training, begun warm, with the variables that `torchrun` and `accelerate launch` give each."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.servers import warm


def train_in_two(*words: str | Path, env: Mapping[str, str] | None = None) -> None:
    """Run ``timeloupe train`` with these words in two processes that know of each other, to a good end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {
        **os.environ, **(env or {}), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    with tempfile.TemporaryFile("w+") as said:
        processes = [
            warm.start(
                "train", *words, env={**shared, "RANK": rank, "LOCAL_RANK": rank},
                stdout=said.fileno(), stderr=said.fileno(),
            )
            for rank in ("0", "1")
        ]  # fmt: skip
        try:
            codes = [process.wait(300) for process in processes]
        finally:
            for process in processes:
                process.kill()
        said.seek(0)
        assert codes == [0, 0], said.read()[-3000:]
