"""How E.T. Bench's own script reads times and sentences out of dense captions: ``dvc_format`` and what it calls.

Source: THUNLP-MT/MUSEG@889565e78b21, data/eval/et_bench/compute_metrics.py, which is E.T. Bench's compute_metrics.py
(Liu et al. 2024, "E.T. Bench", section 4). Faults of the script are kept; an exception that leaves the script is an
``OfficialError``. Answers to the other tasks are read by ``timeloupe.eval.extractors.times.etbench``.

Deviations:

1. The script strikes out each time span everywhere in the text, one span after the other, which takes time quadratic
   in the length. Beyond ``MAX_STRUCK_CHARACTERS`` of such work all are struck out in one pass, each in its own place.
2. Patterns are written so that a hostile text cannot make them go back; what they find is the same.
"""

from __future__ import annotations

import re

from timeloupe.eval.scripts.errors import OfficialError

Times = list[list[float]]

RADIUS_SECONDS = 20
"""A caption at a single time is taken to last from this long before it to this long after."""

MAX_STRUCK_CHARACTERS = 200_000_000

# The script's number: digits, any number of dots, digits. "3..5" is one, and float() then fails on it.
_NUMBER = r"\d++\.*+\d*+"
_DASHED = re.compile(rf"(?<!\d)({_NUMBER})\s*+-\s*+({_NUMBER})")
_CLOCK = re.compile(rf"(?<!\d){_NUMBER}:{_NUMBER}")
_LOOSE_NUMBER = re.compile(r"\d+\.*\d*(?!\.)")
_START_TIME = re.compile(rf"start(?:ing)? time: ({_NUMBER})(?:s| seconds)?", re.IGNORECASE)
_END_TIME = re.compile(rf"end(?:ing)? time: ({_NUMBER})(?:s| seconds)?", re.IGNORECASE)
_DESCRIPTION = re.compile(r"description: (.*)")
_BULLET = re.compile(r"\*\s*(.*)")
_START_AND_END = re.compile(rf"start time {_NUMBER}, end time {_NUMBER}")


def extract_time_part(time_part: str) -> list[str]:
    """Return the time spans of the piece of a caption before the word "seconds", as the script writes them.

    ``a - b`` as it stands; else ``M:SS``, one or two of them; else one or two numbers. A single time becomes a span of
    ``2 * RADIUS_SECONDS`` around it, or after it if it lies within the first ``RADIUS_SECONDS``. Three numbers or more
    come back one by one.

    Raises:
        OfficialError: ``IndexError`` or ``ValueError``, where colons or dots do not make a time.
    """
    try:
        return _time_part(time_part)
    except (IndexError, ValueError) as error:
        raise OfficialError(type(error).__name__, str(error)) from error


def extract_time_from_paragraph(paragraph: str) -> tuple[Times, list[str]]:
    """Return the spans of a paragraph and as many captions; both empty if it is not written as the script expects.

    Pairs are as written, reversed ones too. Captions are what is left of the text, cut at the spans; those of up to
    five characters are dropped, and the longer of the two lists loses its tail.

    Raises:
        OfficialError: ``ValueError``, where a number has two dots in a row; ``AssertionError``, where the text says
            ``start time 1, end time 2``, which the script reads and then refuses.
    """
    text = paragraph.lower()
    captions: list[str] = []
    matches = list(_DASHED.finditer(text))
    times = [[_float(match[1]), _float(match[2])] for match in matches]
    if matches:
        captions = _strike(text, [match.group() for match in matches]).replace("seconds", "").split("\n")
    if not times:
        starts, ends = _START_TIME.findall(text), _END_TIME.findall(text)
        times = [[_float(one), _float(two)] for one, two in zip(starts, ends, strict=False)]
        if times:
            captions = _DESCRIPTION.findall(text) or _BULLET.findall(text)
    if not times and _START_AND_END.search(text):
        raise OfficialError("AssertionError", "start and end times without colons")
    captions = [caption.strip().strip(", ").rstrip() for caption in captions if len(caption) > 5]
    length = min(len(times), len(captions))
    return times[:length], captions[:length]


def dvc_format(caption: str) -> tuple[Times, list[str]] | tuple[None, None]:
    """Return the spans of a dense caption, each with start <= end, and their sentences; ``(None, None)`` if none.

    If the whole text is not a paragraph of spans, only its first line (or sentence) that has a time counts.
    """
    try:
        times, sentences = extract_time_from_paragraph(caption)
    except OfficialError:
        return None, None
    if not times:
        pieces = caption.split("\n") if "\n" in caption else [f"{piece}." for piece in caption.split(".")]
        shortest = 8 if "\n" in caption else 9
        hits = (_timed_caption(piece) for piece in pieces if len(piece) >= shortest)
        hit = next((hit for hit in hits if hit is not None), None)
        if hit is None:
            return None, None
        times, sentences = [hit[0]], [hit[1]]
    return [[min(pair), max(pair)] for pair in times], sentences


def _timed_caption(piece: str) -> tuple[list[float], str] | None:
    """Return span and sentence of ``12.3 - 20 seconds, somebody runs``, or ``None``."""
    parts = [part.strip(",") for part in piece.split("seconds")]
    try:
        spans = extract_time_part(parts[0])
    except OfficialError:
        return None
    ends = spans[0].split("-") if spans else []
    try:
        return [round(float(ends[0].strip()), 2), round(float(ends[1].strip()), 2)], parts[-1].strip()
    except (IndexError, ValueError):  # a lone number, or one that float() cannot read
        return None


def _time_part(text: str) -> list[str]:
    found = [match.group() for match in _DASHED.finditer(text)]
    if found:
        return found
    colons = text.count(":")
    if colons == 1:
        return [_around(_clock_seconds(_CLOCK.findall(text)[0]))]
    if colons == 2:
        one, two = _CLOCK.findall(text)
        return [f"{_clock_seconds(one)} - {_clock_seconds(two)}"]
    numbers = _LOOSE_NUMBER.findall(text)
    if len(numbers) == 1:
        return [_around(float(numbers[0]))]
    return [f"{numbers[0]} - {numbers[1]}"] if len(numbers) == 2 else numbers


def _clock_seconds(clock: str) -> int:
    minutes, seconds = clock.split(":")
    return int(minutes) * 60 + int(seconds)


def _around(seconds: float) -> str:
    if seconds > RADIUS_SECONDS:
        return f"{seconds - RADIUS_SECONDS} - {seconds + RADIUS_SECONDS}"
    return f"{seconds} - {seconds + 2 * RADIUS_SECONDS}"


def _strike(text: str, spans: list[str]) -> str:
    """Return ``text`` with a line break in the place of every span, struck out in turn as the script does."""
    if len(spans) * len(text) > MAX_STRUCK_CHARACTERS:
        return _DASHED.sub("\n", text)
    for span in spans:
        text = text.replace(span, "\n")
    return text


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise OfficialError("ValueError", str(error)) from error
