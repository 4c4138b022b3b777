"""Episodes of the world in every format, against what the readers of the libraries check.

TRL's and Hugging Face's readers are the real ones, in ``.venv-trl`` (``make trl-env``). For ms-swift, verl and OpenAI
the checks that their readers make are written down here; ``test_readers`` runs those of ms-swift and verl.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from timeloupe.data.formats.convert import Report, convert
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.teacher_policy import TeacherPolicy
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Trajectory, read_trajectories, to_line
from timeloupe.world.encode import make_videos
from timeloupe.world.script import ScriptSettings

ROOT = Path(__file__).resolve().parents[3]
TRL_PYTHON = ROOT / ".venv-trl" / "bin" / "python"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``trajectories.jsonl``: the teacher on one video's questions of every kind, and open ones."""
    folder = tmp_path_factory.mktemp("world")
    settings = ScriptSettings(min_seconds=60, max_seconds=61, fps=4.0)
    tasks = ("grounding", "multiple_choice", "multi_segment", "what_when_where")
    [video] = make_videos(folder, seed=5, num_videos=1, settings=settings, tasks=tasks)
    examples = [one.model_copy(update={"video": str(video.path)}) for one in video.examples]
    policy = TeacherPolicy({one.id: (video.script, one) for one in examples})
    shown = EpisodeSettings(
        skim_frames=8, crop_max_frames=4, frame_size_wh=(64, 64), video_deadline_seconds=None
    )
    played = play(examples, policy, PROTOCOLS["videotemp"], shown, seed=1)
    (folder / "trajectories.jsonl").write_text(
        "".join(to_line(one) + "\n" for one in played), encoding="utf-8"
    )
    return folder


def written(world: Path, name: str, **more: Any) -> tuple[Report, Path]:
    out = world / f"rows.{name}"
    return convert(
        world / "trajectories.jsonl", out, source_format="auto", target_format=name, skip_bad=True, **more
    ), out


def parsed(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    return (
        json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.split("\n") if line]
    )


def episodes(world: Path) -> list[Trajectory]:
    return list(read_trajectories(world / "trajectories.jsonl"))


def test_the_world_plays_every_kind_of_row(world: Path) -> None:
    played = episodes(world)
    assert {one.example.task for one in played} == {
        "grounding", "multiple_choice", "multi_segment", "what_when_where",
    }  # fmt: skip
    assert any(one.crops for one in played) and any(not one.crops for one in played)


def test_rows_of_swift_are_what_its_template_takes(world: Path) -> None:
    """swift counts the placeholders against the files, message by message, and trains on the last reply."""
    report, out = written(world, "swift_sft")
    assert report.bad == 0
    for trajectory, row in zip(episodes(world), parsed(out), strict=True):
        assert row.keys() <= {"messages", "videos", "tool_params"}
        assert all(message.keys() == {"role", "content"} for message in row["messages"])
        roles = [message["role"] for message in row["messages"]]
        assert roles[0] == "system" and roles[-1] == "assistant"
        assert all(a != b for a, b in zip(roles[1:], roles[2:], strict=False))
        texts = [message["content"] for message in row["messages"]]
        assert all(isinstance(text, str) for text in texts)
        assert sum(text.count("<video>") for text in texts) == len(row["videos"]) == 1 + len(trajectory.crops)
        assert row["videos"][0] == trajectory.example.video
        assert len(row.get("tool_params", [])) == len(trajectory.crops)
        for span, crop in zip(row.get("tool_params", []), trajectory.crops, strict=True):
            assert span == [crop.start_seconds, crop.end_seconds]
    assert report.references == sum(bool(crop.start_seconds) for one in episodes(world) for crop in one.crops)


def test_rows_of_swift_for_rewards(world: Path) -> None:
    report, out = written(world, "swift_rl")
    assert report.bad == 0
    for trajectory, row in zip(episodes(world), parsed(out), strict=True):
        assert [message["role"] for message in row["messages"]] == ["system", "user"]
        assert row["messages"][1]["content"].count("<video>") == len(row["videos"]) == 1
        assert all(len(span) == 2 and span[0] < span[1] for span in row["timestamp"])
        if row["data_type"] == "qa":
            assert row["solution"][0] == (trajectory.example.answer or "")[0]
        else:
            assert row["data_type"] == "grounding" and row["timestamp"]


def test_rows_of_verl_pass_its_own_assertions(world: Path) -> None:
    """``RLHFDataset._build_messages`` splits the prompt at placeholders and asserts that every file is used; each
    video object goes to qwen-vl-utils as it is, where a frame rate that is null fails."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="verl's rows are parquet")
    report, out = written(world, "verl")
    assert report.bad == 0
    rows = parquet.read_table(out).to_pylist()
    for trajectory, row in zip(episodes(world), rows, strict=True):
        pieces = [
            piece for one in row["prompt"] for piece in re.split("(<image>|<video>|<audio>)", one["content"])
        ]
        assert pieces.count("<video>") == len(row["videos"]) == 1 and "<image>" not in pieces
        [video] = row["videos"]
        assert Path(video["video"]).is_file() and video["fps"] > 0
        assert video["video_start"] is None or 0 <= video["video_start"] < video["video_end"]
        assert row["data_source"] == "world" and row["reward_model"]["style"] == "rule"
        assert isinstance(row["reward_model"]["ground_truth"], str)
        assert row["extra_info"]["id"] == trajectory.example.id and isinstance(
            row["extra_info"]["index"], int
        )


def test_rows_of_openai_have_the_parts_of_its_chats(world: Path) -> None:
    report, out = written(world, "openai")
    assert report.bad == 0
    for trajectory, row in zip(episodes(world), parsed(out), strict=True):
        assert row.keys() == {"messages"}
        count = 0
        for message in row["messages"]:
            assert message["role"] in ("system", "user", "assistant")
            for part in message["content"] if isinstance(message["content"], list) else []:
                assert message["role"] == "user" and part["type"] in ("text", "image_url")
                count += part["type"] == "image_url" and isinstance(part["image_url"]["url"], str)
        assert count == sum(len(view.at_seconds) for view in (*trajectory.skims, *trajectory.crops))


def test_rows_of_the_methods(world: Path) -> None:
    """Fields as the trainers read them: MUSEG's and TaRO's truths are lists of numbers, Open-o3's a literal."""
    for name, tasks in (("museg", {"grounding", "multi_segment"}), ("taro", {"grounding"})):
        report, out = written(world, name)
        assert (
            report.written
            == sum(one.example.task in tasks for one in episodes(world))
            == len(parsed(out))
            > 0
        )
        assert report.bad == report.read - report.written
    [row] = parsed(world / "rows.taro")
    assert row["extra_info"]["duration"] == pytest.approx(60, abs=2) and row["ability"] == "vtg"
    assert row["prompt"][-1]["content"].count("<video>") == len(row["videos"]) == 1
    assert [type(time) for time in row["reward_model"]["ground_truth"]] == [float, float]
    report, out = written(world, "openo3")
    assert report.bad == 1  # every time of something is none of its tasks
    for row in parsed(out):
        assert row["task"] and isinstance(row["answer"], str) and row["video_path"].endswith(".mp4")
        assert set(row.get("key_items", {})) == {str(one["idx"]) for one in row.get("key_frames", [])}


READ = """
import json, sys
from datasets import Image, List, load_dataset
from trl.data_utils import is_conversational, prepare_multimodal_messages

trl, verl, taro = (load_dataset(kind, data_files=path, split="train", cache_dir=sys.argv[4])
                   for kind, path in zip(("json", "parquet", "json"), sys.argv[1:4]))
pictures = trl.cast_column("images", List(Image()))
counts = []
for row in pictures:
    messages = prepare_multimodal_messages(row["messages"], images=row["images"])
    shown = [part["image"].size for one in messages for part in one["content"] if part["type"] == "image"]
    counts.append([len(shown), sorted(set(shown)), is_conversational(row), [one["role"] for one in messages]])
print(json.dumps({"trl": counts, "verl": [row["extra_info"]["id"] for row in verl], "taro": len(taro)}))
"""


def test_the_real_readers_of_trl_and_hugging_face_load_the_rows(world: Path, tmp_path: Path) -> None:
    if not TRL_PYTHON.exists():
        pytest.skip("no .venv-trl with TRL; make trl-env")
    pytest.importorskip("pyarrow", reason="verl's rows are parquet")
    paths = [str(written(world, name, clips=world / "clips")[1]) for name in ("trl",)]
    paths += [str(written(world, name)[1]) for name in ("verl", "taro")]
    command = [str(TRL_PYTHON), "-c", READ, *paths, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    read = json.loads(done.stdout.splitlines()[-1])
    played = episodes(world)
    assert read["verl"] == [one.example.id for one in played] and read["taro"] == 1
    for trajectory, (count, sizes, conversational, roles) in zip(played, read["trl"], strict=True):
        assert count == sum(len(view.at_seconds) for view in (*trajectory.skims, *trajectory.crops))
        assert sizes == [[64, 64]] and conversational
        assert roles.count("assistant") == len(trajectory.turns)
