"""The body of a chat-completion response as a generation. Pure; trusts nothing in it.

Servers take replies apart in ways of their own, and all of them are put together again:

- the stop string is cut off (vLLM, SGLang, hosted), kept, or ignored and written past: the text ends with the first
  stop string that the model completed, as a local model stops there;
- a reasoning parser moves the thought to ``reasoning_content`` or ``reasoning``: it comes back as ``<think>``;
- a tool parser moves the call to ``tool_calls``: it comes back between the call tags.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from timeloupe.trajectory import Generation, Usage

THINK_TAG = "think"
CALL_TAG = "tool_call"

_STOPPED = (None, "stop", "eos", "eos_token", "stop_sequence", "end_turn", "tool_calls", "function_call")
_CUT = ("length", "max_tokens")


class BadReply(Exception):
    """A response that holds no reply; says what it holds instead."""


def read_reply(body: object, *, stop: Sequence[str] = (), logprobs: bool = False) -> Generation:
    """Return the generation that a response holds; ``seconds`` is left at 0.

    Args:
        body: The parsed JSON.
        stop: The stop strings that were asked for.
        logprobs: Take token ids and log-probabilities if the server gives both for every token.

    Raises:
        BadReply: There is no text in it, or the server broke off.
    """
    if not isinstance(body, Mapping):
        raise BadReply(f"the response is not a JSON object but {_short(body)}")
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        what = (
            f"it says {_short(body['error'])}"
            if body.get("error")
            else f"it holds {sorted(map(str, body))[:8]}"
        )
        raise BadReply(f"the response has no choices; {what}")
    choice = next((one for one in choices if isinstance(one, Mapping) and one.get("index") == 0), choices[0])
    finish = choice.get("finish_reason")
    if finish == "content_filter":
        raise BadReply(
            "the server's content filter broke the reply off; its operator can turn the filter off"
        )
    if finish not in _STOPPED and finish not in _CUT:
        raise BadReply(f"the server broke the reply off, finish_reason {_short(finish)}")
    text = _whole_text(choice.get("message"), cut=finish in _CUT)
    if text is None:
        raise BadReply(f"the reply has no text (content is null, finish_reason {_short(finish)})")
    text, past_stop, stopped = _end_at_stop(text, choice, stop, cut=finish in _CUT)
    ids, values = _tokens(choice) if logprobs and not past_stop else (None, None)
    return Generation(
        text=text, finish="length" if finish in _CUT and not stopped else "stop", usage=_usage(body),
        token_ids=ids, logprobs=values,
    )  # fmt: skip


def _whole_text(message: object, *, cut: bool) -> str | None:
    """Return thought, content and calls as one text, or ``None`` if there is none of them."""
    if not isinstance(message, Mapping):
        return None
    content = _content(message.get("content"))
    calls = message.get("tool_calls")
    if not calls and message.get("function_call"):  # the older form of one call
        calls = [{"function": message["function_call"]}]
    written = "".join(_written_call(call) for call in calls) if isinstance(calls, list) else ""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    thought = ""
    if isinstance(reasoning, str) and reasoning.strip():
        unended = cut and not content and not written  # the limit fell inside the thought
        thought = f"<{THINK_TAG}>{reasoning}" + ("" if unended else f"</{THINK_TAG}>")
    if content is None and not written and not thought:
        refusal = message.get("refusal")
        return refusal if isinstance(refusal, str) and refusal else None
    return f"{thought}{content or ''}{written}"


def _content(content: object) -> str | None:
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, Mapping)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else None


def _written_call(call: object) -> str:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return ""
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            # What the model wrote stays as it is: the parser of calls says what is wrong with it.
            return f'<{CALL_TAG}>{{"name":{json.dumps(function.get("name"))},"arguments":{arguments}}}</{CALL_TAG}>'
    body = json.dumps(
        {"name": function.get("name"), "arguments": arguments}, ensure_ascii=False, separators=(",", ":")
    )
    return f"<{CALL_TAG}>{body}</{CALL_TAG}>"


def _end_at_stop(
    text: str, choice: Mapping[str, Any], stop: Sequence[str], *, cut: bool
) -> tuple[str, bool, bool]:
    """Return the text up to and with its stop string, whether text after it went, and whether it has one."""
    ends = [(text.index(one) + len(one)) for one in stop if one in text]
    if ends:
        return text[: min(ends)], min(ends) < len(text), True
    if cut:
        return text, False, False
    said = [choice[key] for key in ("stop_reason", "matched_stop") if key in choice]
    for matched in said:
        if isinstance(matched, str) and matched in stop:
            return text + matched, False, True
    if not said:  # else the server says that the model ended by itself
        spoken = text.rpartition(f"</{THINK_TAG}>")[2]  # a thought may name the tags
        tags = [one for one in stop if re.fullmatch(r"</\w+>", one)]
        last = max(tags, key=lambda one: spoken.rfind(f"<{one[2:]}"), default=None)
        if last is not None and f"<{last[2:]}" in spoken:
            return text + last, False, True
    return text, False, False


def _usage(body: Mapping[str, Any]) -> Usage:
    usage = body.get("usage")
    counts = usage if isinstance(usage, Mapping) else {}

    def count(key: str) -> int | None:
        value = counts.get(key)
        return (
            value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None
        )

    return Usage(prompt_tokens=count("prompt_tokens"), completion_tokens=count("completion_tokens"))


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    """Return ids and log-probabilities, or neither: half of them would be a false record."""
    found = choice.get("logprobs")
    content = found.get("content") if isinstance(found, Mapping) else None
    if not isinstance(content, list) or not content:
        return None, None
    ids: list[int] = []
    values: list[float] = []
    for entry in content:
        if not isinstance(entry, Mapping):
            return None, None
        token = re.fullmatch(r"token_id:(\d{1,9})", str(entry.get("token")))
        found = entry.get("logprob")
        if token is None or isinstance(found, bool) or not isinstance(found, int | float):
            return None, None
        try:
            value = float(found)
        except OverflowError:
            return None, None
        if not math.isfinite(value):
            return None, None
        ids.append(int(token[1]))
        values.append(min(value, 0.0))
    return tuple(ids), tuple(values)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = " ".join(text.split())
    return f"{text[:200]!r}" if len(text) <= 200 else f"{text[:200]!r}..."
