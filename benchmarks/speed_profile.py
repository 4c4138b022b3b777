"""Where the time of one training step goes, and how far it is from the machine's matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

ROUNDS = 4


def product_rate(rows: int, inner: int, columns: int) -> float:
    """Return the floating-point operations per CPU second of one product, best of some."""
    left, right = torch.randn(rows, inner), torch.randn(columns, inner)
    best = 0.0
    for _ in range(10):
        began = time.process_time()
        for _ in range(20):
            torch.nn.functional.linear(left, right)
        best = max(best, 20 * 2 * rows * inner * columns / (time.process_time() - began))
    return best


def count_products(work: Callable[[], Any]) -> int:
    """Return the floating-point operations of all products in ``work``, attention counted without its causal half."""

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_backward_flop_count(gradient, query, key, value)

    aten = torch.ops.aten
    mapping: dict[Any, Any] = {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        work()
    return counter.get_total_flops()


class Clock:
    """CPU seconds of named parts; a part inside another is taken out of that one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.inside = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens inside."""
        outside, self.inside = self.inside, 0.0
        began = time.process_time()
        yield
        taken = time.process_time() - began
        self.seconds[name] = self.seconds.get(name, 0.0) + taken - self.inside
        self.inside = outside + taken

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Count the calls of a function from now on."""
        inner = getattr(owner, attribute)

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return inner(*args, **kwargs)

        setattr(owner, attribute, counted)


def profile(work: Callable[[int], Any], model: Any) -> dict[str, Any]:
    """Return shares of a step's time, and ``matmul_fraction``."""
    from timeloupe.policy import local
    from timeloupe.train import update

    work(0)
    config = model.config.get_text_config()
    rate = product_rate(700, config.hidden_size, config.intermediate_size)
    operations = count_products(lambda: work(1))
    began = time.process_time()
    for number in range(2, 2 + ROUNDS):
        work(number)
    seconds = (time.process_time() - began) / ROUNDS
    clock = Clock()
    clock.watch(local, "_decode", "decoding")
    clock.watch(local, "read", "reading the prompt")
    clock.watch(local, "choose", "choosing tokens")
    clock.watch(update, "pack", "packing")
    clock.watch(update, "log_probs", "forward")
    clock.watch(torch.Tensor, "backward", "backward")
    clock.watch(update, "update", "rest of the update")
    clock.watch(torch.optim.AdamW, "step", "optimizer")
    with clock.part("everything else"):
        for number in range(2 + ROUNDS, 2 + 2 * ROUNDS):
            work(number)
    total = sum(clock.seconds.values())
    shares = {name: part / total for name, part in sorted(clock.seconds.items(), key=lambda item: -item[1])}
    parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.01)
    words = f"{parts}; {operations / 1e9:.1f} GFLOP of products, one product alone runs at {rate / 1e9:.0f} GFLOP/s"
    return {
        "matmul_fraction": operations / rate / seconds, "gflop": operations / 1e9, "gflops_limit": rate / 1e9,
        "seconds": seconds, "shares": shares, "words": words,
    }  # fmt: skip
