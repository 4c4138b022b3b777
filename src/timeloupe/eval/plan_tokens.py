"""How many tokens a chat takes, without a model: exactly where the checkpoint's tokenizer is at hand, else about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from timeloupe.prompt.frames_as_images import DEFAULT_TIME_FORMAT, frames_as_images
from timeloupe.trajectory import FrameRef, Message, Text

if TYPE_CHECKING:
    from timeloupe.model.sizes import ModelSizes

Send = Literal["images", "video"]

CHARACTERS_PER_TOKEN = 4.0
"""Of English prose, where no tokenizer counts."""

MESSAGE_TOKENS = 5
"""Tokens around a message of a chat."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


class Ruler(Protocol):
    """Counts the tokens of chats."""

    exact: bool

    def count(self, messages: Sequence[Message]) -> int:
        """Return the tokens of a chat that asks for a reply, pictures included."""
        ...

    def visual(self, ref: FrameRef) -> int:
        """Return the tokens of a view's pictures alone, without times and marks."""
        ...


def _shapes(messages: Sequence[Message]) -> list[np.ndarray]:
    """Stand-ins for the pixels of every view: the right shape, one byte of memory."""
    return [
        np.broadcast_to(np.uint8(0), (len(ref.at_seconds), ref.size_wh[1], ref.size_wh[0], 3))
        for message in messages
        for ref in message.frame_refs
    ]


class ExactRuler:
    """Counts as the model does, with its own tokenizer and layout.

    Args:
        folder: The checkpoint's folder; weights are not read.
        send: ``video`` = clips as the model was trained on them, ``images`` = timed pictures.
        time_format: How a picture's time is printed.
    """

    exact = True

    def __init__(self, folder: Path, send: Send, time_format: str = DEFAULT_TIME_FORMAT) -> None:
        from transformers import AutoTokenizer

        from timeloupe.model.layout import read_layout
        from timeloupe.model.render import read_chat_format

        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.layout, self.chat = read_layout(folder, tokenizer), read_chat_format(tokenizer)
        self.send = send
        self.time_format = time_format

    def count(self, messages: Sequence[Message]) -> int:
        """Return the tokens of a chat that asks for a reply, pictures included."""
        from timeloupe.model.expand import expanded_length
        from timeloupe.model.render import render

        shown, clips = tuple(messages), tuple(_shapes(messages))
        if self.send == "images":
            shown, clips = frames_as_images(shown, clips, self.time_format)
        return expanded_length(render(shown, clips, self.chat, self.layout), self.layout)

    def visual(self, ref: FrameRef) -> int:
        """Return the tokens of a view's pictures alone."""
        group = 1 if self.send == "images" else self.layout.temporal_patch_size
        return math.ceil(len(ref.at_seconds) / group) * _picture(ref, self.layout.size_multiple)


class RoughRuler:
    """Counts pictures exactly and text by its length.

    Args:
        sizes: The model's.
        prints_times: The model's own form of a clip prints the time of every group of frames (Qwen3-VL).
        send: As for ``ExactRuler``.
        time_format: How a picture's time is printed.
    """

    exact = False

    def __init__(
        self, sizes: ModelSizes, prints_times: bool, send: Send, time_format: str = DEFAULT_TIME_FORMAT
    ) -> None:
        self.multiple = math.isqrt(sizes.token_pixels)
        self.group = 1 if send == "images" else sizes.group_frames
        self.time_format = time_format if prints_times or send == "images" else None

    def count(self, messages: Sequence[Message]) -> int:
        """Return about how many tokens a chat takes that asks for a reply."""
        total = MESSAGE_TOKENS * (len(messages) + 1)
        for message in messages:
            for part in message.parts:
                total += _prose(part.text) if isinstance(part, Text) else self._view(part)
        return total

    def _view(self, ref: FrameRef) -> int:
        if self.time_format is None:
            return self.visual(ref) + 2
        # Digits and signs are tokens of their own; a pair of marks stands around the pictures.
        times = sum(
            len(self.time_format.format(time).split(" ")[0]) + 4 for time in ref.at_seconds[:: self.group]
        )
        return self.visual(ref) + times

    def visual(self, ref: FrameRef) -> int:
        """Return the tokens of a view's pictures alone."""
        return math.ceil(len(ref.at_seconds) / self.group) * _picture(ref, self.multiple)


def _picture(ref: FrameRef, multiple: int) -> int:
    """Tokens of one picture, its sides fitted to ``multiple`` as the processor does."""
    width, height = ref.size_wh
    return max(round(width / multiple), 1) * max(round(height / multiple), 1)


@lru_cache(maxsize=4096)
def _prose(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def make_ruler(
    folder: Path | None, sizes: ModelSizes, prints_times: bool, send: Send, time_format: str
) -> Ruler:
    """Return an exact ruler if the folder has a tokenizer, else a rough one."""
    if folder is not None and any((folder / name).is_file() for name in TOKENIZER_FILES):
        return ExactRuler(folder, send, time_format)
    return RoughRuler(sizes, prints_times, send, time_format)
