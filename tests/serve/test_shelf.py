"""A run that grows, is torn, rewritten or replayed while it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.serve.episodes import dead_server, look_twice, many, single_pass, write_run
from timeloupe.errors import MissingError, RecordError
from timeloupe.serve.export import read_run
from timeloupe.serve.shelf import Shelf
from timeloupe.trajectory import to_line


def ids(shelf: Shelf) -> list[str]:
    return [entry["id"] for entry in shelf.entries()]


def test_a_growing_run_shows_whole_lines_as_they_come(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", many("v.mp4", 60, 3))
    path = run / "trajectories.jsonl"
    shelf = Shelf(run)
    line = to_line(look_twice("v.mp4", 60, "later")).encode()
    with path.open("ab") as file:
        file.write(line[:100])
        file.flush()
        assert ids(shelf) == ["item-0", "item-1", "item-2"]
        file.write(line[100:] + b"\n")
        file.flush()
        assert ids(shelf) == ["item-0", "item-1", "item-2", "later"]
    found = shelf.episode(("later", 0, 0))
    assert found == look_twice("v.mp4", 60, "later")


def test_a_last_line_without_its_newline_counts_and_is_not_doubled(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text(to_line(single_pass("v.mp4", 60, "a")))
    shelf = Shelf(path)
    assert ids(shelf) == ["a"]
    with path.open("a") as file:
        file.write("\n" + to_line(single_pass("v.mp4", 60, "b")) + "\n")
    assert ids(shelf) == ["a", "b"]


def test_a_run_that_has_only_begun_is_empty(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    shelf = Shelf(tmp_path)
    assert shelf.entries() == []
    write_run(tmp_path, [single_pass("v.mp4", 60, "first")])
    assert ids(shelf) == ["first"]


def test_a_replayed_episode_stands_where_it_stood(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [dead_server("v.mp4", "a"), single_pass("v.mp4", 60, "b")])
    shelf = Shelf(run)
    assert [entry["outcome"] for entry in shelf.entries()] == ["fault", "wrong"]
    with (run / "trajectories.jsonl").open("a") as file:
        file.write(to_line(look_twice("v.mp4", 60, "a")) + "\n")
    assert [(entry["id"], entry["outcome"]) for entry in shelf.entries()] == [("a", "right"), ("b", "wrong")]


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", many("v.mp4", 60, 5))
    shelf = Shelf(run)
    assert len(shelf.entries()) == 5
    other = write_run(tmp_path / "other", [look_twice("v.mp4", 60, "only")])
    (other / "trajectories.jsonl").replace(run / "trajectories.jsonl")
    assert shelf.episode(("item-1", 0, 0)) is None
    assert ids(shelf) == ["only"]
    (run / "trajectories.jsonl").unlink()
    assert shelf.entries() == []


def test_a_larger_file_in_the_same_place_on_the_disk_is_read_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", many("v.mp4", 60, 2))
    shelf = Shelf(run)
    assert ids(shelf) == ["item-0", "item-1"]
    text = "".join(to_line(single_pass("v.mp4", 60, f"other-{number}")) + "\n" for number in range(4))
    (run / "trajectories.jsonl").write_text(text)  # with the file's number, as a file made anew may have
    assert ids(shelf) == ["other-0", "other-1", "other-2", "other-3"]


def test_a_whole_line_that_is_no_episode_is_told_with_its_number(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", many("v.mp4", 60, 2))
    shelf = Shelf(run)
    with (run / "trajectories.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(RecordError, match=r"trajectories\.jsonl:3 is not a valid"):
        shelf.entries()
    with pytest.raises(RecordError, match=r":3"):
        Shelf(run)
    with pytest.raises(MissingError, match="no episodes"):
        Shelf(tmp_path / "nowhere")
    with pytest.raises(MissingError, match="no episodes"):
        Shelf(tmp_path)


def test_videos_have_numbers_and_stay_where_records_put_them(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "near.mp4").touch()
    run = write_run(
        tmp_path / "run", [single_pass("near.mp4", 60, "a"), single_pass("/gone/far.mp4", 60, "b")]
    )
    shelf = Shelf(run)
    assert shelf.video_number("near.mp4") == 0
    assert shelf.video_path(0) == str(run / "near.mp4")
    assert shelf.video_path(1) == "/gone/far.mp4"
    assert shelf.video_path(2) is None
    assert shelf.video_number("other.mp4") is None


def test_a_training_shows_an_example_once_per_step(tmp_path: Path) -> None:
    first = look_twice("v.mp4", 60, "a")
    played = [first.model_copy(update={"settings": first.settings | {"step": step}}) for step in (0, 3)]
    run = write_run(tmp_path / "run", [*played, single_pass("v.mp4", 60, "b")])
    shelf = Shelf(run)
    assert [(entry["id"], entry["step"]) for entry in shelf.entries()] == [("a", 0), ("a", 3), ("b", None)]
    assert shelf.episode(("a", 0, 3)) == played[1]
    assert shelf.episode(("a", 0, 1)) is None
    assert read_run(run) == [*played, single_pass("v.mp4", 60, "b")]
    with (run / "trajectories.jsonl").open("a") as file:  # played again, as after a fault
        file.write(to_line(played[0]) + "\n")
    assert len(shelf.entries()) == 3
    assert shelf.num_lines == 4
