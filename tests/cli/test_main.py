"""The command table, exit codes, and that nothing heavy is imported for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import timeloupe.cli.probe
from timeloupe import __version__
from timeloupe.cli.main import COMMANDS, GROUPS, _load, main
from timeloupe.errors import ConfigError, MissingError, VideoError


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert command.words[0] in shown
        assert command.summary in shown or len(command.words) == 2
    for group in GROUPS:
        assert main([group, "-h"]) == 0
        shown = capsys.readouterr().out
        assert all(command.summary in shown for command in COMMANDS if command.words[0] == group)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words))
def test_every_command_is_there_and_explains_itself(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(_load(command.target))
    assert main([*command.words, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: timeloupe {' '.join(command.words)}")
    assert "Raises:" not in shown


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"timeloupe {__version__}\n"
    done = run_python("-m", "timeloupe", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"timeloupe {__version__}\n", "")


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["world"], ["world", "nonsense"], ["probe"], ["probe", "a", "--nonsense"]]
)
def test_wrong_usage_is_2(words: list[str]) -> None:
    assert main(words) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VideoError("a.mp4", "it is torn"), 1),
        (ConfigError("wrong"), 2),
        (MissingError("not there"), 3),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_a_line_and_an_exit_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(file: str) -> None:
        raise error

    monkeypatch.setattr(timeloupe.cli.probe, "probe", fails)
    assert main(["probe", "a.mp4"]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"timeloupe: {error if str(error) else 'interrupted'}\n"


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from timeloupe.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'av', 'numpy', 'openai', 'pydantic'} & sys.modules.keys();"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = run_python("-c", code, "--help")
    assert done.returncode == 0, done.stderr


def test_nobody_reading_is_no_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "timeloupe", "--help"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(writing)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
