"""Open answers as MMMU's script reads them: key phrases and numbers of a reply, compared with the true answer.

Source of both rules: EvolvingLMMs-Lab/VideoMMMU@88b4ac3e lmms_eval/tasks/videommmu/utils.py (``parse_open_response``,
``eval_open``), the same in lmms-eval@75571cfe. The patterns are written so that no text makes them go back; what they
find is the same. Reading takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Found = str | float

_PHRASES = (
    "could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ", "are ", "in total ", "total ",
    "identify ", "recognize ", "calculated as ", "counted as ", "measured as ", "observed as ", "concluded as ",
    "found to be ", "equals ", "determined to be ", "number of ", "value is ", "adds up to ", "have ", "has ",
)  # fmt: skip
_LONE_MARKS = frozenset(":,.!?;'")

_WITH_COMMAS = re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b")
# Within a run of digits every start has the same outcome, so only its first digit is tried.
_SCIENTIFIC = re.compile(r"(?:-|(?<!\d))\d++(?:\.\d++)?+[eE][+-]?\d++")
_SIMPLE = re.compile(r"-?(?:(?<!\d)\d++\.\d++|\.\d++|(?<!\d)\d++\b)(?![eE][+-]?\d)(?![,\d])")
_ANY = re.compile(r"(?:(?<!\w)-)?(?:\d[\d,]*+(?:\.\d++)?+|\.\d++)(?:[eE][+-]?\d++)?+")


def read_open(text: str) -> list[Found]:
    """Return what a reply says: its key phrases in lower case, and the numbers in them rounded to 2 decimals.

    The key phrase of a line is the shortest of what follows the last "is ", "so ", "answer " and the like; in the last
    line also what follows "=". A reply without any is one phrase.
    """
    phrases = _key_phrases(text)
    written = phrases + [number for phrase in phrases for number in _numbers(phrase)]
    return list(dict.fromkeys(value for one in written for value in normalised(one)))


def is_right(found: Sequence[Found], truth: str | Sequence[str]) -> bool:
    """Return whether a phrase contains the true answer, or a number equals it; of a list of answers, any of them."""
    answers = [truth] if isinstance(truth, str) else truth
    wanted = [value for answer in answers for value in normalised(str(answer))]
    texts = [value for value in wanted if isinstance(value, str)]
    return any(
        any(text in value for text in texts) if isinstance(value, str) else value in wanted for value in found
    )


def normalised(text: str) -> list[Found]:
    """Return a number rounded to 2 decimals, or the text in lower case; one character gets a blank on either side."""
    text = text.strip()
    number = number_of(text)
    if number is not None:
        return [number]
    text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


def number_of(text: str) -> float | None:
    """Return the number that a text is, rounded to 2 decimals, or ``None``; commas are left out."""
    try:
        return round(float(text.replace(",", "")), 2)
    except ValueError:
        return None


def last_number(text: str) -> float | None:
    """Return the last number of a text, rounded to 2 decimals; ``None`` if it has none. (Not of the script: a hyphen
    after a digit is no minus.)"""
    found = _ANY.findall(text)
    return number_of(found[-1]) if found else None


def _key_phrases(text: str) -> list[str]:
    whole = text.strip().strip(".").lower()
    lines = whole.split("\n")
    found: list[str] = []
    for at, line in enumerate(lines):
        shortest = ""
        for phrase in (*_PHRASES, "=") if at == len(lines) - 1 else _PHRASES:
            _, there, tail = line.rpartition(phrase)
            tail = tail.strip()
            if there and (not shortest or len(tail) < len(shortest)):
                shortest = tail
        if shortest and shortest not in _LONE_MARKS:
            found.append(shortest)
    return found or [whole]


def _numbers(text: str) -> list[str]:
    return _WITH_COMMAS.findall(text) + _SCIENTIFIC.findall(text) + _SIMPLE.findall(text)
