"""``timeloupe world make``: what is refused, and that a refusal leaves the folder as it was."""

from pathlib import Path

import pytest

from timeloupe.cli.main import main


@pytest.mark.parametrize(
    "flags",
    [
        ["--minutes", "inf"], ["--minutes", "3:inf"], ["--minutes", "nan"], ["--minutes", "5:3"], ["--minutes", "0:1"],
        ["--minutes", "1:2:3"], ["--minutes", ""], ["--videos", "0"], ["--tasks", ""], ["--tasks", "nonsense"],
        ["--per-task", "0"],
    ],
)  # fmt: skip
def test_wrong_flags_are_2_and_write_nothing(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["world", "make", str(tmp_path / "out"), *flags]) == 2
    assert "allowed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_settings_do_not_replace_the_videos_of_a_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["world", "make", str(tmp_path), "--videos", "1", "--minutes", "0.7"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(["world", "make", str(tmp_path), "--videos", "1", "--minutes", "0.8"]) == 2
    assert "use a new folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_that_cannot_be_made_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["world", "make", str(tmp_path / "file" / "out"), "--videos", "1", "--minutes", "0.7"]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("timeloupe: [Errno")
