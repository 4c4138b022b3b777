"""MUSEG's recipes and the study that takes them apart: recipes load, tables and sentences say what the figures say."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from timeloupe.config import load_recipe
from timeloupe.reward.base import Context
from timeloupe.reward.compose import load_reward
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.trajectory import (
    Answer,
    Example,
    Generation,
    Segment,
    StopReason,
    Trajectory,
    Turn,
    read_examples,
)
from timeloupe.world.script import EVALUATION_SEEDS

ROOT = Path(__file__).resolve().parents[2]
STUDIES = ROOT / "benchmarks" / "ablations"


@pytest.fixture(scope="module")
def study() -> Iterator[ModuleType]:
    """The study's script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STUDIES))
        spec = importlib.util.spec_from_file_location("museg_study", STUDIES / "museg.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def tables(study: ModuleType) -> ModuleType:
    """What it makes of figures."""
    return sys.modules["museg_figures"]


def episode(
    task: str, truth: list[tuple[float, float]], text: str, said: list[tuple[float, float]]
) -> Trajectory:
    """A finished single pass."""
    segments = [Segment(start_seconds=start, end_seconds=end) for start, end in truth]
    named = [Segment(start_seconds=start, end_seconds=end) for start, end in said]
    values: dict[str, Any] = {
        "id": "1",
        "video": "v.mp4",
        "question": "?",
        "task": task,
        "segments": segments,
    }
    answer = Answer(text=text, segments=tuple(named)) if named else None
    turn = Turn(generation=Generation(text=text), answer=answer)
    stop = StopReason.ANSWERED if named else StopReason.FORMAT
    return Trajectory(example=Example(**values), policy="p", protocol="small", turns=(turn,), stop=stop)


@pytest.mark.parametrize(
    "name", ["museg-small-phase1", "museg-small-phase2", "museg-7b-phase1", "museg-7b-phase2"]
)
def test_recipes_load_and_hold_what_the_release_has(name: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / "grpo" / f"{name}.toml", [], GrpoRecipe)
    assert (recipe.group, recipe.updates, recipe.scale, recipe.epsilon) == (8, 1, "std", 1e-4)
    assert recipe.loss.kl_weight == 0.04 and recipe.loss.aggregate == "sequence_mean"
    assert recipe.episode["tools"] is False and set(recipe.data.tasks) == {"grounding", "multi_segment"}
    if "7b" in name:
        assert recipe.steps * recipe.prompts == (5600 if name.endswith("1") else 7000)
        assert recipe.lr == 1.5e-6 and recipe.decay == 1.0 and recipe.warmup == 0.0
        first = (ROOT / "recipes" / "grpo" / f"{name}.toml").read_text(encoding="utf-8").splitlines()[0]
        assert "2505.20715" in first and "8 x A100" in first and "Not run by us" in first
    else:
        assert recipe.data.world is not None and recipe.data.world.seed not in EVALUATION_SEEDS


def test_the_small_rewards_differ_in_the_times_of_the_thought() -> None:
    one, two = (load_reward(ROOT / "recipes" / "rewards" / f"museg_small_phase{k}.toml") for k in (1, 2))
    truth = [(20.0, 36.0), (84.0, 92.0)]
    plain = episode("multi_segment", truth, "<think>Found.</think><answer>20-36 84-92</answer>", truth)
    timed = episode(
        "multi_segment", truth, "<think>Seen 20 to 36, 84 to 92.</think><answer>20-36 84-92</answer>", truth
    )
    totals = [reward.score(of, Context()).parts["reward"] for reward in (one, two) for of in (plain, timed)]
    assert totals == pytest.approx([2.6, 3.0, 3.0, 3.0], abs=1e-5)


def test_a_run_without_local_matching_pays_global_matching_twice(study: ModuleType, tmp_path: Path) -> None:
    reward = load_reward(study.reward_of("timed-global", tmp_path))
    one = episode(
        "multi_segment", [(20.0, 36.0)], "<think>Seen 20 to 36.</think><answer>20-36</answer>", [(20, 36)]
    )
    assert reward.score(one, Context()).parts["reward"] == pytest.approx(3.0, abs=1e-5)
    assert [use.part for use in reward.composite.parts] == [
        "museg.format_with_timestamp",
        "museg.global_matching",
    ]
    assert study.reward_of("plain-single", tmp_path).endswith("museg_small_phase2.toml")


def test_variants_share_what_begins_alike_and_nothing_else(study: ModuleType) -> None:
    runs = {variant: study.runs_of(variant, 3) for variant in study.VARIANTS}
    assert runs["full"][0] == runs["always"][0]
    assert len({pair[0] for pair in runs.values()}) == 4 and len({pair[1] for pair in runs.values()}) == 5


def test_questions_are_as_many_of_each_kind_as_of_one_moment(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from timeloupe.world.encode import plan_videos
    from timeloupe.world.script import ScriptSettings

    settings = ScriptSettings(60, 240, return_rate=0.5)
    planned = list(
        plan_videos(
            tmp_path,
            seed=5,
            num_videos=30,
            settings=settings,
            tasks=("grounding", "multi_segment"),
            per_task=2,
        )
    )
    monkeypatch.setattr(study, "videos", lambda *rest: planned)
    mixed, single = (list(read_examples(path)) for path in study.write_questions(tmp_path, 0))
    assert len(mixed) == len(single) > 100
    assert sum(one.task == "multi_segment" for one in mixed) == len(mixed) / 2
    assert {one.task for one in single} == {"grounding"}
    for rows in (mixed, single):
        assert len({one.id for one in rows}) == len(rows)
    before = (tmp_path / "mixed-0.jsonl").read_text(encoding="utf-8")
    study.write_questions(tmp_path, 1)
    assert (tmp_path / "mixed-1.jsonl").read_text(encoding="utf-8") != before


def test_figures_of_episodes_that_can_be_checked_by_hand(tables: ModuleType) -> None:
    truth = [(20.0, 40.0), (80.0, 100.0)]
    right = "<think>Seen 20 to 40, 80 to 100.</think><answer>20-40 80-100</answer>"
    half = "<think>Found.</think><answer>20-40</answer>"
    found = tables.figures_of(
        [
            episode("multi_segment", truth, right, truth),
            episode("multi_segment", truth, half, truth[:1]),
            episode("grounding", truth[:1], "<think>Found.</think><answer>30-40</answer>", [(30, 40)]),
            episode("grounding", truth[:1], "<think>Found.", []),
        ]
    )
    assert found["multi_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["multi_f1_museg"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["multi_set_iou"] == pytest.approx(0.75)
    assert found["multi_extra"] == pytest.approx(-0.5)
    assert found["single_iou"] == pytest.approx(0.25)
    assert found["format"] == pytest.approx(0.75)
    assert found["names_times"] == pytest.approx(0.25)
    assert found["no_answer"] == pytest.approx(0.25)


def made_up(tables: ModuleType, work: Path, gains: dict[str, list[float]]) -> None:
    """Figures of three seeds: ``full`` has 0.5 of everything, a variant that less its gains."""
    for variant in tables.VARIANTS:
        for seed in range(3):
            folder = work / tables.runs_of(variant, seed)[1]
            folder.mkdir(parents=True)
            value = 0.5 - gains.get(variant, [0.0, 0.0, 0.0])[seed]
            for temperature in tables.TEMPERATURES:
                row = dict.fromkeys(tables.FIGURES, value) | {"n": 4}
                (folder / f"figures-{temperature}.json").write_text(json.dumps(row), encoding="utf-8")


def test_sentences_say_reproduced_only_where_all_seeds_agree(tables: ModuleType, tmp_path: Path) -> None:
    gains = {"single_data": [0.1, 0.2, 0.3], "no_local": [-0.1, -0.1, -0.2], "always": [0.1, -0.1, 0.1]}
    made_up(tables, tmp_path, gains)
    said = tables.sentences(tmp_path, [0, 1, 2])
    assert len(said) == len(tables.CLAIMS)
    assert "reproduces" in said[0] and "+0.100, +0.200, +0.300" in said[0]
    assert "does not reproduce" in said[2]
    assert "cannot be told" in said[3] and "cannot be told" in said[4]
    assert tables.sentences(tmp_path, [0, 1, 2, 3]) == [], "a seed that is missing leaves no verdict"
    # Only always in seed 0 has no more than single_data: both 0.4.
    beside = tables.beside_single_data(tmp_path, [0, 1, 2])
    assert "multi_f1 in 11 of 12" in beside, beside


def test_the_table_and_its_plot(tables: ModuleType, tmp_path: Path) -> None:
    made_up(tables, tmp_path, {"never": [0.0, 0.1, 0.2]})
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "figures-0.0.json").write_text(
        json.dumps(dict.fromkeys(tables.FIGURES, 0.3)), encoding="utf-8"
    )
    table = tables.collect(tmp_path, [0, 1, 2])
    assert table["base, T = 0"]["multi_f1"] == 0.3
    assert table["never, T = 0"]["multi_f1"] == pytest.approx({"mean": 0.4, "low": 0.3, "high": 0.5})
    assert len(table) == 1 + 2 * len(tables.VARIANTS)
    tables.plot(table, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[:4] == b"\x89PNG"
