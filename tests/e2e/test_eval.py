"""`timeloupe eval` as a user runs it: the installed command, the small model, real MP4, a real kill."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.servers import warm
from tests.servers.process import serving

SHORT = ["--limit", "6", "--seed", "1", "--temperature", "1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    words = ["world", "make", str(folder), "--videos", "4", "--seed", "1000123", "--minutes", "1:1.5"]
    subprocess.run([sys.executable, "-m", "timeloupe", *words], check=True, capture_output=True)
    return folder


def run(
    *words: str | Path, code: int = 0, cwd: Path | None = None, cold: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run ``timeloupe eval``; ``cold`` = a new Python, which takes seconds to load what the others have loaded."""
    if cold:
        command = [sys.executable, "-m", "timeloupe", "eval", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)
    else:
        done = warm.run("eval", *words, cwd=cwd)
    assert done.returncode == code, done.stderr
    return done


def episodes(folder: Path) -> dict[tuple[str, int], Any]:
    """What was played, without what differs from machine to machine."""
    found: dict[tuple[str, int], Any] = {}
    for line in (folder / "trajectories.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        key = (row["example"]["id"], row["rollout_index"])
        assert key not in found, f"{key} is there twice"
        ids = [turn["generation"]["token_ids"] for turn in row["turns"]]
        found[key] = (ids, row["stop"], row["turns"][-1]["answer"], row["prompt"])
    return found


def test_the_same_seed_gives_the_same_episodes_whatever_the_concurrency_and_the_kills(
    world: Path, tmp_path: Path
) -> None:
    whole = run("world", "--data", world, "--policy", "small", "--run", tmp_path / "whole", *SHORT, "--json")
    document = json.loads(whole.stdout)
    assert document["episodes"] == 6 and document["lost"] == 0
    assert document["scores"][0]["modes"][-1]["scored"] == 6

    words = [
        "world",
        "--data",
        world.name,  # and resumed from another folder
        "--policy",
        "small",
        "--run",
        tmp_path / "cut",
        *SHORT,
        "--concurrency",
        "1",
    ]
    killed = warm.start("eval", *words, cwd=world.parent)
    lines = tmp_path / "cut" / "trajectories.jsonl"
    while killed.poll() is None and not (
        lines.exists() and lines.read_text(encoding="utf-8").count("\n") >= 2
    ):
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    noted = json.loads((tmp_path / "cut" / "session.json").read_text(encoding="utf-8"))["seconds"]
    assert noted > 0, "a session that was killed counts"
    resumed = json.loads(run("--resume", tmp_path / "cut", "--json", cold=True).stdout)
    assert resumed["played_now"] < 6 and resumed["seconds"] > noted
    assert episodes(tmp_path / "cut") == episodes(tmp_path / "whole")  # the videos' paths, too
    again = json.loads(run("--resume", tmp_path / "cut", "--json").stdout)
    assert again["played_now"] == 0 and again["scores"] == resumed["scores"]


def test_another_configuration_is_refused_with_its_name(world: Path, tmp_path: Path) -> None:
    words = ["world", "--data", world, "--policy", "small", "--run", tmp_path / "run", "--limit", "1"]
    run(*words)
    changed = run("--resume", tmp_path / "run", "--seed", "9", code=2)
    assert "seed: there 0, now 9" in changed.stderr
    assert "questions: there 1, now 2" in run(*words[:-1], "2", code=2).stderr
    assert "needs --run" in run("world", "--data", world, code=2).stderr
    assert "no run at" in run("--resume", tmp_path / "none", code=3).stderr


def test_a_missing_video_is_a_row_with_its_reason_and_too_many_give_no_score(
    world: Path, tmp_path: Path
) -> None:
    lines = (world / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:4]]
    for row in rows:
        row["video"] = str(world / row["video"])
    rows[0]["video"] = "gone.mp4"
    broken = tmp_path / "examples.jsonl"
    broken.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["world", "--data", broken, "--policy", "small", "--run", tmp_path / "run"]
    refused = run(*words, code=1)
    assert (
        "no score" in refused.stderr and "1 of 4 episodes" in refused.stderr and "gone.mp4" in refused.stderr
    )
    counted = json.loads(run("--resume", tmp_path / "run", "--fail-on-error", "0.5", "--json").stdout)
    assert counted["lost"] == 1 and counted["scores"][0]["faults"] == {"machine": 1}
    assert counted["scores"][0]["modes"][-1]["total"] == 4


def test_a_served_model_plays_in_threads_and_a_dead_server_costs_no_episode(
    world: Path, tmp_path: Path
) -> None:
    words = [
        "world",
        "--data",
        world,
        *SHORT,
        "--settings-from",
        "small",
        "--image-format",
        "png",
        "--send",
        "video",
    ]
    with serving() as server:
        server.behave()
        folder = tmp_path / "served"
        secret = server.url.replace("//", "//someone:hidden-word@")
        first = run(*words, "--base-url", secret, "--run", folder, "--concurrency", "3", "--json")
        assert json.loads(first.stdout)["lost"] == 0
        written = "".join(file.read_text(encoding="utf-8") for file in folder.iterdir())
        assert "hidden-word" not in written + first.stderr
        assert len(episodes(folder)) == 6
        banned = server.requests()[-1]["body"]["logit_bias"]
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        assert len(banned) == 13 and card["model"]["never_sample"] == "2812-2813,2815-2825"
        assert "needs --base-url" in run("--resume", folder, code=2).stderr
        url = server.url
    dead = run(
        *words, "--base-url", url, "--run", tmp_path / "dead", "--retries", "0", "--timeout", "2", code=1
    )
    assert "6 of 6 episodes were lost" in dead.stderr and "no score" in dead.stderr
    with serving() as server:
        server.behave()
        # The first request loads the model, which may take longer than the dead server was given.
        again = run("--resume", tmp_path / "dead", "--base-url", server.url, "--timeout", "120", "--json")
    assert json.loads(again.stdout)["lost"] == 0
    assert {key: one[2] for key, one in episodes(tmp_path / "dead").items()} == {
        key: one[2] for key, one in episodes(folder).items()
    }


def test_a_dry_run_plays_nothing(world: Path, tmp_path: Path) -> None:
    plan = json.loads(run("world", "--data", world, "--dry-run", "--json", "--repeats", "2").stdout)
    assert plan["benchmark"] == "world" and plan["episode"]["max_turns"] == 3 and plan["missing_videos"] == 0
    assert not list(tmp_path.iterdir())
