"""Open-o3 Video's seven rewards on episodes; their plain sum is paid.

Source: paper, arXiv 2510.20579v2, its section on rewards, and the release (marinero4972/Open-o3-Video@1eb6ecae,
``src/r1-v/src/open_r1/reward_func.py``). What is asked for decides which terms count; the others are 0::

    the release's task              an example of it has             terms, beside format
    ------------------------------  -------------------------------  -----------------------------------------------
    General video QA MCQ            options                          answer_accuracy
    General video QA Free-form      none of these                    answer_accuracy
    temporal QA                     task grounding or multi_segment  answer_tiou, thought_segment
    temporal QA (MCQ)               options and segments             answer_accuracy, answer_tiou, thought_segment
    temporal-spatial free-form QA   boxes and an answer              answer_accuracy, thought_point, thought_spatial
    visual QA                       boxes and no answer              answer_viou, thought_spatial

Only the last reply is looked at: the method answers at once. Boxes of a reply are in thousandths of the frame or pixels
of the frame shown, as the episode's protocol says.

Deviations, numbered as options; the first value is the default:

1. ``reading="parsed"`` reads letters, segments and times as the rest of this project does; ``"release"`` as the
   release. Parsed, a time in the thought that cannot be read counts as a miss; the release then drops all times.
2. ``gate="absolute", tau=3, inclusive=True`` as the paper says; the release has ``"signed", 1, False``: any box later
   than a key frame is let in.
3. ``claims="parsed"``: claims that do not run into each other, and one without a time counts as a miss; ``"release"``.
4. ``per="claim"`` as the release: the mean over claims; ``"time"`` as the paper: the sum over the times of the thought.
5. ``strict=False`` as the release: format compares numbers of tags; ``True``: the protocol's grammar and whole claims.
6. The sigma schedule counts the step that is being scored as done, as the release does: (step + 1) / steps.
7. Key frames are the times of the example's boxes, exact. A row whose truth lacks what its terms need is unscored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from timeloupe.grounding import FRACTIONS, THOUSANDTHS, Corners, rescale_box, set_iou
from timeloupe.prompt.evidence import Claim, parse_claims
from timeloupe.prompt.parse import check_format
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.prompt.segments import parse_segments, parse_tagged_segments
from timeloupe.prompt.times import read_seconds
from timeloupe.reward import openo3_release as release
from timeloupe.reward.accuracy import MAX_CHARACTERS, chosen_letter, is_choice, rouge, true_letter
from timeloupe.reward.base import Context, Part
from timeloupe.reward.openo3_parse import (
    block,
    box_numbers,
    marked_boxes,
    marked_times,
    read_list,
    release_claims,
)
from timeloupe.reward.openo3_terms import Gate, frame_iou, nearest_frame, proximity, sigma_at
from timeloupe.reward.videotemp import with_closing_tag
from timeloupe.trajectory import Example, Problem, Segment, StopReason, Trajectory

Reading = Literal["parsed", "release"]


def kind_of(example: Example) -> str:
    """Return the release's name for what an example asks; see the module."""
    if is_choice(example):
        return release.TEMPORAL_CHOICE if example.segments else release.CHOICE
    if example.task in ("grounding", "multi_segment"):
        return release.TEMPORAL
    if not example.boxes:
        return release.FREE_FORM
    return release.SPATIAL if example.answer else release.VISUAL


def answer_accuracy(
    trajectory: Trajectory, context: Context, /, *, reading: Reading = "parsed"
) -> float | None:
    """Return how right the answer is, in [0, 1]: 1 or 0 for a letter, ROUGE for free text, 0 where neither is asked.

    ``None`` if the example does not say what is right, or if the machine ended the episode.
    """
    example, kind = trajectory.example, kind_of(trajectory.example)
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    if kind in (release.TEMPORAL, release.VISUAL):
        return 0.0
    truth = true_letter(example) if is_choice(example) else (example.answer or "").strip()
    if not truth or len(truth) > MAX_CHARACTERS:
        return None
    if reading == "release":
        return release.answer_accuracy(_reply(trajectory), kind, truth)
    if trajectory.answer is None:
        return 0.0
    if is_choice(example):
        return float(chosen_letter(trajectory.answer, example) == truth)
    return rouge(trajectory.answer.text, truth)


def answer_tiou(trajectory: Trajectory, context: Context, /, *, reading: Reading = "parsed") -> float | None:
    """Return the IoU of the answered with the true segments, in [0, 1]; 0 where no segment is asked for.

    ``None`` without true segments, if the release is to read a row with several, or if the machine ended the episode.
    """
    example, kind = trajectory.example, kind_of(trajectory.example)
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    if kind not in (release.TEMPORAL, release.TEMPORAL_CHOICE):
        return 0.0
    if reading == "release":
        literal = _span_literal(example)
        return None if literal is None else release.answer_tiou(_reply(trajectory), release.TEMPORAL, literal)
    if not example.segments:
        return None
    return set_iou(_answered(trajectory), example.segments)


def answer_viou(trajectory: Trajectory, context: Context, /) -> float | None:
    """Return the IoU of the answer's first box with the true box it fits best, in [0, 1]; 0 where no box is asked for.

    ``None`` if the size of the frames shown is needed and unknown, or if the machine ended the episode.
    """
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    if kind_of(trajectory.example) != release.VISUAL:
        return 0.0
    truth = _true_boxes(trajectory)
    if truth is None:
        return None
    inside = next(marked_boxes(block(_reply(trajectory), "answer") or ""), "")
    return _best_iou([inside], truth)


def thought_segment(
    trajectory: Trajectory, context: Context, /, *, reading: Reading = "parsed"
) -> float | None:
    """Return the share of the thought's times that lie in a true segment, in [0, 1]; 0 where no segment is asked for.

    Ends count as inside. ``None`` as ``answer_tiou``.
    """
    example, kind = trajectory.example, kind_of(trajectory.example)
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    if kind not in (release.TEMPORAL, release.TEMPORAL_CHOICE):
        return 0.0
    if reading == "release":
        literal = _span_literal(example)
        return (
            None
            if literal is None
            else release.thought_segment(_reply(trajectory), release.TEMPORAL, literal)
        )
    if not example.segments:
        return None
    times = _thought_times(trajectory)
    return sum(_inside(time, example.segments) for time in times) / len(times) if times else 0.0


def thought_point(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    first_sigma: float = 4.0,
    last_sigma: float = 1.0,
    until: float = 0.75,
    reading: Reading = "parsed",
) -> float | None:
    """Return how near the thought's times are to key frames, in [0, 1]; 0 where no key frames are (temporal proximity).

    The width of "near" follows the progress after the step being scored: from ``first_sigma`` to ``last_sigma`` seconds
    in a line, reached at ``until``. ``None`` if the machine ended the episode.
    """
    sigma = sigma_at(min(context.progress + context.step, 1.0), first_sigma, last_sigma, until)
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    if kind_of(trajectory.example) != release.SPATIAL:
        return 0.0
    key_times = sorted({box.at_seconds for box in trajectory.example.boxes})
    if reading == "release":
        frames = [{"time": time} for time in key_times]
        return release.thought_point(_reply(trajectory), release.SPATIAL, frames, sigma)
    times = [math.inf if time is None else time for time in _thought_times(trajectory)]
    return proximity(times, key_times, sigma) if times else 0.0


def thought_spatial(
    trajectory: Trajectory,
    context: Context,
    /,
    *,
    gate: Literal["absolute", "signed"] = "absolute",
    tau: float = 3.0,
    inclusive: bool = True,
    claims: Reading = "parsed",
    per: Literal["claim", "time"] = "claim",
) -> float | None:
    """Return how well the boxes of the thought fit the true ones, in [0, 1]; 0 where there are none, or no answer.

    With key frames: the mean over claims of the IoU with the nearest key frame that the gate lets in, 0 for others.
    Without: the best IoU of a box in the thought. ``None`` as ``answer_viou``.
    """
    nearness = Gate(gate, tau, inclusive)
    kind = kind_of(trajectory.example)
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    if kind not in (release.SPATIAL, release.VISUAL):
        return 0.0
    truth = _true_boxes(trajectory)
    if truth is None:
        return None
    reply = _reply(trajectory)
    thought = block(reply, "think")
    if thought is None or block(reply, "answer") is None:
        return 0.0
    if kind == release.VISUAL:
        return _best_iou(list(marked_boxes(thought)), truth)
    found = parse_claims(thought) if claims == "parsed" else _as_claims(thought)
    count = len(found) if per == "claim" else sum(1 for _ in marked_times(thought))
    key_times = list(truth)
    total = 0.0
    for claim in found:
        at = None if claim.at_seconds is None else nearest_frame(claim.at_seconds, key_times, nearness)
        if at is not None:
            total += frame_iou(claim.boxes, truth[key_times[at]].values())
    return total / count if count else 0.0


def format(trajectory: Trajectory, context: Context, /, *, strict: bool = False) -> float | None:
    """Return 0 for a reply out of form, 0.5 for thought and answer, 1 with the evidence that the task asks for.

    ``strict`` demands the protocol's grammar instead of equal numbers of tags, and instead of tags of each sort: every
    object in a claim with box and time; at least two times that can be read; for ``visual QA`` a claim with a box.
    ``None`` if the machine ended the episode.
    """
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    kind = kind_of(trajectory.example)
    if not strict:
        return release.format(_reply(trajectory), kind)
    if not trajectory.turns or trajectory.answer is None:
        return 0.0
    turn = trajectory.turns[-1]
    protocol = PROTOCOLS.get(trajectory.protocol, PROTOCOLS["openo3"])
    if check_format(turn.generation.text, protocol, closed=turn.generation.finish == "length") is not None:
        return 0.0
    if "General video QA" in kind:
        return 1.0
    found = parse_claims(
        f"{turn.thought}\n{trajectory.answer.text}" if kind == release.VISUAL else turn.thought
    )
    if kind in (release.TEMPORAL, release.TEMPORAL_CHOICE):
        evidence = sum(time is not None for time in _thought_times(trajectory)) >= 2
    elif kind == release.VISUAL:
        evidence = bool(found)
    else:
        whole = sum(claim.at_seconds is not None for claim in found)
        evidence = 0 < whole == turn.thought.count("<obj>")
    return 1.0 if evidence else 0.5


# -- reading an episode ------------------------------------------------------------------------------------------------


def _reply(trajectory: Trajectory) -> str:
    """Return the text of the last reply; "" if there is none."""
    protocol = PROTOCOLS.get(trajectory.protocol, PROTOCOLS["openo3"])
    return with_closing_tag(trajectory.turns[-1], protocol) if trajectory.turns else ""


def _answered(trajectory: Trajectory) -> Sequence[Segment]:
    answer = trajectory.answer
    if answer is None:
        return ()
    if answer.segments:
        return answer.segments
    found = (
        parse_tagged_segments(answer.text) if is_choice(trajectory.example) else parse_segments(answer.text)
    )
    return () if isinstance(found, Problem) else found


def _thought_times(trajectory: Trajectory) -> list[float | None]:
    """Return what stands in the time tags of the last thought, ``None`` where that is no time."""
    thought = trajectory.turns[-1].thought if trajectory.turns else ""
    return [read_seconds(time) for time in marked_times(thought)]


def _inside(time: float | None, segments: Sequence[Segment]) -> bool:
    return time is not None and any(span.start_seconds <= time <= span.end_seconds for span in segments)


def _span_literal(example: Example) -> str | None:
    """Return the true span as the release's rows write it; ``None`` if there is not exactly one."""
    if len(example.segments) != 1:
        return None
    span = example.segments[0]
    return json.dumps([span.start_seconds, span.end_seconds])


def _true_boxes(trajectory: Trajectory) -> Mapping[float, Mapping[str, list[Corners]]] | None:
    """Return the true boxes by time and object, in the reply's coordinates; ``None`` if those are unknown."""
    protocol = PROTOCOLS.get(trajectory.protocol, PROTOCOLS["openo3"])
    frame_wh: tuple[float, float] = THOUSANDTHS
    if protocol.box_scale == "pixels":
        if not trajectory.skims:
            return None
        frame_wh = trajectory.skims[-1].size_wh
    found: dict[float, dict[str, list[Corners]]] = {}
    for box in sorted(trajectory.example.boxes, key=lambda box: box.at_seconds):
        corners = rescale_box((box.x1, box.y1, box.x2, box.y2), FRACTIONS, frame_wh)
        found.setdefault(box.at_seconds, {}).setdefault(box.label, []).append(corners)
    return found


def _best_iou(written: Sequence[str], truth: Mapping[float, Mapping[str, list[Corners]]]) -> float:
    """Return the best IoU of a box among JSON lists with any true box."""
    boxes = [box for text in written if (box := box_numbers(read_list(text))) is not None]
    true = [[box] for objects in truth.values() for known in objects.values() for box in known]
    return frame_iou(boxes, true)


def _as_claims(thought: str) -> Sequence[Claim]:
    """Return the claims as the release's pattern cuts them."""
    return [Claim(claim.label, _corners(claim.boxes), claim.at_seconds) for claim in release_claims(thought)]


def _corners(boxes: Sequence[list[Any]]) -> tuple[Corners, ...]:
    return tuple(corners for box in boxes if (corners := box_numbers(box)) is not None)


OPENO3_PARTS: dict[str, tuple[Part, tuple[float, float]]] = {
    "openo3.answer_accuracy": (answer_accuracy, (0.0, 1.0)),
    "openo3.answer_tiou": (answer_tiou, (0.0, 1.0)),
    "openo3.answer_viou": (answer_viou, (0.0, 1.0)),
    "openo3.thought_segment": (thought_segment, (0.0, 1.0)),
    "openo3.thought_point": (thought_point, (0.0, 1.0)),
    "openo3.thought_spatial": (thought_spatial, (0.0, 1.0)),
    "openo3.format": (format, (0.0, 1.0)),
}
"""Name of a part -> (function, (lowest, highest value))."""
