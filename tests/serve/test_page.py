"""The page of a run: what it shows, that it asks for nothing, and that nothing in it comes alive."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.serve.episodes import (
    HOSTILE,
    dead_server,
    draw_video,
    every_kind,
    look_twice,
    single_pass,
    unreadable,
    write_run,
)
from timeloupe.cli.main import main
from timeloupe.errors import MissingError, RecordError
from timeloupe.serve.export import export_html, export_page, read_run
from timeloupe.serve.page import render_page, script_safe_json, source_hash
from timeloupe.serve.page_data import duration_of, episode_data
from timeloupe.serve.thumbnails import Gallery, make_gallery, thin, wanted_frames
from timeloupe.trajectory import StopReason, to_line

SECONDS = 40


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(draw_video(tmp_path_factory.mktemp("video") / "clip.mp4", SECONDS))


class Elements(HTMLParser):
    """Collects the page's elements as a browser would see them, with the content of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.content: dict[str, list[str]] = {"script": [], "style": []}
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag in self.content:
            self._inside = tag
            self.content[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.content[self._inside][-1] += data


def data_of(page: str) -> dict:
    return json.loads(Elements(page).content["script"][0])["runs"][0]


def test_hostile_text_stays_text_and_comes_back_whole(video: str) -> None:
    quiet = Elements(render_page([look_twice(video, SECONDS)], title="run"))
    page = render_page([unreadable(video, SECONDS)], title=HOSTILE)
    loud = Elements(page)
    assert [tag for tag, _ in loud.found] == [tag for tag, _ in quiet.found], "data made an element"
    assert page.count("</script>") == 2
    assert "onerror=alert" not in page.replace("&lt;img src=x onerror=alert(1)&gt;", "").replace(
        "\\u003cimg src=x onerror=alert(1)\\u003e", ""
    )
    data = data_of(page)
    assert data["title"] == HOSTILE
    assert data["episodes"][0]["turns"][0]["raw"] == HOSTILE
    assert data["episodes"][0]["settings"] == {HOSTILE: HOSTILE}


def test_no_element_carries_a_handler_or_an_address(video: str) -> None:
    gallery = make_gallery([look_twice(video, SECONDS)])
    elements = Elements(render_page([look_twice(video, SECONDS)], gallery))
    for tag, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not {"src", "srcset", "action", "style", "background"} & attributes.keys(), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}


def test_the_page_asks_for_nothing(video: str) -> None:
    page = render_page([look_twice(video, SECONDS)], make_gallery([look_twice(video, SECONDS)]))
    namespaces = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(
        r"https?://|//cdn|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(", namespaces
    )
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", page)


def test_the_policy_allows_what_is_there_and_no_more(video: str) -> None:
    elements = Elements(render_page([look_twice(video, SECONDS)]))
    policies = [a["content"] for _, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict((rule.strip() + " ").split(" ", 1) for rule in (policies[0] or "").split(";"))
    assert rules["default-src"].strip() == "'none'"
    assert rules["script-src"].strip() == f"'{source_hash(elements.content['script'][1])}'"
    assert rules["style-src"].strip() == f"'{source_hash(elements.content['style'][0])}'"
    assert rules["img-src"].strip() == "data:"
    assert "unsafe" not in (policies[0] or "")


def test_json_in_a_script_is_ascii_and_strict() -> None:
    text = script_safe_json({"a": "<!--\u2028é</script>&"})
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": "<!--\u2028é</script>&"}
    with pytest.raises(ValueError, match="JSON"):
        script_safe_json({"a": float("nan")})


def test_an_episode_says_what_happened(video: str) -> None:
    trajectory = look_twice(video, SECONDS)
    gallery = make_gallery([trajectory])
    data = episode_data(trajectory, gallery)
    assert data["outcome"] == "right"
    assert data["answer"]["option"] == "C"
    assert data["overlap"] == pytest.approx(0.8)
    assert data["duration"] == pytest.approx(SECONDS)
    assert [len(turn["crops"]) for turn in data["turns"]] == [1, 2, 0]
    assert data["score"][2] == {"name": "judge", "value": None, "reason": "no judge was configured"}
    skim = data["skims"][0]
    assert len(skim["at"]) == len(trajectory.skims[0].at_seconds)
    assert len(data["views"]) == 4, "the skim and three crops"
    assert data["views"][0]
    for seconds, number in data["views"][0]:
        assert seconds in trajectory.skims[0].at_seconds
        assert gallery.pictures[number].startswith("data:image/jpeg;base64,")


def test_outcomes(video: str) -> None:
    kinds = [look_twice, single_pass, unreadable]
    data = [episode_data(kind(video, SECONDS), Gallery()) for kind in kinds]
    data += [
        episode_data(single_pass(video, SECONDS, hit=True), Gallery()),
        episode_data(dead_server(video), Gallery()),
    ]
    assert [one["outcome"] for one in data] == ["right", "wrong", "unanswered", "right", "fault"]
    assert [one["overlap"] for one in data] == pytest.approx([0.8, 0.0, None, 10 / 11, None])
    assert data[4]["stop"] == StopReason.INFRASTRUCTURE.value
    blind = single_pass(video, SECONDS).model_copy(update={"turns": (), "stop": StopReason.FORMAT})
    assert episode_data(blind, Gallery())["overlap"] == 0.0, (
        "a grounding question without an answer overlaps nothing"
    )


def test_the_axis_is_as_long_as_what_is_known(video: str) -> None:
    trajectory = look_twice(video, SECONDS)
    assert duration_of(trajectory, Gallery()) == SECONDS
    assert duration_of(trajectory, Gallery(durations={video: 99.0})) == 99.0
    assert duration_of(dead_server(video), Gallery()) == 1.0


def test_thinning_is_even_and_bounded() -> None:
    assert thin((1.0, 2.0), 5) == (1.0, 2.0)
    assert thin(tuple(range(100)), 4) == (12, 37, 62, 87)


def test_frames_shared_by_episodes_are_pictured_once(video: str) -> None:
    one, left_out = wanted_frames([look_twice(video, SECONDS)])
    two, _ = wanted_frames([look_twice(video, SECONDS), look_twice(video, SECONDS, "again")])
    assert one == two
    assert left_out == 0
    assert one[video] == sorted(set(one[video]))


def test_a_full_page_thins_first_and_then_leaves_out_with_a_count(video: str) -> None:
    trajectories = every_kind(video, SECONDS)
    everything, _ = wanted_frames(trajectories)
    fewer, left_out = wanted_frames(trajectories, len(everything[video]) - 1)
    assert len(fewer[video]) < len(everything[video])
    assert left_out == 0
    least, left_out = wanted_frames(trajectories, 3)
    assert len(least[video]) == 3
    assert left_out > 0
    gallery = make_gallery(trajectories, max_pictures=3)
    assert len(gallery.pictures) == 3
    assert gallery.left_out == left_out


def test_pictures_show_the_frame_at_their_time(video: str) -> None:
    """The drawn video has a dark square in its third fifth only."""
    import base64
    import io

    from PIL import Image

    trajectory = look_twice(video, SECONDS)
    gallery = make_gallery([trajectory])
    for (_, seconds), number in gallery.numbers.items():
        raw = base64.b64decode(gallery.pictures[number].split(",")[1])
        pixel = Image.open(io.BytesIO(raw)).convert("L").getpixel((68, 13))
        dark = 0.4 * SECONDS <= seconds < 0.6 * SECONDS
        assert isinstance(pixel, int)
        assert (pixel < 70) == dark, seconds


def test_a_missing_or_broken_video_costs_only_its_thumbnails(tmp_path: Path, video: str) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    gone = str(tmp_path / "gone.mp4")
    run = write_run(
        tmp_path / "run",
        [
            look_twice(gone, SECONDS, "a"),
            look_twice(str(broken), SECONDS, "b"),
            look_twice(video, SECONDS, "c"),
        ],
    )
    done = export_page(run)
    assert set(done.galleries[0].notes) == {gone, str(broken)}
    episodes = data_of(done.path.read_text())["episodes"]
    assert [bool(one["note"]) for one in episodes] == [True, True, False]
    assert [bool(one["views"][0]) for one in episodes] == [False, False, True]
    assert episodes[0]["duration"] == SECONDS


def test_a_video_beside_the_run_is_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [look_twice("clip.mp4", SECONDS)])
    draw_video(run / "clip.mp4", SECONDS)
    assert export_page(run).galleries[0].notes == {}


def test_a_replayed_episode_is_shown_once(tmp_path: Path, video: str) -> None:
    first = dead_server(video, "same")
    again = look_twice(video, SECONDS, "same")
    assert read_run(write_run(tmp_path / "run", [first, again])) == [again]


def test_export_to_a_file_from_a_file(tmp_path: Path, video: str) -> None:
    lines = tmp_path / "some.jsonl"
    lines.write_text(to_line(look_twice(video, SECONDS)) + "\n")
    assert export_html(lines) == tmp_path / "some.html"
    assert export_html(lines, tmp_path / "other.html").read_text().startswith("<!doctype html>")


def test_what_is_not_there_is_said(tmp_path: Path, video: str) -> None:
    with pytest.raises(MissingError, match="trajectories.jsonl"):
        export_page(tmp_path)
    with pytest.raises(MissingError, match="no record file"):
        export_page(tmp_path / "nowhere")
    with pytest.raises(MissingError, match="empty"):
        export_page(write_run(tmp_path / "empty", []))
    run = write_run(tmp_path / "run", [look_twice(video, SECONDS)])
    with pytest.raises(MissingError, match="--out"):
        export_page(run, tmp_path / "no" / "folder.html")
    (run / "trajectories.jsonl").write_text("{}\n")
    with pytest.raises(RecordError, match=r"trajectories\.jsonl:1"):
        export_page(run)


def test_an_exported_page_shows_a_video_that_is_a_link_only_where_links_are_trusted(
    tmp_path: Path, video: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(
        tmp_path / "run", [look_twice("link.mp4", SECONDS), look_twice("notes.mp4", SECONDS, "b")]
    )
    (run / "link.mp4").symlink_to(video)
    (run / "notes.mp4").write_text("a secret")
    assert main(["view", str(run), "--export", "html"]) == 0
    assert "link.mp4: it is a symbolic link" in (said := capsys.readouterr().err) and "--follow-links" in said
    assert data_of((run / "index.html").read_text())["pictures"] == []
    assert main(["view", str(run), "--export", "html", "--follow-links", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["videos_without_pictures"] == {"notes.mp4": "it does not begin like a video file"}
    assert facts["pictures"] > 0


def test_view_command(tmp_path: Path, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", [look_twice(video, SECONDS), look_twice("gone.mp4", SECONDS, "b")])
    assert main(["view", str(run), "--export", "html", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["page"] == str(run / "index.html")
    assert (facts["episodes"], list(facts["videos_without_pictures"])) == (2, ["gone.mp4"])
    assert facts["bytes"] == (run / "index.html").stat().st_size

    out = tmp_path / "page.html"
    assert main(["view", str(run), "--export", "html", "--out", str(out), "--no-pictures"]) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == [str(out)]
    assert "gone.mp4" in shown.err
    assert data_of(out.read_text())["pictures"] == []

    assert main(["view", str(tmp_path / "nowhere")]) == 3
    assert main(["view", str(run), "--export", "pdf"]) == 2
