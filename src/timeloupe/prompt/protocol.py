"""How a model is spoken to and how it must reply: one ``Protocol`` per family of models, all of them in ``PROTOCOLS``.

A reply is ``<think>...</think>`` followed by exactly one of ``<tool_call>...</tool_call>`` and ``<answer>...</answer>``
in every protocol; they differ in what they say, in where the question stands, and in how an answer writes times:

==========  =====================================  ==========================================
name        trained with it                        a time segment in an answer
==========  =====================================  ==========================================
videotemp   VideoTemp-o3 (arXiv 2602.07801)        ``[68, 105]``
museg       MUSEG (arXiv 2505.20715)               ``68.00-105.00``
taro        TaRO (arXiv 2606.09248)                ``68.00s to 105.00s``
openo3      Open-o3 Video (arXiv 2510.20579)       ``From <t>68.0</t>s to <t>105.0</t>s``
small       the model that comes with timeloupe    ``[68, 105]``, whole seconds
==========  =====================================  ==========================================

``openo3`` counts the coordinates of boxes in thousandths, as Qwen3-VL does; ``openo3_pixels`` in pixels of the frame as
shown, as Qwen2.5-VL and with it the released Open-o3 do. ``museg_plain`` does not ask for times in the thought: MUSEG
trains its second phase so, and evaluates with ``museg``.

Deviations from the papers:

1. All sentences are our own; only the grammar is theirs.
2. MUSEG, TaRO and Open-o3 are single-pass methods without a tool. Played without tools they are what the papers
   describe (MUSEG and TaRO without a system message); with tools they get VideoTemp-o3's on top.
3. Open-o3 has one system prompt per task and shows every frame as an image after its time in words. Here what the
   task needs stands after the question, and a sentence says which seconds the frames span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from timeloupe.prompt import templates
from timeloupe.trajectory import Task


@dataclass(frozen=True)
class Protocol:
    """How to prompt a model and how to read it.

    Attributes:
        name: Name in records.
        system_with_tool: System text when the model may look closer; empty = no system message.
        system_without_tool: System text when it may not.
        hints: What the answer must look like, by task; the line after the question. A task that is missing has none.
        question: Where the question stands relative to the frames: ``before``, ``after``, or ``both``; with ``both``
            it also follows the frames of every observation.
        success: Sentence after the crops of an observation; may be empty.
        failure: Sentence after the errors of an observation; may be empty.
        says_span: Say in words which seconds the first frames span.
        requires_think: Whether a reply without ``<think>`` is a problem when it is read. It is not where a server may
            have taken the thought out of the reply; ``check_format`` demands it always.
        segment_style: How an answer writes segments: ``list`` = ``[1, 2]``, ``dash`` = ``1-2``, ``words`` =
            ``1s to 2s``, ``tags`` = ``From <t>1</t>s to <t>2</t>s``.
        decimals: Decimals of a time that is written; ``None`` = as many as needed, at most 3.
        box_scale: What box coordinates in replies count: ``thousandths`` of the frame, or its ``pixels``.
        think_tag: Tag around the thought.
        call_tag: Tag around a call of the tool.
        answer_tag: Tag around the answer.
        tool_name: The one tool there is.
        stop: Strings that end a turn.
    """

    name: str
    system_with_tool: str
    system_without_tool: str
    hints: Mapping[Task, str] = field(default_factory=dict, hash=False)
    question: Literal["before", "after", "both"] = "after"
    success: str = templates.SHOWN
    failure: str = templates.NOT_SHOWN
    says_span: bool = False
    requires_think: bool = False
    segment_style: Literal["list", "dash", "words", "tags"] = "list"
    decimals: int | None = None
    box_scale: Literal["thousandths", "pixels"] = "thousandths"
    think_tag: str = "think"
    call_tag: str = "tool_call"
    answer_tag: str = "answer"
    tool_name: str = templates.TOOL_NAME
    stop: tuple[str, ...] = ("</tool_call>", "</answer>")


_OPENO3 = Protocol(
    name="openo3",
    system_with_tool=templates.LOOK_CLOSER,
    system_without_tool=templates.ANSWER_NOW,
    hints=templates.openo3_hints(templates.BOX_UNITS["thousandths"]),
    says_span=True,
    segment_style="tags",
    decimals=1,
)
_MUSEG = Protocol(
    name="museg",
    system_with_tool=templates.LOOK_CLOSER,
    system_without_tool="",
    hints=templates.museg_hints(templates.MUSEG_TIMED),
    segment_style="dash",
    decimals=2,
)

PROTOCOLS: dict[str, Protocol] = {
    "videotemp": Protocol(
        name="videotemp",
        system_with_tool=templates.LOOK_CLOSER,
        system_without_tool=templates.ANSWER_NOW,
        hints=templates.VIDEOTEMP_HINTS,
    ),
    "museg": _MUSEG,
    "museg_plain": replace(_MUSEG, name="museg_plain", hints=templates.museg_hints(templates.MUSEG_PLAIN)),
    "taro": Protocol(
        name="taro",
        system_with_tool=templates.LOOK_CLOSER,
        system_without_tool="",
        hints=templates.TARO_HINTS,
        segment_style="words",
        decimals=2,
    ),
    "openo3": _OPENO3,
    "openo3_pixels": replace(
        _OPENO3,
        name="openo3_pixels",
        hints=templates.openo3_hints(templates.BOX_UNITS["pixels"]),
        box_scale="pixels",
    ),
    "small": Protocol(
        name="small",
        system_with_tool=templates.SMALL_WITH_TOOL,
        system_without_tool=templates.SMALL_WITHOUT_TOOL,
        question="both",
        success="",
        failure="",
        requires_think=True,
        decimals=0,
        stop=(),
    ),
}
