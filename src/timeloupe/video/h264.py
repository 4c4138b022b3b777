"""Which H.264 packets can be left out because no other picture refers to them.

Source: ITU-T H.264, 7.3.1, 7.3.3 and 7.4.1 (headers of NAL units and slices); ISO/IEC 14496-15, 5.3.3 (length
prefixes of NAL units).

FFmpeg has a switch for this (``skip_frame``), but it goes by two header bits alone: a damaged reference
picture whose bits happen to say "not used for reference" vanishes without an error. Here the whole packet
must be well formed, and its slices must be B slices.
"""

from __future__ import annotations

_SLICE = 1
_HARMLESS = {6, 9, 12}  # supplemental information, access unit delimiter, filler
# A slice header begins with Exp-Golomb codes: first macroblock 0 is "1", slice type B is "010" or "00111".
_FIRST_B_SLICE = {*range(0xA0, 0xB0), *range(0x9C, 0xA0)}


def length_prefix_bytes(codec: str, extradata: bytes | None) -> int:
    """Return how many bytes hold the length of a NAL unit; 0 if it is not H.264 with length prefixes."""
    if codec != "h264" or extradata is None or len(extradata) < 7 or extradata[0] != 1:
        return 0
    return (extradata[4] & 3) + 1


def is_disposable(packet: bytes, prefix_bytes: int) -> bool:
    """Return whether a well-formed packet holds only a B picture that no other picture refers to."""
    at, end, slices = 0, len(packet), 0
    while at < end:
        body = at + prefix_bytes
        length = int.from_bytes(packet[at:body], "big")
        at = body + length
        if not length or at > end:
            return False
        header = packet[body]
        kind = header & 0x1F
        if header & 0xE0 or not (kind == _SLICE or kind in _HARMLESS):
            return False
        if kind == _SLICE:
            if length < 2 or (not slices and packet[body + 1] not in _FIRST_B_SLICE):
                return False
            slices += 1
    return slices > 0
