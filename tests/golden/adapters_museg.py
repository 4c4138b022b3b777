"""Which of our functions answer for the vectors of MUSEG's rewards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.golden.replay import Adapter
from timeloupe.reward import museg

REPOSITORY = "THUNLP-MT/MUSEG"


def _format(timestamps: bool) -> Adapter:
    def scores(inputs: dict[str, Any]) -> list[float]:
        return [museg.score_format(text, timestamps=timestamps) for text in inputs["completions"]]

    return scores


def _matching(score: Callable[..., float]) -> Adapter:
    def scores(inputs: dict[str, Any]) -> list[float]:
        pairs = zip(inputs["completions"], inputs["solution"], strict=True)
        return [score(text, truth) for text, truth in pairs]

    return scores


ADAPTERS: dict[tuple[str, str], Adapter] = {
    (REPOSITORY, "format_with_timestamp"): _format(True),
    (REPOSITORY, "format_without_timestamp"): _format(False),
    (REPOSITORY, "global_matching"): _matching(partial(museg.score_global, guard=False)),
    (REPOSITORY, "local_matching"): _matching(partial(museg.score_local, guard=False)),
    (REPOSITORY, "segment_matching"): _matching(partial(museg.score_segments, guard=False)),
}
