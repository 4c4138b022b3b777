"""Several benchmarks in one `timeloupe eval`: a run of each, one table, one resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.environment.clips import write_clip
from tests.servers.process import serving
from timeloupe.cli.eval_many import PLAN
from timeloupe.cli.main import main

NAMES = ("charades_sta", "tvgbench")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rows of each, one script of replies, and a clip that all are about."""
    folder = tmp_path_factory.mktemp("data")
    write_clip(folder / "clip.mp4", "red", 6)
    for name in NAMES:
        row = {"video": "clip.mp4", "question": f"When, says {name}?", "groundtruth": [[1.0, 4.0]]}
        (folder / f"{name}.json").write_text(json.dumps([row] * 3), encoding="utf-8")
    replies = {"0": "[1, 4]", "1": "[2, 4]", "2": "[5, 6]"}
    said = {id: [f"<think>so</think><answer>{answer}</answer>"] for id, answer in replies.items()}
    (folder / "script.json").write_text(json.dumps({"replies": said}), encoding="utf-8")
    (folder / "short.json").write_text(json.dumps({"replies": {"0": said["0"]}}), encoding="utf-8")
    return folder


def words(data: Path, run: Path, *names: str, script: str = "script.json") -> list[str]:
    files = [word for name in names for word in ("--data", f"{name}={data}/{name}.json")]
    given = ["--script", str(data / script), "--protocol", "small", "--retries", "0", "--concurrency", "1"]
    return ["eval", *names, *files, "--run", str(run), *given]


def lines_of(folder: Path) -> int:
    return len((folder / "trajectories.jsonl").read_text(encoding="utf-8").splitlines())


def test_each_has_a_run_of_its_own_and_all_one_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "all"
    assert main(words(data, root, *NAMES)) == 0
    table = capsys.readouterr().out.splitlines()[-3:]
    assert table[0].split() == ["benchmark", "episodes", "lost", "score"]
    assert [line.split()[:4] for line in table[1:]] == [[name, "3", "0", "0.5556"] for name in NAMES]
    assert main(["eval", "--resume", str(root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["benchmark"] for one in document["runs"]] == list(NAMES)
    assert [one["played_now"] for one in document["runs"]] == [0, 0]
    # The same as if it had been played alone, so every other command reads it.
    assert main([*words(data, tmp_path / "alone", NAMES[1]), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["scores"] == document["runs"][1]["scores"]
    for command in (
        ["report"],
        ["diff", str(tmp_path / "alone")],
        ["view"],
        ["audit"],
        ["view", "--export", "html"],
    ):
        assert main([*command, str(root)]) == 3  # it is none itself, and says which it holds
        assert f"name one of them: '{root / NAMES[0]}', '{root / NAMES[1]}'" in " ".join(
            capsys.readouterr().err.split()
        )
    configs = [
        json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "alone", root / NAMES[1])
    ]
    assert configs[0] == configs[1]


def test_what_is_left_of_all_is_played_on_from_another_folder(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "all"
    monkeypatch.chdir(data)
    relative = [word.replace(f"{data}/", "") for word in words(Path(data), Path("run"), *NAMES)]
    relative[relative.index("run")] = str(root)
    assert main(relative) == 0
    for name in NAMES[1:]:  # as if it had been killed before the second one began
        for file in (root / name).iterdir():
            file.unlink()
        (root / name).rmdir()
    first = root / NAMES[0] / "trajectories.jsonl"
    first.write_text("".join(first.read_text().splitlines(keepends=True)[:1]))
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "--resume", "all", "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [one["played_now"] for one in document["runs"]] == [2, 3]
    assert [lines_of(root / name) for name in NAMES] == [3, 3]
    assert str(data) in (root / NAMES[1] / "trajectories.jsonl").read_text()


def test_the_worst_exit_code_stands_and_the_others_are_played_all_the_same(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "all"
    assert main(words(data, root, *NAMES, script="short.json")) == 1
    said = capsys.readouterr()
    assert "none: too many episodes were lost" in said.out.splitlines()[-1]
    assert f"--resume {root}" in " ".join(said.err.split()) and f"--resume {root}/" not in said.err
    assert [lines_of(root / name) for name in NAMES] == [3, 3]
    assert main(["eval", "--resume", str(root), "--fail-on-error", "0.9", "--json"]) == 0
    assert [one["lost"] for one in json.loads(capsys.readouterr().out)["runs"]] == [2, 2]


def test_what_does_not_fit_is_refused_before_anything_is_played(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str, code: int = 2) -> str:
        assert main(list(arguments)) == code
        return " ".join(capsys.readouterr().err.split())

    root = tmp_path / "all"
    both = words(data, root, *NAMES)
    file = str(data / "tvgbench.json")
    assert "--data charades_sta=PATH --data tvgbench=PATH" in refused("eval", *NAMES, "--data", file)
    assert "needs --data tvgbench=PATH" in refused(
        "eval", *NAMES, "--data", f"charades_sta={file}", "--run", "r"
    )
    assert "got 'tvgbench', allowed: each once" in refused(
        "eval", "tvgbench", "TVGBench", "--data", f"tvgbench={file}"
    )
    assert "got 'nobench'" in refused("eval", "tvgbench", "nobench")
    missing = refused(*words(tmp_path, root, *NAMES, script=str(data / "script.json")), code=3)
    assert "charades_sta.json" in missing and not root.exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert f"holds no {PLAN}" in refused(*words(data, tmp_path / "full", *NAMES))
    assert main(both) == 0
    capsys.readouterr()
    assert main(both) == 0, "the same command goes on"
    capsys.readouterr()
    assert "seed: there 0, now 9" in refused(*both, "--seed", "9")
    assert "seed: there 0, now 9" in refused("eval", "--resume", str(root), "--seed", "9")
    assert "leave BENCH out" in refused("eval", "tvgbench", "--resume", str(root))
    fewer = [word for word in both if "charades_sta" not in word]
    fewer.remove("--data")
    assert "holds another configuration" in refused(
        *fewer[:1], "videotemp_bench_grounding", *fewer[1:], "--data", f"videotemp_bench_grounding={file}"
    )


def test_the_only_model_of_a_server_is_found_out_and_no_run_depends_on_when(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "all"
    command = words(data, root, *NAMES)
    command = [*command[: command.index("--script")], "--protocol", "videotemp", "--frames", "2"]
    with serving(module="quick_server") as server:
        assert main([*command, "--base-url", server.url]) == 0
        capsys.readouterr()
        cards = [json.loads((root / name / "card.json").read_text()) for name in NAMES]
        assert main(["eval", "--resume", str(root), "--json"]) == 0
        assert [one["played_now"] for one in json.loads(capsys.readouterr().out)["runs"]] == [0, 0]
        assert main(["eval", "--resume", str(root / NAMES[1])]) == 0
    again = [json.loads((root / name / "card.json").read_text()) for name in NAMES]
    assert [one["model"]["name"] for one in cards] == ["openai:quick"] * 2
    assert [one["model"] for one in again] == [one["model"] for one in cards]
    first = root / NAMES[0] / "trajectories.jsonl"
    first.write_text("".join(first.read_text().splitlines(keepends=True)[:1]))
    capsys.readouterr()
    with serving("--model", "other", module="quick_server") as server:
        assert main(["eval", "--resume", str(root), "--base-url", server.url]) == 2
    assert "played by the served model 'quick', and now 'other' is served" in " ".join(
        capsys.readouterr().err.split()
    )
    assert lines_of(root / NAMES[0]) == 1


def test_a_session_that_cannot_be_read_is_named(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(data, tmp_path / "one", NAMES[0])) == 0
    for text, said in (('{"base_', "is not valid JSON"), ("[]", "must hold a JSON object, got list")):
        (tmp_path / "one" / "session.json").write_text(text)
        capsys.readouterr()
        assert main(["eval", "--resume", str(tmp_path / "one")]) == 2
        assert f"session.json' {said}" in capsys.readouterr().err


def test_a_run_is_told_of_alike_by_eval_and_score_whatever_its_seed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Intervals and the random rule are drawn, and not by the seed of the episodes."""
    ends = ((0.5, 2.0), (1.0, 4.0), (3.0, 5.5))
    rows = [
        {"video": f"{at}.mp4", "question": "When?", "groundtruth": [end], "duration": 6.0}
        for at, end in enumerate(ends)
    ]
    for at in range(3):
        shutil.copy(data / "clip.mp4", tmp_path / f"{at}.mp4")
    file = tmp_path / "tvgbench.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    script = ["--script", str(data / "script.json"), "--protocol", "small", "--seed", "7", "--mode", "strict"]
    run = str(tmp_path / "one")
    assert main(["eval", "tvgbench", "--data", str(file), "--run", run, *script, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["scores"]
    score = ["score", "tvgbench", "--annotations", str(file), "--predictions", run, "--json"]
    assert main(score) == 0
    found = json.loads(capsys.readouterr().out)
    assert told["trivial"]["random"] and told["interval"]["low"] is not None
    assert [told[key] for key in ("trivial", "interval")] == [found[key] for key in ("trivial", "interval")]
    assert main([*score, "--seed", "7"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert other["trivial"]["random"] != told["trivial"]["random"]
