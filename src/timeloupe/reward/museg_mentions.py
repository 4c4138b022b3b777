"""How often a thought names the times of an answer: the search of MUSEG's format reward, in linear time.

The release (THUNLP-MT/MUSEG@889565e7, ``src/train.py``) runs one regular expression per time over the whole thought:
``str(x)`` of the float, unescaped. So ``.`` stands for any character, the ``+`` of ``1e+17`` for repeated ``e``, and a
time is found inside a longer number. One search per time takes seconds for a long answer over a long thought; here all
times of one shape (digits before and behind the point) are looked up in one pass, and there are few shapes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

_SHAPE = re.compile(r"(\d+)(?:\.(\d+))?(?:e([+-])(\d+))?")
_DIGIT = re.compile(r"[0-9]")
_E_RUN = re.compile(r"e+")
_NUMBER = re.compile(r"[0-9]++(?:\.[0-9]++)?+")

_Shape = tuple[int, int, str, int]
"""Digits before the point, digits behind it, sign of the exponent ("" if there is none), its digits."""


def mentions_as_pattern(thought: str, times: Iterable[float]) -> dict[str, int]:
    """Return, per ``str(time)``, how many matches ``re.findall(str(time), thought, re.DOTALL)`` has.

    Args:
        thought: Any text.
        times: Floats >= 0, or NaN or infinite.
    """
    wanted = {str(time) for time in times}
    shapes: defaultdict[_Shape, set[str]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for text in wanted:
        if (found := _SHAPE.fullmatch(text)) is None:
            counts[text] = thought.count(
                text
            )  # "nan" and "inf" hold no sign that means something in a pattern
        else:
            whole, part, sign, power = found.groups(default="")
            shapes[len(whole), len(part), sign, len(power)].add(text)
    # Where there are no digits there is no match.
    starts = [found.start() for found in _DIGIT.finditer(thought)] if shapes else []
    run_ends = {found.start(): found.end() for found in _E_RUN.finditer(thought)}
    for shape, texts in shapes.items():
        counts.update(_count_shape(thought, starts, run_ends, shape, texts))
    return {text: counts[text] for text in wanted}


def _count_shape(
    thought: str, starts: list[int], run_ends: dict[int, int], shape: _Shape, texts: set[str]
) -> Counter[str]:
    """Matches that do not overlap, leftmost first, of patterns of one shape, looked for at ``starts`` only."""
    num_whole, num_part, sign, num_power = shape
    counts: Counter[str] = Counter()
    free_from: dict[str, int] = {}
    for start in starts:
        end = start + num_whole
        found = thought[start:end]
        if num_part:
            found += "." + thought[end + 1 : end + 1 + num_part]
            end += 1 + num_part
        if sign == "-":
            found += thought[end : end + 2 + num_power]
            end += 2 + num_power
        elif sign:
            # The digit of the exponent ends the run of "e", so the pattern takes the whole of it.
            run_end = run_ends.get(end, end)
            found += "e+" * (run_end > end) + thought[run_end : run_end + num_power]
            end = run_end + num_power
        if found in texts and start >= free_from.get(found, 0):
            counts[found] += 1
            free_from[found] = end
    return counts


def mentions_as_number(thought: str, times: Iterable[float]) -> dict[str, int]:
    """Return, per ``str(time)``, how many numbers of the thought are equal to it.

    ``3``, ``3.0`` and ``3.00`` are one number. Unlike the release's search, ``9.2`` is not in ``9.25``, nor ``3.0``
    in ``13.0``.
    """
    numbers = Counter(float(found) for found in _NUMBER.findall(thought))
    return {str(time): numbers[time] for time in times}
