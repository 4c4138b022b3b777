"""Fixtures that several rooms use."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# One thread: tests run side by side, and threads that wait for each other's core cost more than they do.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure: how long an example may take is not checked by the clock on the wall.
hypothesis.settings.register_profile(
    "timeloupe",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.filter_too_much],
)
hypothesis.settings.load_profile("timeloupe")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of shared evaluation data: ``$TIMELOUPE_SHARED``, else ``../shared`` beside the repository."""
    named = os.environ.get("TIMELOUPE_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(
            f"no shared evaluation data at {str(folder)!r}; set TIMELOUPE_SHARED to its folder to run this"
        )
    return folder
