"""What a self-check is made of: requests sent as an evaluation sends them, and how their replies are compared.

Nothing is known of the model behind a server. So what is asked twice tells how much replies wobble by themselves, and a
change of the input counts as seen by the model if prompt tokens, replies or log-probabilities change by more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import MissingError
from timeloupe.policy.base import GenerationRequest, Policy, Sampling
from timeloupe.prompt.build import first_messages
from timeloupe.prompt.protocol import Protocol
from timeloupe.trajectory import Example, FrameRef, Generation, Message
from timeloupe.video.image import fit_size

Verdict = Literal["ok", "note", "wrong", "cannot tell"]

MIN_SCORE_GAP = 1e-5
"""Log-probabilities that differ by less are the same."""

MAX_SCORE_NOISE = 0.5
"""Where one request asked twice differs by more, log-probabilities tell nothing."""


@dataclass(frozen=True)
class Check:
    """What one check came to.

    Attributes:
        name: The question in a word or two.
        verdict: ``note`` = not as a reader may expect, but no score is wrong for it.
        seen: What was seen, in a sentence.
        means: What it means for a score; empty where all is well.
        do: What to do; empty where there is nothing to do.
        finding: A stable word for what was found, such as ``clock_ignored``; ``None`` = nothing.
    """

    name: str
    verdict: Verdict
    seen: str
    means: str = ""
    do: str = ""
    finding: str | None = None


@dataclass(frozen=True)
class Seen:
    """One reply.

    Attributes:
        text: As the policy hands it on.
        prompt_tokens: As the server counted them, or ``None``.
        ids: Token ids, or ``None``.
        scores: Their log-probabilities, or ``None``.
        error: Why there is no reply, or ``None``.
        cut: It was ended by the limit of tokens.
    """

    text: str
    prompt_tokens: int | None = None
    ids: tuple[int, ...] | None = None
    scores: tuple[float, ...] | None = None
    error: str | None = None
    cut: bool = False


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames with their times, ready to be shown.

    Attributes:
        pixels: (N, H, W, 3) uint8 RGB.
        at_seconds: Time of each frame, ascending.
        end_seconds: Where the video ends.
    """

    pixels: np.ndarray
    at_seconds: tuple[float, ...]
    end_seconds: float

    def ref(self, view: Literal["skim", "crop"] = "skim") -> FrameRef:
        """Return the reference that stands for it in a message."""
        height, width = self.pixels.shape[1:3]
        return FrameRef(
            video="selfcheck.mp4", view=view, start_seconds=0.0, end_seconds=self.end_seconds,
            at_seconds=self.at_seconds, size_wh=(width, height),
        )  # fmt: skip

    def timed(self, at_seconds: Sequence[float]) -> Clip:
        """Return the same pictures at other times."""
        scale = at_seconds[-1] / self.at_seconds[-1]
        return Clip(self.pixels, tuple(at_seconds), max(self.end_seconds * scale, at_seconds[-1] + 0.5))


MakePolicy = Callable[..., Policy]
"""Makes the policy that asks the server; takes ``logprobs`` (bool) and ``extra_body`` (fields of every request)."""


class Asked:
    """The server, asked as an evaluation with these settings asks it; every request is waited for before the next.

    Args:
        make: Makes the policy.
        protocol: How the model is spoken to.
        settings: What an episode may see and do.
        send: ``images`` or ``video``, as the policy sends frames.
        system_prompt: Replaces the protocol's.

    Raises:
        MissingError: There is no server, or it answers a plain question with an error.
    """

    def __init__(
        self,
        make: MakePolicy,
        protocol: Protocol,
        settings: EpisodeSettings,
        *,
        send: Literal["images", "video"],
        system_prompt: str | None = None,
    ) -> None:
        self.make = make
        self.protocol = protocol
        self.settings = settings
        self.send = send
        self.system_prompt = system_prompt
        self.num_requests = 0
        self.refuses_logprobs = False
        self.policy = make(logprobs=True, extra_body=None)
        self.hello = self.ask(self.messages(question("Which digit comes after 4?"), None), max_new_tokens=8)
        if self.hello.error:
            self.policy = make(logprobs=False, extra_body=None)
            plain = self.ask(self.messages(question("Which digit comes after 4?"), None), max_new_tokens=8)
            if plain.error:
                raise MissingError(f"no server to check: {plain.error}")
            self.refuses_logprobs, self.hello = True, plain

    def messages(self, example: Example, clip: Clip | None, *, tools: bool = False) -> tuple[Message, ...]:
        """Return the first messages of an episode."""
        return first_messages(
            example, None if clip is None else clip.ref(), self.protocol, tools=tools, system_prompt=self.system_prompt
        )  # fmt: skip

    def ask(
        self,
        messages: Sequence[Message],
        clips: Sequence[Clip] = (),
        *,
        seed: int = 0,
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        stop: tuple[str, ...] = (),
        policy: Policy | None = None,
    ) -> Seen:
        """Return the reply to a chat; ``max_new_tokens`` is that of the settings where none is given."""
        limit = max_new_tokens or self.settings.max_new_tokens
        request = GenerationRequest(
            messages=tuple(messages), clips=tuple(clip.pixels for clip in clips), seed=seed,
            sampling=Sampling(temperature=temperature, max_new_tokens=limit, stop=stop),
        )  # fmt: skip
        self.num_requests += 1
        return _seen((policy or self.policy).generate([request])[0])

    def ask_about(self, example: Example, clip: Clip) -> Seen:
        """Return the greedy reply to a question about a clip, in a single pass."""
        return self.ask(self.messages(example, clip), [clip], stop=tuple(self.protocol.stop))

    def ask_raw(self, messages: Sequence[Message], clips: Sequence[Clip], stop: tuple[str, ...]) -> Seen:
        """Return the reply as the server gives it: it is told of the stop strings, the policy that mends is not."""
        policy = self.make(logprobs=False, extra_body={"stop": list(stop)})
        return self.ask(messages, clips, policy=policy)

    def size_of(self, size_wh: tuple[int, int], max_pixels: int | None = None) -> tuple[int, int]:
        """Return the size in which an episode shows frames of a video of ``size_wh``; of a first look where no area is
        given."""
        settings = self.settings
        return settings.frame_size_wh or fit_size(
            size_wh, min_pixels=settings.min_pixels, max_pixels=max_pixels or settings.skim_pixels,
            multiple=settings.size_multiple,
        )  # fmt: skip


def _seen(one: Generation) -> Seen:
    return Seen(
        one.text, one.usage.prompt_tokens, one.token_ids, one.logprobs,
        (one.error or "no reason given") if one.finish == "error" else None, one.finish == "length",
    )  # fmt: skip


def question(text: str) -> Example:
    """Return an open question."""
    return Example(id="selfcheck", video="selfcheck.mp4", question=text, task="open")


def resized(pixels: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Return frames (N, H, W, 3) in another size."""
    if (pixels.shape[2], pixels.shape[1]) == size_wh:
        return pixels
    return np.stack(
        [np.asarray(Image.fromarray(one).resize(size_wh, Image.Resampling.BOX)) for one in pixels]
    )


@dataclass(frozen=True)
class Change:
    """How replies to inputs that differ in one thing differ; ``None`` = that tells nothing here.

    Attributes:
        tokens: Prompt tokens differ.
        words: Greedy replies differ.
        scores: Log-probabilities differ.
    """

    tokens: bool | None
    words: bool | None
    scores: bool | None

    @property
    def seen(self) -> bool | None:
        """Whether the change reached the model; ``None`` = nothing here can tell."""
        known = [one for one in (self.tokens, self.words, self.scores) if one is not None]
        return any(known) if known else None

    @property
    def by(self) -> str:
        """What differs, in words."""
        names = {"tokens": "the prompt tokens", "words": "the replies", "scores": "the log-probabilities"}
        return " and ".join(text for name, text in names.items() if getattr(self, name)) or "nothing"


def compare(first: Sequence[Seen], again: Sequence[Seen], other: Sequence[Seen]) -> Change:
    """Return how ``other`` differs from ``first``.

    Args:
        first: Replies to some inputs.
        again: Replies to the very same inputs, asked once more.
        other: Replies to the same inputs with one thing changed.
    """
    rows = [row for row in zip(first, again, other, strict=True) if not any(one.error for one in row)]
    triples = [tuple(one.prompt_tokens for one in row) for row in rows]
    counts = [row for row in triples if None not in row and row[0] == row[1]]
    steady = [(one, three) for one, two, three in rows if one.text == two.text]
    noise = [gap for one, two, _ in rows if (gap := score_gap(one, two)) is not None]
    gaps = [gap for one, _, three in rows if (gap := score_gap(one, three)) is not None]
    told = bool(noise) and bool(gaps) and max(noise) < MAX_SCORE_NOISE
    return Change(
        tokens=any(row[0] != row[2] for row in counts) if counts else None,
        words=any(one.text != three.text for one, three in steady) if steady else None,
        scores=max(gaps) > max(MIN_SCORE_GAP, 5 * max(noise)) if told else None,
    )


def score_gap(one: Seen, two: Seen) -> float | None:
    """Return the largest difference of log-probabilities up to where the tokens part; ``None`` = there are none."""
    if not (one.ids and two.ids and one.scores and two.scores):
        return None
    gap = 0.0
    for first, second, score, other in zip(one.ids, two.ids, one.scores, two.scores, strict=False):
        if first != second:
            return max(gap, 1.0)
        gap = max(gap, abs(score - other))
    return gap
