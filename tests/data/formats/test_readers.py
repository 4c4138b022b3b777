"""Rows that are built from a world, read by the data readers and encoders of ms-swift and verl themselves.

Each library has an environment of its own: ``make swift-env``, ``make verl-env``. No weights are needed: the tokenizer
and the processor are those of a random checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from timeloupe.cli.main import main
from timeloupe.trajectory import Trajectory, read_trajectories
from timeloupe.world.encode import make_videos, write_world
from timeloupe.world.script import ScriptSettings

ROOT = Path(__file__).resolve().parents[3]
PYTHONS = {name: ROOT / f".venv-{name}" / "bin" / "python" for name in ("swift", "verl")}
needs_swift = pytest.mark.skipif(
    not PYTHONS["swift"].exists(), reason="no .venv-swift with ms-swift; make swift-env"
)
needs_verl = pytest.mark.skipif(not PYTHONS["verl"].exists(), reason="no .venv-verl with verl; make verl-env")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``trajectories.jsonl``, as ``data build`` makes it of four questions with an oracle that errs."""
    folder = tmp_path_factory.mktemp("built")
    settings = ScriptSettings(min_seconds=40, max_seconds=60, fps=4.0)
    made = make_videos(
        folder, seed=3, num_videos=2, settings=settings, tasks=("grounding", "multiple_choice"), per_task=1
    )
    write_world(folder, made)
    words = [f"source.path={folder / 'examples.jsonl'}", "protocol=videotemp"]
    recipe = str(ROOT / "recipes" / "data" / "world.toml")
    sets = [word for one in words for word in ("--set", one)]
    assert main(["data", "build", recipe, "--out", str(folder / "out"), *sets]) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from tiny_qwen3_vl import write_tiny_qwen3_vl  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    return write_tiny_qwen3_vl(tmp_path_factory.mktemp("tiny"))


def episodes(built: Path) -> list[Trajectory]:
    return list(read_trajectories(built / "trajectories.jsonl"))


def written(built: Path, name: str, file: str, *more: str) -> Path:
    out = built / file
    assert main(["data", "convert", str(built / "trajectories.jsonl"), str(out), "--to", name, *more]) == 0
    return out


def told(library: str, script: str, folder: Path, *words: Path) -> Any:
    """Return what a script says in a library's own environment, offline; its views of videos are kept small."""
    own = {
        "HF_HOME": str(folder),
        "MODELSCOPE_CACHE": str(folder),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    own |= {
        "FPS_MAX_FRAMES": "16",
        "VIDEO_MAX_TOKEN_NUM": "16",
        "VIDEO_MIN_TOKEN_NUM": "4",
        "PATH": os.environ["PATH"],
    }
    command = [str(PYTHONS[library]), "-c", script, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=own)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


SWIFT = """
import json, sys
from swift import get_processor, get_template
from swift.dataset import load_dataset

*names, late, tiny = sys.argv[1:]
sft, rl, named = ([dict(row) for row in load_dataset([name], strict=True, remove_unused_columns=False)[0]]
                  for name in names)
try:
    late = load_dataset([late], strict=True)[0].num_rows
except Exception as error:
    late = type(error).__name__

processor = get_processor(tiny, model_type="qwen3_vl", use_hf=True)
template = get_template(processor)
for kind in ("image", "video"):  # ms-swift has the numbers of the published tokenizer
    setattr(type(template), f"{kind}_token_id", processor.tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>"))
template.set_mode("train")
encoded, refused = [], []
for row in sft:
    one = template.encode(dict(row))
    learnt = [label for label in one["labels"] if label != -100]
    encoded.append({"learnt": processor.tokenizer.decode(learnt), "grids": one["video_grid_thw"].tolist(),
                    "pads": one["input_ids"].count(template.video_token_id),
                    "patches": len(one["pixel_values_videos"])})
for row in named:
    try:
        template.encode(dict(row))
        refused.append(False)
    except Exception:
        refused.append(True)
print(json.dumps({"sft": sft, "rl": rl, "encoded": encoded, "refused": refused, "late": late}))
"""


@needs_swift
def test_ms_swift_loads_and_encodes_the_rows(built: Path, checkpoint: Path, tmp_path: Path) -> None:
    files = [
        written(built, "swift_sft", "sft.jsonl", "--write-clips", str(built / "clips")),
        written(built, "swift_rl", "rl.jsonl"),
        written(built, "swift_sft", "named.jsonl"),
    ]
    late = tmp_path / "late.jsonl"
    alone, *_, looked = files[0].read_text(encoding="utf-8").splitlines()
    late.write_text(alone + "\n" + f'{{"messages": [], "videos": ["{"v" * (10 << 20)}"]}}\n' + looked + "\n")
    said = told("swift", SWIFT, tmp_path, *files, late, checkpoint)

    played = episodes(built)
    assert {len(one.crops) for one in played} == {0, 1, 2}
    for trajectory, row, encoded in zip(played, said["sft"], said["encoded"], strict=True):
        spans = [[crop.start_seconds, crop.end_seconds] for crop in trajectory.crops]
        texts = [one["content"] for one in row["messages"]]
        assert sum(text.count("<video>") for text in texts) == len(row["videos"]) == 1 + len(spans)
        assert (row["tool_params"] or []) == spans
        assert encoded["learnt"] == "".join(
            f"{turn.generation.text}<|im_end|>\n" for turn in trajectory.turns
        )
        grids = encoded["grids"]
        assert len(grids) == 1 + len(spans) and grids[0][0] == 8  # 16 frames, two in a group
        assert encoded["patches"] == sum(t * h * w for t, h, w in grids) == 4 * encoded["pads"]
    for trajectory, row in zip(played, said["rl"], strict=True):
        example = trajectory.example
        assert [one["role"] for one in row["messages"]] == ["system", "user"]
        assert row["messages"][1]["content"].count("<video>") == 1 and row["videos"] == [example.video]
        assert row["data_type"] == ("grounding" if example.task == "grounding" else "qa")
        assert row["solution"] == example.answer
        assert row["timestamp"] == [[one.start_seconds, one.end_seconds] for one in example.segments]
    # A part of a video that is only named is an error, never taken for the whole video.
    assert said["refused"] == [bool(one.crops) for one in played]
    assert said["late"] == "DatasetGenerationError", (
        "a column after the first 10 MiB: what data convert warns of"
    )


VERL = """
import asyncio, json, sys
from omegaconf import OmegaConf
from transformers import AutoProcessor
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

path, tiny, cache = sys.argv[1:]
processor = AutoProcessor.from_pretrained(tiny)
config = OmegaConf.create({"cache_dir": cache, "max_prompt_length": 4096, "filter_overlong_prompts_workers": 1})
data = RLHFDataset(path, processor.tokenizer, config, processor)  # leaves out what it cannot encode
rows = []
for row in (data[at] for at in range(len(data))):
    seen = RLHFDataset.process_vision_info(row["raw_prompt"], data.image_patch_size, config)
    images, [[frames, about]] = asyncio.run(seen)
    kept = {name: row[name] for name in ("data_source", "ability", "reward_model", "extra_info", "raw_prompt")}
    at = [index / about["fps"] for index in about["frames_indices"]]
    rows.append(kept | {"images": images, "frames": len(frames), "at": at})
batch = {name: len(values) for name, values in collate_fn([data[0], data[1]]).items()}
print(json.dumps({"rows": rows, "batch": batch}))
"""


@needs_verl
def test_verl_reads_the_rows_and_their_videos(built: Path, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="verl's rows are parquet")
    out = written(built, "verl", "rows.parquet")
    said = told("verl", VERL, tmp_path, out, checkpoint, tmp_path / "cache")
    assert (
        set(said["batch"].values()) == {2}
        and {"raw_prompt", "reward_model", "extra_info"} <= said["batch"].keys()
    )
    for trajectory, row in zip(episodes(built), said["rows"], strict=True):
        example = trajectory.example
        spans = [[one.start_seconds, one.end_seconds] for one in example.segments]
        assert row["data_source"] == "world" and row["ability"] == example.task
        truth = row["reward_model"]["ground_truth"]
        assert truth == example.answer if example.answer else json.loads(truth) == spans
        info = row["extra_info"]
        assert (info["id"], info["video"], info["segments"]) == (example.id, example.video, spans)
        assert [one["role"] for one in row["raw_prompt"]] == ["system", "user"]
        parts = [part for one in row["raw_prompt"] for part in one["content"]]
        [video] = [part for part in parts if part["type"] == "video"]
        assert video["video"] == example.video and example.question.splitlines()[0] in parts[-1]["text"]
        [shown] = trajectory.skims
        assert row["images"] is None and row["frames"] == len(row["at"]) == len(shown.at_seconds) == 16
        assert shown.end_seconds is not None and row["at"][-1] <= shown.end_seconds
