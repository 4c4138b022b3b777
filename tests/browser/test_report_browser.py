"""The page of ``timeloupe report`` in a real browser: opened from a file, offline, with hostile text in the runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.tabs import expect, opened, running_browser
from tests.e2e.made_runs import world_file, write
from tests.serve.episodes import HOSTILE
from timeloupe.cli.main import main


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with running_browser() as running:
        yield running


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of three runs: one whole, one of other settings and half lost, and one that a kill cut short."""
    folder = tmp_path_factory.mktemp("report")
    world = world_file(folder / "world", 24, f"When? {HOSTILE}")
    runs = [
        write(folder / "<img src=x onerror=alert(1)>", world, wrong=5, repeats=2, said=HOSTILE),
        write(folder / "lost", world, faults=9, wrong=5, said=HOSTILE),
        write(folder / "killed", world, wrong=12, wanted=3),
    ]
    card = {
        "model": {"name": f"<script>alert(1)</script>{HOSTILE}"}, "prompt": {"protocol": "small", "sha256": "0" * 64},
        "benchmark": {"name": "world", "asked": 24, "rows": 24, "sha256": "1" * 64},
        "frames": {"frame_size_wh": [32, 32], "skim_frames": 4, "crop_max_frames": 4, "max_turns": 2, "tools": True},
        "sampling": {"temperature": 0.0, "seed": 0, "repeats": 1}, "scorer": {"mode": "strict"},
        "cost": {"wall_seconds": 9.0, "seconds_per_episode": 0.4, "prompt_tokens": 9, "completion_tokens": 1,
                 "frames_decoded": 5, "crops": 2, "dollars": None},
    }  # fmt: skip
    (runs[1] / "card.json").write_text(json.dumps(card), encoding="utf-8")
    out = folder / "report.html"
    assert main(["report", *map(str, runs), "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tables_and_plots_are_there_and_hostile_text_is_text(browser: Any, page: Path, scheme: str) -> None:
    with opened(browser, page.as_uri(), color_scheme=scheme) as tab:
        seen = tab.page
        expect(seen.locator("h1")).to_have_text("Evaluation report")
        strict = seen.locator("table").first
        expect(strict.locator("tbody tr:not(.trivial)")).to_have_count(3)
        expect(strict).to_contain_text("<img src=x onerror=alert(1)>")
        titles = seen.locator("h3").all_inner_texts()
        assert {"Strict scores", "By task", "By length", "Failures", "Cost per episode", "Cards"} <= set(
            titles
        )
        assert seen.locator(".warn").filter(has_text="is not whole").count() == 2
        expect(seen.locator("pre").nth(1)).to_contain_text("<script>alert(1)</script>")
        assert seen.locator("figure svg").count() == 3 and seen.locator("svg circle").count() >= 9
        for box in seen.locator("figure svg").all():
            found = box.bounding_box()
            assert found is not None and found["width"] > 300 and found["height"] > 150
        assert seen.locator("img, script, iframe, a").count() == 0
        width = seen.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= width[1], "wide tables scroll by themselves, the page does not"
        ink, paper = seen.evaluate(
            "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()"
        )
        assert (brightness(ink) > brightness(paper)) == (scheme == "dark"), "the page's style sheet is let in"


def brightness(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
