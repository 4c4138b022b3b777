"""vLLM in this process: ids in, ids and log-probabilities out, and new weights in between.

The only module that imports vLLM. The engine lives on a folder of its own, in memory where there is room: the files of
the checkpoint, and the weights as they are in the trainer.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from timeloupe.engines.vllm_prompt import EnginePrompt
from timeloupe.engines.vllm_server import CPU_ENVIRONMENT
from timeloupe.errors import ConfigError, MissingError
from timeloupe.model.load import DTYPES, LoadedModel
from timeloupe.policy.base import Sampling
from timeloupe.train.lora import has_adapters, merged_weights
from timeloupe.train.rollout_part import RolloutPart

MEMORY_FOLDER = Path("/dev/shm")
MAX_MODEL_LEN = 32_768
GIB = 1 << 30

# One process: what vLLM would start beside it is one more copy of Python, and no faster for one GPU. The memory of keys
# and values is an argument of the engine, and the variable would go before it.
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
_NOT_OURS = ("VLLM_CPU_KVCACHE_SPACE",)


@dataclass(frozen=True, eq=False)
class Asked:
    """One reply to be sampled.

    Attributes:
        prompt: What stands before it, ``begun`` not included.
        sampling: How.
        seed: Of its random numbers.
        begun: Ids that it begins with; they count towards ``max_new_tokens``.
    """

    prompt: EnginePrompt
    sampling: Sampling
    seed: int
    begun: tuple[int, ...] = ()


@dataclass(frozen=True)
class Told:
    """One reply.

    Attributes:
        token_ids: With the end-of-turn token, and with what it was begun with.
        logprobs: Under the model itself: temperature 1, nothing banned.
        stopped: Whether it ended by itself.
        num_prompt_tokens: Of the prompt with all its visual tokens.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: bool
    num_prompt_tokens: int


class VllmEngine:
    """A vLLM that holds the weights of a model as they were at the last ``reload``.

    Args:
        loaded: The model.
        part: Memory and limits.
        banned: Token ids that are never sampled.

    Attributes:
        dtype: Of its weights and activations: float32 on a CPU for a float32 model, else bfloat16, in which a GPU also
            computes the passes of the trainer.
        max_model_len: Tokens of prompt and reply at most.

    Raises:
        MissingError: vLLM is not installed.
        ConfigError: It does not start with these settings.
    """

    def __init__(self, loaded: LoadedModel, part: RolloutPart, banned: Sequence[int]) -> None:
        on_cpu = loaded.device.type == "cpu"
        for name, value in ((CPU_ENVIRONMENT if on_cpu else {}) | ENVIRONMENT).items():
            if name not in _NOT_OURS:
                os.environ.setdefault(name, value)
        self._vllm = _import()
        self.loaded = loaded
        self.dtype = "float32" if on_cpu and loaded.model.dtype == torch.float32 else "bfloat16"
        positions: int = loaded.model.config.get_text_config().max_position_embeddings
        self.max_model_len = part.max_model_len or min(positions, MAX_MODEL_LEN)
        self._bans = {int(token): float("-inf") for token in banned}
        weights = sum(one.numel() for one in loaded.model.parameters()) * DTYPES[self.dtype].itemsize
        self._folder = tempfile.TemporaryDirectory(prefix="timeloupe-vllm-", dir=_roomy(weights))
        self._weights = Path(self._folder.name) / "model.safetensors"
        for path in loaded.folder.iterdir():
            if path.suffix in (".json", ".jinja", ".txt") and not path.name.endswith(".index.json"):
                shutil.copyfile(path, Path(self._folder.name) / path.name)
        _untie(Path(self._folder.name) / "config.json")
        self._write()
        try:
            self._llm: Any = self._vllm.LLM(**self._arguments(part))
        except Exception as error:  # whatever vLLM raises for settings, files and memory
            self._folder.cleanup()
            raise ConfigError(
                f"vLLM does not start with checkpoint {str(loaded.folder)!r}: {type(error).__name__}: {error}; change "
                "[rollout] of the recipe, or set rollout.backend to 'local'"
            ) from error
        self._weights.unlink()

    def _arguments(self, part: RolloutPart) -> dict[str, Any]:
        return {
            "model": self._folder.name, "dtype": self.dtype, "seed": 0, "enforce_eager": part.eager,
            "max_model_len": self.max_model_len, "max_num_seqs": part.max_sequences,
            # A clip's visual tokens are computed in one go, so they must fit into a batch.
            "max_num_batched_tokens": max(self.max_model_len, 8192),
            "kv_cache_memory_bytes": int(part.memory_gib * GIB),
            # Not read where the memory of keys and values is given, but checked against what the trainer left free.
            "gpu_memory_utilization": 0.05,
            "limit_mm_per_prompt": {"image": self.max_model_len, "video": 999}, "skip_mm_profiling": True,
            # Frames have their final size, and all of them are shown.
            "mm_processor_kwargs": {"do_resize": False, "do_sample_frames": False},
            "generation_config": "vllm", "disable_log_stats": True,
            # Prefixes are remembered in whole blocks: on a CPU these have 128 tokens unless told otherwise.
            "block_size": 32 if self.loaded.device.type == "cpu" else None,
        }  # fmt: skip

    def generate(self, asked: Sequence[Asked]) -> list[Told]:
        """Return a reply to each, in order.

        Raises:
            ConfigError: vLLM does not sample so: it has no temperature above 2, ...
        """
        prompts, settings = [], []
        for one in asked:
            inputs = one.prompt.inputs(self.loaded.layout)
            begun = one.begun[: one.sampling.max_new_tokens]
            inputs["prompt_token_ids"] += begun
            prompts.append(inputs)
            settings.append(self._settings(one, len(begun)))
        outputs = self._llm.generate(prompts, settings, use_tqdm=False)
        return [_told(one, output) for one, output in zip(asked, outputs, strict=True)]

    def _settings(self, one: Asked, num_begun: int) -> Any:
        sampling = one.sampling
        try:
            return self._vllm.SamplingParams(
                temperature=sampling.temperature, top_p=sampling.top_p, top_k=sampling.top_k,
                max_tokens=max(sampling.max_new_tokens - num_begun, 1), seed=one.seed & (2**63 - 1),
                stop=list(sampling.stop) or None, include_stop_str_in_output=True, detokenize=bool(sampling.stop),
                stop_token_ids=list(self.loaded.layout.eos_token_ids), logit_bias=self._bans, logprobs=0,
                prompt_logprobs=0 if num_begun else None,
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(f"vLLM does not sample with {sampling}: {error}; change [episode]") from error

    def likeliest(self, prompt: EnginePrompt, count: int) -> dict[int, float]:
        """Return the log-probabilities of the ``count`` likeliest next tokens, and of a sampled one."""
        settings = self._vllm.SamplingParams(temperature=0.0, max_tokens=1, logprobs=count, detokenize=False)
        output = self._llm.generate([prompt.inputs(self.loaded.layout)], [settings], use_tqdm=False)[0]
        return {token: one.logprob for token, one in output.outputs[0].logprobs[0].items()}

    def reload(self) -> None:
        """Take the trainer's weights as they are now, and forget everything that was computed with others.

        Keys and values of prefixes and the outputs of the vision tower are of the old weights; the third cache is of
        pixels, but vLLM keeps it in step with the second.
        """
        self._write()
        self._llm.collective_rpc("reload_weights")
        self._weights.unlink()
        self.forget()

    def forget(self) -> None:
        """Empty all caches.

        Raises:
            ConfigError: vLLM kept some, because it still works on a prompt.
        """
        if not self._llm.reset_prefix_cache():
            raise ConfigError("vLLM did not empty its prefix cache; nothing else may use this engine")
        self._llm.llm_engine.reset_encoder_cache()
        self._llm.reset_mm_cache()

    def _write(self) -> None:
        dtype = DTYPES[self.dtype]
        model = self.loaded.model
        weights = merged_weights(model) if has_adapters(model) else dict(model.state_dict())
        # An output head that is the word embeddings shares their memory, which a file cannot.
        weights["lm_head.weight"] = weights["lm_head.weight"].clone()
        plain = {name: value.detach().to("cpu", dtype).contiguous() for name, value in weights.items()}
        save_file(plain, self._weights)


def _told(asked: Asked, output: Any) -> Told:
    reply = output.outputs[0]
    begun = asked.begun[: asked.sampling.max_new_tokens]
    count = asked.sampling.max_new_tokens - len(begun)
    ids, rows = list(reply.token_ids)[:count], reply.logprobs[:count]
    values = [row[token].logprob for token, row in zip(ids, rows, strict=True)]
    if begun:
        before = output.prompt_logprobs[-len(begun) :]
        values = [row[token].logprob for token, row in zip(begun, before, strict=True)] + values
    return Told(
        (*begun, *ids), tuple(min(value, 0.0) for value in values), reply.finish_reason == "stop" and count > 0,
        len(output.prompt_token_ids) - len(begun),
    )  # fmt: skip


def _untie(path: Path) -> None:
    """Tell vLLM that the output head is a matrix of its own.

    Where the head is the word embeddings, a reload gives the model new embeddings and leaves the head the old ones
    (seen in 0.32).
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tie_word_embeddings"] = False
    if "text_config" in config:
        config["text_config"]["tie_word_embeddings"] = False
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _roomy(num_bytes: int) -> str | None:
    """Return the folder in memory if a file of this size fits there twice, else ``None`` for the usual one."""
    if not MEMORY_FOLDER.is_dir() or not os.access(MEMORY_FOLDER, os.W_OK):
        return None
    return str(MEMORY_FOLDER) if shutil.disk_usage(MEMORY_FOLDER).free > 2 * num_bytes else None


def _import() -> Any:
    try:
        import vllm
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise MissingError(
            "rollout.backend 'vllm' needs vLLM beside timeloupe: `pip install vllm` on a machine with a GPU; without "
            "one, `make vllm-env` and train with `.venv-vllm/bin/timeloupe`; or set rollout.backend to 'local'"
        ) from error
    return vllm
