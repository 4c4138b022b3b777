"""``timeloupe reward``: presets and parts, a run scored, a reward simulated; exit codes and what is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from timeloupe.cli.main import main
from timeloupe.reward.compose import preset_names
from timeloupe.runs import create_run
from timeloupe.trajectory import (
    Answer,
    Example,
    FrameRef,
    Generation,
    Message,
    Problem,
    Segment,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    Turn,
    to_line,
)

TRUTH = Segment(start_seconds=10, end_seconds=20)
CALL = '<tool_call>{"name":"get_video_clip_frame","arguments":[{"start_time":10,"end_time":30}]}</tool_call>'


def looked(name: str, answer: str = "C") -> Trajectory:
    """Looks at [10, 30], then answers; the truth is C and [10, 20]."""
    example = Example(
        id=name, video="v.mp4", question="Which?", options=("a", "b", "c"), answer="C", segments=(TRUTH,),
        task="multiple_choice",
    )  # fmt: skip
    crop = FrameRef(
        video="v.mp4", view="crop", start_seconds=10, end_seconds=30, at_seconds=(12, 25), size_wh=(64, 36)
    )
    call = ToolCall(name="get_video_clip_frame", segments=(Segment(start_seconds=10, end_seconds=30),))
    turns = (
        Turn(
            generation=Generation(text=f"<think>Look.</think>{CALL}"), thought="Look.", call=call,
            observation=Message(role="user", parts=(crop, Text(text="Here."))),
        ),
        Turn(
            generation=Generation(text=f"<think>So.</think><answer>{answer}</answer>"), thought="So.",
            answer=Answer(text=answer, option=answer),
        ),
    )  # fmt: skip
    return Trajectory(
        example=example, policy="p", protocol="videotemp", turns=turns, stop=StopReason.ANSWERED
    )


def failed(name: str) -> Trajectory:
    problem = Problem(reason="policy", message="no answer within 60 s")
    return Trajectory(
        example=looked(name).example, policy="p", protocol="videotemp", stop=StopReason.INFRASTRUCTURE, problem=problem
    )  # fmt: skip


def untold(name: str) -> Trajectory:
    """An episode over a row without a truth."""
    there = looked(name)
    return there.model_copy(
        update={"example": there.example.model_copy(update={"answer": None, "segments": ()})}
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two episodes with a score, two without, and a first try of the second that the machine ended."""
    folder = create_run(tmp_path / "run", {"reward": "test"})
    for episode in (looked("1"), failed("2"), looked("2", answer="A"), failed("3"), untold("4")):
        folder.append(episode)
    return folder.path


def test_a_run_folder_is_scored_with_n_of_n_means_and_reasons(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reward", "score", str(run), "--reward", "videotemp_paper", "--json"]) == 0
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert printed.err == ""
    assert (facts["scored"], facts["total"]) == (2, 4)
    # IoU of the look is 0.5 in both; the second answer is wrong.
    assert facts["mean"] == pytest.approx((1 + 0.5 + 1 + 0 + 0.5 + 1) / 2)
    assert facts["tasks"] == {"multiple_choice": {"mean": facts["mean"], "scored": 2, "total": 4}}
    assert facts["parts"]["accuracy"] == {"mean": 0.5, "scored": 2, "total": 3}
    assert sum(facts["reasons"].values()) == 2
    assert any(reason.startswith("infrastructure") for reason in facts["reasons"])
    assert any("true answer" in reason for reason in facts["reasons"])
    assert [one["id"] for one in facts["episodes"]] == ["1", "2", "3", "4"]
    assert facts["episodes"][2]["parts"] == {"reward": None}

    assert main(["reward", "score", str(run), "--reward", "videotemp_release"]) == 0
    text = capsys.readouterr().out
    # The release pays the look of the wrong answer nothing: 2.5 and 1.0.
    assert "mean reward 1.7500, 2 of 4 episodes scored" in text
    assert "1 not scored: infrastructure" in text


def test_a_file_of_trajectories_and_a_toml_file_do_too(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'title = "t"\nsource = "s"\nprotocol = "videotemp"\ntools = true\ntasks = ["multiple_choice"]\n'
        '[[parts]]\npart = "accuracy.option"\nweight = 4\nfrom_progress = 0.0\nto_progress = 0.5\n'
        '[[parts]]\npart = "videotemp.format"\n',
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "timeloupe",
        "reward",
        "score",
        str(run / "trajectories.jsonl"),
        "--reward",
        str(mine),
    ]
    command += ["--json"]
    for progress, mean in (("0.2", (5 + 1) / 2), ("1", 1.0)):
        done = subprocess.run([*command, "--progress", progress], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        # The file has both tries of the second question; the row without a truth still has a form.
        assert (facts["total"], facts["reward"]) == (5, "mine")
        if progress == "1":
            assert facts["mean"] == mean and facts["scored"] == 3
        else:
            assert facts["mean"] == mean and facts["scored"] == 2


def test_a_run_of_which_nothing_can_be_scored_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "only.jsonl"
    path.write_text(to_line(failed("1")) + "\n", encoding="utf-8")
    assert main(["reward", "score", str(path), "--reward", "taro"]) == 1
    text = capsys.readouterr().out
    assert "mean reward none, 0 of 1 episodes scored" in text
    assert "1 episodes speak 'videotemp'; this reward was made for 'taro'" in text


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["show", "nonsense"], 2, "allowed: museg"),
        (["simulate", "nonsense"], 2, "allowed: museg"),
        (["show", "none.toml"], 3, "no recipe at 'none.toml'"),
        (["simulate", "taro", "--episodes", "3"], 2, "allowed: >= 20"),
        (["simulate", "taro", "--plot", "x.bmp"], 2, "allowed: .png, .svg, .pdf"),
        (["simulate", "taro", "--plot", "nowhere/x.png"], 3, "no folder 'nowhere'"),
        (["score", "nowhere", "--reward", "taro"], 3, "nowhere"),
        (["score", "nowhere", "--reward", "taro", "--progress", "1.5"], 2, "allowed: 0 to 1"),
        (["score", "nowhere"], 2, "--reward"),
    ],
)
def test_wrong_words_are_one_clear_line(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["reward", *words]) == code
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == ""


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", "list", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert sorted(facts["presets"]) == preset_names()
    assert {"videotemp_paper", "videotemp_release", "museg", "taro", "openo3_paper", "openo3_release"} <= set(
        facts["presets"]
    )
    assert facts["parts"]["videotemp.accuracy"] == {"low": 0.0, "high": 1.0}
    assert main(["reward", "list"]) == 0
    assert "taro.sensitivity" in capsys.readouterr().out
    for name in preset_names():
        assert main(["reward", "show", name]) == 0
        text = capsys.readouterr().out
        assert main(["reward", "show", name, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["title"] in text and shown["source"] in text
        for use in shown["parts"]:
            assert use["part"] in text
        assert set(shown["bounds"]) == set(shown["tasks"])


def test_simulate_exits_1_when_a_degenerate_policy_outranks_honest_looking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "release.png"
    assert main(["reward", "simulate", "videotemp_release", "--episodes", "20", "--plot", str(picture)]) == 1
    text = capsys.readouterr().out
    assert "verdict: grounding: sloppy_on_purpose earns +0.0" in text
    assert "looking well less never looking: +" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["reward", "simulate", "taro", "--episodes", "20"]) == 0
    assert "no degenerate policy outranks honest looking" in capsys.readouterr().out


def test_simulate_as_json_says_what_the_text_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", "simulate", "videotemp_release", "--episodes", "20", "--seed", "5", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["seed"], facts["episodes"]) == ("videotemp_release", 5, 20)
    assert {(one["task"], one["archetype"]) for one in facts["outranking"]} == {
        ("grounding", "sloppy_on_purpose"), ("multi_segment", "sloppy_on_purpose"),
    }  # fmt: skip
    for cell in facts["cells"]:
        means = [row["reward"]["mean"] for row in cell["rows"]]
        assert means == sorted(means, reverse=True)
        assert set(cell["gaps"]) == {"total", "itself", "beginner"}


def test_without_matplotlib_only_the_plot_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    picture = tmp_path / "x.png"
    assert main(["reward", "simulate", "taro", "--episodes", "20", "--plot", str(picture)]) == 3
    printed = capsys.readouterr()
    assert "pip install matplotlib" in printed.err and printed.out == "" and not picture.exists()
    assert main(["reward", "simulate", "taro", "--episodes", "20"]) == 0
