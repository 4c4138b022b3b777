"""TaRO's temporal sensitivity: how much less likely is a reply when frames around the true boundaries are mixed?

Two forward passes of the policy as it is see the same token ids: one with the frames that were shown, one with those
near the true starts and ends in another order (printed times stay where they are). The drop of a roll-out is the mean
fall of the log-probability over its thought, in nats per token. A thought that does not depend on these frames has 0.

The frames of a prompt are mixed in one way for all members of a group, so that their drops can be compared. Crops are
mixed like the first view. The reward decides what a drop is worth, and whether the answer is good enough to be paid.

Source: TaRO (arXiv 2606.09248), ``compute_temporal_log_prob`` of oceanflowlab/TaRO@143a234f. Deviations: those of
``reward.taro_sensitivity``, and the thought is the default span, as the paper has it.
"""

from __future__ import annotations

import math
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from timeloupe.environment.rollout import derive_seed
from timeloupe.errors import ConfigError
from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.model.expand import expand
from timeloupe.model.forward import hidden_states, target_logprobs
from timeloupe.model.load import LoadedModel
from timeloupe.reward.base import Context
from timeloupe.reward.compose import Reward
from timeloupe.reward.taro import READ_DROPS
from timeloupe.reward.taro_sensitivity import boundary_windows, log_prob_drops, shuffled_order
from timeloupe.train.batch import Learn, token_episode
from timeloupe.train.grpo_recipe import GrpoRecipe, SensitivityPart
from timeloupe.trajectory import Segment, StopReason, Trajectory
from timeloupe.video.cache import FrameCache
from timeloupe.world.script import generator

DECIMALS = 5
"""Of a drop, nats per token."""


@dataclass(frozen=True)
class Drop:
    """What was measured of one roll-out.

    Attributes:
        value: Mean fall per token, nats; ``None`` = not measured: no true segment, no frames, no thought, or
            the machine ended the episode.
        threshold: What it is compared with; ``None`` likewise.
    """

    value: float | None = None
    threshold: float | None = None

    def context(self, progress: float, step: float = 0.0) -> Context:
        """Return what the reward may look at; see there for ``progress`` and ``step``."""
        return Context(progress, self.value, self.threshold, step=step)


def check_reward(recipe: GrpoRecipe, reward: Reward) -> None:
    """Check that what is measured is read; warn where what could be read is not measured.

    Raises:
        ConfigError: Drops are to be measured, and no part of the reward reads them.
    """
    reading = [use.label for use in reward.composite.parts if use.part in READ_DROPS]
    if recipe.sensitivity is not None and not reading:
        raise ConfigError(
            f"[sensitivity] measures what reward {reward.name!r} does not read, allowed: rewards with "
            f"{' or '.join(sorted(READ_DROPS))} (weight 0 reports it only), leave [sensitivity] out or choose one"
        )
    if recipe.sensitivity is None and reading:
        warnings.warn(
            f"reward {reward.name!r} pays no {', '.join(reading)}: the recipe has no [sensitivity] that measures it",
            stacklevel=3,
        )


def step_drops(
    recipe: GrpoRecipe, trajectories: Sequence[Trajectory], loaded: LoadedModel, cache: FrameCache, step: int
) -> list[Drop]:
    """Return the drops of one step's roll-outs; nothing is measured unless the recipe asks for it."""
    part = recipe.sensitivity
    if part is None:
        return [Drop()] * len(trajectories)
    seed = derive_seed(recipe.seed, "sensitivity", 0, step)
    return measure_drops(
        trajectories, loaded, cache, part, seed=seed, micro_batch=recipe.micro_batch, learn=recipe.learn
    )


def measure_drops(
    trajectories: Sequence[Trajectory],
    loaded: LoadedModel,
    cache: FrameCache,
    part: SensitivityPart,
    *,
    seed: int,
    micro_batch: int = 8,
    learn: Learn = "all_turns",
) -> list[Drop]:
    """Return the drop of every roll-out under the model as it is.

    Args:
        trajectories: Whole groups: the members of one are those with the same example id.
        loaded: The model.
        cache: The frames that were shown are in here, or are decoded again.
        part: What is compared, and with what.
        seed: Draws the orders of frames, per example.
        micro_batch: Roll-outs per forward pass.
        learn: Of which turns the tokens are compared.
    """
    pairs: list[tuple[int, TokenEpisode, TokenEpisode]] = []
    for place, one in enumerate(trajectories):
        if not (one.turns and one.skims and one.example.segments):
            continue
        if one.stop is StopReason.INFRASTRUCTURE:  # it is in no group, so in no group's mean either
            continue
        episode = spoken(one, token_episode(one, loaded, cache, learn), loaded, part.span)
        if any(segment.trained for segment in episode.segments):
            mixed = mix_clips(episode, one.example.segments, part.radius_seconds, (seed, one.example.id))
            pairs.append((place, episode, mixed))
    values: list[float | None] = [None] * len(trajectories)
    pairs.sort(key=lambda pair: len(pair[1].token_ids))
    loaded.model.eval()
    for at in range(0, len(pairs), micro_batch):
        chosen = pairs[at : at + micro_batch]
        found = _drops([pair[1] for pair in chosen], [pair[2] for pair in chosen], loaded)
        for (place, _, _), value in zip(chosen, found, strict=True):
            # Equal thoughts in other rows of a pass differ by rounding, which is no sign of sight.
            values[place] = round(value, DECIMALS) if math.isfinite(value) else None
    return with_thresholds(values, [one.example.id for one in trajectories], part)


def with_thresholds(
    values: Sequence[float | None], groups: Sequence[str], part: SensitivityPart
) -> list[Drop]:
    """Return the drops with what each is compared with; those that were not measured are in no mean."""
    members: dict[str, list[float]] = {}
    for value, group in zip(values, groups, strict=True):
        if value is not None:
            members.setdefault(group, []).append(value)
    drops: list[Drop] = []
    for value, group in zip(values, groups, strict=True):
        if value is None:
            drops.append(Drop())
            continue
        seen = members[group][-1] if part.shared_by_group else value
        # The mean of equal numbers may be off in its last digit, and they would all be above it.
        mean = float(np.clip(np.mean(members[group]), min(members[group]), max(members[group])))
        drops.append(Drop(seen, mean if part.threshold is None else part.threshold))
    return drops


def drop_figures(drops: Sequence[Drop]) -> dict[str, float]:
    """Return what a step logs.

    ``drop_measured`` is the share of roll-outs that have one, ``drop`` their mean, and ``drop_above`` the share of them
    that is above its threshold.
    """
    known = [
        (one.value, one.threshold) for one in drops if one.value is not None and one.threshold is not None
    ]
    figures = {"drop_measured": len(known) / max(len(drops), 1)}
    if known:
        figures["drop"] = sum(value for value, _ in known) / len(known)
        figures["drop_above"] = sum(value > threshold for value, threshold in known) / len(known)
    return figures


def spoken(trajectory: Trajectory, episode: TokenEpisode, loaded: LoadedModel, span: str) -> TokenEpisode:
    """Return the episode with just those sampled tokens marked that are compared."""
    if span == "response":
        return episode
    # The last turn may be the only one that is learnt.
    learnt = sum(segment.trained for segment in episode.segments)
    turns = iter(trajectory.turns[len(trajectory.turns) - learnt :])
    segments: list[TokenSegment] = []
    for segment in episode.segments:
        if not segment.trained:
            segments.append(segment)
            continue
        ids = segment.token_ids
        first, last = thought_span(next(turns).generation.text, ids, loaded)
        parts = ((0, first, False), (first, last, True), (last, len(ids), False))
        segments += [TokenSegment(ids[low:high], marked) for low, high, marked in parts if low < high]
    return replace(episode, segments=tuple(segments))


def thought_span(text: str, ids: Sequence[int], loaded: LoadedModel) -> tuple[int, int]:
    """Return which of a reply's tokens are its thought, [first, last), without the tags; empty where there is none.

    A token that a tag shares with the thought belongs to the tag. A thought that is never closed goes to the end; one
    that the chat template opened begins with the reply.
    """
    opening, closing = "<think>", "</think>"
    start = text.find(opening)
    begin = start + len(opening) if start >= 0 else 0
    end = text.find(closing, begin)
    if start < 0 and opening not in loaded.chat.reply_prefix:
        return 0, 0
    if end < 0:
        end = len(text)

    def written(count: int) -> int:
        return len(loaded.tokenizer.decode(list(ids[:count]), skip_special_tokens=True))

    counts = range(len(ids) + 1)
    first = bisect_left(counts, begin, key=written)
    last = bisect_right(counts, end, key=written) - 1
    return min(first, len(ids)), max(first, last)


def mix_clips(
    episode: TokenEpisode, truth: Sequence[Segment], radius_seconds: float, key: tuple[object, ...]
) -> TokenEpisode:
    """Return the episode with the frames of every clip mixed around the true boundaries; times and tokens stay.

    Args:
        episode: What was shown.
        truth: True segments, seconds of the original video.
        radius_seconds: Half the length of a window.
        key: Draws the orders.
    """
    clips: list[Clip] = []
    for number, clip in enumerate(episode.clips):
        if clip.is_image:
            clips.append(clip)
            continue
        random = generator("mix", *key, number)
        zero = clip.at_seconds[0]
        windows = [
            window
            for one in truth
            for window in boundary_windows(
                clip.at_seconds, 1.0, one.start_seconds - zero, one.end_seconds - zero, radius_seconds
            )
        ]

        def permute(count: int, random: np.random.Generator = random) -> list[int]:
            return random.permutation(count).tolist()

        order = shuffled_order(len(clip.at_seconds), windows, permute)
        clips.append(replace(clip, pixels=clip.pixels[order]))
    return replace(episode, clips=tuple(clips))


def _drops(plain: Sequence[TokenEpisode], mixed: Sequence[TokenEpisode], loaded: LoadedModel) -> list[float]:
    """The drop of each episode: two passes over the same tokens."""
    found: list[np.ndarray] = []
    mask = np.zeros(0)
    for episodes in (plain, mixed):
        batch = expand(episodes, loaded.layout).to(loaded.device)
        on_gpu = batch.input_ids_BT.is_cuda
        with torch.no_grad(), torch.autocast(loaded.device.type, torch.bfloat16, enabled=on_gpu):
            hidden_BTH = hidden_states(loaded.model, batch)
            found.append(target_logprobs(loaded.model, batch, hidden_BTH=hidden_BTH).float().cpu().numpy())
        mask = batch.loss_mask_BT.cpu().numpy()
    return log_prob_drops(found[0], found[1], mask).tolist()
