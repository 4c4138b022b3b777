"""Opening a file: is it a real video, and which of its streams is meant."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.stream import VideoStream

from timeloupe.errors import VideoError

# Real video containers only: FFmpeg would also "play" text files, playlists that open other files, and still images.
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,m4v,obu,av1,ivf,mxf,gif,"
    "vc1,dv,rm,nut,wtv,swf"
)
_OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
_STILL = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
FileIdentity = tuple[str, int, int]


def identify(path: str | os.PathLike[str]) -> FileIdentity:
    """Return the identity of a regular, non-empty file: absolute path, size in bytes, modification time in ns.

    Raises:
        VideoError: It is missing, not readable, a folder, a pipe or device, or empty. Nothing is opened for this.
    """
    name = os.fspath(path)
    try:
        status = os.stat(name)
    except (OSError, ValueError) as error:
        reason = (
            "there is no such file"
            if isinstance(error, FileNotFoundError)
            else f"it cannot be reached: {error}"
        )
        raise VideoError(name, reason, hint="check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(name, "it is a folder", hint="name a video file in it")
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(
            name, "it is not a regular file but a pipe, socket or device", hint="save it to a file first"
        )
    if status.st_size == 0:
        raise VideoError(name, "the file is empty (0 bytes)", hint="download or copy it again")
    return os.path.abspath(name), status.st_size, status.st_mtime_ns


def open_video(
    path: str | os.PathLike[str], stream_index: int | None = None
) -> tuple[InputContainer, VideoStream]:
    """Return an open container and its best video stream, set to decode on the calling thread.

    Args:
        path: A regular file; check it with :func:`identify` first.
        stream_index: Which stream to take; ``None`` = the largest one that is not a cover picture or thumbnail track.

    Raises:
        VideoError: It is not a video, has no video stream, or no decoder knows its codec.
    """
    name = os.fspath(path)
    try:
        # "file:" keeps a name such as "concat:a|b" a plain name.
        container = av.open(
            f"file:{os.path.abspath(name)}", "r", options=dict(_OPEN_OPTIONS), metadata_errors="replace"
        )
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise VideoError(name, "permission denied", hint="make the file readable") from error
        reason = "it is not a video container, or its header is damaged or cut off"
        hint = "play it with another player, download it again or convert it to MP4 (H.264)"
        raise VideoError(name, f"{reason} (FFmpeg: {_ffmpeg_text(error)})", hint=hint) from error
    try:
        stream = _best_stream(name, container, stream_index)
    except VideoError:
        container.close()
        raise
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    context = stream.codec_context
    # Frame threading with an early exit can hang when torchvision is loaded (PyAV issue 1849); one thread costs least.
    context.thread_type = "SLICE"
    context.thread_count = 1
    return container, stream


def _best_stream(name: str, container: InputContainer, stream_index: int | None) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & _STILL]
    if stream_index is not None:
        streams = [s for s in streams if s.index == stream_index]
    if not streams:
        kinds = ", ".join(sorted({str(s.type) for s in container.streams})) or "nothing"
        if container.streams.video:
            kinds += " (its only pictures are a cover or thumbnails)"
        raise VideoError(
            name, f"it has no video stream, it holds: {kinds}", hint="name a file with moving pictures"
        )
    known = [s for s in streams if s.codec_context is not None]
    if not known:
        raise VideoError(name, "no decoder knows its video codec", hint="convert it to MP4 (H.264)")
    return max(known, key=lambda s: ((s.width or 0) * (s.height or 0), s.frames or 0, -s.index))


def _ffmpeg_text(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the stream's packets to the end of what can be read; a cut-off file ends early, it does not raise."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except (FFmpegError, OSError):
        return
