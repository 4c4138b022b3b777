"""What a build will take before it is begun: calls, tokens and money, counted and not measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timeloupe.data.build.labelling import Labeller
from timeloupe.data.build.recipe import BuildRecipe
from timeloupe.data.build.stages.registry import STAGES, stage_name
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import frame_size, skim_span
from timeloupe.errors import VideoError
from timeloupe.trajectory import Example
from timeloupe.video.reader import VideoReader

PIXELS_PER_TOKEN = 32 * 32 * 2
"""Qwen3-VL: one token for 32 x 32 pixels of two frames."""

TEXT_TOKENS = 400
REPLY_TOKENS = 300
PROBED = 20


def plan_build(recipe: BuildRecipe, labeller: Labeller, examples: Sequence[Example]) -> dict[str, Any]:
    """Return calls, tokens and money of every stage at most, with the mean frames of the first ``PROBED`` videos.

    Tokens are those of a Qwen3-VL: one for 32 x 32 pixels of two frames, ``TEXT_TOKENS`` of text, ``REPLY_TOKENS`` a
    reply. Every question is counted with the whole skim and one full crop, and every stage with all items of the source
    that it could get: what is left out on the way makes it cheaper.
    """
    settings = labeller.kit.settings
    frames, size, unread = _views(settings, examples)
    prompt = frames * size / PIXELS_PER_TOKEN + TEXT_TOKENS
    stages: dict[str, Any] = {}
    items: dict[str, int] = {"source": len(examples)}
    for part in recipe.stages:
        name, kind = stage_name(part), STAGES[part.kind]
        count = len(kind.items(examples, part)) if part.reads == "source" else items[part.reads]
        items[name] = count
        calls = count * kind.most_asks(part) * kind.turns(part, settings)
        stages[name] = {
            "items_at_most": count, "calls_at_most": calls, "prompt_tokens_at_most": round(calls * prompt),
            "completion_tokens_at_most": calls * REPLY_TOKENS,
            "cost_at_most": _cost(labeller, calls, prompt),
        }  # fmt: skip
    return {"frames_per_call": round(frames), "unread_videos": unread, "stages": stages, "measured": False}


def _views(settings: EpisodeSettings, examples: Sequence[Example]) -> tuple[float, float, int]:
    """Return the mean number of frames of a question, the mean pixels of one, and how many videos cannot be read."""
    numbers: list[float] = []
    sizes: list[float] = []
    unread = 0
    for video in list(dict.fromkeys(example.video for example in examples))[:PROBED]:
        try:
            with VideoReader(video, deadline_seconds=settings.video_deadline_seconds) as reader:
                _, _, times = skim_span(reader.info, settings)
                width, height = frame_size(reader.info, settings.skim_pixels, settings)
        except VideoError:
            unread += 1
            continue
        numbers.append(len(times) + settings.crop_max_frames)
        sizes.append(width * height)
    if not numbers:
        return 0.0, 0.0, unread
    return sum(numbers) / len(numbers), sum(sizes) / len(sizes), unread


def _cost(labeller: Labeller, calls: int, prompt: float) -> float | None:
    if labeller.price is None:
        return None
    return round(calls * (labeller.price[0] * prompt + labeller.price[1] * REPLY_TOKENS) / 1e6, 4)


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Return a plan in words."""
    lines = [
        f"counted, not measured; {plan['frames_per_call']} frames a call, the mean of the first {PROBED} videos"
    ]
    if plan["unread_videos"]:
        lines.append(f"{plan['unread_videos']} of them cannot be read, and count for nothing here")
    for name, stage in plan["stages"].items():
        cost = "" if stage["cost_at_most"] is None else f", {stage['cost_at_most']:g} USD"
        lines.append(
            f"{name}: at most {stage['items_at_most']} items, {stage['calls_at_most']} calls, "
            f"{stage['prompt_tokens_at_most']} prompt tokens{cost}"
        )
    return lines
