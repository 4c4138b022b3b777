"""The page of a run in a real browser: opened from a file, offline, by keyboard, with hostile text on it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.episodes import HOSTILE, draw_video, every_kind, look_twice, write_run
from timeloupe.serve.export import export_html

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("the browser tests need Debian's chromium: apt-get install chromium", allow_module_level=True)

SECONDS = 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        running = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    video = draw_video(folder / "clip.mp4", SECONDS)
    return export_html(write_run(folder, every_kind(str(video), SECONDS)))


class Tab:
    """An open page that remembers what went wrong and what it asked the network for."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **options})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = file.as_uri()
        self.page.goto(self.address)

    def question(self) -> str:
        return self.page.locator("main h2").inner_text()

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def tab(browser: Any, page_file: Path) -> Iterator[Tab]:
    opened = Tab(browser, page_file)
    yield opened
    opened.close()
    assert opened.complaints == []
    outside = [url for url in opened.requests if not url.startswith(("data:", opened.address))]
    assert outside == [], "the page asked for something"


def test_an_episode_is_laid_out(tab: Tab) -> None:
    page = tab.page
    assert "fourth way across" in tab.question()
    assert page.locator("#list li").count() == 12
    assert page.locator(".options li").count() == 4
    assert page.locator(".turn").count() == 3
    assert page.locator(".timeline .strip img").count() >= 5
    assert page.locator(".lens").count() == 3
    loaded = page.evaluate(
        "[...document.images].filter(i => i.src).every(i => i.complete && i.naturalWidth > 0)"
    )
    assert loaded
    assert "0:30" in page.locator(".timeline .axis").inner_text()
    assert page.locator("details[open]").count() == 0, "raw text is folded"
    assert "<think>" not in page.locator("main").inner_text()


def test_bands_stand_at_their_times(tab: Tab) -> None:
    """The answer's band lies over 42.5 % to 47.5 % of the axis, the true one over 43 % to 47 %."""
    for kind, (start, end) in {"answer": (0.425, 0.475), "truth": (0.43, 0.47)}.items():
        place = tab.page.locator(f".timeline .lane .band.{kind}").evaluate(
            "(band) => { const lane = band.parentElement.getBoundingClientRect(), box = band.getBoundingClientRect();"
            " return [(box.left - lane.left) / lane.width, (box.right - lane.left) / lane.width]; }"
        )
        assert place == pytest.approx([start, end], abs=0.002)


def test_hostile_text_is_shown_and_not_run(tab: Tab) -> None:
    page = tab.page
    page.goto(f"{tab.address}#3")
    page.keyboard.press("o")
    raw = page.locator("main details pre").first.inner_text()
    assert raw.startswith("</script><img src=x onerror=alert(1)>")
    assert "\u202e" not in page.locator("main").inner_text(), "a sign that turns text around is spelt out"
    assert "⟨U+202E⟩" in raw
    assert page.locator("img[src=x]").count() == 0
    assert HOSTILE.split("\u2028")[0].strip() in page.locator("main h2").inner_text()


def test_the_keyboard_walks_the_list(tab: Tab) -> None:
    page = tab.page
    heading = page.locator("main h2").first
    first = tab.question()
    # The page follows the address, and the browser tells it of a new address a moment later: wait, do not look at once.
    page.keyboard.press("j")
    playwright.expect(heading).not_to_have_text(first)
    playwright.expect(page).to_have_url(re.compile("#2$"))
    playwright.expect(page.locator("#list a[aria-current]")).to_have_count(1)
    page.keyboard.press("k")
    playwright.expect(heading).to_have_text(first)
    page.keyboard.press("k")
    playwright.expect(page).to_have_url(re.compile("#1$"))
    playwright.expect(heading).to_have_text(first)  # the list ends
    for number in range(2, 13):
        page.keyboard.press("j")
        playwright.expect(page).to_have_url(re.compile(f"#{number}$"))
        playwright.expect(page.locator(f"#list a[aria-current][href='#{number}']")).to_have_count(1)
    page.keyboard.press("j")
    playwright.expect(page).to_have_url(re.compile("#12$"))
    playwright.expect(page.locator("#list a[aria-current]")).to_be_visible()
    page.go_back()
    playwright.expect(page).to_have_url(re.compile("#11$"))
    playwright.expect(page.locator("#list a[aria-current][href='#11']")).to_have_count(1)
    page.keyboard.press("o")
    playwright.expect(page.locator("details:not([open])")).to_have_count(0)
    page.keyboard.press("o")
    playwright.expect(page.locator("details[open]")).to_have_count(0)


def test_filters(tab: Tab) -> None:
    page = tab.page
    page.keyboard.press("/")
    page.keyboard.type("fourth jay")
    assert page.locator("#none-shown").is_visible()
    page.locator("#search").fill("fourth")
    assert page.locator("#list li:visible").count() == 1
    page.keyboard.press("Escape")
    page.locator("#search").fill("")
    page.locator("#chips button", has_text="machine fault").click()
    assert page.locator("#list li:visible").count() == 1
    page.locator("#search").evaluate("(box) => box.blur()")
    page.keyboard.press("j")
    assert tab.question() == "What happens in the end?", "the keys walk what the filter leaves"


def test_a_frame_can_be_seen_large(tab: Tab) -> None:
    page = tab.page
    page.locator(".timeline .strip img").first.hover()
    assert page.locator("#preview").is_visible()
    assert "frame at" in page.locator("#preview").inner_text()
    page.mouse.move(5, 5)
    assert not page.locator("#preview").is_visible()


def test_light_and_dark(browser: Any, page_file: Path) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        tab = Tab(browser, page_file, color_scheme=scheme)
        ground = "getComputedStyle(document.body).backgroundColor"
        grounds.append(tab.page.evaluate(ground))
        if scheme == "dark":
            tab.page.locator("#theme").click()
            tab.page.locator("#theme").click()
            grounds.append(tab.page.evaluate(ground))
        tab.close()
        assert tab.complaints == []
    assert grounds[0] == grounds[2] != grounds[1]


@pytest.mark.parametrize("width", [1400, 800, 380])
def test_nothing_sticks_out(browser: Any, page_file: Path, width: int) -> None:
    tab = Tab(browser, page_file, viewport={"width": width, "height": 900})
    for number in range(1, 5):
        tab.page.goto(f"{tab.address}#{number}")
        tab.page.keyboard.press("o")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, number
    tab.close()
    assert tab.complaints == []


def test_one_episode_needs_no_list(browser: Any, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [look_twice("gone.mp4", SECONDS)])
    tab = Tab(browser, export_html(run))
    assert not tab.page.locator("#nav").is_visible()
    assert "no thumbnails" in tab.page.locator(".timeline").inner_text()
    assert tab.page.locator(".band.truth").count() > 0
    tab.close()
    assert tab.complaints == []
