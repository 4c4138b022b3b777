"""The same chat with other frames: what an audit shows a model instead of what it was shown. Pure functions.

The words stay as they are, replies and tool texts included; only frames change, and no frame is shown that was not
shown before. A view without frames is left out of its message.

=============  =======================================================================================================
again          nothing changes: the reference
without        frames that show the evidence are cut out of every view, crops of it with them
elsewhere      as many frames of the first view are cut out at another place: the control
only           frames that show anything but the evidence are cut out
shuffled       the pictures inside each segment of the evidence change places; the times stay where they are
=============  =======================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from timeloupe.trajectory import FrameRef, Message, Trajectory

AGAIN, WITHOUT, ELSEWHERE, ONLY, SHUFFLED = "again", "without", "elsewhere", "only", "shuffled"
CONDITIONS = (AGAIN, WITHOUT, ELSEWHERE, ONLY, SHUFFLED)

BOX_SECONDS = 0.5
"""A box is evidence for the frames this close to its time: times are often printed in whole seconds."""

Span = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Shown:
    """A chat up to the reply that is asked for, and the pixels (N, H, W, 3) of its views in order.

    Attributes:
        num_changed: Frames that are missing, or that show another picture, against what was shown first.
    """

    messages: tuple[Message, ...]
    clips: tuple[np.ndarray, ...]
    num_changed: int = 0

    @property
    def num_frames(self) -> int:
        """Frames shown."""
        return sum(len(clip) for clip in self.clips)


def evidence_spans(trajectory: Trajectory) -> tuple[Span, ...]:
    """Return the (start, end) seconds, half-open, that an answered episode stands on; none if it names no evidence.

    They are the first of these that there are: the segments of its answer; the views that the last call brought, their
    margins included; ``BOX_SECONDS`` around the time of each box that it claims.
    """
    answer = trajectory.answer
    if answer is not None and answer.segments:
        return tuple((one.start_seconds, one.end_seconds) for one in answer.segments)
    for turn in reversed(trajectory.turns):
        if turn.observation is not None and turn.observation.frame_refs:
            return tuple(_span(ref) for ref in turn.observation.frame_refs)
    times = sorted({box.at_seconds for box in answer.boxes}) if answer is not None else []
    return tuple((time - BOX_SECONDS, time + BOX_SECONDS) for time in times)


def true_spans(trajectory: Trajectory) -> tuple[Span, ...]:
    """Return the (start, end) seconds of the true evidence, whatever the answer names; none where it is not known."""
    return tuple((one.start_seconds, one.end_seconds) for one in trajectory.example.segments)


EVIDENCE = {"cited": evidence_spans, "true": true_spans}
"""Whose evidence is taken away: what the answer names, or what the annotation says."""


def _span(ref: FrameRef) -> Span:
    """The time of a view: the frame displayed at its start may have begun earlier."""
    return min(ref.start_seconds, ref.at_seconds[0]), max(
        ref.end_seconds, math.nextafter(ref.at_seconds[-1], math.inf)
    )


def change(shown: Shown, spans: Sequence[Span], condition: str, random: np.random.Generator) -> Shown | str:
    """Return the chat as a condition shows it, or why that cannot be asked.

    Args:
        shown: What was shown.
        spans: The evidence.
        condition: One of ``CONDITIONS``.
        random: Draws the place of ``elsewhere`` and the orders of ``shuffled``.

    Returns:
        The chat; or ``no_frame_cited`` (no frame that was shown lies in the evidence, so there is nothing to change),
        ``no_frame_left``, ``all_cited`` (there is nothing beside the evidence), ``single_frames`` (nothing to
        shuffle), ``no_room`` (the evidence leaves no such place).
    """
    refs = [ref for message in shown.messages for ref in message.frame_refs]
    cited = [np.array([_inside(time, spans) for time in ref.at_seconds]) for ref in refs]
    if condition == AGAIN:
        return shown
    if not any(mask.any() for mask in cited):
        return "no_frame_cited"
    if condition == WITHOUT:
        return _kept(shown, [~mask for mask in cited])
    if condition == ONLY:
        return "all_cited" if all(mask.all() for mask in cited) else _kept(shown, cited)
    if condition == SHUFFLED:
        return _shuffled(shown, refs, spans, random)
    if condition != ELSEWHERE:
        raise ValueError(f"condition must be one of {', '.join(CONDITIONS)}, got {condition!r}")
    place = _other_place(refs[0], cited[0], random)
    if place is None:
        return "no_room"
    gone = [
        np.array([_inside(time, [place]) for time in ref.at_seconds]) & ~mask
        for ref, mask in zip(refs, cited, strict=True)
    ]
    return _kept(shown, [~mask for mask in gone])


def _inside(time: float, spans: Sequence[Span]) -> bool:
    return any(start <= time < end for start, end in spans)


def _other_place(ref: FrameRef, cited: np.ndarray, random: np.random.Generator) -> Span | None:
    """A stretch with as many frames of the first view as the evidence has there, at least one, and none of its own."""
    count = max(1, int(cited.sum()))
    starts = [first for first in range(len(cited) - count + 1) if not cited[first : first + count].any()]
    if not starts:
        return None
    first = starts[int(random.integers(len(starts)))]
    times = [*ref.at_seconds, math.inf]
    return times[first], times[first + count]


def _kept(shown: Shown, masks: Sequence[np.ndarray]) -> Shown | str:
    """The chat with those frames only that the masks keep."""
    if not any(mask.any() for mask in masks):
        return "no_frame_left"
    clips: list[np.ndarray] = []
    messages: list[Message] = []
    views = iter(zip(shown.clips, masks, strict=True))
    for message in shown.messages:
        parts = []
        for part in message.parts:
            if not isinstance(part, FrameRef):
                parts.append(part)
                continue
            clip, mask = next(views)
            if not mask.any():
                continue
            times = tuple(time for time, kept in zip(part.at_seconds, mask, strict=True) if kept)
            parts.append(part.model_copy(update={"at_seconds": times}))
            clips.append(clip if mask.all() else clip[mask])
        messages.append(message.model_copy(update={"parts": tuple(parts)}))
    return Shown(tuple(messages), tuple(clips), sum(int((~mask).sum()) for mask in masks))


def _shuffled(
    shown: Shown, refs: Sequence[FrameRef], spans: Sequence[Span], random: np.random.Generator
) -> Shown | str:
    """The chat with the pictures inside each span in another order, view by view."""
    clips: list[np.ndarray] = []
    moved = 0
    for ref, clip in zip(refs, shown.clips, strict=True):
        order = np.arange(len(clip))
        for span in spans:
            places = np.array(
                [at for at, time in enumerate(ref.at_seconds) if _inside(time, [span])], dtype=int
            )
            if len(places) > 1:
                order[places] = order[_other_order(places, random)]
        clips.append(clip if (order == np.arange(len(clip))).all() else clip[order])
        moved += int((order != np.arange(len(clip))).sum())
    return Shown(shown.messages, tuple(clips), moved) if moved else "single_frames"


def _other_order(places: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The places in another order, each other order as likely."""
    while True:
        order = random.permutation(places)
        if (order != places).any():
            return order
