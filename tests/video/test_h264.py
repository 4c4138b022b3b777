"""Only well-formed packets without references to them may be left out."""

from __future__ import annotations

from collections.abc import Callable

from tests.video.painting import Clip
from timeloupe.video.container import open_video, read_packets
from timeloupe.video.h264 import is_disposable, length_prefix_bytes


def unit(header: int, *body: int) -> bytes:
    payload = bytes([header, *body])
    return len(payload).to_bytes(4, "big") + payload


def test_only_unreferenced_slices_are_disposable() -> None:
    free_slice, used_slice, info, parameters = (
        unit(0x01, 0xA0),
        unit(0x41, 0xA0),
        unit(0x06, 1, 2),
        unit(0x08, 7),
    )
    assert is_disposable(free_slice, 4)
    assert is_disposable(info + free_slice + free_slice, 4)
    assert not is_disposable(used_slice, 4)
    assert not is_disposable(free_slice + used_slice, 4)
    assert not is_disposable(info, 4)
    assert not is_disposable(parameters + free_slice, 4)
    assert not is_disposable(b"", 4)


def test_malformed_packets_are_never_disposable() -> None:
    whole = unit(0x06, 1) + unit(0x01, 0x9E, 9, 9)
    assert is_disposable(whole, 4)
    for cut in range(1, len(whole)):
        assert not is_disposable(whole[:cut], 4) or whole[:cut] == unit(0x06, 1)
    assert not is_disposable(whole + b"\0", 4)
    assert not is_disposable(unit(0x81, 0xA0), 4)
    assert not is_disposable(unit(0x01), 4)
    assert not is_disposable(unit(0x01, 0x01), 4)
    assert not is_disposable(bytes(4), 4)


def test_which_files_qualify(clip: Callable[[str], Clip]) -> None:
    free = {}
    for name in ("bframes.mp4", "constant.mp4", "open_gop.ts", "hevc.mp4"):
        container, stream = open_video(clip(name).path)
        with container:
            prefix = length_prefix_bytes(
                stream.codec_context.codec.canonical_name, stream.codec_context.extradata
            )
            free[name] = prefix and sum(
                is_disposable(bytes(p), prefix) for p in read_packets(container, stream)
            )
    assert free["bframes.mp4"] > 20
    assert free["constant.mp4"] == free["open_gop.ts"] == free["hevc.mp4"] == 0
