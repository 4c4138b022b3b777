"""Messages to a model: the first ones, and what it sees after a call of the tool. Pure functions of values."""

from __future__ import annotations

import json
from collections.abc import Sequence

from timeloupe.errors import boundary
from timeloupe.prompt.protocol import Protocol
from timeloupe.trajectory import Example, FrameRef, Message, Segment, Text

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def question_block(example: Example) -> str:
    """Return the stem and one line per option, ``A. text``.

    Raises:
        ConfigError: There are more options than letters.
    """
    if len(example.options) > len(LETTERS):
        raise boundary(f"options of example {example.id!r}", len(example.options), f"at most {len(LETTERS)}")
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, example.options, strict=False)]
    return "\n".join([example.question, *lines])


def first_messages(
    example: Example,
    skim: FrameRef | None,
    protocol: Protocol,
    *,
    tools: bool,
    system_prompt: str | None = None,
) -> tuple[Message, ...]:
    """Return the system message, if there is one, and the user message with the frames and the question.

    Args:
        example: The question.
        skim: The first view; ``None`` = the question alone, once.
        protocol: How to say it.
        tools: Whether the model may look closer.
        system_prompt: Replaces the protocol's system text; empty = no system message.

    Raises:
        ConfigError: The example has more than 26 options.
    """
    system = protocol.system_with_tool if tools else protocol.system_without_tool
    if system_prompt is not None:
        system = system_prompt
    question = question_block(example)
    hint = protocol.hints.get(example.task, "")
    asked = f"{question}\n{hint}" if hint else question
    parts: list[Text | FrameRef] = []
    if skim is None:
        parts.append(Text(text=asked))
    else:
        if protocol.question != "after":
            before = question if protocol.question == "both" else asked
            parts.append(Text(text=f"{before}\n"))
        parts.append(skim)
        after: list[str] = []
        if protocol.says_span:
            after.append(
                f"The frames span {skim.start_seconds:.1f} s to {skim.end_seconds:.1f} s of the video."
            )
        if protocol.question != "before":
            after.append(asked)
        if after:
            parts.append(Text(text="\n" + "\n".join(after)))
    user = Message(role="user", parts=tuple(parts))
    return (Message(role="system", parts=(Text(text=system),)), user) if system else (user,)


def observation_message(
    crops: Sequence[FrameRef], errors: Sequence[str], protocol: Protocol, example: Example
) -> Message:
    """Return the user message that follows a call of the tool.

    It holds the crops, then the errors if there are any, then a sentence. Crops that could be cut are shown also when
    others failed.

    Args:
        crops: The views that could be cut, in the order they were asked for.
        errors: One text for each that could not.
        protocol: How to say it.
        example: The question, repeated where the protocol places it on both sides of the frames.

    Raises:
        ValueError: There is neither a crop nor an error.
    """
    if not crops and not errors:
        raise ValueError("an observation needs at least one crop or one error, got none")
    lines = list(errors)
    sentence = protocol.failure if errors else protocol.success
    if sentence:
        lines.append(sentence)
    if protocol.question == "both":
        lines.append(question_block(example))
    text = "\n".join(lines)
    if crops and text:
        text = f"\n{text}"
    return Message(role="user", parts=(*crops, Text(text=text)) if text else tuple(crops))


def write_seconds(seconds: float, decimals: int | None) -> str:
    """Return a time with so many decimals; ``None`` = as many as needed, at most 3."""
    if decimals is not None:
        return f"{seconds:.{decimals}f}"
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def write_segments(segments: Sequence[Segment], protocol: Protocol) -> str:
    """Return segments as the protocol's answers write them, without the answer tags. ``segments`` must not be empty.

    Times are rounded to the protocol's decimals; a segment shorter than that may come out with start = end.
    """
    decimals = protocol.decimals
    pairs = [
        (write_seconds(segment.start_seconds, decimals), write_seconds(segment.end_seconds, decimals))
        for segment in segments
    ]
    if not pairs:
        raise ValueError("no segments to write")
    if protocol.segment_style == "dash":
        return " ".join(f"{start}-{end}" for start, end in pairs)
    if protocol.segment_style == "words":
        return "\n".join(f"{start}s to {end}s" for start, end in pairs)
    if protocol.segment_style == "tags":
        return "\n".join(f"From <t>{start}</t>s to <t>{end}</t>s" for start, end in pairs)
    lists = [f"[{start}, {end}]" for start, end in pairs]
    return lists[0] if len(lists) == 1 else f"[{', '.join(lists)}]"


def write_call(segments: Sequence[Segment], protocol: Protocol) -> str:
    """Return a call of the tool, with its tags, for segments in seconds. ``segments`` must not be empty.

    Times are rounded to milliseconds, or to whole seconds where the protocol's answers are.
    """
    if not segments:
        raise ValueError("no segments to ask for")
    decimals = 0 if protocol.decimals == 0 else None
    arguments = ",".join(
        f'{{"start_time":{write_seconds(segment.start_seconds, decimals)},'
        f'"end_time":{write_seconds(segment.end_seconds, decimals)}}}'
        for segment in segments
    )
    body = f'{{"name":{json.dumps(protocol.tool_name)},"arguments":[{arguments}]}}'
    return f"<{protocol.call_tag}>{body}</{protocol.call_tag}>"
