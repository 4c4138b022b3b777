"""The system texts that a labeller is asked with: template files, one per purpose, in words of our own.

``{look_closer}`` and ``{answer_now}`` in a template stand for what the protocol says about calls and answers, and
``{box_unit}`` for what its boxes count, so that a reply can be read whatever protocol the rows are for.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from timeloupe.errors import ConfigError, MissingError, boundary
from timeloupe.prompt import templates
from timeloupe.prompt.protocol import Protocol

LABELLER, PROTOCOL = "labeller", "protocol"


def purposes() -> list[str]:
    """Return the purposes that have a template, in order."""
    folder = resources.files("timeloupe.data.build") / "prompts"
    return sorted(one.name.removesuffix(".txt") for one in folder.iterdir() if one.name.endswith(".txt"))


def load_prompts(which: str, protocol: Protocol) -> dict[str, str]:
    """Return system texts by purpose.

    Args:
        which: ``labeller`` = ours; ``protocol`` = none, as in an episode; else a folder of templates, ours for those
            that are not there.
        protocol: What a template's places are filled from; where the protocol has no system text, with VideoTemp-o3's.

    Raises:
        MissingError: There is no such folder.
        ConfigError: It holds no template, or one of another name.
    """
    if which == PROTOCOL:
        return {}
    known = purposes()
    ours = resources.files("timeloupe.data.build") / "prompts"
    texts = {name: (ours / f"{name}.txt").read_text(encoding="utf-8") for name in known}
    if which != LABELLER:
        folder = Path(which)
        if not folder.is_dir():
            raise MissingError(
                f"no folder of prompts at {which!r}, allowed: {LABELLER!r}, {PROTOCOL!r}, or a folder of "
                f"NAME.txt with NAME one of {', '.join(known)}"
            )
        files = sorted(folder.glob("*.txt"))
        if not files:
            raise ConfigError(
                f"folder {which!r} holds no template, expected NAME.txt with NAME one of {', '.join(known)}"
            )
        for file in files:
            if file.stem not in known:
                raise boundary(f"template in {which!r}", file.name, [f"{name}.txt" for name in known])
            texts[file.stem] = file.read_text(encoding="utf-8")
    fillings: dict[str, str] = {
        "{look_closer}": protocol.system_with_tool or templates.LOOK_CLOSER,
        "{answer_now}": protocol.system_without_tool or templates.ANSWER_NOW,
        "{box_unit}": templates.BOX_UNITS[protocol.box_scale],
    }
    return {name: _filled(text, fillings) for name, text in texts.items()}


def templates_sha256(which: str) -> str | None:
    """Return a hash of the templates in a folder, 16 hex digits; ``None`` where ``which`` names none.

    Our own go with the version, which every session notes.
    """
    if which in (LABELLER, PROTOCOL):
        return None
    found = hashlib.sha256()
    for file in sorted(Path(which).glob("*.txt")):
        text = file.read_bytes()
        found.update(f"{file.name}\0{len(text)}\0".encode() + text)
    return found.hexdigest()[:16]


def _filled(text: str, fillings: dict[str, str]) -> str:
    for place, filling in fillings.items():
        text = text.replace(place, filling)
    return text.strip()
