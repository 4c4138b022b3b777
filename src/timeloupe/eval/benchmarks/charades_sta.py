"""Charades-STA (Gao et al. 2017): the one moment of a short indoor video that a sentence describes.

Copies of the test set differ: TaRO's ends are cut at the video's end (551 of 3720 rows) and seven of its queries end at
a comma; MUSEG's, TimeSuite's and the first release agree with each other. Say with a figure which one it is of.
"""

from __future__ import annotations

from timeloupe.eval import strict
from timeloupe.eval.files.grounding import loader
from timeloupe.eval.files.grounding_predictions import read_predictions
from timeloupe.eval.scoring import Benchmark
from timeloupe.eval.scripts import grounding as grounding_scripts
from timeloupe.eval.scripts import grounding_tensors

FILES = "charades_sta_test.jsonl (TaRO) or .txt (first release), charades_sta.json (MUSEG) or "
FILES += "test.caption_coco_format.json (TimeSuite)"


BENCHMARK = Benchmark(
    name="charades_sta",
    title="Charades-STA",
    split="test",
    files=FILES,
    load=loader(FILES),
    official=grounding_scripts.OF_TEXTS | grounding_tensors.OF_TEXTS,
    strict=strict.grounding,
    read_predictions=read_predictions,
)
