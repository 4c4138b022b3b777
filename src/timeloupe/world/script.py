"""The script of a procedural video: scenes, events, details; everything that is true in it, before any pixel.

A world video is a row of scenes, each with its own background colour. In every scene one large dark shape moves for
a while: the event. Inside the event, for a shorter while, the shape carries a white digit: the brief detail that a
skim usually misses. Some scenes hold a second event of another shape (a distractor), the same shape may return in
other scenes (several instances of one action), and a bright speck wanders through the whole video and means nothing.

A script is a pure function of ``(root seed, video index, settings)``.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np

from timeloupe.errors import boundary
from timeloupe.trajectory import Box, Segment

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (196, 62, 58),
    "green": (72, 150, 78),
    "blue": (66, 98, 196),
    "yellow": (206, 182, 66),
    "purple": (146, 78, 176),
    "orange": (222, 132, 52),
    "teal": (58, 164, 168),
    "pink": (222, 138, 170),
}
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")

EVALUATION_SEEDS = range(1_000_000, 2_000_000)
"""Root seeds kept for evaluation: the demo, the benchmarks and their tests draw from here, training never does."""

DURATION_BINS_SECONDS = {"<3": (60, 180), "3-10": (180, 600), "10-20": (600, 1200), "20-40": (1200, 2400)}


def training_seed(seed: int) -> int:
    """Return ``seed`` if training may use it.

    Raises:
        ConfigError: It lies in ``EVALUATION_SEEDS``.
    """
    if seed in EVALUATION_SEEDS or seed < 0:
        raise boundary(
            "a training recipe may not use this world seed", seed,
            f"0..{EVALUATION_SEEDS.start - 1} or from {EVALUATION_SEEDS.stop} on",
            "the range between is kept for evaluation",
        )  # fmt: skip
    return seed


def generator(*key: object) -> np.random.Generator:
    """Return a random generator that depends on nothing but ``key``."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


@dataclass(frozen=True)
class Event:
    """One shape moving in one scene.

    Attributes:
        scene_index: The scene it lies in.
        shape: One of ``SHAPES``.
        segment: When it is visible.
        digit: The digit it carries, ``0..9``.
        digit_segment: When the digit is visible; inside ``segment``.
        path: Phase and speed of its Lissajous path: (x phase, x turns/s, y phase, y turns/s).
        distractor: It is the second event of its scene.
    """

    scene_index: int
    shape: str
    segment: Segment
    digit: int
    digit_segment: Segment
    path: tuple[float, float, float, float]
    distractor: bool = False

    def centre(self, at_seconds: float) -> tuple[float, float]:
        """Centre of the shape at a time, as fractions of the frame, in [0.3, 0.7]."""
        x_phase, x_speed, y_phase, y_speed = self.path
        x = 0.5 + 0.2 * math.sin(2 * math.pi * (x_phase + x_speed * at_seconds))
        y = 0.5 + 0.2 * math.sin(2 * math.pi * (y_phase + y_speed * at_seconds))
        return x, y

    def box(self, at_seconds: float, label: str = "") -> Box:
        """The shape's box at a time inside ``segment``."""
        x, y = self.centre(at_seconds)
        half = SHAPE_FRACTION / 2
        return Box(at_seconds=at_seconds, x1=x - half, y1=y - half, x2=x + half, y2=y + half, label=label)


SHAPE_FRACTION = 0.56
"""Width and height of a shape as a fraction of the frame."""


@dataclass(frozen=True)
class Scene:
    """A stretch of video with one background colour."""

    colour: str
    segment: Segment


@dataclass(frozen=True)
class WorldScript:
    """Everything that happens in one world video; ``key`` seeds whatever the renderer draws at random."""

    key: tuple[int, int]
    duration_seconds: float
    fps: float
    scenes: tuple[Scene, ...]
    events: tuple[Event, ...]

    def scene_at(self, at_seconds: float) -> int:
        """Index of the scene displayed at a time."""
        for index, scene in enumerate(self.scenes):
            if at_seconds < scene.segment.end_seconds:
                return index
        return len(self.scenes) - 1

    def event_at(self, at_seconds: float) -> Event | None:
        """The event visible at a time, or ``None``; events never overlap."""
        for event in self.events:
            if event.segment.start_seconds <= at_seconds < event.segment.end_seconds:
                return event
        return None

    def captions(self) -> tuple[tuple[Segment, str], ...]:
        """Dense captions with their times, in order of start."""
        rows = [(scene.segment, f"The background is {scene.colour}.") for scene in self.scenes]
        for event in self.events:
            colour = self.scenes[event.scene_index].colour
            rows.append((event.segment, f"A dark {event.shape} moves across the {colour} scene."))
            rows.append((event.digit_segment, f"The {event.shape} carries the digit {event.digit}."))
        return tuple(sorted(rows, key=lambda row: (row[0].start_seconds, -row[0].end_seconds)))


@dataclass(frozen=True)
class ScriptSettings:
    """What kind of videos to make.

    Attributes:
        min_seconds: Shortest video.
        max_seconds: Longest video; durations are log-uniform between the two.
        fps: Frames per second of the encoded video.
        num_scenes: Scenes per video, at most the number of colours.
        distractor_rate: Share of scenes with a second event.
        event_scene_fraction: Lower bound of an event's length as a fraction of its scene.
        return_rate: Share of the events, from the second scene on, whose shape is made one that an earlier scene has
            shown, where there is one that the event's own scene has not. Nothing else of the video changes; shapes
            return by chance also at 0.
    """

    min_seconds: float = 60.0
    max_seconds: float = 2400.0
    fps: float = 8.0
    num_scenes: int = 4
    distractor_rate: float = 0.3
    event_scene_fraction: float = 0.14
    return_rate: float = 0.0


def make_script(root_seed: int, video_index: int, settings: ScriptSettings | None = None) -> WorldScript:
    """Return the script of one video; the same arguments give the same script on every machine.

    Raises:
        ConfigError: The settings allow no video.
    """
    settings = settings or ScriptSettings()
    if not 10 * settings.num_scenes <= settings.min_seconds <= settings.max_seconds:
        raise boundary(
            "world video length in seconds", (settings.min_seconds, settings.max_seconds),
            f"{10 * settings.num_scenes} <= shortest <= longest",
        )  # fmt: skip
    if not 1 <= settings.num_scenes <= len(COLOURS):
        raise boundary("number of scenes", settings.num_scenes, f"1..{len(COLOURS)}")
    if not 0 <= settings.return_rate <= 1:
        raise boundary("share of events whose shape returns", settings.return_rate, "0..1")
    random = generator("world-script", root_seed, video_index)
    low, high = math.log(settings.min_seconds), math.log(settings.max_seconds)
    duration = round(math.exp(random.uniform(low, high)) * settings.fps) / settings.fps
    # Every scene is at least 3/16 of the video: a skim of 16 frames shows each scene three times.
    shares = 0.1875 + random.dirichlet([1.0] * settings.num_scenes) * (1 - 0.1875 * settings.num_scenes)
    if settings.num_scenes > 5:
        shares = random.dirichlet([20.0] * settings.num_scenes)
    edges = [0.0, *np.cumsum(shares)[:-1].tolist(), 1.0]
    bounds = [round(edge * duration * settings.fps) / settings.fps for edge in edges]
    colours = random.permutation(list(COLOURS))[: settings.num_scenes].tolist()
    scenes: list[Scene] = []
    events: list[Event] = []
    for index, colour in enumerate(colours):
        segment = Segment(start_seconds=bounds[index], end_seconds=bounds[index + 1])
        scenes.append(Scene(colour, segment))
        events.extend(_events(random, index, segment, settings))
    if settings.return_rate:
        events = _with_returns(
            generator("world-return", root_seed, video_index), events, settings.return_rate
        )
    return WorldScript((root_seed, video_index), duration, settings.fps, tuple(scenes), tuple(events))


def _with_returns(random: np.random.Generator, events: list[Event], rate: float) -> list[Event]:
    """The events with shapes of earlier scenes again; a scene never holds a shape twice."""
    found: list[Event] = []
    for index, event in enumerate(events):
        earlier = {one.shape for one in found if one.scene_index < event.scene_index}
        # Those of its scene that are settled, and those still to come, which may keep their shape.
        beside = {one.shape for one in (*found, *events[index + 1 :]) if one.scene_index == event.scene_index}
        known = [shape for shape in SHAPES if shape in earlier - beside]
        if known and random.random() < rate:
            event = replace(event, shape=known[int(random.integers(len(known)))])
        found.append(event)
    return found


def _events(random: np.random.Generator, index: int, scene: Segment, settings: ScriptSettings) -> list[Event]:
    two = random.random() < settings.distractor_rate
    slots = [scene]
    if two:
        middle = (scene.start_seconds + scene.end_seconds) / 2
        slots = [
            Segment(start_seconds=scene.start_seconds, end_seconds=middle),
            Segment(start_seconds=middle, end_seconds=scene.end_seconds),
        ]
    shapes = random.permutation(list(SHAPES))[: len(slots)].tolist()
    second = int(random.integers(len(slots)))
    events: list[Event] = []
    for slot_index, (slot, shape) in enumerate(zip(slots, shapes, strict=True)):
        length = min(
            max(random.uniform(8.0, 40.0), settings.event_scene_fraction * scene.length_seconds),
            (0.5 if not two else 0.7) * slot.length_seconds,
        )
        start = slot.start_seconds + random.uniform(0.02, 0.98) * (slot.length_seconds - length)
        digit_length = min(max(3.0, 0.35 * length), 0.9 * length)
        digit_start = start + random.uniform(0.0, 1.0) * (length - digit_length)
        path = (random.random(), random.uniform(0.03, 0.12), random.random(), random.uniform(0.03, 0.12))
        events.append(
            Event(
                index, shape, _on_grid(start, start + length, settings.fps), int(random.integers(10)),
                _on_grid(digit_start, digit_start + digit_length, settings.fps), path,
                distractor=two and slot_index == second,
            )
        )  # fmt: skip
    return events


def _on_grid(start: float, end: float, fps: float) -> Segment:
    first, last = round(start * fps), round(end * fps)
    return Segment(start_seconds=first / fps, end_seconds=max(last, first + 1) / fps)
