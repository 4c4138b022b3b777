"""Several processes that train one model: each plays and learns its share of a batch, and gradients are summed.

Started by ``torchrun`` or ``accelerate launch``; on its own a process is all there is and everything here does nothing.
Whole groups stay in one process, seeds belong to the roll-outs, and a loss's denominators are of the whole batch, so
the sum of all processes' gradients is the gradient of one process up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.tensor import DTensor

from timeloupe.errors import boundary
from timeloupe.train.shard_settings import read_sharding

Item = TypeVar("Item")

PATIENCE = timedelta(days=1)
"""How long a process waits for the others: one makes a world for all, which may take hours; the libraries' own limit
is 10 to 30 minutes. A process that dies is seen by the launcher, which ends the others."""


class Parallel:
    """This process among the others.

    Args:
        device: Where the model lies; ``None`` = on a GPU if there is one. Each process takes one of its own.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
        sharding: How the model is cut among them; ``None`` = each has all of it.

    Raises:
        ConfigError: There are several processes, and ``device`` is one and the same GPU for all of them.
    """

    def __init__(self, device: str | None = None) -> None:
        self.rank, self.size = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            if device is not None and ":" in device:
                raise boundary(
                    f"model.device with {os.environ['WORLD_SIZE']} processes", device, ("cuda", "cpu"),
                    "leave the number away: each process takes a GPU of its own (CUDA_VISIBLE_DEVICES says which)",
                )  # fmt: skip
            from accelerate import PartialState

            # Not told so, accelerate takes every process of a machine without GPUs for the only one.
            state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available(), timeout=PATIENCE)
            self.rank, self.size = state.process_index, state.num_processes
        sharding = read_sharding()
        self.sharding = sharding if self.size > 1 else None  # one process has nothing to share out

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def share(self, items: Sequence[Item], group_of: Callable[[Item], Hashable]) -> list[Item]:
        """Return the items of this process: whole groups, dealt out in the order in which they first come."""
        numbers: dict[Hashable, int] = {}
        for item in items:
            numbers.setdefault(group_of(item), len(numbers))
        return [item for item in items if numbers[group_of(item)] % self.size == self.rank]

    def from_main(self, make: Callable[[], Item]) -> Item:
        """Return in every process what ``make`` gives in the main one; raise everywhere what it raises there."""
        if self.size == 1:
            return make()
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = make()
            except Exception as error:  # it is raised below, in all processes
                box[1] = error
        distributed.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]

    @contextmanager
    def in_main(self, context: AbstractContextManager[Item]) -> Iterator[Item]:
        """Enter a context in the main process, for the time of a ``with`` block of all; give what it gives everywhere.

        What it raises on entry is raised everywhere.
        """
        with ExitStack() as held:
            yield self.from_main(lambda: held.enter_context(context))

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of all processes, process after process."""
        if self.size == 1:
            return list(items)
        boxes: list[Any] = [None] * self.size
        distributed.all_gather_object(boxes, list(items))
        return [item for box in boxes for item in box]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums over processes; as many values in each."""
        if self.size == 1:
            return list(values)
        return [float(sum(column)) for column in zip(*self.gather([tuple(values)]), strict=True)]

    def even(self, parts: Sequence[Item]) -> list[Item | None]:
        """Return the parts of this process, and ``None`` for each that others have more where all must take turns."""
        if self.sharding is None:
            return list(parts)
        most = max(self.gather([len(parts)]))
        return [*parts, *[None] * (most - len(parts))]

    def sum_gradients(self, model: torch.nn.Module) -> None:
        """Replace every trainable parameter's gradient by its sum over processes; none counts as 0."""
        if self.size == 1:
            return
        for parameter in model.parameters():
            # What is sharded was summed on its way back.
            if parameter.requires_grad and not isinstance(parameter, DTensor):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)
