"""World scripts: deterministic, consistent, and never shared between training and evaluation."""

import hashlib
import json
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.errors import ConfigError
from timeloupe.world.encode import script_truth
from timeloupe.world.script import (
    DURATION_BINS_SECONDS,
    EVALUATION_SEEDS,
    SHAPES,
    ScriptSettings,
    make_script,
    training_seed,
)

ROOT = Path(__file__).resolve().parents[2]
seeds = st.integers(0, 2**31)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, 10_000))
def test_a_script_is_consistent(seed: int, index: int) -> None:
    script = make_script(seed, index)
    assert script == make_script(seed, index)
    assert script.scenes[0].segment.start_seconds == 0
    assert script.scenes[-1].segment.end_seconds == script.duration_seconds
    assert len({scene.colour for scene in script.scenes}) == len(script.scenes)
    for before, after in zip(script.scenes, script.scenes[1:], strict=False):
        assert before.segment.end_seconds == after.segment.start_seconds
        # A skim of 16 frames shows every scene at least twice.
        assert before.segment.length_seconds >= 2.9 * script.duration_seconds / 16
    for event in script.events:
        scene = script.scenes[event.scene_index].segment
        assert (
            scene.start_seconds
            <= event.segment.start_seconds
            < event.segment.end_seconds
            <= scene.end_seconds
        )
        assert event.segment.start_seconds <= event.digit_segment.start_seconds
        assert event.digit_segment.end_seconds <= event.segment.end_seconds
        middle = (event.digit_segment.start_seconds + event.digit_segment.end_seconds) / 2
        assert script.event_at(middle) == event
        assert script.scene_at(middle) == event.scene_index
        assert event.shape in SHAPES
        box = event.box(middle)
        assert 0 <= box.x1 < box.x2 <= 1
    spans = sorted((event.segment.start_seconds, event.segment.end_seconds) for event in script.events)
    assert all(one[1] <= other[0] for one, other in zip(spans, spans[1:], strict=False)), (
        "events never overlap"
    )
    assert len({(event.scene_index, event.shape) for event in script.events}) == len(script.events)


def test_other_seeds_give_other_videos() -> None:
    scripts = {make_script(seed, index).events for seed in range(5) for index in range(20)}
    assert len(scripts) == 100


@pytest.mark.parametrize("bin_name", list(DURATION_BINS_SECONDS))
def test_durations_stay_in_their_bin(bin_name: str) -> None:
    low, high = DURATION_BINS_SECONDS[bin_name]
    for index in range(30):
        assert low - 0.1 <= make_script(3, index, ScriptSettings(low, high)).duration_seconds <= high + 0.1


def test_several_instances_and_distractors_occur() -> None:
    scripts = [make_script(1, index) for index in range(50)]
    assert any(len({event.shape for event in script.events}) < len(script.events) for script in scripts)
    assert any(event.distractor for script in scripts for event in script.events)


@pytest.mark.parametrize("seed", [EVALUATION_SEEDS[0], EVALUATION_SEEDS[-1], -1])
def test_training_refuses_evaluation_seeds(seed: int) -> None:
    with pytest.raises(ConfigError, match="kept for evaluation"):
        training_seed(seed)


def test_no_recipe_touches_an_evaluation_seed() -> None:
    found = 0
    for path in ROOT.glob("recipes/**/*.toml"):
        for stage in tomllib.loads(path.read_text(encoding="utf-8")).get("stages", []):
            if "world_seed" in stage:
                assert stage["world_seed"] not in EVALUATION_SEEDS, path
                found += 1
    assert found


@pytest.mark.parametrize(
    "bad", [ScriptSettings(1, 2), ScriptSettings(300, 200), ScriptSettings(num_scenes=9)]
)
def test_impossible_settings_are_refused(bad: ScriptSettings) -> None:
    with pytest.raises(ConfigError):
        make_script(0, 0, bad)


def test_scripts_are_those_that_the_shipped_model_and_the_recorded_figures_come_from() -> None:
    """Golden hash of 60 scripts, taken before shapes could be made to return and paths stood in the truth."""
    found = hashlib.sha256()
    for seed in (0, 7, 1_000_001):
        for index in range(20):
            truth = script_truth(make_script(seed, index))
            for event in truth["events"]:
                del event["path"]
            found.update(json.dumps(truth).encode())
    assert found.hexdigest() == "029c1a9846ed7dcd0473227425e620f070fe29ab4a85234148a3beb181504a23"


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(0, 10_000), st.floats(0.1, 1.0))
def test_a_shape_that_returns_changes_nothing_else(seed: int, index: int, rate: float) -> None:
    plain = make_script(seed, index)
    script = make_script(seed, index, ScriptSettings(return_rate=rate))
    shapes = [event.shape for event in plain.events]
    back = [replace(event, shape=shape) for event, shape in zip(script.events, shapes, strict=True)]
    assert replace(script, events=tuple(back)) == plain
    assert len({(event.scene_index, event.shape) for event in script.events}) == len(script.events)


def test_shapes_return_as_often_as_asked_for() -> None:
    def most(rate: float) -> float:
        scripts = [make_script(2, index, ScriptSettings(return_rate=rate)) for index in range(100)]
        return sum(max(Counter(e.shape for e in one.events).values()) for one in scripts) / 100

    assert most(0.0) < most(0.5) < most(1.0)
    with pytest.raises(ConfigError, match="shape returns"):
        make_script(0, 0, ScriptSettings(return_rate=1.5))
