"""Which of the files that a record lists are shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.serve.episodes import draw_video
from timeloupe.errors import VideoError
from timeloupe.serve.video_file import open_video


def test_a_video_is_opened_at_its_start(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mp4", 2)
    video = open_video(str(path))
    with video.file:
        assert video.file.read() == path.read_bytes()
    assert (video.size, video.kind) == (path.stat().st_size, "video/mp4")
    os.utime(path, ns=(1, 1))
    again = open_video(str(path))
    again.file.close()
    assert again.tag != video.tag


def test_what_does_not_begin_like_a_video_is_not_shown(tmp_path: Path) -> None:
    for name, content in {
        "key.mp4": b"-----BEGIN KEY-----" * 9,
        "empty.mp4": b"",
        "db.mp4": b"SQLite format 3\0",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(VideoError, match="does not begin like a video"):
            open_video(str(tmp_path / name))
    with pytest.raises(VideoError, match="does not begin like a video"):
        open_video("/etc/passwd")


def test_what_is_no_file_is_not_shown(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in ("pipe.mp4", "."):
        with pytest.raises(VideoError, match="not a regular file"):
            open_video(str(tmp_path / name))
    for name in ("gone.mp4", "nul\0.mp4"):
        with pytest.raises(VideoError, match="cannot be opened"):
            open_video(str(tmp_path / name))


def test_a_link_is_followed_when_asked(tmp_path: Path) -> None:
    path = draw_video(tmp_path / "a.mp4", 2)
    (tmp_path / "link.mp4").symlink_to(path)
    with pytest.raises(VideoError, match="symbolic link; add --follow-links"):
        open_video(str(tmp_path / "link.mp4"))
    open_video(str(tmp_path / "link.mp4"), follow_links=True).file.close()
    (tmp_path / "secret.mp4").symlink_to("/etc/passwd")
    with pytest.raises(VideoError, match="does not begin like a video"):
        open_video(str(tmp_path / "secret.mp4"), follow_links=True)
    (tmp_path / "folder").symlink_to(tmp_path)
    open_video(str(tmp_path / "folder" / "a.mp4")).file.close()
