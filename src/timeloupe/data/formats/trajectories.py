"""Our own episodes: one ``Trajectory`` a line, as a run folder has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from timeloupe.data.formats.chat import chat_of
from timeloupe.data.formats.episode import episode_of
from timeloupe.data.formats.row import Context, Format, Row, invalid, refused
from timeloupe.eval.files.records import Record
from timeloupe.trajectory import Trajectory


def recognises(fields: Mapping[str, Any]) -> bool:
    """Return whether a record has the fields that an episode must have, and none that it cannot."""
    return {"example", "policy", "protocol", "stop"} <= fields.keys() <= Trajectory.model_fields.keys()


def read(record: Record, number: int, context: Context) -> Row:
    """Return the row of an episode.

    Raises:
        RecordError: A field is missing, unknown or not valid.
    """
    try:
        # In JSON mode, so that times and texts are judged as in a run folder.
        trajectory = Trajectory.model_validate(record.fields)
    except ValidationError as error:
        raise invalid(record, error) from error
    return Row(trajectory.example, trajectory=trajectory)


def write(row: Row, number: int, context: Context) -> dict[str, Any]:
    """Return the episode of a row; where it does not say which frames were shown, the video is looked at.

    Raises:
        RecordError: It has no messages, or its video cannot be read.
    """
    if row.trajectory is None and not any(one.role == "assistant" for one in chat_of(row)):
        raise refused("turns", "at least one reply; a question alone is one of examples", [])
    return episode_of(row, context).model_dump(mode="json")


FORMAT = Format("trajectories", "our episodes, one `Trajectory` a line", "jsonl", recognises, read, write)
