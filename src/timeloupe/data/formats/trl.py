"""TRL's rows for models that see: ``messages`` of texts and image places, and the ``images`` in order.

A row without a reply has ``prompt`` in place of ``messages``, as GRPO takes it. The other columns are the question's
own: TRL passes columns that it does not know to the rewards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from timeloupe.data.formats.chat import example_of, full_chat, read_messages, until_last_reply
from timeloupe.data.formats.image_chat import Piece, to_chat, to_pieces
from timeloupe.data.formats.row import Context, Format, Role, Row, invalid
from timeloupe.eval.files.records import Record
from timeloupe.trajectory import Example

PLACES = ("messages", "prompt")
IMAGE = {"type": "image"}


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has messages or a prompt, images, and nothing of another format."""
    others = {"videos", "reward_model", "data_type"}
    return "images" in fields and any(name in fields for name in PLACES) and not others & fields.keys()


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of a record; without columns of a question, the question is read from the prompt.

    Raises:
        RecordError: A field is missing or not valid, or images and their places do not match.
    """
    name = next((place for place in PLACES if record.has(place)), PLACES[0])
    waiting = list(record.texts("images"))
    messages: list[tuple[Role, list[Piece]]] = []
    for at, (role, content) in enumerate(read_messages(record, name)):
        where = f"{name}[{at}].content"
        pieces: list[Piece] = []
        for kind, text in read_content(record, where, content):
            if kind == "image" and not waiting:
                raise record.fault(
                    "images", f"must have one for each image in {name}, got {len(record.texts('images'))}"
                )
            pieces.append((kind, waiting.pop(0) if kind == "image" else text))
        messages.append((role, pieces))
    if waiting:
        raise record.fault("images", f"must have a place in {name} each, got {len(waiting)} without one")
    chat = to_chat(messages)
    if not (record.has("id") and record.has("question")):
        return Row(example_of(chat, number, context), chat, numbered=True)
    try:
        own = {key: record.fields[key] for key in Example.model_fields if key in record.fields}
        return Row(Example.model_validate(own), chat)
    except ValidationError as error:
        raise invalid(record, error) from error


def read_content(record: Record, where: str, content: Any) -> list[Piece]:
    """Return what one message holds; an image's name is empty here.

    Raises:
        RecordError: It is neither a text nor a list of texts and images.
    """
    if isinstance(content, str):
        return [("text", content)] if content else []
    pieces: list[Piece] = []
    for part in content if isinstance(content, list) else [None]:
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
            pieces.append(("text", part["text"]))
        elif isinstance(part, dict) and part.get("type") == "image":
            pieces.append(("image", ""))
        else:
            raise record.fault(
                where, f"must be a text or a list of texts and images, got {part or content!r:.80}"
            )
    return pieces


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the record of a row.

    Raises:
        RecordError: The row does not name its frames, and the video cannot be read.
    """
    chat = full_chat(row, context, tools=True)
    replied = any(one.role == "assistant" for one in chat)
    messages: list[dict[str, Any]] = []
    images: list[str] = []
    for one in until_last_reply(chat) if replied else chat:
        pieces = to_pieces(one, context, apart=True)
        images += [text for kind, text in pieces if kind == "image"]
        content = [IMAGE if kind == "image" else {"type": "text", "text": text} for kind, text in pieces]
        messages.append({"role": one.role, "content": content})
    record = {"messages" if replied else "prompt": messages, "images": images}
    return record | row.example.model_dump(mode="json")


FORMAT = Format("trl", "TRL's messages with images", "jsonl", recognises, read, write, clips="pictures")
