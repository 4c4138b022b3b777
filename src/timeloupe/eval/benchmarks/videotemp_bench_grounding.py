"""VideoTemp-Bench, grounding (VideoTemp-o3): the moment that answers a question, videos of seconds to hours."""

from __future__ import annotations

from pathlib import Path

from timeloupe.eval import strict
from timeloupe.eval.files.grounding import load_rows
from timeloupe.eval.files.grounding_predictions import read_predictions
from timeloupe.eval.scoring import Benchmark, Row
from timeloupe.eval.scripts.grounding import videotemp

FILES = "the records of VideoTemp-Bench (videos, question, answer, duration, timestamp) as JSON or JSONL"


def load(path: Path) -> list[Row]:
    """Return the rows of an annotation file of any layout of ``files.grounding``.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid; the message names line and field.
    """
    return load_rows(path, FILES)


BENCHMARK = Benchmark(
    name="videotemp_bench_grounding",
    title="VideoTemp-Bench, grounding",
    split="test",
    files=FILES,
    load=load,
    official={"videotemp-o3": videotemp},
    strict=strict.grounding,
    read_predictions=read_predictions,
)
