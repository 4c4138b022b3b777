"""OpenAI's chat rows: ``messages`` alone, pictures in place as ``image_url``. A row has no truth beside its replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timeloupe.data.formats.chat import example_of, full_chat, read_messages, until_last_reply
from timeloupe.data.formats.image_chat import Piece, to_chat, to_pieces
from timeloupe.data.formats.row import Context, Format, Role, Row
from timeloupe.data.formats.swift_sft import answered_task
from timeloupe.eval.files.records import Record


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has messages, and no files beside them."""
    return "messages" in fields and not {"videos", "images", "data_type"} & fields.keys()


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a record: a chat whose question is read from its prompt.

    Raises:
        RecordError: A field is missing or not valid.
    """
    messages: list[tuple[Role, list[Piece]]] = []
    for at, (role, content) in enumerate(read_messages(record, "messages")):
        if isinstance(content, str):
            messages.append((role, [("text", content)] if content else []))
        elif isinstance(content, list):
            messages.append((role, [_piece(record, f"messages[{at}].content", part) for part in content]))
        else:
            raise record.fault(f"messages[{at}].content", f"must be a text or a list, got {content!r:.80}")
    chat = to_chat(messages)
    return Row(example_of(chat, number, context, task=answered_task(chat, context)), chat, numbered=True)


def _piece(record: Record, where: str, part: Any) -> Piece:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return "text", part["text"]
    image = part.get("image_url") if isinstance(part, dict) and part.get("type") == "image_url" else None
    if isinstance(image, dict) and isinstance(image.get("url"), str):
        return "image", image["url"]
    raise record.fault(where, f"must hold texts and image_url with a url, got {part!r:.80}")


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the record of a row.

    Raises:
        RecordError: It has no reply; or it does not name its frames, and the video cannot be read.
    """
    messages: list[dict[str, Any]] = []
    for one in until_last_reply(full_chat(row, context, tools=True)):
        pieces = to_pieces(one, context, apart=False)
        if all(kind == "text" for kind, _ in pieces):
            messages.append({"role": one.role, "content": "".join(text for _, text in pieces)})
        else:
            messages.append({"role": one.role, "content": [_part(kind, text) for kind, text in pieces]})
    return {"messages": messages}


def _part(kind: str, text: str) -> dict[str, Any]:
    return (
        {"type": "text", "text": text}
        if kind == "text"
        else {"type": "image_url", "image_url": {"url": text}}
    )


FORMAT = Format("openai", "OpenAI's messages with images", "jsonl", recognises, read, write, clips="pictures")
