"""A recorded episode as the chat that it was, with the pixels that were shown, read again from the videos."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from timeloupe.errors import ConfigError, VideoError
from timeloupe.trajectory import FrameRef, Message, Text, Trajectory
from timeloupe.video.cache import FrameCache
from timeloupe.video.reader import VideoReader


def trajectory_messages(trajectory: Trajectory) -> tuple[Message, ...]:
    """Return a trajectory as one chat: prompt, replies and observations, up to its last reply.

    Raises:
        ConfigError: It has no turn.
    """
    if not trajectory.turns:
        raise ConfigError(f"trajectory {trajectory.example.id!r} has no turn to learn from; leave it out")
    messages = list(trajectory.prompt)
    for turn in trajectory.turns:
        messages.append(Message(role="assistant", parts=(Text(text=turn.generation.text),)))
        if turn.observation is not None and turn is not trajectory.turns[-1]:
            messages.append(turn.observation)
    return tuple(messages)


def read_clips(
    messages: Sequence[Message], cache: FrameCache | None, *, deadline_seconds: float | None = None
) -> tuple[np.ndarray, ...]:
    """Return the pixels of every frame reference, read from the videos at the recorded times and sizes.

    Args:
        messages: The chat.
        cache: The frames that were shown are in here, or are decoded again.
        deadline_seconds: As ``VideoReader`` takes it.

    Raises:
        VideoError: A video cannot be read any more.
    """
    refs: list[FrameRef] = [ref for message in messages for ref in message.frame_refs]
    clips: dict[int, np.ndarray] = {}
    for video in dict.fromkeys(ref.video for ref in refs):
        with VideoReader(video, cache, deadline_seconds=deadline_seconds) as reader:
            for number, ref in enumerate(refs):
                if ref.video == video:
                    clips[number] = _read(reader, ref)
    return tuple(clips[number] for number in range(len(refs)))


def _read(reader: VideoReader, ref: FrameRef) -> np.ndarray:
    frames = reader.read(ref.at_seconds, ref.size_wh)
    if frames.at_seconds != ref.at_seconds:
        raise VideoError(
            ref.video, "the frames at the recorded times are others now", hint="was the file replaced?"
        )
    return frames.pixels
