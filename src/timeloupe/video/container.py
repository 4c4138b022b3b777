"""Opening a file: is it a real video, and which of its streams is meant."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from timeloupe.errors import VideoError

FileIdentity = tuple[str, int, int]
"""Absolute path, size in bytes, modification time in ns."""

# Real video containers only: FFmpeg would also "play" text files, playlists that open other files, and
# images.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,m4v,obu,av1,ivf,mxf,"
    "gif,vc1,dv,rm,nut,wtv,swf"
)
MAX_PIXELS = 2**26
"""Largest picture that is decoded, in pixels as stored: twice that of 8K video."""

_DECODE_OPTIONS = {"max_pixels": str(MAX_PIXELS)}  # holds as well where the size changes inside the stream
# What a decoder can check beyond its default, where no clean file trips over it: AV1's trailing bits, HEVC's
# picture hashes (where an encoder wrote them), syntax errors of the old MPEGs that would be concealed.
_CHECKS = {
    "libdav1d": {"strict": "1"},
    "hevc": {"err_detect": "crccheck+explode"},
    "mpeg4": {"err_detect": "bitstream+buffer+explode"},
    "mpeg2video": {"err_detect": "explode"},
    "mpeg1video": {"err_detect": "explode"},
}
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS, **_DECODE_OPTIONS}
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def identify(path: str | os.PathLike[str]) -> FileIdentity:
    """Return the identity of a regular, non-empty file, without opening it.

    Raises:
        VideoError: It is missing, cannot be reached, is a folder, a pipe or a device, or is empty.
    """
    name = os.fspath(path)
    try:
        status = Path(name).stat()
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        why = getattr(error, "strerror", None) or error
        reason = "there is no such file" if missing else f"it cannot be reached ({why})"
        raise VideoError(name, reason, hint="check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(name, "it is a folder", hint="name a video file in it")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(
            name, "it is a pipe, socket or device, not a regular file", hint="save it to a file first"
        )
    if status.st_size == 0:
        raise VideoError(name, "the file is empty (0 bytes)", hint="download or copy it again")
    return str(Path(name).absolute()), status.st_size, status.st_mtime_ns


def check_unchanged(name: str, identity: FileIdentity) -> None:
    """Look whether a file is still the one that was indexed; one that was removed can be read on while it is open.

    Raises:
        VideoError: It has another size or modification time; the message calls it ``name``.
    """
    try:
        status = os.stat(identity[0])
    except FileNotFoundError:
        return
    except OSError as error:
        raise VideoError(name, f"it cannot be reached ({error.strerror})", hint="check the path") from error
    if (status.st_size, status.st_mtime_ns) != identity[1:]:
        raise VideoError(name, "the file changed after it was opened", hint="make a new reader for it")


def open_video(
    path: str | os.PathLike[str], stream_index: int | None = None
) -> tuple[InputContainer, VideoStream]:
    """Return an open container and its best video stream, set to decode on the calling thread.

    Args:
        path: A regular file; check it with :func:`identify` first.
        stream_index: Which stream to take; ``None`` = the largest that is not a cover picture or a thumbnail
            track.

    Raises:
        VideoError: It is not a video, has no video stream, or no decoder knows its codec.
    """
    name = os.fspath(path)
    url = f"file:{Path(name).absolute()}"  # the prefix keeps a name such as "concat:a|b" a plain name
    try:
        container = av.open(url, "r", options=dict(_OPEN_OPTIONS), metadata_errors="replace")
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise VideoError(name, "permission denied", hint="make the file readable") from error
        text = getattr(error, "strerror", None) or type(error).__name__
        reason = f"it is not a video container, or its header is damaged or cut off (FFmpeg: {text})"
        hint = "play it with another player, download it again or convert it to MP4 (H.264)"
        raise VideoError(name, reason, hint=hint) from error
    try:
        stream = _best_stream(name, container, stream_index)
        _check_size(name, stream)
    except VideoError:
        container.close()
        raise
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    # Frame threading with an early exit can hang when torchvision is loaded (PyAV issue 1849), and one thread
    # costs the least processor time.
    stream.codec_context.thread_type = "SLICE"
    stream.codec_context.thread_count = 1
    stream.codec_context.options = _DECODE_OPTIONS | _CHECKS.get(stream.codec_context.codec.name, {})
    return container, stream


def _check_size(name: str, stream: VideoStream) -> None:
    width, height = stream.width or 0, stream.height or 0
    if width * height > MAX_PIXELS:
        reason = f"its pictures have {width} x {height} pixels, allowed: up to {MAX_PIXELS:,} in all"
        codec = stream.codec_context.codec.canonical_name
        raise VideoError(
            name, reason, codec=codec, hint="the header may be damaged; else make it smaller first"
        )


def _best_stream(name: str, container: InputContainer, stream_index: int | None) -> VideoStream:
    streams = [stream for stream in container.streams.video if not stream.disposition & _STILL]
    if stream_index is not None:
        streams = [stream for stream in streams if stream.index == stream_index]
    if not streams:
        kinds = ", ".join(sorted({str(stream.type) for stream in container.streams})) or "nothing"
        if container.streams.video:
            kinds += " (its only pictures are a cover or thumbnails)"
        reason = f"it has no video stream, it holds: {kinds}"
        raise VideoError(name, reason, hint="name a file with moving pictures")
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise VideoError(name, "no decoder knows its video codec", hint="convert it to MP4 (H.264)")
    return max(known, key=lambda s: ((s.width or 0) * (s.height or 0), s.frames or 0, -s.index))


_listener: Callable[[], None] | None = None


def on_sign_of_life(call: Callable[[], None]) -> None:
    """Have ``call`` called at every packet that is read in this process, by whichever thread reads it."""
    global _listener
    _listener = call


def sign_of_life() -> None:
    """Tell whoever listens that another packet was read."""
    if _listener is not None:
        _listener()


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the stream's packets to the end of what can be read; a cut-off file ends early, without error."""
    try:
        for packet in container.demux(stream):
            sign_of_life()
            if packet.size:
                yield packet
    except (FFmpegError, OSError):
        return


def decode_or_none(stream: VideoStream, packet: Packet[VideoStream] | None) -> list[VideoFrame] | None:
    """Return the frames that come out when ``packet`` goes in, ``None`` if that failed; no packet = drain."""
    try:
        return stream.codec_context.decode(packet)
    except (FFmpegError, OSError):
        return None
