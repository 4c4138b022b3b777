"""The policies that a reward is tried on: honest lookers, and ways of being paid without looking well.

Each is a function from what is true and what a model can know of it to an ``Intent``: where to look, what to answer.
``write_replies`` says an intent in the words of a protocol. With a tool, to look is to call it; in a single pass it is
to mark in the thought what the answer rests on: times, or boxes with times.

**Knowledge.** ``perfect`` and those measured against it know the truth; ``honest`` (a trained model) and ``beginner``
(one at the start of its training), and those measured against them, know what a ``Skill`` lets them see. Policies of
one skill see the same in the same episode. One that differs from an honest one only in where it looks gives the SAME
answer, so that their difference is what the reward pays for looking.

**Degenerate** is a policy that earns its reward by something else than looking well and answering from what it saw. It
outranks honest looking if it earns more than the honest policy with the same knowledge.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from timeloupe.grounding import FRACTIONS, THOUSANDTHS, rescale_box, tiou
from timeloupe.prompt.build import LETTERS, write_call, write_seconds, write_segments
from timeloupe.prompt.protocol import Protocol
from timeloupe.reward.scenes import (
    FRAME_WH,
    MAX_SEGMENTS_PER_CALL,
    Scene,
    other_sentence,
    random_segment,
    seeded,
)
from timeloupe.reward.sight import Intent, Segments, Sight, make_box, make_segment, move_box, random_box
from timeloupe.trajectory import Box, Segment

Knows = Literal["perfect", "honest", "beginner"]

SLOPPY_IOU = 0.78
"""Just under the bound from which the release of VideoTemp-o3 pays a full point."""

NUM_SPAM = 12
NUM_SPAM_BOXES = 16
"""As many as a claim may hold (``prompt.evidence``)."""
HEDGE_SPREAD = 0.1
"""How far the edges of hedging boxes stray, as a share of the box; about what a trained model is wrong by."""


@dataclass(frozen=True)
class Case:
    """What an archetype is given in one episode.

    Attributes:
        scene: Question and truth.
        perfect: The intent of a model that knows everything.
        trained: What a trained model sees.
        novice: What a model sees at the start of its training.
        rng: The archetype's own source of chance.
    """

    scene: Scene
    perfect: Intent
    trained: Sight
    novice: Sight
    rng: random.Random


@dataclass(frozen=True)
class Archetype:
    """A policy of the simulation.

    Attributes:
        act: What it does.
        summary: The same in words.
        against: The honest policy with the same knowledge, which it must not outrank; ``None`` = it is honest itself.
    """

    act: Callable[[Case], Intent]
    summary: str
    against: Knows | None = None


def look_everywhere(case: Case) -> Intent:
    """Cut the video into six parts, look at them all, answer as the honest policy."""
    duration = case.scene.duration_seconds
    tiles = [Segment(start_seconds=i * duration / 6, end_seconds=(i + 1) * duration / 6) for i in range(6)]
    boxes = tuple(
        make_box(move_box(box, tile.start_seconds + 0.5 * tile.length_seconds), 0, 0, 1, 1)
        for tile in tiles
        for box in case.perfect.boxes[:1]
    )
    looks = (tuple(tiles[:3]), tuple(tiles[3:]))
    return _instead(case.trained.last, looks, boxes)


def whole_video(case: Case) -> Intent:
    """Look at the whole video and answer it."""
    whole = (Segment(start_seconds=0.0, end_seconds=case.scene.duration_seconds),)
    boxes = tuple(
        make_box(move_box(box, 0.5 * whole[0].end_seconds), 0, 0, 1, 1) for box in case.perfect.boxes[:1]
    )
    return replace(case.trained.first, looks=(whole,), segments=whole, boxes=boxes, broken=None)


def at_random(case: Case) -> Intent:
    """Look anywhere, answer anything."""
    rng, scene = case.rng, case.scene
    looks = tuple(random_segment(rng, scene.duration_seconds) for _ in scene.example.segments)
    boxes = tuple(
        move_box(random_box(rng, box), rng.uniform(0, scene.duration_seconds)) for box in case.perfect.boxes
    )
    return Intent(
        looks=(looks,), segments=looks, words=other_sentence(rng, scene), boxes=boxes,
        option=rng.choice(LETTERS[: len(scene.example.options)] or "A"),
    )  # fmt: skip


def tiny_segment(case: Case) -> Intent:
    """Look at, and answer, half a second in the middle of each event; mark the middle of each box."""
    tiny = tuple(_stretched(case, segment, 0.0) for segment in case.perfect.segments)
    boxes = tuple(_scaled_box(box, 0.2) for box in case.perfect.boxes)
    return replace(case.perfect, looks=(tiny,), segments=tiny, boxes=boxes)


def spam(case: Case) -> Intent:
    """Look at as much, and answer as many segments, as there is room for, the honest first guess among them."""
    rng, scene = case.rng, case.scene
    more = [random_segment(rng, scene.duration_seconds) for _ in range(NUM_SPAM)]
    first = case.trained.first
    looks = (*first.segments, *more)[:MAX_SEGMENTS_PER_CALL]
    boxes = tuple(
        random_box(rng, box) for box in case.trained.last.boxes for _ in range(NUM_SPAM_BOXES)
    )  # many boxes in one claim
    return replace(first, looks=(looks,), segments=(*first.segments, *more), boxes=boxes, broken=None)


def hedge_boxes(case: Case) -> Intent:
    """Look and answer as the honest policy; fill each claim with boxes around the one that was seen."""
    rng = case.rng
    boxes: list[Box] = []
    for box in case.trained.last.boxes:
        boxes.append(box)
        x, y = HEDGE_SPREAD * (box.x2 - box.x1), HEDGE_SPREAD * (box.y2 - box.y1)
        for _ in range(NUM_SPAM_BOXES - 1):
            edges = (
                box.x1 + rng.gauss(0, x),
                box.y1 + rng.gauss(0, y),
                box.x2 + rng.gauss(0, x),
                box.y2 + rng.gauss(0, y),
            )
            boxes.append(make_box(box, *edges))
    return replace(case.trained.last, boxes=tuple(boxes))


def leave_out(case: Case) -> Intent:
    """Know all events; look at and answer the first one only."""
    first = case.perfect.segments[:1]
    return replace(case.perfect, looks=(first,), segments=first)


def right_look_wrong_answer(case: Case) -> Intent:
    """Look at the truth and answer something else."""
    example = case.scene.example
    wrong = [letter for letter in LETTERS[: len(example.options)] if letter != example.answer]
    return replace(
        case.perfect, segments=_elsewhere(case), words=other_sentence(case.rng, case.scene),
        option=case.rng.choice(wrong or ["A"]),
    )  # fmt: skip


def wrong_look_right_answer(case: Case) -> Intent:
    """Look elsewhere and answer the truth; the right boxes are marked at the wrong times."""
    looks = _elsewhere(case)
    shift = looks[0].start_seconds - case.perfect.segments[0].start_seconds
    boxes = tuple(move_box(box, box.at_seconds + shift) for box in case.perfect.boxes)
    return replace(case.perfect, looks=(looks,), boxes=boxes, attends=0.0)


def sloppy_on_purpose(case: Case) -> Intent:
    """Know the truth and hand over a quarter too much: segments and boxes of IoU 0.78."""
    wide = tuple(_stretched(case, segment, 1 / SLOPPY_IOU) for segment in case.perfect.segments)
    boxes = tuple(_scaled_box(box, SLOPPY_IOU**0.5) for box in case.perfect.boxes)
    return replace(case.perfect, looks=(wide,), segments=wide, boxes=boxes)


ARCHETYPES: dict[str, Archetype] = {
    "perfect": Archetype(lambda case: case.perfect, "looks at the truth once and answers it"),
    "honest": Archetype(
        lambda case: case.trained.last, "a trained model looks where it takes the event to be, up to twice"
    ),
    "beginner": Archetype(lambda case: case.novice.last, "the same at the start of training, far less able"),
    "never_look": Archetype(
        lambda case: case.trained.first, "the trained model answers from the first view", "honest"
    ),
    "never_look_same_answer": Archetype(
lambda case: _instead(case.trained.last, (), ()),
        "does not look, and happens to answer as honest does", "honest",
    ),
    "never_look_beginner": Archetype(
        lambda case: case.novice.first, "the beginner answers from the first view", "beginner"
    ),
    "look_everywhere": Archetype(look_everywhere, "looks at all six sixths, answers as honest does", "honest"),
    "whole_video": Archetype(whole_video, "looks at the whole video and answers that", "honest"),
    "random": Archetype(at_random, "looks anywhere, answers anything", "honest"),
    "spam_segments": Archetype(spam, "looks at and answers as many segments as there is room for", "honest"),
    "hedge_boxes": Archetype(hedge_boxes, "does as honest does, with 16 boxes for each that it saw", "honest"),
    "leave_out": Archetype(leave_out, "knows all events, looks at and answers one", "perfect"),
    "tiny_segment": Archetype(tiny_segment, "half a second in the middle of the truth", "perfect"),
    "sloppy_on_purpose": Archetype(
        sloppy_on_purpose, "knows the truth, hands over a quarter too much", "perfect"
    ),
    "right_look_wrong_answer": Archetype(
        right_look_wrong_answer, "looks at the truth, answers something else", "perfect"
    ),
    "wrong_look_right_answer": Archetype(
        wrong_look_right_answer, "looks elsewhere, answers the truth", "perfect"
    ),
    "malformed": Archetype(
        lambda case: replace(case.perfect, broken=len(case.perfect.looks)),
        "knows the truth, breaks the form of the last reply", "perfect",
    ),
    "repeat_call": Archetype(
        lambda case: replace(case.perfect, looks=case.perfect.looks * 2, boxes=case.perfect.boxes * 2),
        "looks at the truth twice over", "perfect",
    ),
}  # fmt: skip
"""Name to policy, honest ones first."""


# -- words -------------------------------------------------------------------------------------------------------------


def write_replies(case: Case, intent: Intent, protocol: Protocol, *, tools: bool) -> list[str]:
    """Return the replies that carry an intent out: calls and an answer with the tool, else one reply."""
    thoughts = [f"I look at part {turn + 1} of it." for turn in range(len(intent.looks))] if tools else []
    replies = [
        f"<{protocol.think_tag}>{thought}</{protocol.think_tag}>{write_call(look, protocol)}"
        for thought, look in zip(thoughts, intent.looks, strict=False)
    ]
    thought = "That is all I need." if tools else _evidence(intent, protocol)
    answer = _answer(case.scene, intent, protocol)
    tags = protocol.think_tag, protocol.answer_tag
    replies.append(f"<{tags[0]}>{thought}</{tags[0]}><{tags[1]}>{answer}</{tags[1]}>")
    if intent.broken is not None:
        at = min(intent.broken, len(replies) - 1)
        closing = f"</{protocol.think_tag}>"
        way = seeded(case.scene.example.id, "slip").choice(
            ("", f"{closing} So: ")
        )  # the same for all in an episode
        replies[at] = replies[at].replace(closing, way, 1)
    return replies


def _answer(scene: Scene, intent: Intent, protocol: Protocol) -> str:
    task = scene.example.task
    if task == "multiple_choice":
        # Open-o3 asks for the times beside the option where they are known.
        times = f"{write_segments(intent.segments, protocol)}\nCorrect Option: "
        return f"{times if protocol.segment_style == 'tags' else ''}{intent.option}"
    return (
        write_segments(intent.segments, protocol) if task in ("grounding", "multi_segment") else intent.words
    )


def _evidence(intent: Intent, protocol: Protocol) -> str:
    """What a thought names in a single pass: the boxes with their times, else the segments or moments in them."""
    if not intent.looks and not intent.boxes:
        return "I think I know."
    claims: dict[tuple[float, str], list[Box]] = {}
    for box in intent.boxes:
        claims.setdefault((box.at_seconds, box.label), []).append(box)
    if claims:
        return " ".join(_claim(label, boxes, protocol) for (_, label), boxes in claims.items())
    if protocol.segment_style == "tags":
        moments = [
            write_seconds(segment.start_seconds + share * segment.length_seconds, protocol.decimals)
            for look in intent.looks for segment in look for share in (0.2, 0.8)
        ]  # fmt: skip
        return f"I see it at {' and at '.join(f'<t>{moment}</t>s' for moment in moments)}."
    spans = "; ".join(write_segments(look, protocol).replace("\n", "; ") for look in intent.looks)
    return f"I see it here: {spans}."


def _claim(label: str, boxes: list[Box], protocol: Protocol) -> str:
    scale = THOUSANDTHS if protocol.box_scale == "thousandths" else FRAME_WH
    written = "".join(
        "<box>["
        + ", ".join(f"{edge:.0f}" for edge in rescale_box((box.x1, box.y1, box.x2, box.y2), FRACTIONS, scale))
        + "]</box>"
        for box in boxes
    )
    return f"<obj>{label}</obj>{written}at<t>{write_seconds(boxes[0].at_seconds, protocol.decimals)}</t>s is there."


# -- pieces ------------------------------------------------------------------------------------------------------------


def _instead(honest: Intent, looks: tuple[Segments, ...], boxes: tuple[Box, ...]) -> Intent:
    """The same answer after other looks.

    A slip anywhere becomes one in the last reply: what is compared is the looks, not how many replies can slip.
    """
    return replace(honest, looks=looks, boxes=boxes, broken=None if honest.broken is None else len(looks))


def _stretched(case: Case, segment: Segment, factor: float) -> Segment:
    middle = 0.5 * (segment.start_seconds + segment.end_seconds)
    half = 0.5 * max(factor * segment.length_seconds, 0.5)
    return make_segment(middle - half, middle + half, case.scene.duration_seconds)


def _scaled_box(box: Box, factor: float) -> Box:
    x, y = 0.5 * (box.x1 + box.x2), 0.5 * (box.y1 + box.y2)
    half_x, half_y = 0.5 * factor * (box.x2 - box.x1), 0.5 * factor * (box.y2 - box.y1)
    return make_box(box, x - half_x, y - half_y, x + half_x, y + half_y)


def _elsewhere(case: Case) -> Segments:
    """As many segments as there are events, of their lengths, none of which overlaps an event."""
    found: list[Segment] = []
    for truth in case.perfect.segments:
        spot = truth
        while any(tiou(spot, event) > 0 for event in case.perfect.segments):
            start = case.rng.uniform(0, case.scene.duration_seconds - truth.length_seconds)
            spot = make_segment(start, start + truth.length_seconds, case.scene.duration_seconds)
        found.append(spot)
    return tuple(found)
