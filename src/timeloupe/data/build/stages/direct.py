"""Rows without a look: the labeller reasons and answers; kept when the answer is the label's.

Source: VideoTemp-o3 (arXiv 2602.07801), its direct rows.
"""

from __future__ import annotations

from typing import Literal

from timeloupe.data.build.recipe_part import StagePart
from timeloupe.data.build.steps import Ask, Kit, Outcome, Plan, Reply, Skim, answered
from timeloupe.trajectory import Example


class DirectStage(StagePart):
    """Chain of thought and answer from the whole video at the skim's rate."""

    kind: Literal["direct"]


def direct(example: Example, part: DirectStage, kit: Kit) -> Plan:
    """Return the plan of one item: one question, compared with the label."""
    if not kit.can_judge(example):
        return Outcome(False, "no_label", "nothing says what a right answer is")
    skim = yield Skim()
    reply: Reply = yield Ask(
        "direct", kit.first(example, [skim], tools=False, purpose="direct"), (skim,), example
    )
    if reply.answer is None:
        return Outcome(False, "no_answer", unread(reply))
    reply.right = kit.is_right(reply.answer, example)
    if not reply.right:
        return Outcome(False, "wrong", f"it answered {reply.answer.text!r:.80}")
    prompt = kit.first(example, [skim], tools=False)
    return Outcome(True, "right", trajectory=kit.episode(example, prompt, [answered(reply)], stage="direct"))


def unread(reply: Reply) -> str:
    """Return why a reply gives no answer, for people."""
    if reply.call is not None:
        return "it asked to look instead of answering"
    return reply.parsed.problem.message if reply.parsed.problem is not None else "it gave no answer"
