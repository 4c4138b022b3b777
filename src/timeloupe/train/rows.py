"""Training rows: a chat with its frames, which turns are trained, and, for the world, what each frame shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from timeloupe.errors import ConfigError, VideoError
from timeloupe.model.episode import TokenEpisode
from timeloupe.model.load import LoadedModel
from timeloupe.model.render import render
from timeloupe.train.masking import Mask, trained_turns
from timeloupe.trajectory import FrameRef, Message, Text, Trajectory
from timeloupe.video.cache import FrameCache
from timeloupe.video.reader import VideoReader


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


def trajectory_messages(trajectory: Trajectory) -> tuple[Message, ...]:
    """Return a trajectory as one chat: prompt, replies and observations, up to its last reply.

    Raises:
        ConfigError: It has no turn.
    """
    if not trajectory.turns:
        raise ConfigError(f"trajectory {trajectory.example.id!r} has no turn to learn from; leave it out")
    messages = list(trajectory.prompt)
    for turn in trajectory.turns:
        messages.append(assistant(turn.generation.text))
        if turn.observation is not None and turn is not trajectory.turns[-1]:
            messages.append(turn.observation)
    return tuple(messages)


def read_clips(messages: Sequence[Message], cache: FrameCache | None) -> tuple[np.ndarray, ...]:
    """Return the pixels of every frame reference, read from the videos at the recorded times and sizes.

    Raises:
        VideoError: A video cannot be read any more.
    """
    refs: list[FrameRef] = [ref for message in messages for ref in message.frame_refs]
    clips: list[np.ndarray] = []
    for ref in refs:
        with VideoReader(ref.video, cache) as reader:
            frames = reader.read(ref.at_seconds, ref.size_wh)
        if frames.at_seconds != ref.at_seconds:
            raise VideoError(
                ref.video, "the frames at the recorded times are others now", hint="was the file replaced?"
            )
        clips.append(frames.pixels)
    return tuple(clips)


def trajectory_row(trajectory: Trajectory, cache: FrameCache | None = None) -> TrainRow:
    """Return a trajectory as a training row; the frames are decoded from its videos."""
    messages = trajectory_messages(trajectory)
    return TrainRow(messages, read_clips(messages, cache))
