"""Four videos of different colours and lengths."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environment.clips import COLOURS, write_clip


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Colour to path; red 20 s, green 22 s, blue 24 s, yellow 26 s."""
    folder: Path = tmp_path_factory.mktemp("clips")
    return {
        colour: str(write_clip(folder / f"{colour}.mp4", colour, 20 + 2 * number))
        for number, colour in enumerate(COLOURS)
    }
