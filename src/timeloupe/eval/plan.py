"""What an evaluation will take before it is run: frames, tokens, context, memory, time, money. Computed, not measured.

Exact, where videos and tokenizer are at hand: frames and tokens of every first turn. Bounds: the context of an episode
that looks as often, as widely and writes as much as it may. Assumed: how often the model looks and how much it writes
on average. Left out: decoding of videos, the network, memory that an engine keeps besides weights and cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import frame_size, skim_span
from timeloupe.errors import VideoError, boundary
from timeloupe.eval.files.find_videos import is_file
from timeloupe.eval.plan_tokens import Ruler
from timeloupe.eval.questions import Questions
from timeloupe.prompt.build import first_messages, observation_message
from timeloupe.prompt.protocol import Protocol
from timeloupe.trajectory import Example, FrameRef, Message, Text, Trajectory
from timeloupe.video.index import load_index
from timeloupe.video.probe import VideoInfo, info_of
from timeloupe.video.sampling import crop_times, nearest_keyframes

if TYPE_CHECKING:
    from timeloupe.model.sizes import ModelSizes

ASSUMED_WH = (1280, 720)
ASSUMED_FPS = 30.0

ERROR_CHARACTERS = 110
"""Of the longest sentence that tells a model why a segment cannot be shown."""


@dataclass(frozen=True)
class Assumed:
    """What no flag of an evaluation says.

    Attributes:
        looks: Mean turns of an episode that look at one crop.
        reply_tokens: Mean tokens of a reply.
        gpu: Key of ``model.sizes.GPUS``.
        gpus: How many share the model.
        weight_bytes: Bytes of a weight and of a number in the cache.
        utilisation: Share of the peak that large products reach, in (0, 1].
        bandwidth_share: Share of the memory bandwidth that decoding reaches, in (0, 1].
        rates: Prompt and reply tokens a second that a server is known to reach; ``None`` = computed for the GPU.
        price: US dollars for a million prompt and reply tokens, or ``None``.
    """

    looks: float = 1.0
    reply_tokens: int = 150
    gpu: str = "h100"
    gpus: int = 1
    weight_bytes: int = 2
    utilisation: float = 0.35
    bandwidth_share: float = 0.6
    rates: tuple[float, float] | None = None
    price: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("looks", "reply_tokens", "gpus"):
            least = 0 if name == "looks" else 1
            if not least <= getattr(self, name) < float("inf"):
                raise boundary(f"--{name.replace('_', '-')}", getattr(self, name), f">= {least}")
        for name in ("utilisation", "bandwidth_share"):
            if not 0 < getattr(self, name) <= 1:
                raise boundary(name, getattr(self, name), "above 0, at most 1")
        if self.rates is not None and not all(0 < one < float("inf") for one in self.rates):
            raise boundary("--tokens-per-second", self.rates, "two numbers above 0")
        if self.price is not None and not all(0 <= one < float("inf") for one in self.price):
            raise boundary("--price", self.price, "two numbers >= 0")


@dataclass(frozen=True)
class Shown:
    """A video as an episode shows it.

    Attributes:
        source: ``file`` = measured, ``annotation`` = its length stands there, ``nothing`` = it fills the first look.
        skim: The first look; ``None`` = no frames are shown.
        crop: The longest crop there can be.
        seconds: Its length.
    """

    source: Literal["file", "annotation", "nothing"]
    skim: FrameRef | None
    crop: FrameRef
    seconds: float


@dataclass(frozen=True)
class Tokens:
    """Tokens of one question's episode.

    Attributes:
        skim_frames: Frames of the first look.
        visual: Tokens of their pictures.
        prompt: Of the first turn, everything.
        look: What a turn that looks at one crop adds, without the reply.
        widest_look: The same for the largest call there can be.
    """

    skim_frames: int
    visual: int
    prompt: int
    look: int
    widest_look: int


def shown_of(questions: Questions, settings: EpisodeSettings) -> tuple[dict[str, Shown], dict[str, str]]:
    """Return every video as it is shown, by the path of its example, and why some cannot be read.

    Raises:
        ConfigError: The first look begins behind the end of a video.
    """
    lengths = {
        example.video: row.duration_seconds
        for example, row in zip(questions.examples, questions.rows, strict=True)
    }
    found: dict[str, Shown] = {}
    broken: dict[str, str] = {}
    for video, seconds in lengths.items():
        if not is_file(Path(video)):
            found[video] = _imagined(video, seconds, settings)
            continue
        try:
            index = load_index(video, deadline_seconds=settings.video_deadline_seconds)
            info = info_of(index, video)
            start, end, times = skim_span(info, settings)
            if settings.skim_approximate == "keyframes":
                keyframes = [float(time) for time in index.keyframe_times if start <= time < end]
                times = list(nearest_keyframes(times, keyframes))
            displayed = tuple(float(index.times_N[frame]) for frame in index.frames_at(times))
        except (VideoError, ValueError) as error:
            broken[video] = str(error)
            continue
        found[video] = _shown("file", info, settings, displayed, start, end)
    return found, broken


def _imagined(video: str, seconds: float | None, settings: EpisodeSettings) -> Shown:
    """A video that is not there: as long as the annotation says, else as long as fills the first look."""
    known = seconds is not None and 0 < seconds < float("inf")
    long = settings.skim_start_seconds + settings.skim_frames / settings.skim_fps
    duration = seconds if known and seconds is not None else long
    info = VideoInfo(
        video, duration, ASSUMED_FPS, max(1, round(duration * ASSUMED_FPS)), ASSUMED_WH, 0, False, "", "", 0.0, "", 1,
        True, Fraction(1),
    )  # fmt: skip
    start, end, times = skim_span(info, settings)
    return _shown("annotation" if known else "nothing", info, settings, tuple(times), start, end)


def _shown(
    source: Literal["file", "annotation", "nothing"], info: VideoInfo, settings: EpisodeSettings,
    times: tuple[float, ...], start: float, end: float,
) -> Shown:  # fmt: skip
    duration = info.duration_seconds
    largest = crop_times(
        0.0, duration, fps=settings.crop_fps, min_frames=settings.crop_min_frames, max_frames=settings.crop_max_frames,
        native_fps=info.fps,
    )  # fmt: skip
    skim = FrameRef(
        video=info.path, view="skim", start_seconds=start, end_seconds=end, at_seconds=times,
        size_wh=frame_size(info, settings.skim_pixels, settings),
    )  # fmt: skip
    # All at the end of the video, where times have most digits.
    late = tuple(max(0.0, duration - 0.001 * (len(largest) - number)) for number in range(len(largest)))
    crop = FrameRef(
        video=info.path, view="crop", start_seconds=0.0, end_seconds=duration, at_seconds=late,
        size_wh=frame_size(info, settings.crop_pixels, settings),
    )  # fmt: skip
    return Shown(source, None if settings.question_only else skim, crop, duration)


def tokens_of(
    example: Example,
    shown: Shown,
    protocol: Protocol,
    settings: EpisodeSettings,
    ruler: Ruler,
    system_prompt: str | None = None,
) -> Tokens:
    """Return the tokens of a question's episode."""
    first = first_messages(
        example, shown.skim, protocol, tools=settings.offers_tool, system_prompt=system_prompt
    )
    prompt = ruler.count(first)
    look = widest = 0
    if settings.num_turns > 1:
        reply = Message(role="assistant", parts=(Text(text=""),))
        error, most = "x" * ERROR_CHARACTERS, settings.max_segments_per_call

        def added(crops: Sequence[FrameRef], errors: Sequence[str]) -> int:
            seen = observation_message(crops, errors, protocol, example)
            return ruler.count([*first, reply, seen]) - prompt

        look = added([shown.crop], [])
        widest = max(
            added([shown.crop] * most, []),
            added([shown.crop] * (most - 1), [error]),
            added([], [error] * most),
        )
    skim = shown.skim
    return Tokens(
        0 if skim is None else len(skim.at_seconds), 0 if skim is None else ruler.visual(skim), prompt, look, widest
    )  # fmt: skip


def make_plan(
    questions: Questions,
    protocol: Protocol,
    settings: EpisodeSettings,
    sizes: ModelSizes,
    ruler: Ruler,
    assumed: Assumed,
    *,
    concurrency: int,
    repeats: int,
    system_prompt: str | None = None,
) -> dict[str, Any]:
    """Return the plan of an evaluation, as JSON data.

    Args:
        questions: What is asked.
        protocol: How the model is spoken to.
        settings: What an episode may see and do.
        sizes: The model's.
        ruler: Counts tokens.
        assumed: What no flag says.
        concurrency: Episodes under way at once, >= 1.
        repeats: Episodes per question, >= 1.
        system_prompt: Replaces the protocol's.

    Raises:
        ConfigError: A number is out of its range, or no video of the benchmark can be read.
    """
    for name, value in (("--concurrency", concurrency), ("--repeats", repeats)):
        if value < 1:
            raise boundary(name, value, ">= 1")
    shown, broken = shown_of(questions, settings)
    asked = [one for one in questions.examples if one.video in shown]
    if not asked:
        raise boundary(
            "videos that can be read", 0, "at least one", f"first: {next(iter(broken.values()), '')}"
        )
    rows = [tokens_of(one, shown[one.video], protocol, settings, ruler, system_prompt) for one in asked]
    turns, looks = settings.num_turns, min(assumed.looks, settings.num_turns - 1)
    reply = min(assumed.reply_tokens, settings.max_new_tokens)
    most = [row.prompt + (turns - 1) * row.widest_look + turns * settings.max_new_tokens for row in rows]
    mean = [row.prompt + looks * row.look + (looks + 1) * reply for row in rows]
    episodes = len(rows) * repeats
    sampled = (looks + 1) * reply * episodes
    # Every turn reads the whole chat again: that is what a server counts and bills.
    billed = repeats * sum(
        (looks + 1) * row.prompt + looks * (looks + 1) / 2 * (row.look + reply) for row in rows
    )
    sources = [one.source for one in shown.values()]
    return {
        "note": "computed, not measured", "model": sizes.name, "benchmark": questions.benchmark.name,
        "questions_sha256": questions.sha256, "questions": len(rows), "episodes": episodes,
        "videos": {name: sources.count(name) for name in ("file", "annotation", "nothing")}
        | {"unreadable": len(broken), "seconds": round(fmean(one.seconds for one in shown.values()), 3)},
        "unreadable": [f"{video}: {why}" for video, why in list(broken.items())[:5]],
        "exact_tokens": ruler.exact, "assumed": asdict(assumed), "looks": looks, "reply_tokens": reply,
        "frames": _spread([row.skim_frames for row in rows], repeats),
        "visual_tokens": _spread([row.visual for row in rows], repeats),
        "text_tokens": _spread([row.prompt - row.visual for row in rows], repeats),
        "prompt_tokens": _spread([row.prompt for row in rows], repeats),
        "context": {"mean": fmean(mean), "worst": max(most), "first_turn": max(row.prompt for row in rows)},
        "billed_prompt_tokens": round(billed), "reply_tokens_total": round(sampled),
        "memory_bytes": memory(sizes, assumed, fmean(mean), max(most), min(concurrency, episodes)),
        "time": seconds_of(sizes, rows, assumed, concurrency, repeats, looks, reply, billed, sampled),
        "dollars": (
            None if assumed.price is None
            else round((assumed.price[0] * billed + assumed.price[1] * sampled) / 1e6, 4)
        ),
    }  # fmt: skip


def _spread(values: Sequence[int], repeats: int) -> dict[str, float]:
    return {"mean": fmean(values), "most": max(values), "total": sum(values) * repeats}


def memory(sizes: ModelSizes, assumed: Assumed, mean: float, worst: int, concurrency: int) -> dict[str, Any]:
    """Return bytes of weights and cache over all GPUs, and whether they fit, a twelfth kept free."""
    from timeloupe.model.sizes import key_value_bytes

    gpu, width = _gpu(assumed), assumed.weight_bytes
    weights = width * sizes.parameters
    found = {
        "weights": weights, "cache_of_a_token": key_value_bytes(sizes, 1, width),
        "cache_mean": key_value_bytes(sizes, round(mean * concurrency), width),
        "cache_worst": key_value_bytes(sizes, worst * concurrency, width),
        "there": round(gpu.memory_bytes * assumed.gpus),
    }  # fmt: skip
    room = 0.92 * found["there"]
    return found | {
        "fits_mean": weights + found["cache_mean"] < room,
        "fits_worst": weights + found["cache_worst"] < room,
    }


def _gpu(assumed: Assumed) -> Any:
    from timeloupe.model.sizes import GPUS

    if assumed.gpu not in GPUS:
        raise boundary("--gpu", assumed.gpu, GPUS)
    return GPUS[assumed.gpu]


def seconds_of(
    sizes: ModelSizes, rows: Sequence[Tokens], assumed: Assumed, concurrency: int, repeats: int,
    looks: float, reply: int, billed: float, sampled: float,
) -> dict[str, Any]:  # fmt: skip
    """Return seconds of reading and of writing, and of the whole run."""
    from timeloupe.model.sizes import forward_flops, key_value_bytes, vision_flops

    if assumed.rates is not None:
        read, write = billed / assumed.rates[0], sampled / assumed.rates[1]
        return {"by": "given rates", "read_seconds": read, "write_seconds": write, "seconds": read + write}
    gpu = _gpu(assumed)
    reading = writing = 0.0
    for row in rows:  # a token is read once: engines keep what earlier turns have read
        whole = row.prompt + looks * row.look
        reading += forward_flops(sizes, row.prompt, heads=1) + vision_flops(sizes, row.visual)
        reading += forward_flops(sizes, round(looks * row.look), before=row.prompt)
        reading += vision_flops(sizes, round(looks * row.look))
        writing += forward_flops(
            sizes, round((looks + 1) * reply), before=round(whole), heads=round((looks + 1) * reply)
        )
    peak = assumed.gpus * gpu.flops_per_second * assumed.utilisation
    at_once = min(concurrency, len(rows) * repeats)
    context = fmean([row.prompt + looks * row.look + (looks + 1) * reply for row in rows])
    moved = assumed.weight_bytes * (sizes.parameters - sizes.vision_parameters)
    moved += key_value_bytes(sizes, round(at_once * context), assumed.weight_bytes)
    steps = sampled / at_once
    bandwidth = assumed.gpus * gpu.bytes_per_second * assumed.bandwidth_share
    read, write = repeats * reading / peak, max(repeats * writing / peak, steps * moved / bandwidth)
    return {"by": "the GPU's peaks", "read_seconds": read, "write_seconds": write, "seconds": read + write}


def measured(trajectories: Sequence[Trajectory], card: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run really took, under the names that a plan has for it; ``None`` = it was not counted."""
    spoken = [one for one in trajectories if one.turns and one.turns[0].generation.finish != "error"]

    def total(values: Sequence[int | None]) -> int | None:
        known = [value for value in values if value is not None]
        return sum(known) if known and len(known) == len(values) else None

    firsts = [one.turns[0].generation.usage.prompt_tokens for one in spoken]
    contexts = [
        (turn.generation.usage.prompt_tokens or 0) + (turn.generation.usage.completion_tokens or 0)
        for one in spoken for turn in one.turns
    ]  # fmt: skip
    frames = [
        sum(len(ref.at_seconds) for message in one.prompt for ref in message.frame_refs) for one in spoken
    ]
    looks = sum(len(one.turns) - 1 for one in spoken)
    spent = card.get("cost", {})
    return {
        "episodes": len(spoken), "skim_frames": sum(frames), "first_turn_tokens": total(firsts),
        "context_most": max(contexts, default=0) or None, "billed_prompt_tokens": spent.get("prompt_tokens"),
        "reply_tokens_total": spent.get("completion_tokens"), "looks": looks / max(len(spoken), 1),
        "seconds": spent.get("wall_seconds"),
    }  # fmt: skip
