"""Training rows: a chat with its frames, which turns are trained, and, for the world, what each frame shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from timeloupe.environment.replay import read_clips, trajectory_messages
from timeloupe.model.episode import TokenEpisode
from timeloupe.model.load import LoadedModel
from timeloupe.model.render import render
from timeloupe.train.masking import Mask, trained_turns
from timeloupe.trajectory import Message, Text, Trajectory
from timeloupe.video.cache import FrameCache


@dataclass(frozen=True, eq=False)
class TrainRow:
    """One training row.

    Attributes:
        messages: The whole chat, its last message a reply.
        clips: (N, H, W, 3) uint8 pixels of every frame reference, in order.
        labels: For every clip, one relevance label a frame (extra targets at visual tokens), or ``None``.
        corners: For every clip, left and top of the box of what is asked for in each frame, in thousandths as replies
            write them (likewise), ``None`` for a frame without it; or ``None``.
    """

    messages: tuple[Message, ...]
    clips: tuple[np.ndarray, ...]
    labels: tuple[tuple[str, ...], ...] | None = None
    corners: tuple[tuple[tuple[int, int] | None, ...], ...] | None = None

    @property
    def num_turns(self) -> int:
        """Assistant turns."""
        return sum(message.role == "assistant" for message in self.messages)

    @property
    def cost(self) -> int:
        """A number that grows with the row's length: rows of like cost are batched together."""
        frames = sum(len(clip) for clip in self.clips)
        return 2 * frames + sum(len(message.text) for message in self.messages) // 5


def to_episode(row: TrainRow, loaded: LoadedModel, mask: Mask) -> TokenEpisode:
    """Return a row as the model gets it, with the turns that ``mask`` keeps as targets."""
    return render(
        row.messages,
        row.clips,
        loaded.chat,
        loaded.layout,
        trained=trained_turns(row.num_turns, mask),
        ask_reply=False,
    )


def assistant(text: str) -> Message:
    """Return a reply as a message."""
    return Message(role="assistant", parts=(Text(text=text),))


def trajectory_row(trajectory: Trajectory, cache: FrameCache | None = None) -> TrainRow:
    """Return a trajectory as a training row; the frames are decoded from its videos."""
    messages = trajectory_messages(trajectory)
    return TrainRow(messages, read_clips(messages, cache))
