"""How one checkpoint lays frames out in its input: token ids, patch sizes, and how a frame's time is printed.

Nothing here is hard-coded to real Qwen ids: everything is read from the checkpoint's own files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from timeloupe.errors import ConfigError, MissingError, boundary

Family = Literal["qwen3_vl", "qwen2_5_vl"]
FAMILIES: tuple[Family, ...] = ("qwen3_vl", "qwen2_5_vl")

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
DEFAULT_MEAN_STD = {"qwen3_vl": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), "qwen2_5_vl": (CLIP_MEAN, CLIP_STD)}

DETAILS_FILE = "timeloupe.json"
"""Optional file of a checkpoint: what timeloupe does differently from the library, and episode defaults."""


@dataclass(frozen=True)
class Layout:
    """How clips become tokens, patches and positions.

    Attributes:
        family: Architecture.
        video_token_id: Placeholder of a video, and of each of its visual tokens.
        image_token_id: The same for an image.
        vision_start_token_id: Opens a block of visual tokens.
        vision_end_token_id: Closes it.
        pad_token_id: Fills rows of a batch; masked everywhere.
        eos_token_ids: Any of these ends a turn; the first is the one that a rendered turn ends with.
        encode: Text to token ids; special tokens are neither added nor looked for.
        patch_size: Pixels per patch side.
        merge_size: Patches per visual token side.
        temporal_patch_size: Frames per frame group; the last frame is repeated to fill the last group.
        timestamp_format: Prints a frame group's mean time in seconds before it (Qwen3-VL only).
        wrap_frames: Whether vision_start and vision_end stand around a frame group (or block).
        image_mean: Mean of each channel, in fractions of 255.
        image_std: Standard deviation of each channel, in fractions of 255.
        tokens_per_second: Temporal positions per second (Qwen2.5-VL only).
        never_sample: Further token ids that a sampler must not emit.
        details: The content of the checkpoint's ``timeloupe.json``.
    """

    family: Family
    video_token_id: int
    image_token_id: int
    vision_start_token_id: int
    vision_end_token_id: int
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    encode: Callable[[str], Sequence[int]] = field(repr=False, compare=False)
    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2
    timestamp_format: str = "<{:.1f} seconds>"
    wrap_frames: bool = True
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    tokens_per_second: float = 2.0
    never_sample: tuple[int, ...] = ()
    details: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _printed: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def size_multiple(self) -> int:
        """Frame widths and heights must be multiples of this many pixels."""
        return self.patch_size * self.merge_size

    @property
    def vision_token_ids(self) -> frozenset[int]:
        """Ids that stand for or around pixels: in sampled text they would crash or corrupt the next pass."""
        return frozenset(
            (self.video_token_id, self.image_token_id, self.vision_start_token_id, self.vision_end_token_id)
        )

    def placeholder(self, *, is_image: bool = False) -> tuple[int, ...]:
        """Return the unexpanded ids of one clip: what rendered text holds and what a vLLM server is sent.

        Qwen3-VL prints vision_start and vision_end around every frame group, so its video placeholder is
        bare; where one block holds the whole clip, the pair already stands around the placeholder.
        """
        pad = self.image_token_id if is_image else self.video_token_id
        if not self.wrap_frames or (self.family == "qwen3_vl" and not is_image):
            return (pad,)
        return (self.vision_start_token_id, pad, self.vision_end_token_id)

    def timestamp_ids(self, seconds: float) -> tuple[int, ...]:
        """Return the tokens of one printed time (tokenised once per distinct text)."""
        text = self.timestamp_format.format(seconds)
        ids = self._printed.get(text)
        if ids is None:
            ids = self._printed[text] = tuple(self.encode(text))
        return ids


def read_layout(folder: str | Path, tokenizer: Any) -> Layout:
    """Return the layout of a checkpoint folder.

    Args:
        folder: Holds config.json and, where present, (video_)preprocessor_config.json, generation_config.json
            and timeloupe.json, each overriding the one before.
        tokenizer: The checkpoint's own.

    Raises:
        MissingError: There is no config.json.
        ConfigError: The architecture is none of ``FAMILIES``, or timeloupe.json has an unknown key.
    """
    folder = Path(folder)
    config = read_config(folder)
    family: Family = config["model_type"]
    vision = config.get("vision_config", {})
    details = read_json_object(folder / DETAILS_FILE) or {}
    values: dict[str, Any] = {
        key: config[key]
        for key in ("video_token_id", "image_token_id", "vision_start_token_id", "vision_end_token_id")
    }
    mean, std = DEFAULT_MEAN_STD[family]
    preprocessor: dict[str, Any] = {"image_mean": mean, "image_std": std}
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        found = read_json_object(folder / name) or {}
        preprocessor.update({key: found[key] for key in preprocessor if found.get(key) is not None})
    values.update(preprocessor)
    values.update(
        patch_size=vision.get("patch_size", _PATCH_SIZES[family]),
        merge_size=vision.get("spatial_merge_size", 2),
        temporal_patch_size=vision.get("temporal_patch_size", 2),
        tokens_per_second=vision.get("tokens_per_second", 4),
    )
    values.update(_overrides(details, folder / DETAILS_FILE, tokenizer))
    values["image_mean"], values["image_std"] = tuple(values["image_mean"]), tuple(values["image_std"])
    eos = _eos_token_ids(folder, config, tokenizer)
    pad = tokenizer.pad_token_id
    return Layout(
        family=family, eos_token_ids=eos, pad_token_id=eos[0] if pad is None else pad, details=details,
        encode=_remembering(tokenizer), **values,
    )  # fmt: skip


def _remembering(tokenizer: Any) -> Callable[[str], Sequence[int]]:
    """Return the tokenizer's encoding; every turn of every episode says the same few things around what is new."""
    return lru_cache(maxsize=4096)(
        partial(tokenizer.encode, add_special_tokens=False, split_special_tokens=True)
    )


def read_episode_defaults(folder: str | Path) -> tuple[dict[str, Any], str | None]:
    """Return the episode settings that a checkpoint folder asks for, and its protocol's name if it names one.

    Only config.json and timeloupe.json are read: no tokenizer, no weights.

    Raises:
        MissingError: There is no config.json.
        ConfigError: The architecture is none of ``FAMILIES``.
    """
    folder = Path(folder)
    config = read_config(folder)
    vision = config.get("vision_config", {})
    details = read_json_object(folder / DETAILS_FILE) or {}
    patch_size = vision.get("patch_size", _PATCH_SIZES[config["model_type"]])
    multiple = patch_size * vision.get("spatial_merge_size", 2)
    return {"size_multiple": multiple, **details.get("episode", {})}, details.get("protocol")


_PATCH_SIZES = {"qwen3_vl": 16, "qwen2_5_vl": 14}


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a checkpoint's config.json.

    Raises:
        MissingError: There is none.
        ConfigError: It is not valid JSON, or of an architecture that is none of ``FAMILIES``.
    """
    config = read_json_object(folder / "config.json")
    if config is None:
        raise MissingError(f"no config.json in {str(folder)!r}: name the folder of a saved checkpoint")
    if config.get("model_type") not in FAMILIES:
        raise boundary(f"model_type of {str(folder / 'config.json')!r}", config.get("model_type"), FAMILIES)
    return config


_LAYOUT_KEYS = ("timestamp_format", "wrap_frames", "image_mean", "image_std")
_OTHER_KEYS = ("protocol", "episode", "never_sample", "card")


def _overrides(details: dict[str, Any], path: Path, tokenizer: Any) -> dict[str, Any]:
    for key in details:
        if key not in _LAYOUT_KEYS + _OTHER_KEYS:
            raise boundary(f"key in {str(path)!r}", key, _LAYOUT_KEYS + _OTHER_KEYS)
    values = {key: details[key] for key in _LAYOUT_KEYS if key in details}
    if "never_sample" in details:
        values["never_sample"] = tuple(
            tokenizer.convert_tokens_to_ids(token) for token in details["never_sample"]
        )
    return values


def _eos_token_ids(folder: Path, config: dict[str, Any], tokenizer: Any) -> tuple[int, ...]:
    """The tokenizer's own end of turn first, then those of the generation config, without repeats."""
    generation = read_json_object(folder / "generation_config.json") or {}
    found: list[int] = []
    for value in (tokenizer.eos_token_id, generation.get("eos_token_id"), config.get("eos_token_id")):
        values = value if isinstance(value, list) else [value]
        found.extend(item for item in values if item is not None and item not in found)
    if not found:
        raise ConfigError(f"no end-of-turn token in {str(folder)!r}: set eos_token in tokenizer_config.json")
    return tuple(found)


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Return the content of a checkpoint's file; ``None`` = it is not there.

    Raises:
        ConfigError: It is not valid JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{str(path)!r} is not valid JSON: {error}; fix or remove the file") from error
