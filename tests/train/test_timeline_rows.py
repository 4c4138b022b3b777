"""Rows for TaRO in the world: the same ones again, in the shares that were asked for, right about their frames."""

from __future__ import annotations

import pytest

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import ConfigError
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.train.exploration import names_times
from timeloupe.train.timeline_rows import TimelineRows
from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings
from timeloupe.world.timeline import TIMELINE_QUESTION

SETTINGS = EpisodeSettings(skim_frames=24, frame_size_wh=(32, 32))


def rows(seed: int = 7, captions: float = 0.4, timed: float = 0.25) -> TimelineRows:
    return TimelineRows(
        seed, SETTINGS, captions, timed, script_settings=ScriptSettings(60, 100)
    )  # fmt: skip


def test_rows_are_of_the_kinds_in_their_shares() -> None:
    made = rows().pool(0, 400)
    assert len(made) == 400
    asked = [row for row in made if TIMELINE_QUESTION in row.messages[-2].text]
    free = [row for row in made if TIMELINE_QUESTION not in row.messages[-2].text]
    assert 0.3 < len(asked) / 400 < 0.5
    assert all(names_times(row.messages[-1].text.split("</think>")[0]) for row in asked)
    timed = [names_times(row.messages[-1].text.split("</think>")[0]) for row in free]
    assert 0.15 < sum(timed) / len(free) < 0.35
    for row in made:
        answer = parse_reply(row.messages[-1].text, PROTOCOLS["small"]).answer
        (skim,) = (ref for message in row.messages for ref in message.frame_refs)
        assert answer is not None and len(answer.segments) == 1
        assert row.clips[0].shape == (24, 32, 32, 3)
        assert answer.segments[0].start_seconds in {float(f"{time:.0f}") for time in skim.at_seconds}


def test_a_pool_is_a_function_of_seed_and_number() -> None:
    def texts(made: TimelineRows, index: int) -> list[str]:
        return [row.messages[-1].text for row in made.pool(index, 12)]

    assert texts(rows(), 1) == texts(rows(), 1)
    assert texts(rows(), 1) != texts(rows(), 2) and texts(rows(), 1) != texts(rows(8), 1)


def test_evaluation_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="kept for evaluation"):
        rows(seed=EVALUATION_SEEDS[0])
