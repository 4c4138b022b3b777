"""Plays stages over a batch of items: reads what they want to look at, asks the labeller, writes down what was said.

All items of a batch go on together: a round of the batch reads the views that its items want, then asks the labeller
for all their replies in one call, which a local model answers as a batch. What an item gets depends on nothing but the
item: the seed of a question derives from the build's seed, the stage, the item, the purpose, round and sample.

A call that fails is made again with the same seed, so that a failing server costs time and changes no row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from timeloupe.data.build.record import FAULT, VIDEO, Asked, BuiltRow, ShownView
from timeloupe.data.build.steps import Ask, BoxCrop, Crop, Kit, Outcome, Plan, Reply, Skim, Step
from timeloupe.environment.rollout import derive_seed
from timeloupe.environment.tools import View, crop_video, cut_box, margin_for, skim_video
from timeloupe.errors import PolicyError, VideoError
from timeloupe.policy.base import GenerationRequest, Policy
from timeloupe.trajectory import Box, Example, Generation, Problem, Usage
from timeloupe.video.cache import FrameCache
from timeloupe.video.reader import VideoReader

MAX_WAIT_SECONDS = 30.0

MakePlan = Callable[[Example], Plan]
Price = tuple[float, float]
"""US dollars for a million prompt and completion tokens."""


@dataclass(frozen=True)
class Patience:
    """How often a failed call is made again.

    Attributes:
        tries: Calls for one reply at most, >= 1.
        wait_seconds: Before the second; each further wait is twice as long, up to ``MAX_WAIT_SECONDS``.
    """

    tries: int = 5
    wait_seconds: float = 0.5


@dataclass(eq=False)
class _Item:
    """One item while it is worked on."""

    example: Example
    plan: Plan
    began: float
    waits_for: Ask | None = None
    asked: list[Asked] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    boxes: list[tuple[View, Box]] = field(default_factory=list)
    reader: VideoReader | None = None
    outcome: Outcome | None = None

    def shown(self, view: View) -> ShownView:
        """Return what a view shows."""
        box = next((box for found, box in self.boxes if found is view), None)
        return ShownView.of(view.ref, box)


@dataclass(frozen=True)
class Labeller:
    """Works on batches of items with one policy; shared by threads.

    Attributes:
        policy: Who is asked.
        kit: What the stages have in common.
        cache: Decoded frames.
        price: To compute costs; ``None`` = not known.
        patience: With failing calls.
        sleep: Waits so many seconds; a stopped build makes it return at once.
    """

    policy: Policy
    kit: Kit
    cache: FrameCache
    price: Price | None = None
    patience: Patience = Patience()
    sleep: Callable[[float], object] = time.sleep

    def work(self, stage: str, examples: Sequence[Example], make_plan: MakePlan) -> list[BuiltRow]:
        """Return one row per example, in order.

        Raises:
            ConfigError: A setting does not fit a video, or the policy refuses what it is asked. All else is in the
                rows.
        """
        items = [_Item(example, make_plan(example), time.perf_counter()) for example in examples]
        skims: dict[str, View] = {}
        for item in items:
            self._go_on(item, None, skims)
        while asking := [item for item in items if item.waits_for is not None]:
            asks = [item.waits_for for item in asking if item.waits_for is not None]
            replies = self._replies(stage, asks)
            for item, ask, (generation, tries) in zip(asking, asks, replies, strict=True):
                item.waits_for = None
                self._take(item, ask, generation, tries, skims)
        return [self._row(stage, item) for item in items]

    def _take(
        self, item: _Item, ask: Ask, generation: Generation, tries: int, skims: dict[str, View]
    ) -> None:
        """Write a reply down and let the stage go on with it."""
        failed = generation.finish == "error"
        # Ids and log-probabilities are the labeller's own; whoever learns from the text has another vocabulary.
        clean = generation.model_copy(update={"token_ids": None, "logprobs": None})
        reply = Reply(clean, self.kit.read(clean, ask.example))
        item.asked.append(
            Asked(
                purpose=ask.purpose, round=ask.round, prompt_sha256=ask.prompt_sha256,
                views=tuple(item.shown(view) for view in ask.views),
                reply=clean.text, finish=clean.finish, segments=reply.segments, usage=clean.usage,
                cost=self._cost(clean.usage, failed), tries=tries, seconds=clean.seconds,
            )
        )  # fmt: skip
        item.replies.append(reply)
        if failed:
            item.plan.close()
            item.outcome = Outcome(False, FAULT, clean.error or "the labeller gave no reason")
            return
        self._go_on(item, reply, skims)

    def _go_on(self, item: _Item, brought: View | Problem | Reply | None, skims: dict[str, View]) -> None:
        """Let the stage go on until it asks or ends."""
        while True:
            try:
                step: Step = item.plan.send(brought)
            except StopIteration as ended:
                item.outcome = ended.value
                return
            if isinstance(step, Ask):
                item.waits_for = step
                return
            try:
                brought = self._look(item, step, skims)
            except VideoError as error:
                item.plan.close()
                item.outcome = Outcome(False, VIDEO, str(error))
                return

    def _look(self, item: _Item, step: Skim | Crop | BoxCrop, skims: dict[str, View]) -> View | Problem:
        settings, video = self.kit.settings, item.example.video
        if item.reader is None:
            item.reader = VideoReader(video, self.cache, deadline_seconds=settings.video_deadline_seconds)
        with item.reader as reader:  # closed again: a large batch would keep too many files open
            if isinstance(step, Skim):
                if video not in skims:
                    skims[video] = skim_video(reader, settings)
                return skims[video]
            if isinstance(step, BoxCrop):
                view = cut_box(reader, step.box, settings)
                if isinstance(view, View):
                    item.boxes.append((view, step.box))
                return view
            start, end = step.segment.start_seconds, step.segment.end_seconds
            margin = margin_for(start, end, step.read_from, settings.crop_margin_intervals)
            return crop_video(reader, start, end, settings, margin_seconds=margin)

    def _replies(self, stage: str, asks: Sequence[Ask]) -> list[tuple[Generation, int]]:
        """Return a generation for each ask and how many calls it took; calls that fail are made again."""
        requests = [self._request(stage, ask) for ask in asks]
        found: list[tuple[Generation, int]] = [(Generation(text="", finish="error"), 0)] * len(asks)
        left = list(range(len(asks)))
        for number in range(1, self.patience.tries + 1):
            if number > 1:
                self.sleep(min(self.patience.wait_seconds * 2 ** (number - 2), MAX_WAIT_SECONDS))
            for at, generation in zip(left, self._generate([requests[at] for at in left]), strict=True):
                found[at] = (generation, number)
            left = [at for at in left if found[at][0].finish == "error"]
            if not left:
                break
        return found

    def _generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        began = time.perf_counter()
        try:
            generations = self.policy.generate(requests)
        except PolicyError as error:
            return [Generation(text="", finish="error", error=str(error)) for _ in requests]
        waited = time.perf_counter() - began
        return [one if one.seconds else one.model_copy(update={"seconds": waited}) for one in generations]

    def _request(self, stage: str, ask: Ask) -> GenerationRequest:
        sampling = self.kit.settings.sampling(tuple(self.kit.protocol.stop))
        if ask.temperature is not None:
            sampling = replace(sampling, temperature=ask.temperature)
        key = f"{ask.purpose}:{ask.example.id}"
        return GenerationRequest(
            messages=ask.messages,
            clips=tuple(view.pixels for view in ask.views),
            generations=ask.generations,
            seed=derive_seed(self.kit.seed, f"{stage}:{key}", ask.sample, ask.round),
            sampling=sampling,
            example_id=key,
        )

    def _cost(self, usage: Usage, failed: bool) -> float | None:
        if self.price is not None and failed:
            return 0.0
        if self.price is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        return (self.price[0] * usage.prompt_tokens + self.price[1] * usage.completion_tokens) / 1e6

    def _row(self, stage: str, item: _Item) -> BuiltRow:
        assert item.outcome is not None, "an item that neither asks nor has ended"
        outcome = item.outcome
        asked = [
            one.model_copy(update={"right": reply.right})
            for one, reply in zip(item.asked, item.replies, strict=True)
        ]
        return BuiltRow(
            stage=stage, id=item.example.id, example=outcome.example or item.example, kept=outcome.kept,
            reason=outcome.reason, detail=outcome.detail, labeller=self.kit.labeller, asked=tuple(asked),
            trajectory=outcome.trajectory, captions=outcome.captions, figures=dict(outcome.figures),
            seconds=time.perf_counter() - item.began,
        )  # fmt: skip
