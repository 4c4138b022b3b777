"""Which of our functions answer for V-STaR's vectors and references."""

from __future__ import annotations

from tests.golden.replay import Adapter
from tests.golden.replay_benchmarks import BenchmarkAdapter

ADAPTERS: dict[tuple[str, str], Adapter] = {}

BENCHMARK_ADAPTERS: dict[str, BenchmarkAdapter] = {}
