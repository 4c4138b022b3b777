"""Composition offsets of an MP4 or MOV track: how much later than its decoding each sample is presented.

Source: ISO/IEC 14496-12, boxes ``moov/trak/tkhd`` and ``moov/trak/mdia/minf/stbl/{stsz,ctts}``.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

_MAX_HEADER_BYTES = 256 * 2**20


def composition_offsets(path: str | os.PathLike[str], track_id: int) -> np.ndarray | None:
    """Return the offset of every sample of a track in ticks, in decoding order, all 0 if the track has none.

    ``None`` where the file has no plain sample table: fragmented, compressed header, damaged, not an MP4 at
    all.
    """
    try:
        header = _read_moov(path)
        return None if header is None else _offsets(header, track_id)
    except (OSError, struct.error, ValueError, IndexError):
        return None


def _read_moov(path: str | os.PathLike[str]) -> memoryview | None:
    with Path(path).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        at = 0
        while at + 8 <= end:
            file.seek(at)
            head = file.read(16)
            size, kind = struct.unpack_from(">I4s", head)
            body = 8
            if size == 1:
                size, body = struct.unpack_from(">Q", head, 8)[0], 16
            elif size == 0:
                size = end - at
            if size < body or at + size > end:
                return None
            if kind == b"moov":
                if size > _MAX_HEADER_BYTES:
                    return None
                file.seek(at + body)
                return memoryview(file.read(size - body))
            at += size
    return None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = 8
        if size == 1:
            size, body = struct.unpack_from(">Q", data, at + 8)[0], 16
        elif size == 0:
            size = len(data) - at
        if size < body or at + size > len(data):
            raise ValueError("a box reaches beyond its parent")
        yield kind, data[at + body : at + size]
        at += size


def _child(data: memoryview, *names: bytes) -> memoryview | None:
    for name in names:
        found = next((body for kind, body in _boxes(data) if kind == name), None)
        if found is None:
            return None
        data = found
    return data


def _offsets(moov: memoryview, track_id: int) -> np.ndarray | None:
    tracks = [body for kind, body in _boxes(moov) if kind == b"trak"]
    if any(kind == b"mvex" for kind, _ in _boxes(moov)):
        return None
    for track in tracks:
        head = _child(track, b"tkhd")
        if head is None or struct.unpack_from(">I", head, 20 if head[0] == 1 else 12)[0] != track_id:
            continue
        table = _child(track, b"mdia", b"minf", b"stbl")
        sizes = None if table is None else _child(table, b"stsz")
        if table is None or sizes is None:
            return None
        count = struct.unpack_from(">I", sizes, 8)[0]
        runs = _child(table, b"ctts")
        if runs is None:
            return np.zeros(count, np.int64)
        # Offsets are unsigned in version 0 by the standard, but writers and FFmpeg take them as signed.
        pairs = np.frombuffer(runs, ">i4", 2 * struct.unpack_from(">I", runs, 4)[0], 8).reshape(-1, 2)
        repeats = pairs[:, 0].astype(np.int64)
        if (repeats < 0).any() or repeats.sum() != count:
            return None
        return np.repeat(pairs[:, 1].astype(np.int64), repeats)
    return None
