"""Settings of an episode: which frames are shown, how often the model may look, how it samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from timeloupe.errors import ConfigError, boundary
from timeloupe.policy.base import Sampling

Pixels = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1)]


class EpisodeSettings(BaseModel):
    """What one episode may see and do. The defaults are VideoTemp-o3's first evaluation setting.

    Attributes:
        max_turns: Assistant turns at most; the last one must answer.
        tools: Offer the tool. Without it an episode is a single pass of one turn.
        question_only: Show no frames at all (a control); implies a single pass.
        skim_fps: Frames a second of the first view, thinned evenly to ``skim_frames``.
        skim_frames: Frames of the first view at most, >= 2.
        skim_pixels: Area of one of its frames at most.
        skim_start_seconds: Where the first view begins; crops may still go anywhere.
        skim_end_seconds: Where it ends; ``None`` = at the end of the video.
        skim_approximate: ``keyframes`` = answer each time of the skim with the nearest keyframe, which is cheap in
            long videos; times that share one give one frame, and the record has the frames' true times. Crops are
            always exact.
        crop_fps: Frames a second of a crop.
        crop_min_frames: Frames of a crop at least, as far as the segment has that many.
        crop_max_frames: Frames of a crop at most.
        crop_pixels: Area of one of its frames at most.
        crop_margin_intervals: Every crop is widened on both sides by this many sampling intervals of the view
            shown last, the one whose times the model has read: what happens between two of its frames is not
            cut off.
        max_segments_per_call: A call that names more is refused.
        min_pixels: Area of a frame at least, where the upper bound allows.
        size_multiple: Frame sides are multiples of this (Qwen3-VL 32, Qwen2.5-VL 28).
        frame_size_wh: One fixed frame size instead of all pixel bounds; does not keep the aspect ratio.
        video_deadline_seconds: Videos are read in another process, and one that gives no sign of life for so long
            cannot be read; ``None`` = in this process, without a limit.
        temperature: 0 = greedy.
        top_p: Nucleus mass.
        top_k: Keep the k likeliest tokens; 0 = all.
        max_new_tokens: Limit of one turn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_turns: int = Field(default=3, ge=1)
    tools: bool = True
    question_only: bool = False

    skim_fps: float = Field(default=2.0, gt=0)
    skim_frames: int = Field(default=256, ge=2)
    skim_pixels: Pixels = 200_704
    skim_start_seconds: float = Field(default=0.0, ge=0)
    skim_end_seconds: float | None = Field(default=None, gt=0)
    skim_approximate: Literal["none", "keyframes"] = "none"

    crop_fps: float = Field(default=2.0, gt=0)
    crop_min_frames: int = Field(default=4, ge=2)
    crop_max_frames: int = Field(default=64, ge=2)
    crop_pixels: Pixels = 200_704
    crop_margin_intervals: float = Field(default=0.0, ge=0)
    max_segments_per_call: int = Field(default=3, ge=1)

    min_pixels: int = Field(default=3_136, ge=0)
    size_multiple: int = Field(default=32, ge=1)
    frame_size_wh: tuple[Side, Side] | None = None

    video_deadline_seconds: float | None = Field(default=60.0, gt=0)

    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    max_new_tokens: int = Field(default=1024, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.crop_min_frames > self.crop_max_frames:
            raise ValueError(
                f"crop_min_frames must be <= crop_max_frames, "
                f"got {self.crop_min_frames} and {self.crop_max_frames}"
            )
        end = self.skim_end_seconds
        if end is not None and not self.skim_start_seconds < end:
            raise ValueError(
                f"skim_start_seconds must be < skim_end_seconds, got {self.skim_start_seconds} and {end}"
            )
        least = max(self.size_multiple**2, self.min_pixels)
        if self.frame_size_wh is None and min(self.skim_pixels, self.crop_pixels) < least:
            raise ValueError(
                f"skim_pixels and crop_pixels must be >= {least} (size_multiple squared, and min_pixels), "
                f"got {self.skim_pixels} and {self.crop_pixels}"
            )
        return self

    @property
    def offers_tool(self) -> bool:
        """Whether the model may look closer."""
        return self.tools and not self.question_only

    @property
    def num_turns(self) -> int:
        """Assistant turns at most: 1 where there is no tool."""
        return self.max_turns if self.offers_tool else 1

    def sampling(self, stop: tuple[str, ...] = ()) -> Sampling:
        """Return how a turn is sampled."""
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_new_tokens, stop)


def make_settings(*layers: Mapping[str, Any]) -> EpisodeSettings:
    """Return the defaults overridden by ``layers``, later ones last.

    Raises:
        ConfigError: A key is unknown or a value is out of its range; the message lists what is allowed.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values.update(layer)
    for key in values:
        if key not in EpisodeSettings.model_fields:
            raise boundary("unknown episode setting", key, EpisodeSettings.model_fields)
    try:
        return EpisodeSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(step) for step in first["loc"]) or "episode settings"
        raise ConfigError(f"{name}: {first['msg']}, got {first['input']!r}") from error
