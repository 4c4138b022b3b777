"""Stands where vLLM stands, at its own boundary: the names, arguments and results of ``vllm.LLM`` that timeloupe uses.

Behind it is the model itself, in the slowest and plainest way: a whole pass for every token. It has what can go wrong
in the real one: weights that are read from a folder only when it is told so, and a memory of prompts that outlives
them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.model.expand import expand
from timeloupe.model.load import load_model


class FakeLLM:
    """The part of ``vllm.LLM`` that timeloupe uses."""

    made: list[FakeLLM] = []

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.folder = Path(arguments["model"])
        self.files = sorted(path.name for path in self.folder.iterdir())
        self.loaded = load_model(self.folder, device="cpu")
        self.known: dict[Any, torch.Tensor] = {}
        self.calls: list[str] = []
        self.settings: list[Any] = []
        self.llm_engine = SimpleNamespace(reset_encoder_cache=lambda: self.calls.append("encoder"))
        FakeLLM.made.append(self)

    def collective_rpc(self, method: str) -> list[None]:
        assert method == "reload_weights"
        self.calls.append(method)
        weights = load_file(self.folder / "model.safetensors")
        assert weights["lm_head.weight"].shape == weights["model.language_model.embed_tokens.weight"].shape
        missing, unexpected = self.loaded.model.load_state_dict(weights, strict=False)
        assert not missing and not unexpected
        return [None]

    def reset_prefix_cache(self) -> bool:
        self.calls.append("prefix")
        self.known.clear()
        return True

    def reset_mm_cache(self) -> None:
        self.calls.append("mm")

    def generate(self, prompts: list[dict[str, Any]], settings: list[Any], use_tqdm: bool) -> list[Any]:
        assert not use_tqdm
        self.settings += settings
        return [self._one(prompt, one) for prompt, one in zip(prompts, settings, strict=True)]

    def _one(self, prompt: dict[str, Any], settings: Any) -> Any:
        layout, tokenizer = self.loaded.layout, self.loaded.tokenizer
        prompt_ids, clips = tuple(prompt["prompt_token_ids"]), clips_of(prompt)
        generator = torch.Generator().manual_seed(settings.seed or 0)
        ids: list[int] = []
        rows: list[dict[int, Any]] = []
        reason, text = "length", ""
        for _ in range(settings.max_tokens):
            logits_V = self._logits((*prompt_ids, *ids), clips)
            chances_V = logits_V.clone()
            for token, bias in (settings.logit_bias or {}).items():
                chances_V[token] += bias
            if settings.temperature == 0:
                token = int(chances_V.argmax())
            else:
                chances_V = (chances_V / settings.temperature).softmax(-1)
                token = int(torch.multinomial(chances_V, 1, generator=generator))
            ids.append(token)
            rows.append(told(logits_V, token, settings.logprobs))
            text = tokenizer.decode(ids)
            if token in (settings.stop_token_ids or ()) or any(stop in text for stop in settings.stop or ()):
                reason = "stop"
                break
        reply = SimpleNamespace(token_ids=ids, logprobs=rows, finish_reason=reason)
        episode = TokenEpisode((TokenSegment(prompt_ids),), clips)
        shown = expand([episode], layout, pixels=False).input_ids_BT[0].tolist()
        before = None
        if settings.prompt_logprobs is not None:
            counts = range(1, len(prompt_ids))
            before = [
                told(self._logits(prompt_ids[:count], clips), prompt_ids[count], 0)
                for count in counts[-8:]
            ]  # fmt: skip
        return SimpleNamespace(prompt_token_ids=shown, prompt_logprobs=before, outputs=[reply])

    def _logits(self, ids: tuple[int, ...], clips: tuple[Clip, ...]) -> torch.Tensor:
        """Remembered, as by a cache of keys and values that nobody has emptied."""
        key = ids, tuple((clip.pixels.tobytes(), clip.at_seconds) for clip in clips)
        if key not in self.known:
            batch = expand([TokenEpisode((TokenSegment(ids),), clips)], self.loaded.layout)
            with torch.no_grad():
                out = self.loaded.model(**batch.model_inputs(), use_cache=False, logits_to_keep=1)
            self.known[key] = out.logits[0, -1]
        return self.known[key]


def told(logits_V: torch.Tensor, token: int, count: int) -> dict[int, Any]:
    """The log-probabilities of a token and of the likeliest ones."""
    values_V = logits_V.log_softmax(-1)
    return {
        one: SimpleNamespace(logprob=float(values_V[one]))
        for one in [token, *values_V.topk(count).indices.tolist()]
    }


def clips_of(prompt: dict[str, Any]) -> tuple[Clip, ...]:
    """The clips of a prompt; the times of a video come out of its metadata."""
    data = prompt.get("multi_modal_data", {})
    assert set(data) <= {"image"} or set(data) <= {"video"}, "the fake knows no order of both"
    clips = [Clip(np.asarray(image)[None], is_image=True) for image in data.get("image", [])]
    for pixels, metadata in data.get("video", []):
        times = tuple(index / metadata["fps"] for index in metadata["frames_indices"])
        clips.append(Clip(pixels, times))
    return tuple(clips)


class FakeSamplingParams(SimpleNamespace):
    """Arguments as attributes."""

    def __init__(self, **arguments: Any) -> None:
        defaults = dict.fromkeys(("seed", "stop", "stop_token_ids", "logit_bias", "prompt_logprobs"))
        super().__init__(**defaults | arguments)


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    """A module ``vllm`` to be imported; returns the class of its engines."""
    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams = FakeLLM, FakeSamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL", "VLLM_CPU_OMP_THREADS_BIND"):
        monkeypatch.setenv(name, "")  # so that what the engine sets goes with the test
        monkeypatch.delenv(name)
    FakeLLM.made.clear()
    return FakeLLM
