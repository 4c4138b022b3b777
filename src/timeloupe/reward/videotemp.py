"""VideoTemp-o3's rewards: accuracy, the penalty-aware IoU of what was looked at, and format; their plain sum is paid.

Source: paper, arXiv 2602.07801, section on rewards, through public digests; and the release
(Kwai-Keye/VideoTemp-o3, state of 2026-06, ``rl/video_crop_plugin.py``: ``acc_reward``, ``iou_reward``,
``format_reward``). The two disagree; the constants of the parts hold both::

    constant                     paper      release
    accuracy.low, high           0, 1       0.2, 0.8     IoU of grounding rows is rescaled
    matching (of both)           union      greedy       how several segments are matched
    accuracy.reading             parsed     release      how letters and times are read from the answer
    tool_iou.low, high           0, 1       0.2, 0.8
    tool_iou.grounding           answer     none         what a grounding row is measured by
    format.grammar               parsed     release

The release pays ``tool_iou`` only where ``accuracy`` is 1: the gate of a composite, not a constant here.

Formulas, with G the true segments, P the predicted ones, IoU(P, G) = sum of the IoUs of greedy matches / len(P), where
each p in order takes its best free g, or the IoU of the two unions::

    rescaled = clip((IoU - low) / (high - low), 0, 1)
    tool_iou = rescaled                 if rescaled >= threshold
               rescaled - penalty       if not
               -no_call_penalty         if nothing was looked at

Deviations:

1. Unscored, not 0, where the truth is missing: a row without segments has no IoU.
2. A call whose times are no segment (negative, reversed) is refused when it is read and counts as no overlap; the
   release measures a negative start as written.
3. Where a server has cut off the stop string, the closing tag counts as there. The release's format reward, which needs
   the tag, was only ever run where it stays.
4. The paper does not say how the IoU term treats grounding rows, nor how several segments are matched; we measure the
   answered segments, by their unions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from timeloupe.errors import boundary
from timeloupe.grounding import Span, set_iou, tiou
from timeloupe.prompt.parse import check_format
from timeloupe.prompt.protocol import PROTOCOLS, Protocol
from timeloupe.prompt.segments import parse_segments
from timeloupe.reward.accuracy import chosen_letter, first_letter, is_choice, true_letter
from timeloupe.reward.base import Context, Part, check_constant
from timeloupe.trajectory import Answer, Problem, StopReason, Trajectory, Turn

Matching = Literal["greedy", "union"]
"""``greedy`` = the release's sum over matches, which does not see events that were left out; ``union`` = IoU of the two
unions, which does."""

_NUMBER = re.compile(r"-?\d+\.?\d*")
_THINK_THEN_CALL = re.compile(r"</think>\s*<tool_call>")
_THINK_THEN_ANSWER = re.compile(r"</think>\s*<answer>")


# -- formulas ----------------------------------------------------------------------------------------------------------


def segments_iou(predicted: Sequence[Span], true: Sequence[Span], matching: Matching = "greedy") -> float:
    """Return the IoU of predicted with true spans, in [0, 1]; 0 if either side has none."""
    if not predicted or not true:
        return 0.0
    if matching == "union":
        return set_iou(predicted, true)
    # Not ``match_in_order``: hundreds of thousands of predictions are soon done when every true span is taken.
    free, total = list(true), 0.0
    for one in predicted:
        ious = [tiou(one, other) for other in free]
        if ious and (best := max(ious)) > 0:
            free.pop(ious.index(best))
            total += best
    return total / len(predicted)


def rescale(iou: float, low: float = 0.0, high: float = 1.0) -> float:
    """Return where an IoU lies between ``low`` (0) and ``high`` (1), clipped to [0, 1].

    Raises:
        ConfigError: Not 0 <= low < high <= 1.
    """
    if not 0 <= low < high <= 1:
        raise boundary("low and high of an IoU reward", (low, high), "0 <= low < high <= 1")
    return min(max((iou - low) / (high - low), 0.0), 1.0)


def penalised(value: float, threshold: float = 0.1, penalty: float = 0.1) -> float:
    """Return ``value``, less ``penalty`` where it is under ``threshold``.

    Raises:
        ConfigError: ``threshold`` or ``penalty`` is not in [0, 1].
    """
    check_constant("threshold", threshold)
    check_constant("penalty", penalty)
    return value if value >= threshold else value - penalty


def paired_numbers(text: str) -> tuple[tuple[float, float], ...]:
    """Return the numbers of a text in pairs as the release reads an answer; none if their count is odd.

    A dash makes a number negative even between two times: ``24.3-30.4`` gives (24.3, -30.4).
    """
    numbers = [float(number) for number in _NUMBER.findall(text)]
    return () if len(numbers) % 2 else tuple(zip(numbers[::2], numbers[1::2], strict=True))


def has_release_format(replies: Sequence[str], tool_name: str) -> bool:
    """Return whether every reply is, in the release's eyes, a thought followed by a call or an answer.

    A reply begins with ``<think>`` and ends with the closing tag of a call or an answer, and somewhere between them a
    thought ends right before a call or an answer begins. Repeated tags and text between blocks are not seen. The first
    call block, wherever it stands, must be JSON with the tool's name and arguments that hold times; numbers may be
    written as strings.
    """
    return all(_is_release_turn(reply, tool_name) for reply in replies)


def _is_release_turn(reply: str, tool_name: str) -> bool:
    if _spans_all(reply, _THINK_THEN_CALL, "</tool_call>"):
        opened = reply.find("<tool_call>")
        closed = reply.find("</tool_call>", opened)
        return _is_release_call(reply[opened + len("<tool_call>") : closed], tool_name)
    return _spans_all(reply, _THINK_THEN_ANSWER, "</answer>")


def _spans_all(reply: str, middle: re.Pattern[str], ending: str) -> bool:
    """Whether the reply is ``<think>``, anything, ``middle``, anything, ``ending``."""
    if not reply.startswith("<think>") or not reply.endswith(ending):
        return False
    found = middle.search(reply, len("<think>"))
    return found is not None and found.end() <= len(reply) - len(ending)


def _is_release_call(inside: str, tool_name: str) -> bool:
    try:
        call: Any = json.loads(inside.strip())
        for argument in call["arguments"]:
            float(argument["start_time"])
            float(argument["end_time"])
        return call["name"] == tool_name
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return False


# -- parts -------------------------------------------------------------------------------------------------------------


def accuracy(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    low: float = 0.0,
    high: float = 1.0,
    matching: Matching = "greedy",
    reading: Literal["parsed", "release"] = "parsed",
) -> float | None:
    """Return how right the answer is, in [0, 1]: 1 or 0 for an option letter, the rescaled IoU for grounding.

    ``reading="release"`` takes the first letter of the answer, whatever word it belongs to, and all its numbers in
    pairs. ``None`` without a true letter or true segments, for other tasks, or if the machine ended the episode.
    """
    example = trajectory.example
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    answer = trajectory.answer
    if is_choice(example):
        truth = true_letter(example)
        if truth is None:
            return None
        if answer is None:
            return 0.0
        letter = first_letter(answer.text) if reading == "release" else chosen_letter(answer, example)
        return float(letter == truth)
    if example.task not in ("grounding", "multi_segment") or not example.segments:
        return None
    predicted = _answered(answer, reading)
    return rescale(segments_iou(predicted, example.segments, matching), low, high)


def tool_iou(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    low: float = 0.0,
    high: float = 1.0,
    threshold: float = 0.1,
    penalty: float = 0.1,
    no_call_penalty: float = 0.1,
    matching: Matching = "greedy",
    looked: Literal["called", "shown"] = "called",
    grounding: Literal["answer", "call", "none"] = "answer",
) -> float | None:
    """Return the penalty-aware IoU of what was looked at last with the true segments, in [-1, 1].

    Args:
        trajectory: The episode.
        context: Not looked at.
        low: IoU that counts as 0.
        high: IoU that counts as 1.
        threshold: Rescaled IoU under which the penalty is taken off (sigma of the paper).
        penalty: What is taken off (lambda), 0 to 1.
        no_call_penalty: What not looking at all costs, 0 to 1.
        matching: How several segments are matched.
        looked: ``called`` = the segments as the last call asks for them; ``shown`` = the crops that came back, which
            end at the video's end and leave out what was refused.
        grounding: What a grounding row is measured by: its ``answer``, its last ``call`` like other rows, or ``none``
            (it counts as not looked, which is the release's way).

    ``None`` without true segments, or if the machine ended the episode.
    """
    example = trajectory.example
    check_constant("no_call_penalty", no_call_penalty)
    # Refuses wrong constants in every episode, not only in the first one that looks.
    penalised(rescale(0.0, low, high), threshold, penalty)
    if not example.segments or trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    predicted: Sequence[Span] | None = _looked_at(trajectory, looked)
    if example.task in ("grounding", "multi_segment") and grounding != "call":
        predicted = None if grounding == "none" else _answered(trajectory.answer, "parsed")
    if predicted is None:
        return -no_call_penalty
    return penalised(
        rescale(segments_iou(predicted, example.segments, matching), low, high), threshold, penalty
    )


def format(
    trajectory: Trajectory, context: Context, /, *, grammar: Literal["parsed", "release"] = "parsed"
) -> float | None:
    """Return 1 if every reply is a thought and then a call or an answer, else 0; 0 if there is no reply.

    ``parsed`` is the grammar of the episode's protocol (``prompt.parse.check_format``), ``release`` that of
    ``has_release_format``. ``None`` if the machine ended the episode.
    """
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    protocol = PROTOCOLS.get(trajectory.protocol, PROTOCOLS["videotemp"])
    if not trajectory.turns:
        return 0.0
    if grammar == "release":
        replies = [with_closing_tag(turn, protocol) for turn in trajectory.turns]
        return float(has_release_format(replies, protocol.tool_name))
    faults = (
        check_format(turn.generation.text, protocol, closed=turn.generation.finish == "length")
        for turn in trajectory.turns
    )
    return float(all(fault is None for fault in faults))


def with_closing_tag(turn: Turn, protocol: Protocol) -> str:
    """Return a turn's text, with the closing tag that a server took with the stop string, if it did."""
    text = turn.generation.text
    if turn.generation.finish == "stop" and (turn.call or turn.answer):
        closing = f"</{protocol.answer_tag if turn.answer else protocol.call_tag}>"
        return text if closing in text else text + closing
    return text


def _answered(answer: Answer | None, reading: Literal["parsed", "release"]) -> Sequence[Span]:
    if answer is None:
        return ()
    if reading == "release":
        return paired_numbers(answer.text)
    if answer.segments:
        return answer.segments
    found = parse_segments(answer.text)
    return () if isinstance(found, Problem) else found


def _looked_at(trajectory: Trajectory, looked: Literal["called", "shown"]) -> Sequence[Span] | None:
    """Return what the last turn that got an observation asked for or was shown; ``None`` if there is no such turn."""
    turn = next((turn for turn in reversed(trajectory.turns) if turn.observation is not None), None)
    if turn is None or turn.observation is None:
        return None
    if looked == "shown":
        return tuple((ref.start_seconds, ref.end_seconds) for ref in turn.observation.frame_refs)
    return () if turn.call is None else turn.call.segments


VIDEOTEMP_PARTS: dict[str, tuple[Part, tuple[float, float]]] = {
    "videotemp.accuracy": (accuracy, (0.0, 1.0)),
    "videotemp.tool_iou": (tool_iou, (-1.0, 1.0)),
    "videotemp.format": (format, (0.0, 1.0)),
}
"""Name of a part -> (function, (lowest, highest value)); the constants keep every value within."""
