"""`timeloupe audit` and votes as a user runs them: the installed command, the small model, real MP4, real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.servers import warm
from tests.servers.process import serving
from tests.servers.raw_server import RawHandler, answering


def timeloupe(
    *words: str | Path, code: int = 0, cwd: Path | None = None, cold: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command; ``cold`` = a new Python, which takes seconds to load what the others have loaded."""
    if cold:
        command = [sys.executable, "-m", "timeloupe", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=cwd)
    else:
        done = warm.run(*words, timeout=600, cwd=cwd)
    assert done.returncode == code, done.stderr
    return done


def document(*words: str | Path, code: int = 0, cold: bool = False) -> dict[str, Any]:
    return json.loads(timeloupe(*words, "--json", code=code, cold=cold).stdout)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    timeloupe("world", "make", folder, "--videos", "2", "--seed", "1000123", "--minutes", "1:1.5")
    return folder


@pytest.fixture(scope="module")
def run(world: Path) -> Path:
    # Named from another folder than the tests' own: what is made of the run later must not depend on that.
    words = ["eval", "world", "--data", world.name, "--policy", "small", "--run", f"{world.name}/run"]
    timeloupe(*words, cwd=world.parent)
    return world / "run"


def changed(audited: dict[str, Any]) -> dict[str, float | None]:
    return {name: line["changed"]["mean"] for name, line in audited["tables"]["all"].items()}


def test_an_audit_asks_again_keeps_its_rows_and_goes_on(run: Path) -> None:
    first = document("audit", run, "--limit", "1", cold=True)
    assert (first["audited"], first["asked_now"], first["lost"]) == (1, 5, 0)
    path = run / "audit.jsonl"
    path.write_bytes(path.read_bytes() + b'{"audit": "torn by a ki')
    whole = document("audit", run)
    assert whole["asked_now"] == 15 and whole["reproduced"] == whole["compared_with_record"] == 4
    keys = Counter((row["id"], row["condition"]) for row in map(json.loads, path.read_text().splitlines()))
    assert len(keys) == 20 and set(keys.values()) == {1}
    lines = whole["tables"]["all"]
    assert lines["again"]["changed"]["mean"] == 0 and abs(lines["again"]["logprob_fall"]["mean"]) < 1e-6
    assert lines["without"]["changed"]["mean"] == 1 and lines["elsewhere"]["changed"]["mean"] == 0
    assert lines["without"]["logprob_fall"]["mean"] > 5 > abs(lines["elsewhere"]["logprob_fall"]["mean"])
    again = document("audit", run)
    assert again["asked_now"] == 0 and again["tables"] == whole["tables"]
    table = timeloupe("audit", run).stdout
    assert "4 of 4 give the recorded answer" in table and "without, beyond elsewhere" in table
    true = document("audit", run, "--evidence", "true", "--limit", "1")
    assert true["asked_now"] == 5 and true["audit"] != whole["audit"]


def test_clips_of_a_run_are_written_from_another_folder(run: Path, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    words = ["data", "convert", run / "trajectories.jsonl", tmp_path / "rows.jsonl", "--to", "swift_sft"]
    timeloupe(*words, "--write-clips", clips)
    assert list(clips.rglob("*.mp4"))


def test_a_served_model_gives_the_same_answers_and_a_dead_one_no_table(run: Path) -> None:
    local = document("audit", run)
    words = ["--base-url", "URL", "--send", "video", "--image-format", "png"]
    with serving() as server:
        server.behave()
        words[1] = server.url
        served = document("audit", run, *words)
    assert served["asked_now"] == 20 and changed(served) == changed(local)
    assert served["tables"]["all"]["without"]["logprob_fall"]["mean"] is None
    words[1] = "http://127.0.0.1:9/v1"
    assert document("audit", run, *words)["asked_now"] == 0  # where the server is does not matter
    dead = timeloupe("audit", run, *words, "--seed", "9", "--limit", "1", "--timeout", "2", code=1)
    assert "5 of 5 replies were lost to machines" in dead.stderr and "answer changed" not in dead.stdout


def test_what_cannot_be_audited_is_said(world: Path, run: Path, tmp_path: Path) -> None:
    assert "no run at" in timeloupe("audit", tmp_path / "none", code=3).stderr
    assert "cited, true" in timeloupe("audit", run, "--evidence", "best", code=2).stderr
    rows = (world / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    letters = [json.loads(row) for row in rows if json.loads(row)["task"] == "multiple_choice"]
    for row in letters:
        row["video"] = str(world / row["video"])
    data = tmp_path / "letters.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in letters), encoding="utf-8")
    single = tmp_path / "single"
    timeloupe("eval", "world", "--data", data, "--policy", "small", "--run", single, "--single-pass")
    refused = timeloupe("audit", single, code=2).stderr
    assert "nothing to audit" in refused and "2 with no_evidence" in refused
    assert document("audit", single, "--evidence", "true")["audited"] == 2


def relevant(handler: RawHandler) -> None:
    """A server that finds every crop relevant."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "2"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 50, "completion_tokens": 1}
    handler.reply(json.dumps({"choices": [choice], "usage": usage}).encode(), content_type="application/json")


def test_samples_vote_and_the_same_run_can_be_voted_on_in_other_ways(world: Path, tmp_path: Path) -> None:
    words = ["eval", "world", "--data", world, "--policy", "small", "--samples", "2", "--limit", "2"]
    assert "the same reply 2 times" in timeloupe(*words, "--run", tmp_path / "cold", code=2).stderr
    run = tmp_path / "run"
    voted = document(*words, "--run", run, "--temperature", "1")
    assert voted["episodes"] == 4 and len(voted["scores"]) == 2
    voting = voted["voting"]
    assert (voting["vote"], voting["samples"]) == ("majority", 2)
    assert voting["score"]["modes"][-1]["total"] == 2
    assert voting["cost"]["samples"]["completion_tokens"] > 0
    card = json.loads((run / "card.json").read_text(encoding="utf-8"))
    assert card["voting"]["vote"] == "majority" and card["sampling"]["repeats"] == 2
    own = document("eval", "--resume", run, "--vote", "self")
    assert own["played_now"] == 0 and own["voting"]["vote"] == "self"
    useless = timeloupe("eval", "--resume", run, "--vote", "evidence", code=2).stderr
    assert "cannot be the scorer" in useless
    with answering(relevant) as server:
        scorer = ["--vote", "evidence", "--scorer-base-url", server.url.replace("//", "//me:secret@")]
        scored = document("eval", "--resume", run, *scorer, "--scorer-model", "judge")
        asked = len(server.headers)
        assert scored["voting"]["crops_scored"] == asked >= 4
        assert scored["voting"]["cost"]["scorer"]["prompt_tokens"] == 50 * asked
        again = document("eval", "--resume", run, *scorer, "--scorer-model", "judge")
        assert len(server.headers) == asked and again["voting"]["score"] == scored["voting"]["score"]
    assert "secret" not in "".join(
        file.read_text(encoding="utf-8") for file in run.iterdir() if file.is_file()
    )
    dead = ["--vote", "evidence", "--scorer-base-url", "http://127.0.0.1:9/v1", "--scorer-model", "other"]
    lost = timeloupe("eval", "--resume", run, *dead, code=1)
    assert "the scorer was lost for 4 of 4 replies" in lost.stdout + lost.stderr
    assert document("eval", "--resume", run, "--vote", "majority")["voting"]["score"] == voting["score"]
