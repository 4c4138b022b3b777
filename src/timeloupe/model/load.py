"""Loading a checkpoint: model, tokenizer and layout together, from safetensors only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.utils import logging

from timeloupe.errors import MissingError, boundary
from timeloupe.model.layout import Layout, read_layout
from timeloupe.model.render import ChatFormat, read_chat_format
from timeloupe.model.vision_tower import speed_up_vision

MODEL_CLASSES: dict[str, type[PreTrainedModel]] = {
    "qwen3_vl": Qwen3VLForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to run.

    Attributes:
        model: In eval mode, on its device.
        tokenizer: The checkpoint's own.
        layout: How clips become its input.
        chat: How messages become its input.
        name: The folder's or hub repository's name, for records.
        folder: Where its files lie.
    """

    model: PreTrainedModel
    tokenizer: Any
    layout: Layout
    chat: ChatFormat
    name: str
    folder: Path

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters."""
        return next(self.model.parameters()).device

    @property
    def weights_version(self) -> int:
        """A number that grows with every change of the weights in place, as an optimiser makes it."""
        return sum(parameter._version for parameter in self.model.parameters())


def load_model(
    checkpoint: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    fast_vision: bool = True,
) -> LoadedModel:
    """Return a checkpoint, loaded.

    Args:
        checkpoint: A folder, or a hub repository id (downloaded on first use).
        device: ``cpu``, ``cuda``, ...; default: ``cuda`` if there is one, else ``cpu``.
        dtype: One of ``DTYPES``; default: ``float32`` on the CPU, else ``bfloat16``.
        fast_vision: Use ``speed_up_vision``: the same numbers up to rounding, faster for many frames.

    Raises:
        MissingError: Neither a folder nor a repository that can be had; or no safetensors weights in it.
        ConfigError: The architecture or dtype is not supported; there is no such device.
    """
    folder = local_folder(checkpoint)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
    if dtype not in DTYPES:
        raise boundary("dtype", dtype, DTYPES)
    if not any(folder.glob("*.safetensors")):
        raise MissingError(
            f"no *.safetensors in {str(folder)!r}: save the checkpoint with safe serialisation"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    layout = read_layout(folder, tokenizer)
    with _no_progress_bar():
        model = MODEL_CLASSES[layout.family].from_pretrained(
            folder, dtype=DTYPES[dtype], attn_implementation="sdpa", use_safetensors=True
        )
    model.to(device).eval()  # type: ignore[arg-type]
    if fast_vision:
        speed_up_vision(model)
    return LoadedModel(
        model, tokenizer, layout, read_chat_format(tokenizer), Path(str(checkpoint)).name, folder
    )


def check_device(device: str) -> None:
    """Do nothing if this machine, with this torch, has the device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ``xpu``.

    Raises:
        ConfigError: It has not, or there is no device of such a name.
    """
    # Asked without touching the device: a tensor on a GPU would take memory of the first one in every process.
    here = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "xpu": torch.xpu.device_count() if torch.xpu.is_available() else 0,
    }
    kind, colon, number = device.partition(":")
    if colon and not number.isdecimal() or int(number or 0) >= here.get(kind, 0):
        known = [
            name if count == 1 else f"{name}:0 to {name}:{count - 1}" for name, count in here.items() if count
        ]
        raise boundary("device", device, known, f"torch {torch.__version__} sees no others on this machine")


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep the library's loading bars out of stderr, then restore its setting."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def local_folder(checkpoint: str | Path) -> Path:
    """Return the folder of a checkpoint; a hub repository's safetensors and JSON files are downloaded."""
    folder = Path(checkpoint)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or str(checkpoint).count("/") != 1:
        raise MissingError(
            f"no checkpoint at {str(checkpoint)!r}: name a folder with config.json, or a hub id OWNER/NAME"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(str(checkpoint), allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"])
        )
    except (OSError, ValueError) as error:
        raise MissingError(
            f"cannot get checkpoint {str(checkpoint)!r}: {error}; download it and name its folder"
        ) from error
