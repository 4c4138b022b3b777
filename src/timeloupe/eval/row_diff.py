"""Which questions two runs fared differently on, and why. Pure.

Every pair of replies that differs has one reason, the first of ``REASONS`` that holds. The changes of all reasons but
the first two sum up to the change of the mean over the questions that both runs answered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from timeloupe.eval.figure_diff import Marks
from timeloupe.eval.recorded import Recorded
from timeloupe.eval.recorded_reply import Key, Reply, Span

REASONS = {
    "missing": "played in one run only",
    "fault": "lost to a machine in one run",
    "question": "another question, other options, or another task under the same id",
    "label": "another right answer under the same id",
    "scorer": "the same reply, scored otherwise",
    "parse": "could be read in one run only, or is read otherwise",
    "segment": "looked at, or answered, another segment",
    "answer": "another answer after the same looks",
}
"""Reason -> what it means, in the order in which they are tried."""

UNPAIRED = ("missing", "fault")
"""Reasons of replies that have no partner, and so are in no difference of means."""


@dataclass(frozen=True)
class RowChange:
    """A reply that differs.

    Attributes:
        id: The question.
        repeat: Which of its episodes.
        reason: One of ``REASONS``.
        one: What the first reply is worth in [0, 1]; ``None`` = nothing is known, or it has no partner.
        two: What the second is worth.
        words: What differs, for people: text of models stands in it.
        video: Name of the video, as the question has it.
    """

    id: str
    repeat: int
    reason: str
    one: float | None
    two: float | None
    words: str
    video: str = ""

    @property
    def change(self) -> float:
        """Second minus first; 0 where one is not known."""
        return 0.0 if self.one is None or self.two is None else self.two - self.one


@dataclass(frozen=True)
class RowChanges:
    """All replies that differ.

    Attributes:
        changes: The largest change of the score first.
        compared: Pairs of replies, those without a partner included.
        same: Pairs that say and score the same.
        looked_elsewhere: Of these, how many came from other crops.
        effects: Reason -> what it adds to the mean over the questions that both runs answered, in [-1, 1].
        extra_repeats: Repeats that only one run has; their replies are in no count.
    """

    changes: tuple[RowChange, ...]
    compared: int
    same: int
    looked_elsewhere: int
    effects: Mapping[str, float] = field(default_factory=dict)
    extra_repeats: tuple[int, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return how many replies differ by reason, in the order of ``REASONS``."""
        found = {reason: sum(one.reason == reason for one in self.changes) for reason in REASONS}
        return {reason: count for reason, count in found.items() if count}


def row_changes(one: Recorded, two: Recorded, ids: Sequence[str], ones: Marks, twos: Marks) -> RowChanges:
    """Return the replies that differ.

    Args:
        one: The first run.
        two: The second run.
        ids: Questions that may be compared: those of the benchmark.
        ones: Marks of the first run's replies that have a partner: both answered the question in that repeat.
        twos: Marks of the second's.
    """
    both = set(one.repeats) & set(two.repeats)
    extra = tuple(sorted((set(one.repeats) | set(two.repeats)) - both))
    paired: dict[str, int] = {}
    found: list[RowChange] = []
    compared = same = elsewhere = 0
    for id in ids:
        for repeat in sorted(both):
            first, second = one.replies.get((id, repeat)), two.replies.get((id, repeat))
            if first is None and second is None:
                continue
            if first is not None and second is not None and first.is_fault and second.is_fault:
                continue
            compared += 1
            values = ones.value(repeat, id), twos.value(repeat, id)
            if None not in values:
                paired[id] = paired.get(id, 0) + 1
            change = _change((id, repeat), first, second, values, (ones, twos))
            if change is not None:
                found.append(change)
            else:
                same += 1
                elsewhere += first is not None and second is not None and first.looked != second.looked
    effects: dict[str, float] = {}
    for change in found:
        if change.reason not in UNPAIRED and change.id in paired:
            share = change.change / paired[change.id] / len(paired)
            effects[change.reason] = effects.get(change.reason, 0.0) + share
    found.sort(key=lambda change: -abs(change.change))
    return RowChanges(tuple(found), compared, same, elsewhere, effects, extra)


def _change(
    key: Key,
    one: Reply | None,
    two: Reply | None,
    values: tuple[float | None, float | None],
    marks: tuple[Marks, Marks],
) -> RowChange | None:
    """Return how two replies to a question differ; ``None`` if they do not."""
    id, repeat = key
    example = next(
        (reply.example for reply in (one, two) if reply is not None and reply.example is not None), None
    )
    video = "" if example is None else example.video

    def because(reason: str, words: str) -> RowChange:
        return RowChange(id, repeat, reason, *values, words, video)

    if one is None or two is None:
        there = "second" if one is None else "first"
        return because("missing", f"only the {there} run has it")
    if one.is_fault or two.is_fault:
        lost = one if one.is_fault else two
        return because(
            "fault", f"{'first' if one.is_fault else 'second'} run: {lost.problem or 'no reason is recorded'}"
        )
    if (words := _asked_otherwise(one, two)) is not None:
        return because(*words)
    # Scripts round what they make of a question, so two of them differ a little where they agree.
    least = 1e-9 if marks[0].mode == marks[1].mode else 1e-3
    moved = values[0] is not None and values[1] is not None and abs(values[0] - values[1]) > least
    scorer = (marks[0].failures(repeat, id), marks[1].failures(repeat, id))
    if one.prediction == two.prediction and (one.stop == two.stop or None in (one.stop, two.stop)):
        if not moved and scorer[0] == scorer[1]:
            return None
        differ = marks[0].mode != marks[1].mode
        return because("scorer" if differ else "parse", f"both say {said(one)}{_unread(scorer)}")
    if _unreadable(one, scorer[0]) != _unreadable(two, scorer[1]):
        return because("parse", f"{_reading(one, scorer[0])} -> {_reading(two, scorer[1])}")
    answered = [_answer_of(reply) for reply in (one, two)]
    # A file of predictions is read by the scorer alone: what is worth the same is the same there.
    if not moved and (answered[0] == answered[1] or None in (one.stop, two.stop)):
        return None
    words = f"{said(one)} -> {said(two)}"
    if one.looked != two.looked:
        return because(
            "segment", f"{words}; looked at {spans_words(one.looked)} -> {spans_words(two.looked)}"
        )
    if one.answered != two.answered and (one.option, two.option) == (None, None):
        return because("segment", words)
    if answered[0] == answered[1]:
        return because("parse", f"{words}, which scorers read otherwise")
    return because("answer", words)


def _asked_otherwise(one: Reply, two: Reply) -> tuple[str, str] | None:
    """Reason and words where the two were asked, or marked, by something else."""
    first, second = one.example, two.example
    if first is None or second is None:
        return None
    for name in ("question", "options", "task"):
        if getattr(first, name) != getattr(second, name):
            return "question", f"{name}: {_clip(getattr(first, name))} -> {_clip(getattr(second, name))}"
    labels = [(example.answer, tuple((part.start_seconds, part.end_seconds) for part in example.segments))
              for example in (first, second)]  # fmt: skip
    if labels[0] != labels[1]:
        return "label", f"{_label(labels[0])} -> {_label(labels[1])}"
    return None


def _answer_of(reply: Reply) -> Any:
    """What a reply answers, as far as it decides a score."""
    if reply.option is not None:
        return reply.option
    if reply.answered:
        return reply.answered
    return _clip(reply.prediction) if reply.prediction else ""


def _unreadable(reply: Reply, failures: Sequence[str]) -> bool:
    return reply.prediction in (None, "") or any(why != "label_unusable" for why in failures)


def _reading(reply: Reply, failures: Sequence[str]) -> str:
    if not _unreadable(reply, failures):
        return said(reply)
    if reply.stop is not None and reply.prediction == "":
        return f"no answer ({reply.stop.value}{': ' + _clip(reply.problem) if reply.problem else ''})"
    return f"unreadable ({', '.join(failures) or 'empty'}): {_clip(reply.prediction)}"


def _unread(failures: tuple[Sequence[str], Sequence[str]]) -> str:
    if failures[0] == failures[1]:
        return ""
    words = [", ".join(one) or "read" for one in failures]
    return f"; {words[0]} -> {words[1]}"


def said(reply: Reply) -> str:
    """Return what a reply answers, for people."""
    if reply.option is not None:
        return reply.option
    if reply.answered:
        return spans_words(reply.answered)
    return _clip(reply.prediction) if reply.prediction else "nothing"


def spans_words(spans: Sequence[Span]) -> str:
    """``20 s to 42 s, 50 s to 60 s``, or ``nothing``."""
    return ", ".join(f"{start:g} s to {end:g} s" for start, end in spans) or "nothing"


def _label(label: tuple[str | None, tuple[Span, ...]]) -> str:
    answer, spans = label
    return ", ".join(word for word in (answer, spans_words(spans) if spans else "") if word) or "none"


def _clip(value: Any, length: int = 80) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value, default=str)).split())
    return text if len(text) <= length else f"{text[: length - 3]}..."
