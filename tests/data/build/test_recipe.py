"""Recipes, prompts, sources and plans of a build: what is refused says what was wrong and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.build.by_hand import kit
from timeloupe.cli.data_build import make_labeller
from timeloupe.config import load_recipe
from timeloupe.data.build.labelling import Labeller
from timeloupe.data.build.plan import plan_build, plan_lines
from timeloupe.data.build.prompts import load_prompts, purposes
from timeloupe.data.build.recipe import BuildRecipe, SourcePart
from timeloupe.data.build.source import missing_videos, read_source
from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.policy.scripted import ScriptedPolicy
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, Segment, to_line
from timeloupe.video.cache import FrameCache

ROOT = Path(__file__).resolve().parents[3]

RECIPE = """
[source]
path = "rows.jsonl"
[[stages]]
kind = "ground"
"""


def recipe(tmp_path: Path, *overrides: str, text: str = RECIPE) -> BuildRecipe:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides, BuildRecipe)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes" / "data").glob("*.toml")), ids=lambda path: path.stem
)
def test_the_recipes_that_come_with_it_are_read(path: Path) -> None:
    assert load_recipe(path, [], BuildRecipe).stages


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stages.0.regrounds=9"], ["regrounds", "9", "less than or equal to 4"]),
        (["stages.0.checks=['guess']"], ["checks", "guess", "'alone' or 'process'"]),
        (["stages.0.checkz=[]"], ["checkz", "did you mean 'checks'", "every_check"]),
        (["stages.0.kind='grind'"], ["grind", "direct", "ground"]),
        (["stages.0.reads='earlier'"], ["'ground' reads 'earlier'", "allowed: source"]),
        (["stages.0.name='source'"], ["cannot be called 'source'"]),
        (["stages.0.name='../up'"], ["name", "../up"]),
        (["stages=[]"], ["stages", "at least 1"]),
        (["stages=[{kind='direct'},{kind='direct'}]"], ["unique", "'direct' twice"]),
        (["labeller.policy='human'"], ["human", "small", "oracle"]),
        (["labeller.policy='openai'"], ["'openai' needs labeller.base_url"]),
        (["labeller.policy='local'"], ["'local' needs labeller.model"]),
        (["labeller.policy='scripted'"], ["'scripted' needs labeller.script"]),
        (["labeller.base_url='http://x'"], ["labeller.base_url does not go with", "'small'"]),
        (["labeller.oracle.lazy=0.5"], ["labeller.oracle does not go with", "'small'"]),
        (["labeller.policy='oracle'", "labeller.oracle.lazy=0.7", "labeller.oracle.wrong_instance=0.7"],
         ["at most 1", "1.4"]),
        (["labeller.price=[1, -1]"], ["price", "-1", "greater than or equal to 0"]),
        (["labeller.tries=0"], ["tries", "0"]),
        (["min_iou=0"], ["min_iou", "0", "greater than 0"]),
        (["min_iou=nan"], ["min_iou", "nan"]),
        (["seed=-1"], ["seed", "-1"]),
        (["sorce.path='x'"], ["sorce", "did you mean 'source'"]),
    ],
)  # fmt: skip
def test_recipe_errors_name_value_and_allowed(tmp_path: Path, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(tmp_path, *overrides)
    for word in words:
        assert word in str(caught.value), caught.value


def test_stages_read_what_comes_before_them(tmp_path: Path) -> None:
    stages = (
        "stages=[{kind='direct'},{kind='ground',reads='direct'},{kind='ground',name='again',reads='ground'}]"
    )
    assert [stage.reads for stage in recipe(tmp_path, stages).stages] == ["source", "direct", "ground"]
    with pytest.raises(ConfigError, match="allowed: source"):
        recipe(tmp_path, "stages=[{kind='direct',reads='ground'},{kind='ground'}]")


# -- prompts -----------------------------------------------------------------------------------------------------------


def test_a_wrong_stage_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe(tmp_path, "stages=[{kind='grind'}]")
    assert "grind" in str(caught.value) and "at least 1" not in str(caught.value)


def test_prompts_come_from_the_package_from_nowhere_or_from_a_folder(tmp_path: Path) -> None:
    protocol = PROTOCOLS["videotemp"]
    assert load_prompts("protocol", protocol) == {}
    ours = load_prompts("labeller", protocol)
    assert {"direct", "ground", "alone", "process", "reground"} <= ours.keys() == set(purposes())
    assert all(text and "{look_closer}" not in text and "{answer_now}" not in text for text in ours.values())
    assert protocol.system_with_tool in ours["ground"] and protocol.system_without_tool in ours["alone"]
    (tmp_path / "ground.txt").write_text("{look_closer}\nIn my words.\n", encoding="utf-8")
    mine = load_prompts(str(tmp_path), protocol)
    assert mine["ground"] == f"{protocol.system_with_tool}\nIn my words."
    assert {name: text for name, text in mine.items() if name != "ground"} == {
        name: text for name, text in ours.items() if name != "ground"
    }


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "small"], ids=str)
def test_every_protocol_says_how_to_reply(protocol: str) -> None:
    for text in load_prompts("labeller", PROTOCOLS[protocol]).values():
        assert "<answer>" in text or "<tool_call>" in text


def test_prompts_that_are_not_there(tmp_path: Path) -> None:
    protocol = PROTOCOLS["videotemp"]
    with pytest.raises(
        MissingError, match="no folder of prompts at 'nowhere', allowed: 'labeller', 'protocol'"
    ):
        load_prompts("nowhere", protocol)
    with pytest.raises(ConfigError, match="holds no template, expected NAME.txt with NAME one of .*ground"):
        load_prompts(str(tmp_path), protocol)
    (tmp_path / "gruond.txt").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"got 'gruond.txt', allowed: .*ground.txt"):
        load_prompts(str(tmp_path), protocol)


# -- sources -----------------------------------------------------------------------------------------------------------


def write_rows(folder: Path, *ids: str, task: str = "grounding", videos: bool = True) -> Path:
    rows = [
        Example(
            id=id, video=f"{id}.mp4", question="When?", segments=(Segment(start_seconds=1, end_seconds=2),),
            task=task,  # type: ignore[arg-type]
        )
        for id in ids
    ]  # fmt: skip
    path = folder / "examples.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.writelines(to_line(row) + "\n" for row in rows)
    for row in rows if videos else []:
        (folder / row.video).write_bytes(b"")
    return path


def test_rows_have_absolute_videos_and_a_limit_takes_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path, "a", "b", "c")
    monkeypatch.chdir(tmp_path)
    part = SourcePart(path=Path("examples.jsonl"))
    rows = read_source(part)
    assert [row.id for row in rows] == ["a", "b", "c"]
    assert [row.video for row in rows] == [str(tmp_path / f"{id}.mp4") for id in "abc"]
    assert read_source(part, 2) == rows[:2] and read_source(part, 9) == rows
    with pytest.raises(ConfigError, match="--limit, got 0, allowed: >= 1"):
        read_source(part, 0)
    write_rows(tmp_path, "d", task="open")
    chosen = part.model_copy(update={"tasks": ("open",)})
    assert [row.id for row in read_source(chosen, 1)] == ["d"]
    with pytest.raises(RecordError, match="holds no row of the tasks multi_segment"):
        read_source(part.model_copy(update={"tasks": ("multi_segment",)}))


def test_rows_that_cannot_be_built_from(tmp_path: Path) -> None:
    path = write_rows(tmp_path, "a", "b", "c", videos=False)
    with pytest.raises(
        MissingError, match=r"none of the videos .*3 are named, such as .*a\.mp4.* source\.videos$"
    ):
        read_source(SourcePart(path=path))
    with pytest.raises(MissingError, match=r"of the first 2 rows of .* source\.videos, or raise --limit"):
        read_source(SourcePart(path=path), 2)
    (tmp_path / "a.mp4").write_bytes(b"")
    assert missing_videos(read_source(SourcePart(path=path))) == [str(tmp_path / f"{id}.mp4") for id in "bc"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for id in "abc":
        (elsewhere / f"{id}.mp4").write_bytes(b"")
    assert len(read_source(SourcePart(path=path, videos=elsewhere))) == 3
    write_rows(tmp_path, "b")
    with pytest.raises(ConfigError, match=r"got 'b', allowed: unique ids, see `timeloupe data check`"):
        read_source(SourcePart(path=path, videos=elsewhere))
    assert len(read_source(SourcePart(path=path, videos=elsewhere), 3)) == 3, (
        "it never came to the second one"
    )
    with pytest.raises(MissingError):
        read_source(SourcePart(path=tmp_path / "nothing.jsonl"))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RecordError, match=r"empty\.jsonl holds no row$"):
        read_source(SourcePart(path=tmp_path / "empty.jsonl"))


# -- who is asked, and the plan ----------------------------------------------------------------------------------------


def test_a_labeller_has_the_settings_of_its_recipe(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps({"replies": {"*": ["x"]}}), encoding="utf-8")
    scripted = [f"labeller.script='{script}'", "labeller.policy='scripted'"]
    found = make_labeller(
        recipe(tmp_path, *scripted, "episode.skim_frames=7", "protocol='museg'", "prompts='labeller'",
               "min_iou=0.3", "seed=4", "labeller.tries=2", "labeller.price=[1, 2]"), []
    )  # fmt: skip
    assert (found.kit.settings.skim_frames, found.kit.protocol.name, found.kit.min_iou) == (7, "museg", 0.3)
    assert (found.kit.seed, found.patience.tries, found.price) == (4, 2, (1, 2))
    assert found.kit.labeller == "scripted" and "ground" in found.kit.prompts
    with pytest.raises(ConfigError, match="protocol, got 'none', allowed: .*videotemp"):
        make_labeller(recipe(tmp_path, *scripted, "protocol='none'"), [])
    with pytest.raises(ConfigError, match="unknown episode setting, got 'skim', allowed: .*skim_fps"):
        make_labeller(recipe(tmp_path, *scripted, "episode.skim=3"), [])
    with pytest.raises(MissingError, match="no truth of a world"):
        make_labeller(recipe(tmp_path, "labeller.policy='oracle'"), [])


def test_a_plan_counts_and_does_not_measure(tmp_path: Path, clips: dict[str, str]) -> None:
    found = Labeller(
        ScriptedPolicy.from_replies({"*": ["x"]}),
        kit(skim_frames=16, crop_max_frames=8, frame_size_wh=(64, 64), video_deadline_seconds=None),
        FrameCache(1 << 20),
        (1.0, 10.0),
    )
    stages = "stages=[{kind='direct'},{kind='ground',reads='direct',regrounds=1}]"
    rows = [Example(id=name, video=path, question="?") for name, path in clips.items()]
    plan = plan_build(recipe(tmp_path, stages), found, rows)
    assert plan["frames_per_call"] == 24 and plan["measured"] is False
    direct, ground = plan["stages"]["direct"], plan["stages"]["ground"]
    assert (direct["items_at_most"], direct["calls_at_most"]) == (2, 2)
    assert (ground["items_at_most"], ground["calls_at_most"]) == (2, 12)
    prompt = 24 * 64 * 64 / (32 * 32 * 2) + 400
    assert direct["prompt_tokens_at_most"] == round(2 * prompt)
    assert direct["cost_at_most"] == pytest.approx(2 * (prompt + 10 * 300) / 1e6, abs=1e-4)
    assert any(line.startswith("ground: at most 2 items, 12 calls") for line in plan_lines(plan))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    half = plan_build(
        recipe(tmp_path, stages), found, [*rows, Example(id="x", video=str(broken), question="?")]
    )
    assert (half["frames_per_call"], half["unread_videos"], plan["unread_videos"]) == (24, 1, 0)
    assert plan_lines(half)[1] == "1 of them cannot be read, and count for nothing here"
