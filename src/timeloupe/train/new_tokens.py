"""A checkpoint whose tokenizer knows further words, ready to be taught what they mean.

The small model's tokenizer spells a word that it does not know in bytes. Open-o3's evidence would be forty of them a
claim, most of a reply and nearly all of what a model of this size could get wrong; with a token for every fixed piece a
claim is thirteen.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken

from timeloupe.environment.settings import make_settings
from timeloupe.errors import ConfigError, boundary
from timeloupe.model.layout import DETAILS_FILE
from timeloupe.model.load import load_model
from timeloupe.train.sft import export

EVIDENCE_TOKENS = ("<obj>", "</obj><box>[", "]</box>at<t>", "</t>s")
"""The fixed pieces of a claim, as ``world.teach_evidence`` writes it."""

NEW_ROW_STD = 0.02
"""Small beside trained rows (about 0.12 an element): before any training no new token is likelier than a known one."""


def add_tokens(
    checkpoint: str | Path,
    folder: str | Path,
    tokens: Sequence[str] = EVIDENCE_TOKENS,
    *,
    seed: int = 0,
    episode: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``checkpoint`` with ``tokens`` added to its tokenizer to ``folder``, and return that folder.

    Text without any of the new tokens encodes to the same ids as before, and all logits of known tokens stay the same.
    The rows of the new tokens, in the embeddings and, where it is not tied to them, in the head, are drawn from
    ``seed``: the same on every machine.

    Args:
        checkpoint: Folder or hub id of a Qwen-VL checkpoint.
        folder: Where to write; must be missing or empty.
        tokens: What becomes one token each.
        seed: Of the new rows.
        episode: Changes to the episode settings that the checkpoint asks for (``timeloupe.json``).

    Raises:
        ConfigError: A token is empty, given twice, or known already; ``folder`` holds something; a setting is wrong.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{str(folder)!r} already holds something; use a new folder for the checkpoint")
    loaded = load_model(checkpoint, device="cpu", fast_vision=False)
    known = loaded.tokenizer.get_vocab()
    for token in tokens:
        if not token.strip() or token in known or list(tokens).count(token) > 1:
            raise boundary(
                "a token to be added", token, "text that the tokenizer has no token for yet, each once"
            )
    details = dict(loaded.layout.details)
    if episode:
        details["episode"] = {**details.get("episode", {}), **episode}
        make_settings(details["episode"])
    loaded.tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    ids = loaded.tokenizer.convert_tokens_to_ids(list(tokens))
    model: Any = loaded.model
    rows = model.get_input_embeddings().weight.shape[0]
    if len(loaded.tokenizer) > rows:  # published checkpoints have spare rows
        model.resize_token_embeddings(len(loaded.tokenizer), mean_resizing=False)
    random = torch.Generator().manual_seed(seed)
    tables = [model.get_input_embeddings().weight]
    if model.get_output_embeddings().weight is not tables[0]:
        tables.append(model.get_output_embeddings().weight)
    with torch.no_grad():
        for table in tables:
            drawn = NEW_ROW_STD * torch.randn(len(ids), table.shape[1], generator=random)
            table[ids] = drawn.to(table.dtype)
    # The folder appears under its name only when it is whole.
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if details:
        (partial / DETAILS_FILE).write_text(json.dumps(details, indent=2) + "\n", encoding="utf-8")
    export(loaded, partial)
    os.replace(partial, folder)
    return folder
