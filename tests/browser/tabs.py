"""A browser, and tabs in it that remember what went wrong and what they asked the network for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE_MS = 30_000
"""How long to wait for what must come: a busy machine is no failure."""

expect = playwright.expect


@contextmanager
def running_browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("the browser tests need Debian's chromium: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with playwright.sync_playwright() as driver:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        running = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


class Tab:
    """An open page. What it complains of and what it asks for is kept in ``complaints`` and ``requests``."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **options})
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.address = address.split("#")[0]
        self.page.goto(address)

    def go(self, fragment: str) -> None:
        """Open another address of the same page as a reader who typed it."""
        self.page.goto("about:blank")
        self.page.goto(self.address + fragment)

    def heading(self) -> Any:
        return self.page.locator("main h2").first

    def rows(self) -> Any:
        return self.page.locator("#list li")

    def ids(self) -> list[str]:
        """Ids of the rows in sight, in order."""
        return [text.split(" · ")[0] for text in self.page.locator("#list .about").all_inner_texts()]

    def until(self, condition: str) -> None:
        """Wait for a condition in the page; its content policy does not let the driver do so itself."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"never came true: {condition}"
            self.page.wait_for_timeout(50)

    def close(self) -> None:
        self.context.close()


@contextmanager
def opened(browser: Any, address: str, **options: Any) -> Iterator[Tab]:
    """A tab that has to stay quiet and ask nobody but its own page's address for anything."""
    tab = Tab(browser, address, **options)
    try:
        yield tab
    finally:
        tab.close()
    assert tab.complaints == []
    own = tab.address.split("?")[0].removesuffix("index.html")
    outside = [url for url in tab.requests if not url.startswith(("data:", "about:", own))]
    assert outside == [], "the page asked for something elsewhere"
