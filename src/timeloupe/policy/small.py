"""The embedded default: a small Qwen3-VL that we trained from nothing on procedural videos, shipped in the package.

It understands the questions of ``timeloupe world make`` and nothing else; see its model card beside the weights.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timeloupe.errors import MissingError

if TYPE_CHECKING:
    from timeloupe.policy.local import LocalPolicy

SMALL_CHECKPOINT = Path(__file__).parent / "small_checkpoint"


def unknown_words(policy: LocalPolicy, text: str) -> list[str]:
    """Return the words of ``text`` that the small model has never been taught, in order.

    Its tokenizer has one token for every word it knows; any other word falls apart into bytes.
    """
    encode = policy.loaded.layout.encode
    words = re.findall(r"[^\W\d_]+", text)
    return [word for word in dict.fromkeys(words) if min(len(encode(word)), len(encode(f" {word}"))) > 1]


def load_small_policy() -> tuple[LocalPolicy, dict[str, Any], str]:
    """Return the embedded policy, its episode settings (``EpisodeSettings`` overrides) and its protocol's name.

    Raises:
        MissingError: torch and transformers are not installed, or the checkpoint was not packaged.
    """
    if not (SMALL_CHECKPOINT / "model.safetensors").is_file():
        raise MissingError(
            f"the embedded checkpoint is not in {str(SMALL_CHECKPOINT)!r}; install timeloupe from a full checkout, or "
            "train one with `timeloupe train sft recipes/sft/small.toml`"
        )
    try:
        from timeloupe.model.load import load_model
        from timeloupe.policy.local import LocalPolicy
    except ModuleNotFoundError as error:
        raise MissingError(
            f"the small model needs {error.name!r}; install it with `pip install torch==2.13.0` and then "
            "`pip install 'timeloupe[local]'`, or ask a served model"
        ) from error
    loaded = load_model(SMALL_CHECKPOINT, device="cpu")
    details = loaded.layout.details
    return LocalPolicy(loaded, name="small"), details["episode"], details["protocol"]
