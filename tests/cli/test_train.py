"""``timeloupe train sft``: wrong recipes and flags, and the command that goes on with a stopped run."""

from pathlib import Path

import pytest

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
    words = ["train", "sft", str(recipe), "--out", ".", "--set", "stages.0.stop_when={ colour = 0.9 }"]
    assert main(words) == 130
    said = capsys.readouterr().err
    assert f"timeloupe train sft {recipe} --out . " in said
    assert "--resume --set 'stages.0.stop_when={ colour = 0.9 }'" in said
