"""Which assistant turns of a training row count in the loss: the unified masking of VideoTemp-o3 and its ablations."""

from __future__ import annotations

from typing import Literal

from timeloupe.errors import boundary

Mask = Literal["last_two_turns", "all_turns", "last_turn"]
MASKS: dict[Mask, int | None] = {"last_two_turns": 2, "all_turns": None, "last_turn": 1}
"""Mask name to the number of last assistant turns that are trained; ``None`` = all."""


def trained_turns(num_turns: int, mask: Mask) -> list[bool]:
    """Return for each assistant turn whether its whole text and its end-of-turn token are targets.

    A masked turn stays in the context. Rows with fewer turns than the mask keeps are trained whole.

    Args:
        num_turns: Assistant turns of the row, >= 1.
        mask: ``last_two_turns`` is the paper's unified mask (VideoTemp-o3, arXiv 2602.07801, SFT): in twice-call rows
            the first grounding is the wrong one, and must not be learnt.

    Raises:
        ConfigError: Unknown mask or no turn.
    """
    if mask not in MASKS:
        raise boundary("SFT mask", mask, MASKS)
    if num_turns < 1:
        raise boundary("assistant turns of a training row", num_turns, ">= 1")
    kept = MASKS[mask]
    first = 0 if kept is None else max(num_turns - kept, 0)
    return [turn >= first for turn in range(num_turns)]
