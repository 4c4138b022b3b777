"""``timeloupe train sft``: wrong recipes and flags, and the command that goes on with a stopped run."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from timeloupe.cli import train
from timeloupe.cli.main import main

RECIPE = """
[model.from_scratch]
[[stages]]
name = "a"
kind = "alignment"
world_seed = 1
steps = 1
batch = 1
lr = 0.1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    pytest.importorskip("torch")
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.0.world_seed=1000000", "kept for evaluation"),
        ("stages.0.world_sed=3", "did you mean 'world_seed'"),
        ("stages.1.lr=1", "allowed: 0 to 0"),
        ("model.checkpoint=x", "exactly one of"),
        ("steps", "key.inner=value"),
    ],
)
def test_wrong_overrides_are_2(
    recipe: Path, override: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "sft", str(recipe), "--dry-run", "--set", override]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and not shown.out


def test_a_run_folder_that_is_a_file_is_2(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["train", "sft", str(recipe), "--out", str(tmp_path / "file")]) == 2
    assert "needs a folder" in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on_with_the_same_recipe(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from timeloupe.train import sft

    def interrupted(*arguments: object, **options: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(sft, "train_sft", interrupted)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "sft", str(recipe), "--out", "."]) == 130
    said = capsys.readouterr().err
    assert f"begin again with: timeloupe train sft {recipe} --out . " in said and "--resume" not in said
    (tmp_path / "recipe.json").write_text("{}", encoding="utf-8")  # the run has begun
    words = ["train", "sft", str(recipe), "--out", ".", "--set", "stages.0.stop_when={ colour = 0.9 }"]
    assert main(words) == 130
    said = capsys.readouterr().err
    assert f"timeloupe train sft {recipe} --out . " in said
    assert "--resume --set 'stages.0.stop_when={ colour = 0.9 }'" in said


@pytest.mark.parametrize("terminal", [True, False])
def test_the_making_of_a_world_is_shown(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr(train, "VIDEOS_EVERY_SECONDS", 0.0)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=80)
    with train.tells_of_videos(console) as tell:
        for done in range(4):
            tell(done, 3)
    assert "making the world" in shown.getvalue()
    assert ("100%" in shown.getvalue()) if terminal else ("3 of 3 videos" in shown.getvalue())


def test_a_full_disk_is_one_line_with_the_command_that_goes_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from timeloupe.train import sft

    def full(*arguments: object, **options: object) -> Path:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "recipe.json").write_text("{}", encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sft, "train_sft", full)
    assert main(["train", "sft", str(recipe), "--out", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("timeloupe: ") and "No space left" in line
    assert f"go on with: timeloupe train sft {recipe}" in line and "--resume" in line
