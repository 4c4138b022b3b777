"""Our own questions: one ``Example`` a line. The house's form of a row without a chat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from timeloupe.data.formats.row import Context, Format, Row, invalid
from timeloupe.eval.files.records import Record
from timeloupe.trajectory import Example


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has the fields that an example must have, and none that it cannot."""
    return {"id", "video", "question"} <= fields.keys() <= Example.model_fields.keys()


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of an example.

    Raises:
        RecordError: A field is missing, unknown or not valid.
    """
    try:
        return Row(Example.model_validate(record.fields))
    except ValidationError as error:
        raise invalid(record, error) from error


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the example of a row."""
    return row.example.model_dump(mode="json")


FORMAT = Format("examples", "our questions, one `Example` a line", "jsonl", recognises, read, write)
