"""Open-o3 Video's seven rewards as its release computes them, for one reply and the truth in the release's own form.

Source: marinero4972/Open-o3-Video@1eb6ecae, ``src/r1-v/src/open_r1/reward_func.py``. ``task`` is the release's name of
a task and decides what is paid; unknown names count as spatio-temporal. A reply's faults never raise. Faults of the
truth (a key frame without items, no key frames, a span that is no literal) raise what they raise there, unless the
release itself pays 0 for them.

Deviations, all in what hostile replies get where the release raises or hangs:

1. Numbers of more than 308 digits in a box, boxes nested too deep to parse, and a time so far away that its square
   overflows earn 0 (the release ends with an exception).
2. Free text is compared within the bounds of ``accuracy.rouge``.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any

from timeloupe.grounding import Corners, box_iou
from timeloupe.reward.accuracy import is_exact_option, rouge
from timeloupe.reward.openo3_parse import (
    answer_text,
    answered_span,
    block,
    box_numbers,
    marked_boxes,
    names_a_box,
    read_list,
    release_claims,
    thought_times,
)
from timeloupe.reward.openo3_terms import Gate, frame_iou, nearest_frame, proximity

TEMPORAL = "temporal QA"
TEMPORAL_CHOICE = "temporal QA (MCQ)"
VISUAL = "visual QA"
SPATIAL = "temporal-spatial free-form QA"
CHOICE = "General video QA MCQ"
FREE_FORM = "General video QA Free-form"

RELEASE_GATE = Gate("signed", 1.0, inclusive=False)


def answer_accuracy(reply: str, task: str, answer: str) -> float:
    """Return 1 or 0 for a letter, the ROUGE for free text, in [0, 1] (``ans_acc_reward``).

    With times asked for as well, the letter is what follows the first ``Correct Option:``, up to the next one.
    """
    text, truth = answer_text(reply), answer.partition("</answer>")[0].strip()
    if task == TEMPORAL_CHOICE:
        choices = text.split("Correct Option:")
        return float(len(choices) > 1 and is_exact_option(choices[1], answer.split("\n")[0]))
    if task == CHOICE:
        return float(is_exact_option(text, truth))
    return 0.0 if task in (VISUAL, TEMPORAL) else rouge(text, truth)


def answer_tiou(reply: str, task: str, answer: str) -> float:
    """Return the IoU, over the hull, of the answered span with the true one, in [0, 1] (``ans_tiou_reward``).

    0 for other tasks and where the truth is no pair of numbers.
    """
    if task not in (TEMPORAL, TEMPORAL_CHOICE):
        return 0.0
    try:
        true_start, true_end = _true_span(task, answer)
        span = answered_span(answer_text(reply))
        if span is None:
            return 0.0
        start, end = span
        common = max(0, min(end, true_end) - max(start, true_start))
        hull = max(end, true_end) - min(start, true_start)
        return common / hull if common > 0 and math.isfinite(hull) else 0.0
    except (ValueError, TypeError, SyntaxError, IndexError, KeyError, MemoryError, RecursionError):
        return 0.0


def answer_viou(
    reply: str, task: str, answer: str, image_wh: Sequence[float], shown_wh: Sequence[float]
) -> float:
    """Return the IoU of the answer's first box with the true one scaled to the frame shown (``ans_viou_reward``).

    In [0, 1]; 0 for other tasks and where the truth has no box.
    """
    if task != VISUAL:
        return 0.0
    true, box = _first_box(answer), _first_box(answer_text(reply))
    if true is None or box is None:
        return 0.0
    try:
        return release_iou(scaled(true, image_wh, shown_wh), box)
    except (TypeError, IndexError, ZeroDivisionError):
        return 0.0


def thought_segment(reply: str, task: str, answer: str) -> float:
    """Return the share of the thought's times that lie in the true span, in [0, 1] (``thk_temporal_segment_reward``).

    0 for tasks without a span, without a thought, and if one of its times is no number.

    Raises:
        ValueError, SyntaxError, IndexError: The truth is no literal, or has no second line where it must.
    """
    thought = block(reply, "think")
    if thought is None or task in (VISUAL, SPATIAL) or "General video QA" in task:
        return 0.0
    span = _true_span(task, answer)
    times = thought_times(thought)
    return sum(span[0] <= time <= span[1] for time in times) / len(times) if times else 0.0


def thought_point(reply: str, task: str, key_frames: Sequence[Mapping[str, Any]], sigma: float) -> float:
    """Return how near the thought's times are to key frames, in [0, 1] (``thk_temporal_point_reward``).

    0 for tasks without key frames, without a thought, and if one of its times is no number. ``sigma`` is in seconds.

    Raises:
        ValueError: The thought has times and there are no key frames.
    """
    thought = block(reply, "think")
    if thought is None or task in (VISUAL, TEMPORAL, TEMPORAL_CHOICE) or "General video QA" in task:
        return 0.0
    times = thought_times(thought)
    return proximity(times, [frame["time"] for frame in key_frames], sigma) if times else 0.0


def thought_spatial(
    reply: str,
    task: str,
    key_frames: Sequence[Mapping[str, Any]],
    key_items: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    shown_wh: Sequence[float],
    gate: Gate = RELEASE_GATE,
) -> float:
    """Return the mean over the thought's claims of their IoU with the nearest key frame, in [0, 1].

    (``thk_spatial_reward``, all tasks but ``visual QA``.) A claim that no key frame lets in counts as 0; a key frame at
    -1 s lets nothing in. True boxes are fractions, claimed ones pixels of the frame shown.

    Raises:
        KeyError: The nearest key frame has no items.
        ValueError, TypeError: A true box is not four numbers.
    """
    thought = block(reply, "think")
    if thought is None or block(reply, "answer") is None:
        return 0.0
    if task in (TEMPORAL, TEMPORAL_CHOICE) or "General video QA" in task:
        return 0.0
    claims = release_claims(thought)
    times = [frame["time"] for frame in key_frames] if claims else []
    total = 0.0
    for claim in claims:
        at = nearest_frame(claim.at_seconds, times, gate)
        if at is None or times[at] == -1:
            continue
        objects = key_items[str(key_frames[at]["idx"])]
        boxes = [corners for box in claim.boxes if (corners := box_numbers(box)) is not None]
        if claim.boxes:
            pixels = {name: [in_pixels(box, shown_wh) for box in true] for name, true in objects.items()}
            total += frame_iou(boxes, pixels.values())
    return total / len(claims) if claims else 0.0


def thought_visual(
    reply: str, task: str, answer: str, image_wh: Sequence[float], shown_wh: Sequence[float]
) -> float:
    """Return the best IoU of a box in the thought with the true one scaled to the frame shown, in [0, 1].

    (``thk_spatial_reward`` for ``visual QA``; 0 for other tasks.)

    Raises:
        TypeError, IndexError, ZeroDivisionError: The true box is not four numbers, or a size is 0.
    """
    thought = block(reply, "think")
    if task != VISUAL or thought is None or block(reply, "answer") is None:
        return 0.0
    true = _first_box(answer)
    boxes = [box for inside in marked_boxes(thought) if (box := read_list(inside)) is not None]
    if true is None or not boxes:
        return 0.0
    frame = scaled(true, image_wh, shown_wh)
    return max(release_iou(frame, box) for box in boxes)


def format(reply: str, task: str) -> float:
    """Return 0 without a thought and an answer whose tags are equal in number, else 0.5, or 1 with evidence.

    (``format_reward``.) Evidence is what the task asks for in the thought: an object, a box and a time; at least two
    times; for ``visual QA`` also a box after an object of one word anywhere. General tasks need none.
    """
    thought = block(reply, "think")
    if thought is None or block(reply, "answer") is None:
        return 0.0
    if any(reply.count(f"<{tag}>") != reply.count(f"</{tag}>") for tag in ("think", "answer")):
        return 0.0
    counts = {tag: thought.count(f"<{tag}>") for tag in ("obj", "t", "box")}
    if any(count != thought.count(f"</{tag}>") for tag, count in counts.items()):
        return 0.0
    if task in (TEMPORAL, TEMPORAL_CHOICE):
        evidence = counts["t"] >= 2
    else:
        evidence = all(counts.values()) or (task == VISUAL and names_a_box(reply))
    return 1.0 if evidence or "General video QA" in task else 0.5


def in_pixels(box: Sequence[float], frame_wh: Sequence[float]) -> Corners:
    """Return a box in fractions as pixels of a frame (``convert_coord_format``).

    Raises:
        ValueError, TypeError: It is not four numbers, or the frame not two.
    """
    x1, y1, x2, y2 = box
    width, height = frame_wh
    return (x1 * width, y1 * height, x2 * width, y2 * height)


def scaled(box: Sequence[float], from_wh: Sequence[float], to_wh: Sequence[float]) -> list[float]:
    """Return a box of one frame size in another, without changing it (``convert_coord_format_gqa`` changes it).

    Raises:
        TypeError, IndexError, ZeroDivisionError: The box has under four numbers, or a size is 0.
    """
    return [box[at] * to_wh[at % 2] / from_wh[at % 2] for at in range(4)] + list(box[4:])


def release_iou(true: Sequence[float], box: object) -> float:
    """Return the IoU of two boxes, in [0, 1]; 0 if the second is not a list of four numbers (``calculate_iou``).

    Raises:
        IndexError: The first has under four numbers.
    """
    corners = box_numbers(box)
    if corners is None:
        return 0.0
    try:
        known = [float(value) for value in true]
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return box_iou((known[0], known[1], known[2], known[3]), corners)


def _first_box(text: str) -> list[Any] | None:
    inside = next(marked_boxes(text), None)
    return None if inside is None else read_list(inside)


def _true_span(task: str, answer: str) -> Any:
    """Return what the truth's literal spells; with options it is the second line."""
    return ast.literal_eval(answer.split("\n")[1] if task == TEMPORAL_CHOICE else answer)
