"""A plan against what really happens: the tokens of the small model's episodes, and arithmetic that must hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.cli.main import main
from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.errors import ConfigError
from timeloupe.eval.plan import Assumed, Shown, make_plan, memory, seconds_of, tokens_of
from timeloupe.eval.plan_tokens import RoughRuler
from timeloupe.eval.questions import load_questions
from timeloupe.eval.registry import benchmark
from timeloupe.model.sizes import ModelSizes, key_value_bytes, model_sizes
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, FrameRef


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short videos with questions."""
    folder = tmp_path_factory.mktemp("world")
    words = ["world", "make", str(folder), "--videos", "2", "--seed", "1000321", "--minutes", "1:1.2"]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def seven() -> ModelSizes:
    return model_sizes("qwen2.5-vl-7b")


def planned(
    world: Path, *words: str | Path, model: str = "small", capsys: pytest.CaptureFixture[str], code: int = 0
) -> dict[str, Any]:
    capsys.readouterr()
    given = ["plan", "world", "--data", str(world), "--model-config", model, *map(str, words), "--json"]
    assert main(given) == code
    return json.loads(capsys.readouterr().out) if code == 0 else {}


def test_a_run_takes_what_was_planned(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames and tokens of first turns to the last one, and an upper bound that no episode passes."""
    looked = tmp_path / "agentic"
    words = ["eval", "world", "--data", str(world), "--policy", "small", "--seed", "1"]
    assert main([*words, "--run", str(looked), "--temperature", "1"]) == 0
    plan = planned(world, "--against", looked, capsys=capsys)
    assert plan["exact_tokens"] and plan["videos"]["file"] == 2
    against = plan["against"]
    for key in ("episodes", "skim_frames", "first_turn_tokens"):
        assert against[key]["planned"] == against[key]["measured"] > 0, key
    assert against["context_most"]["measured"] <= against["context_most"]["planned"]
    assert against["looks"]["measured"] > 0, "nothing but first turns was compared"

    once = tmp_path / "once"
    assert main([*words, "--run", str(once), "--single-pass", "--repeats", "2"]) == 0
    single = planned(world, "--single-pass", "--repeats", "2", "--against", once, capsys=capsys)["against"]
    assert single["billed_prompt_tokens"]["planned"] == single["billed_prompt_tokens"]["measured"]
    assert single["episodes"]["planned"] == single["episodes"]["measured"]
    planned(world, "--against", once, capsys=capsys, code=2)
    assert (
        main(["plan", "world", "--data", str(world), "--model-config", "small", "--against", str(once)]) == 2
    )
    assert "tools: there False, planned True" in capsys.readouterr().err


def test_a_published_model_is_planned_without_its_tokenizer(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(
        world, "--frames", "64", "--price", "1", "10", model="qwen2.5-vl-7b", capsys=capsys
    )  # fmt: skip
    assert not plan["exact_tokens"] and plan["frames"]["most"] == 64
    # 128 x 128 frames are fitted to 140 x 140: 25 tokens, one for a pair of frames.
    assert plan["visual_tokens"]["most"] == 32 * 25
    assert plan["memory_bytes"]["cache_of_a_token"] == 2 * 28 * 4 * 128 * 2
    assert plan["memory_bytes"]["weights"] == 2 * 8_292_166_656
    bill = (plan["billed_prompt_tokens"] + 10 * plan["reply_tokens_total"]) / 1e6
    assert plan["dollars"] == pytest.approx(bill, abs=1e-4)
    more = planned(world, "--frames", "64", "--repeats", "3", model="qwen2.5-vl-7b", capsys=capsys)
    assert more["billed_prompt_tokens"] == pytest.approx(3 * plan["billed_prompt_tokens"], abs=3)
    assert more["dollars"] is None and more["frames"]["total"] == 3 * plan["frames"]["total"]
    images = planned(world, "--frames", "64", "--send", "images", model="qwen2.5-vl-7b", capsys=capsys)
    assert images["visual_tokens"]["most"] == 64 * 25
    assert main(["plan", "world", "--data", str(world), "--model-config", "qwen2.5-vl-7b"]) == 0
    said = capsys.readouterr().out
    assert "COMPUTED, NOT MEASURED" in said and "about (no tokenizer" in said and "2 videos measured" in said


def test_videos_that_are_not_there_are_planned_by_the_annotation(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (world / "examples.jsonl").read_text(encoding="utf-8")
    (tmp_path / "examples.jsonl").write_text(lines, encoding="utf-8")
    unknown = planned(tmp_path, capsys=capsys)
    assert unknown["videos"]["nothing"] == 2 and unknown["frames"]["most"] == 16
    (tmp_path / "truth.jsonl").write_text(
        (world / "truth.jsonl").read_text(encoding="utf-8"), encoding="utf-8"
    )
    known = planned(tmp_path, capsys=capsys)
    assert known["videos"]["annotation"] == 2
    assert known["frames"] == planned(world, capsys=capsys)["frames"]
    name = json.loads(lines.splitlines()[0])["video"]
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(b"no video")
    broken = planned(tmp_path, capsys=capsys)
    assert broken["videos"]["unreadable"] == 1 and name in broken["unreadable"][0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model-config", "nowhere"], "no config.json"),
        (["--model-config", "small", "--dtype", "int3"], "bfloat16"),
        (["--model-config", "small", "--gpu", "potato"], "h100"),
        (["--model-config", "small", "--gpus", "0"], "--gpus"),
        (["--model-config", "small", "--looks", "-1"], "--looks"),
        (["--model-config", "small", "--looks", "nan"], "--looks"),
        (["--model-config", "small", "--concurrency", "0"], "--concurrency"),
        (["--model-config", "small", "--repeats", "0"], "--repeats"),
        (["--model-config", "small", "--limit", "0"], "--limit"),
        (["--model-config", "small", "--price", "-1", "2"], "--price"),
        (["--model-config", "small", "--tokens-per-second", "0", "2"], "--tokens-per-second"),
        (["--model-config", "small", "--send", "pigeon"], "images"),
        (["--model-config", "small", "--time-format", "{}"], "--send images"),
        (["--model-config", "small", "--pixels", "9"], "always"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(
    world: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["plan", "world", "--data", str(world), *words])
    assert code == (3 if "nowhere" in words else 2)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"model_type": "llama"}', '{"model_type": "qwen3_vl", "text_config": 3}']
)
def test_a_configuration_that_is_none_is_refused(
    world: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    for named in (tmp_path, tmp_path / "config.json"):
        assert main(["plan", "world", "--data", str(world), "--model-config", str(named)]) == 2
        assert "config.json" in capsys.readouterr().err


def shown(frames: int, crop: int) -> Shown:
    def ref(view: Any, count: int) -> FrameRef:
        times = tuple(float(number) for number in range(count))
        return FrameRef(
            video="v.mp4", view=view, start_seconds=0, end_seconds=count, at_seconds=times, size_wh=(140, 140)
        )  # fmt: skip

    return Shown("file", ref("skim", frames), ref("crop", crop), float(frames))


@given(frames=st.integers(2, 64), crop=st.integers(2, 32), more=st.integers(1, 16))
def test_more_frames_never_take_fewer_tokens(seven: ModelSizes, frames: int, crop: int, more: int) -> None:
    settings, ruler = EpisodeSettings(size_multiple=28), RoughRuler(seven, False, "video")
    ask = Example(id="1", video="v.mp4", question="When does it boil?", task="grounding")

    def count(frames: int, crop: int) -> Any:
        return tokens_of(ask, shown(frames, crop), PROTOCOLS["videotemp"], settings, ruler)

    one, skim, looks = count(frames, crop), count(frames + more, crop), count(frames, crop + more)
    assert one.visual == -(-frames // 2) * 25
    assert skim.prompt >= one.prompt and skim.look == one.look
    assert looks.look >= one.look and looks.widest_look >= looks.look and looks.prompt == one.prompt


def test_time_and_memory_follow_their_flags(seven: ModelSizes, world: Path) -> None:
    questions = load_questions(benchmark("world"), world)
    settings = make_settings({"size_multiple": 28, "skim_frames": 64})
    ruler = RoughRuler(seven, False, "video")

    def plan(concurrency: int = 16, **assumed: Any) -> dict[str, Any]:
        return make_plan(
            questions, PROTOCOLS["videotemp"], settings, seven, ruler, Assumed(**assumed), concurrency=concurrency,
            repeats=64,
        )  # fmt: skip

    one = plan()
    assert plan(gpus=2)["time"]["seconds"] == pytest.approx(one["time"]["seconds"] / 2)
    assert plan(concurrency=1)["time"]["write_seconds"] > one["time"]["write_seconds"]
    assert plan(gpu="a100")["time"]["read_seconds"] > one["time"]["read_seconds"]
    rates = plan(rates=(1000.0, 100.0))["time"]
    expected = one["billed_prompt_tokens"] / 1000 + one["reply_tokens_total"] / 100
    assert rates["seconds"] == pytest.approx(expected, rel=1e-4)
    few = plan(looks=0.0)
    assert few["billed_prompt_tokens"] == few["prompt_tokens"]["total"]
    tight = memory(seven, Assumed(), 100_000, 200_000, 20)
    assert tight["cache_worst"] == key_value_bytes(seven, 4_000_000, 2) and not tight["fits_worst"]
    with pytest.raises(ConfigError, match="h100"):
        seconds_of(seven, [], Assumed(gpu="x"), 1, 1, 1.0, 1, 1.0, 1.0)
