"""The options ``--cache-dir`` and ``--cache-bytes``: decoded frames kept on disk from one command to the next."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from timeloupe.errors import ConfigError, boundary

if TYPE_CHECKING:
    from timeloupe.video.cache import FrameCache

DEFAULT_CACHE_BYTES = "2GiB"
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def make_cache(folder: Path | None, size: str | None) -> FrameCache | None:
    """Return a cache with a tier on disk, or ``None`` if no folder is named.

    Args:
        folder: What ``--cache-dir`` says.
        size: What ``--cache-bytes`` says; ``None`` = ``DEFAULT_CACHE_BYTES``.

    Raises:
        ConfigError: The folder is none, the size is none, or there is a size without a folder.
    """
    from timeloupe.environment.rollout import DEFAULT_CACHE_BYTES as MEMORY_BYTES
    from timeloupe.video.cache import FrameCache
    from timeloupe.video.disk_cache import DiskCache

    if folder is None:
        if size is not None:
            raise ConfigError(f"--cache-bytes goes with --cache-dir, got --cache-bytes {size!r} alone")
        return None
    return FrameCache(
        MEMORY_BYTES, DiskCache(folder, parse_bytes("--cache-bytes", size or DEFAULT_CACHE_BYTES))
    )


def parse_bytes(flag: str, text: str) -> int:
    """Return a number of bytes from ``1000000``, ``500MB`` (powers of 1000) or ``2GiB`` (powers of 1024).

    Raises:
        ConfigError: It is none of these.
    """
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)(i?)b?", text.strip(), re.IGNORECASE)
    if found is None or (found[3] and not found[2]):
        raise boundary(flag, text, "bytes, such as 1000000, 500MB or 2GiB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].lower()])
