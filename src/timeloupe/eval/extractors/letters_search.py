"""Option letters that official scripts look for at several places of the text, with a rule for which place wins.

The rules were taken from the scripts at the commits named below and written anew. All take linear time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal

_VERBOSE_ANSWER = re.compile(r"answer\s++is\s++\**+([ABCD])", re.IGNORECASE)
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_MARKS_TO_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))

_WHICH = {
    "answer is": ("", "the ", "correct ", "the correct ", "best ", "the best ", "my "),
    "option is": ("correct ", "the correct ", "best ", "the best "),
    "choice is": ("", "the ", "correct ", "the correct ", "my "),
}
_ANNOUNCEMENTS = (
    *(which + noun for noun, kinds in _WHICH.items() for which in kinds),
    *("i choose", "i select", "i pick"),
    *("옵션", "정답은", "답은", "답:"),
    *("答案是", "答案为", "选"),
    "答えは",
)
_START, _END, _ANNOUNCED, _ANYWHERE = 10, 9, 7, 0
_FORMS = ((6, "({})"), (5, "{}."), (4, "{}:"), (3, "{})"), (2, "{} "))


def mcq_extract(text: str, letters: Collection[str] = "ABCD") -> str:
    """Return the letter at the place that weighs most, the last such place; "" if the text has none of them.

    Places by weight: the start of the text, its end, after an announcement ("the answer is"), ``(A)``, ``A.``, ``A:``,
    ``A)``, an A before a blank; anywhere if there is none of these. After an announcement the first A, the first B,
    ... of the whole rest count, also within words.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe tasks/_task_utils/mcq_extract.py ``extract_mcq_answer``. Its own
    letters, where a task names none, are A to H.
    """
    if not text.strip():
        return ""
    padded = f" {_without_outer(text.strip(), ',.!?;:' + chr(39) + chr(34))} "
    found = list(_places(padded, letters))
    if not found:
        found = [(_ANYWHERE, padded.rfind(letter), letter) for letter in letters if letter in padded]
    return max(found, key=lambda place: place[:2])[2] if found else ""


def _places(padded: str, letters: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """Yield weight, position and letter of every place but "anywhere"."""
    inner = padded.strip()
    # Positions of the lowered text are used in the text itself, as the script does: a few capitals grow when lowered.
    lowered = padded.lower()
    starts = [at + len(phrase) for phrase in _ANNOUNCEMENTS if (at := lowered.find(phrase)) >= 0]
    for letter in letters:
        for weight, form in _FORMS:
            if (at := padded.rfind(form.format(letter))) >= 0:
                yield weight, at, letter
        for start in starts:
            if (at := padded.find(letter, start)) >= 0:
                yield _ANNOUNCED, at, letter
        if inner.startswith(letter) and not inner[1:2].isalpha():
            yield _START, 0, letter
        if inner.endswith(letter) and not inner[-2:-1].isalpha():
            yield _END, len(padded) - 1, letter


def lmms_videommmu(text: str, letters: Collection[str] = "ABCD") -> str:
    """Return ``mcq_extract``'s letter, or "No Answer Found.".

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe tasks/videommmu/utils.py ``parse_multi_choice_response``.
    """
    return mcq_extract(text, letters) or "No Answer Found."


def videommmu(text: str, options: Mapping[str, str]) -> str:
    """Return the letter named last in the first form that occurs, "No Answere Found", or "API Error" for no text.

    Forms: ``A.`` and ``A:`` together, else ``(A)``, else an A before a blank; else, over five words, the option's text
    without regard to case. Of several letters the one further back wins; of ``A.`` and ``B:`` only ``A.`` has a place.

    Args:
        text: The model's answer.
        options: Letter to the option's text, in order.

    Source: EvolvingLMMs-Lab/VideoMMMU@88b4ac3e lmms_eval/tasks/videommmu/utils.py ``parse_multi_choice_response``.
    """
    if text in ("", "API Error"):
        return "API Error"
    padded = f" {_without_outer(text, ',.!?;:' + chr(39))} "
    marked = {
        form: [letter for letter in options if form.format(letter) in padded] for form in ("{}.", "{}:")
    }
    candidates = marked["{}."] + marked["{}:"]
    form = "{}." if marked["{}."] else "{}:"
    for other, place in (("({})", "({})"), ("{} ", " {} ")):
        if not candidates:
            candidates, form = [letter for letter in options if other.format(letter) in padded], place
    if candidates:
        return max(candidates, key=lambda letter: padded.rfind(form.format(letter)))
    if len(padded.split()) > 5:
        lowered = padded.lower()
        candidates = [letter for letter, option in options.items() if option.lower() in lowered]
        if candidates:
            return max(candidates, key=lambda letter: lowered.rfind(options[letter].lower()))
    return "No Answere Found"


def vlmeval_can_infer(text: str, options: Mapping[str, str]) -> str | Literal[False]:
    """Return the only option letter among the words, "Z" for a refusal, else what "answer is" or the texts say.

    A letter counts among the last five words only (marks count as blanks). Then "answer is B", in any case; then the
    one option whose text is in the answer, if the answer is at most twice as long as all options together. ``False``
    if nothing is found.

    Args:
        text: The model's answer.
        options: Letter to the option's text, in order.

    Source: open-compass/VLMEvalKit@e8e78f05 vlmeval/utils/matching_util.py ``can_infer``. Left out: with the
    environment variable VERBOSE set, the script gives up where "A" is a word of more than three.
    """
    if "Failed to obtain answer via API" in text:
        return _by_text(text, options)
    if any(refusal in text for refusal in _REFUSALS):
        return "Z"
    words = text.translate(_MARKS_TO_BLANKS).split()
    among = set(words)
    named = [letter for letter in options if letter in among]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if not named and "Z" in among:
        return "Z"
    match = _VERBOSE_ANSWER.search(text)
    if match and match.group(1).upper() in options:
        return match.group(1).upper()
    return _by_text(text, options)


def _by_text(text: str, options: Mapping[str, str]) -> str | Literal[False]:
    """Return the letter of the only option whose text is in ``text``, which must not be too long, or ``False``."""
    lowered = text.lower()
    if len(lowered) > 2 * sum(len(option) for option in options.values()):
        return False
    found = [letter for letter, option in options.items() if option.lower() in lowered]
    return found[0] if len(found) == 1 else False


def _without_outer(text: str, marks: str) -> str:
    """Return the text with each mark in turn, once, taken from both ends: ``.,A,.`` keeps its points."""
    for mark in marks:
        text = text.strip(mark)
    return text
