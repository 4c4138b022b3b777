"""Whether an answer is right: option letters, free text by ROUGE, free text by a judge.

``ROUGE`` here is the mean of the F-measures of ROUGE-1, ROUGE-2 and ROUGE-L with Porter stemming, from the library
``rouge-score``; Open-o3 Video pays free-form answers by it (marinero4972/Open-o3-Video@1eb6ecae,
``reward_func.py: ans_acc_reward``). A right answer of one word scores 2/3, since it has no pair of words.

Deviations from that script:

1. A letter is read from the answer by ``prompt.option`` unless ``reading="exact"`` asks for the script's four forms.
2. Texts over 10,000 characters are not compared, and of a word over 100 letters the first 100 count: both so that
   hostile text is graded in bounded time. The script has no bounds.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any, Literal

from timeloupe.errors import boundary
from timeloupe.prompt.option import MAX_OPTIONS, parse_option
from timeloupe.reward.base import Context, Part
from timeloupe.trajectory import Answer, Example, Problem, StopReason, Trajectory

MAX_CHARACTERS = 10_000

_LONG_WORD = re.compile(r"([a-z0-9]{100})[a-z0-9]+")

Reading = Literal["parsed", "exact", "first_letter"]
"""How a letter is read: by ``prompt.option``; as one of the forms ``B``, ``B.``, ``(B)``, ``[B]`` alone (Open-o3's
release); as the first letter of the text, whatever it belongs to (VideoTemp-o3's release)."""


def is_choice(example: Example) -> bool:
    """Return whether the example asks for an option letter."""
    return bool(example.options) or example.task == "multiple_choice"


def true_letter(example: Example) -> str | None:
    """Return the capital letter of the right option; ``None`` if the example does not name one."""
    if example.answer is None:
        return None
    letter = parse_option(example.answer, _num_options(example))
    return None if isinstance(letter, Problem) else letter


def chosen_letter(answer: Answer, example: Example) -> str | None:
    """Return the capital letter of the option that an answer names; ``None`` if it names none or several."""
    if answer.option is not None:
        return answer.option
    letter = parse_option(answer.text, _num_options(example))
    return None if isinstance(letter, Problem) else letter


def is_exact_option(text: str, letter: str) -> bool:
    """Return whether ``text`` is ``B``, ``B.``, ``(B)`` or ``[B]`` and nothing else; blanks around it are no matter.

    Open-o3 Video's reading (``reward_func.py: ans_acc_reward``); an empty text equals an empty letter.
    """
    letter = letter.strip()
    return text.strip() in (letter, f"{letter}.", f"({letter})", f"[{letter}]")


def first_letter(text: str) -> str:
    """Return the first alphabetic character of ``text`` as it stands, or "": VideoTemp-o3's reading of an option."""
    return next((character for character in text if character.isalpha()), "")


def rouge(text: str, truth: str) -> float:
    """Return how alike two texts are, in [0, 1]: the mean F-measure of ROUGE-1, ROUGE-2 and ROUGE-L, words stemmed.

    0 if one of them has no word of a-z and 0-9, or over 10,000 characters.
    """
    if max(len(text), len(truth)) > MAX_CHARACTERS:
        return 0.0
    shortened = [_LONG_WORD.sub(r"\1", one.lower()) for one in (truth, text)]
    scores = _scorer().score(*shortened)
    return min(1.0, math.fsum(score.fmeasure for score in scores.values()) / len(scores))


@functools.cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def option(trajectory: Trajectory, context: Context, /, *, reading: Reading = "parsed") -> float | None:
    """Return 1 if the answer names the right option, else 0.

    ``None`` if the example asks for no option or does not say which is right, or if the machine ended the episode.
    """
    example = trajectory.example
    truth = true_letter(example) if is_choice(example) else None
    if truth is None or trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    answer = trajectory.answer
    if answer is None:
        return 0.0
    if reading == "exact":
        return float(is_exact_option(answer.text, truth))
    if reading == "first_letter":
        return float(first_letter(answer.text) == truth)
    return float(chosen_letter(answer, example) == truth)


def free_form(trajectory: Trajectory, context: Context, /) -> float | None:
    """Return the ROUGE of the answer's text with the true one, in [0, 1]; 0 without an answer.

    ``None`` if the example has options, has no text as its true answer or one over 10,000 characters, or if the
    machine ended the episode.
    """
    truth = _true_text(trajectory)
    if truth is None or len(truth) > MAX_CHARACTERS:
        return None
    return 0.0 if trajectory.answer is None else rouge(trajectory.answer.text, truth)


def judged(trajectory: Trajectory, context: Context, /) -> float | None:
    """Return what ``context.judge`` says of the answer's text, in [0, 1]; 0 without an answer.

    ``None`` if there is no judge or it could not tell, and where ``free_form`` is ``None`` for want of a true text.

    Raises:
        ConfigError: The judge's grade is not in [0, 1].
    """
    truth = _true_text(trajectory)
    if truth is None or context.judge is None:
        return None
    if trajectory.answer is None:
        return 0.0
    grade = context.judge(trajectory.example.question, truth, trajectory.answer.text)
    if grade is not None and not 0 <= grade <= 1:
        raise boundary("grade of a judge", grade, "0 to 1, or None", "map the judge's scale to 0 to 1")
    return None if grade is None else float(grade)


def answer(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    reading: Reading = "parsed",
    free: Literal["rouge", "judge"] = "rouge",
) -> float | None:
    """Return how right the answer is, in [0, 1]: ``option`` where there are options, else ``free``'s way."""
    if is_choice(trajectory.example):
        return option(trajectory, context, reading=reading)
    return free_form(trajectory, context) if free == "rouge" else judged(trajectory, context)


def _true_text(trajectory: Trajectory) -> str | None:
    example = trajectory.example
    if is_choice(example) or trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    return (example.answer or "").strip() or None


def _num_options(example: Example) -> int:
    return min(len(example.options), MAX_OPTIONS) or MAX_OPTIONS


ACCURACY_PARTS: dict[str, tuple[Part, tuple[float, float]]] = {
    "accuracy.answer": (answer, (0.0, 1.0)),
    "accuracy.option": (option, (0.0, 1.0)),
    "accuracy.free_form": (free_form, (0.0, 1.0)),
    "accuracy.judged": (judged, (0.0, 1.0)),
}
"""Name of a part -> (function, (lowest, highest value))."""
