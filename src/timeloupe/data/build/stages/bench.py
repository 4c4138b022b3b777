"""A benchmark from built rows, in VideoTemp-Bench's form: questions that cannot be answered without finding the moment.

::

    leak_question, leak_video    the training rows have it                              nothing is asked
    blind     (question)                     -> answer, ``controls`` times; right too often: answered_blind
    whole     (video, question)              -> answer, ``controls`` times; right too often: answered_whole
    verify    (labelled segment, question)   -> answer; wrong: label_not_enough

What is left is chosen so that all lengths have as many questions, and the options are put into an order in which no
letter is right more often than another (``bench_choice``).

Source: the form, and the bins of length, of VideoTemp-Bench (VideoTemp-o3, arXiv 2602.07801). How its questions were
checked was not published; the controls are ours.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from timeloupe.data.build.recipe_part import StagePart
from timeloupe.data.build.stages.direct import unread
from timeloupe.data.build.stages.leaks import LEAK_QUESTION, training
from timeloupe.data.build.steps import Ask, Crop, Kit, Outcome, Plan, Reply, Skim, Step
from timeloupe.environment.tools import View
from timeloupe.errors import boundary
from timeloupe.eval.files.records import split_options
from timeloupe.prompt.build import question_block
from timeloupe.reward import accuracy
from timeloupe.trajectory import Example, Problem


class BenchStage(StagePart):
    """Control, verify, choose.

    Attributes:
        controls: How often each control is asked: an answer may be right by luck, several rarely are.
        temperature: Of the controls; at 0 most labellers say the same every time.
        max_blind: Share of the answers without any frames that may be right.
        max_whole: Share of the answers from the whole video, at the skim's rate, that may be right.
        train: Rows that a model is trained on, which no question may be taken from: files of rows, folders of them, or
            folders of builds.
        share_videos: Let in other questions on a video of the training rows.
        edges: Seconds at which a longer bin of videos begins, ascending.
        per_bin: Questions of a bin at most; default: as many as the smallest bin has that has any.
        per_video: Questions on a video at most.
        seed: Of which questions are taken, and of the order of their options.
    """

    kind: Literal["bench"]
    controls: int = Field(default=3, ge=1, le=1024)
    temperature: float = Field(default=1.0, ge=0)
    max_blind: float = Field(default=0.5, ge=0, le=1)
    max_whole: float = Field(default=0.5, ge=0, le=1)
    train: tuple[Path, ...] = ()
    share_videos: bool = False
    edges: tuple[float, ...] = (180.0, 600.0, 1200.0)
    per_bin: int | None = Field(default=None, ge=1)
    per_video: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(not one < two for one, two in pairwise((0.0, *self.edges))):
            raise ValueError(f"edges must be > 0 and ascending, got {list(self.edges)}")
        return self


def checked_items(examples: Sequence[Example], part: BenchStage) -> list[Example]:
    """Return the rows as they are, once the training rows can be read: before anything is asked."""
    training(part.train)
    return list(examples)


def bench(example: Example, part: BenchStage, kit: Kit) -> Plan:
    """Return the plan of one item."""
    settings = kit.settings
    if settings.skim_start_seconds or settings.skim_end_seconds is not None:
        shown = (settings.skim_start_seconds, settings.skim_end_seconds)
        raise boundary(
            "skim_start_seconds and skim_end_seconds of stage bench",
            shown,
            "unset: a control sees the whole video",
        )
    unfit = _unfit(example) or _leak(example, part)
    if unfit is not None:
        return unfit
    blind, answered = yield from _control("blind", example, part, kit, ())
    figures = {"blind_right": blind, "blind_answered": answered}
    if blind > part.max_blind:
        return Outcome(False, "answered_blind", f"{blind:.0%} right without the video", figures=figures)
    skim: View = yield Skim()
    figures["duration_seconds"] = skim.ref.end_seconds
    whole, answered = yield from _control("whole", example, part, kit, (skim,))
    figures |= {"whole_right": whole, "whole_answered": answered}
    if whole > part.max_whole:
        return Outcome(False, "answered_whole", f"{whole:.0%} right from the whole video", figures=figures)
    view: View | Problem = yield Crop(example.segments[0])
    if isinstance(view, Problem):
        return Outcome(False, "bad_label", view.message, figures=figures)
    messages = kit.first(example, [view], tools=False, purpose="alone")
    reply: Reply = yield Ask("verify", messages, (view,), example)
    reply.right = kit.is_right(reply.answer, example)
    if not reply.right:
        why = unread(reply) if reply.answer is None else f"it answered {reply.answer.text!r:.80}"
        return Outcome(False, "label_not_enough", f"from the labelled segment alone: {why}", figures=figures)
    return Outcome(True, "verified", figures=figures)


def _unfit(example: Example) -> Outcome | None:
    """Return why a row cannot stand in the benchmark's form, ``None`` if it can."""
    choice = example.task == "multiple_choice" and len(example.options) > 1
    if not choice or accuracy.true_letter(example) is None:
        return Outcome(False, "not_a_choice", f"a {example.task} row, or one without a right option")
    if len(example.segments) != 1:
        return Outcome(False, "not_one_segment", f"{len(example.segments)} labelled segments")
    if not reads_back(example):
        return Outcome(False, "not_writable", "its options cannot be told from its question in one text")
    return None


def reads_back(example: Example) -> bool:
    """Return whether the benchmark's reader finds the question and the options in their one text, but for blanks."""
    bare = (example.question.strip(), tuple(option.strip() for option in example.options))
    return split_options(question_block(example)) == bare


def _leak(example: Example, part: BenchStage) -> Outcome | None:
    found = training(part.train).leak(example, share_videos=part.share_videos)
    if found is None:
        return None
    what = "this question on this video" if found == LEAK_QUESTION else "this video"
    return Outcome(False, found, f"the training rows have {what}")


def _control(
    purpose: str, example: Example, part: BenchStage, kit: Kit, views: tuple[View, ...]
) -> Generator[Step, Any, tuple[float, float]]:
    """Ask what must not be answered so, and return the shares of right answers and of replies that give one."""
    right = given = 0
    # A labeller that is not told how to answer is never right, and its control would let everything in.
    messages = kit.first(example, views, tools=False, purpose="direct" if views else "blind")
    for sample in range(part.controls):
        reply: Reply = yield Ask(
            purpose, messages, views, example, sample=sample, temperature=part.temperature
        )
        reply.right = kit.is_right(reply.answer, example)
        right += reply.right
        given += reply.answer is not None
    return right / part.controls, given / part.controls
