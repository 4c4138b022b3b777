"""Which video file a question is about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timeloupe.environment.settings import make_settings
from timeloupe.errors import ConfigError
from timeloupe.eval.plan import shown_of
from timeloupe.eval.questions import load_questions
from timeloupe.eval.registry import benchmark


def rows_about(folder: Path, *videos: str) -> Path:
    rows = [{"video": video, "question": "When?", "groundtruth": [[1.0, 4.0]]} for video in videos]
    (folder / "tvgbench.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder / "tvgbench.json"


def test_a_missing_video_is_none_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "here.mp4").touch()
    (tmp_path / "elsewhere.mp4").touch()  # another video of that name
    monkeypatch.chdir(tmp_path)
    file = rows_about(tmp_path, "here.mp4", "elsewhere.mp4", "/gone/far.mp4")
    found = load_questions(benchmark("tvgbench"), file, Path("videos"))
    assert found.missing == ("elsewhere.mp4", "/gone/far.mp4")
    named = [Path(one.video) for one in found.examples]
    assert named == [videos / "here.mp4", videos / "elsewhere.mp4", Path("/gone/far.mp4")]


def test_a_video_that_may_be_one_of_several_files_is_refused(tmp_path: Path) -> None:
    for folder in ("240p", "480p"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.mp4").touch()
    with pytest.raises(ConfigError, match="2 files below .* may be the video 'v': .*240p/v.mp4.*480p/v.mp4"):
        load_questions(benchmark("tvgbench"), rows_about(tmp_path, "v"))
    found = load_questions(benchmark("tvgbench"), rows_about(tmp_path, "480p/v", "made\\240p\\v.mkv"))
    assert [Path(one.video).parent.name for one in found.examples] == ["480p", "240p"]
    (tmp_path / "v.mkv").touch()
    for name in ("v.mkv", "v", "./v"):
        (found,) = load_questions(benchmark("tvgbench"), rows_about(tmp_path, name)).examples
        assert Path(found.video) == tmp_path / "v.mkv"


def test_links_to_one_file_are_one_video(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "v.mp4").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "v.mp4").symlink_to(tmp_path / "a" / "v.mp4")
    (found,) = load_questions(benchmark("tvgbench"), rows_about(tmp_path, "v")).examples
    assert Path(found.video) == tmp_path / "a" / "v.mp4"


@pytest.mark.parametrize("name", ["x" * 5000 + ".mp4", "a\x00b.mp4", "名" * 200, "", ".."])
def test_a_name_that_no_file_can_have_is_a_missing_video(tmp_path: Path, name: str) -> None:
    found = load_questions(benchmark("tvgbench"), rows_about(tmp_path, name))
    assert found.missing == (name,)
    planned, broken = shown_of(found, make_settings({}))
    assert list(planned) == [found.examples[0].video] and not broken
