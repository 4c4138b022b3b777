"""What two runs were configured differently, the likeliest causes of another score first. Pure.

Settings are sorted into areas; an area that differs is one difference, with all its settings. What the episodes show
is set beside what the settings say: a difference that reached no episode cannot explain a score, and frames or prompts
that differ under the same settings are a difference that no setting tells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from timeloupe.eval.recorded import Recorded
from timeloupe.eval.recorded_reply import Key, Reply

_HASH = re.compile(r"\b([0-9a-f]{12})(?:[0-9a-f]{28}|[0-9a-f]{52})(?![0-9a-f])")

NOTHING = "nothing"
"""What stands for a setting that one of the runs does not have."""


@dataclass(frozen=True)
class Area:
    """Settings that act alike.

    Attributes:
        name: Stable word.
        title: For people.
        why: How it acts on a score, in words.
        keys: Dotted names of settings, or their beginnings when they end with a dot.
    """

    name: str
    title: str
    why: str
    keys: tuple[str, ...]


AREAS = (
    Area("questions", "questions", "another set of questions or labels is another test", ("benchmark.",)),
    Area("scorer", "scorer", "the same replies get other figures", ("scorer.",)),
    Area("model", "model", "another model answers otherwise", ("model.",)),
    Area(
        "looking", "looking closer", "how often the model may look, if at all",
        ("settings.max_turns", "settings.tools", "settings.question_only", "settings.max_segments_per_call"),
    ),
    Area("prompt", "prompt", "the model is told something else", ("prompt.",)),
    Area(
        "frames", "frames", "the model sees other moments",
        (
            "settings.skim_fps", "settings.skim_frames", "settings.skim_start_seconds", "settings.skim_end_seconds",
            "settings.skim_approximate", "settings.crop_fps", "settings.crop_min_frames", "settings.crop_max_frames",
            "settings.crop_margin_intervals",
        ),
    ),
    Area(
        "pixels", "pixels", "the model sees finer or coarser frames",
        (
            "settings.skim_pixels", "settings.crop_pixels", "settings.min_pixels", "settings.size_multiple",
            "settings.frame_size_wh",
        ),
    ),
    Area(
        "sending", "how frames are sent", "times and pictures reach the model in another form",
        ("model.send", "model.time_format", "model.image_format", "model.jpeg_quality", "model.limit_key",
         "model.extra_body."),
    ),
    Area(
        "sampling", "sampling", "replies are drawn otherwise",
        ("settings.temperature", "settings.top_p", "settings.top_k", "settings.max_new_tokens", "sampling.", "voting."),
    ),
    Area("seed", "seed and repeats", "other draws of the same distribution", ("seed", "repeats")),
    Area("server", "server", "another server or version may cut, resize or round otherwise", ("server.",)),
    Area("decoder", "decoder", "frames may be decoded or timed otherwise", ("decoder.",)),
    Area("packages", "packages", "arithmetic and preprocessing may differ in small ways", ("packages.",)),
    Area("code", "timeloupe's code", "prompts, tools and scorers may have changed", ("code.",)),
    Area(
        "hardware", "machine", "arithmetic may differ in the last digits",
        ("hardware.", "model.device", "model.dtype"),
    ),
    Area("other", "other settings", "not known to this version", ("other.",)),
    Area(
        "pace", "pace", "made so that it changes no episode",
        ("pace.", "settings.video_deadline_seconds", "model.logprobs"),
    ),
)  # fmt: skip
"""The likeliest cause of another score first."""

PHRASES = {
    "benchmark.sha256": "hash of the questions with their labels",
    "benchmark.asked": "questions asked",
    "benchmark.split": "split",
    "benchmark.missing_videos": "videos not found",
    "scorer.mode": "scored as",
    "model.weights_sha256": "hash of the weights",
    "model.name": "name",
    "prompt.protocol": "protocol",
    "prompt.sha256": "hash of all that the protocol says",
    "prompt.system": "system text",
    "settings.max_turns": "turns at most",
    "settings.tools": "tool offered",
    "settings.question_only": "question without frames",
    "settings.skim_fps": "first look, frames a second",
    "settings.skim_frames": "first look, frames at most",
    "settings.skim_approximate": "first look, approximate",
    "settings.crop_fps": "crop, frames a second",
    "settings.crop_min_frames": "crop, frames at least",
    "settings.crop_max_frames": "crop, frames at most",
    "settings.skim_pixels": "first look, area of a frame at most",
    "settings.crop_pixels": "crop, area of a frame at most",
    "settings.min_pixels": "area of a frame at least",
    "settings.frame_size_wh": "fixed size of a frame",
    "settings.size_multiple": "sides are multiples of",
    "settings.max_new_tokens": "tokens of one reply at most",
    "settings.temperature": "temperature",
    "repeats": "episodes per question",
    "code.commit": "commit",
    "code.timeloupe": "version",
}


@dataclass(frozen=True)
class Setting:
    """A setting that differs: its dotted name and its two values, ``NOTHING`` where a run has none."""

    key: str
    one: Any
    two: Any

    @property
    def words(self) -> str:
        """``first look, frames at most: 16, 4``"""
        name = PHRASES.get(self.key, self.key.split(".", 1)[-1].replace("_", " "))
        return f"{name}: {_short(self.one)} -> {_short(self.two)}"


@dataclass(frozen=True)
class Difference:
    """An area in which two runs differ.

    Attributes:
        area: Which.
        settings: What differs; empty where only the episodes show it.
        reached: Episodes of both runs in which it shows, or ``None`` where the record cannot tell.
        compared: Episodes that were looked at for that.
        idle: Why it cannot explain a score; "" if it can.
    """

    area: Area
    settings: tuple[Setting, ...]
    reached: int | None = None
    compared: int = 0
    idle: str = ""


@dataclass(frozen=True)
class Reach:
    """What was shown to the model otherwise, over the episodes that both runs have of the same questions.

    Attributes:
        compared: Such episodes.
        prompt: Of these, how many have other words before the first reply.
        frames: Other times of frames: of the first look, or of the same crop.
        pixels: Other sizes of frames.
        crops: Pairs of crops of the same segment, of which times and sizes were compared.
        same_start: Episodes that began with the same words and frames.
        first: Of these, how many have another first reply.
    """

    compared: int
    prompt: int
    frames: int
    pixels: int
    crops: int
    same_start: int
    first: int


def reach(ones: Mapping[Key, Reply], twos: Mapping[Key, Reply]) -> Reach:
    """Return what was shown otherwise; questions that differ, and episodes without turns, are left out."""
    compared = prompt = frames = pixels = num_crops = same_start = first = 0
    for key in ones.keys() & twos.keys():
        one, two = ones[key], twos[key]
        if not (one.first and two.first) or one.example is None or two.example is None:
            continue
        if (one.example.question, one.example.options) != (two.example.question, two.example.options):
            continue
        compared += 1
        looks = zip(one.looked, two.looked, one.crops, two.crops, strict=False)
        crops = [(a, b) for look, other, a, b in looks if look == other]
        num_crops += len(crops)
        words = one.words != two.words
        times = one.skim != two.skim or any(a[0] != b[0] for a, b in crops)
        sizes = one.skim_wh != two.skim_wh or any(a[1] != b[1] for a, b in crops)
        prompt, frames, pixels = prompt + words, frames + times, pixels + sizes
        if not words and one.skim == two.skim and one.skim_wh == two.skim_wh:
            same_start += 1
            first += one.first != two.first
    return Reach(compared, prompt, frames, pixels, num_crops, same_start, first)


def differences(
    one: Recorded, two: Recorded, modes: tuple[str, str] | None = None, *, shares_scorer: bool = False
) -> list[Difference]:
    """Return the areas in which two runs differ, the likeliest cause of another score first.

    A setting that only one of them can have recorded (the other has no card, say) is no difference.

    Args:
        one: A run.
        two: Another one, or the same.
        modes: How each is scored now; ``None`` = as the runs say.
        shares_scorer: The figures that are compared are of one scorer, whatever else either run was scored by.
    """
    ones, twos = known_settings(one), known_settings(two)
    if modes is not None:
        ones["scorer.mode"], twos["scorer.mode"] = modes
    both = bool(one.config and two.config) and bool(one.card) == bool(two.card)
    keys = ones.keys() | twos.keys() if both else ones.keys() & twos.keys()
    found: dict[str, list[Setting]] = {}
    for key in sorted(keys):
        setting = Setting(key, ones.get(key, NOTHING), twos.get(key, NOTHING))
        if setting.one != setting.two:
            found.setdefault(area_of(key).name, []).append(setting)
    for name, mend in _CONSEQUENCES.items():
        if name in found:
            found[name] = mend(found[name], ones, twos)
    shown = reach(one.replies, two.replies)
    seen = {"prompt": shown.prompt, "frames": shown.frames, "pixels": shown.pixels}
    everything: list[Difference] = []
    for area in AREAS:
        settings = tuple(found.get(area.name, ()))
        reached = seen.get(area.name) if shown.compared else None
        # With the tool a protocol says something else than without: no difference of its own.
        told = bool(settings) or (bool(reached) and not (area.name == "prompt" and found.get("looking")))
        if not told:
            continue
        if reached == 0 and not shown.crops and any(one.key.startswith("settings.crop_") for one in settings):
            reached = None
        idle = _idle(area, settings, reached, shown.compared, ones, twos, shares_scorer)
        everything.append(
            Difference(area, settings, reached, shown.compared if reached is not None else 0, idle)
        )
    return sorted(everything, key=lambda item: bool(item.idle))


def area_of(key: str) -> Area:
    """Return the area of a setting: the one that names it in full, else the one with its beginning."""
    for area in AREAS:
        if key in area.keys:
            return area
    starts = [(one, area) for area in AREAS for one in area.keys if one.endswith(".") and key.startswith(one)]
    if starts:
        return max(starts, key=lambda found: len(found[0]))[1]
    return next(area for area in AREAS if area.name == "other")


def _idle(
    area: Area,
    settings: Sequence[Setting],
    reached: int | None,
    compared: int,
    ones: Mapping[str, Any],
    twos: Mapping[str, Any],
    shares_scorer: bool,
) -> str:
    """Why a difference cannot explain another score; "" if it can."""
    if area.name == "pace":
        return area.why
    if area.name == "scorer" and shares_scorer:
        return "the figures below are of the scorers that both have"
    if reached == 0:
        return f"it shows in none of {compared} episodes"
    greedy = ones.get("settings.temperature") == 0 == twos.get("settings.temperature")
    drawn = {"seed", "settings.top_p", "settings.top_k"}
    if greedy and settings and all(one.key in drawn for one in settings):
        return "at temperature 0 nothing is drawn"
    return ""


def known_settings(run: Recorded) -> dict[str, Any]:
    """Return all that is known of how a run was made, by dotted name."""
    card, config, spoken = run.card, run.config, run.spoken
    found: dict[str, Any] = {}
    asked = card.get("benchmark", {})
    for key, value in (
        ("benchmark.name", run.benchmark_name), ("benchmark.sha256", run.questions_sha256),
        ("benchmark.asked", asked.get("asked", config.get("questions"))), ("benchmark.split", asked.get("split")),
        ("benchmark.missing_videos", asked.get("missing_videos")), ("scorer.mode", run.mode),
        ("prompt.protocol", config.get("protocol") or spoken.get("protocol")),
        ("prompt.sha256", card.get("prompt", {}).get("sha256")),
        ("prompt.system", card.get("prompt", {}).get("system", spoken.get("system"))),
        ("seed", card.get("sampling", {}).get("seed", config.get("flags", {}).get("seed", spoken.get("seed")))),
        ("repeats", config.get("flags", {}).get("repeats")),
        ("server.address", run.session.get("base_url")),
    ):  # fmt: skip
        if value is not None:
            found[key] = value
    found |= _prefixed("settings", config.get("episode") or spoken.get("settings") or {})
    found |= _prefixed("model", _model(run))
    for name, prefix in (
        ("server", "server"),
        ("earlier_servers", "server.earlier"),
        ("judge", "scorer.judge"),
    ):
        if card.get(name):
            found |= _prefixed(prefix, card[name])
    for key, value in _environment(run.environments).items():
        found[key] = value
    if run.votes:
        voting = {f"voting.{key}": run.session.get(key) for key in ("samples", "vote", "scorer_model")}
        found |= {key: value for key, value in voting.items() if value is not None}
    pace = (
        "threads",
        "concurrency",
        "retries",
        "timeout",
        "cache_bytes",
        "fail_on_error",
        "episode_deadline",
    )
    found |= {f"pace.{key}": run.session[key] for key in pace if key in run.session}
    for key, value in card.items():
        if key not in _KNOWN_OF_CARD:
            found |= _prefixed(f"other.{key}", value)
    flags = config.get("flags", {})
    found |= {
        f"other.{key}": value for key, value in flags.items() if key not in _KNOWN_FLAGS and key != "samples"
    }
    return found


_KNOWN_OF_CARD = {
    "benchmark", "model", "prompt", "frames", "sampling", "scorer", "environment", "episodes", "cost", "scores",
    "server", "earlier_servers", "judge", "faults", "voting",
}  # fmt: skip
_KNOWN_FLAGS = {
    "bench", "data", "policy", "model", "script", "send", "time_format", "image_format", "max_request", "logprobs",
    "settings_from", "protocol", "system_prompt", "max_turns", "single_pass", "frames", "pixels", "temperature",
    "max_new_tokens", "seed", "repeats", "limit", "deadline", "no_logit_bias",
}  # fmt: skip
"""What these say stands in the settings, the prompt and the model as they came to be."""


def _model(run: Recorded) -> dict[str, Any]:
    """The model: what the card says, else the configuration, else the episodes."""
    found = dict(run.card.get("model") or run.config.get("policy") or {"name": run.spoken.get("policy")})
    found.pop("base_url", None)
    found.pop("max_request_bytes", None)
    return {key: value for key, value in found.items() if value is not None}


def _environment(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Versions and machine; where the sessions of a run differ, all values in order."""
    found: dict[str, Any] = {}
    places = {
        "timeloupe": "code.timeloupe", "commit": "code.commit", "python": "packages.python",
        "platform": "hardware.platform", "machine": "hardware.machine", "num_cpus": "hardware.num_cpus",
    }  # fmt: skip
    named: dict[str, list[Any]] = {}
    for session in sessions:
        flat = {place: session[key] for key, place in places.items() if session.get(key) is not None}
        for package, version in session.get("packages", {}).items():
            flat["decoder.av" if package == "av" else f"packages.{package}"] = version
        for key, value in flat.items():
            values = named.setdefault(key, [])
            if value not in values:
                values.append(value)
    for key, values in named.items():
        found[key] = values[0] if len(values) == 1 else values
    return found


def _prefixed(prefix: str, value: Any) -> dict[str, Any]:
    """A tree as dotted names; lists stay whole."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, one in value.items():
        found |= _prefixed(f"{prefix}.{key}", one)
    return found


def _of_model(settings: list[Setting], ones: Mapping[str, Any], twos: Mapping[str, Any]) -> list[Setting]:
    """The same weights are the same model, wherever they lie."""
    one, two = ones.get("model.weights_sha256"), twos.get("model.weights_sha256")
    if one is None or one != two:
        return settings
    return [setting for setting in settings if setting.key not in ("model.name", "model.checkpoint")]


def _of_prompt(settings: list[Setting], ones: Mapping[str, Any], twos: Mapping[str, Any]) -> list[Setting]:
    """The same protocol says something else with the tool than without; then the tool is the difference."""
    offers = [
        known.get("settings.tools", True) and not known.get("settings.question_only", False)
        for known in (ones, twos)
    ]
    same = ones.get("prompt.protocol") == twos.get("prompt.protocol")
    same = same and ones.get("prompt.sha256") == twos.get("prompt.sha256")
    return [] if same and offers[0] != offers[1] else settings


_CONSEQUENCES: dict[str, Callable[[list[Setting], Mapping[str, Any], Mapping[str, Any]], list[Setting]]] = {
    "model": _of_model,
    "prompt": _of_prompt,
}
"""Differences that follow from another one, and so are none of their own."""


def _short(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return ", then ".join(map(_short, value))
    text = " ".join((value if isinstance(value, str) else json.dumps(value, default=str)).split())
    text = _HASH.sub(lambda found: found[1], text)
    return text if len(text) <= 90 else f"{text[:60]}... ({len(text)} characters)"
