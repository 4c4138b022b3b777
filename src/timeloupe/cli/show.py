"""An episode on the terminal, turn by turn.

Model output and file names are untrusted text: they bring neither markup nor control characters to the terminal.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from timeloupe.environment.rollout import EpisodeFinished, EpisodeStarted, Event, TurnFinished
from timeloupe.trajectory import Answer, Example, FrameRef, Segment, StopReason, Trajectory

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STOP_TEXT = {
    StopReason.ANSWERED: "answered",
    StopReason.MAX_TURNS: "no answer: the last turn still asked to look",
    StopReason.MAX_TOKENS: "no answer: the reply was cut by the token limit",
    StopReason.FORMAT: "no answer: the reply could not be read",
    StopReason.INFRASTRUCTURE: "no answer: the machine failed",
}


class EpisodePrinter:
    """Prints the events of episodes as they come: pass it to ``play`` as ``on_event``.

    Args:
        console: Where to print.
        example: What is asked.
    """

    def __init__(self, console: Console, example: Example) -> None:
        self.console = console
        self.example = example

    def __call__(self, event: Event) -> None:
        """Print one event."""
        if isinstance(event, EpisodeStarted):
            self._started(event)
        elif isinstance(event, TurnFinished):
            self._turn(event)
        else:
            self._finished(event)

    def _row(self, name: str, text: str, style: str = "") -> None:
        row = Table.grid(padding=(0, 2))
        row.add_column(width=9)
        row.add_row(
            Text(name, style="bold" if name else ""), Text(printable(text), style=style, overflow="fold")
        )
        self.console.print(Padding(row, (0, 0, 0, 1), expand=False))

    def _started(self, event: EpisodeStarted) -> None:
        example = event.example
        self._row("video", Path(example.video).name)
        self._row("question", f"{example.question}  ({example.task.replace('_', ' ')})")
        for letter, option in zip(LETTERS, example.options, strict=False):
            self._row("", f"{letter}. {option}")
        for message in event.prompt:
            for ref in message.frame_refs:
                self._row("skim", view_text(ref), "dim")

    def _turn(self, event: TurnFinished) -> None:
        turn = event.turn
        name = f"turn {event.turn_index + 1}"
        readable = turn.call is not None or turn.answer is not None
        if readable and turn.thought.strip():
            self._row(name, turn.thought.strip(), "italic")
            name = ""
        if turn.call is not None:
            self._row(name, f"look closer at {segments_text(turn.call.segments)}", "cyan")
        elif turn.answer is not None:
            self._row(name, f"answer: {answer_text(turn.answer, self.example)}", "bold green")
        elif turn.generation.text:
            self._row(name, turn.generation.text, "yellow")
        if turn.problem is not None:
            self._row(
                "", f"refused: {turn.problem.message}" if turn.observation else turn.problem.message, "yellow"
            )
        for ref in turn.observation.frame_refs if turn.observation is not None else ():
            self._row("crop", view_text(ref), "dim")

    def _finished(self, event: EpisodeFinished) -> None:
        trajectory = event.trajectory
        if trajectory.evidence:
            self._row("evidence", segments_text(trajectory.evidence), "green")
        self._row("ended", stop_text(trajectory), "dim")
        if trajectory.problem is not None and not trajectory.turns:
            self._row("", trajectory.problem.message, "yellow")


def stop_text(trajectory: Trajectory) -> str:
    """Return why an episode ended and what it cost."""
    turns, crops = len(trajectory.turns), len(trajectory.crops)
    return (
        f"{STOP_TEXT[trajectory.stop]}; {turns} turn{'s' * (turns != 1)}, {crops} crop{'s' * (crops != 1)}, "
        f"{trajectory.frames_decoded} frames decoded, {trajectory.frames_cached} from the cache, "
        f"{trajectory.seconds:.1f} s"
    )


def answer_text(answer: Answer, example: Example) -> str:
    """Return an answer as people read it: the option with its letter, the segments with their times, or the text."""
    if answer.option is not None and answer.option in LETTERS[: len(example.options)]:
        return f"{answer.option}. {example.options[LETTERS.index(answer.option)]}"
    if answer.segments:
        return segments_text(answer.segments)
    return answer.text.strip() or "(empty)"


def view_text(ref: FrameRef) -> str:
    """Return what a view shows: how many frames, from when to when, how far apart."""
    length = ref.end_seconds - ref.start_seconds
    width, height = ref.size_wh
    return (
        f"{len(ref.at_seconds)} frames of {width}x{height}, {clock(ref.start_seconds)} to {clock(ref.end_seconds)}, "
        f"one every {length / len(ref.at_seconds):.2f} s"
    )


def segments_text(segments: tuple[Segment, ...]) -> str:
    """Return segments as clock times and seconds."""
    return ", ".join(
        f"{clock(item.start_seconds)} to {clock(item.end_seconds)} ({item.start_seconds:g} s to {item.end_seconds:g} s)"
        for item in segments
    )


def clock(seconds: float) -> str:
    """Return a time as ``mm:ss`` or ``h:mm:ss``, with tenths where there are any."""
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02}:{rest // 10:02}" + (f".{rest % 10}" if rest % 10 else "")
    return f"{hours}:{text}" if hours else text


def printable(text: str) -> str:
    """Return ``text`` without characters that could command a terminal or reorder what is read; newlines stay."""
    text = text.replace("\t", "    ")
    return "".join(
        char if char == "\n" or unicodedata.category(char)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )
