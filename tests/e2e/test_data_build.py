"""`timeloupe data build` as a user runs it: killed, interrupted, out of money, with another recipe."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.build.rows import steady_products, steady_rows
from timeloupe.cli.main import main
from timeloupe.data.build.stages.leaks import training

COMMAND = Path(sys.executable).with_name("timeloupe")

RECIPE = """
seed = 3
prompts = "protocol"
protocol = "small"
[source]
path = "examples.jsonl"
[labeller]
policy = "oracle"
price = [1.0, 1.0]
batch = 1
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


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world of two short videos, 20 rows, and its recipe."""
    folder = tmp_path_factory.mktemp("home")
    words = ["--videos", "2", "--seed", "8", "--minutes", "1", "--per-task", "5"]
    words += ["--tasks", "multiple_choice,grounding"]
    assert main(["world", "make", str(folder), *words]) == 0
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def calm(home: Path) -> Path:
    """A build that nothing disturbed."""
    assert run(home, "calm").code == 0
    return home / "calm"


class Done:
    """How a command ended and what it said."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr


def words_of(home: Path, out: str, *words: str) -> list[str]:
    source = f"source.path={home / 'examples.jsonl'}"
    return ["data", "build", str(home / "recipe.toml"), "--set", source, "--out", str(home / out), *words]


def run(home: Path, out: str, *words: str) -> Done:
    """Run it in this process: starting Python anew costs more than all else here."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        code = main(words_of(home, out, *words))
    return Done(code, stdout.getvalue(), stderr.getvalue())


def really(home: Path, out: str, *words: str) -> Done:
    """Run the installed command."""
    found = subprocess.run(
        [COMMAND, *words_of(home, out, *words)], capture_output=True, text=True, timeout=240
    )
    return Done(found.returncode, found.stdout, found.stderr)


def end_it(home: Path, out: str, how: signal.Signals, when: Callable[[], bool]) -> Done:
    """Run the installed command, send it a signal when the time has come, and wait for its end."""
    words = [COMMAND, *words_of(home, out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 240
        while not when():
            assert process.poll() is None and time.monotonic() < until, (
                process.stderr and process.stderr.read()
            )
            time.sleep(0.002)
        process.send_signal(how)
        stdout, stderr = process.communicate(timeout=240)
    return Done(process.returncode, stdout, stderr)


def num_rows(folder: Path, stage: str) -> int:
    path = folder / stage / "rows.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def same(folder: Path, calm: Path) -> None:
    assert steady_rows(folder) == steady_rows(calm)
    assert steady_products(folder) == steady_products(calm)


def test_killed_and_resumed(home: Path, calm: Path) -> None:
    killed = end_it(home, "killed", signal.SIGKILL, lambda: num_rows(home / "killed", "ground") > 3)
    assert killed.code == -signal.SIGKILL
    assert 3 < num_rows(home / "killed", "ground") < 20, "it was at its end already"
    assert run(home, "killed", "--resume").code == 0
    same(home / "killed", calm)


def test_ctrl_c(home: Path, calm: Path) -> None:
    stopped = end_it(home, "stopped", signal.SIGINT, lambda: num_rows(home / "stopped", "direct") > 3)
    assert stopped.code == 130 and "Traceback" not in stopped.stderr
    assert "go on with: timeloupe data build" in stopped.stderr and "--resume" in stopped.stderr
    assert num_rows(home / "stopped", "direct") < 20 and num_rows(home / "stopped", "ground") == 0
    summary = json.loads((home / "stopped" / "summary.json").read_text(encoding="utf-8"))
    assert summary["ended"] == "stopped" and summary["stages"]["direct"]["missing"] > 0
    assert run(home, "stopped", "--resume").code == 0
    same(home / "stopped", calm)


def test_out_of_money_and_on(home: Path, calm: Path) -> None:
    cost = json.loads((calm / "summary.json").read_text(encoding="utf-8"))["cost"]
    first = really(home, "poor", "--max-cost", f"{cost / 3:.6f}")
    assert (
        first.code == 1 and "not complete (max_cost); go on, with a larger --max-cost, with:" in first.stderr
    )
    assert (
        f"--resume --set source.path={home / 'examples.jsonl'} --max-cost {float(f'{cost / 3:.6f}'):g}"
        in first.stderr
    )
    summary = json.loads((home / "poor" / "summary.json").read_text(encoding="utf-8"))
    assert cost / 3 <= summary["cost"] < cost / 2
    before = len(steady_rows(home / "poor"))
    assert run(home, "poor", "--resume", "--max-cost", f"{cost / 3:.6f}").code == 1
    assert len(steady_rows(home / "poor")) == before
    assert run(home, "poor", "--resume", "--max-cost", f"{cost * 1.01:.6f}").code == 0
    same(home / "poor", calm)


def test_another_recipe_is_refused_by_its_keys(home: Path, calm: Path) -> None:
    before = steady_rows(calm)
    changed = really(
        home, "calm", "--resume", "--set", "stages.1.regrounds=2", "--set", "seed=4", "--limit", "3"
    )
    assert changed.code == 2
    for words in ("limit: there null, now 3", "recipe.seed: there 3, now 4", "recipe.stages: there"):
        assert words in changed.stderr
    assert steady_rows(calm) == before
    # What changes no row may be another one.
    assert run(home, "calm", "--resume", "--set", "labeller.tries=2", "--set", "labeller.batch=4").code == 0
    assert "go on with --resume" in run(home, "calm").stderr
    assert "leave --resume out" in run(home, "never", "--resume").stderr
    assert not (home / "never").exists()


def test_rows_and_templates_that_changed_are_refused(home: Path) -> None:
    """Rows are known by their ids: a corrected label must not be taken for one that was built from."""
    rows = (home / "examples.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (home / "corrected.jsonl").write_text("".join(rows[:4]), encoding="utf-8")
    (home / "words").mkdir()
    (home / "words" / "direct.txt").write_text("Answer. {answer_now}", encoding="utf-8")
    words = ["--set", f"source.path={home / 'corrected.jsonl'}", "--set", f"prompts={home / 'words'}"]
    words += ["--set", "stages=[{kind='direct'}]"]
    assert run(home, "corrected", *words).code == 0
    assert run(home, "corrected", "--resume", *words).code == 0
    (home / "words" / "direct.txt").write_text("Answer! {answer_now}", encoding="utf-8")
    refused = run(home, "corrected", "--resume", *words)
    assert refused.code == 2 and "another configuration (prompts_sha256: there" in refused.stderr
    (home / "words" / "direct.txt").write_text("Answer. {answer_now}", encoding="utf-8")
    changed = json.loads(rows[0]) | {"question": "When does it end?"}
    (home / "corrected.jsonl").write_text("".join([json.dumps(changed) + "\n", *rows[1:4]]), encoding="utf-8")
    refused = run(home, "corrected", "--resume", *words)
    assert refused.code == 2 and "another configuration (source_sha256: there" in refused.stderr


def test_files_that_a_recipe_names_and_that_changed_are_refused(home: Path) -> None:
    truth = home / "other_truth.jsonl"
    truth.write_bytes((home / "truth.jsonl").read_bytes())
    train = home / "train.jsonl"
    rows = (home / "examples.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    train.write_text(rows[0], encoding="utf-8")
    words = ["--limit", "2", "--set", f"labeller.truth={truth}"]
    words += ["--set", f"stages=[{{kind='direct'}}, {{kind='bench', train=['{train}']}}]"]
    assert run(home, "named", *words).code == 0
    assert run(home, "named", "--resume", *words).code == 0
    for file, key in ((truth, "labeller.truth"), (train, "bench.train")):
        before = file.read_bytes()
        other_order = b"".join(reversed(before.splitlines(keepends=True)))
        file.write_bytes(other_order if file == truth else before + rows[1].encode())
        training.cache_clear()  # it is another process that resumes a build
        refused = run(home, "named", "--resume", *words)
        assert refused.code == 2 and f"another configuration (files_sha256.{key}: there" in refused.stderr
        file.write_bytes(before)
    config = home / "named" / "config.json"
    older = json.loads(config.read_text(encoding="utf-8"))
    del older["files_sha256"]  # as builds from before there was such a hash
    config.write_text(json.dumps(older), encoding="utf-8")
    assert run(home, "named", "--resume", *words).code == 0


def test_a_missing_video_is_a_row_with_its_reason_until_it_is_there(home: Path, calm: Path) -> None:
    video = min((home / "videos").glob("*.mp4"))
    away = video.with_suffix(".away")
    video.rename(away)
    try:
        found = run(home, "lacking")
    finally:
        away.rename(video)
    assert (
        found.code == 0
        and "1 videos are not there, such as" in found.stderr
        and "source.videos" in found.stderr
    )
    reasons = json.loads((home / "lacking" / "summary.json").read_text(encoding="utf-8"))["stages"]["direct"]
    assert reasons["items"] == 20 and 0 < reasons["reasons"]["video"] < 20
    again = run(home, "lacking", "--resume", "--retry-videos")
    assert again.code == 0 and "not there" not in again.stderr
    same(home / "lacking", calm)


def test_a_row_that_the_oracle_knows_nothing_of_is_named(home: Path) -> None:
    row = json.loads((home / "examples.jsonl").read_text(encoding="utf-8").splitlines()[0])
    row["segments"] = [{"start_seconds": 1.0, "end_seconds": 2.0}]
    (home / "foreign.jsonl").write_text(json.dumps(row), encoding="utf-8")
    found = run(home, "foreign", "--set", f"source.path={home / 'foreign.jsonl'}")
    assert found.code == 2 and f"{row['id']!r} asks about no event of world video" in found.stderr


def test_json_is_all_of_stdout(home: Path, calm: Path) -> None:
    found = really(home, "json", "--json")
    assert found.code == 0, found.stderr
    document = json.loads(found.stdout)
    assert document == json.loads((home / "json" / "summary.json").read_text(encoding="utf-8"))
    ground = document["stages"]["ground"]
    assert ground["items"] == sum(ground["reasons"].values()) and ground["kept"] > 0
    assert document["files"]["trajectories.jsonl"] > 0
    same(home / "json", calm)
    plan = run(home, "json", "--json", "--dry-run")
    assert json.loads(plan.stdout)["plan"]["stages"]["ground"]["cost_at_most"] > ground["cost"]


def test_money_without_a_price_is_refused_before_anything_is_asked(home: Path) -> None:
    found = run(home, "free", "--set", "labeller.price=null", "--max-cost", "1")
    assert found.code == 2 and "a recipe with labeller.price" in found.stderr
    assert not (home / "free").exists()


def test_videos_that_cannot_be_read(home: Path, calm: Path, tmp_path: Path) -> None:
    rows = (home / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    videos = {Path(json.loads(row)["video"]).name for row in rows}
    (tmp_path / "videos").mkdir()
    broken, whole = sorted(videos)
    (tmp_path / "videos" / broken).write_bytes(b"not yet copied")
    (tmp_path / "videos" / whole).symlink_to(home / "videos" / whole)
    moved = ("--set", f"source.videos={tmp_path}")
    first = run(home, "unread", *moved)
    assert first.code == 0 and "10 video" in first.stdout, first.stderr
    (tmp_path / "videos" / broken).unlink()
    (tmp_path / "videos" / broken).symlink_to(home / "videos" / broken)
    assert "10 video" in run(home, "unread", *moved, "--resume").stdout
    assert run(home, "unread", *moved, "--resume", "--retry-videos").code == 0
    assert steady_rows(home / "unread").keys() == steady_rows(calm).keys()
    summary = json.loads((home / "unread" / "summary.json").read_text(encoding="utf-8"))
    assert "video" not in summary["stages"]["direct"]["reasons"]
