"""How likely given replies are: their log-probabilities under a loaded model, whatever it would say itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from timeloupe.model.episode import TokenEpisode
from timeloupe.model.expand import expand, expanded_length
from timeloupe.model.forward import hidden_states, target_logprobs
from timeloupe.model.render import render
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.local import LocalPolicy
from timeloupe.prompt.frames_as_images import frames_as_images
from timeloupe.trajectory import Generation, Message, Text


def reply_logprobs(
    policy: LocalPolicy, requests: Sequence[GenerationRequest], replies: Sequence[Generation]
) -> list[tuple[float, ...] | None]:
    """Return the log-probability of every token of a reply to each request, in nats, temperature 1, nothing banned.

    Args:
        policy: The model; requests are shown to it as when it generates.
        requests: What comes before the reply; seed and sampling are not read.
        replies: One each; token ids are used as they are, a reply without is encoded from its text.

    Returns:
        One tuple per request, the end-of-turn token with it where the reply has one; ``None`` where the machine failed
        (out of memory).

    Raises:
        ConfigError: Clips and frame references do not match.
    """
    episodes = [_episode(policy, *pair) for pair in zip(requests, replies, strict=True)]
    lengths = [expanded_length(episode, policy.loaded.layout) for episode in episodes]
    found: list[tuple[float, ...] | None] = [None] * len(episodes)
    batch: list[int] = []
    for index in sorted(range(len(episodes)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > policy.max_batch_tokens:
            _score(policy, episodes, batch, found)
            batch = []
        batch.append(index)
    if batch:
        _score(policy, episodes, batch, found)
    return found


def _episode(policy: LocalPolicy, request: GenerationRequest, reply: Generation) -> TokenEpisode:
    messages, clips = request.messages, request.clips
    if policy.send == "images":
        messages, clips = frames_as_images(messages, clips, policy.time_format)
    said = (*messages, Message(role="assistant", parts=(Text(text=reply.text),)))
    earlier = sum(message.role == "assistant" for message in messages)
    generations = (*request.generations, reply) if len(request.generations) == earlier else ()
    return render(
        said, clips, policy.loaded.chat, policy.loaded.layout, generations=generations,
        trained=[False] * earlier + [True], ask_reply=False,
    )  # fmt: skip


def _score(
    policy: LocalPolicy,
    episodes: Sequence[TokenEpisode],
    batch: Sequence[int],
    found: list[tuple[float, ...] | None],
) -> None:
    """Fill in the log-probabilities of the episodes ``batch``; if that fails, those of each half alone."""
    loaded = policy.loaded
    try:
        inputs = expand([episodes[index] for index in batch], loaded.layout).to(loaded.device)
        with torch.inference_mode():
            hidden_BTH = hidden_states(loaded.model, inputs)
            values_BT = target_logprobs(loaded.model, inputs, hidden_BTH=hidden_BTH).cpu()
    except (RuntimeError, MemoryError):  # the machine's fault is a value
        if len(batch) > 1:
            half = len(batch) // 2
            _score(policy, episodes, batch[:half], found)
            _score(policy, episodes, batch[half:], found)
        return
    mask_BT = inputs.loss_mask_BT.cpu()
    for row, index in enumerate(batch):
        found[index] = tuple(values_BT[row][mask_BT[row]].tolist())
