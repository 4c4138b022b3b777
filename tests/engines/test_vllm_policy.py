"""Roll-outs in vLLM: the local policy's tokens and log-probabilities, new weights taken and checked, faults told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.engines.fake_vllm import FakeLLM, fake_vllm
from tests.model.tiny import tiny_loaded
from timeloupe.cli.main import main
from timeloupe.engines import vllm_engine
from timeloupe.engines.rollouts import make_policy
from timeloupe.engines.vllm_policy import VllmPolicy
from timeloupe.engines.vllm_prompt import engine_prompt, form_of, position_rate
from timeloupe.errors import ConfigError, MissingError, TimeloupeError
from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.model.expand import expand
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.model.positions import grid_times
from timeloupe.policy.base import GenerationRequest, Sampling
from timeloupe.policy.local import LocalPolicy, banned_tokens
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.train.lora import add_adapters, merged_weights
from timeloupe.train.recipe import LoraPart
from timeloupe.train.rollout_part import RolloutPart, figures_of
from timeloupe.trajectory import FrameRef, Generation, Message, Text

__all__ = ["fake_vllm"]

PART = RolloutPart(backend="vllm", memory_gib=0.25)
GREEDY = Sampling(max_new_tokens=10)


@pytest.fixture
def loaded() -> LoadedModel:
    return load_model(SMALL_CHECKPOINT, device="cpu")


@pytest.fixture
def policy(fake_vllm: type[FakeLLM], loaded: LoadedModel) -> VllmPolicy:
    return VllmPolicy(loaded, PART)


@pytest.fixture
def random_qwen3_vl(tmp_path: Path) -> Iterator[LoadedModel]:
    """A random model in the published layout: two frames a group, clips as videos."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
        from tiny_qwen3_vl import write_tiny_qwen3_vl  # type: ignore[import-not-found]

        yield load_model(write_tiny_qwen3_vl(tmp_path / "random"), device="cpu")


def view(seed: int, num_frames: int = 3, *, at: float = 0.0, size: int = 32) -> tuple[FrameRef, np.ndarray]:
    """A clip: what a message says of it, and its pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (num_frames, size, size, 3), dtype=np.uint8)
    times = tuple(at + 0.5 * index for index in range(num_frames))
    ref = FrameRef(
        video="v.mp4", view="crop", start_seconds=0, end_seconds=99, at_seconds=times, size_wh=(size, size)
    )
    return ref, pixels


def user(*parts: str | FrameRef) -> Message:
    return Message(role="user", parts=tuple(Text(text=one) if isinstance(one, str) else one for one in parts))


def request(
    seed: int, sampling: Sampling = GREEDY, *, num_frames: int = 3, size: int = 32
) -> GenerationRequest:
    ref, pixels = view(seed, num_frames, size=size)
    return GenerationRequest((user(ref, f"When is it red? {seed}"),), (pixels,), seed=seed, sampling=sampling)


def second_turn(first: GenerationRequest, done: Generation, size: int = 32) -> GenerationRequest:
    ref, pixels = view(first.seed + 100, 5, at=40.0, size=size)
    said = Message(role="assistant", parts=(Text(text=done.text),))
    return replace(
        first,
        messages=(*first.messages, said, user(ref, "Look.")),
        clips=(*first.clips, pixels),
        generations=(done,),
    )


def same(ours: Generation, theirs: Generation) -> None:
    """Two generations hold the same, up to rounding and time."""
    assert (ours.text, ours.finish, ours.token_ids) == (theirs.text, theirs.finish, theirs.token_ids)
    assert ours.usage == theirs.usage and ours.error is theirs.error is None
    assert ours.logprobs == pytest.approx(theirs.logprobs, abs=2e-5)


def test_two_turns_are_those_of_the_local_policy(policy: VllmPolicy, loaded: LoadedModel) -> None:
    local, asked = LocalPolicy(loaded), [request(seed) for seed in range(2)]
    for ours, theirs in zip(policy.generate(asked), local.generate(asked), strict=True):
        same(ours, theirs)
        again = second_turn(asked[0], theirs)
        same(policy.generate([again])[0], local.generate([again])[0])
    assert policy.generate([]) == [] and policy.name == "vllm:small_checkpoint"


def test_clips_travel_as_videos_in_the_published_layout(
    fake_vllm: type[FakeLLM], random_qwen3_vl: LoadedModel
) -> None:
    policy, local = VllmPolicy(random_qwen3_vl, PART), LocalPolicy(random_qwen3_vl)
    first = request(3, size=64)
    done = policy.generate([first])[0]
    same(done, local.generate([first])[0])
    again = second_turn(first, done, size=64)
    same(policy.generate([again])[0], local.generate([again])[0])


@pytest.mark.parametrize("size", [4, 10, 40])
def test_a_reply_that_was_begun_goes_on(policy: VllmPolicy, loaded: LoadedModel, size: int) -> None:
    local = LocalPolicy(loaded)
    asked = replace(
        request(1), reply_prefix="red from 2 to 4 ", sampling=replace(GREEDY, max_new_tokens=size)
    )
    same(policy.generate([asked])[0], local.generate([asked])[0])


def test_turns_end_at_stop_strings_which_stay(policy: VllmPolicy, loaded: LoadedModel) -> None:
    local = LocalPolicy(loaded)
    whole = local.generate([request(1)])[0]
    stop = loaded.tokenizer.decode(whole.token_ids[3:4])  # type: ignore[index]
    asked = request(1, replace(GREEDY, stop=(stop,)))
    found = policy.generate([asked])[0]
    same(found, local.generate([asked])[0])
    assert found.finish == "stop" and len(found.token_ids or ()) < len(whole.token_ids or ())


def test_what_vllm_is_asked_to_do(policy: VllmPolicy, loaded: LoadedModel) -> None:
    asked = [replace(request(1, Sampling(1.5, 0.9, 7, 5)), seed=seed) for seed in (-1, 2**64 - 1, 4)]
    first = policy.generate(asked)
    engine = FakeLLM.made[0]
    sent = [one for one in engine.settings if one.max_tokens == 5]
    assert [one.seed for one in sent] == [2**63 - 1, 2**63 - 1, 4] and {one.logprobs for one in sent} == {0}
    for one in sent:
        assert (one.temperature, one.top_p, one.top_k) == (1.5, 0.9, 7)
        assert one.logit_bias == dict.fromkeys(
            banned_tokens(loaded).nonzero().flatten().tolist(), float("-inf")
        )
        assert one.stop_token_ids == list(loaded.layout.eos_token_ids)
    assert [one.token_ids for one in policy.generate(asked)] == [one.token_ids for one in first]
    assert engine.arguments["kv_cache_memory_bytes"] == 1 << 28 and engine.arguments["max_model_len"] == 8192
    assert engine.arguments["dtype"] == "float32" and engine.arguments["enforce_eager"] is True
    assert {"config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"} <= set(
        engine.files
    )
    # Between two reloads no copy of the weights lies about.
    assert not (engine.folder / "model.safetensors").exists()


def nudge(loaded: LoadedModel, seed: int = 0) -> None:
    """Change all weights in place, as an optimiser does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)


def test_changed_weights_are_taken_before_the_next_roll_out(policy: VllmPolicy, loaded: LoadedModel) -> None:
    asked = [request(seed) for seed in range(2)]
    before = policy.generate(asked)
    engine = FakeLLM.made[0]
    assert engine.calls == []
    first = figures_of(policy)
    assert set(first) == {"probe_gap", "probe_seconds"} and first["probe_gap"] < 1e-4
    for seed in range(2):
        nudge(loaded, seed)
        after = policy.generate(asked)
        for ours, theirs in zip(after, LocalPolicy(loaded).generate(asked), strict=True):
            same(ours, theirs)
        assert [one.logprobs for one in after] != [one.logprobs for one in before]
        figures = figures_of(policy)
        assert figures["probe_moved"] > 0.01 > 1e-4 > figures["probe_gap"] and figures["reload_seconds"] > 0
    assert engine.calls == ["reload_weights", "prefix", "encoder", "mm"] * 2 and figures_of(policy) == {}
    policy.generate(asked)
    assert len(engine.calls) == 8 and not (engine.folder / "model.safetensors").exists()


@pytest.mark.parametrize("left_out", ["collective_rpc", "reset_prefix_cache"])
def test_weights_that_were_not_taken_end_the_run(
    policy: VllmPolicy, loaded: LoadedModel, left_out: str
) -> None:
    policy.generate([request(1)])
    setattr(FakeLLM.made[0], left_out, lambda *arguments: True)
    nudge(loaded)
    with pytest.raises(TimeloupeError, match="did not take the new weights") as caught:
        policy.generate([request(1)])
    # Not an error of the policy, which would only end the episodes.
    assert type(caught.value) is TimeloupeError


def test_a_cache_that_cannot_be_emptied_ends_the_run(policy: VllmPolicy, loaded: LoadedModel) -> None:
    policy.generate([request(1)])
    FakeLLM.made[0].reset_prefix_cache = lambda: False  # type: ignore[method-assign]
    nudge(loaded)
    with pytest.raises(ConfigError, match="prefix cache"):
        policy.generate([request(1)])


def test_an_engine_that_computes_another_model_is_refused(policy: VllmPolicy) -> None:
    nudge(FakeLLM.made[0].loaded)
    with pytest.raises(TimeloupeError, match="computes another model"):
        policy.generate([request(1)])


def test_adapters_are_merged_into_what_vllm_reads(fake_vllm: type[FakeLLM], loaded: LoadedModel) -> None:
    add_adapters(loaded.model, LoraPart(), vision=False, seed=0)
    policy = VllmPolicy(loaded, PART)
    policy.generate([request(1)])
    nudge(loaded)
    done = policy.generate([request(1)])[0]
    same(done, LocalPolicy(loaded).generate([request(1)])[0])
    theirs = FakeLLM.made[0].loaded.model.state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in merged_weights(loaded.model).items())


def test_a_fault_is_a_value_once_and_then_ends_the_run(policy: VllmPolicy) -> None:
    policy.generate([request(1)])
    engine, works = FakeLLM.made[0], FakeLLM.made[0].generate

    def fails(*arguments: Any, **more: Any) -> Any:
        raise RuntimeError("out of memory")

    engine.generate = fails  # type: ignore[method-assign]
    lost = policy.generate([request(1), request(2)])
    assert [one.finish for one in lost] == ["error"] * 2 and "out of memory" in (lost[0].error or "")
    engine.generate = works  # type: ignore[method-assign]
    assert policy.generate([request(1)])[0].finish != "error"
    engine.generate = fails  # type: ignore[method-assign]
    policy.generate([request(1)])
    with pytest.raises(ConfigError, match="twice in a row"):
        policy.generate([request(1)])


def test_sampling_that_vllm_refuses(policy: VllmPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    policy.generate([request(1)])

    def refuses(**arguments: Any) -> None:
        raise ValueError("temperature must be in [0, 2]")

    monkeypatch.setattr(policy.engine._vllm, "SamplingParams", refuses)
    with pytest.raises(ConfigError, match=r"temperature must be in \[0, 2\]; change \[episode\]"):
        policy.generate([request(1, Sampling(3.0))])


def test_a_prompt_that_does_not_fit(fake_vllm: type[FakeLLM], loaded: LoadedModel) -> None:
    policy = VllmPolicy(loaded, PART.model_copy(update={"max_model_len": 36}))
    short, long = request(1, num_frames=2), request(2, num_frames=12)
    done, lost = policy.generate([short, long])
    assert done.finish != "error" and lost.finish == "error" and "max_model_len (36" in (lost.error or "")
    # The last episode that still plays may be the one that is too long: the run goes on without it.
    assert [one.finish for one in policy.generate([long])] == ["error"]
    with pytest.raises(ConfigError, match=r"rollout\.max_model_len.*36.*show fewer frames"):
        VllmPolicy(loaded, PART.model_copy(update={"max_model_len": 36})).generate([long])


def test_a_processor_that_does_something_else_is_refused(
    policy: VllmPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy.generate([request(1)])
    real = FakeLLM.made[0]._one

    def resized(*arguments: Any) -> Any:
        output = real(*arguments)
        output.prompt_token_ids.append(0)
        return output

    monkeypatch.setattr(FakeLLM.made[0], "_one", resized)
    with pytest.raises(ConfigError, match="resizes frames"):
        policy.generate([request(1)])


def test_settings_that_vllm_refuses(
    fake_vllm: type[FakeLLM], loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuses(self: FakeLLM, **arguments: Any) -> None:
        raise ValueError("no memory for so many tokens")

    monkeypatch.setattr(FakeLLM, "__init__", refuses)
    monkeypatch.setattr(vllm_engine, "MEMORY_FOLDER", tmp_path)
    with pytest.raises(ConfigError, match=r"no memory for so many tokens; change \[rollout\]"):
        VllmPolicy(loaded, PART)
    assert list(tmp_path.iterdir()) == []


def test_the_weights_go_where_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "MEMORY_FOLDER", tmp_path)
    assert vllm_engine._roomy(1000) == str(tmp_path) and vllm_engine._roomy(1 << 60) is None
    monkeypatch.setattr(vllm_engine, "MEMORY_FOLDER", tmp_path / "none")
    assert vllm_engine._roomy(1000) is None


def test_the_output_head_is_written_apart(policy: VllmPolicy, loaded: LoadedModel) -> None:
    assert loaded.model.config.tie_word_embeddings
    config = json.loads((FakeLLM.made[0].folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False


def test_several_processes_are_refused(
    fake_vllm: type[FakeLLM], loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="processes of a training with roll-outs in vLLM"):
        make_policy(loaded, PART)


def test_models_that_vllm_would_show_something_else_are_refused() -> None:
    assert form_of(tiny_loaded("qwen2_5_vl").layout) == "videos"
    layout = tiny_loaded("qwen3_vl").layout
    assert form_of(layout) == "videos"
    for changes in ({"timestamp_format": "{:.0f}"}, {"wrap_frames": False}):
        with pytest.raises(ConfigError, match="prints the times of clips"):
            form_of(replace(layout, **changes))
        assert form_of(replace(layout, temporal_patch_size=1, **changes)) == "pictures"


@settings(deadline=None)
@given(
    counts=st.lists(st.integers(1, 5), max_size=4),
    start=st.integers(0, 40_000_000),
    single=st.booleans(),
    wrap=st.booleans(),
)
def test_a_prompt_expands_to_what_the_trainer_reads(
    counts: list[int], start: int, single: bool, wrap: bool
) -> None:
    layout = tiny_loaded("qwen3_vl").layout
    if single:
        layout = replace(layout, temporal_patch_size=1, wrap_frames=wrap, timestamp_format="{:.0f}")
    size, ids, clips = layout.size_multiple, [1], []
    for number, count in enumerate(counts):
        ids += [*layout.placeholder(), 2 + number]
        times = tuple((start + 40 * index) / 1000 for index in range(count))
        clips.append(Clip(np.full((count, size, 2 * size, 3), number, np.uint8), times))
    episode = TokenEpisode((TokenSegment(tuple(ids)),), tuple(clips))
    prompt = engine_prompt(episode, layout)
    inputs = prompt.inputs(layout)
    data = inputs.get("multi_modal_data", {})
    if single:
        shown = [Clip(picture[None], is_image=True) for picture in prompt.pictures]
        expanded = expand([TokenEpisode((TokenSegment(prompt.token_ids),), tuple(shown))], layout)
        plain = expand([episode], layout)
        as_videos = expanded.input_ids_BT.masked_fill(
            expanded.input_ids_BT == layout.image_token_id, layout.video_token_id
        )
        assert torch.equal(as_videos, plain.input_ids_BT)
        assert torch.equal(expanded.position_ids_3BT, plain.position_ids_3BT)
        assert len(data.get("image", [])) == sum(counts)
    else:
        assert inputs["prompt_token_ids"] == ids
        for clip, (pixels, metadata) in zip(clips, data.get("video", []), strict=True):
            assert np.array_equal(pixels, clip.pixels) and pixels.flags.writeable
            times = [index / metadata["fps"] for index in metadata["frames_indices"]]
            assert times == pytest.approx(clip.at_seconds, abs=1e-6) and metadata["do_sample_frames"] is False


def positions_in_vllm(fps: float, groups: int, rate: float) -> np.ndarray:
    """As vLLM does it: seconds per group in 32 bits, times cut to whole positions."""
    step = float(torch.tensor([2 / fps]).item()) * rate
    return (np.arange(groups) * step).astype(np.int64)


@settings(deadline=None)
@given(
    every=st.integers(1, 100),
    fps=st.sampled_from([8, 10, 12.5, 15, 24, 25, 30, 50, 60, 30000 / 1001, 24000 / 1001]),
    groups=st.integers(1, 384),
    rate=st.sampled_from([1, 2, 4]),
)
def test_a_rate_gives_the_groups_the_positions_of_the_trainer(
    every: int, fps: float, groups: int, rate: int
) -> None:
    layout = replace(tiny_loaded("qwen2_5_vl").layout, tokens_per_second=rate)
    spacing = every / fps
    found = position_rate(groups, spacing, layout)
    assert found == pytest.approx(1 / spacing, rel=1e-6)
    ours, theirs = np.array(grid_times(groups, spacing * 2, rate)), positions_in_vllm(found, groups, rate)
    assert np.abs(theirs - ours).max() <= 1
    assert (theirs != ours).sum() <= (0 if ours[-1] < 2000 else groups // 50)


@pytest.mark.parametrize("spacing", [0.5, 1 / 3, 0.7, 0.1, 4.2, 1 / 29.97, 13.37])
def test_rates_of_the_usual_kind_are_exact(spacing: float) -> None:
    layout = tiny_loaded("qwen2_5_vl").layout
    ours = grid_times(384, spacing * 2, layout.tokens_per_second)
    found = position_rate(384, spacing, layout)
    assert tuple(positions_in_vllm(found, 384, layout.tokens_per_second).tolist()) == ours


def test_clips_of_qwen2_5_vl_have_rates_of_their_own() -> None:
    layout = tiny_loaded("qwen2_5_vl").layout
    size = layout.size_multiple
    pixels = np.zeros((4, size, size, 3), np.uint8)
    clips = tuple(
        Clip(pixels, tuple(start + gap * index for index in range(4))) for start, gap in ((0, 2.0), (9, 0.25))
    )
    ids = (1, *layout.placeholder(), 2, *layout.placeholder(), 3)
    inputs = engine_prompt(TokenEpisode((TokenSegment(ids),), clips), layout).inputs(layout)
    assert inputs["prompt_token_ids"] == list(ids)
    told = [metadata for _, metadata in inputs["multi_modal_data"]["video"]]
    # What the library takes for the rate: frames shown / frames there x fps.
    rates = [len(one["frames_indices"]) / one["total_num_frames"] * one["fps"] for one in told]
    assert rates == [pytest.approx(0.5), pytest.approx(4.0)]


def test_a_prompt_without_its_clips_is_refused() -> None:
    layout = tiny_loaded("qwen3_vl").layout
    ref, pixels = view(0)
    clip = Clip(pixels, ref.at_seconds)
    for ids, clips in (((*layout.placeholder(),), ()), ((1,), (clip,))):
        with pytest.raises(ConfigError, match="clips of an episode"):
            engine_prompt(TokenEpisode((TokenSegment(ids),), clips), layout)


def recipe_file(path: Path, world: Path, more: str = "") -> Path:
    text = (
        "steps = 3\nprompts = 2\ngroup = 4\nlr = 1e-3\nmicro_batch = 4\n"
        f'[episode]\ntemperature = 2.0\nmax_turns = 2\n[model]\ncheckpoint = "{SMALL_CHECKPOINT}"\n'
        f'device = "cpu"\n[data]\nexamples = ["{world}/examples.jsonl"]\n'
        f'[rollout]\nbackend = "vllm"\n{more}'
    )
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    assert main(["world", "make", str(folder), "--seed", "5", "--videos", "1", "--minutes", "3"]) == 0
    return folder


def test_the_command_trains_with_roll_outs_in_the_engine(
    fake_vllm: type[FakeLLM], world: Path, tmp_path: Path, capsys: Any
) -> None:
    path = recipe_file(
        tmp_path / "recipe.toml", world, 'old = "trainer"\nimportance_cap = 2.0\nmemory_gib = 0.5\n'
    )
    assert main(["train", "grpo", str(path), "--out", str(tmp_path / "run")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["scored"] == 8 for row in rows)
    learnt = [row for row in rows if "gap_max" in row]
    assert learnt and all(row["gap_max"] < 1e-4 and row["capped"] == 0 for row in learnt)
    assert "probe_gap" in rows[0] and any("reload_seconds" in row for row in rows[1:])
    assert "gap_max" in capsys.readouterr().err
    ones = load_file(SMALL_CHECKPOINT / "model.safetensors")
    twos = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert any(not torch.equal(ones[name], twos[name]) for name in ones)


def test_without_vllm_the_command_says_what_to_do(world: Path, tmp_path: Path, capsys: Any) -> None:
    path = recipe_file(tmp_path / "recipe.toml", world)
    assert main(["train", "grpo", str(path), "--out", str(tmp_path / "run")]) == MissingError.exit_code
    said = capsys.readouterr().err
    assert "vllm" in said and "make vllm-env" in said and "rollout.backend" in said
    assert (
        main(["train", "grpo", str(path), "--set", "rollout.backend=local", "--set", "rollout.eager=true"])
        == 2
    )
    assert "setting of vLLM" in capsys.readouterr().err
