"""ActivityNet Captions (Krishna et al. 2017) as a grounding task: the one moment that a sentence describes.

Of the 15,933 rows of TaRO's file 115 end past the video, and 10,589 queries have blanks around them.
"""

from __future__ import annotations

from timeloupe.eval import strict
from timeloupe.eval.files.grounding import loader
from timeloupe.eval.files.grounding_predictions import read_predictions
from timeloupe.eval.scoring import Benchmark
from timeloupe.eval.scripts import grounding as grounding_scripts
from timeloupe.eval.scripts import grounding_tensors

FILES = "activitynet_val_1.jsonl (TaRO), or val_1.json or val_2.json as first released"


BENCHMARK = Benchmark(
    name="activitynet_captions",
    title="ActivityNet Captions",
    split="val_1",
    files=FILES,
    load=loader(FILES),
    official=grounding_scripts.OF_TEXTS | grounding_tensors.OF_TEXTS,
    strict=strict.grounding,
    read_predictions=read_predictions,
)
