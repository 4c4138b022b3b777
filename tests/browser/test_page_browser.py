"""The exported page in a real browser: opened from a file, offline, by keyboard, with hostile text on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.tabs import Tab, expect, opened, running_browser
from tests.serve.episodes import (
    HOSTILE,
    draw_video,
    every_kind,
    look_twice,
    single_pass,
    with_boxes,
    write_run,
)
from timeloupe.serve.export import export_html, export_page

SECONDS = 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    video = str(draw_video(folder / "clip.mp4", SECONDS))
    return export_html(write_run(folder, [*every_kind(video, SECONDS), with_boxes(video, SECONDS)])).as_uri()


@pytest.fixture
def tab(browser: Any, address: str) -> Iterator[Tab]:
    with opened(browser, address) as one:
        yield one
    assert all(url == "about:blank" or url.startswith(("data:", "file:")) for url in one.requests)


def test_an_episode_is_laid_out(tab: Tab) -> None:
    page = tab.page
    assert tab.rows().count() == 13
    page.locator("#list a").first.click()
    expect(tab.heading()).to_contain_text("fourth way across")
    assert page.locator(".options li").count() == 4
    assert page.locator(".turn").count() == 3
    assert page.locator(".timeline .strip img").count() >= 5
    assert page.locator(".lens").count() == 3
    loaded = "[...document.images].filter(i => i.src).every(i => i.complete && i.naturalWidth > 0)"
    tab.until(loaded)
    assert "0:30" in page.locator(".timeline .axis").inner_text()
    assert page.locator("details[open]").count() == 0, "raw text is folded"
    assert "<think>" not in page.locator("main").inner_text()
    expect(page.locator("video")).to_have_count(0)
    for kind, (start, end) in {"answer": (0.425, 0.475), "truth": (0.43, 0.47)}.items():
        place = page.locator(f".timeline .lane .band.{kind}").evaluate(
            "(band) => { const lane = band.parentElement.getBoundingClientRect(), box = band.getBoundingClientRect();"
            " return [(box.left - lane.left) / lane.width, (box.right - lane.left) / lane.width]; }"
        )
        assert place == pytest.approx([start, end], abs=0.002), "bands stand at their times"


def test_without_the_video_the_stage_shows_the_nearest_frame(tab: Tab) -> None:
    page = tab.page
    tab.go("#/episode/q1")
    page.locator(".timeline .band.truth").click()
    expect(page.locator(".stage figcaption")).to_contain_text(re.compile(r"Frame at 0:2[56]\.\d"))
    expect(page.locator(".playhead")).to_be_visible()
    tab.go("#/episode/boxes?t=27")
    expect(page.locator(".stage rect.truth")).to_have_count(1)
    expect(page.locator(".stage rect.answer")).to_have_count(1)
    expect(page.locator(".still")).to_have_count(2)
    page.locator(".still").last.click()
    expect(page.locator(".stage figcaption")).to_contain_text("0:30.0")
    expect(page.locator(".stage rect.answer")).to_have_count(0)


def test_hostile_text_is_shown_and_not_run(tab: Tab) -> None:
    page = tab.page
    tab.go("#/episode/q3")
    expect(tab.heading()).to_contain_text(HOSTILE.split("\u2028")[0].strip())
    page.keyboard.press("o")
    raw = page.locator("main details pre").first
    expect(raw).to_contain_text("</script><img src=x onerror=alert(1)>")
    expect(raw).to_contain_text("⟨U+202E⟩")
    assert "\u202e" not in page.locator("body").inner_text(), "a sign that turns text around is spelt out"
    assert page.locator("img[src=x]").count() == 0


def test_the_keyboard_walks_the_episodes(tab: Tab) -> None:
    page = tab.page
    current = page.locator("#list a[aria-current]")
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    page.keyboard.press("j")
    expect(current).to_contain_text("second way")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"#/episode/q2$"))
    expect(tab.heading()).to_contain_text("second way")
    page.keyboard.press("k")
    expect(tab.heading()).to_contain_text("fourth way")
    page.keyboard.press("k")
    expect(page).to_have_url(re.compile(r"#/episode/q1$"))  # the list ends
    page.keyboard.press("ArrowRight")
    page.go_back()
    expect(tab.heading()).to_contain_text("fourth way")
    page.keyboard.press("o")
    expect(page.locator("details:not([open])")).to_have_count(0)
    page.keyboard.press("o")
    expect(page.locator("details[open]")).to_have_count(0)
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("Escape")
    expect(page.locator("#help")).not_to_be_visible()
    expect(tab.heading()).to_contain_text("fourth way")
    page.keyboard.press("c")
    expect(page.locator("#status")).to_contain_text("There is one run here")
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(r"#/$"))
    expect(current).to_contain_text("fourth way")


def test_a_frame_can_be_seen_large(tab: Tab) -> None:
    page = tab.page
    tab.go("#/episode/q1")
    page.locator(".timeline .strip img").first.hover()
    expect(page.locator("#preview")).to_be_visible()
    assert "frame at" in page.locator("#preview").inner_text()
    page.mouse.move(5, 5)
    expect(page.locator("#preview")).not_to_be_visible()


def test_light_and_dark(browser: Any, address: str) -> None:
    grounds = []
    ground = "getComputedStyle(document.body).backgroundColor"
    for scheme in ("light", "dark"):
        with opened(browser, address, color_scheme=scheme) as tab:
            grounds.append(tab.page.evaluate(ground))
            if scheme == "dark":
                tab.page.locator("#theme").click()
                tab.page.locator("#theme").click()
                grounds.append(tab.page.evaluate(ground))
                tab.page.reload()
                grounds.append(tab.page.evaluate(ground))
    assert grounds[0] == grounds[2] == grounds[3] != grounds[1]


@pytest.mark.parametrize("width", [1400, 800, 380])
def test_nothing_sticks_out(browser: Any, address: str, width: int) -> None:
    with opened(browser, address, viewport={"width": width, "height": 900}) as tab:
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("q1", "q3", "q4", "boxes"):
            tab.go(f"#/episode/{name}")
            expect(tab.heading()).to_be_visible()
            tab.page.keyboard.press("o")
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_one_episode_needs_no_list(browser: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [look_twice("gone.mp4", SECONDS)])
    with opened(browser, export_html(run).as_uri()) as tab:
        expect(tab.heading()).to_contain_text("fourth way")
        assert not tab.page.locator("#browse").is_visible()
        assert "no thumbnails" in tab.page.locator(".timeline").inner_text()
        assert tab.page.locator(".band.truth").count() > 0
        tab.page.keyboard.press("Escape")
        expect(tab.heading()).to_be_visible()


def test_two_runs_in_one_file(browser: Any, tmp_path: Path) -> None:
    video = str(draw_video(tmp_path / "clip.mp4", 20))
    one = write_run(tmp_path / "one", [single_pass(video, 20, "a"), single_pass(video, 20, "b")])
    two = write_run(tmp_path / "two", [single_pass(video, 20, "a", hit=True), single_pass(video, 20, "c")])
    with opened(browser, export_page(one, beside=two).path.as_uri()) as tab:
        assert tab.ids() == ["a", "b", "c"]
        tab.page.locator("#change").select_option("better")
        assert tab.ids() == ["a"]
        tab.page.keyboard.press("Enter")
        expect(tab.page.locator(".side")).to_have_count(2)
        expect(tab.page.locator(".compare tr.differs", has_text="Overlap")).to_contain_text("+0.91")
