"""What official scripts read out of a model's text, fault for fault: times, option letters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timeloupe.eval.extractors import letters_check, letters_search
from timeloupe.eval.extractors.letters import SHORT_RULES
from timeloupe.eval.extractors.times import TIME_EXTRACTORS

_OPTIONS = {letter: f"option text {letter}" for letter in "ABCD"}

LETTER_EXTRACTORS: dict[str, Callable[[str], Any]] = {
    **SHORT_RULES,
    "lmms-eval HEAD mcq_extract choices A-D": letters_search.mcq_extract,
    'VLMEvalKit can_infer (fallback; choices A-D = "option text X")': (
        lambda text: letters_search.vlmeval_can_infer(text, _OPTIONS)
    ),
    'Video-MMMU official parse_multi_choice_response (options = "option text X")': (
        lambda text: letters_search.videommmu(text, _OPTIONS)
    ),
    'lmms-eval HEAD videommmu (extract_mcq_answer or "No Answer Found.")': letters_search.lmms_videommmu,
    "MLVU official check_ans (letters accepted as correct)": (
        lambda text: letters_check.accepted(letters_check.mlvu, text, "ABCD")
    ),
    "CG-Bench official post_process long_acc (letters scored 1)": (
        lambda text: letters_check.accepted(letters_check.cgbench, text, "ABCDEFGH")
    ),
    "VideoMind check_ans, 4 options (letters accepted)": (
        lambda text: letters_check.accepted(letters_check.videomind, text, "ABCD")
    ),
}
"""By the name that the shared reference of extractors gives each script; those with options have four of them."""

__all__ = ["LETTER_EXTRACTORS", "TIME_EXTRACTORS"]
