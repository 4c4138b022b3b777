"""TaRO's temporal sensitivity: does the reply become less likely when the frames around the true boundaries are mixed?

Source: oceanflowlab/TaRO@143a234f: ``src/utils.py`` (windows, shuffling, constructed thoughts),
``verl/workers/fsdp_workers.py: compute_temporal_log_prob`` (drop and threshold) and ``verl/trainer/ppo/ray_trainer.py``
(what the reward is given). Here is what needs no model; the forward passes belong to training.

Deviations:

1. The radius is 3 s, which the trainer passes; the release's function alone has 1 s.
2. The group's size is given; the release has 8 written into it.
3. Each roll-out is scored with its own drop. In the release the roll-outs of a prompt share one dict, so all are scored
   with the drop of the last (``shared_by_group`` does the same).
4. Over which tokens the mean goes is the caller's mask; the release takes all of the reply, the paper the thought.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np

from timeloupe.errors import boundary

RADIUS_SECONDS = 3.0


def boundary_windows(
    frame_indices: Sequence[float],
    fps: float,
    start_seconds: float,
    end_seconds: float,
    radius_seconds: float = RADIUS_SECONDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the sampled frames lie around the start and around the end, as positions in ``frame_indices``.

    Both ends of a window belong to it; the two may overlap, be the same, or be empty.

    Args:
        frame_indices: Numbers of the sampled frames in the video, or their seconds with 1 frame per second; the first
            is time 0, as in a clip of a longer video.
        fps: Frames per second of the video, not of the sampling.
        start_seconds: True start, from the first frame.
        end_seconds: True end, from the first frame.
        radius_seconds: Half the length of a window.

    Raises:
        IndexError: There are no frames.
    """
    numbers = np.asarray(frame_indices) - frame_indices[0]
    windows = []
    for center in (start_seconds, end_seconds):
        low, high = (center - radius_seconds) * fps, (center + radius_seconds) * fps
        windows.append(np.flatnonzero((numbers >= low) & (numbers <= high)))
    return windows[0], windows[1]


def shuffled_order(
    num_frames: int, windows: Sequence[np.ndarray], permute: Callable[[int], Sequence[int]]
) -> np.ndarray:
    """Return which frame stands in each place after the windows were mixed, (num_frames,) integers.

    The windows are mixed one after the other, so what the first moved the second may move again. A window of fewer than
    two frames is left alone.

    Args:
        num_frames: How many frames there are.
        windows: Positions, as ``boundary_windows`` returns them.
        permute: n -> an order of 0..n-1, such as ``numpy.random.Generator.permutation``. It may be the order they
            have.
    """
    order = np.arange(num_frames)
    for window in windows:
        if len(window) >= 2:
            order[window] = order[window[np.asarray(permute(len(window)))]]
    return order


def log_prob_drops(log_probs: np.ndarray, shuffled_log_probs: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the mean fall of the log-probability per counted token, (roll-outs,) float64; NaN where none counts.

    Args:
        log_probs: (roll-outs, tokens) natural logs on the frames as they are.
        shuffled_log_probs: The same tokens on the mixed frames.
        mask: 1 = counts: the tokens of the reply (the release) or of its thought (the paper).
    """
    counted = np.asarray(mask, dtype=np.float64)
    # What stands in a place that does not count may be anything, also NaN.
    fall = np.where(counted > 0, np.asarray(log_probs) - np.asarray(shuffled_log_probs), 0.0) * counted
    lengths = counted.sum(axis=-1)
    return np.divide(fall.sum(axis=-1), lengths, out=np.full(lengths.shape, np.nan), where=lengths > 0)


def group_means(drops: Sequence[float] | np.ndarray, group_size: int) -> np.ndarray:
    """Return, per roll-out, the mean drop of its group: the release's threshold ``mean``.

    Args:
        drops: One per roll-out; the roll-outs of a prompt stand together.
        group_size: Roll-outs per prompt.

    Raises:
        ConfigError: The drops are no whole number of groups.
    """
    return np.repeat(_groups(drops, group_size).mean(axis=1), group_size)


def shared_by_group(drops: Sequence[float] | np.ndarray, group_size: int) -> np.ndarray:
    """Return the drops that the release's reward sees: each roll-out of a group has that of the group's last.

    Args:
        drops: One per roll-out; the roll-outs of a prompt stand together.
        group_size: Roll-outs per prompt.

    Raises:
        ConfigError: The drops are no whole number of groups.
    """
    return np.repeat(_groups(drops, group_size)[:, -1], group_size)


def _groups(drops: Sequence[float] | np.ndarray, group_size: int) -> np.ndarray:
    values = np.asarray(drops, dtype=np.float64)
    if group_size < 1 or len(values) % group_size:
        raise boundary("group_size", group_size, f"a divisor of the {len(values)} roll-outs")
    return values.reshape(-1, group_size)


def sample_captions(num_captions: int, randomness: random.Random) -> tuple[int, ...]:
    """Return which captions a constructed thought uses, in order: at least one, any number with equal chance.

    The draws are those of the release's ``sample_reasoning``, so that equal seeds give equal choices.

    Args:
        num_captions: >= 1.
        randomness: ``random.Random(seed)`` draws what ``random.seed(seed)`` makes the release draw.
    """
    chosen = randomness.randint(1, num_captions)
    return tuple(sorted(randomness.sample(range(num_captions), chosen)))


OPENING = "The question is when this happens: {query}."


def construct_thought(
    captions: Sequence[str], query: str, randomness: random.Random, *, opening: str = OPENING
) -> str | None:
    """Return the beginning of a thought built from captions, which the policy goes on from; ``None`` without captions.

    The thought is left open.

    Args:
        captions: Sentences with their times, in the order of the video.
        query: The event that is looked for.
        randomness: Draws the captions.
        opening: Line before them, ``{query}`` stands for the query; empty = none.
    """
    if not captions:
        return None
    chosen = [captions[index] for index in sample_captions(len(captions), randomness)]
    lines = [opening.replace("{query}", query), *chosen] if opening else chosen
    return "\n".join(["<think>", *lines])
