"""The served viewer in a real browser: the real video, filters, deep links, two runs, a run that grows."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.tabs import Tab, expect, opened, running_browser
from tests.serve.episodes import (
    draw_video,
    every_kind,
    look_twice,
    many,
    single_pass,
    unreadable,
    with_boxes,
    write_run,
)
from timeloupe.serve.server import Viewer, make_server
from timeloupe.serve.shelf import Shelf
from timeloupe.trajectory import StopReason, Trajectory, to_line

SECONDS = 60
NOW = "document.querySelector('video').currentTime"


@contextmanager
def serving(*runs: Path, token: str | None = None) -> Iterator[str]:
    """Serve these runs; the address."""
    server = make_server(Viewer([Shelf(run) for run in runs]), token=token)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(draw_video(tmp_path_factory.mktemp("video") / "clip.mp4", SECONDS))


def huge(video: str) -> Trajectory:
    """A thought and a reply of a megabyte in one word, and an id that means something to addresses and pages."""
    one = look_twice(video, SECONDS, "../q?x=1#&<b>%2F")
    word = "<b>" + "x" * 1_000_000
    turn = one.turns[0].model_copy(
        update={
            "thought": "\u202ereversed \x1b[31m" + word,
            "generation": one.turns[0].generation.model_copy(update={"text": word}),
        }
    )
    return one.model_copy(update={"turns": (turn, *one.turns[1:])})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, video: str) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("runs")
    first = [*every_kind(video, SECONDS), with_boxes(video, SECONDS), huge(video)]
    cut_short = look_twice(video, SECONDS)
    second = [
        cut_short.model_copy(update={"turns": cut_short.turns[:1], "stop": StopReason.MAX_TURNS}),
        single_pass(video, SECONDS, hit=True),
        unreadable(video, SECONDS),
        with_boxes(video, SECONDS, shift=0.2),
        *(single_pass(video, SECONDS, f"q{number}", hit=number % 3 > 0) for number in range(5, 10)),
    ]
    return write_run(folder / "one", first), write_run(folder / "two", second)


@pytest.fixture(scope="module")
def address(runs: tuple[Path, Path]) -> Iterator[str]:
    with serving(runs[0]) as url:
        yield url


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    with opened(browser, address) as one:
        expect(one.rows().first).to_be_visible()
        yield one


def test_filters_and_orders_and_their_address(tab: Tab) -> None:
    page = tab.page
    page.keyboard.press("/")
    page.keyboard.type("fourth jay")
    expect(page.locator("#none-shown")).to_be_visible()
    page.locator("#search").fill("FOURTH")
    expect(tab.rows()).to_have_count(2)
    page.keyboard.press("Escape")
    page.locator("#clear").click()
    page.locator("#outcome").select_option("fault")
    expect(tab.rows()).to_have_count(1)
    assert tab.ids() == ["q4"]
    page.locator("#clear").click()
    page.locator("#problem").select_option("is:no_tag")
    assert tab.ids() == ["q3"]
    page.locator("#clear").click()
    page.locator("#stop").select_option("answered")
    page.locator("#low").fill("0.5")
    page.locator("#high").fill("0.9")
    assert set(tab.ids()) == {"q1", "boxes", "../q?x=1#&<b>%2F"}
    page.locator("#figure").select_option("score:spatial")
    assert tab.ids() == ["boxes"]
    page.locator("#clear").click()
    page.locator("#heads [data-sort=overlap]").click()
    page.locator("#heads [data-sort=overlap]").click()
    expect(page.locator("#heads [data-sort=overlap]")).to_contain_text("↓")
    overlaps = [float(text) for text in page.locator("#list .overlap").all_inner_texts() if text.strip()]
    assert overlaps == sorted(overlaps, reverse=True)
    assert len(overlaps) > 8
    assert not page.locator("#list .overlap").last.inner_text().strip(), "what has no figure stands last"
    page.locator("#outcome").select_option("wrong")
    page.locator("#sort").select_option("id")
    wanted = tab.ids()
    assert wanted == ["q2", "q6", "q9", "q12"]
    page.reload()
    expect(tab.rows()).to_have_count(4)
    assert tab.ids() == wanted
    with opened(tab.context.browser, page.url) as other:
        expect(other.rows()).to_have_count(4)
        assert other.ids() == wanted
        other.page.keyboard.press("j")
        other.page.keyboard.press("Enter")
        expect(other.page.locator(".where")).to_have_text("1 of 4")
        other.page.keyboard.press("j")
        expect(other.page).to_have_url(re.compile("#/episode/q6"))
        other.page.reload()
        expect(other.page.locator(".where")).to_have_text("2 of 4")
        other.page.keyboard.press("Escape")
        expect(other.rows()).to_have_count(4)


def test_clicks_seek_the_video(tab: Tab) -> None:
    page = tab.page
    tab.go("#/episode/q1")
    tab.until("document.querySelector('video')?.readyState >= 1")
    assert page.evaluate(NOW) == 0
    assert page.evaluate("document.querySelector('video').duration") == pytest.approx(SECONDS, abs=0.1)
    page.locator(".timeline .band.truth").click()
    tab.until(f"Math.abs({NOW} - {0.43 * SECONDS}) < 0.01")
    page.locator(".turn .go").first.click()
    tab.until(f"Math.abs({NOW} - {0.35 * SECONDS}) < 0.01")
    expect(page.locator(".lens img").last).to_be_visible()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    picture = page.locator(".lens img").last
    expect(picture).to_be_visible()
    wanted = float(picture.get_attribute("data-at"))
    picture.click()
    tab.until(f"Math.abs({NOW} - {wanted}) < 0.01")
    expect(page.locator(".screen")).to_have_class(re.compile("floating"))
    axis = page.locator(".timeline .axis")
    axis.click(position={"x": 0.75 * axis.bounding_box()["width"], "y": 5})
    tab.until(f"Math.abs({NOW} - {0.75 * SECONDS}) < 0.5")
    left = page.locator(".playhead").evaluate("(line) => parseFloat(line.style.left)")
    assert left == pytest.approx(75, abs=1)
    expect(page).to_have_url(re.compile(r"t=4[45]\.\d\d"))
    page.reload()
    tab.until(f"document.querySelector('video') && Math.abs({NOW} - {0.75 * SECONDS}) < 0.5")
    page.keyboard.press("p")
    tab.until("!document.querySelector('video').paused")


def test_a_file_whose_clock_does_not_begin_at_zero(browser: Any, tmp_path: Path) -> None:
    """The record counts from the first frame, the browser by the file's clock, which here begins at 5 s."""
    video = draw_video(tmp_path / "late.mkv", 20, start=5)
    with (
        serving(write_run(tmp_path / "run", [look_twice(str(video), 20)])) as url,
        opened(browser, url) as tab,
    ):
        expect(tab.page.locator(".lens img").first).to_be_visible()
        tab.page.locator(".timeline .band.truth").click()
        tab.until(f"Math.abs({NOW} - {0.43 * 20 + 5}) < 0.01")
        expect(tab.page.locator(".stage figcaption")).to_contain_text("0:08.6 of 0:20.0")


def test_boxes_are_drawn_over_the_video_at_their_moment(tab: Tab) -> None:
    page = tab.page
    tab.go("#/episode/boxes?t=27")
    tab.until(f"document.querySelector('video') && Math.abs({NOW} - 27) < 0.01")
    expect(page.locator(".stage rect")).to_have_count(2)
    place = page.locator(".stage rect.truth").evaluate(
        "(shape) => { const outer = document.querySelector('video').getBoundingClientRect();"
        " const inner = shape.getBoundingClientRect();"
        " return [(inner.left - outer.left) / outer.width, (inner.bottom - outer.top) / outer.height]; }"
    )
    assert place == pytest.approx([0.4, 0.42], abs=0.01)
    page.locator(".timeline .point.truth").last.click()
    expect(page.locator(".stage rect.answer")).to_have_count(0)
    expect(page.locator(".still")).to_have_count(2)


def test_a_megabyte_in_one_word_and_an_id_of_signs(tab: Tab) -> None:
    page = tab.page
    page.locator("#list a", has_text="../q").click()
    expect(tab.heading()).to_contain_text("fourth way")
    thought = page.locator(".thought").first
    assert thought.inner_text().startswith("⟨U+202E⟩reversed ⟨U+001B⟩[31m<b>xxx")
    assert len(thought.inner_text()) < 3000
    page.locator(".turn .more").first.click()
    tab.until("document.querySelector('.thought').textContent.length > 1000000")
    expect(page.locator(".strip img").first).to_be_visible()  # the pictures came, and all was laid out again
    page.set_viewport_size({"width": 1200, "height": 1000})
    page.wait_for_timeout(200)
    page.set_viewport_size({"width": 1400, "height": 1000})
    page.wait_for_timeout(200)
    assert page.evaluate("document.querySelector('.thought').textContent.length") > 1_000_000, (
        "it folded back"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
    page.keyboard.press("o")
    expect(page.locator("details pre").first).to_contain_text("<b>xxx")
    page.reload()
    expect(tab.heading()).to_contain_text("fourth way")


def test_two_runs_side_by_side(browser: Any, runs: tuple[Path, Path]) -> None:
    with serving(*runs) as url, opened(browser, url) as tab:
        page = tab.page
        expect(tab.rows()).to_have_count(14)
        found = {}
        for change in ("any", "better", "worse", "alone", "same"):
            page.locator("#change").select_option(change)
            found[change] = set(tab.ids())
        assert found["better"] == {"q2"}
        assert found["worse"] == {"q1"}
        assert found["alone"] == {"q4", "q10", "q11", "q12", "../q?x=1#&<b>%2F"}
        assert found["same"] == {"q3", "boxes", "q5", "q6", "q7", "q8", "q9"}
        assert found["any"] == found["better"] | found["worse"] | found["alone"]
        page.locator("#change").select_option("")
        page.locator("#side").select_option("b")
        page.locator("#stop").select_option("max_turns")
        assert tab.ids() == ["q1"]
        page.keyboard.press("c")
        expect(page.locator(".side")).to_have_count(2)
        differs = page.locator(".compare tr.differs th").all_inner_texts()
        assert {"Answer", "Ended", "Turns", "Tokens in"} <= set(differs)
        page.locator(".side-1 .timeline .band.look").first.click()
        tab.until(f"document.querySelector('video') && Math.abs({NOW} - {0.35 * SECONDS}) < 0.01")
        expect(page.locator(".playhead")).to_have_count(2)
        page.keyboard.press("c")
        expect(page).to_have_url(re.compile("alone=b"))
        expect(page.locator(".side")).to_have_count(0)
        expect(page.locator(".turn")).to_have_count(1)
        page.reload()
        expect(page.locator(".turn")).to_have_count(1)
        page.keyboard.press("c")
        expect(page.locator(".side")).to_have_count(2)
        tab.go("#/episode/boxes?t=27")
        expect(page.locator(".stage rect")).to_have_count(3)
        tab.go("#/episode/q10")
        expect(page.locator(".over").first).to_contain_text("the other run has no such episode")


def test_two_thousand_episodes(browser: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", many("gone.mp4", SECONDS, 2000))
    with serving(run) as url, opened(browser, url, viewport={"width": 1400, "height": 800}) as tab:
        page = tab.page
        expect(page.locator("#shown-count")).to_have_text("2,000 episodes")
        assert tab.rows().count() < 60, "only the rows in sight are made"
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(page.locator("#list .about", has_text="item-1999")).to_be_visible()
        page.locator("#low").fill("0.99")
        page.locator("#figure").select_option("score:tiou")
        expect(page.locator("#shown-count")).to_have_text("20 of 2,000 episodes")
        page.locator("#search").fill("question 1727:")
        assert tab.ids() == ["item-1727"]
        page.locator("#clear").click()
        page.locator("#sort").select_option("tokens")
        assert tab.ids()[0] == "item-1999"
        page.locator("#list a").first.click()
        expect(tab.heading()).to_contain_text("Question 1999")
        page.keyboard.press("j")
        expect(tab.heading()).to_contain_text("Question 1998")
        assert sum("/api/episode" in url for url in tab.requests) == 2, "episodes come one by one"
        page.keyboard.press("Escape")
        expect(page.locator("#list a[aria-current]")).to_contain_text("item-1998")


def test_a_run_that_grows_and_a_server_that_ends(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with serving(tmp_path / "run", token="a-right-token-0123") as url:
        tab = Tab(browser, url)
        expect(tab.page.locator("#none-yet")).to_be_visible()
        assert "token" not in tab.page.url
        write_run(tmp_path / "run", many("gone.mp4", SECONDS, 2))
        tab.page.reload()
        expect(tab.rows()).to_have_count(2)
        with (tmp_path / "run" / "trajectories.jsonl").open("a") as file:
            file.write(to_line(single_pass("gone.mp4", SECONDS, "later")) + "\n" + '{"torn')
        tab.page.reload()
        expect(tab.rows()).to_have_count(3)
        one = single_pass("gone.mp4", SECONDS, "trained")
        steps = [one.model_copy(update={"settings": {"step": step}}) for step in (3, 13)]
        write_run(tmp_path / "run", [*many("gone.mp4", SECONDS, 2), *steps])
        tab.page.reload()
        expect(tab.rows()).to_have_count(4)
        for words, count in (("step:3", 1), ("step:13", 1), ("step:4", 0), ("step:13 nothing-like-it", 0)):
            tab.page.locator("#search").fill(words)
            expect(tab.rows()).to_have_count(count)
        tab.page.locator("#search").fill("step:13")
        expect(tab.rows()).to_have_count(1)
        tab.page.locator("#list a").first.click()
        expect(tab.page).to_have_url(re.compile(r"#/episode/trained\?.*step=13"))
        tab.page.keyboard.press("Escape")
        tab.page.locator("#search").fill("")
        expect(tab.rows()).to_have_count(4)
        assert tab.complaints == []
        with opened(
            browser, f"{url}#/episode/item-1"
        ) as linked:  # the token goes, the rest of the address stays
            expect(linked.heading()).to_contain_text("Question 1")
            assert linked.page.url.endswith("/#/episode/item-1")
        tab.context.set_offline(True)
        tab.page.locator("#list a").first.click()
        expect(tab.page.locator("main .note")).to_contain_text("Is its command still running?")
        tab.close()


def test_videos_that_cannot_be_played(browser: Any, tmp_path: Path, video: str) -> None:
    """One that is gone, and one that begins like a video and is none: the record is shown all the same."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(video).read_bytes()[:64] + b"\0" * 5000)
    unseen = look_twice("gone.mp4", SECONDS, "unseen").model_copy(update={"prompt": (), "turns": ()})
    episodes = [look_twice("gone.mp4", SECONDS, "gone"), look_twice(str(broken), SECONDS, "broken"), unseen]
    with serving(write_run(tmp_path / "run", episodes)) as url:
        tab = Tab(browser, url)
        for name, words in {"gone": "cannot be opened", "broken": "cannot play the file"}.items():
            tab.go(f"#/episode/{name}")
            expect(tab.heading()).to_contain_text("fourth way")
            expect(tab.page.locator(".stage figcaption")).to_contain_text(words)
            expect(tab.page.locator(".timeline .blank")).to_contain_text("no thumbnails: ")
            tab.page.locator(".timeline .band.truth").click()
            expect(tab.page).to_have_url(re.compile(r"t=25\.80"))
        tab.go("#/episode/gone")
        expect(tab.page.locator(".over").first).to_contain_text(re.compile(r"\d:\d\d"))
        tab.go("#/episode/unseen")
        expect(tab.page.locator(".over").first).to_contain_text("gone.mp4")
        expect(tab.page.locator(".over").first).not_to_contain_text(re.compile(r"\d:\d\d"))
        tab.go("#/episode/nobody")
        expect(tab.page.locator("main .note")).to_contain_text('There is no episode "nobody"')
        tab.close()
