"""The episode loop, in lockstep batches.

Every round asks the policy for one turn of each unfinished episode in a single call, reads the replies, and
lets each episode look or end:

::

    answered         the reply gives an answer
    max_turns        the last turn still asks to look; the call stays in the record
    max_tokens       the reply was cut by the token limit before it could be read
    format           the reply can be read neither as a call nor as an answer           (the policy's fault)
    infrastructure   the model or server failed, or the video cannot be read            (the machine's fault)

A call that the tool refuses does not end the episode: the model is told why and goes on. Episodes share
nothing but the cache of decoded frames. Every example gives exactly one trajectory, in the order of the
examples.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import View, crop_video, margin_for, skim_video
from timeloupe.errors import PolicyError, VideoError
from timeloupe.policy.base import GenerationRequest, Policy
from timeloupe.prompt.build import first_messages, observation_message
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import Protocol
from timeloupe.trajectory import (
    Example,
    Generation,
    Message,
    Problem,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    Turn,
)
from timeloupe.video.cache import FrameCache
from timeloupe.video.reader import VideoReader

DEFAULT_CACHE_BYTES = 512 * 2**20

REFUSED_CALLS = frozenset({"segment_negative", "segment_empty", "segment_not_finite"})
"""Problems of the parser that mean: a call whose segment cannot be cut. The model is told and goes on."""


@dataclass(frozen=True)
class EpisodeStarted:
    """The first view is ready. ``index`` is the episode's place in the batch."""

    index: int
    example: Example
    prompt: tuple[Message, ...]


@dataclass(frozen=True)
class TurnFinished:
    """A turn is over, its tool included. ``turn_index`` counts from 0."""

    index: int
    turn_index: int
    turn: Turn


@dataclass(frozen=True)
class EpisodeFinished:
    """An episode is over."""

    index: int
    trajectory: Trajectory


Event = EpisodeStarted | TurnFinished | EpisodeFinished
OnEvent = Callable[[Event], None]


def derive_seed(root: int, example_id: str, rollout_index: int, turn: int) -> int:
    """Return the seed of one turn, in [0, 2**63): the same everywhere, whatever else is in the batch."""
    key = json.dumps([root, example_id, rollout_index, turn]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


@dataclass(eq=False)
class _Episode:
    """One episode while it runs."""

    index: int
    example: Example
    rollout_index: int
    reply_prefix: str = ""
    messages: list[Message] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    last_views: list[View] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    num_prompt: int = 0
    reader: VideoReader | None = None
    stop: StopReason | None = None
    problem: Problem | None = None


def play(
    examples: Sequence[Example],
    policy: Policy,
    protocol: Protocol,
    settings: EpisodeSettings,
    *,
    seed: int,
    rollout_index: int | Sequence[int] = 0,
    cache: FrameCache | None = None,
    on_event: OnEvent | None = None,
    system_prompt: str | None = None,
    reply_prefixes: Sequence[str] = (),
    deadline_seconds: float | None = None,
) -> list[Trajectory]:
    """Return one trajectory per example, in order.

    Args:
        examples: What to ask; the same example may come several times with different roll-out indices.
        policy: Plays the assistant. If it has ``settings``, they stand in the records under ``settings["policy"]``.
        protocol: How to prompt it and how to read its replies.
        settings: What an episode may see and do.
        seed: Root seed of the run.
        rollout_index: Which roll-out this is, one for all or one per example.
        cache: Decoded frames shared with other batches; ``None`` = one for this batch alone.
        on_event: Called as episodes go on.
        system_prompt: Replaces the protocol's.
        reply_prefixes: How the first reply of each example begins, empty = as the policy likes; none = all empty. What
            was begun stands in the records under ``settings["reply_prefix"]``.
        deadline_seconds: An episode that has no end so long after the batch began ends as a machine's fault, reason
            ``deadline``; a request under way is given up. A video that is being read is not: it has a limit of its own.
            ``None`` = no limit.

    Raises:
        ConfigError: A setting does not fit a video. Everything else that goes wrong is in the trajectories.
    """
    indices = [rollout_index] * len(examples) if isinstance(rollout_index, int) else list(rollout_index)
    if len(indices) != len(examples):
        raise ValueError(f"need {len(examples)} rollout indices, one per example, got {len(indices)}")
    begun = list(reply_prefixes) or [""] * len(examples)
    if len(begun) != len(examples):
        raise ValueError(f"need {len(examples)} reply prefixes, one per example or none, got {len(begun)}")
    if cache is None:
        cache = FrameCache(DEFAULT_CACHE_BYTES)
    batch = _Batch(policy, protocol, settings, seed, cache, on_event, deadline_seconds)
    episodes = [_Episode(i, example, indices[i], begun[i]) for i, example in enumerate(examples)]
    finished: dict[int, Trajectory] = {}
    skims: dict[str, View] = {}
    for episode in episodes:
        batch.start(episode, skims, system_prompt)
        if episode.stop is not None:
            finished[episode.index] = batch.finish(episode)
    while running := [episode for episode in episodes if episode.stop is None]:
        if batch.late:
            for episode in running:
                episode.stop, episode.problem = StopReason.INFRASTRUCTURE, batch.lateness()
                finished[episode.index] = batch.finish(episode)
            break
        began = time.perf_counter()
        generations = batch.generate(running)
        waited = time.perf_counter() - began
        for episode, generation in zip(running, generations, strict=True):
            began = time.perf_counter()
            turn = batch.take_turn(episode, generation)
            turn = turn.model_copy(update={"seconds": waited + time.perf_counter() - began})
            episode.turns.append(turn)
            batch.tell(TurnFinished(episode.index, len(episode.turns) - 1, turn))
            if episode.stop is not None:
                finished[episode.index] = batch.finish(episode)
    return [finished[episode.index] for episode in episodes]


class _Batch:
    """What the episodes of one batch have in common; nothing here changes while they run, but the frame cache."""

    def __init__(
        self,
        policy: Policy,
        protocol: Protocol,
        settings: EpisodeSettings,
        seed: int,
        cache: FrameCache,
        on_event: OnEvent | None,
        deadline_seconds: float | None = None,
    ) -> None:
        self.policy = policy
        self.protocol = protocol
        self.settings = settings
        self.seed = seed
        self.cache = cache
        self.on_event = on_event
        self.began = time.perf_counter()
        self.deadline_seconds = deadline_seconds
        self.give_up_at = None if deadline_seconds is None else self.began + deadline_seconds

    @property
    def late(self) -> bool:
        """Whether the deadline has passed."""
        return self.give_up_at is not None and time.perf_counter() >= self.give_up_at - 0.005  # two clocks

    def lateness(self, why: str = "") -> Problem:
        """Return why a late episode ends."""
        said = f"the episode had no end after {self.deadline_seconds:g} s{': ' if why else ''}{why}"
        return Problem(reason="deadline", message=said)

    def tell(self, event: Event) -> None:
        if self.on_event is not None:
            self.on_event(event)

    def start(self, episode: _Episode, skims: dict[str, View], system_prompt: str | None) -> None:
        """Read the skim, unless another episode of this batch has, and write the first messages."""
        skim = None
        if not self.settings.question_only:
            video = episode.example.video
            try:
                deadline = self.settings.video_deadline_seconds
                with VideoReader(video, self.cache, deadline_seconds=deadline) as reader:
                    episode.reader = reader
                    skim = skims.get(video) or skim_video(reader, self.settings)
            except VideoError as error:
                episode.stop = StopReason.INFRASTRUCTURE
                episode.problem = Problem(reason="video", message=str(error))
                return
            skims[video] = skim
            episode.views.append(skim)
            episode.last_views = [skim]
        episode.messages.extend(
            first_messages(
                episode.example, skim.ref if skim else None, self.protocol,
                tools=self.settings.offers_tool, system_prompt=system_prompt,
            )
        )  # fmt: skip
        episode.num_prompt = len(episode.messages)
        self.tell(EpisodeStarted(episode.index, episode.example, tuple(episode.messages)))

    def generate(self, episodes: Sequence[_Episode]) -> list[Generation]:
        """Return the next generation of each episode."""
        sampling = self.settings.sampling(tuple(self.protocol.stop))
        requests = [
            GenerationRequest(
                messages=tuple(episode.messages),
                clips=tuple(view.pixels for view in episode.views),
                generations=tuple(turn.generation for turn in episode.turns),
                seed=derive_seed(self.seed, episode.example.id, episode.rollout_index, len(episode.turns)),
                sampling=sampling,
                example_id=episode.example.id,
                reply_prefix="" if episode.turns else episode.reply_prefix,
                give_up_at=self.give_up_at,
            )
            for episode in episodes
        ]
        try:
            generations = self.policy.generate(requests)
        except PolicyError as error:
            return [Generation(text="", finish="error", error=str(error)) for _ in requests]
        if len(generations) != len(requests):
            raise ValueError(
                f"policy {self.policy.name!r} must return one generation per request, "
                f"got {len(generations)} for {len(requests)}"
            )
        return list(generations)

    def take_turn(self, episode: _Episode, generation: Generation) -> Turn:
        """Read one reply, act on it, and set ``episode.stop`` if the episode ends with it."""
        if generation.finish == "error":
            message = generation.error or "the policy gave no reason"
            problem = self.lateness(message) if self.late else Problem(reason="policy", message=message)
            return self._end(episode, StopReason.INFRASTRUCTURE, problem, generation)
        parsed = parse_reply(
            generation.text, self.protocol, num_options=len(episode.example.options),
            closed=generation.finish == "length",
        )  # fmt: skip
        last = len(episode.turns) + 1 >= self.settings.num_turns
        if parsed.answer is not None:
            episode.stop = StopReason.ANSWERED
            return Turn(generation=generation, thought=parsed.thought, answer=parsed.answer)
        if parsed.call is not None:
            if last:
                episode.stop = StopReason.MAX_TURNS
                return Turn(generation=generation, thought=parsed.thought, call=parsed.call)
            return self._look(episode, generation, parsed.thought, parsed.call)
        problem = parsed.problem or Problem(reason="empty", message="neither a call nor an answer")
        if generation.finish == "length":
            return self._end(episode, StopReason.MAX_TOKENS, problem, generation, parsed.thought)
        if not last and self.settings.offers_tool and problem.reason in REFUSED_CALLS:
            turn = Turn(generation=generation, thought=parsed.thought, problem=problem)
            return self._observe(episode, turn, [], [problem])
        return self._end(episode, StopReason.FORMAT, problem, generation, parsed.thought)

    def _end(
        self, episode: _Episode, stop: StopReason, problem: Problem, generation: Generation, thought: str = ""
    ) -> Turn:
        episode.stop = stop
        episode.problem = problem
        return Turn(generation=generation, thought=thought, problem=problem)

    def _look(self, episode: _Episode, generation: Generation, thought: str, call: ToolCall) -> Turn:
        """Cut the crops of a call and add the observation."""
        turn = Turn(generation=generation, thought=thought, call=call)
        most = self.settings.max_segments_per_call
        if len(call.segments) > most:
            message = f"{len(call.segments)} segments in one call, allowed are at most {most}"
            return self._observe(episode, turn, [], [Problem(reason="too_many_segments", message=message)])
        views: list[View] = []
        problems: list[Problem] = []
        assert episode.reader is not None, "an episode without frames has no tool"
        try:
            with episode.reader as reader:  # closed again: a large batch would keep too many files open
                for segment in call.segments:
                    start, end = segment.start_seconds, segment.end_seconds
                    margin = margin_for(start, end, episode.last_views, self.settings.crop_margin_intervals)
                    found = crop_video(reader, start, end, self.settings, margin_seconds=margin)
                    if isinstance(found, Problem):
                        problems.append(found)
                    else:
                        views.append(found)
        except VideoError as error:
            episode.stop = StopReason.INFRASTRUCTURE
            episode.problem = Problem(reason="video", message=str(error))
            return turn.model_copy(update={"problem": episode.problem})
        return self._observe(episode, turn, views, problems)

    def _observe(
        self, episode: _Episode, turn: Turn, views: Sequence[View], problems: Sequence[Problem]
    ) -> Turn:
        """Add the reply and what came back to the history."""
        refs, errors = [view.ref for view in views], [problem.message for problem in problems]
        observation = observation_message(refs, errors, self.protocol, episode.example)
        reply = Message(role="assistant", parts=(Text(text=turn.generation.text),))
        episode.messages.extend((reply, observation))
        episode.views.extend(views)
        if views:
            episode.last_views = list(views)
        problem = turn.problem or (problems[0] if problems else None)
        return turn.model_copy(update={"observation": observation, "problem": problem})

    def finish(self, episode: _Episode) -> Trajectory:
        """Return the record of an episode that has ended."""
        assert episode.stop is not None
        episode.views.clear()  # the record holds no pixels
        episode.last_views = []
        settings = self.settings.model_dump(mode="json")
        if (of_policy := getattr(self.policy, "settings", None)) is not None:
            settings["policy"] = of_policy
        if episode.reply_prefix:
            settings["reply_prefix"] = episode.reply_prefix
        trajectory = Trajectory(
            example=episode.example,
            policy=self.policy.name,
            protocol=self.protocol.name,
            seed=self.seed,
            rollout_index=episode.rollout_index,
            prompt=tuple(episode.messages[: episode.num_prompt]),
            turns=tuple(episode.turns),
            stop=episode.stop,
            problem=episode.problem,
            frames_decoded=0 if episode.reader is None else episode.reader.frames_decoded,
            frames_cached=0 if episode.reader is None else episode.reader.frames_cached,
            seconds=time.perf_counter() - self.began,
            settings=settings,
        )
        self.tell(EpisodeFinished(episode.index, trajectory))
        return trajectory
