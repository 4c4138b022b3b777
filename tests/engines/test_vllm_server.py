"""A real vLLM on the CPU plays what the local policy plays: `make vllm-env` builds the environment it needs.

One test per server: started once, wherever its test runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from timeloupe.engines.vllm_server import cpu_server
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import make_settings
from timeloupe.policy.openai_server import OpenAIPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, StopReason, Trajectory

ROOT = Path(__file__).resolve().parents[2]
NAMED = os.environ.get("TIMELOUPE_VLLM_PYTHON")
PYTHON = Path(NAMED) if NAMED else ROOT / ".venv-vllm" / "bin" / "python"
COMMAND = Path(sys.executable).with_name("timeloupe")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON.exists(),
        reason=f"no vLLM at {str(PYTHON)!r}: `make vllm-env`, or set TIMELOUPE_VLLM_PYTHON to an interpreter with one",
    ),
]


@pytest.fixture
def parity() -> Iterator[Any]:
    """The benchmark that plays both sides, as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import vllm_parity  # type: ignore[import-not-found]

        yield vllm_parity


def test_the_small_model_says_the_same(parity: Any, tmp_path: Path) -> None:
    examples = parity.world_questions(tmp_path, 4)
    with cpu_server(PYTHON, SMALL_CHECKPOINT, log=tmp_path / "log", name="small", wait_seconds=900) as url:
        rows = dict(parity.small_rows(url, examples))
        the_ask_command_gives_the_same(url, next(one for one in examples if one.options))
    assert list(rows) == ["small, pictures", "small, pictures, stops"]
    for name, row in rows.items():
        assert row.equal, (name, row)
        assert row.crops > 0 and row.answered > 0 and row.turns > row.episodes, (name, row)


def the_ask_command_gives_the_same(url: str, example: Example) -> None:
    """Ask with the installed command, once the served and once the embedded model."""
    options = [word for option in example.options for word in ("-o", option)]

    def asked(*flags: str) -> Trajectory:
        done = subprocess.run(
            [COMMAND, "ask", example.video, example.question, *options, "--json", *flags],
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return Trajectory.model_validate_json(done.stdout)

    served = asked(
        "--base-url", url, "--settings-from", "small", "--time-format", "{:.0f}", "--image-format", "png",
        "--logprobs",
    )  # fmt: skip
    local = asked("--policy", "small")
    assert len(local.turns) >= 2 and local.answer is not None
    for mine, theirs in zip(local.turns, served.turns, strict=True):
        assert theirs.generation.token_ids == mine.generation.token_ids
        assert theirs.observation == mine.observation
    assert (served.answer, served.evidence) == (local.answer, local.evidence)


def test_a_random_qwen3_vl_is_shown_the_same_times(parity: Any, tmp_path: Path) -> None:
    examples = parity.world_questions(tmp_path / "world", 1)
    checkpoint = parity.write_tiny_qwen3_vl(tmp_path / "random")
    with cpu_server(PYTHON, checkpoint, log=tmp_path / "log", name="random", wait_seconds=900) as url:
        rows = dict(parity.random_rows(url, checkpoint, examples))
        # A loader that the server does not have: refused, instead of guessed times.
        stranger = OpenAIPolicy(
            url,
            send="video",
            max_retries=0,
            extra_body={"media_io_kwargs": {"video": {"video_backend": "none"}}},
        )
        settings = make_settings({"frame_size_wh": [64, 64], "size_multiple": 32, "skim_frames": 4})
        refused = play(examples, stranger, PROTOCOLS["small"], settings, seed=0)[0]
        after = dict(parity.random_rows(url, checkpoint, examples))
    assert len(rows) == 4
    for name, row in rows.items():
        assert row.equal, (name, row)
        assert row.crops == (name != "random, video, one clip"), (name, row)
    assert refused.stop is StopReason.INFRASTRUCTURE, refused
    assert all(row.equal for row in after.values()), "the server did not outlive a refused request"
