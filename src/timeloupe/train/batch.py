"""From scored roll-outs to what an update learns from: token episodes, advantages, and who is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from timeloupe.environment.replay import read_clips, trajectory_messages
from timeloupe.model.episode import Clip, TokenEpisode, same_clips
from timeloupe.model.load import LoadedModel
from timeloupe.model.render import render
from timeloupe.train.advantage import Scale, difficulty_weights, group_advantages, off_policy_weights
from timeloupe.train.exploration import is_constructed
from timeloupe.train.grpo_recipe import DifficultyPart, ExplorationPart
from timeloupe.trajectory import Trajectory
from timeloupe.video.cache import FrameCache

Learn = Literal["all_turns", "last_turn"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One roll-out as an update sees it.

    Attributes:
        episode: Its tokens as they were sampled, with their log-probabilities; learnt ones are marked.
        advantage: How much better it did than its group.
        off_policy: Whether the policy did not sample it itself.
    """

    episode: TokenEpisode
    advantage: float
    off_policy: bool = False

    @property
    def num_tokens(self) -> int:
        """Learnt tokens."""
        return sum(len(segment.token_ids) for segment in self.episode.segments if segment.trained)


def make_samples(
    trajectories: Sequence[Trajectory],
    rewards: Sequence[float | None],
    loaded: LoadedModel,
    cache: FrameCache,
    *,
    learn: Learn = "all_turns",
    scale: Scale = "std",
    epsilon: float = 1e-4,
    exploration: ExplorationPart | None = None,
    difficulty: DifficultyPart | None = None,
) -> list[Sample]:
    """Return the roll-outs that have a reward, as samples; unscored ones are in no mean and no denominator.

    Args:
        trajectories: Roll-outs; those of one example id are a group.
        rewards: One each; ``None`` = unscored.
        loaded: The model, for its layout and chat format.
        cache: The frames that were shown are in here, or are decoded again.
        learn: Which sampled tokens are learnt; prompt, frames and tool text never are.
        scale: See ``train.advantage``.
        epsilon: Likewise.
        exploration: How constructed roll-outs are weighed; needed where there are any.
        difficulty: Weigh examples by how many of their roll-outs solve them.
    """
    groups = [one.example.id for one in trajectories]
    advantages = group_advantages(rewards, groups, scale=scale, epsilon=epsilon)
    constructed = [is_constructed(one) for one in trajectories]
    if exploration is not None:
        advantages = off_policy_weights(
            advantages, rewards, groups, constructed, mode=exploration.weights, beta=exploration.beta
        )
    if difficulty is not None:
        advantages = advantages * difficulty_weights(
            rewards, groups, solved=difficulty.solved, least=difficulty.least
        )
    return [
        Sample(token_episode(one, loaded, cache, learn), float(advantage), begun)
        for one, reward, advantage, begun in zip(trajectories, rewards, advantages, constructed, strict=True)
        if reward is not None and one.turns
    ]


def token_episode(
    trajectory: Trajectory, loaded: LoadedModel, cache: FrameCache, learn: Learn = "all_turns"
) -> TokenEpisode:
    """Return a roll-out as tokens: replies enter with the ids and log-probabilities that were sampled."""
    messages = trajectory_messages(trajectory)
    count = len(trajectory.turns)
    return render(
        messages,
        read_clips(messages, cache),
        loaded.chat,
        loaded.layout,
        generations=[turn.generation for turn in trajectory.turns],
        trained=[learn == "all_turns" or turn == count - 1 for turn in range(count)],
        ask_reply=False,
    )


def micro_batches(samples: Sequence[Sample], size: int) -> list[list[Sample]]:
    """Return the samples in parts of at most ``size``: those that begin alike side by side.

    What the samples of a part begin with in common is computed once.
    """
    shown: list[Sequence[Clip]] = []
    keys: list[tuple[int, tuple[int, ...]]] = []
    for sample in samples:
        first = sample.episode.clips[:1]
        number = next((number for number, clips in enumerate(shown) if same_clips(clips, first)), len(shown))
        if number == len(shown):
            shown.append(first)
        keys.append((number, sample.episode.token_ids))
    order = sorted(range(len(samples)), key=keys.__getitem__)
    return [[samples[index] for index in order[at : at + size]] for at in range(0, len(order), size)]
