"""What a policy is: a batch of requests in, a batch of generations out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from timeloupe.errors import ConfigError
from timeloupe.trajectory import Generation, Message


@dataclass(frozen=True)
class Sampling:
    """How to sample one turn.

    Attributes:
        temperature: 0 = greedy.
        top_p: Nucleus mass in (0, 1].
        top_k: Keep the k likeliest tokens; 0 = all.
        max_new_tokens: Limit per turn.
        stop: Strings that end the turn; they stay in the text.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class GenerationRequest:
    """One turn to generate.

    Attributes:
        messages: The whole history, system message first.
        clips: Pixels of every ``FrameRef`` in ``messages``, in order; each (N, H, W, 3) uint8 RGB.
        generations: The earlier generations of this episode, in order, one per assistant message: a policy that
            knows token ids continues from these instead of re-tokenising its own text.
        seed: Seed of this turn (already derived from run seed, example id, roll-out index and turn).
        sampling: Sampling settings.
        example_id: Which dataset row this is, for policies that look replies up; a model must not read it.
        reply_prefix: Text that the reply begins with; the policy goes on from there. It is a part of the ``Generation``
            (text, token ids, log-probabilities) and counts towards ``max_new_tokens``. A policy that cannot go on from
            a text refuses it (``refuse_prefix``).
        give_up_at: ``time.perf_counter()`` from which on the reply is of no use; a policy that waits for others then
            ends with ``finish="error"``. ``None`` = never.
    """

    messages: tuple[Message, ...]
    clips: tuple[np.ndarray, ...] = ()
    generations: tuple[Generation, ...] = ()
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    example_id: str = ""
    reply_prefix: str = ""
    give_up_at: float | None = None


class Policy(Protocol):
    """Anything that can play assistant turns."""

    @property
    def name(self) -> str:
        """Short name for records."""
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one generation per request, in order.

        A machine's fault (dead server, out of memory) is a ``Generation`` with ``finish="error"``, never an exception
        that would lose the other members of the batch.
        """
        ...


def refuse_prefix(requests: Sequence[GenerationRequest], policy: str) -> None:
    """Do nothing unless a request wants its reply begun.

    Raises:
        ConfigError: One does.
    """
    begun = next((request for request in requests if request.reply_prefix), None)
    if begun is not None:
        raise ConfigError(
            f"policy {policy!r} cannot go on from a reply that was begun, got reply_prefix "
            f"{begun.reply_prefix[:40]!r}, allowed: '', play with a local policy or vLLM"
        )
