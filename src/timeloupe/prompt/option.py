"""Read the chosen option of a multiple-choice question from an answer's text.

Read are: the letter alone (``B``, ``b``, ``**B**``), the letter as a label before anything (``B.``, ``(B) a cat``,
``B: a cat``, ``b) a cat``), a bracketed letter in a sentence (``it is (B)``), and a letter after a word that announces
it (``Option B``, ``Answer: B``, ``the answer is B``). An ``A`` or ``I`` that could be a word is never an option.

Reasons of problems: ``option_missing``, ``option_ambiguous`` (two different letters), ``option_out_of_range`` (a letter
that the question does not have), ``option_too_long`` (over 10,000 characters).

Reading takes time linear in the length of the text.
"""

from __future__ import annotations

import re

from timeloupe.errors import boundary
from timeloupe.trajectory import Problem

MAX_CHARACTERS = 10_000
MAX_OPTIONS = 26

_ALONE = re.compile(r"[\s*\"'`([{]{0,8}([A-Za-z])[\s*\"'`)\]}.:,]{0,8}")
_LIST = re.compile(r"[A-Z](?:(?:[\s,;/&+.()]{1,4}(?:and|or)?[\s(]{0,4}|\s(?:and|or)\s)[A-Z])+[\s.)]{0,4}")
_LEADING = re.compile(r"[*\"'`]{0,4}(?:[(\[]([A-Za-z])[)\]]|([A-Z])(?:[):]|\*\*|\.(?![A-Za-z]\.))|([a-z])\))")
_BRACKETED = re.compile(r"(?<!\w)(?:\(([A-Za-z])\)|\[([A-Za-z])\]|\*\*([A-Z])\.?\*\*)")
_LABEL = re.compile(r"(?<![\w.])([A-Z])[.):](?=\s|$)")
_ANNOUNCED = re.compile(
    r"\b(?:(option|choice)|answer|letter)\b(?:\s{1,4}is\b)?[\s:=*\"'`(\[]{1,8}([A-Za-z])(?![\w'’])"
    r"(?=([\s]{1,4}[A-Za-z])?)",
    re.IGNORECASE,
)


def parse_option(text: str, num_options: int) -> str | Problem:
    """Return the capital letter of the option that ``text`` chooses, or why it chooses none.

    Args:
        text: The inside of an answer, without its tags.
        num_options: How many options the question has, 1 to 26.

    Raises:
        ConfigError: ``num_options`` is out of range.
    """
    if not 1 <= num_options <= MAX_OPTIONS:
        raise boundary("num_options of parse_option", num_options, f"1..{MAX_OPTIONS}")
    if len(text) > MAX_CHARACTERS:
        message = f"an answer of {len(text)} characters is not read, at most {MAX_CHARACTERS} are"
        return Problem(reason="option_too_long", message=message)
    letters = _letters(text.strip(), num_options)
    if not letters:
        return Problem(reason="option_missing", message="the answer names no option letter")
    if len(letters) > 1:
        message = f"the answer names several options: {', '.join(sorted(letters))}"
        return Problem(reason="option_ambiguous", message=message)
    letter = letters.pop()
    if ord(letter) - ord("A") >= num_options:
        message = f"there is no option {letter}, allowed: A to {chr(ord('A') + num_options - 1)}"
        return Problem(reason="option_out_of_range", message=message)
    return letter


def _letters(text: str, num_options: int) -> set[str]:
    """Return every letter that the text names as an option."""
    if alone := _ALONE.fullmatch(text):
        return {alone.group(1).upper()}
    if _LIST.fullmatch(text):
        return set(re.findall(r"[A-Z]", text))
    found: set[str] = set()
    if leading := _LEADING.match(text):
        found.add(next(letter for letter in leading.groups() if letter).upper())
    for match in _ANNOUNCED.finditer(text):
        letter, word_follows = match.group(2), match.group(3) is not None
        lower_alone = letter.islower() and match.group(0)[-2] not in "([*"
        could_be_word = letter.upper() in "AI" and word_follows and match.group(1) is None
        if not (lower_alone or could_be_word):
            found.add(letter.upper())
    last = chr(ord("A") + num_options - 1)
    inside = [letter.upper() for groups in _BRACKETED.findall(text) for letter in groups if letter]
    inside += _LABEL.findall(text)
    # A letter that the question does not have, in the middle of a sentence, is an initial or a plural.
    return found | {letter for letter in inside if letter <= last}
