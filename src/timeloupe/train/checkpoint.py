"""Checkpoints of a training run: where it stands, and everything needed to go on to the same numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from timeloupe.errors import RecordError
from timeloupe.model.load import LoadedModel
from timeloupe.train.lora import adapter_weights, has_adapters
from timeloupe.train.sharding import like, whole

STATE_FILE = "state.json"
WEIGHTS_FILE = "model.safetensors"
OPTIMIZER_FILE = "optimizer.safetensors"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Write safetensors into a folder, for the time of a ``with`` block.

    Raises:
        OSError: They cannot be written; the library's own error is none.
    """
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"cannot write {str(path)!r}: {error}") from error


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

    Raises:
        OSError: It cannot be written, as on a full disk; the old one stays.
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
    record = {"stage": progress.stage, "step": progress.step, "param_groups": groups}
    try:
        with writing(partial):
            partial.mkdir(parents=True)
            save_file(weights, partial / WEIGHTS_FILE)
            save_file(tensors, partial / OPTIMIZER_FILE)
            (partial / STATE_FILE).write_text(json.dumps(record), encoding="utf-8")
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk it is in the way of the next one
        raise
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def read_progress(folder: Path) -> Progress | None:
    """Return where the run in ``folder`` stands, or ``None`` if it has no checkpoint.

    Raises:
        RecordError: It has one that cannot be read.
    """
    path = _newest(folder)
    if path is None:
        return None
    record = _read_state(path)
    return Progress(record["stage"], record["step"])


def _newest(folder: Path) -> Path | None:
    """The checkpoint of a run; a kill between two renamings leaves only the old one."""
    for name in ("checkpoint", "checkpoint.old"):
        if (folder / name).is_dir():
            return folder / name
    return None


def _damaged(path: Path, why: object) -> RecordError:
    return RecordError(
        f"{path} is damaged: {str(why).strip() or type(why).__name__}; put back a copy of it, or delete the folder "
        f"{path.parent} and resume: the run then begins again at its first step"
    )


def _read_state(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        if not (
            isinstance(record, dict)
            and all(isinstance(record.get(key), int) and record[key] >= 0 for key in ("stage", "step"))
            and isinstance(record.get("param_groups"), list)
        ):
            raise ValueError("expected stage, step and param_groups")
    except (ValueError, OSError) as error:
        raise _damaged(path / STATE_FILE, error) from error
    return record


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def load_checkpoint(
    folder: Path, loaded: LoadedModel, optimizers: list[torch.optim.Optimizer] | None
) -> None:
    """Load the weights, and the optimizer state if ``optimizers`` are given, of the run in ``folder``.

    Raises:
        RecordError: A file cannot be read, or is of another model.
    """
    path = _newest(folder) or folder / "checkpoint"
    weights = _read_tensors(path / WEIGHTS_FILE)
    missing, unexpected = (
        sorted(set(_weights(loaded)) - set(weights)),
        sorted(set(weights) - set(_weights(loaded))),
    )
    if missing or unexpected:
        raise _damaged(
            path / WEIGHTS_FILE,
            f"other weights: {len(missing)} missing {missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}",
        )
    with torch.no_grad():
        for name, value in _weights(loaded).items():
            value.copy_(like(weights[name], value))
    if optimizers is None:
        return
    record = _read_state(path)
    tensors = _read_tensors(path / OPTIMIZER_FILE)
    try:
        for number, optimizer in enumerate(optimizers):
            state: dict[int, dict[str, torch.Tensor]] = {}
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            for name, value in tensors.items():
                owner, index, key = name.split(".", 2)
                if int(owner) == number:
                    state.setdefault(int(index), {})[key] = like(value, parameters[int(index)])
            optimizer.load_state_dict({"state": state, "param_groups": record["param_groups"][number]})
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _damaged(path / OPTIMIZER_FILE, f"it is of other parameters ({error})") from error


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
