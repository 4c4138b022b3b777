"""A report's pure parts: bins, names, seeds put together, plots that hold what they are given, text that stays text."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from timeloupe.eval.metrics import Interval
from timeloupe.eval.recorded import Recorded
from timeloupe.eval.recorded_reply import Reply
from timeloupe.eval.report import BenchReport, Cost, Entry
from timeloupe.eval.report_groups import category_values, duration_bins
from timeloupe.eval.report_markdown import markdown, plain
from timeloupe.eval.report_plots import one_line, plots
from timeloupe.eval.report_runs import apart_notes, same_but_seeds, short_names
from timeloupe.eval.report_tables import grids
from timeloupe.eval.scoring import Row
from timeloupe.serve.report_page import render_report

FRACTIONS = st.floats(0, 1, allow_nan=False)
NAMES = st.text(max_size=60)


@given(
    st.lists(st.floats(0, 1e5, allow_nan=False), max_size=40)
    | st.lists(st.floats(0, 2), max_size=40)
    | st.lists(st.floats(200.0, 200.5), max_size=40)
)
def test_every_length_is_in_one_bin_and_no_bin_is_empty(lengths: list[float]) -> None:
    bins = duration_bins(lengths)
    for length in lengths:
        assert sum(low <= length < high for low, high in bins.values()) == 1
    assert all(any(low <= length < high for length in lengths) for low, high in bins.values())
    ordered = list(bins.values())
    assert ordered == sorted(ordered) and (
        not lengths or math.isinf(ordered[-1][1]) or max(lengths) < ordered[-1][1]
    )


def test_lengths_within_one_edge_are_split_by_their_quarters() -> None:
    assert list(duration_bins([61.0, 70.0, 80.0, 90.0] * 3)) == [
        "under 63 s", "63 s to 75 s", "75 s to 88 s", "88 s and more"
    ]  # fmt: skip
    assert list(duration_bins([10.0, 100.0, 1000.0, 4000.0])) == [
        "under 30 s", "60 s to 3 min", "10 min to 30 min", "60 min and more",
    ]  # fmt: skip
    assert list(duration_bins([61.0, 61.1, 61.2, 61.3])) == [
        "under 61.0 s", "61.0 s to 61.2 s", "61.2 s to 61.3 s", "61.3 s and more"
    ]  # fmt: skip
    assert list(duration_bins([200.0, 200.1, 200.2, 200.3])) == [
        "under 3.334 min", "3.334 min to 3.336 min", "3.336 min to 3.338 min", "3.338 min and more"
    ]  # fmt: skip
    assert duration_bins([]) == {} and len(duration_bins([5.0, 5.0])) == 1


def test_a_field_is_a_category_if_it_splits_and_is_no_id() -> None:
    rows = [
        Row(str(at), "v", "?", "open", groups={"kind": "ab"[at % 2], "same": "x", "id": str(at)})
        for at in range(60)
    ]
    assert category_values(rows) == {"kind": ["a", "b"]}


@given(st.lists(st.text("ab/", min_size=1, max_size=8), min_size=1, max_size=6, unique=True))
def test_short_names_tell_apart_what_differs(names: list[str]) -> None:
    stripped = {name.rstrip("/") for name in names}
    found = short_names(names)
    assert len(found) == len(names) and len(set(found)) >= min(len(stripped), 1)


def run(name: str, seed: int, frames: int = 16) -> Recorded:
    reply = Reply(None, 0, "A")
    config = {"episode": {"skim_frames": frames}, "flags": {"seed": seed, "repeats": 1}}
    return Recorded(name, "run folder", {("q", 0): reply}, config=config, spoken={"seed": seed})


@given(
    st.sets(st.integers(0, 9), min_size=1),
    st.integers(-1, 12) | st.none() | st.just("many"),
    st.integers(0, 12),
)
def test_the_repeats_that_are_wanted_are_those_there_and_those_asked_for(
    there: set[int], flag: Any, samples: int
) -> None:
    some = replace(
        run("a", 0), replies={("q", repeat): Reply(None, repeat, "A") for repeat in there},
        config={"flags": {"repeats": flag}}, session={"samples": samples},
    )  # fmt: skip
    asked = max(flag if isinstance(flag, int) else 0, samples if samples > 1 else 0, 0)
    assert some.num_wanted_repeats == len(there | set(range(asked)))
    assert replace(some, config={"flags": {"repeats": 10**12}}).num_wanted_repeats == 10**12


def test_runs_of_several_seeds_are_put_together_and_those_of_one_seed_are_not() -> None:
    runs = [run("a", 0), run("b", 1), run("c", 0), run("d", 0, frames=8), replace(run("e", 2), config={})]
    assert [[one.name for one in some] for some in same_but_seeds(runs)] == [["a", "b"], ["c"], ["d"], ["e"]]


def played_at(name: str, seed: int, **changes: Any) -> Recorded:
    """A run of a served model, with the server's and the machine's facts changed as named."""
    server = {"name": "vLLM", "version": "0.1", "model": {"id": "m", "revision": None}}
    environment = {
        "commit": "a" * 40,
        "timeloupe": "1",
        "num_cpus": 2,
        "packages": {"numpy": "1", "av": "18"},
    }
    for key, value in changes.items():
        place = server if key in ("version", "revision") else environment
        if key == "revision":
            server = server | {"model": {"id": "m", "revision": value}}
        elif key in ("numpy", "av"):
            environment = environment | {"packages": environment["packages"] | {key: value}}  # type: ignore[operator]
        else:
            place[key] = value
    card = {"server": server, "environment": environment, "model": {"name": "openai:m"}}
    session = {"base_url": f"http://127.0.0.1:{8000 + seed}/v1"}
    return replace(run(name, seed), card=card, environments=(environment,), session=session)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "0.2"}, "server: version: 0.1 -> 0.2"),
        ({"revision": "b"}, "server: model.revision: null -> b"),
        ({"commit": "b" * 40}, "timeloupe's code: commit: aaaaaaaaaaaa -> bbbbbbbbbbbb"),
        ({"numpy": "2"}, "packages: numpy: 1 -> 2"),
        ({"av": "19"}, "decoder: av: 18 -> 19"),
    ],
)
def test_runs_of_another_server_commit_or_package_are_not_put_together(
    changes: dict[str, Any], words: str
) -> None:
    one, two, three = played_at("a", 0), played_at("b", 1), played_at("c", 2, **changes)
    assert [[each.name for each in some] for some in same_but_seeds([one, two, three])] == [["a", "b"], ["c"]]
    (note,) = apart_notes([[one, two], [three]], ["a", "c"])
    assert note == f"c stands apart from a, which was asked for alike; what differs is {words}"


def test_of_a_run_without_a_card_no_difference_is_invented() -> None:
    one, two = played_at("a", 0), replace(played_at("b", 1), card={})
    assert len(same_but_seeds([one, two])) == 2
    for groups in ([[one], [two]], [[two], [one]]):
        (note,) = apart_notes(groups, [groups[0][0].name, groups[1][0].name])
        assert "b has no card, so scorer, weights and server cannot be compared" in note
    assert apart_notes([[one], [replace(played_at("c", 0), card={})]], ["a", "c"]) == [], "of one seed anyway"


def test_where_a_server_was_and_on_how_many_cores_puts_nothing_apart() -> None:
    runs = [played_at("a", 0), played_at("b", 1, num_cpus=64)]
    assert len(same_but_seeds(runs)) == 1 and apart_notes([runs], ["a"]) == []
    other = [[run("a", 0)], [run("d", 1, frames=8)]]
    assert apart_notes(other, ["a", "d"]) == [], "other settings are another line anyway"


def bench(label: str, mean: float | None, tokens: float | None, group: str = "short") -> BenchReport:
    spread = 0.1 if mean is None else min(mean, 1 - mean) / 2
    interval = Interval(
        mean, None if mean is None else mean - spread, None if mean is None else mean + spread, 3, 4, 2
    )
    entry = Entry(
        label=label, runs=(label,), samples=1, seeds=(0,), strict=(), official={"official:taro": f"ends with {label}"},
        overall=interval, categories={"kind": {group: interval, "other": interval}},
        durations={"under 30 s": interval, "30 s and more": interval}, failures={label: 1}, stops={"answered": 3},
        wanted=4, lost=1, not_begun=0, cost=Cost(tokens, 1.0, 0.0, 2.0, 1.0), card=(label,),
    )  # fmt: skip
    return BenchReport("b", label, "test", 4, "0" * 64, (entry, entry), {}, ("middle", 0.2), (label,))


@given(NAMES, st.none() | FRACTIONS, st.none() | st.floats(0, 1e9, allow_nan=False))
def test_plots_are_xml_with_points_inside_whatever_the_names(
    name: str, mean: float | None, tokens: float | None
) -> None:
    for plot in plots(bench(name, mean, tokens)):
        tree = ElementTree.fromstring(plot.file())
        for circle in tree.iter("{http://www.w3.org/2000/svg}circle"):
            assert 0 <= float(circle.attrib["cx"]) <= 640 and 0 <= float(circle.attrib["cy"]) <= plot.height
        assert ElementTree.fromstring(plot.inline()).attrib["role"] == "img"


@given(NAMES)
def test_names_are_text_on_a_page_and_in_markdown(name: str) -> None:
    report = bench(f"<b>{name}</b>", 0.5, 3.0, group=f"<i>{name}|</i>")
    page = render_report([report])
    assert "<b>" not in page and "<i>" not in page and "&lt;b&gt;" in page
    text = markdown([report])
    outside = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert "<b>" not in outside and "<i>" not in outside
    for grid in grids(report):
        for row in grid.rows:
            cells = [plain(cell) for cell in row]
            assert all("\n" not in cell and not re.search(r"(?<!\\)(?:\\\\)*\|", cell) for cell in cells)


@given(st.text(max_size=80))
@example("0\u1680")
def test_a_line_stays_one_line_without_hidden_signs(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text).splitlines()) <= 1


def test_a_score_with_lost_episodes_is_marked() -> None:
    assert not bench("x", 0.5, None).entries[0].is_whole
    assert "not whole: 1 of 4" in markdown([bench("x", 0.5, None)])
    assert "not whole: 1 of 4" in render_report([bench("x", 0.5, None)])


def test_a_cost_that_was_not_counted_is_not_drawn_as_nothing() -> None:
    known = bench("x", 0.5, 100.0)
    mixed = replace(
        known, entries=(known.entries[0], replace(known.entries[0], cost=Cost(None, None, 1.0, 0, 0)))
    )
    against = next(plot for plot in plots(mixed) if plot.name == "against-tokens")
    assert against.body.count("not counted") == 1 and against.body.count("<circle") == 3
    assert pytest.approx(1.0) == mixed.entries[1].cost.seconds
