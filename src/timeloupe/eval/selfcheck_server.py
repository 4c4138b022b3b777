"""What a server does around the model: stop strings, seeds, how much fits into a request, and whole episodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from timeloupe.environment.rollout import play
from timeloupe.eval.selfcheck_probe import Asked, Check, Clip, Seen, question
from timeloupe.prompt.build import observation_message, write_call
from timeloupe.trajectory import Message, Segment, StopReason, Text, Trajectory
from timeloupe.world.encode import make_videos
from timeloupe.world.script import ScriptSettings

DEFAULT_STOPS = ("</tool_call>", "</answer>")
REPLY_TOKENS = 96
VIDEO_SEED = 1_700_011
SHOWN_WH = (1280, 720)
"""Size of the video that the largest request stands for."""

MAX_FRAMES = 2048
"""More frames than that are not made for one request: they would lie in memory all at once."""

MIN_KEPT = 0.95
"""With a smaller share of the tokens that the frames should take, some were dropped."""

MAX_CHANCE = 1e-3
"""Replies that would be alike by chance less often than that are alike for a reason."""


def check_usage(asked: Asked) -> Check:
    """Check that the server counts tokens."""
    if asked.hello.prompt_tokens is not None:
        return Check("usage", "ok", "the server counts the tokens of prompt and reply")
    return Check(
        "usage", "note", "the server does not say how many tokens it read", "Scores are right; a run's card has no "
        "tokens and no price.", "Turn usage on in the server if you want them.", "usage_missing",
    )  # fmt: skip


def check_logprobs(asked: Asked) -> Check:
    """Check that the server gives token ids with log-probabilities."""
    if asked.hello.ids and asked.hello.scores:
        return Check("log-probs", "ok", "the server gives token ids and log-probabilities")
    how = "refuses requests for" if asked.refuses_logprobs else "does not give both of"
    return Check(
        "log-probs", "note", f"the server {how} token ids and log-probabilities", "Scores are right; training and "
        "whatever compares log-probabilities cannot use this server.", "Do not ask for --logprobs.", "logprobs_missing",
    )  # fmt: skip


def check_stop(asked: Asked, clip: Clip, about: str) -> Check:
    """Check what becomes of the string that ends a reply.

    Args:
        asked: The server.
        clip: Any clip.
        about: A question about it that the model answers with some words.
    """
    name, messages = "stop string", asked.messages(question(about), clip)
    whole = asked.ask(messages, [clip], max_new_tokens=REPLY_TOKENS)
    middle = _middle_of(whole.text)
    if whole.error or middle is None:
        return Check(name, "cannot tell", f"the reply {whole.text!r} is too short to be stopped inside")
    before = whole.text[: whole.text.index(middle)]
    raw = asked.ask_raw(messages, [clip], (middle,))
    used = "" if asked.protocol.stop else "; this protocol sends none, so no score depends on it"
    if raw.error:
        return Check(
            name, "wrong", f"a request with a stop string is refused: {raw.error}", "Every episode would be lost.",
            "Use a protocol without stop strings, or another server.", "stop_refused",
        )  # fmt: skip
    if raw.text == before + middle:
        return Check(name, "ok", f"the stop string is kept{used}")
    if raw.text.rstrip() != before.rstrip() and not raw.text.startswith(before + middle):
        return Check(name, "cannot tell", "the same request gives another reply, so its end says nothing")
    stripped = raw.text.rstrip() == before.rstrip()
    seen = "the stop string is cut off" if stripped else "the stop string is ignored, the model writes on"
    finding = "stop_stripped" if stripped else "stop_ignored"
    stops = tuple(asked.protocol.stop) or DEFAULT_STOPS
    ends = [whole.text.index(one) + len(one) for one in stops if one in whole.text]
    if not ends:
        return Check(
            name, "note", f"{seen}; the model writes none of {', '.join(stops)}, so whether timeloupe mends that was "
            f"not seen{used}", "As long as replies are read (see grammar) scores are right.", "", finding,
        )  # fmt: skip
    mended = asked.ask(messages, [clip], max_new_tokens=REPLY_TOKENS, stop=stops)
    if mended.text == whole.text[: min(ends)]:
        return Check(name, "note", f"{seen}, and timeloupe mends it{used}", "Scores are right.", "", finding)
    return Check(
        name, "wrong", f"{seen}, and timeloupe cannot mend it: {mended.text[-60:]!r}", "Replies without their closing "
        "tag cannot be read and count as wrong.", "Let the server keep the string (vLLM: include_stop_str_in_output) "
        "or name it in stop_reason.", finding,
    )  # fmt: skip


def _middle_of(text: str) -> str | None:
    """Return a piece from inside a reply to stop at, found nowhere before: a closing tag or a word."""
    if "</think>" in text[1:-8]:
        return "</think>"
    words = text.split()
    for word in words[len(words) // 3 : -1]:
        if text.index(word) > 0 and len(word) > 1:
            return word
    return None


def check_seed(asked: Asked, clip: Clip) -> Check:
    """Check that a seed repeats a reply, and that other seeds give others."""
    # No model is sure of the answer, so that replies are as different as can be.
    name, messages, seeds = "seed", asked.messages(question("Name ten random words."), clip), range(101, 105)
    for temperature in (1.0, 2.0):
        pairs = [
            [
                asked.ask(messages, [clip], seed=seed, temperature=temperature, max_new_tokens=REPLY_TOKENS // 2)
                for _ in (0, 1)
            ]
            for seed in seeds
        ]  # fmt: skip
        failed = next((one.error for pair in pairs for one in pair if one.error), None)
        if failed:
            return Check(
                name, "cannot tell", f"a request at temperature {temperature:g} is refused: {failed}"
            )
        apart = sum(one.text != two.text for one, two in pairs)
        if apart:
            return Check(
                name, "wrong", f"{apart} of {len(pairs)} seeds give two replies each at temperature {temperature:g}",
                "No sampled score can be repeated, and a resumed run is not the run that was broken off.",
                "Evaluate at temperature 0, or with --repeats and intervals; on a GPU serve without batching of "
                "several requests.", "seed_ignored",
            )  # fmt: skip
        if len({one.text for one, _ in pairs}) > 1:
            return Check(
                name, "ok", f"{len(pairs)} seeds repeat their replies at temperature {temperature:g}"
            )
        if _chance(pairs[0][0]) ** (len(pairs) - 1) < MAX_CHANCE and temperature == 1.0:
            break
    else:
        return Check(
            name, "cannot tell", "all seeds give one reply: the model is too sure, or seeds change nothing"
        )
    return Check(
        name, "wrong", "all seeds give one and the same reply, which by its log-probabilities would be rare",
        "Repeats of a question are copies: intervals over them are too narrow.",
        "Look whether the server passes seed and temperature on.", "seed_ignored",
    )  # fmt: skip


def _chance(one: Seen) -> float:
    return 1.0 if one.scores is None else math.exp(sum(one.scores))


def check_room(asked: Asked) -> list[Check]:
    """Check that the first look of the largest episode fits (``room``), and all its crops too (``second look``).

    With them the whole reply has to fit, as long as the settings allow it to be.
    """
    settings = asked.settings
    most = settings.skim_frames
    reply = _room(asked, most)
    found = [_room_found(asked, most, reply)]
    if settings.num_turns < 2:
        return [*found, Check("second look", "note", "does not apply: episodes have one turn")]
    if found[0].verdict == "wrong":
        return [*found, Check("second look", "cannot tell", "the first look does not fit")]
    looks, each, frames = settings.num_turns - 1, settings.max_segments_per_call, settings.crop_max_frames
    total = most + looks * each * frames
    if total > MAX_FRAMES:
        seen = f"an episode may show {total} frames, and a check makes at most {MAX_FRAMES} at once"
        return [*found, Check("second look", "cannot tell", seen, do="Lower --max-turns to check what fits.")]
    reply = _room(asked, most, [[frames] * each] * looks)
    asks = f"{_counted(looks, 'turn')} of {_counted(each, 'crop')} of {frames} frames"
    if not reply.error:
        tokens = "" if reply.prompt_tokens is None else f", {reply.prompt_tokens} prompt tokens"
        return [*found, Check("second look", "ok", f"{asks} fit too{tokens}")]
    small = _room(asked, 2, [[2]])
    if small.error:
        return [*found, _no_second_look(small.error)]
    fewer = ""
    if each > 1:
        fits = not _room(asked, most, [[frames]] * looks).error
        with_one = f"1 crop in each of {_counted(looks, 'turn')}"
        fewer = f"; with {with_one} they do" if fits else f"; nor does {with_one}"
    return [
        *found,
        Check(
            "second look", "wrong", f"{most} frames and {asks} do not fit{fewer}: {reply.error}", "Episodes that look "
            "as often and at as much as they may are lost.", "Lower --frames, --max-turns or --max-new-tokens, or "
            "raise the server's limits (vLLM: --max-model-len, --limit-mm-per-prompt).", "looks_do_not_fit",
        ),
    ]  # fmt: skip


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _no_second_look(error: str) -> Check:
    return Check(
        "second look", "wrong", f"a request with two clips is refused: {error}", "Every episode that looks is lost.",
        "Install timeloupe beside the server for --send video, raise its limit of clips, or use --send images.",
        "second_look_refused",
    )  # fmt: skip


def _room_found(asked: Asked, most: int, reply: Seen) -> Check:
    if reply.error:
        fits, last = _bisect(asked, most)
        what = f"{fits} frames of the first look fit" if fits else "not even 2 frames fit"
        tokens = f" ({last.prompt_tokens} prompt tokens)" if last is not None and last.prompt_tokens else ""
        return Check(
            "room", "wrong", f"{what}{tokens}, the settings have {most}: {reply.error}", "Questions about long videos "
            "are lost.", (f"Use --frames {fits}, or raise" if fits else "Raise") + " the server's limits.",
            "frames_do_not_fit",
        )  # fmt: skip
    few, fewer = _room(asked, 4), _room(asked, 2)
    if few.prompt_tokens is None or fewer.prompt_tokens is None or reply.prompt_tokens is None:
        return Check(
            "room",
            "cannot tell",
            f"{most} frames are accepted, but without token counts nobody knows if all are read",
        )
    each = (few.prompt_tokens - fewer.prompt_tokens) / 2
    if each <= 0:
        return Check(
            "room", "cannot tell", f"{most} frames are accepted, but the token count does not grow with them"
        )
    kept = 2 + (reply.prompt_tokens - fewer.prompt_tokens) / each
    if kept < MIN_KEPT * most:
        return Check(
            "room", "wrong", f"{most} frames are accepted, but the prompt has the tokens of about {kept:.0f}: frames "
            "are dropped, or made smaller, without a word", "The model does not see the whole video, or sees less of "
            "it than a card says.", f"Use --frames {max(2, math.floor(kept))}, or raise the server's limit of frames "
            "or pixels.", "frames_dropped",
        )  # fmt: skip
    return Check("room", "ok", f"{most} frames fit, {reply.prompt_tokens} prompt tokens, {each:g} a frame")


def _bisect(asked: Asked, most: int) -> tuple[int, Seen | None]:
    """Return the largest number of frames that is accepted, 0 = none of 2 and more, and the reply to it."""
    low, high, last = 0, most, None
    while high - low > max(2, most // 32):
        middle = max(2, (low + high) // 4 * 2)
        if middle in (low, high):
            break
        reply = _room(asked, middle)
        if reply.error:
            high = middle
        else:
            low, last = middle, reply
    return low, last


def _room(asked: Asked, frames: int, looks: Sequence[Sequence[int]] = ()) -> Seen:
    """Return the reply to the last turn of an episode: as long as any, with the protocol's stops.

    Args:
        asked: The server.
        frames: Of the first look.
        looks: For each turn that looked, the number of frames of each of its crops.
    """
    settings = asked.settings
    first = _moving(asked, frames, settings.skim_pixels, 0)
    clips = [first]
    asks = question("What does the video show?")
    messages = list(asked.messages(asks, first, tools=bool(looks)))
    for look in looks:
        crops = [
            _moving(asked, count, settings.crop_pixels, len(clips) + at) for at, count in enumerate(look)
        ]
        segments = [
            Segment(start_seconds=crop.at_seconds[0], end_seconds=crop.at_seconds[-1]) for crop in crops
        ]
        called = f"<think></think>{write_call(segments, asked.protocol)}"
        messages += [
            Message(role="assistant", parts=(Text(text=called),)),
            observation_message([crop.ref("crop") for crop in crops], [], asked.protocol, asks),
        ]
        clips += crops
    return asked.ask(messages, clips, stop=tuple(asked.protocol.stop))


def _moving(asked: Asked, count: int, max_pixels: int, number: int) -> Clip:
    """Return ``count`` frames of a large video, no two of them alike, in the size in which they would be shown."""
    width, height = asked.size_of(SHOWN_WH, max_pixels)
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    pixels = np.empty((count, height, width, 3), dtype=np.uint8)
    for index in range(count):
        pixels[index] = np.roll(picture, 7 * index + number, axis=1)
    # Four digits each, so that every frame takes the same number of tokens.
    return Clip(pixels, tuple(1000.0 + index for index in range(count)), 1000.0 + count)


def check_grammar(asked: Asked, folder: Path) -> Check:
    """Check that replies can be read, by whole episodes over a real video.

    Args:
        asked: The server.
        folder: Where the video may be written.
    """
    (video,) = make_videos(
        folder,
        seed=VIDEO_SEED,
        num_videos=1,
        settings=ScriptSettings(min_seconds=64, max_seconds=64),
        per_task=2,
    )
    examples = [one.model_copy(update={"video": str(video.path)}) for one in video.examples]
    played = play(
        examples, asked.policy, asked.protocol, asked.settings, seed=0, system_prompt=asked.system_prompt
    )
    asked.num_requests += sum(len(one.turns) for one in played)
    return grammar_of(played)


def grammar_of(played: Sequence[Trajectory]) -> Check:
    """Return what the ends of some episodes say about the protocol."""
    name, count = "grammar", len(played)
    faults = [one for one in played if one.stop is StopReason.INFRASTRUCTURE]
    broken = [one for one in played if one.stop in (StopReason.FORMAT, StopReason.MAX_TOKENS)]
    looks = sum(any(turn.call for turn in one.turns) for one in played)
    if faults:
        why = faults[0].problem.message if faults[0].problem else "no reason"
        return Check(
            name, "wrong", f"{len(faults)} of {count} episodes over a real video were lost: {why}", "So will those of "
            "a benchmark.", "Mend that first.", "episodes_lost",
        )  # fmt: skip
    if not broken:
        return Check(name, "ok", f"{count} of {count} episodes can be read, {looks} of them looked closer")
    first = broken[0]
    why = first.problem.message if first.problem else "no reason"
    seen = f"{len(broken)} of {count} episodes cannot be read: {why}"
    means = "They count as wrong answers, whatever the model knows."
    do = f"See `timeloupe ask` with these flags; the reply began {first.turns[-1].generation.text[:60]!r}. "
    if 2 * len(broken) >= count:
        do += (
            "Use the --protocol, --send and --time-format that the checkpoint was trained with, or raise "
            "--max-new-tokens."
        )
        return Check(name, "wrong", seen, means, do, "grammar_broken")
    return Check(name, "note", seen, means, do.strip(), "grammar_slips")
