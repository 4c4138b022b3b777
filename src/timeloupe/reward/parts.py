"""Every reward part there is, by the name that composites use, with the range that its values lie in."""

from __future__ import annotations

from collections.abc import Callable

from timeloupe.reward.accuracy import ACCURACY_PARTS
from timeloupe.reward.museg import MUSEG_PARTS
from timeloupe.reward.openo3 import OPENO3_PARTS
from timeloupe.reward.taro import TARO_PARTS
from timeloupe.reward.videotemp import VIDEOTEMP_PARTS

Entry = tuple[Callable[..., float | None], tuple[float, float]]
"""A part (``base.Part``), and its lowest and highest value with any legal constants."""

PARTS: dict[str, Entry] = {
    **ACCURACY_PARTS,
    **{f"museg.{name}": entry for name, entry in MUSEG_PARTS.items()},
    **OPENO3_PARTS,
    **{f"taro.{name}": entry for name, entry in TARO_PARTS.items()},
    **VIDEOTEMP_PARTS,
}
