"""An episode as the model gets it: segments of token ids with one placeholder per clip, and the clips.

This form is what is stored, what a server such as vLLM takes, and what ``expand`` turns into tensors. Sampled
tokens stay what was sampled: they are never decoded and encoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from timeloupe.errors import boundary


@dataclass(frozen=True)
class TokenSegment:
    """A run of tokens that all have the same origin.

    Attributes:
        token_ids: Unexpanded ids: each clip is one placeholder id.
        trained: Whether these tokens are targets of a loss (placeholders never are).
        logprobs: Natural-log probability of each token under the policy that sampled it, or ``None``.
    """

    token_ids: tuple[int, ...]
    trained: bool = False
    logprobs: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.logprobs is not None and len(self.logprobs) != len(self.token_ids):
            raise boundary(
                "log-probabilities of a token segment",
                len(self.logprobs),
                f"one per token ({len(self.token_ids)})",
            )


@dataclass(frozen=True, eq=False)
class Clip:
    """The frames behind one placeholder.

    Attributes:
        pixels: (N, H, W, 3) uint8 RGB.
        at_seconds: Presentation time of each frame in the original video, ascending; not read for an image.
        is_image: A still image, N = 1, with the image placeholder.
        frame_seconds: Seconds between frames; ``None`` takes the mean spacing of ``at_seconds``.
    """

    pixels: np.ndarray
    at_seconds: tuple[float, ...] = ()
    is_image: bool = False
    frame_seconds: float | None = None

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 4 or shape[-1] != 3 or shape[0] < 1 or dtype != np.uint8:
            raise boundary("pixels of a clip", (shape, str(dtype)), "(N, H, W, 3) uint8 RGB with N >= 1")
        if self.is_image and shape[0] != 1:
            raise boundary("frames of an image", shape[0], "1")
        if not self.is_image and len(self.at_seconds) != shape[0]:
            raise boundary("frame times of a clip", len(self.at_seconds), f"one per frame ({shape[0]})")

    @property
    def spacing_seconds(self) -> float:
        """Mean seconds between frames; 1.0 for a single frame without ``frame_seconds``."""
        if self.frame_seconds is not None:
            return self.frame_seconds
        if len(self.at_seconds) < 2:
            return 1.0
        return (self.at_seconds[-1] - self.at_seconds[0]) / (len(self.at_seconds) - 1)


@dataclass(frozen=True)
class TokenEpisode:
    """Segments in order, and the clips of their placeholders in order."""

    segments: tuple[TokenSegment, ...]
    clips: tuple[Clip, ...] = ()

    @cached_property
    def token_ids(self) -> tuple[int, ...]:
        """All unexpanded ids in order."""
        return tuple(token for segment in self.segments for token in segment.token_ids)


def same_clips(ones: Sequence[Clip], twos: Sequence[Clip]) -> bool:
    """Whether two episodes show the same frames at the same times."""
    return len(ones) == len(twos) and all(
        one.at_seconds == two.at_seconds
        and (one.pixels is two.pixels or np.array_equal(one.pixels, two.pixels))
        for one, two in zip(ones, twos, strict=True)
    )
