"""Whether official scripts that read no letter of their own count a given letter as right.

The rules were taken from the scripts at the commits named below and written anew. All take linear time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from timeloupe.eval.extractors.letters import before_bracket
from timeloupe.eval.scripts.errors import OfficialError

_BARE_WORD_OF_JSON = re.compile(r"(?<=:\s)[A-Za-z_]\w*")
_LONE_CAPITAL = re.compile(r"\b[A-H]\b")
_FENCE = "```"


def mlvu(text: str, right: str) -> bool:
    """Return whether the character before the first ``)``, or the whole text without one, is the right letter.

    Source: JUNJIE99/MLVU@fd060c10 evaluation/multiple_choice_evaluation/choice_bench.py ``check_ans``.
    """
    return before_bracket(text) == right


def cgbench(text: str, right: str) -> int | None:
    """Return 1 or 0 for right or wrong, ``None`` where nothing can be read and the record drops out.

    A ``json`` fence with a "result" decides; else any A to H that stands alone, and it is enough that the right one is
    among them.

    Source: CG-Bench/CG-Bench@f8266087 run/utils.py ``post_process``, modes long_acc and clue_acc.
    """
    found, result = cgbench_json(text, quote_words=True)
    if found:
        return int(result == right)
    letters = _LONE_CAPITAL.findall(text)
    return int(right in letters) if letters else None


def cgbench_json(text: str, quote_words: bool = False) -> tuple[bool, Any]:
    """Return whether the first ``json`` fence of the text has a "result", and that.

    Args:
        text: The model's answer.
        quote_words: Put quotation marks around a bare word after a colon and one blank, ``true`` and ``null`` included.

    Source: as ``cgbench``.
    """
    _, opening, rest = text.partition(f"{_FENCE}json")
    content, closing, _ = rest.partition(_FENCE)
    if not (opening and closing and content.strip()):
        return False, None
    content = content.strip()
    if quote_words:
        content = _BARE_WORD_OF_JSON.sub(lambda match: f'"{match.group()}"', content)
    try:
        return True, json.loads(content)["result"]
    except (
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ):  # the script goes on without it after any exception
        return False, None


def videomind(text: str, right: str, num_options: int = 4) -> bool | None:
    """Return whether the first word's first character is the right letter, in any case; ``None`` if it is no option.

    Brackets and points are taken out of the first word first; words end at blanks only.

    Source: yeliudev/VideoMind@6721d256 videomind/eval/eval_auto.py ``check_ans``.

    Raises:
        OfficialError: ``IndexError``, where nothing is left of the first word, as with a blank in front.
    """
    word = text.lower().split(" ", 1)[0]
    for mark in "().":
        word = word.replace(mark, "")
    if not word:
        raise OfficialError("IndexError", "string index out of range")
    if word[0] not in [chr(ord("a") + number) for number in range(num_options)]:
        return None
    return word[0] == right.lower()


def accepted(check: Callable[[str, str], object], text: str, letters: str) -> str:
    """Return those of ``letters`` that ``check`` counts as right for the text, together."""
    return "".join(letter for letter in letters if check(text, letter))
