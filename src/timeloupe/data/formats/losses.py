"""What a format does not hold of a row: found by reading the written row again, and comparing field by field.

No list says what a format can hold, so none can be wrong: a field is a loss of exactly the rows in which what was read
back is not what was there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

from timeloupe.data.formats.chat import chat_of, split_chat
from timeloupe.data.formats.episode import implied, recorded
from timeloupe.data.formats.rest import named
from timeloupe.data.formats.row import Context, Row, Said, View
from timeloupe.trajectory import Example

Loss = Literal["left out", "changed"]

_VIEW_FIELDS = tuple(one.name for one in fields(View))


def losses(row: Row, back: Row, source: str, context: Context) -> dict[str, Loss]:
    """Return which fields of ``row`` are not the same in ``back``, and whether they are gone or others.

    Args:
        row: What was read.
        back: What the written row reads as.
        source: Name of the format that ``row`` is from.
        context: How replies are read, where ``row`` records what they meant and ``back`` does not.
    """
    before, after = facts(row), facts(back)
    if row.trajectory is not None and back.trajectory is None:
        after |= implied(back, context.protocol)
    if back.numbered or row.numbered:
        # A number that stood for an id is none; an id that came back as the row's number is gone.
        after.pop("example.id", None)
    found: dict[str, Loss] = {}
    for name, value in before.items():
        if (name == "example.id" and row.numbered) or _is_kept(value, after.get(name)):
            continue
        found[name] = "left out" if _is_nothing(after.get(name)) else "changed"
    if rest := (set(named(row.rest)) - set(named(back.rest))):
        found |= {f"{source}.{name}": "left out" for name in rest}
    return found


def facts(row: Row) -> dict[str, Any]:
    """Return all that a row says, by field; the texts of a message are taken together."""
    found: dict[str, Any] = {f"example.{name}": getattr(row.example, name) for name in Example.model_fields}
    # Boxes have no order.
    found["example.boxes"] = sorted(row.example.boxes, key=repr)
    chat = chat_of(row)
    prompt, rest = split_chat(chat)
    found["prompt"] = _texts(prompt)
    found["turns.text"] = [one.text for one in rest if one.role == "assistant"]
    found["turns.observation"] = _texts([one for one in rest if one.role != "assistant"])
    views = [view for one in chat for view in one.views]
    found |= {f"views.{name}": [getattr(view, name) for view in views] for name in _VIEW_FIELDS}
    found |= {f"extra.{name}": value for name, value in row.extra.items()}
    return found | (recorded(row.trajectory) if row.trajectory is not None else {})


def _texts(chat: Sequence[Said]) -> list[tuple[str, tuple[str, ...]]]:
    """Return role and texts of messages, with a mark where a view stands."""
    found: list[tuple[str, tuple[str, ...]]] = []
    for one in chat:
        texts = [""]
        for part in one.parts:
            if isinstance(part, View):
                texts += ["<frames>", ""]
            else:
                texts[-1] += part
        found.append((one.role, tuple(text for text in texts if text)))
    return found


def _is_kept(value: object, after: object) -> bool:
    """Return whether what was said is said; of views, what one of them did not say may have been found out."""
    if _is_nothing(value) or after == value:
        return True
    if not isinstance(value, list) or not isinstance(after, list) or len(after) != len(value):
        return False
    return all(one is None or one == other for one, other in zip(value, after, strict=True))


def _is_nothing(value: object) -> bool:
    """Return whether there is nothing to lose."""
    if value is None or value == "":
        return True
    if isinstance(value, Mapping):
        return not value
    return isinstance(value, list | tuple) and all(_is_nothing(one) for one in value)
