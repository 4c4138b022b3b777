"""What an episode's record says beyond its messages, and what messages alone say of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timeloupe.data.formats.chat import chat_of, split_chat
from timeloupe.data.formats.row import Context, Row, Said, View
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import Protocol
from timeloupe.trajectory import FrameRef, Generation, Message, StopReason, Text, Trajectory, Turn

_IN_MESSAGES = {"example", "prompt", "turns", "schema_version"}
_GENERATION = ("finish", "usage", "token_ids", "logprobs", "error", "seconds")
_TURN = ("thought", "call", "answer", "problem", "seconds")

Fields = dict[str, Any]


def recorded(trajectory: Trajectory) -> Fields:
    """Return what a record says beyond its question and messages, by field, without what is as if not said."""
    found: Fields = {}
    for name, field in Trajectory.model_fields.items():
        if name not in _IN_MESSAGES and (value := getattr(trajectory, name)) != field.get_default():
            found[name] = value
    turns = trajectory.turns
    empty = Generation(text="")
    for name in _GENERATION:
        values = [getattr(turn.generation, name) for turn in turns]
        if any(value != getattr(empty, name) for value in values):
            found[f"turns.generation.{name}"] = values
    for name in _TURN:
        if any(getattr(turn, name) for turn in turns):
            found[f"turns.{name}"] = [getattr(turn, name) for turn in turns]
    return found


def implied(row: Row, protocol: Protocol) -> Fields:
    """Return what the replies of a row say of the episode that they are, as ``recorded`` does; nothing without any."""
    if not any(one.role == "assistant" for one in chat_of(row)):
        return {}
    return recorded(_rebuilt(row, protocol, [], ()))


def episode_of(row: Row, context: Context) -> Trajectory:
    """Return a row as an episode: its own record, or its messages read as one.

    The policy has no name then, and why the episode ended is told by its last reply.

    Raises:
        RecordError: The row has no reply, or a video that has to be looked at for its frames cannot be.
    """
    if row.trajectory is not None:
        return row.trajectory
    prompt, rest = split_chat(chat_of(row))
    shown: list[Message | None] = []
    for one in rest:
        if one.role == "assistant":
            shown.append(None)
        else:  # what follows a reply in several messages is one observation of ours
            message = _message(one, context)
            before = shown[-1].parts if shown[-1] is not None else ()
            shown[-1] = message.model_copy(update={"parts": (*before, *message.parts)})
    messages = tuple(_message(one, context) for one in prompt)
    return _rebuilt(row, context.protocol, shown, messages)


def _rebuilt(
    row: Row, protocol: Protocol, shown: Sequence[Message | None], prompt: tuple[Message, ...]
) -> Trajectory:
    replies = [one.text for one in chat_of(row) if one.role == "assistant"]
    turns: list[Turn] = []
    for at, text in enumerate(replies):
        read = parse_reply(text, protocol, num_options=len(row.example.options))
        turns.append(
            Turn(
                generation=Generation(text=text), thought=read.thought, call=read.call, answer=read.answer,
                problem=read.problem, observation=shown[at] if at < len(shown) else None,
            )
        )  # fmt: skip
    return Trajectory(
        example=row.example, policy="", protocol=protocol.name, prompt=prompt, turns=tuple(turns),
        stop=_stop(turns),
    )  # fmt: skip


def _stop(turns: Sequence[Turn]) -> StopReason:
    if turns and turns[-1].answer is not None:
        return StopReason.ANSWERED
    return StopReason.MAX_TURNS if turns and turns[-1].call is not None else StopReason.FORMAT


def _message(one: Said, context: Context) -> Message:
    """Return a message in our form; a tool's result is a message of the user."""
    parts = tuple(Text(text=part) if isinstance(part, str) else _frames(part, context) for part in one.parts)
    return Message(role="user" if one.role == "tool" else one.role, parts=parts)


def _frames(view: View, context: Context) -> FrameRef:
    """Return the frames of a view: those it names, else read from the video."""
    if (
        view.at_seconds is None
        or view.size_wh is None
        or view.start_seconds is None
        or view.end_seconds is None
    ):
        return context.frames(view)
    return FrameRef.model_validate(
        {
            "video": view.video, "view": view.view, "start_seconds": view.start_seconds,
            "end_seconds": view.end_seconds, "at_seconds": view.at_seconds, "size_wh": view.size_wh,
        }
    )  # fmt: skip
