"""What a model can know of an imagined scene, and what it means to do: the raw material of the archetypes."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from timeloupe.grounding import overlap_seconds
from timeloupe.prompt.build import LETTERS
from timeloupe.reward.scenes import Scene, other_sentence, random_segment
from timeloupe.trajectory import Box, Segment

Segments = tuple[Segment, ...]

SHORTEST_SECONDS = 0.5
SMALLEST_SIDE = 0.02


@dataclass(frozen=True)
class Skill:
    """How well a model sees. Chances and shares are in [0, 1].

    Attributes:
        finds: Chance that a look goes to where an event is.
        notices: Chance to notice that a crop shows nothing, and to look again.
        skim_error: Spread of a boundary read from the skim, as a share of the event; half a skim interval comes on top.
        crop_error: Spread of a boundary read from a crop, as a share of the event.
        skim_reads: Chance that the skim shows what is asked, where the event is found.
        crop_reads: Chance that the crop of an event shows it.
        box_error: Spread of a box's edge, as a share of the box.
        slip: Chance that a reply is malformed.
    """

    finds: float
    notices: float
    skim_error: float
    crop_error: float
    skim_reads: float
    crop_reads: float
    box_error: float
    slip: float


TRAINED = Skill(
    finds=0.7, notices=0.7, skim_error=0.25, crop_error=0.1, skim_reads=0.5, crop_reads=0.9, box_error=0.1, slip=0.01
)  # fmt: skip
BEGINNER = Skill(
    finds=0.25, notices=0.4, skim_error=0.5, crop_error=0.25, skim_reads=0.4, crop_reads=0.7, box_error=0.3, slip=0.05
)  # fmt: skip


@dataclass(frozen=True)
class Intent:
    """What a policy does in one episode.

    Attributes:
        looks: The segments of each call, in order; in a single pass the times that the thought names.
        segments: Answered segments.
        words: The sentence it answers where words are asked for.
        option: The letter it answers where an option is asked for.
        boxes: Boxes that it marks in a single pass; those of one time and label are one claim.
        broken: Which reply is malformed, counted from 0; ``None`` = none.
        attends: How much the reply depends on the order of the frames, as TaRO measures it: the drop of its mean
            log-probability when they are shuffled.
    """

    looks: tuple[Segments, ...]
    segments: Segments
    words: str
    option: str
    boxes: tuple[Box, ...] = ()
    broken: int | None = None
    attends: float = 0.0


@dataclass(frozen=True)
class Sight:
    """What a model knows in one episode: ``first`` from the skim alone, ``last`` after it has looked honestly."""

    first: Intent
    last: Intent


def know_all(scene: Scene) -> Intent:
    """Return the intent of a model that knows everything: one look at what counts, and the true answer."""
    example = scene.example
    return Intent(
        looks=(example.segments,), segments=example.segments, words=example.answer or "", option=example.answer or "",
        boxes=example.boxes, attends=0.3,
    )  # fmt: skip


def see(scene: Scene, skill: Skill, rng: random.Random, *, tools: bool) -> Sight:
    """Return what a model of this skill does from the skim alone, and what if it looks honestly.

    It first looks where it takes the events to be. If it notices that a crop shows nothing it looks a second time, at
    all its segments. Where the last look covers half of an event, its boundaries get better and what is asked can be
    read more often; who can read nothing guesses, and guesses the same with and without a look. Without a tool, what
    counts as looked at is what it rests its answer on in the end, and there is one reply to slip in.
    """
    truths = scene.example.segments
    looks = [tuple(_glimpse(scene, truth, skill, rng) for truth in truths)]
    first_hits = _hits(looks[0], truths)
    if not all(first_hits) and rng.random() < skill.notices:
        looks.append(
            tuple(
                look if hit else _glimpse(scene, truth, skill, rng)
                for look, truth, hit in zip(looks[0], truths, first_hits, strict=True)
            )
        )
    last_hits = _hits(looks[-1], truths)
    final = tuple(
        _blurred(rng, truth, skill.crop_error * truth.length_seconds, scene.duration_seconds) if hit else look
        for look, truth, hit in zip(looks[-1], truths, last_hits, strict=True)
    )
    reads_first = all(first_hits) and rng.random() < skill.skim_reads
    reads_last = all(last_hits) and (reads_first or rng.random() < skill.crop_reads)
    guess = replace(
        know_all(scene), looks=(), boxes=(), words=other_sentence(rng, scene),
        option=rng.choice(LETTERS[: len(scene.example.options)] or "A"),
    )  # fmt: skip
    known = replace(guess, words=scene.paraphrase, option=scene.example.answer or "")
    boxes = _seen_boxes(scene, skill, rng, final[0] if not all(last_hits) else None)
    shown = tuple(looks) if tools else (final,)
    slips = [rng.random() < skill.slip for _ in range(len(shown) + 1 if tools else 1)]
    return Sight(
        first=replace(
            known if reads_first else guess, segments=looks[0], broken=0 if slips[-1] else None,
            attends=rng.gauss(0.1, 0.1),
        ),
        last=replace(
            known if reads_last else guess, looks=shown, segments=final, boxes=boxes,
            broken=slips.index(True) if any(slips) else None, attends=rng.gauss(0.3, 0.1),
        ),
    )  # fmt: skip


def make_segment(start: float, end: float, duration_seconds: float) -> Segment:
    """Return a segment of two times in any order, inside the video and at least half a second long."""
    start, end = min(start, end), max(start, end)
    start = min(max(start, 0.0), duration_seconds - SHORTEST_SECONDS)
    return Segment(start_seconds=start, end_seconds=min(max(end, start + SHORTEST_SECONDS), duration_seconds))


def make_box(like: Box, x1: float, y1: float, x2: float, y2: float) -> Box:
    """Return ``like`` with other edges, cut to the frame and at least a fiftieth of it on each side."""
    (x1, x2), (y1, y2) = (_edges(x1, x2), _edges(y1, y2))
    return like.model_copy(update={"x1": x1, "y1": y1, "x2": x2, "y2": y2})


def move_box(box: Box, seconds: float) -> Box:
    """Return the box at another time, not before 0."""
    return box.model_copy(update={"at_seconds": max(0.0, seconds)})


def random_box(rng: random.Random, like: Box) -> Box:
    """Return ``like`` anywhere in the frame, of a usual size."""
    x, y = rng.uniform(0, 0.65), rng.uniform(0, 0.65)
    return make_box(like, x, y, x + rng.uniform(0.1, 0.35), y + rng.uniform(0.1, 0.35))


def _edges(low: float, high: float) -> tuple[float, float]:
    low, high = sorted((min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)))
    low = min(low, 1.0 - SMALLEST_SIDE)
    return low, max(high, low + SMALLEST_SIDE)


def _glimpse(scene: Scene, truth: Segment, skill: Skill, rng: random.Random) -> Segment:
    """Where a model takes an event to be, from the skim."""
    if rng.random() >= skill.finds:
        return random_segment(rng, scene.duration_seconds)
    spread = skill.skim_error * truth.length_seconds + 0.5 * scene.skim_interval_seconds
    return _blurred(rng, truth, spread, scene.duration_seconds)


def _hits(looks: Segments, truths: Segments) -> list[bool]:
    return [
        overlap_seconds(look, truth) >= 0.5 * truth.length_seconds
        for look, truth in zip(looks, truths, strict=True)
    ]


def _blurred(rng: random.Random, truth: Segment, spread: float, duration_seconds: float) -> Segment:
    start, end = truth.start_seconds + rng.gauss(0, spread), truth.end_seconds + rng.gauss(0, spread)
    return make_segment(start, end, duration_seconds)


def _seen_boxes(scene: Scene, skill: Skill, rng: random.Random, elsewhere: Segment | None) -> tuple[Box, ...]:
    """The boxes that a model marks: blurred, half a second off; or of something else, if it watched elsewhere."""
    if elsewhere is not None:
        return tuple(
            move_box(random_box(rng, box), rng.uniform(elsewhere.start_seconds, elsewhere.end_seconds))
            for box in scene.example.boxes
        )
    boxes: list[Box] = []
    for box in scene.example.boxes:
        x, y = skill.box_error * (box.x2 - box.x1), skill.box_error * (box.y2 - box.y1)
        blurred = make_box(
            box, box.x1 + rng.gauss(0, x), box.y1 + rng.gauss(0, y), box.x2 + rng.gauss(0, x),
            box.y2 + rng.gauss(0, y),
        )  # fmt: skip
        boxes.append(move_box(blurred, box.at_seconds + rng.gauss(0, 0.5)))
    return tuple(boxes)
