"""Reads a yes or a no: what a check by a question that is not the row's own comes down to."""

from __future__ import annotations

import re

from timeloupe.data.build.steps import Reply

_FIRST_WORD = re.compile(r"[^\w]*(\w+)")


def says_yes(reply: Reply) -> bool:
    """Return whether a reply's answer begins with ``yes``; anything else, and no answer at all, is a no."""
    if reply.answer is None:
        return False
    word = _FIRST_WORD.match(reply.answer.text)
    return word is not None and word.group(1).casefold() == "yes"
