"""Every reward part there is, by the name that composites use, with the range that its values lie in."""

from __future__ import annotations

from timeloupe.reward.base import Part

Entry = tuple[Part, tuple[float, float]]
"""A part and its lowest and highest value."""

PARTS: dict[str, Entry] = {}
