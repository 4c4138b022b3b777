"""TVGBench (Wang et al. 2025, Time-R1): 800 moments from five data sets, 252 of them in a part of a longer video.

All times of a row with a ``clip``, true and predicted, count from the clip's start; ``clip`` says where it lies in the
video file. Faults of the labels: 11 windows have no length and 27 end past the video.
"""

from __future__ import annotations

from timeloupe.eval import strict
from timeloupe.eval.files.grounding import loader
from timeloupe.eval.files.grounding_predictions import read_predictions
from timeloupe.eval.scoring import Benchmark
from timeloupe.eval.scripts import grounding as grounding_scripts
from timeloupe.eval.scripts import grounding_tensors

FILES = "tvgbench.json (Time-R1) or tvgbench.jsonl (TaRO)"


BENCHMARK = Benchmark(
    name="tvgbench",
    title="TVGBench",
    split="test",
    files=FILES,
    load=loader(FILES),
    official=grounding_scripts.OF_TEXTS | grounding_tensors.OF_TEXTS,
    strict=strict.grounding,
    read_predictions=read_predictions,
)
