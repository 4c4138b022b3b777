"""Every benchmark by its name."""

from __future__ import annotations

import importlib

from timeloupe.errors import boundary
from timeloupe.eval.scoring import Benchmark

MODULES = {
    "activitynet_captions": "activitynet_captions",
    "cgbench": "cgbench",
    "charades_sta": "charades_sta",
    "etbench": "etbench",
    "longvideobench": "longvideobench",
    "lvbench": "lvbench",
    "mlvu": "mlvu",
    "museg_grounding": "museg_grounding",
    "nextgqa": "nextgqa",
    "nextqa": "nextqa",
    "qvhighlights": "qvhighlights",
    "rextime": "rextime",
    "timelens": "timelens",
    "tvgbench": "tvgbench",
    "videomme": "videomme",
    "videommmu": "videommmu",
    "videotemp_bench_grounding": "videotemp_bench_grounding",
    "videotemp_bench_mcq": "videotemp_bench_mcq",
    "vstar": "vstar",
    "world": "world",
}
"""Name on the command line -> module of ``timeloupe.eval.benchmarks`` that defines its ``BENCHMARK``."""


def benchmark(name: str) -> Benchmark:
    """Return the benchmark of that name.

    Raises:
        ConfigError: There is none.
    """
    module = MODULES.get(name.lower().replace("-", "_"))
    if module is None:
        raise boundary("benchmark", name, MODULES)
    found = importlib.import_module(f"timeloupe.eval.benchmarks.{module}").BENCHMARK
    assert isinstance(found, Benchmark)
    return found
