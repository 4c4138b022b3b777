"""What the caller's process and a decoding worker say to each other: a JSON header, then raw bytes.

A message is two lengths (4 and 8 bytes, big-endian), the header and the body. Nothing is unpickled, so a
worker that a hostile file has taken over can send wrong pictures but run nothing in the caller.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from fractions import Fraction
from typing import Any

import numpy as np

from timeloupe.video.image import Orientation
from timeloupe.video.index import FrameIndex

LENGTHS = struct.Struct(">IQ")
"""How a message begins: bytes of the header, bytes of the body."""

MAX_HEADER_BYTES = 2**28


def pack(header: dict[str, Any], body_bytes: int = 0) -> bytes:
    """Return the beginning of a message, to be followed by ``body_bytes`` bytes."""
    text = json.dumps(header).encode()
    return LENGTHS.pack(len(text), body_bytes) + text


def index_message(index: FrameIndex) -> tuple[dict[str, Any], bytes]:
    """Return an index as a header and a body."""
    facts: dict[str, Any] = {}
    arrays: list[tuple[str, str, int]] = []
    body = b""
    for field in dataclasses.fields(index):
        value = getattr(index, field.name)
        if isinstance(value, np.ndarray):
            arrays.append((field.name, value.dtype.str, len(value)))
            body += value.tobytes()
        else:
            facts[field.name] = value.as_integer_ratio() if isinstance(value, Fraction) else value
    return {"index": facts, "arrays": arrays}, body


def index_from(header: dict[str, Any], body: bytes | bytearray, path: str) -> FrameIndex:
    """Return the index of a message, under the name that the caller uses for the file.

    Raises:
        ValueError: The message does not fit together.
        KeyError: The same.
    """
    facts = dict(header["index"], path=path)
    at = 0
    for name, kind, count in header["arrays"]:
        array = np.frombuffer(body, np.dtype(kind), int(count), at)
        array.flags.writeable = False
        at += array.nbytes
        facts[name] = array
    facts["identity"] = tuple(facts["identity"])
    facts["stored_wh"] = tuple(facts["stored_wh"])
    facts["orientation"] = Orientation(*facts["orientation"])
    facts["sample_aspect_ratio"] = Fraction(*facts["sample_aspect_ratio"])
    return FrameIndex(**facts)
