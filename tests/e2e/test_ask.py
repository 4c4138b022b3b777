"""``timeloupe ask``, the installed command, on a real MP4 with scripted replies."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.environment.clips import write_clip
from timeloupe.cli.ask import infer_task, make_example, parse_time
from timeloupe.cli.main import main
from timeloupe.cli.show import clock, printable
from timeloupe.errors import ConfigError
from timeloupe.runs import open_run
from timeloupe.trajectory import Segment, Trajectory

COMMAND = Path(sys.executable).with_name("timeloupe")

LOOK = (
    "<think>Something at [bold]twelve[/bold] \x1b[31m\u202e.</think>"
    '<tool_call>{"name":"get_video_clip_frame","arguments":[{"start_time":12,"end_time":15.5}]}</tool_call>'
)
LETTER = "<think>A fish.</think><answer>C</answer>"
WHEN = "<think>There.</think><answer>[12.5, 14]</answer>"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_clip(tmp_path_factory.mktemp("ask") / "pond life.mp4", "blue", 24))


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return write_script(tmp_path, LOOK, LETTER)


def write_script(folder: Path, *turns: Any) -> Path:
    path = folder / "script.json"
    path.write_text(json.dumps({"replies": {"*": turns}}))
    return path


def installed(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not COMMAND.exists():
        pytest.skip("the timeloupe command is not installed beside this Python")
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120)


def test_the_story_on_the_terminal(video: str, script: Path) -> None:
    done = installed(
        "ask",
        video,
        "What is it?",
        "--options",
        "a cat|a dog|a fish",
        "--script",
        str(script),
        "--frames",
        "8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "pond life.mp4", "What is it?  (multiple choice)", "C. a fish", "8 frames of", "00:00 to 00:24", "every 3.00 s",
        "Something at [bold]twelve[/bold]", "look closer at 00:12 to 00:15.5 (12 s to 15.5 s)", "6 frames of",
        "answer: C. a fish", "evidence   00:12 to 00:15.5", "answered; 2 turns, 1 crop",
    ):  # fmt: skip
        assert text in done.stdout
    assert "\x1b" not in done.stdout and "\u202e" not in done.stdout
    assert done.stdout.index("turn 1") < done.stdout.index("crop") < done.stdout.index("turn 2")


def test_json_is_one_trajectory_and_the_story_goes_to_stderr(
    video: str, script: Path, tmp_path: Path
) -> None:
    done = installed(
        "ask", video, "What is it?", "-o", "a cat", "-o", "a dog", "-o", "a fish", "--script", str(script), "--json",
        "--save", str(tmp_path / "run"), "--seed", "7", "--max-turns", "2",
    )  # fmt: skip
    assert done.returncode == 0
    found = Trajectory.model_validate_json(done.stdout)
    assert found.example.video == video and found.example.options == ("a cat", "a dog", "a fish")
    assert found.answer is not None and found.answer.option == "C"
    assert found.evidence == (Segment(start_seconds=12, end_seconds=15.5),)
    assert (found.seed, found.settings["max_turns"]) == (7, 2)
    assert "look closer" in done.stderr and "answer: C. a fish" in done.stderr
    assert list(open_run(tmp_path / "run")) == [found]


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; return exit code, stdout and stderr."""
    code = main(["ask", *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_grounding_question(video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = write_script(tmp_path, LOOK, WHEN)
    code, out, _ = ask(capsys, video, "When does it jump?", "--script", str(script))
    assert code == 0
    assert "(grounding)" in out
    assert "answer: 00:12.5 to 00:14 (12.5 s to 14 s)" in out and "evidence   00:12.5 to 00:14" in out


def test_a_part_of_the_video(video: str, script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(
        capsys,
        video,
        "What?",
        "--script",
        str(script),
        "--from",
        "0:10",
        "--to",
        "20",
        "--frames",
        "4",
        "--json",
    )
    found = Trajectory.model_validate_json(out)
    assert code == 0
    assert found.skims[0].at_seconds == pytest.approx([11.2, 13.7, 16.2, 18.7])
    code, _, err = ask(capsys, video, "What?", "--script", str(script), "--from", "1:00")
    assert code == 2 and "is 24.00 s long" in err


def test_a_system_prompt_of_ones_own(
    video: str, script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "system.txt").write_text("Be brief.\n")
    code, out, _ = ask(
        capsys,
        video,
        "What?",
        "--script",
        str(script),
        "--system-prompt",
        str(tmp_path / "system.txt"),
        "--json",
    )
    assert code == 0
    assert Trajectory.model_validate_json(out).prompt[0].text == "Be brief."


def test_a_run_folder_takes_many_questions(
    video: str, script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert ask(capsys, video, "What is it?", "--script", str(script), "--save", run)[0] == 0
    assert ask(capsys, video, "Who is it?", "--script", str(script), "--save", run, "--frames", "4")[0] == 0
    assert [item.example.question for item in open_run(run)] == ["What is it?", "Who is it?"]
    (tmp_path / "run" / "config.json").write_text('{"command": "eval"}')
    code, _, err = ask(capsys, video, "What?", "--script", str(script), "--save", run)
    assert code == 2 and 'command: there "eval", now "ask"' in err


def test_the_machines_fault_is_exit_1_and_still_a_record(
    video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = write_script(tmp_path, LOOK)
    code, out, err = ask(
        capsys, video, "What?", "--script", str(script), "--json", "--save", str(tmp_path / "run")
    )
    assert code == 1
    assert Trajectory.model_validate_json(out).stop == "infrastructure"
    assert "turn 2 was asked for" in err and "the machine failed" in err
    assert len(list(open_run(tmp_path / "run"))) == 1


def test_no_answer_is_told(video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ask(
        capsys, video, "What?", "--script", str(write_script(tmp_path, LOOK, LOOK)), "--max-turns", "2"
    )
    assert code == 0 and "no answer: the last turn still asked to look" in out
    code, out, _ = ask(capsys, video, "What?", "--script", str(write_script(tmp_path, "I say fish.")))
    assert code == 0 and "I say fish." in out and "no answer: the reply could not be read" in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--policy", "nope"], 2, "--policy, got 'nope', allowed: small, local, scripted"),
        (["--policy", "local"], 2, "--policy local needs --model"),
        (["--policy", "scripted"], 2, "--policy scripted needs --script"),
        (
            ["--policy", "scripted", "--model", "x", "--script", "y"],
            2,
            "--model does not go with --policy scripted",
        ),
        (["--script", "none.json"], 3, "no script of replies at 'none.json'"),
        (["--script", "none.json", "--options", "one"], 2, "--options needs two or more, got 'one'"),
        (["--script", "none.json", "--options", "one|"], 2, "got an empty one"),
        (
            ["--script", "none.json", "--task", "open", "-o", "a|b"],
            2,
            "--options go with --task multiple_choice",
        ),
        (["--script", "none.json", "--task", "multiple_choice"], 2, "--options go with"),
        (
            ["--script", "none.json", "--task", "poem"],
            2,
            "--task, got 'poem', allowed: multiple_choice, grounding, open",
        ),
        (["--script", "none.json", "--protocol", "latin"], 2, "--protocol, got 'latin', allowed: videotemp"),
        (["--script", "none.json", "--max-turns", "0"], 2, "max_turns"),
        (["--script", "none.json", "--frames", "1"], 2, "skim_frames"),
        (["--script", "none.json", "--from", "soon"], 2, "--from, got 'soon', allowed: seconds, mm:ss"),
        (
            ["--script", "none.json", "--from", "9", "--to", "3"],
            2,
            "skim_start_seconds must be < skim_end_seconds",
        ),
        (["--script", "none.json", "--temperature", "-1"], 2, "temperature"),
        (["--script", "none.json", "--system-prompt", "none.txt"], 3, "no system prompt at 'none.txt'"),
    ],
)
def test_wrong_use_says_what_is_allowed(
    video: str, arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    found, out, err = ask(capsys, video, "What is it?", *arguments)
    assert (found, out) == (code, "")
    assert says in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_video_is_told_before_anything_else(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = ask(capsys, str(script), "What?", "--script", str(script))
    assert (code, out) == (1, "") and "cannot read video" in err


def test_asking_a_script_needs_no_torch(video: str, script: Path) -> None:
    code = (
        "import sys; from timeloupe.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'safetensors'} & sys.modules.keys();"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    arguments = ["ask", video, "What?", "--script", str(script)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_tasks_are_read_off_the_question() -> None:
    assert infer_task("Which one?", ["a", "b"]) == "multiple_choice"
    for question in (
        "When is it?",
        " when is it",
        "During which part?",
        "At what time?",
        "In which segment does it jump?",
    ):
        assert infer_task(question, []) == "grounding"
    for question in ("Whenever is fine?", "What happens when it rains?", "Who?"):
        assert infer_task(question, []) == "open"


def test_an_option_may_hold_a_bar_when_options_are_repeated() -> None:
    assert make_example(Path("a.mp4"), "?", ["a|b", " c "], None).options == ("a|b", "c")
    assert make_example(Path("a.mp4"), "?", ["a | b|c"], None).options == ("a", "b", "c")
    one, other = (make_example(Path("a.mp4"), question, [], None) for question in ("Who?", "What?"))
    assert one.id != other.id and one == make_example(Path("a.mp4"), "Who?", [], None)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90.5", 90.5), ("1:30", 90.0), ("1:02:03.5", 3723.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_time("--from", text) == seconds


@pytest.mark.parametrize("text", ["", "-3", "1:2:3:4", "1e3", "nan", "1:", ":30"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ConfigError, match="--from"):
        parse_time("--from", text)


def test_clock() -> None:
    assert [clock(at) for at in (0, 59.96, 75.25, 3723.5)] == ["00:00", "01:00", "01:15.2", "1:02:03.5"]


def test_printable_text() -> None:
    assert printable("a\nb\t\x1b]0;x\x07\x9b\u200bé") == "a\nb    \ufffd]0;x\ufffd\ufffd\ufffdé"


def test_an_endless_question_is_refused(video: str, script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", video, "why " * 10_000, "--script", str(script)]) == 2
    assert "at most 20000" in capsys.readouterr().err
