"""Twenty steps of reinforcement learning on the small model, told to the last bit: run as a program, prints JSON.

    python tests/train/trace/record.py > tests/train/trace/grpo.json      # renews the trace; see below

``tests/train/test_trace.py`` runs this and compares with ``grpo.json``. The trace is there so that a change that should
not move the numbers cannot. It may be renewed where a change is MEANT to move them (another loss, seed, order of
tokens, batch, library version), in the commit of that change, whose message says what moved and why that is right;
never to make a test pass whose failure is not understood. Rounding that a faster path changes is such a reason, too:
say how large the first difference was.

For the same bits on other x86 machines: one thread (sums of several threads depend on their number), and only
instructions that every x86-64 has, asked for before any library is loaded. PyTorch, MKL, oneDNN, numpy and glibc each
choose kernels by the processor they run on, and kernels with fused or wider instructions round differently. Frames are
painted and not decoded: the colour conversion of the video library is written per instruction set as well. That another
machine gives the same bits follows from this; it was compared on one machine only, where these settings were made and
unmade (without them 140 of the figures differ in their last bits).
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

PLAIN = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX512F,-FMA,-FMA4",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONHASHSEED": "0",
}
STEPS = 20
WORLD_SEED = 5


def digest(values: Any) -> str:
    """A short name of bytes, or of numbers to the last bit."""
    if not isinstance(values, bytes):
        values = b"".join(struct.pack("<d", float(value)) for value in values)
    return hashlib.sha256(values).hexdigest()[:16]


def record(folder: Path) -> dict[str, Any]:
    """Train and return the trace."""
    import numpy
    import torch
    import transformers

    from timeloupe.policy.small import SMALL_CHECKPOINT
    from timeloupe.train import grpo
    from timeloupe.train.grpo_recipe import GrpoRecipe
    from timeloupe.video.reader import Frames, VideoReader
    from timeloupe.world.encode import make_videos, write_world
    from timeloupe.world.render import WorldRenderer
    from timeloupe.world.script import ScriptSettings

    torch.set_num_threads(1)
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    kind = ScriptSettings(min_seconds=180.0, max_seconds=180.0)
    made = list(make_videos(folder / "world", seed=WORLD_SEED, num_videos=1, settings=kind, per_task=2))
    write_world(folder / "world", iter(made))
    painters = {video.path.name: WorldRenderer(video.script) for video in made}

    def painted(self: VideoReader, times: Any, size_wh: Any = None) -> Frames:
        asked = [float(one) for one in times]
        shown = [self._index.frame_seconds(frame) for frame in self._index.frames_at(asked)]
        starts, durations = (tuple(part) for part in zip(*shown, strict=True))
        assert size_wh is not None and size_wh[0] == size_wh[1]
        pixels = painters[Path(self.path).name].read(starts, size_wh[0])
        return Frames(pixels, tuple(asked), starts, durations, size_wh)

    rows: list[dict[str, Any]] = []
    real_update = grpo.update

    def traced(samples: Any, loaded: Any, *rest: Any) -> dict[str, float]:
        sampled = [segment for one in samples for segment in one.episode.segments if segment.trained]
        row: dict[str, Any] = {
            "tokens": digest(token for segment in sampled for token in segment.token_ids),
            "sampled_logprobs": digest(value for segment in sampled for value in segment.logprobs or ()),
            "advantages": [float(one.advantage).hex() for one in samples],
        }
        figures = real_update(samples, loaded, *rest)
        row |= {name: float(value).hex() for name, value in figures.items()}
        weights = (value.detach().numpy().tobytes() for _, value in sorted(loaded.model.state_dict().items()))
        rows.append(row | {"weights": digest(b"".join(weights))})
        return figures

    recipe = GrpoRecipe.model_validate(
        {
            "model": {"checkpoint": str(SMALL_CHECKPOINT), "device": "cpu"},
            "data": {"examples": [str(folder / "world" / "examples.jsonl")]}, "episode": {"temperature": 2.0},
            "steps": STEPS, "prompts": 1, "group": 4, "micro_batch": 2, "lr": 3e-4, "checkpoint_every": STEPS,
            "loss": {"kl_weight": 0.04},
        }
    )  # fmt: skip
    VideoReader.read = painted  # type: ignore[method-assign]
    grpo.update = traced  # type: ignore[assignment]
    grpo.train_grpo(recipe, folder / "run")
    libraries = (torch, transformers, numpy)
    return {"versions": {one.__name__: one.__version__.split("+")[0] for one in libraries}, "steps": rows}


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in PLAIN.items()):
        os.execvpe(sys.executable, [sys.executable, __file__], os.environ | PLAIN)
    with tempfile.TemporaryDirectory() as made_folder:
        text = json.dumps(record(Path(made_folder)), indent=1)
    print(text)
