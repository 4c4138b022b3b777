"""The chat of a row: made from a question, read back into one, and spelled with placeholders or by reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, cast

from timeloupe.data.formats.row import CLIP, DURATION, ROLES, Context, Role, Row, Said, View, refused
from timeloupe.errors import RecordError
from timeloupe.eval.files.records import Record, split_options
from timeloupe.prompt.build import LETTERS, first_messages
from timeloupe.prompt.protocol import PROTOCOLS, Protocol
from timeloupe.trajectory import Example, FrameRef, Message, Segment, Task, Text, Trajectory

PLACEHOLDER = re.compile("(<video>|<image>|<audio>)")
_SPAN = re.compile(r"The frames span \S+ s to \S+ s of the video\.\n?")
_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?)"
_REFERENCE = re.compile(rf"(.+)#t={_NUMBER}(?:,{_NUMBER})?(?:&fps={_NUMBER})?")


# -- from and to our records -------------------------------------------------------------------------------------------


def chat_of(row: Row) -> tuple[Said, ...]:
    """Return the messages of a row, none if it is a question alone."""
    return row.chat if row.chat or row.trajectory is None else trajectory_chat(row.trajectory)


def trajectory_chat(trajectory: Trajectory) -> tuple[Said, ...]:
    """Return prompt, replies and observations of an episode."""
    chat = [said(message) for message in trajectory.prompt]
    for turn in trajectory.turns:
        chat.append(Said("assistant", (turn.generation.text,)))
        if turn.observation is not None:
            chat.append(said(turn.observation))
    return tuple(chat)


def said(message: Message) -> Said:
    """Return one of our messages, its frames by reference."""
    return Said(message.role, tuple(p.text if isinstance(p, Text) else view_of(p) for p in message.parts))


def view_of(ref: FrameRef) -> View:
    """Return a frame reference as a view that says all of it."""
    length = ref.end_seconds - ref.start_seconds
    fps = len(ref.at_seconds) / length if ref.view != "image" and length > 0 else None
    return View(ref.video, ref.view, ref.start_seconds, ref.end_seconds, fps, ref.at_seconds, ref.size_wh)


def prompt_of(
    example: Example, protocol: Protocol, start: float, end: float | None, *, tools: bool
) -> tuple[Said, ...]:
    """Return the first messages of a question, as ``protocol`` words them, with the video from ``start`` to ``end``.

    Raises:
        RecordError: The protocol says where the video ends, and nobody knows.
    """
    if protocol.says_span and end is None:
        raise refused("duration", f"known, since protocol {protocol.name!r} says it", None)
    # Only the words are wanted here: which frames are shown is not decided yet.
    skim = FrameRef.model_validate(
        {
            "video": example.video, "view": "skim", "start_seconds": start, "end_seconds": end or 0.0,
            "at_seconds": (0.0,), "size_wh": (1, 1),
        }
    )  # fmt: skip
    view = View(example.video, "skim", start, end)
    return tuple(
        Said(one.role, tuple(part.text if isinstance(part, Text) else view for part in one.parts))
        for one in first_messages(example, skim, protocol, tools=tools)
    )


def split_chat(chat: Sequence[Said]) -> tuple[tuple[Said, ...], tuple[Said, ...]]:
    """Return the messages before the first reply, and all from there."""
    first = next((at for at, one in enumerate(chat) if one.role == "assistant"), len(chat))
    return tuple(chat[:first]), tuple(chat[first:])


def full_chat(row: Row, context: Context, *, tools: bool) -> tuple[Said, ...]:
    """Return the messages of a row, with a prompt as the protocol words it where the row has none."""
    chat = chat_of(row)
    if split_chat(chat)[0]:
        return chat
    part: tuple[float, float | None] = row.extra.get(CLIP) or (0.0, row.extra.get(DURATION))
    return (*prompt_of(row.example, context.protocol, *part, tools=tools), *chat)


def asked(chat: Sequence[Said], protocol: Protocol) -> tuple[str, tuple[str, ...], Task | None]:
    """Return what a chat asks: stem, options, and the task if a sentence of one of our protocols tells it.

    The question is what the last message before the first reply says after its frames, or before them if nothing
    stands after. Sentences that a protocol adds are taken off.
    """
    prompt, _ = split_chat(chat)
    if not prompt:
        return "", (), None
    parts = prompt[-1].parts
    last = max((at for at, part in enumerate(parts) if isinstance(part, View)), default=-1)
    after = "".join(part for part in parts[last + 1 :] if isinstance(part, str))
    before = "".join(part for part in parts[: last + 1] if isinstance(part, str))
    text, task = _without_hint(
        _SPAN.sub("", after if after.strip() else before, count=1).strip("\n"), protocol
    )
    stem, options = split_options(text)
    return (stem if options else text), options, task


def _without_hint(text: str, protocol: Protocol) -> tuple[str, Task | None]:
    for known in (protocol, *PROTOCOLS.values()):
        for task, hint in known.hints.items():
            if text.endswith(f"\n{hint}"):
                return text.removesuffix(f"\n{hint}"), task
    return text, None


def example_of(
    chat: Sequence[Said], number: int, context: Context, *, answer: str | None = None,
    segments: tuple[Segment, ...] = (), task: Task | None = None, source: str = "",
) -> Example:  # fmt: skip
    """Return what a chat asks as an example whose id is the row's number.

    Args:
        chat: The messages.
        number: Of the row, from 0.
        context: Whose sentences are taken off the question first.
        answer: The true answer, if the row has it; of a question with options its first letter, if it is one of them.
        segments: The true segments.
        task: What is asked for; ``None`` = what the prompt's wording tells, else multiple choice where there are
            options, and open.
        source: Where the row is from.
    """
    stem, options, told = asked(chat, context.protocol)
    task = told or task or ("multiple_choice" if options else "open")
    if answer is not None and task == "multiple_choice":
        letter = answer.strip()[:1]
        answer = letter if letter and letter in LETTERS[: len(options)] else answer
    return Example(
        id=str(number), video=first_video(chat), question=stem, options=options, answer=answer, segments=segments,
        task=task, source=source,
    )  # fmt: skip


# -- placeholders ------------------------------------------------------------------------------------------------------


def read_placeholders(
    record: Record, name: str, videos: Sequence[View], images: Sequence[View]
) -> tuple[Said, ...]:
    """Return the messages in a field whose texts have ``<video>`` and ``<image>`` where a view stands.

    Raises:
        RecordError: The field is no list of messages, or there are not as many placeholders as views.
    """
    chat: list[Said] = []
    waiting = {"<video>": list(videos), "<image>": list(images)}
    for at, (role, content) in enumerate(read_messages(record, name)):
        if not isinstance(content, str):
            raise record.fault(f"{name}[{at}].content", f"must be a text, got {content!r:.80}")
        parts: list[str | View] = []
        for piece in PLACEHOLDER.split(content):
            if piece not in ("<video>", "<image>", "<audio>"):
                parts += [piece] if piece else []
            elif waiting.get(piece):
                parts.append(waiting[piece].pop(0))
            else:
                raise record.fault(
                    f"{name}[{at}].content",
                    f"must have one placeholder for each of {len(videos)} videos and {len(images)} images, got one "
                    f"more {piece}",
                )
        chat.append(Said(role, tuple(parts)))
    for mark, left in waiting.items():
        if left:
            raise record.fault(name, f"must have a {mark} for each file, got {len(left)} files without one")
    return tuple(chat)


def read_messages(record: Record, name: str) -> list[tuple[Role, Any]]:
    """Return role and content of the messages in a field; other fields of a message are left to the rest.

    Raises:
        RecordError: The field is missing or no list of messages.
    """
    found: list[tuple[Role, Any]] = []
    for message in record.records(name):
        if message.value("role") not in ROLES:
            raise message.fault(
                "role", f"must be one of {', '.join(ROLES)}, got {message.value('role')!r:.80}"
            )
        found.append((cast(Role, message.value("role")), message.value("content")))
    if not found:
        raise record.fault(name, "must hold at least one message, got []")
    return found


def write_placeholders(chat: Sequence[Said]) -> list[dict[str, str]]:
    """Return messages whose texts have ``<video>`` or ``<image>`` where a view stands.

    Raises:
        RecordError: A text holds a placeholder itself, which a reader would take for a view.
    """
    return [{"role": one.role, "content": "".join(_spelled(part) for part in one.parts)} for one in chat]


def _spelled(part: str | View) -> str:
    if isinstance(part, View):
        return "<image>" if part.view == "image" else "<video>"
    check_no_placeholder(part)
    return part


def check_no_placeholder(text: str) -> None:
    """Do nothing if a text can be told from placeholders.

    Raises:
        RecordError: It holds one.
    """
    if found := PLACEHOLDER.search(text):
        raise refused(
            "text", "free of <video>, <image> and <audio>, which stand for files", text[found.start() :]
        )


# -- references --------------------------------------------------------------------------------------------------------


def reference(view: View, *, whole: bool = False) -> str:
    """Return a view as a path: its own file if it has one, else ``VIDEO#t=START,END&fps=FPS``.

    That is a W3C media fragment; no tool opens it as a file, and none can take it for the whole video.

    Args:
        view: What to name.
        whole: The view is all of its video: then the path alone.
    """
    if view.files:
        return view.files[0]
    if whole or view.start_seconds is None:
        return view.video
    end = "" if view.end_seconds is None else f",{view.end_seconds!r}"
    fps = "" if view.fps is None else f"&fps={view.fps!r}"
    return f"{view.video}#t={view.start_seconds!r}{end}{fps}"


def dereference(text: str) -> tuple[str, float | None, float | None, float | None]:
    """Return path, start, end and frames a second of a reference; a plain path has only the first."""
    if (found := _REFERENCE.fullmatch(text)) is None:
        return text, None, None, None
    start, end, fps = (None if part is None else float(part) for part in found.groups()[1:])
    return found.group(1), start, end, fps


def first_video(chat: Sequence[Said]) -> str:
    """Return the video of a chat, empty if it shows none."""
    return next((view.video for one in chat for view in one.views), "")


def is_partial(row: Row, view: View) -> bool:
    """Return whether a first view is known to be a part of its video."""
    if view.start_seconds:
        return True
    return row.trajectory is not None and row.trajectory.settings.get("skim_end_seconds") is not None


def until_last_reply(chat: Sequence[Said]) -> tuple[Said, ...]:
    """Return a chat up to its last reply, as training on replies needs it.

    Raises:
        RecordError: There is none.
    """
    last = max((at for at, one in enumerate(chat) if one.role == "assistant"), default=None)
    if last is None:
        raise RecordError("field 'turns' must hold a reply, which this row has not; it is a question alone")
    return tuple(chat[: last + 1])
