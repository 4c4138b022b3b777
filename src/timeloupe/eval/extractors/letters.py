"""Option letters that official scripts read by a short rule: after removing phrases, or at one place of the text.

The rules were taken from the scripts at the commits named below and written anew. "" means that the script reads no
letter. All take linear time. ``letters_search`` holds the scripts that weigh several places, ``letters_check`` those
that only say whether a letter counts as right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_IS_PHRASES = ("The best answer is", "The correct answer is", "The answer is", "The answer")
# In the scripts a comma is missing after two of the phrases, so that Python joins them with the next one.
_JOINED_PHRASES = ("The best option isThe correct option is", "Best answer:Best option:")
_SEPARATE_PHRASES = ("The best option is", "The correct option is", "Best answer:", "Best option:")
_LABELS = ("Answer:", "Option:")
_CORRECT_PHRASES = ("The correct answer", "The correct option")

RANDOM_CHOICE = "RANDOM_CHOICE"
"""In place of the letter that a script draws at random where it reads none."""

_BRACKETED_CAPITAL = re.compile(r"\(([A-Z])\)")


def _without(text: str, phrases: Sequence[str]) -> str:
    """Return the text without outer blanks and then without each phrase in turn, wherever it stands."""
    text = text.strip()
    for phrase in phrases:
        text = text.replace(phrase, "")
    return text


def _first_of(letters: str, text: str) -> str:
    return next((character for character in text if character in letters), "")


def videomme(text: str) -> str:
    """Return the first of A to D anywhere, after removing phrases; "A" of any word counts.

    Source: thanku-all/parse_answer@afd52cfe eval_your_results.py, which Video-MME's page names as its script now. Its
    rule about more than ten words changes nothing, here and in all its descendants below.
    """
    phrases = (*_IS_PHRASES, *_JOINED_PHRASES, *_LABELS, *_CORRECT_PHRASES)
    return _first_of("ABCD", _without(text, phrases))


def videomme_older(text: str) -> str:
    """Return the first of A to D, as ``videomme`` with fewer phrases: "Answer: D" is A.

    Source: BradyFU/Video-MME@4e7566d3 evaluation/eval_your_results.py; the same in EvolvingLMMs-Lab/lmms-eval@d0c1eae7
    tasks/videomme and tasks/lvbench (before 9ca4445d).
    """
    return _first_of("ABCD", _without(text, (*_IS_PHRASES, *_JOINED_PHRASES)))


def videotemp_videomme(text: str) -> str:
    """Return the first character after removing phrases if it is one of A to D; a blank left behind is none.

    Source: Kwai-Keye/VideoTemp-o3 eval/score.py ``_extract_videomme_answer`` (nearest commit e30b4d98).
    """
    rest = _without(text, (*_IS_PHRASES, *_SEPARATE_PHRASES, *_LABELS, *_CORRECT_PHRASES))
    return rest[0] if rest and rest[0] in "ABCD" else ""


def videotemp_first(text: str, letters: str = "ABCDE") -> str:
    """Return the first character if it is one of ``letters``, else "A": also for blank and lower-case answers.

    Source: Kwai-Keye/VideoTemp-o3 eval/score.py, videotemp and lvbench (A to E), videommmu (A to N).
    """
    return text[0] if text and text[0] in letters else "A"


def vlmeval_videomme(text: str) -> str:
    """Return the first of A to D, as ``videomme`` with other phrases.

    Source: open-compass/VLMEvalKit@e8e78f05 vlmeval/dataset/utils/videomme.py ``extract_characters_regex``.
    """
    return _first_of("ABCD", _without(text, (*_IS_PHRASES, *_JOINED_PHRASES, *_LABELS)))


def vlmeval_longvideobench(text: str) -> str:
    """Return the first of A to E, after the phrases of ``vlmeval_videomme``.

    Source: open-compass/VLMEvalKit@e8e78f05 vlmeval/dataset/utils/longvideobench.py ``extract_characters_regex``.
    """
    return _first_of("ABCDE", _without(text, (*_IS_PHRASES, *_JOINED_PHRASES, *_LABELS)))


def vlmeval_videomme_v2(text: str) -> str:
    """Return the first of A to H, after removing the phrases one by one: the F of "Frames" counts.

    Source: open-compass/VLMEvalKit@e8e78f05 vlmeval/dataset/utils/videomme.py ``extract_characters_regex_v2``.
    """
    phrases = ("Final Answer:", *_IS_PHRASES, *_SEPARATE_PHRASES, *_LABELS)
    return _first_of("ABCDEFGH", _without(text, phrases))


def lmms_longvideobench(text: str) -> str:
    """Return the first of A to E after removing phrases; ``RANDOM_CHOICE`` where the script draws one at random.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe tasks/longvideobench/utils.py ``parse_multi_choice_response``.
    """
    return _first_of("ABCDE", _without(text, (*_IS_PHRASES, *_SEPARATE_PHRASES))) or RANDOM_CHOICE


def lmms_mlvu_old(text: str) -> str:
    """Return the one character before the first ``)``, or all the text without outer blanks if there is none.

    Source: EvolvingLMMs-Lab/lmms-eval@d0c1eae7 (before 9ca4445d) tasks/mlvu/utils.py ``extract_characters_regex``.
    """
    return before_bracket(text.strip())


def before_bracket(text: str) -> str:
    """Return the one character before the first ``)`` ("" if it stands first), or all the text if there is none."""
    before, bracket, _ = text.partition(")")
    return before[-1:] if bracket else text


def lvbench(text: str) -> str:
    """Return the first character of the first word before ``)`` and after ``(``, whatever character that is.

    Source: THUDM/LVBench@f998d955 lvbench/utils/answer_util.py ``polish_answer``.
    """
    answer = text.strip().split(")", 1)[0].strip()
    if "(" in answer:
        answer = answer.split("(", 2)[1].strip()
    return answer.split(" ", 1)[0][:1]


def time_r1_index(text: str) -> int | None:
    """Return the place in the alphabet, from 0, of the last bracketed capital such as ``(C)``, or ``None``.

    Source: xiaomi-research/time-r1@7f2b5944 evaluate.py ``extract_answer(..., "mcq")``.
    """
    found = _BRACKETED_CAPITAL.findall(text)
    return ord(found[-1]) - ord("A") if found else None


SHORT_RULES: dict[str, Callable[[str], str | int | None]] = {
    "Video-MME official (current, thanku-all/parse_answer)": videomme,
    "Video-MME official (older, 4e7566d)": videomme_older,
    "VideoTemp-o3 _extract_videomme_answer": videotemp_videomme,
    "VideoTemp-o3 videotemp/lvbench rule (first char in ABCDE else A)": videotemp_first,
    "lmms-eval before 9ca4445d videomme": videomme_older,
    "lmms-eval before 9ca4445d lvbench": videomme_older,
    "lmms-eval before 9ca4445d mlvu": lmms_mlvu_old,
    "VLMEvalKit videomme.extract_characters_regex": vlmeval_videomme,
    "VLMEvalKit longvideobench.extract_characters_regex": vlmeval_longvideobench,
    "VLMEvalKit videomme_v2 (A-H)": vlmeval_videomme_v2,
    "LVBench official polish_answer": lvbench,
    "lmms-eval longvideobench parse (A-E; RANDOM_CHOICE when nothing parsed)": lmms_longvideobench,
    "TimeR1.extract_answer(mcq) as index": time_r1_index,
}
