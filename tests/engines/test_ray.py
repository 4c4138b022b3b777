"""A build through Ray Data on this machine: the same rows as in threads. Skipped where Ray is not installed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.data.build.rows import steady_products, steady_rows
from timeloupe.cli.main import main
from timeloupe.engines.ray import PIP_LINE, _FarStop, _flag, shards_of
from timeloupe.trajectory import Example

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason=f"Ray is not installed: {PIP_LINE}, with -c constraints.txt",
)

RECIPE = """
seed = 3
prompts = "protocol"
protocol = "small"
[source]
path = "{world}/examples.jsonl"
[labeller]
policy = "oracle"
price = [1.0, 1.0]
batch = 2
[labeller.oracle]
wrong_instance = 0.5
[episode]
skim_frames = 16
crop_max_frames = 8
frame_size_wh = [32, 32]
[[stages]]
kind = "direct"
[[stages]]
kind = "ground"
reground_over_seconds = 0
"""


def example(id: str, video: str) -> Example:
    return Example(id=id, video=video, question="?")


def test_shards_are_of_whole_videos() -> None:
    items = [example(str(at), f"{at % 3}.mp4") for at in range(9)]
    batches = [items[at : at + 2] for at in range(0, 9, 2)]
    found = shards_of(batches, 1)
    assert [[one.id for one in shard] for shard in found] == [
        ["0", "3", "6"],
        ["1", "4", "7"],
        ["2", "5", "8"],
    ]
    assert [len(shard) for shard in shards_of(batches, 2)] == [6, 3]
    assert [len(shard) for shard in shards_of([[one] for one in items], 99)] == [9]


def test_without_ray_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    row = '{"id": "a", "video": "a.mp4", "question": "?"}'
    (tmp_path / "examples.jsonl").write_text(row + "\n", encoding="utf-8")
    (tmp_path / "a.mp4").write_bytes(b"")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("{world}", str(tmp_path)), encoding="utf-8")
    words = ["data", "build", str(recipe), "--out", str(tmp_path / "out"), "--engine"]
    assert main([*words, "ray"]) == 3
    assert PIP_LINE in capsys.readouterr().err
    assert main([*words, "spark"]) == 2
    assert "--engine, got 'spark', allowed: threads, ray" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own, of files and sockets that it leaves to its end
def test_the_same_rows_as_in_threads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    world = tmp_path / "world"
    made = ["--videos", "2", "--seed", "8", "--minutes", "1", "--per-task", "3"]
    assert main(["world", "make", str(world), *made, "--tasks", "multiple_choice,grounding"]) == 0
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("{world}", str(world)), encoding="utf-8")

    def build(out: str, *words: str) -> int:
        return main(["data", "build", str(recipe), "--out", str(tmp_path / out), *words])

    assert build("threads") == 0
    try:
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    except Exception as error:  # Ray gives itself 30 s to start, which a busy machine may not have
        pytest.skip(f"Ray did not start: {error}")
    try:
        through = ["--engine", "ray", "--actors", "2"]
        cost = json.loads((tmp_path / "threads" / "summary.json").read_text(encoding="utf-8"))["cost"]
        # Out of money at the end of the first stage, then on.
        assert build("ray", *through, "--max-cost", f"{cost / 10:.6f}") == 1
        assert not (tmp_path / "ray" / "ground" / "rows.jsonl").exists()
        assert build("ray", *through, "--resume") == 0
        assert steady_rows(tmp_path / "ray") == steady_rows(tmp_path / "threads")
        assert steady_products(tmp_path / "ray") == steady_products(tmp_path / "threads")
        # Work that has begun hears of a stop through the flag.
        flag = _flag()
        stop = _FarStop(flag)
        assert not stop.is_set()
        ray.get(flag.set.remote())
        assert stop.is_set()
        capsys.readouterr()
        # An error of ours in an actor comes out as ours.
        truth = (world / "truth.jsonl").read_text(encoding="utf-8")
        (world / "truth.jsonl").write_text("no script\n", encoding="utf-8")
        assert build("lost", *through) == 1
        assert "truth.jsonl:1 is not the truth of a world video" in capsys.readouterr().err
        (world / "truth.jsonl").write_text(truth, encoding="utf-8")
        assert build("many", "--engine", "ray", "--actors", "3") == 2
        assert "3 actors need 3 CPUs, got 2" in capsys.readouterr().err
    finally:
        ray.shutdown()
