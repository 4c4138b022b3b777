"""Which of our functions answer for the vectors of this repository."""

from __future__ import annotations

from tests.golden.replay import Adapter

ADAPTERS: dict[tuple[str, str], Adapter] = {}
ALTERNATIVES: dict[str, Adapter] = {}
