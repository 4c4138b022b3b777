"""Keys and values of turns that were played, so that the next turn reads only what came after them.

An entry holds one row: what the model computed for the prompt and all sampled tokens but the last, which it was never
shown. It is taken out when its episode goes on. Entries are of one state of the weights: whoever changes these must
call ``forget``, and ``LocalPolicy`` does when it sees that they were.

Shapes: H heads, T positions, D head size.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

import torch

from timeloupe.errors import boundary
from timeloupe.model.episode import Clip, TokenEpisode, same_clips

Layers = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Keys and values of each layer, (1, H, T, D) each, without padding; empty = no positions."""


@dataclass(frozen=True, eq=False)
class SharedKeys:
    """What several episodes begin with, once for all of them."""

    layers: Layers


@dataclass(frozen=True, eq=False)
class Prefix:
    """What is known of the start of an episode.

    Attributes:
        token_ids: Unexpanded ids that the model was shown.
        clips: Their clips.
        layers: Its keys and values beyond the shared ones.
        next_position: Position of the token that follows, on all three axes.
        shared: What came before ``layers``, if that is kept once for several episodes.
    """

    token_ids: tuple[int, ...]
    clips: tuple[Clip, ...]
    layers: Layers
    next_position: int
    shared: SharedKeys | None = None

    def all_layers(self) -> Layers:
        """Return keys and values of everything, shared or not."""
        if self.shared is None or not self.layers:
            return self.layers if self.shared is None else self.shared.layers
        return tuple(
            (torch.cat((shared[0], own[0]), 2), torch.cat((shared[1], own[1]), 2))
            for shared, own in zip(self.shared.layers, self.layers, strict=True)
        )


def num_bytes(layers: Layers) -> int:
    """Return the memory of keys and values."""
    return sum(tensor.numel() * tensor.element_size() for layer in layers for tensor in layer)


class PrefixMemory:
    """Prefixes by their tokens and clips, the oldest forgotten first.

    Args:
        max_bytes: Bound of all keys and values, shared ones counted once; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 0:
            raise boundary("max_bytes of a prefix memory", max_bytes, ">= 0")
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: OrderedDict[int, Prefix] = OrderedDict()
        self._by_ids: dict[tuple[int, ...], list[int]] = {}
        self._sharers: Counter[int] = Counter()
        self._next = 0

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, prefix: Prefix) -> None:
        """Add an entry, and forget the oldest ones until all fit; one that is too large alone is not kept."""
        alone = num_bytes(prefix.layers) + (num_bytes(prefix.shared.layers) if prefix.shared else 0)
        if alone > self.max_bytes:
            return
        self._entries[self._next] = prefix
        self._by_ids.setdefault(prefix.token_ids, []).append(self._next)
        self.num_bytes += num_bytes(prefix.layers)
        if prefix.shared is not None:
            self._sharers[id(prefix.shared)] += 1
            if self._sharers[id(prefix.shared)] == 1:
                self.num_bytes += num_bytes(prefix.shared.layers)
        self._next += 1
        while self.num_bytes > self.max_bytes:
            self._remove(next(iter(self._entries)))

    def take(self, episode: TokenEpisode, num_known: int) -> Prefix | None:
        """Return and remove what is known of the first ``num_known`` tokens of an episode."""
        ids = episode.token_ids[:num_known]
        for number in self._by_ids.get(ids, ()):
            prefix = self._entries[number]
            if same_clips(prefix.clips, episode.clips[: len(prefix.clips)]):
                self._remove(number)
                return prefix
        return None

    def forget(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self._by_ids.clear()
        self._sharers.clear()
        self.num_bytes = 0

    def _remove(self, number: int) -> None:
        prefix = self._entries.pop(number)
        same = self._by_ids[prefix.token_ids]
        same.remove(number)
        if not same:
            del self._by_ids[prefix.token_ids]
        self.num_bytes -= num_bytes(prefix.layers)
        if prefix.shared is not None:
            self._sharers[id(prefix.shared)] -= 1
            if not self._sharers[id(prefix.shared)]:
                self.num_bytes -= num_bytes(prefix.shared.layers)


def rest_of(episode: TokenEpisode, prefix: Prefix) -> TokenEpisode:
    """Return what an episode holds beyond a prefix of it."""
    skip = len(prefix.token_ids)
    segments = []
    for segment in episode.segments:
        kept = segment.token_ids[skip:]
        skip = max(0, skip - len(segment.token_ids))
        if kept:
            segments.append(type(segment)(kept))
    return TokenEpisode(tuple(segments), episode.clips[len(prefix.clips) :])
