"""TaRO in the trainer: roll-outs that were begun, what they weigh, and how much a reply depends on its frames."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file

from tests.train.test_grpo import recipe
from timeloupe.cli.main import main
from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.model.episode import Clip, TokenEpisode
from timeloupe.model.expand import expand
from timeloupe.model.forward import target_logprobs
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.policy.local import LocalPolicy
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.base import Context
from timeloupe.reward.compose import load_reward
from timeloupe.reward.parts import PARTS
from timeloupe.reward.taro import READ_DROPS
from timeloupe.reward.taro_sensitivity import OPENING
from timeloupe.train.batch import make_samples, token_episode
from timeloupe.train.exploration import (
    Explorer,
    is_constructed,
    make_explorer,
    names_times,
    read_captions,
    thought_figures,
    world_captions,
)
from timeloupe.train.grpo import members, roll_out, score_all, train_grpo
from timeloupe.train.grpo_recipe import DifficultyPart, ExplorationPart, GrpoRecipe, SensitivityPart
from timeloupe.train.parallel import Parallel
from timeloupe.train.sensitivity import (
    Drop,
    check_reward,
    drop_figures,
    measure_drops,
    mix_clips,
    thought_span,
    with_thresholds,
)
from timeloupe.train.update import update
from timeloupe.trajectory import Example, Segment, StopReason, Trajectory, read_examples
from timeloupe.video.cache import FrameCache
from timeloupe.world.encode import plan_videos
from timeloupe.world.timeline import timeline

LINES = tuple("abcdefg")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos of a minute with a grounding question each, and captions of them."""
    folder = tmp_path_factory.mktemp("world")
    words = ["--seed", "5", "--videos", "2", "--minutes", "1", "--tasks", "grounding"]
    assert main(["world", "make", str(folder), *words]) == 0
    with (folder / "captions.jsonl").open("w", encoding="utf-8") as out:
        for video in plan_videos(folder, seed=5, num_videos=2, tasks=["grounding"], **minutes(1)):
            row = {"id": video.examples[0].id, "captions": timeline(video.script, list(range(0, 60, 3)))}
            out.write(json.dumps(row) + "\n")
    return folder


def minutes(count: float) -> dict[str, Any]:
    """As ``world make --minutes`` has it."""
    from timeloupe.world.script import ScriptSettings

    return {"settings": ScriptSettings(min_seconds=60 * count, max_seconds=60 * count)}


def taro_recipe(world: Path, **changes: Any) -> GrpoRecipe:
    """A run with everything on."""
    values: dict[str, Any] = {
        "data": {"examples": [str(world / "examples.jsonl")], "tasks": ["grounding"]},
        "reward": "taro",
        "episode": {"temperature": 2.0, "tools": False, "max_new_tokens": 90},
        "exploration": {"captions": str(world / "captions.jsonl"), "until": 0.5, "opening": ""},
        "sensitivity": {"radius_seconds": 8.0},
        "steps": 4,
    }
    return recipe(world, **(values | changes))


@pytest.fixture(scope="module")
def played(world: Path) -> tuple[LoadedModel, list[Trajectory], FrameCache, list[str]]:
    """One step's roll-outs, about half of them constructed."""
    chosen = taro_recipe(world, prompts=2, group=6)
    chosen = chosen.model_copy(
        update={"exploration": chosen.exploration.model_copy(update={"probability": 0.5})}  # type: ignore[union-attr]
    )
    loaded = load_model(SMALL_CHECKPOINT, device="cpu")
    cache = FrameCache(1 << 28)
    episode = make_settings(loaded.layout.details["episode"], chosen.episode)
    examples = list(read_examples(world / "examples.jsonl"))
    explorer = make_explorer(chosen, examples, episode)
    assert explorer is not None
    who = members(chosen, examples, 0)
    prefixes = explorer.prefixes(who, 0)
    found = roll_out(chosen, who, 0, LocalPolicy(loaded), PROTOCOLS["small"], episode, cache, prefixes)
    scored = score_all(found, load_reward("taro"), [Context()] * len(found))
    return loaded, scored, cache, prefixes


# Constructive exploration


def explorer_of(steps: int = 10, **part: Any) -> Explorer:
    return Explorer(ExplorationPart(**part), {"a": LINES, "none": ()}, seed=3, num_steps=steps)


def row(id: str, **changes: Any) -> Example:
    return Example(id=id, video="v.mp4", question="When?", task="grounding", **changes)


@given(step=st.integers(0, 9), index=st.integers(0, 500), opening=st.sampled_from(["", OPENING]))
def test_a_reply_begins_with_a_part_of_the_captions_in_their_order(
    step: int, index: int, opening: str
) -> None:
    explorer = explorer_of(opening=opening)
    (found,) = explorer.prefixes([(row("a"), index)], step)
    first, *rest = found.split("\n")
    assert first == "<think>"
    if opening:
        assert rest.pop(0) == OPENING.replace("{query}", "When?")
    assert rest == sorted(set(rest)) and set(rest) <= set(LINES) and rest
    assert explorer.prefixes([(row("none"), 0), (row("a"), index)], step) == ["", found]


def test_the_warm_up_ends_and_may_fade() -> None:
    steps = range(14)
    assert [explorer_of().probability(step) for step in steps] == [1.0] * 10 + [0.0] * 4
    fading = [explorer_of(linear=True, probability=0.5).probability(step) for step in steps]
    assert fading == pytest.approx([0.5 * max(0, 1 - step / 10) for step in steps])
    who = [(row("a"), index) for index in range(400)]
    begun = [bool(prefix) for prefix in explorer_of(linear=True).prefixes(who, 5)]
    assert 0.4 < sum(begun) / 400 < 0.6
    assert not any(explorer_of().prefixes(who, 10))


def test_the_warm_up_is_a_share_of_the_run_or_counts_epochs(world: Path) -> None:
    examples = list(read_examples(world / "examples.jsonl"))
    part = {"captions": str(world / "captions.jsonl")}

    def num_steps(**values: Any) -> int:
        made = make_explorer(
            taro_recipe(world, steps=30, prompts=1, exploration=part | values), examples, EpisodeSettings()
        )
        assert made is not None
        return made.num_steps

    assert num_steps() == 10 and num_steps(until=1.0) == 30
    assert num_steps(epochs=2) == 2 * len(examples)  # one prompt a step
    assert make_explorer(taro_recipe(world, exploration=None), examples, EpisodeSettings()) is None


def test_captions_are_found_by_id_and_by_video_and_written_out(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    lines = [
        {"id": "a", "captions": ["From 1s to 2s, x."]},
        {"video": "videos/b.mp4", "captions": [{"segment": [5.25, 8], "text": "The person opens it."}, "y"]},
        {"id": "c", "captions": []},
        {"id": "e", "captions": ["From 1s\u2028to 2s, x."]},
    ]
    written = [json.dumps(line, ensure_ascii=False) for line in lines]
    path.write_text("\n".join(written) + "\n\n", encoding="utf-8")
    assert read_captions(path, [row("e")]) == {"e": ("From 1s\u2028to 2s, x.",)}
    here = {"video": str(tmp_path / "videos" / "b.mp4")}
    examples = [row("a"), row("b").model_copy(update=here), row("c").model_copy(update=here)]
    assert read_captions(path, examples) == {
        "a": ("From 1s to 2s, x.",), "b": ("From 5.2s to 8.0s, the person opens it.", "y"), "c": (),
    }  # fmt: skip
    with pytest.raises(ConfigError, match="no captions of an example, got 'd'"):
        read_captions(path, [row("d")])


BAD_LINES = (
    "{", "[]", '{"id": "a"}', '{"captions": []}', '{"id": "a", "captions": [{"text": "x"}]}',
    '{"id": "a", "captions": 3}', '{"id": "a", "captions": "From 1s to 2s, x."}',
)  # fmt: skip


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_of_captions_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text(f'{{"id": "b", "captions": []}}\n{line}\n', encoding="utf-8")
    with pytest.raises(RecordError, match=r"captions\.jsonl:2 is no line of captions"):
        read_captions(path, [])
    with pytest.raises(MissingError, match="no captions at"):
        read_captions(tmp_path / "none.jsonl", [])


def test_the_truth_file_of_a_world_is_a_file_of_captions(world: Path) -> None:
    examples = list(read_examples(world / "examples.jsonl"))
    found = read_captions(world / "truth.jsonl", examples)
    assert all(
        "the background is " in sentences[0] and names_times(sentences[0]) for sentences in found.values()
    )


def test_a_world_brings_its_own_captions_with_the_times_of_its_frames(world: Path, played: Any) -> None:
    _, trajectories, _, _ = played
    loaded = load_model(SMALL_CHECKPOINT, device="cpu")
    episode = make_settings(loaded.layout.details["episode"])
    plan = {"seed": 5, "num_videos": 2, "tasks": ["grounding"], **minutes(1)}
    found = world_captions(plan, episode)
    for one in trajectories:
        printed = {f"{time:.0f}s" for time in one.skims[0].at_seconds}
        assert {line.split()[0] for line in found[one.example.id]} <= printed


def test_exploration_without_captions_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="exploration needs captions"):
        taro_recipe(world, exploration={})
    (tmp_path / "c.jsonl").write_text('{"id": "other", "captions": []}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="no captions of an example"):
        train_grpo(taro_recipe(world, exploration={"captions": str(tmp_path / "c.jsonl")}), tmp_path / "run")


def test_a_constructed_roll_out_is_learnt_as_it_was_recorded(played: Any) -> None:
    loaded, trajectories, cache, prefixes = played
    assert 2 < sum(map(bool, prefixes)) < 10
    assert [is_constructed(one) for one in trajectories] == list(map(bool, prefixes))
    for one, prefix in zip(trajectories, prefixes, strict=True):
        again = Trajectory.model_validate_json(one.model_dump_json())
        assert again.turns[0].generation.text.startswith(prefix)
        assert again.settings.get("reply_prefix", "") == prefix
        episode = token_episode(again, loaded, cache)
        (learnt,) = [segment for segment in episode.segments if segment.trained]
        begun = loaded.layout.encode(prefix) if prefix else []
        assert learnt.token_ids == again.turns[0].generation.token_ids and len(learnt.token_ids) > len(begun)
        assert list(learnt.token_ids[: len(begun)]) == list(begun)
        assert learnt.logprobs is not None and len(learnt.logprobs) == len(learnt.token_ids)
    batch = expand([token_episode(one, loaded, cache) for one in trajectories], loaded.layout)
    with torch.no_grad():
        forced = target_logprobs(loaded.model, batch)
    assert batch.logprobs_BT is not None and (forced - batch.logprobs_BT).abs().max() < 1e-4
    assert thought_figures(trajectories)["constructed"] == sum(map(bool, prefixes)) / len(prefixes)


def test_only_constructed_roll_outs_that_did_better_are_learnt(world: Path, played: Any) -> None:
    _, trajectories, cache, _ = played
    begun = [one for one in trajectories if is_constructed(one)][:3]
    begun = [one.model_copy(update={"example": begun[0].example}) for one in begun]

    def weights(rewards: list[float], kept: list[Trajectory], **changes: Any) -> tuple[dict[str, float], Any]:
        loaded = load_model(SMALL_CHECKPOINT, device="cpu")
        part = ExplorationPart(captions="x", **changes)
        samples = make_samples(kept, list(rewards), loaded, cache, exploration=part)
        assert all(sample.off_policy for sample in samples)
        optimizers = [torch.optim.SGD(loaded.model.parameters(), lr=1.0)]
        # Unclipped: the step is the gradient.
        figures = update(samples, loaded, None, optimizers, recipe(world, clip_norm=1e9), Parallel())
        return figures, loaded

    figures, loaded = weights([1.0, 0.0, 0.0], begun)
    assert figures["norm"] > 0 and "ratio" not in figures and "clip_share" not in figures
    # The same step from the good one alone: its weight times the gradient of its mean log-probability over three.
    fresh = load_model(SMALL_CHECKPOINT, device="cpu")
    batch = expand([token_episode(begun[0], fresh, cache)], fresh.layout)
    advantage = (1 - 1 / 3) / (float(np.std([1.0, 0, 0], ddof=1)) + 1e-4)
    gain = advantage * target_logprobs(fresh.model, batch).sum() / batch.loss_mask_BT.sum() / 3
    gain.backward()
    for mine, theirs in zip(loaded.model.parameters(), fresh.model.parameters(), strict=True):
        if theirs.grad is not None:
            assert (mine.detach() - theirs.detach() - theirs.grad).abs().max() < 1e-4
    assert weights([1.0, 1.0, 1.0], begun)[0] == {}
    samples = make_samples(
        begun, [0.0, 1.0, 2.0], loaded, cache, exploration=ExplorationPart(weights="clone")
    )
    assert [sample.advantage for sample in samples] == [0.0, 0.0, 1.0]


def test_examples_that_all_solve_weigh_less(played: Any) -> None:
    loaded, trajectories, cache, _ = played
    group = [one.model_copy(update={"settings": {}}) for one in trajectories[:4]]
    rewards: list[float | None] = [1.0, 2.0, 2.0, 2.0]
    plain = make_samples(group, rewards, loaded, cache)
    weighed = make_samples(group, rewards, loaded, cache, difficulty=DifficultyPart(solved=1.5))
    assert [one.advantage for one in weighed] == pytest.approx([0.25 * one.advantage for one in plain])


@pytest.mark.parametrize(
    ("thought", "expected"),
    [("From 5.3s to 8s", True), ("at 12 seconds", True), ("1:05", True), ("12S", True), ("Found.", False),
     ("3 shapes, 4 sides", False), ("the 80s5 model", False)],
)  # fmt: skip
def test_what_names_a_time(thought: str, expected: bool) -> None:
    assert names_times(thought) is expected


# Temporal sensitivity


@settings(max_examples=60)
@given(
    times=st.lists(st.integers(0, 60), min_size=1, max_size=24, unique=True).map(sorted),
    start=st.integers(0, 50), length=st.integers(1, 20), radius=st.floats(0.5, 12), seed=st.integers(0, 99),
)  # fmt: skip
def test_only_frames_near_the_true_boundaries_are_mixed(
    times: list[int], start: int, length: int, radius: float, seed: int
) -> None:
    pixels = np.arange(len(times), dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 2, 2, 3), dtype=np.uint8
    )
    clip = Clip(pixels, tuple(map(float, times)))
    truth = Segment(start_seconds=start, end_seconds=start + length)
    (found,) = mix_clips(TokenEpisode((), (clip,)), [truth], radius, (seed,)).clips
    order = found.pixels[:, 0, 0, 0].tolist()
    assert sorted(order) == list(range(len(times))) and found.at_seconds == clip.at_seconds
    for place, source in enumerate(order):
        if place != source:
            near = [
                min(abs(times[one] - edge) for edge in (start, start + length)) for one in (place, source)
            ]
            assert max(near) <= radius + 1e-9
    (again,) = mix_clips(TokenEpisode((), (clip,)), [truth], radius, (seed,)).clips
    assert np.array_equal(again.pixels, found.pixels)


def test_a_model_that_ignores_frames_has_no_drop_and_one_that_sees_has(played: Any) -> None:
    loaded, trajectories, cache, _ = played
    part = SensitivityPart(radius_seconds=8.0, span="response")
    seeing = measure_drops(trajectories, loaded, cache, part, seed=1)
    assert any(abs(one.value or 0.0) > 1e-3 for one in seeing)
    blind = load_model(SMALL_CHECKPOINT, device="cpu")

    def forget(module: Any, inputs: Any, output: Any) -> Any:
        output.pooler_output = [torch.zeros_like(one) for one in output.pooler_output] if isinstance(
            output.pooler_output, list | tuple
        ) else torch.zeros_like(output.pooler_output)  # fmt: skip
        return output

    visual: Any = blind.model.base_model.visual
    hook = visual.register_forward_hook(forget)
    drops = measure_drops(trajectories, blind, cache, part, seed=1)
    hook.remove()
    assert [one.value for one in drops] == [0.0] * len(trajectories)
    # Nothing is above the mean of nothing, so no bonus is paid.
    scored = score_all(trajectories, load_reward("taro"), [one.context(0.0) for one in drops])
    assert {one.score.parts["sensitivity"] for one in scored} == {0.0}
    figures = drop_figures(drops)
    assert figures == {"drop_measured": 1.0, "drop": 0.0, "drop_above": 0.0}


def test_a_drop_is_the_same_in_any_company(played: Any) -> None:
    loaded, trajectories, cache, _ = played
    part = SensitivityPart(radius_seconds=8.0, threshold=0.1)
    whole = measure_drops(trajectories, loaded, cache, part, seed=1, micro_batch=5)
    ones = [measure_drops([one], loaded, cache, part, seed=1)[0] for one in trajectories]
    assert [one.value for one in whole] == [
        None if one.value is None else pytest.approx(one.value, abs=1e-4) for one in ones
    ]


@settings(max_examples=40)
@given(
    thought=st.text(st.characters(blacklist_characters="<>", blacklist_categories=["Cs"]), max_size=20),
    closed=st.booleans(),
)
def test_the_span_is_the_thought(thought: str, closed: bool) -> None:
    loaded = load_model(SMALL_CHECKPOINT, device="cpu")
    text = f"<think>{thought}" + ("</think><answer>1s to 2s</answer>" if closed else "")
    ids = [*loaded.layout.encode(text), loaded.chat.end_id]
    first, last = thought_span(text, ids[:-1], loaded)
    assert loaded.tokenizer.decode(ids[first:last]) == thought
    assert thought_span("1s to 2s", loaded.layout.encode("1s to 2s"), loaded) == (0, 0)


def test_drops_are_compared_with_the_mean_of_their_group() -> None:
    values, groups = [1.0, 3.0, None, 10.0], ["a", "a", "a", "b"]
    plain = with_thresholds(values, groups, SensitivityPart())
    assert plain == [Drop(1.0, 2.0), Drop(3.0, 2.0), Drop(), Drop(10.0, 10.0)]
    shared = with_thresholds(values, groups, SensitivityPart(shared_by_group=True, threshold=2.5))
    assert shared == [Drop(3.0, 2.5), Drop(3.0, 2.5), Drop(), Drop(10.0, 2.5)]
    for value in (0.1, 1 / 3, -0.00012):
        alike = with_thresholds([value] * 7, ["a"] * 7, SensitivityPart())
        assert {(one.value, one.threshold) for one in alike} == {(value, value)}
    assert plain[0].context(0.5) == Context(0.5, 1.0, 2.0) and Drop().context(0.0) == Context()


def test_roll_outs_that_show_nothing_are_not_measured(played: Any) -> None:
    loaded, trajectories, cache, _ = played
    bare = trajectories[0].example.model_copy(update={"segments": ()})
    cases = [
        trajectories[0].model_copy(update={"example": bare}),
        trajectories[0].model_copy(update={"turns": (), "stop": StopReason.INFRASTRUCTURE}),
        trajectories[0].model_copy(update={"stop": StopReason.INFRASTRUCTURE}),
    ]
    assert measure_drops(cases, loaded, cache, SensitivityPart(), seed=0) == [Drop()] * 3


# The whole run


def test_a_run_with_both_that_was_cut_off_goes_on_to_the_same_numbers(world: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    chosen = taro_recipe(world, loss={"kl_weight": 0.01})
    train_grpo(chosen, whole)

    class Killed(Exception):
        pass

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == 1:
            raise Killed

    with pytest.raises(Killed):
        train_grpo(chosen, cut, on_log=kill)
    train_grpo(chosen, cut, resume=True)

    def figures(folder: Path) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        skipped = ("second", "frames")
        return [{k: v for k, v in row.items() if not any(word in k for word in skipped)} for row in rows]

    assert figures(cut) == figures(whole)
    assert [row["constructed"] for row in figures(whole)] == [1.0, 1.0, 0.0, 0.0]
    assert all("drop_measured" in row for row in figures(whole))
    assert "sensitivity_seconds" in json.loads((whole / "metrics.jsonl").read_text().splitlines()[0])
    ones, twos = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(ones[name], twos[name]) for name in ones)


def test_what_no_reward_reads_is_not_measured_and_what_is_not_measured_is_told(world: Path) -> None:
    with pytest.raises(ConfigError, match="does not read"):
        check_reward(taro_recipe(world), load_reward("videotemp_paper"))
    with pytest.warns(UserWarning, match=r"pays no sensitivity: the recipe has no \[sensitivity\]"):
        check_reward(taro_recipe(world, sensitivity=None), load_reward("taro"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_reward(taro_recipe(world), load_reward("taro"))
        check_reward(taro_recipe(world, sensitivity=None), load_reward("videotemp_paper"))


def test_the_parts_that_read_drops_are_known(played: Any) -> None:
    asked: set[str] = set()

    class Watched(Context):
        def __getattribute__(self, name: str) -> Any:
            asked.add(name)
            return super().__getattribute__(name)

    reading = set()
    for name, (part, _) in PARTS.items():
        asked.clear()
        part(played[1][0], Watched())
        reading |= {name} if "log_prob_drop" in asked else set()
    assert reading == READ_DROPS
