"""`timeloupe diff` and `timeloupe report` as a user runs them: planted differences, broken runs, hostile text."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.made_runs import world_file, write
from tests.serve.episodes import HOSTILE
from timeloupe.cli.diff import read_both, show
from timeloupe.cli.main import main
from timeloupe.eval.diff import compare_runs
from timeloupe.eval.metrics import Interval
from timeloupe.runs import create_run

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Said:
    """What a command printed."""

    stdout: str
    stderr: str


def run(*words: str | Path, code: int = 0) -> Said:
    """Run a command in this process, as the installed program does."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = main([str(word) for word in words])
    assert found == code, out.getvalue() + err.getvalue()
    return Said(out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("planted")
    script = ROOT / "benchmarks" / "eval_diff.py"
    done = subprocess.run(
        [sys.executable, script, folder, "--videos", "4", "--json"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


@pytest.mark.slow
def test_each_planted_difference_is_named_and_no_other(planted: tuple[Path, dict[str, Any]]) -> None:
    _, found = planted
    assert {one["planted"] for one in found.values()} == {"frames", "prompt", "pixels", "sampling", "scorer"}
    for name, one in found.items():
        assert one["named"] == [one["planted"]], name
    assert found["frames a second"]["settings"][0] == "settings.skim_fps"
    assert found["frames"]["settings"][0] == "settings.skim_frames"
    assert found["scorer"]["reasons"].keys() == {"scorer"} == found["scorer, one run"]["reasons"].keys()
    for one in found.values():
        assert sum(one["reasons"].values()) == one["changed"] <= one["compared"]
        assert sum(one["effects"].values()) == pytest.approx(one["change"]["mean"], abs=1e-6)


@pytest.mark.slow
def test_the_report_of_real_runs_has_tables_plots_and_cards(
    planted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = planted
    runs = [folder / "base", folder / "frames", folder / "sampling", folder / "strict"]
    page = tmp_path / "report.html"
    assert run("report", *runs, "--out", page).stdout.strip() == str(page)
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 6 and "http" not in re.sub(r'http-equiv|xmlns="[^"]*"', "", text)
    whole = json.loads(run("report", *runs, "--json").stdout)
    names = [one["name"] for one in whole["benchmarks"]]
    assert names == ["world", "charades_sta"]
    world = whole["benchmarks"][0]
    assert [one["label"] for one in world["entries"]] == ["base", "frames", "sampling"]
    for entry in world["entries"]:
        score = json.loads((Path(entry["runs"][0]) / "card.json").read_text(encoding="utf-8"))["scores"][-1]
        assert {one["name"]: one["mean"] for one in entry["strict"]} == pytest.approx(score["figures"])
        assert set(entry["categories"]["task"]) == {"grounding", "multiple_choice"}
        assert entry["cost"]["tokens"] > 0 and entry["lost"] == 0 and len(entry["card"]) == 3
    markdown = tmp_path / "report.md"
    written = [Path(line) for line in run("report", *runs, "--out", markdown).stdout.splitlines()]
    assert written[0] == markdown and len(written) == 7
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", markdown.read_text(encoding="utf-8"))
    assert [tmp_path / name for name in shown] == written[1:]


def test_a_half_run_lost_episodes_and_repeats_are_counted_and_said(tmp_path: Path) -> None:
    world = world_file(tmp_path / "world", 20)
    whole = write(tmp_path / "whole", world)
    half = write(tmp_path / "half", world, played=10, faults=2, wrong=1)
    twice = write(tmp_path / "twice", world, repeats=2, wrong=4)
    text = run("diff", whole, half).stdout
    assert "Scores over the 8 of 20 questions that both answered" in text
    assert "missing     10" in text and "fault        2" in text and "has no card.json" in text
    found = json.loads(run("diff", whole, half, "--json").stdout)
    assert found["rows"]["reasons"] == {"missing": 10, "fault": 2, "answer": 1}
    several = json.loads(run("diff", whole, twice, "--json").stdout)
    assert several["rows"]["extra_repeats"] == [1] and several["rows"]["compared"] == 20
    assert several["questions"]["pairs"] == 20
    shown = run("diff", whole, twice).stdout
    assert "in one run only and not compared here: repeat 1" in shown and "as wholes" in shown
    assert "Configuration: 1 difference, the likeliest" in shown and "-0.0000" not in shown
    assert (
        "20 of 20 questions that both answered, in 40 pairs of episodes" in run("diff", twice, twice).stdout
    )
    assert [one["area"] for one in several["differences"]] == ["seed"]
    report = run("report", whole, half, twice).stdout
    assert "half is not whole: 12 of 20 episodes are missing or lost to machines" in report
    assert "| twice | 2 |" in report and "±" in report


def test_a_change_of_nothing_has_no_sign_of_a_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path / "good", world_file(tmp_path / "world", 4))
    one, two, asked = read_both(good, good, None)
    found = compare_runs(one, two, asked)
    tiny = replace(found.scored[0].figures[0], change=Interval(-1e-17, -1e-17, 1e-17, 4, 4, 1))
    show(replace(found, scored=(replace(found.scored[0], figures=(tiny,)),)), 0)
    said = capsys.readouterr().out
    assert "+0.0000 [+0.0000, +0.0000]" in said and "-0.0000" not in said


def test_repeats_that_were_not_begun_are_missing_too(tmp_path: Path) -> None:
    world = world_file(tmp_path / "world", 12)
    killed = write(tmp_path / "killed", world, wanted=4)
    (bench,) = json.loads(run("report", killed, "--json").stdout)["benchmarks"]
    (entry,) = bench["entries"]
    assert (entry["wanted"], entry["lost"], entry["samples"], entry["not_begun"]) == (48, 36, 1, 3)
    said = run("report", killed).stdout.replace("\\", "")
    assert "killed is not whole: 36 of 48 episodes are missing" in said
    assert "3 of 4 repeats were not begun and are in no figure" in said and "count them as wrong" not in said
    assert (
        "has no card.json: 12 of 48 episodes are there" in said
        and "price and seconds of the run are not known" in said
    )
    partly = write(tmp_path / "partly", world, played=6, wanted=2)
    said = run("report", partly).stdout
    assert "partly is not whole: 18 of 24" in said and "1 of 2 repeats were not begun" in said
    assert "the other missing ones count as wrong" in said


def test_a_vote_is_said_to_stand_in_the_card_only_if_it_does(tmp_path: Path) -> None:
    world = world_file(tmp_path / "world", 4)
    voting = write(tmp_path / "voting", world, repeats=2)
    (voting / "session.json").write_text('{"samples": 2, "vote": "majority"}', encoding="utf-8")
    told = "votes with 2 episodes per question: each counts by itself here"
    said = run("report", voting).stdout.replace("\\", "")
    assert f"{told}, and there is no vote yet: timeloupe eval --resume holds it" in said
    card = {"voting": {"vote": "majority", "samples": 2}, "cost": {}}
    (voting / "card.json").write_text(json.dumps(card), encoding="utf-8")
    said = run("report", voting).stdout.replace("\\", "")
    assert f"{told}, the vote's score is in card.json under 'voting'" in said
    (voting / "session.json").write_text('{"samples": 4}', encoding="utf-8")
    (entry,) = json.loads(run("report", voting, "--json").stdout)["benchmarks"][0]["entries"]
    assert (entry["wanted"], entry["lost"]) == (16, 8), (
        "a vote wants its samples, whatever the flags said first"
    )


def test_seeds_of_one_configuration_are_one_line_with_their_spread(tmp_path: Path) -> None:
    world = world_file(tmp_path / "world", 12)
    runs = [write(tmp_path / f"seed{seed}", world, seed=seed, wrong=2 * seed) for seed in range(3)]
    (entry,) = json.loads(run("report", *runs, "--json").stdout)["benchmarks"][0]["entries"]
    assert entry["samples"] == 3 and entry["seeds"] == [0, 1, 2] and len(entry["runs"]) == 3
    accuracy = next(one for one in entry["strict"] if one["name"] == "multiple_choice accuracy")
    assert (accuracy["least"], accuracy["most"]) == (pytest.approx(4 / 6), 1.0) and accuracy["spread"] > 0


def test_runs_that_cannot_be_used_are_refused_in_words(tmp_path: Path) -> None:
    world = world_file(tmp_path / "world", 4)
    good = write(tmp_path / "good", world)
    empty = tmp_path / "empty"
    create_run(empty, {"command": "eval"})
    assert "it has a configuration and no episode yet" in run("diff", good, empty, code=3).stderr
    assert "no run at" in run("report", tmp_path / "none", code=3).stderr
    assert "is no run folder" in run("report", world, code=3).stderr
    assert "a run is named twice" in run("report", good, good, code=2).stderr
    assert "allowed: .md, .html" in run("report", good, "--out", tmp_path / "report.pdf", code=2).stderr
    assert "no folder" in run("report", good, "--out", tmp_path / "none" / "report.md", code=3).stderr
    assert "allowed: strict" in run("diff", good, good, "--mode", "loose", code=2).stderr
    for words in (["report", good], ["diff", good, good]):
        assert "'--seed'" in run(*words, "--seed", "-1", code=2).stderr
    assert run("diff", good, good, "--mode", "official").stdout.count("world has no official script") == 1
    (tmp_path / "text.jsonl").write_text('{"id": "q0", "prediction": "B"}\n', encoding="utf-8")
    assert "name the run first" in run("diff", tmp_path / "text.jsonl", good, code=2).stderr
    beside = run("diff", good, tmp_path / "text.jsonl").stdout
    assert "answer       1" in beside and "missing      3" in beside
    (world / "examples.jsonl").unlink()
    assert "the questions as recorded in the episodes" in run("diff", good, good).stdout


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("card.json", "[1]", "must be a JSON object"),
        ("card.json", '{"model": 3}', "'model' of"),
        ("card.json", "{", "is not valid JSON"),
        ("config.json", '{"flags": 1}', "'flags' of"),
        ("config.json", '{"questions": "x"}', "'questions' of"),
        ("environment.json", "{}", "'sessions' of"),
        ("session.json", "7", "must be a JSON object"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_name(
    tmp_path: Path, file: str, text: str, words: str
) -> None:
    good = write(tmp_path / "good", world_file(tmp_path / "world", 4))
    bad = write(tmp_path / "bad", tmp_path / "world")
    (bad / file).write_text(text, encoding="utf-8")
    for command in (["diff", good, bad], ["report", bad]):
        error = run(*command, code=2).stderr
        assert file in error and words in error


class Markup(HTMLParser):
    """Collects the elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_hostile_text_is_text_in_terminal_markdown_and_page(tmp_path: Path) -> None:
    hostile = f"{HOSTILE} | \x1b[31m [x](javascript:alert(1)) `"
    world = world_file(tmp_path / "world", 8, hostile)
    one = write(tmp_path / "a<img src=x onerror=alert(1)>|", world, said=hostile)
    two = write(tmp_path / "b", world, said=hostile, faults=1, wrong=2)
    text = run("diff", one, two).stdout
    assert "\x1b" not in text and "\u202e" not in text and "q0" in text
    page = tmp_path / "report.html"
    run("report", one, two, "--out", page)
    markup = Markup()
    markup.feed(page.read_text(encoding="utf-8"))
    assert not markup.elements & {"script", "img", "a", "iframe", "object", "link", "base"}
    assert not [
        name for name in markup.attributes if name.startswith("on") or name in ("href", "src", "style")
    ]
    assert "default-src 'none'" in page.read_text(encoding="utf-8").replace("&#x27;", "'")
    written = run("report", one, two).stdout
    assert "<img" not in written and "\x1b" not in written
