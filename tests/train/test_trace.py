"""Twenty steps of reinforcement learning give the bits that are committed; see ``trace/record.py`` for the terms."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

TRACE = Path(__file__).parent / "trace"


@pytest.mark.slow
def test_twenty_steps_are_those_of_the_committed_trace() -> None:
    expected = json.loads((TRACE / "grpo.json").read_text(encoding="utf-8"))
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip(f"the trace is of x86 machines, this one is {platform.machine()}")
    others = {name for name, told in expected["versions"].items() if version(name).split("+")[0] != told}
    if others:
        pytest.skip(f"the trace is of other versions of {', '.join(sorted(others))}: see constraints.txt")
    done = subprocess.run(
        [sys.executable, str(TRACE / "record.py")], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert len(found["steps"]) == len(expected["steps"]) == 20
    for step, (now, then) in enumerate(zip(found["steps"], expected["steps"], strict=True)):
        moved = {
            name: (then.get(name), now.get(name)) for name in now | then if now.get(name) != then.get(name)
        }
        assert not moved, (
            f"step {step} moved: {moved}; tests/train/trace/record.py says when a trace may be renewed"
        )


def test_the_trace_has_steps_that_learn() -> None:
    steps = json.loads((TRACE / "grpo.json").read_text(encoding="utf-8"))["steps"]
    assert len({step["weights"] for step in steps}) == 20
    assert sum(any(float.fromhex(one) for one in step["advantages"]) for step in steps) >= 5
    assert all(float.fromhex(step["norm"]) > 0 for step in steps)
    assert sum(float.fromhex(step["kl"]) > 1e-4 for step in steps) >= 10
