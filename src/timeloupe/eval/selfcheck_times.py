"""Do the times of frames reach the model, in seconds, on their own clock, and in their order?

One procedural clip is shown at three times: ``base``; ``slow``, the same frame numbers on a clock half as fast; and
``tripled``, three times the frame numbers on the same clock. Four events, one in each quarter, are asked for. A server
that ignores the clock cannot tell base from slow, one that drops times cannot tell any two. Where the model's answers
can be read they also say what it was told: seconds, numbers of frames, another clock, or the frames in reverse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from timeloupe.eval.selfcheck_probe import Asked, Change, Check, Clip, Seen, compare, question, resized
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import Protocol
from timeloupe.prompt.segments import parse_segments
from timeloupe.trajectory import Example, Problem
from timeloupe.world.render import NATIVE_SIZE, WorldRenderer
from timeloupe.world.script import ScriptSettings, WorldScript, make_script
from timeloupe.world.teacher import grounding_question, to_example

WORLD_SEED = 1_700_002
VIDEO_SECONDS = 64.0
NUM_FRAMES = 16
CLOCK = 8
"""Ticks a second of the base clip's times."""

FAR_SECONDS = 20_000.0
"""Times of this size are printed with more digits than those of the base clip."""

MIN_FITTING = 0.6
"""Share of the answers that an explanation must explain."""

MIN_ANSWERS = 6

IN_LINE = 0.97
"""Correlation of places and answers from which their order is believed: a chance order of four seldom has it."""


def base_clip(asked: Asked) -> tuple[WorldScript, Clip]:
    """Return a script with one event in each quarter, and its clip; the times need a clock of 8 ticks a second."""
    settings = ScriptSettings(min_seconds=VIDEO_SECONDS, max_seconds=VIDEO_SECONDS, distractor_rate=0.0)
    script = make_script(WORLD_SEED, 0, settings)
    step = VIDEO_SECONDS / NUM_FRAMES
    times = [step * (index + 0.5) for index in range(NUM_FRAMES)]
    times[3] += 1 / CLOCK
    pixels = resized(WorldRenderer(script).read(times), asked.size_of((NATIVE_SIZE, NATIVE_SIZE)))
    return script, Clip(pixels, tuple(times), VIDEO_SECONDS)


@dataclass(frozen=True, eq=False)
class Reading:
    """Replies to four questions about when, for one clip at three times and without its pictures.

    Attributes:
        asked: The server.
        examples: The questions, in the order of their events.
        places: Where the middle of each event lies, as a fractional frame number.
        clips: The clips by name: base, slow, tripled.
        replies: Replies by clip; ``again`` = base once more, ``blank`` = base with grey pictures.
        far: Base with far later times, the first question only.
    """

    asked: Asked
    examples: tuple[Example, ...]
    places: tuple[float, ...]
    clips: dict[str, Clip]
    replies: dict[str, list[Seen]]
    far: Seen

    def change(self, other: str) -> Change:
        """Return how the replies to another clip differ from those to base."""
        return compare(self.replies["base"], self.replies["again"], self.replies[other])

    @cached_property
    def middles(self) -> dict[str, list[float | None]]:
        """Middle of the segment that each reply names, by clip; ``None`` = it names none."""
        return {
            name: [middle_of(one, self.asked.protocol) for one in self.replies[name]] for name in self.clips
        }

    @property
    def num_answers(self) -> int:
        """Replies that name a segment."""
        return sum(one is not None for some in self.middles.values() for one in some)

    @property
    def is_sensitive(self) -> bool:
        """Whether replies depend on what is shown at all, so that no change means something."""
        found = [one for one in self.middles["base"] if one is not None]
        return self.change("blank").scores is True or (
            len(set(found)) >= 3 and len(found) == len(self.examples)
        )

    def share_explained(self, shown: Mapping[str, Sequence[float]]) -> float:
        """Return the share of answers that lie where they would if the frames bore the times ``shown``, by clip.

        An answer may be off by one and a half frames.
        """
        hits = [
            abs(found - np.interp(place, range(NUM_FRAMES), times)) <= 1.5 * abs(times[-1] - times[0]) / NUM_FRAMES
            for name, times in shown.items()
            for place, found in zip(self.places, self.middles[name], strict=True)
            if found is not None
        ]  # fmt: skip
        return float(np.mean(hits)) if len(hits) >= MIN_ANSWERS else 0.0

    @cached_property
    def explanation(self) -> str | None:
        """What the answers count: ``seconds``, ``ticks``, ``frames``; ``None`` = they do not tell."""
        seconds = {name: clip.at_seconds for name, clip in self.clips.items()}
        ticks = {"base": 8, "slow": 4, "tripled": 8}
        shown: dict[str, Mapping[str, Sequence[float]]] = {
            "seconds": seconds,
            "ticks": {name: [time * ticks[name] for time in times] for name, times in seconds.items()},
            "frames": {name: range(NUM_FRAMES) for name in seconds},
        }
        shares = {name: self.share_explained(some) for name, some in shown.items()}
        turned = {
            name: self.share_explained({key: list(times)[::-1] for key, times in some.items()})
            for name, some in shown.items()
        }
        best = max(shares, key=lambda name: max(shares[name], turned[name]))
        return best if max(shares[best], turned[best]) >= MIN_FITTING else None

    @cached_property
    def order(self) -> str | None:
        """``kept`` or ``reversed`` as the answers say; ``None`` = they do not tell."""
        votes: list[str | None] = []
        for some in self.middles.values():
            pairs = [(place, one) for place, one in zip(self.places, some, strict=True) if one is not None]
            if len({one for _, one in pairs}) < 3:
                votes.append(None)
                continue
            slope = float(np.corrcoef(np.array(pairs).T)[0, 1])
            votes.append("kept" if slope >= IN_LINE else "reversed" if slope <= -IN_LINE else None)
        return next((one for one in ("kept", "reversed") if votes.count(one) >= 2), None)


def middle_of(one: Seen, protocol: Protocol) -> float | None:
    """Return the middle of the one segment that a reply answers, in the unit of its numbers, or ``None``."""
    if one.error:
        return None
    answer = parse_reply(one.text, protocol, closed=one.cut).answer
    found = parse_segments(answer.text if answer is not None else one.text, "tolerant")
    if isinstance(found, Problem) or len(found) != 1:
        return None
    return (found[0].start_seconds + found[0].end_seconds) / 2


def read(asked: Asked) -> Reading:
    """Ask all that the checks of this module need."""
    script, base = base_clip(asked)
    times = base.at_seconds
    events = sorted(script.events, key=lambda event: event.segment.start_seconds)
    examples = tuple(
        to_example(grounding_question(script, event), id="selfcheck", video="selfcheck.mp4") for event in events
    )  # fmt: skip
    middles = [(event.segment.start_seconds + event.segment.end_seconds) / 2 for event in events]
    places = tuple(float(np.interp(middle, times, range(NUM_FRAMES))) for middle in middles)
    clips = {
        "base": base,
        "slow": base.timed([2 * time for time in times]),
        "tripled": base.timed([3 * time for time in times]),
    }
    grey = Clip(np.full_like(base.pixels, 128), times, base.end_seconds)
    shown = clips | {"again": base, "blank": grey}
    replies = {name: [asked.ask_about(one, clip) for one in examples] for name, clip in shown.items()}
    far = base.timed([FAR_SECONDS + time for time in times])
    return Reading(asked, examples, places, clips, replies, asked.ask_about(examples[0], far))


def check_pictures(reading: Reading) -> Check:
    """Check that what is on the pictures reaches the model."""
    name, failed = "pictures", next((one.error for one in reading.replies["base"] if one.error), None)
    if failed:
        return Check(
            name, "wrong", f"a request with {NUM_FRAMES} frames is refused: {failed}", "Every episode would be lost.",
            "Start the server with a model that takes pictures, or with a higher limit of them; see docs/serving.md.",
            "pictures_refused",
        )  # fmt: skip
    change = reading.change("blank")
    if change.words or change.scores:
        return Check(name, "ok", f"other pictures change {change.by}")
    if change.scores is False:
        return Check(
            name, "wrong", "grey pictures in place of all frames change neither replies nor log-probabilities",
            "The model answers without seeing the video.", "Ask whoever runs the server what becomes of pictures.",
            "pictures_ignored",
        )  # fmt: skip
    return Check(
        name, "cannot tell", "grey pictures in place of all frames change no reply, and there are no log-probabilities",
        do="Look at a few replies: a model that does not know these questions may answer them all alike.",
    )  # fmt: skip


def check_times(reading: Reading) -> list[Check]:
    """Check that times arrive (``timestamps``), on their clock (``clock``), as seconds (``seconds``)."""
    if any(one.error for one in reading.replies["base"]):
        return [Check(name, "cannot tell", "no frames arrive") for name in ("timestamps", "clock", "seconds")]
    arrive = _times_arrive(reading)
    if arrive is None and reading.explanation != "seconds":
        why = "replies, prompt tokens and log-probabilities do not depend enough on the input to tell"
        return [Check(name, "cannot tell", why, do=_ASK_MORE) for name in ("timestamps", "clock", "seconds")]
    if arrive is False and reading.explanation in ("frames", "ticks"):
        other = "not the times that were sent, see seconds"
        return [
            Check("timestamps", "cannot tell", other), Check("clock", "cannot tell", other),
            _frame_numbers(reading, "the times that were sent change nothing"),
        ]  # fmt: skip
    if arrive is False:
        dropped = Check(
            "timestamps", "wrong", "the same frames at other times give the same prompt tokens, replies and "
            "log-probabilities, as far as the server tells them", "The model guesses every time: groundings and crops "
            "are worth nothing.", _KEEP_TIMES[reading.asked.send], "times_dropped",
        )  # fmt: skip
        return [dropped, *(Check(name, "cannot tell", "no time arrives") for name in ("clock", "seconds"))]
    how = reading.change("tripled").by if arrive else "the places of its answers"
    return [Check("timestamps", "ok", f"other times change {how}"), *_clock_and_seconds(reading)]


_ASK_MORE = (
    "Serve it with log-probabilities and token counts (vLLM gives both), or check with a model that grounds."
)
_KEEP_TIMES = {
    "images": "Look at the server's chat template: text between pictures must stay where it is.",
    "video": "Start vLLM with --trust-request-mm-kwargs, or use --send images, which prints the times as text.",
}


def _times_arrive(reading: Reading) -> bool | None:
    change, base = reading.change("tripled"), reading.replies["base"][0]
    if change.seen:
        return True
    counts = (base.prompt_tokens, reading.far.prompt_tokens, reading.asked.hello.prompt_tokens)
    if None not in counts and not reading.far.error:
        if counts[0] != counts[1]:
            return True
        # Times are text of ours in this form, and longer numbers are more tokens in every tokenizer.
        if reading.asked.send == "images" and counts[0] != counts[2]:
            return False
    return False if reading.is_sensitive and change.seen is False else None


def _clock_and_seconds(reading: Reading) -> list[Check]:
    if reading.asked.send == "images":
        clock = Check("clock", "note", "does not apply: with --send images no clock is sent, times are text")
        return [clock, _seconds(reading)]
    change = reading.change("slow")
    if change.seen:
        clock = Check("clock", "ok", f"the same frame numbers on another clock change {change.by}")
        return [clock, _seconds(reading)]
    if change.seen is None or not reading.is_sensitive:
        why = "the same frame numbers on another clock change nothing, but little does"
        return [Check("clock", "cannot tell", why, do=_ASK_MORE), _seconds(reading)]
    if reading.explanation == "ticks":
        return [
            Check("clock", "cannot tell", "no clock is used, see seconds"),
            _frame_numbers(reading, "the same frame numbers on another clock change nothing"),
        ]
    ignored = Check(
        "clock", "wrong", "the same frame numbers on a clock half as fast give the same prompt tokens, replies and "
        "log-probabilities: fps is ignored", "Every time is wrong by a factor that depends on the video.",
        "Start vLLM with --trust-request-mm-kwargs, or use --send images.", "clock_ignored",
    )  # fmt: skip
    return [ignored, Check("seconds", "cannot tell", "the clock is ignored")]


def _seconds(reading: Reading) -> Check:
    share = {"seconds": "seconds", "ticks": "frame numbers", "frames": "frame numbers", None: ""}[
        reading.explanation
    ]
    if share == "frame numbers":
        return _frame_numbers(reading, "times arrive")
    if share == "seconds":
        return Check(
            "seconds",
            "ok",
            f"the model places what it is asked for in seconds ({reading.num_answers} answers)",
        )
    if reading.asked.send == "images":
        return Check("seconds", "ok", "the times are text of ours, and the text arrives")
    return Check("seconds", "ok", "numbers of frames and their clock both count, so what arrives are seconds")


def _frame_numbers(reading: Reading, before: str) -> Check:
    return Check(
        "seconds", "wrong", f"{before}, and {reading.num_answers} answers lie at numbers of frames, not at seconds",
        "Every grounding is wrong by a factor, and crops show another part of the video.",
        "With --send video serve with vLLM and --trust-request-mm-kwargs; else use --send images. If the model itself "
        "counts frames, give it another --time-format.", "indices_for_seconds",
    )  # fmt: skip


PALETTE = {
    "red": (220, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 220), "yellow": (240, 220, 40),
    "black": (10, 10, 10), "white": (245, 245, 245),
}  # fmt: skip
ORDERS = (("blue", "yellow", "red", "green"), ("white", "red", "black", "blue"))


def check_order(reading: Reading) -> Check:
    """Check that frames arrive in their order: by where events are found, else by colours that are to be named."""
    found, how = reading.order, "events that follow each other are found in that order"
    if found is None and not any(one.error for one in reading.replies["base"]):
        found, how = _colours_read(reading.asked), "colours shown one after another are named in that order"
    if found == "kept":
        return Check("order", "ok", how)
    if found in ("reversed", "shuffled"):
        said = "come back in reverse" if found == "reversed" else "come back in another order, twice"
        return Check(
            "order", "wrong", f"things shown one after another {said}", "Times belong to other frames: groundings, "
            "crops and every question about before and after are wrong.",
            "Look at what stands before the server: pictures must stay in the order of the request.", f"order_{found}",
        )  # fmt: skip
    return Check(
        "order", "cannot tell", "the model neither finds events in order or in reverse, nor names colours in a row",
        do="Check with a model that reads pictures well, behind the same server.",
    )  # fmt: skip


def _colours_read(asked: Asked) -> str | None:
    """Return how the model names colours shown in a row: kept, reversed, shuffled; ``None`` = it does not name them."""
    outcomes: list[str | None] = []
    width, height = asked.size_of((NATIVE_SIZE, NATIVE_SIZE))
    for order in ORDERS:
        frames = [
            np.full((height, width, 3), PALETTE[colour], dtype=np.uint8) for colour in order for _ in (0, 1)
        ]
        clip = Clip(np.stack(frames), tuple(float(index) for index in range(len(frames))), float(len(frames)))
        text = "The video shows four colours, one after another. Name the four colours in the order in which they come."
        reply = asked.ask_about(question(text), clip)
        answer = parse_reply(reply.text, asked.protocol, closed=reply.cut).answer if not reply.error else None
        words = (answer.text if answer is not None else reply.text).lower()
        places = {colour: words.find(colour) for colour in order}
        read_as = tuple(sorted(order, key=places.__getitem__))
        if -1 in places.values():
            outcomes.append(None)
        else:
            outcomes.append(
                "kept" if read_as == order else "reversed" if read_as == order[::-1] else "shuffled"
            )
    return outcomes[0] if len(set(outcomes)) == 1 else None
