"""VideoTemp-Bench, grounding (VideoTemp-o3): the moment that answers a question, videos of seconds to hours."""

from __future__ import annotations

from timeloupe.eval import strict
from timeloupe.eval.files.grounding import loader
from timeloupe.eval.files.grounding_predictions import read_predictions
from timeloupe.eval.scoring import Benchmark
from timeloupe.eval.scripts.grounding import videotemp

FILES = "the records of VideoTemp-Bench (videos, question, answer, duration, timestamp) as JSON or JSONL"


BENCHMARK = Benchmark(
    name="videotemp_bench_grounding",
    title="VideoTemp-Bench, grounding",
    split="test",
    files=FILES,
    load=loader(FILES),
    official={"videotemp-o3": videotemp},
    strict=strict.grounding,
    read_predictions=read_predictions,
)
