"""Reads a yes or a no: what a check by a question that is not the row's own comes down to."""

from __future__ import annotations

import re

from timeloupe.data.build.steps import Reply

_YES = re.compile(r"[\W_]*yes(?![^\W_])(?!\s*(?:and|or|/|\|)\s*no\b)", re.IGNORECASE)
"""``Yes or no`` is the question said again, and ``yes and no`` is neither."""


def says_yes(reply: Reply) -> bool:
    """Return whether a reply's answer begins with ``yes``; anything else, and no answer at all, is a no."""
    return reply.answer is not None and _YES.match(reply.answer.text) is not None
