r"""Seconds that twelve official scripts read out of a model's text, each by its own rule, faults and all.

The rules were taken from the scripts at these commits and written anew; values are equal to theirs on any text.
Deviations, all of form: (1) patterns start only at the first digit of a number and never give characters back
(``(?<!\d)\d++``), which finds the same matches in linear time where the scripts' need quadratic or cubic time;
(2) branches of a script that no text can reach are left out, and the functions say which; (3) where a script raises,
``OfficialError`` is raised with the name of its exception.

What a window means (which one is scored, thresholds, reversed ones) is the scorers' matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from timeloupe.eval.scripts.errors import OfficialError

Span = list[float]

_DECIMAL = r"(?<!\d)(\d++(?:\.\d++)?+)"
_DECIMAL_AFTER = r"(\d++(?:\.\d++)?+)"
_LOOSE = r"(?<!\d)(\d++\.?+\d*+)"
_LOOSE_AFTER = r"(\d++\.?+\d*+)"
_DOTTED = r"(?<!\d)(\d++\.*+\d*+)"
_DOTTED_AFTER = r"(\d++\.*+\d*+)"

_TARO_NUMBER = re.compile(r"\d++(?:\.\d++)?+")
_SIGNED_NUMBER = re.compile(r"-?\d++\.?+\d*+")
_DOTTED_NUMBER = re.compile(r"\d++\.*+\d*+")
_WORD_NUMBER = re.compile(r"\b\d+(?:\.\d+)?\b")
_TO_OR_AND = re.compile(_LOOSE + " (?:to|and) " + _LOOSE_AFTER)
_LOOSE_DASH = re.compile(_LOOSE + r"\s*+-\s*+" + _LOOSE_AFTER)
_LOOSE_TO = re.compile(_LOOSE + r"\s++to\s++" + _LOOSE_AFTER)
_DOTTED_DASH = re.compile(_DOTTED + r"\s*+-\s*+" + _DOTTED_AFTER)
_DOTTED_TO = re.compile(_DOTTED + r"\s++(?<= )to \s*+" + _DOTTED_AFTER)
_DECIMAL_DASH = re.compile(_DECIMAL + r"\s*+[–-]\s*+" + _DECIMAL_AFTER)
_DECIMAL_S_DASH = re.compile(_DECIMAL + r"\s*+s?+\s*+[–-]\s*+" + _DECIMAL_AFTER)
_DECIMAL_ANY = re.compile(_DECIMAL + r"\s*+(?:-|to|~|–|—)\s*+" + _DECIMAL_AFTER)
_CLOCK_FRACTION = re.compile(r"\b(\d{1,2}:\d{2}:\d{2}(?:\.\d+)?|\d{1,2}:\d{2}(?:\.\d+)?)\b")
_CLOCK = re.compile(r"\b(\d{1,2}:\d{2}(?::\d{2})?)\b")
_CLOCK_DASH = re.compile(r"\b(\d{1,2}:\d{2}(?::\d{2})?)\s*[–-]\s*(\d{1,2}:\d{2}(?::\d{2})?)\b")
_MINUTES = re.compile(r"(?<!\d)\d++:\d++")
_SENTENCE_END = re.compile(r"[!?\n]")

_PROMPT_EXAMPLE = "a specific example is : 20.8 - 30.0 seconds"
_MOST_REPLACEMENTS = 2


def taro(text: str) -> list[float] | list[None]:
    """Return the last two numbers of the text in rising order; ``[None, None]`` with fewer than two. Signs are lost.

    Source: oceanflowlab/TaRO@143a234f standalone_eval/evaluate_vtg.py ``extract_time``.
    """
    numbers = [float(number) for number in _TARO_NUMBER.findall(text)]
    return sorted(numbers[-2:]) if len(numbers) >= 2 else [None, None]


def time_r1(text: str) -> list[float] | list[None]:
    """Return the last ``a to b`` or ``a and b`` with one blank on both sides of the word, else ``[None, None]``.

    Source: xiaomi-research/time-r1@7f2b5944 evaluate.py ``extract_answer(..., "tg")``. Its second look inside
    ``<answer>`` is never of use: what matches there matches in the whole text.
    """
    last = None
    for match in _TO_OR_AND.finditer(text):
        last = match
    return [None, None] if last is None else [float(last.group(1)), float(last.group(2))]


def timelens(text: str) -> list[Span]:
    """Return all windows: clock times in pairs, else ``a - b``, else ``a to b``, else all whole-word numbers in pairs.

    A window is as written, reversed or not; the first is the one scored. ``8.50s`` is 8, for there is a word boundary
    before the point and none before the ``s``. One clock time alone counts as none.

    Source: TencentARC/TimeLens@5d90c067 timelens/utils.py ``extract_time``; the same values come out of
    EvolvingLMMs-Lab/lmms-eval@75571cfe tasks/timelens/utils.py.
    """
    text = text.lower()
    if found := _in_pairs([_clock_seconds(clock) for clock in _CLOCK_FRACTION.findall(text)]):
        return found
    for pattern in (_LOOSE_DASH, _LOOSE_TO):
        if found := _windows(pattern, text):
            return found
    return _in_pairs([float(number) for number in _WORD_NUMBER.findall(text)])


def timesuite(text: str) -> list[Span]:
    """Return at most one window: the first ``a - b``, else the first numbers of two sentences that speak of an event.

    Sentences end at ``!``, ``?`` and line ends, and speak of an event where "start", "end" or "happen" is in them.
    Reversed windows are turned. TimeChat's script is the same.

    Source: OpenGVLab/TimeSuite@d68f5feb eval/format_tvg.py ``extract_time``. Left out: its example of the prompt is
    not removed (the result of ``replace`` is dropped), and its branch for ``hh:mm:ss`` is reached only where at most
    one sentence holds a number, where it finds no pair.

    Raises:
        OfficialError: ``ValueError``, where any ``a - b`` of the text has several points in a row (``5..5``).
    """
    return _dotted(text, (_DOTTED_DASH,))[:1]


def etbench(text: str) -> list[Span] | None:
    """Return all windows: every ``a - b``, else every ``a to b``, else as ``timesuite``; ``None`` if there is none.

    The first is scored for tvg, tem and gvq. "to" needs a blank on its left and its right.

    Source: ``tvg_format`` of E.T.Bench's compute_metrics.py as in THUNLP-MT/MUSEG@889565e7 data/eval/et_bench. Left
    out: as in ``timesuite``.

    Raises:
        OfficialError: ``ValueError`` as in ``timesuite``.
    """
    return _dotted(text, (_DOTTED_DASH, _DOTTED_TO)) or None


def lmms_charades(text: str) -> list[Span]:
    """Return at most one window, in rising order, from sentences that speak of an event, or from all if none does.

    "to" becomes "-" everywhere, also inside words. Tried in turn, each over the sentences in order: ``mm:ss - mm:ss``,
    ``a - b`` (also with an en dash), the first two clock times, the first numbers of the first two sentences with
    one, ``a s - b s``.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe lmms_eval/tasks/charades_sta/utils.py ``extract_time``.
    """
    sentences = _sentences(text.lower().replace(_PROMPT_EXAMPLE, "").replace("to", "-"))
    chosen = [sentence for sentence in sentences if _speaks_of_event(sentence)] or sentences
    if match := _first(_CLOCK_DASH, chosen):
        return [_rising(_clock_seconds(match.group(1)), _clock_seconds(match.group(2)))]
    if match := _first(_DECIMAL_DASH, chosen):
        return [_rising(float(match.group(1)), float(match.group(2)))]
    clocks = [_clock_seconds(clock) for sentence in chosen for clock in _CLOCK.findall(sentence)]
    for times in (clocks, _first_numbers(chosen)):
        if len(times) >= 2:
            return [_rising(times[0], times[1])]
    match = _first(_DECIMAL_S_DASH, chosen)
    return [_rising(float(match.group(1)), float(match.group(2)))] if match else []


def lmms_eval_tvg(text: str) -> list[Span]:
    """Return at most one window, in rising order, from sentences that speak of an event; none from others.

    As ``lmms_charades`` without the clock times.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe lmms_eval/tasks/charades_sta/eval_tvg.py ``extract_time``. Left out:
    its branch for ``hh:mm:ss`` (see ``timesuite``).
    """
    sentences = _sentences(text.lower().replace(_PROMPT_EXAMPLE, "").replace("to", "-"))
    chosen = [sentence for sentence in sentences if _speaks_of_event(sentence)]
    if match := _first(_DECIMAL_DASH, chosen):
        return [_rising(float(match.group(1)), float(match.group(2)))]
    times = _first_numbers(chosen)
    if len(times) >= 2:
        return [_rising(times[0], times[1])]
    match = _first(_DECIMAL_S_DASH, chosen)
    return [_rising(float(match.group(1)), float(match.group(2)))] if match else []


def extremewhen(text: str) -> Span | None:
    """Return the last ``a - b`` (also "to", ``~``, en and em dash) in rising order, or ``None``. Case counts.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe lmms_eval/tasks/extremewhenbench/utils.py ``_parse_interval``.
    """
    last = None
    for match in _DECIMAL_ANY.finditer(text):
        last = match
    return None if last is None else sorted((float(last.group(1)), float(last.group(2))))


def museg(text: str) -> list[Span]:
    """Return all numbers of an answer's inside in pairs; nothing if one is odd, reversed, empty or ``5..5``.

    Source: THUNLP-MT/MUSEG@889565e7 src/eval_grounding.py ``eval``; ``museg_answer`` gives the inside.
    """
    try:
        numbers = [float(number) for number in _DOTTED_NUMBER.findall(text)]
    except ValueError:  # the script catches whatever goes wrong here
        return []
    spans = _in_pairs(numbers)
    return spans if len(numbers) % 2 == 0 and all(start < end for start, end in spans) else []


def museg_answer(text: str) -> str:
    """Return what stands between the only ``<answer>`` and the only ``</answer>``, without outer blanks, else "".

    Source: THUNLP-MT/MUSEG@889565e7 src/eval_grounding.py ``main``.
    """
    if text.count("<answer>") != 1 or text.count("</answer>") != 1:
        return ""
    inside, closing, _ = text.partition("<answer>")[2].partition("</answer>")
    return inside.strip() if closing else ""


def videotemp(text: str) -> Span | None:
    """Return the first two numbers, a hyphen before digits being a minus sign: ``10-20`` is [10, -20]; else ``None``.

    Source: Kwai-Keye/VideoTemp-o3 eval/score.py ``eval_videotemp_grounding`` (nearest commit e30b4d98).
    """
    found: Span = []
    for match in _SIGNED_NUMBER.finditer(text):
        found.append(float(match.group()))
        if len(found) == 2:
            return found
    return None


def open_o3(text: str) -> Span:
    """Return the only two whole-word numbers of the first ``<answer>``, or of all the text; else nothing.

    Every ``m:s`` is first replaced, wherever its characters stand, by its seconds: in ``0:24 10:24`` the first also
    eats the end of the second.

    Source: marinero4972/Open-o3-Video@1eb6ecae eval/test/eval_vstar.py ``refined_timestamps``. Deviation: a third
    replacement means a third number, and so the end.

    Raises:
        OfficialError: ``ValueError``, for minutes or seconds of more than 4300 digits.
    """
    _, opening, rest = text.partition("<answer>")
    inside, closing, _ = rest.partition("</answer>")
    result = inside.strip() if opening and closing else text
    clocks = dict.fromkeys(_MINUTES.findall(result))
    try:
        tagged = {clock: f"<t>{_minutes_seconds(clock)}</t>s" for clock in clocks}
    except ValueError as error:
        raise OfficialError("ValueError", str(error)) from error
    replaced = 0
    for clock, tag in tagged.items():
        replaced += result.count(clock)
        if replaced > _MOST_REPLACEMENTS:
            return []
        result = result.replace(clock, tag)
    numbers = [float(number) for number in _WORD_NUMBER.findall(result)]
    return numbers if len(numbers) == 2 else []


def _dotted(text: str, patterns: Sequence[re.Pattern[str]]) -> list[Span]:
    """Return what TimeSuite and E.T.Bench share: windows by pattern, else first numbers of sentences, rising."""
    text = text.lower()
    for pattern in patterns:
        try:
            found = _windows(pattern, text)
        except ValueError as error:
            raise OfficialError("ValueError", str(error)) from error
        if found:
            return [_rising(start, end) for start, end in found]
    chosen = [sentence for sentence in _sentences(text) if _speaks_of_event(sentence)]
    return [_rising(start, end) for start, end in _in_pairs(_first_numbers(chosen))]


def _sentences(text: str) -> list[str]:
    return _SENTENCE_END.split(text)


def _speaks_of_event(sentence: str) -> bool:
    return "start" in sentence or "end" in sentence or "happen" in sentence


def _first(pattern: re.Pattern[str], sentences: Iterable[str]) -> re.Match[str] | None:
    return next((match for sentence in sentences if (match := pattern.search(sentence))), None)


def _first_numbers(sentences: Iterable[str]) -> list[float]:
    """Return the first whole-word number of each sentence that has one."""
    return [float(match.group()) for sentence in sentences if (match := _WORD_NUMBER.search(sentence))]


def _windows(pattern: re.Pattern[str], text: str) -> list[Span]:
    return [[float(start), float(end)] for start, end in pattern.findall(text)]


def _in_pairs(times: Sequence[float]) -> list[Span]:
    """Return the times two by two; an odd last one is dropped."""
    return [[times[at], times[at + 1]] for at in range(0, len(times) - 1, 2)]


def _rising(start: float, end: float) -> Span:
    return [start, end] if end > start else [end, start]


def _clock_seconds(clock: str) -> float:
    """Return the seconds of ``h:m:s`` or ``m:s``, where the last part may have a fraction."""
    *hours, minutes, seconds = (float(part) for part in clock.split(":"))
    return (hours[0] * 3600 if hours else 0.0) + minutes * 60 + seconds


def _minutes_seconds(clock: str) -> int:
    minutes, seconds = clock.split(":")
    return int(minutes) * 60 + int(seconds)


TIME_EXTRACTORS: dict[str, Callable[[str], Any]] = {
    "TaRO.extract_time": taro,
    "TimeR1.extract_answer(tg)": time_r1,
    "TimeLens.extract_time (all pairs; first is scored)": timelens,
    "TimeChat/TimeSuite.format_tvg.extract_time": timesuite,
    "lmms-eval HEAD charades_sta.utils.extract_time": lmms_charades,
    "lmms-eval charades_sta/eval_tvg.extract_time": lmms_eval_tvg,
    "lmms-eval timelens.extract_time (all pairs; first is scored)": timelens,
    "lmms-eval extremewhenbench._parse_interval": extremewhen,
    "ETBench.tvg_format (all; first is scored for tvg/tem/gvq)": etbench,
    "MUSEG eval_grounding (on text already inside <answer>)": museg,
    "VideoTemp-o3 score.py (first two numbers)": videotemp,
    "Open-o3-Video.refined_timestamps": open_o3,
}
"""By the name that the shared reference of extractors gives each script."""
