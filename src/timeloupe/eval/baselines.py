"""What can be had without looking: predictions of rules that see no frame, to stand beside every score."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from timeloupe.eval.scoring import Row

SHARE = 5
"""``middle`` and ``random`` name a span of one fifth of the video."""


def baselines(rows: Sequence[Row], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return the predictions of each trivial rule by its name, for the strict mode.

    - ``whole video``: [0, duration]
    - ``middle``: the middle fifth
    - ``random``: a fifth at random, or a random letter
    - ``constant letter``: the letter that is right most often in this very set, the hardest of the constants

    Args:
        rows: The questions. Where no duration is known the first three have no window, and are left out if that
            is so everywhere.
        seed: Of ``random``.
    """
    draw = random.Random(seed)
    answers = Counter(row.answer for row in rows if row.options and row.answer is not None)
    letter = answers.most_common(1)[0][0] if answers else None
    found: dict[str, dict[str, Any]] = {"whole video": {}, "middle": {}, "random": {}, "constant letter": {}}
    for row in rows:
        if row.options:
            found["random"][row.id] = chr(ord("A") + draw.randrange(len(row.options)))
            found["constant letter"][row.id] = letter
        elif row.windows and row.duration_seconds:
            span = row.duration_seconds / SHARE
            start = draw.uniform(0, row.duration_seconds - span)
            found["whole video"][row.id] = [[0.0, row.duration_seconds]]
            found["middle"][row.id] = [[2 * span, 3 * span]]
            found["random"][row.id] = [[start, start + span]]
    return {name: predictions for name, predictions in found.items() if predictions}
