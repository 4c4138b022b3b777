"""Read a reply: a thought, then exactly one of a call of the tool and an answer.

::

    <think>...</think><tool_call>{"name": NAME, "arguments": [{"start_time": 68, "end_time": 97}]}</tool_call>
    <think>...</think><answer>[68, 105]</answer>

The arguments may also be one such object, or ``{"segments": [...]}``: tool parsers of servers have them so.

``parse_reply`` returns what a reply asks for, or a ``Problem``; it repairs nothing. What the inside of an answer says
is read on top: the option letter and the time segments are there if they can be read beyond doubt, and an answer in
which they cannot is still an answer; boxes are those that the thought and the answer mark with an object and a time.

Two things are not the model's fault and can be allowed. Servers cut off the stop string, the last closing tag: it may
be missing with ``closed=False``. Servers take the thought out of a reply: it may be missing unless the protocol
requires it, and where the chat template opens the thought, a reply has only its closing tag. ``check_format`` is the
grammar as a format reward judges it: it always demands the thought.

Reasons of problems, beside those of ``segments.py`` and ``option.py``:

==================== ==================================================================================
empty                nothing but blanks
think_missing        no thought
think_unclosed       a thought is opened and not closed
think_repeated       more than one opening or closing tag of a thought
text_before_think    text before the thought
tag_in_thought       a tag of a call or an answer inside the thought
action_missing       neither a call nor an answer
action_unclosed      the call or answer is not closed
action_repeated      more than one call, more than one answer, or more than one closing tag
call_and_answer      both
text_before_action   text between the thought and the call or answer
trailing_text        text after the call or answer
answer_empty         nothing inside the answer
call_too_long        more than 10,000 characters inside the call
call_json            the inside of the call is not JSON
call_keys            it is not an object with just ``name`` and ``arguments``
call_tool            the name is not that of the tool
call_arguments       the arguments are neither a list of segments nor an object that holds one
call_empty           the list of segments is empty
segment_keys         an argument is not an object with just ``start_time`` and ``end_time``
segment_not_number   a time is not a number
segment_not_finite   a time is not finite, or has more than 12 digits before the point
segment_negative     a start is before 0
segment_empty        an end is not after its start
==================== ==================================================================================
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from timeloupe.prompt.evidence import boxes_of, parse_claims
from timeloupe.prompt.option import parse_option
from timeloupe.prompt.protocol import Protocol
from timeloupe.prompt.segments import parse_segments, parse_tagged_segments
from timeloupe.prompt.times import MAX_WHOLE_DIGITS
from timeloupe.trajectory import Answer, Problem, Segment, ToolCall

__all__ = ["ParsedReply", "check_format", "parse_call", "parse_option", "parse_reply", "parse_segments"]

MAX_CALL_CHARACTERS = 10_000


@dataclass(frozen=True)
class ParsedReply:
    """What a reply says: exactly one of ``call``, ``answer`` and ``problem`` is not ``None``.

    ``thought`` is the inside of the thought as far as it could be told apart, else empty.
    """

    thought: str = ""
    call: ToolCall | None = None
    answer: Answer | None = None
    problem: Problem | None = None


def parse_reply(
    text: str,
    protocol: Protocol,
    *,
    num_options: int = 0,
    closed: bool = True,
    frame_size_wh: tuple[int, int] | None = None,
) -> ParsedReply:
    """Return what a reply asks for.

    Args:
        text: The reply, without special tokens.
        protocol: Whose tags and tool it should use.
        num_options: Options of the question; 0 = it has none, and no option is looked for.
        closed: Whether the call or answer must have its closing tag. ``False`` is right for a turn that ended by
            itself or at a stop string; ``True`` for one that was cut by the token limit.
        frame_size_wh: Size of the frames shown, for protocols that count boxes in pixels; without it, such boxes are
            not read into the answer (``evidence.parse_claims`` has them).

    Raises:
        ConfigError: More than 26 options.
    """
    if not text.strip():
        return ParsedReply(problem=Problem(reason="empty", message="the reply is empty"))
    thought, rest, problem = _split_thought(text, protocol)
    if problem is None and thought is None and protocol.requires_think:
        problem = _problem("think_missing", f"the reply has no <{protocol.think_tag}> part")
    if problem is not None:
        return ParsedReply(thought=(thought or "").strip(), problem=problem)
    thought = (thought or "").strip()
    action = _split_action(rest, protocol, closed)
    if isinstance(action, Problem):
        return ParsedReply(thought=thought, problem=action)
    tag, inside = action
    if tag == protocol.call_tag:
        call = parse_call(inside, protocol)
        if isinstance(call, Problem):
            return ParsedReply(thought=thought, problem=call)
        return ParsedReply(thought=thought, call=call)
    if not inside.strip():
        return ParsedReply(thought=thought, problem=_problem("answer_empty", "the answer is empty"))
    answer = _read_answer(inside.strip(), num_options)
    frame_wh = (1000, 1000) if protocol.box_scale == "thousandths" else frame_size_wh
    if frame_wh is not None:
        claims = parse_claims(f"{thought}\n{answer.text}")
        answer = answer.model_copy(update={"boxes": boxes_of(claims, frame_wh)})
    return ParsedReply(thought=thought, answer=answer)


def check_format(
    text: str, protocol: Protocol, *, closed: bool = True, think_opened: bool = False
) -> Problem | None:
    """Return how a reply breaks the protocol's grammar, or ``None`` if it does not.

    Args:
        text: The reply.
        protocol: Whose grammar.
        closed: As in ``parse_reply``.
        think_opened: The chat template has written the opening tag of the thought, so the reply need not.
    """
    parsed = parse_reply(text, protocol, closed=closed)
    if parsed.problem is not None:
        return parsed.problem
    opening, closing = f"<{protocol.think_tag}>", f"</{protocol.think_tag}>"
    if closing not in text or (opening not in text and not think_opened):
        return _problem("think_missing", f"the reply has no {opening} part")
    return None


def parse_call(inside: str, protocol: Protocol) -> ToolCall | Problem:
    """Return the call that the JSON between the tags of a call spells, or why it is none."""
    if len(inside) > MAX_CALL_CHARACTERS:
        return _problem("call_too_long", f"a call of {len(inside)} characters, at most {MAX_CALL_CHARACTERS}")
    try:
        call: Any = json.loads(inside, parse_int=_read_int, object_pairs_hook=_read_object)
    except (ValueError, RecursionError) as error:
        return _problem("call_json", f"the call is not JSON: {str(error)[:80]}")
    if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
        return _problem("call_keys", 'a call must be an object with just "name" and "arguments"')
    if call["name"] != protocol.tool_name:
        return _problem("call_tool", f"no tool {str(call['name'])[:40]!r}, allowed: {protocol.tool_name}")
    arguments = call["arguments"]
    if isinstance(arguments, dict):  # as tool parsers of servers, and models trained on JSON schemas, have it
        arguments = arguments["segments"] if set(arguments) == {"segments"} else [arguments]
    if not isinstance(arguments, list):
        return _problem("call_arguments", '"arguments" must be a list with one entry per segment')
    if not arguments:
        return _problem("call_empty", "the call names no segment")
    segments: list[Segment] = []
    for argument in arguments:
        segment = _read_argument(argument)
        if isinstance(segment, Problem):
            return segment
        segments.append(segment)
    return ToolCall(name=protocol.tool_name, segments=tuple(segments))


def _read_argument(argument: Any) -> Segment | Problem:
    if not isinstance(argument, dict) or set(argument) != {"start_time", "end_time"}:
        return _problem("segment_keys", 'a segment must be an object with just "start_time" and "end_time"')
    start, end = argument["start_time"], argument["end_time"]
    for time in (start, end):
        if isinstance(time, bool) or not isinstance(time, int | float):
            return _problem(
                "segment_not_number", f"a time must be a number of seconds, got {str(time)[:40]!r}"
            )
        if not math.isfinite(time) or abs(time) >= 10**MAX_WHOLE_DIGITS:
            return _problem("segment_not_finite", f"a time must be finite and sensible, got {time:g}")
    if start < 0:
        return _problem("segment_negative", f"[{start:g}, {end:g}] begins before 0 s")
    if end <= start:
        return _problem("segment_empty", f"[{start:g}, {end:g}] does not end after it begins")
    return Segment(start_seconds=float(start) + 0.0, end_seconds=float(end))  # -0.0 becomes 0.0


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _read_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= 2 * MAX_WHOLE_DIGITS else math.inf


def _read_answer(text: str, num_options: int) -> Answer:
    """Return the answer with what can be read of it beyond doubt.

    The text of an option may hold times; so where there are options, only times inside ``<t>`` tags are read.
    """
    if num_options:
        option = parse_option(text, num_options)
        segments = parse_tagged_segments(text)
        return Answer(text=text, option=None if isinstance(option, Problem) else option, segments=segments)
    found = parse_segments(text)
    return Answer(text=text, segments=() if isinstance(found, Problem) else found)


def _split_thought(text: str, protocol: Protocol) -> tuple[str | None, str, Problem | None]:
    """Return the thought (``None`` if there is none), what follows it, and what is wrong with it."""
    opening, closing = f"<{protocol.think_tag}>", f"</{protocol.think_tag}>"
    opened, ended = text.count(opening), text.count(closing)
    if opened > 1 or ended > 1:
        return None, text, _problem("think_repeated", f"more than one {opening} or {closing}")
    if not ended:
        if opened:
            _, _, thought = text.partition(opening)
            return thought, "", _problem("think_unclosed", f"{opening} is not closed")
        return None, text, None
    before, _, rest = text.partition(closing)
    if opened:
        lead, found, thought = before.partition(opening)
        if not found:
            return None, text, _problem("think_unclosed", f"{closing} stands before {opening}")
        if lead.strip():
            return thought, rest, _problem("text_before_think", f"text before {opening}")
    else:
        thought = before
    for tag in (protocol.call_tag, protocol.answer_tag):
        if f"<{tag}>" in thought or f"</{tag}>" in thought:
            return thought, rest, _problem("tag_in_thought", f"a tag of {tag} inside the thought")
    return thought, rest, None


def _split_action(rest: str, protocol: Protocol, closed: bool) -> tuple[str, str] | Problem:
    """Return the tag and the inside of the one call or answer."""
    tags = (protocol.call_tag, protocol.answer_tag)
    counts = {tag: rest.count(f"<{tag}>") for tag in tags}
    used = [tag for tag in tags if counts[tag]]
    if not used:
        return _problem("action_missing", f"neither <{tags[0]}> nor <{tags[1]}>")
    if len(used) > 1:
        return _problem("call_and_answer", f"both <{tags[0]}> and <{tags[1]}>")
    tag = used[0]
    opening, closing = f"<{tag}>", f"</{tag}>"
    if counts[tag] > 1 or rest.count(closing) > 1:
        return _problem("action_repeated", f"more than one {opening} or {closing}")
    lead, _, body = rest.partition(opening)
    if lead.strip():
        return _problem("text_before_action", f"text before {opening}")
    inside, found, tail = body.partition(closing)
    if tail.strip():
        return _problem("trailing_text", f"text after {closing}")
    if not found and closed:
        return _problem("action_unclosed", f"{opening} is not closed")
    return tag, inside


def _problem(reason: str, message: str) -> Problem:
    return Problem(reason=reason, message=message)
