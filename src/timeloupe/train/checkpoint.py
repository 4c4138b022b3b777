"""Checkpoints of a training run: where it stands, and everything needed to go on to the same numbers."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from timeloupe.model.load import LoadedModel
from timeloupe.train.lora import adapter_weights, has_adapters
from timeloupe.train.sharding import like, whole

STATE_FILE = "state.json"


@dataclass(frozen=True)
class Progress:
    """Where a run stands: stages done, and steps done in the next one."""

    stage: int
    step: int


def save_checkpoint(
    folder: Path,
    loaded: LoadedModel,
    optimizers: list[torch.optim.Optimizer],
    progress: Progress,
    *,
    write: bool = True,
) -> None:
    """Replace the run's checkpoint; a killed process leaves the old one or the new one, never a mixture.

    Weights are stored whole however they were cut, so a run may go on with another number of processes. With several,
    all call this and one of them with ``write``: the others only hand over their shards.
    """
    weights = {key: _gathered(value, write) for key, value in _weights(loaded).items()}
    tensors: dict[str, torch.Tensor] = {}
    groups: list[Any] = []
    for number, optimizer in enumerate(optimizers):
        state = optimizer.state_dict()
        groups.append(state["param_groups"])
        for index, entries in state["state"].items():
            for key, value in entries.items():
                tensors[f"{number}.{index}.{key}"] = _gathered(torch.as_tensor(value), write)
    if not write:
        return
    partial, final, old = folder / "checkpoint.part", folder / "checkpoint", folder / "checkpoint.old"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(weights, partial / "model.safetensors")
    save_file(tensors, partial / "optimizer.safetensors")
    record = {"stage": progress.stage, "step": progress.step, "param_groups": groups}
    (partial / STATE_FILE).write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def read_progress(folder: Path) -> Progress | None:
    """Return where the run in ``folder`` stands, or ``None`` if it has no checkpoint."""
    for name in ("checkpoint", "checkpoint.old"):
        path = folder / name / STATE_FILE
        if path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            return Progress(record["stage"], record["step"])
    return None


def load_checkpoint(
    folder: Path, loaded: LoadedModel, optimizers: list[torch.optim.Optimizer] | None
) -> None:
    """Load the weights, and the optimizer state if ``optimizers`` are given, of the run in ``folder``."""
    path = folder / "checkpoint"
    if not (path / STATE_FILE).is_file():
        path = folder / "checkpoint.old"
    weights = load_file(path / "model.safetensors")
    missing, unexpected = (
        sorted(set(_weights(loaded)) - set(weights)),
        sorted(set(weights) - set(_weights(loaded))),
    )
    if missing or unexpected:
        raise ValueError(f"checkpoint {path} has other weights: missing {missing}, unexpected {unexpected}")
    with torch.no_grad():
        for name, value in _weights(loaded).items():
            value.copy_(like(weights[name], value))
    if optimizers is None:
        return
    record = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    tensors = load_file(path / "optimizer.safetensors")
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        for name, value in tensors.items():
            owner, index, key = name.split(".", 2)
            if int(owner) == number:
                state.setdefault(int(index), {})[key] = like(value, parameters[int(index)])
        optimizer.load_state_dict({"state": state, "param_groups": record["param_groups"][number]})


def _gathered(tensor: torch.Tensor, keep: bool) -> torch.Tensor:
    """Return a whole tensor for a file; where it is not kept, nothing of it stays."""
    found = whole(tensor)
    return found.detach().to("cpu").contiguous() if keep else torch.empty(0)


def _weights(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    """The adapters if there are any, else all weights, without the output head when it is the word embeddings."""
    if has_adapters(loaded.model):
        return adapter_weights(loaded.model)
    weights = dict(loaded.model.state_dict())
    if loaded.model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    return weights
