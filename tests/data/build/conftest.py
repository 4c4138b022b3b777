"""Short videos for labelling."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.environment.clips import write_clip


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Colour to path of two videos: red 10 s, green 12 s."""
    folder: Path = tmp_path_factory.mktemp("clips")
    lengths = {"red": 10.0, "green": 12.0}
    return {
        colour: str(write_clip(folder / f"{colour}.mp4", colour, seconds))
        for colour, seconds in lengths.items()
    }
