"""TimeLens-Bench (Zhang et al. 2025): Charades-STA, ActivityNet Captions and QVHighlights with labels made anew.

A prediction of TimeLens' layout is ``{"timestamps": [...], "answers": "text"}``. Its scripts score the timestamps,
which its own inference has rounded to whole seconds; the strict mode reads the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timeloupe.eval import strict as strictly
from timeloupe.eval.files.grounding import load_rows
from timeloupe.eval.files.grounding_predictions import read_predictions
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.grounding import lmms_timelens, timelens

FILES = "charades-timelens.json, activitynet-timelens.json or qvhighlights-timelens.json, or a prediction file, whose "
FILES += "keys `video>>>query>>>window` hold the truth"


def load(path: Path) -> list[Row]:
    """Return the rows of an annotation file of any layout of ``files.grounding``.

    Raises:
        MissingError: There is no such file.
        RecordError: A record is not valid; the message names line and field.
    """
    return load_rows(path, FILES)


def compute_metrics(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return what ``evaluation/compute_metrics.py`` prints (``scripts.grounding.timelens``).

    Raises:
        OfficialError: A prediction has neither timestamps nor answers, a key a nested window, or a hull no length.
    """
    _check_spans(rows, predictions)
    return timelens(rows, {id: _scored(prediction) for id, prediction in predictions.items()})


def lmms_eval(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return what lmms-eval's task prints (``scripts.grounding.lmms_timelens``); it scores texts."""
    return lmms_timelens(rows, {id: _text(prediction) for id, prediction in predictions.items()})


def strict(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the strict figures: of the text where there is one, else of the timestamps."""
    return strictly.grounding(rows, {id: _text(prediction) for id, prediction in predictions.items()})


def _scored(prediction: Any) -> Any:
    """What the script scores of a prediction: timestamps go before the text."""
    if not isinstance(prediction, dict):
        return prediction
    for name in ("timestamps", "answers"):
        if name in prediction:
            return prediction[name]
    raise OfficialError("ValueError", f"Unexpected key in prediction: {prediction}")


def _text(prediction: Any) -> Any:
    if not isinstance(prediction, dict):
        return prediction
    return prediction.get("answers", prediction.get("timestamps"))


def _check_spans(rows: Sequence[Row], predictions: Predictions) -> None:
    """A key ``video>>>query>>>[[start, end]]`` cannot be scored: a number is compared with a list."""
    for row in rows:
        span = row.raw.get("span") if "key" in row.raw else None
        if row.id in predictions and isinstance(span, list) and span and isinstance(span[0], list):
            raise OfficialError("TypeError", "'>' not supported between instances of 'float' and 'list'")


BENCHMARK = Benchmark(
    name="timelens",
    title="TimeLens-Bench",
    split="test",
    files=FILES,
    load=load,
    official={"timelens": compute_metrics, "lmms-eval-timelens": lmms_eval},
    strict=strict,
    read_predictions=read_predictions,
)
