"""THUMOS14 and THUMOS15 in MUSEG's form: every moment of a video that shows an action, one to many per question.

The files have no durations, so windows of the strict mode are not cut at the video's end.
"""

from __future__ import annotations

from timeloupe.eval import strict
from timeloupe.eval.files.grounding import loader
from timeloupe.eval.files.grounding_predictions import read_predictions
from timeloupe.eval.scoring import Benchmark
from timeloupe.eval.scripts.grounding_tensors import museg_tal, museg_tvg

FILES = "thumos14.json or thumos15.json of THUNLP-MT/MUSEG"


BENCHMARK = Benchmark(
    name="museg_grounding",
    title="THUMOS14/15 (MUSEG)",
    split="validation",
    files=FILES,
    load=loader(FILES, "multi_segment"),
    official={"museg-tal": museg_tal, "museg": museg_tvg},
    strict=strict.multi_segment,
    read_predictions=read_predictions,
)
