"""What can be had without looking: predictions of rules that see no frame, to stand beside every score."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from timeloupe.eval.qa_grounding import Halves
from timeloupe.eval.scoring import Row

SHARE = 5
"""``middle`` and ``random`` name a span of one fifth of the video."""


def baselines(rows: Sequence[Row], seed: int = 0, *, joint: bool = False) -> dict[str, dict[str, Any]]:
    """Return the predictions of each trivial rule by its name, for the strict mode.

    - ``whole video``: [0, duration]
    - ``middle``: the middle fifth
    - ``random``: a fifth at random, or a random letter
    - ``constant letter``: the letter that is right most often in this very set, the hardest of the constants

    Args:
        rows: The questions. Where no duration is known the first three have no window, and are left out if that
            is so everywhere.
        seed: Of ``random``.
        joint: Rows with options and windows are answered by both, as ``Halves``: the windows of the first two rules
            with the constant letter, those of ``random`` with its letter. Else such rows get letters alone.
    """
    draw = random.Random(seed)
    answers = Counter(row.answer for row in rows if row.options and row.answer is not None)
    letter = answers.most_common(1)[0][0] if answers else None
    found: dict[str, dict[str, Any]] = {"whole video": {}, "middle": {}, "random": {}, "constant letter": {}}
    for row in rows:
        letters: dict[str, Any] = {}
        if row.options:
            letters = {"random": chr(ord("A") + draw.randrange(len(row.options))), "constant letter": letter}
        given = _windows(row, draw) if joint or not letters else {}
        if letters and given:
            both = dict.fromkeys(given, letter) | letters
            given = {name: Halves(one, given.get(name)) for name, one in both.items()}
        for name, guess in (letters | given).items():
            found[name][row.id] = guess
    return {name: predictions for name, predictions in found.items() if predictions}


def _windows(row: Row, draw: random.Random) -> dict[str, Any]:
    if not row.windows or not row.duration_seconds:
        return {}
    span = row.duration_seconds / SHARE
    start = draw.uniform(0, row.duration_seconds - span)
    return {
        "whole video": [[0.0, row.duration_seconds]],
        "middle": [[2 * span, 3 * span]],
        "random": [[start, start + span]],
    }
