"""Pixels of a world script: the frame displayed at a time, as the encoder and the quick trainer see it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from timeloupe.world.script import COLOURS, SHAPE_FRACTION, Event, WorldScript, generator

NATIVE_SIZE = 128
"""Width and height of a world video in pixels."""

_STAMP = round(SHAPE_FRACTION * NATIVE_SIZE)
_DARK = (34, 34, 42)
_GLYPH_SCALE = 6
_GLYPHS = (
    "01110100011000110001100011000101110",
    "00100011000010000100001000010001110",
    "01110100010000100110010001000011111",
    "11110000010000101110000010000111110",
    "00010001100101010010111110001000010",
    "11111100001111000001000011000101110",
    "00110010001000011110100011000101110",
    "11111000010001000100010000100001000",
    "01110100011000101110100011000101110",
    "01110100011000101111000010001001100",
)
"""Ten digits in 5 x 7 dots, row by row."""


@lru_cache(maxsize=64)
def _shape_mask(shape: str) -> np.ndarray:
    """Boolean (stamp, stamp) mask of a shape."""
    y, x = np.mgrid[0:_STAMP, 0:_STAMP] / (_STAMP - 1) * 2 - 1
    masks = {
        "circle": x**2 + y**2 <= 1,
        "square": np.maximum(abs(x), abs(y)) <= 0.88,
        "triangle": (abs(x) <= (y + 1) / 2) & (y <= 0.95),
        "diamond": abs(x) + abs(y) <= 1,
        "cross": (abs(x) <= 0.42) | (abs(y) <= 0.42),
        "ring": (x**2 + y**2 <= 1) & (x**2 + y**2 >= 0.42),
    }
    return masks[shape]


@lru_cache(maxsize=16)
def _digit_mask(digit: int) -> np.ndarray:
    """Boolean (42, 30) mask of a digit."""
    dots = np.array([int(dot) for dot in _GLYPHS[digit]], dtype=bool).reshape(7, 5)
    return np.kron(dots, np.ones((_GLYPH_SCALE, _GLYPH_SCALE), dtype=bool))


class WorldRenderer:
    """Draws frames of one script; backgrounds are made once per scene."""

    def __init__(self, script: WorldScript) -> None:
        self.script = script
        random = generator("world-render", script.key)
        self._speck = (random.random(), random.random(), random.uniform(0.01, 0.03))
        self._backgrounds = [_background(random, scene.colour) for scene in script.scenes]

    def frame(self, at_seconds: float) -> np.ndarray:
        """Return the frame displayed at ``at_seconds`` as (128, 128, 3) uint8 RGB."""
        frame = self._backgrounds[self.script.scene_at(at_seconds)].copy()
        x_phase, y_phase, speed = self._speck
        x = int((0.5 + 0.46 * math.sin(2 * math.pi * (x_phase + speed * at_seconds))) * (NATIVE_SIZE - 6))
        y = int(
            (0.5 + 0.46 * math.sin(2 * math.pi * (y_phase + 1.3 * speed * at_seconds))) * (NATIVE_SIZE - 6)
        )
        frame[y : y + 6, x : x + 6] = 240
        event = self.script.event_at(at_seconds)
        if event is not None:
            _draw(frame, event, at_seconds)
        return frame

    def read(self, times: Sequence[float], size: int = NATIVE_SIZE) -> np.ndarray:
        """Return frames at ``times`` as (N, size, size, 3) uint8; ``size`` must divide 128."""
        frames = [self.frame(time) for time in times]
        if size == NATIVE_SIZE:
            return np.stack(frames)
        factor = NATIVE_SIZE // size
        return np.stack([np.asarray(Image.fromarray(frame).reduce(factor)) for frame in frames])


def _background(random: np.random.Generator, colour: str) -> np.ndarray:
    base = np.array(COLOURS[colour], dtype=np.float32) * random.uniform(0.85, 1.1)
    angle = random.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:NATIVE_SIZE, 0:NATIVE_SIZE] / NATIVE_SIZE - 0.5
    shade = 1 + 0.25 * (math.cos(angle) * x + math.sin(angle) * y)
    coarse = random.normal(0, 7, (16, 16, 1)).repeat(8, axis=0).repeat(8, axis=1)
    return np.clip(base * shade[..., None] + coarse, 0, 255).astype(np.uint8)


def _draw(frame: np.ndarray, event: Event, at_seconds: float) -> None:
    x, y = event.centre(at_seconds)
    left, top = round(x * NATIVE_SIZE - _STAMP / 2), round(y * NATIVE_SIZE - _STAMP / 2)
    frame[top : top + _STAMP, left : left + _STAMP][_shape_mask(event.shape)] = _DARK
    if event.digit_segment.start_seconds <= at_seconds < event.digit_segment.end_seconds:
        mask = _digit_mask(event.digit)
        down, right = mask.shape
        row, column = top + (_STAMP - down) // 2, left + (_STAMP - right) // 2
        patch = frame[row : row + down, column : column + right]
        # A dark plate keeps the digit readable on the shapes that have a hole.
        patch[...] = _DARK
        patch[mask] = 250
