"""Which token ids a checkpoint must not sample, from its files alone: no tokenizer is loaded, no weights, no torch.

A model in this process never samples them (``policy.local``); a server that runs the checkpoint has to be told.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from timeloupe.errors import ConfigError
from timeloupe.model.layout import DETAILS_FILE, read_config, read_json_object

_VISION_KEYS = ("video_token_id", "image_token_id", "vision_start_token_id", "vision_end_token_id")


def read_never_sampled(folder: str | Path) -> tuple[int, ...] | None:
    """Return the ids in ascending order: special tokens but for ends of turns, placeholders of pixels, what the
    checkpoint's ``timeloupe.json`` names, and ids that the tokenizer does not know. ``None`` = the files do not say.

    Raises:
        MissingError: There is no config.json.
        ConfigError: The architecture is none of ours, or a file is not valid JSON.
    """
    folder = Path(folder)
    config = read_config(folder)
    tokenizer = read_json_object(folder / "tokenizer.json")
    named = read_json_object(folder / "tokenizer_config.json") or {}
    details = read_json_object(folder / DETAILS_FILE) or {}
    try:
        size = config.get("text_config", config).get("vocab_size", config.get("vocab_size"))
        if tokenizer is None or size is None:
            return None
        added = [
            *tokenizer.get("added_tokens", ()),
            *({"id": int(id), **token} for id, token in named.get("added_tokens_decoder", {}).items()),
        ]
        ids: dict[str, int] = dict(tokenizer["model"]["vocab"]) | {one["content"]: one["id"] for one in added}
        special = {one["id"] for one in added if one["special"]}
        ends = _ends(folder, config, named, ids)
        further = {ids[token] for token in details.get("never_sample", ())}
        pixels = {config[key] for key in _VISION_KEYS}
        unknown = set(range(len(ids), size))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{str(folder)!r} does not say its tokens as checkpoints do: {error!r}") from error
    banned = special | further | pixels | unknown
    return tuple(sorted(banned - ends))


def _ends(folder: Path, config: dict[str, Any], named: dict[str, Any], ids: dict[str, int]) -> set[int]:
    """Ids of any of which ends a turn; as ``layout`` has them."""
    token = named.get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    generation = read_json_object(folder / "generation_config.json") or {}
    found = {ids[token]} if token is not None else set()
    for value in (generation.get("eos_token_id"), config.get("eos_token_id")):
        found |= set(value) if isinstance(value, list) else set() if value is None else {value}
    return found


def in_ranges(ids: Iterable[int]) -> str:
    """Return whole numbers in short: ``2812-2813,2815``."""
    spans: list[list[int]] = []
    for id in sorted(set(ids)):
        if spans and id == spans[-1][1] + 1:
            spans[-1][1] = id
        else:
            spans.append([id, id])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
