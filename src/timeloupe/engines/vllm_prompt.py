"""A token episode as a prompt of vLLM: unexpanded ids, and the frames and times behind the placeholders.

vLLM expands a placeholder itself, and for Qwen3-VL it prints the times in the published way, two frames a group and
``<12.1 seconds>``. A checkpoint with another layout is still shown the same tokens if its groups are single frames:
each frame then travels as a picture after the tokens of its time. For Qwen2.5-VL no time is printed: the rate of a clip
decides how far its frame groups are apart in their positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from timeloupe.engines.vllm_plugin import clip_metadata
from timeloupe.errors import ConfigError, boundary
from timeloupe.model.episode import Clip, TokenEpisode
from timeloupe.model.layout import Layout
from timeloupe.model.positions import grid_times

Form = Literal["videos", "pictures"]
PUBLISHED_TIMES = "<{:.1f} seconds>"


@dataclass(frozen=True, eq=False)
class EnginePrompt:
    """What vLLM is asked.

    Attributes:
        token_ids: Each clip and each picture is one placeholder.
        pictures: (H, W, 3) uint8 RGB each, in order.
        videos: In order.
    """

    token_ids: tuple[int, ...]
    pictures: tuple[np.ndarray, ...] = ()
    videos: tuple[Clip, ...] = ()

    def inputs(self, layout: Layout) -> dict[str, Any]:
        """Return the prompt as ``vllm.LLM.generate`` takes it."""
        data: dict[str, Any] = {}
        if self.pictures:
            data["image"] = [Image.fromarray(picture) for picture in self.pictures]
        if self.videos:
            # Frames out of a cache cannot be written to, and torch warns of such arrays.
            data["video"] = [
                (np.require(clip.pixels, requirements="W"), _metadata(clip, layout)) for clip in self.videos
            ]
        found: dict[str, Any] = {"prompt_token_ids": list(self.token_ids)}
        return found | ({"multi_modal_data": data} if data else {})


def _metadata(clip: Clip, layout: Layout) -> dict[str, Any]:
    """Return what vLLM must know about the times of a clip."""
    if layout.family == "qwen3_vl":
        return clip_metadata(clip.at_seconds)
    count = len(clip.pixels)
    fps = position_rate(-(-count // layout.temporal_patch_size), clip.spacing_seconds, layout)
    return {
        "fps": fps, "frames_indices": list(range(count)), "total_num_frames": count, "duration": count / fps,
        "video_backend": "timeloupe", "do_sample_frames": False,
    }  # fmt: skip


def position_rate(num_groups: int, spacing_seconds: float, layout: Layout) -> float:
    """Return the frames per second with which vLLM gives the groups of a Qwen2.5-VL clip their positions.

    vLLM has the seconds of a group in 32 bits and cuts their multiples to whole positions, so the number next to the
    true one may leave a group one position short. Of its neighbours the one with most positions right is taken: all of
    them at the usual rates, up to some thousand positions.
    """
    size = layout.temporal_patch_size
    wanted = np.array(grid_times(num_groups, spacing_seconds * size, layout.tokens_per_second))

    def wrong(seconds: float) -> int:
        return int((np.floor(np.arange(num_groups) * (seconds * layout.tokens_per_second)) != wanted).sum())

    longer = shorter = np.float32(spacing_seconds * size)
    tried = [longer]
    for _ in range(_NEIGHBOURS):
        longer, shorter = np.nextafter(longer, np.float32(np.inf)), np.nextafter(shorter, np.float32(0))
        tried += [longer, shorter]
    return size / min(map(float, tried), key=wrong)


_NEIGHBOURS = 4


def form_of(layout: Layout) -> Form:
    """Return how clips of a checkpoint are handed to vLLM so that the model is shown the same as here.

    Raises:
        ConfigError: There is no such way.
    """
    if layout.family == "qwen2_5_vl":
        return "videos"
    if layout.temporal_patch_size == 1:
        return "pictures"
    if layout.timestamp_format == PUBLISHED_TIMES and layout.wrap_frames:
        return "videos"
    raise ConfigError(
        f"vLLM prints the times of clips as {PUBLISHED_TIMES!r} with vision tokens around every frame group, the "
        f"checkpoint wants {layout.timestamp_format!r} and wrap_frames {layout.wrap_frames}: set rollout.backend to "
        "'local'"
    )


def engine_prompt(episode: TokenEpisode, layout: Layout) -> EnginePrompt:
    """Return the prompt of an episode.

    Raises:
        ConfigError: See ``form_of``; or placeholders and clips do not match.
    """
    form = form_of(layout)
    clips = iter(episode.clips)
    ids: list[int] = []
    pictures: list[np.ndarray] = []
    videos: list[Clip] = []
    for token in episode.token_ids:
        if token not in (layout.video_token_id, layout.image_token_id):
            ids.append(token)
            continue
        clip = _next(clips, episode)
        if clip.is_image or form == "videos":
            ids.append(token)
            (pictures if clip.is_image else videos).append(clip.pixels[0] if clip.is_image else clip)  # type: ignore[arg-type]
        else:
            for picture, seconds in zip(clip.pixels, clip.at_seconds, strict=True):
                ids += [*layout.timestamp_ids(seconds), *layout.placeholder(is_image=True)]
                pictures.append(picture)
    if next(clips, None) is not None:
        raise boundary("clips of an episode", len(episode.clips), "one per placeholder")
    return EnginePrompt(tuple(ids), tuple(pictures), tuple(videos))


def _next(clips: Iterator[Clip], episode: TokenEpisode) -> Clip:
    found = next(clips, None)
    if found is None:
        raise boundary("clips of an episode", len(episode.clips), "one per placeholder")
    return found
