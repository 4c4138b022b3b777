"""Chats whose views are pictures: each frame after its time in words, named ``VIDEO#t=SECONDS`` or by its own file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from timeloupe.data.formats.chat import dereference
from timeloupe.data.formats.row import Context, Role, Said, View
from timeloupe.prompt.frames_as_images import DEFAULT_TIME_FORMAT

Piece = tuple[str, str]
"""``text`` or ``image``, and the text, or the picture's name."""


def to_pieces(one: Said, context: Context, *, apart: bool) -> list[Piece]:
    """Return a message as texts and pictures; frames that the row does not name are told by the video.

    Args:
        one: The message.
        context: Tells the frames.
        apart: Put an empty text between two clips that follow each other, so that they come back as two.

    Raises:
        RecordError: The video is needed and cannot be read.
    """
    found: list[Piece] = []
    for part, before in zip(one.parts, (None, *one.parts), strict=False):
        if isinstance(part, str):
            found.append(("text", part))
            continue
        if apart and isinstance(before, View) and "image" not in (part.view, before.view):
            found.append(("text", ""))
        found += _pictures(part, context)
    return found


def _pictures(view: View, context: Context) -> list[Piece]:
    if view.view == "image":
        return [("image", picture_name(view))]
    times = view.at_seconds or context.frames(view).at_seconds
    found: list[Piece] = []
    for at, seconds in enumerate(times):
        name = view.files[at] if len(view.files) == len(times) else f"{view.video}#t={seconds!r}"
        found += [("text", DEFAULT_TIME_FORMAT.format(seconds)), ("image", name)]
    return found


def to_chat(messages: Iterable[tuple[Role, Sequence[Piece]]]) -> tuple[Said, ...]:
    """Return messages of texts and pictures as a chat.

    Pictures that follow each other, each after its time in words and all of one video, are one view: a skim before the
    first reply and a crop after it. Any other picture is a view of its own.
    """
    chat: list[Said] = []
    replied = False
    for role, pieces in messages:
        replied = replied or role == "assistant"
        chat.append(Said(role, tuple(_parts(pieces, replied))))
    return tuple(chat)


def _parts(pieces: Sequence[Piece], replied: bool) -> list[str | View]:
    parts: list[str | View] = []
    at = 0
    while at < len(pieces):
        kind, text = pieces[at]
        frame = _frame(pieces, at)
        if frame is not None:
            video, seconds = frame
            last = parts[-1] if parts else None
            if isinstance(last, View) and last.view != "image" and last.video == video:
                parts[-1] = replace(last, at_seconds=(*(last.at_seconds or ()), seconds))
            else:
                parts.append(View(video, "crop" if replied else "skim", at_seconds=(seconds,)))
            at += 2
            continue
        parts.append(text if kind == "text" else still(text))
        at += 1
    return parts


def _frame(pieces: Sequence[Piece], at: int) -> tuple[str, float] | None:
    """Return video and time of a picture that stands after its time in words."""
    if at + 1 == len(pieces) or pieces[at][0] != "text" or pieces[at + 1][0] != "image":
        return None
    video, seconds, end, _ = dereference(pieces[at + 1][1])
    if seconds is None or end is not None or pieces[at][1] != DEFAULT_TIME_FORMAT.format(seconds):
        return None
    return video, seconds


def picture_name(view: View) -> str:
    """Return the name of one picture: its file, or ``VIDEO#t=SECONDS``."""
    return view.files[0] if view.files else f"{view.video}#t={view.start_seconds or 0.0!r}"


def still(name: str) -> View:
    """Return the picture of a name: a frame of a video, or a file of its own."""
    video, seconds, _, _ = dereference(name)
    if seconds is None:
        return View("", "image", files=(name,))
    return View(video, "image", seconds, seconds, at_seconds=(seconds,))
