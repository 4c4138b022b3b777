"""How a report splits questions: by the fields of the benchmark, and by the length of the video. Pure."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from timeloupe.eval.scoring import Row

MAX_CATEGORIES = 40
"""A field with more values than this is no category but free text or an id."""

EDGES = (30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0)
"""Bounds of the bins of length, in seconds; where fewer than three are used, quarters of the questions."""


def category_values(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return the fields that questions are split by, with their values, the most frequent first.

    A field with one value, or with more than ``MAX_CATEGORIES``, is left out.
    """
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in groups_of(row).items():
            counts.setdefault(name, Counter())[value] += 1
    return {
        name: [value for value, _ in some.most_common()]
        for name, some in counts.items()
        if 2 <= len(some) <= MAX_CATEGORIES
    }


def groups_of(row: Row) -> dict[str, str]:
    """Return what a question belongs to: its task, and what its benchmark splits tables by."""
    return {"task": row.task} | {str(name): str(value) for name, value in row.groups.items()}


def duration_bins(lengths: Sequence[float]) -> dict[str, tuple[float, float]]:
    """Return bins of length by their name, ``[low, high)`` in seconds, only those that hold something.

    The bounds are ``EDGES``; where these would make fewer than three bins, the quartiles of the lengths.
    """
    if not lengths:
        return {}
    found = _bins(lengths, EDGES)
    if len(found) < 3 and len(set(lengths)) >= 4:
        found = _bins(lengths, statistics.quantiles(lengths, n=4))
    return found


def _bins(lengths: Sequence[float], edges: Sequence[float]) -> dict[str, tuple[float, float]]:
    bounds = [0.0, *sorted(set(edges)), math.inf]
    words = _bound_words([bound for bound in bounds if 0 < bound < math.inf])
    found: dict[str, tuple[float, float]] = {}
    for low, high in zip(bounds, bounds[1:], strict=False):
        if any(low <= length < high for length in lengths):
            found[_bin_name(low, high, words)] = (low, high)
    return found


def _bound_words(bounds: Sequence[float]) -> dict[float, str]:
    """Bounds in words, with as many decimals as tell them apart."""
    for more in range(16):
        words = {
            bound: f"{bound:.{more}f} s" if bound < 180 else f"{bound / 60:.{3 + more}g} min"
            for bound in bounds
        }
        if len(set(words.values())) == len(words):
            return words
    return {bound: f"{bound!r} s" for bound in bounds}


def _bin_name(low: float, high: float, words: Mapping[float, str]) -> str:
    if low == 0:
        return f"under {words[high]}"
    return f"{words[low]} and more" if math.isinf(high) else f"{words[low]} to {words[high]}"
