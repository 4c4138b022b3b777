"""All stages over all items: what ends a session, what the next one makes, and what it has cost. Rows made by hand."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from timeloupe.cli.data_build import _Progress
from timeloupe.data.build.build import Budget, Build, Tally
from timeloupe.data.build.recipe import BuildRecipe
from timeloupe.data.build.record import FAULT, VIDEO, Asked, BuiltRow
from timeloupe.errors import ConfigError, MissingError
from timeloupe.trajectory import Example, Generation, StopReason, Trajectory, Turn

EXAMPLES = [Example(id=id, video=f"{id}.mp4", question="?") for id in "abcdefgh"]
RECIPE = BuildRecipe.model_validate(
    {"source": {"path": "x"}, "stages": [{"kind": "direct"}, {"kind": "ground", "reads": "direct"}]}
)
Make = Callable[[str, str], dict[str, Any]]


class Maker:
    """Makes rows as it is told; keeps what it was asked to make."""

    def __init__(self, make: Make = lambda stage, id: {}) -> None:
        self.make = make
        self.made: list[tuple[str, str]] = []

    def __call__(
        self, stage: str, part: Any, batches: Sequence[Sequence[Example]], stop: threading.Event
    ) -> Iterator[BuiltRow]:
        for batch in batches:
            if stop.is_set():
                return
            for example in batch:
                self.made.append((stage, example.id))
                asked = Asked(purpose=stage, prompt_sha256="0" * 16, reply="x", cost=1.0)
                facts = {"kept": True, "reason": "right", "asked": (asked,)} | self.make(stage, example.id)
                yield BuiltRow(stage=stage, id=example.id, example=example, labeller="x", **facts)


def build(folder: Path, maker: Maker, **more: Any) -> dict[str, Any]:
    return Build(RECIPE, folder, EXAMPLES, maker, batch=2, **more).run()


def faulty(*ids: str, reason: str = FAULT) -> Maker:
    return Maker(lambda stage, id: {"kept": False, "reason": reason} if id in ids else {})


def test_rows_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    first, again = Maker(lambda stage, id: {"kept": id != "c", "reason": "x"}), Maker()
    summary = build(tmp_path, first)
    assert first.made == [("direct", one) for one in "abcdefgh"] + [("ground", one) for one in "abdefgh"]
    assert summary["ended"] == "done" and summary["cost"] == 15
    assert [summary["stages"][name]["handed_on"] for name in ("direct", "ground")] == [7, 7]
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8")) == summary
    assert build(tmp_path, again) == summary and again.made == []


def test_a_stage_with_faults_is_the_last_of_its_session(tmp_path: Path) -> None:
    tallies: list[Tally] = []
    summary = build(tmp_path, faulty("b"), on_row=lambda row, tally: tallies.append(tally))
    assert summary["ended"] == FAULT and list(summary["stages"]) == ["direct"]
    assert summary["stages"]["direct"]["faults"] == 1 and "missing" not in summary["stages"]["direct"]
    assert (tallies[-1].done, tallies[-1].kept, tallies[-1].faults) == (8, 7, 1)
    maker = Maker()
    whole = build(tmp_path, maker)
    assert maker.made[0] == ("direct", "b") and len(maker.made) == 9
    assert whole["ended"] == "done" and whole["stages"]["direct"]["kept"] == 8
    assert whole["cost"] == 17, "the row that was lost was paid for"


@pytest.mark.parametrize(("share", "goes_on"), [(0.0, False), (0.2, False), (0.25, True), (1.0, True)])
def test_few_enough_faults_let_it_go_on(tmp_path: Path, share: float, goes_on: bool) -> None:
    summary = build(tmp_path, faulty("b", "c"), fail_on_error=share)
    assert summary["stages"]["direct"]["faults"] == 2
    assert list(summary["stages"]) == (["direct", "ground"] if goes_on else ["direct"])
    assert summary["ended"] == ("done" if goes_on else FAULT)
    maker = Maker()
    assert build(tmp_path, maker)["stages"]["ground"]["kept"] == 8
    assert [id for stage, id in maker.made if stage == "direct"] == ["b", "c"]
    assert len([id for stage, id in maker.made if stage == "ground"]) == (2 if goes_on else 8)


def test_a_share_that_is_met_exactly_is_not_exceeded(tmp_path: Path) -> None:
    rows = [
        Example(id=str(at), video="v.mp4", question="?") for at in range(100)
    ]  # 0.29 * 100 < 29 as floats
    for lost, whole in ((29, True), (30, False)):
        at_work = Build(RECIPE, tmp_path, rows, Maker(), fail_on_error=0.29)
        made = {
            one.id: BuiltRow(stage="x", id=one.id, example=one, kept=False, reason=FAULT, labeller="x")
            if int(one.id) < lost
            else BuiltRow(stage="x", id=one.id, example=one, kept=True, reason="right", labeller="x")
            for one in rows
        }
        assert at_work._whole(rows, made, {}) is whole


def test_a_video_that_cannot_be_read_holds_nothing_up(tmp_path: Path) -> None:
    summary = build(tmp_path, faulty("b", reason=VIDEO))
    assert summary["ended"] == "done" and summary["stages"]["direct"]["reasons"] == {"right": 7, VIDEO: 1}
    maker = Maker()
    assert build(tmp_path, maker) == summary and maker.made == []
    mended = build(tmp_path, maker, retry_videos=True)
    assert maker.made == [("direct", "b"), ("ground", "b")]
    assert mended["stages"]["ground"]["kept"] == 8 and mended["cost"] == summary["cost"] + 2


def test_money_stops_it_and_counts_over_sessions(tmp_path: Path) -> None:
    ended = []
    for limit in (3, 3, 5, 12, 16):
        maker = Maker()
        ended.append((build(tmp_path, maker, budget=Budget(max_cost=limit))["ended"], len(maker.made)))
    # Batches of two: what is under way is ended. The last row of all was just enough.
    assert ended == [("max_cost", 4), ("max_cost", 0), ("max_cost", 2), ("max_cost", 6), ("done", 4)]


def test_what_a_later_stage_needs_is_missed_before_the_first_is_paid_for(tmp_path: Path) -> None:
    stages = [*RECIPE.model_dump()["stages"], {"kind": "bench", "train": [str(tmp_path / "gone.jsonl")]}]
    recipe = BuildRecipe.model_validate(RECIPE.model_dump() | {"stages": stages})
    maker = Maker()
    with pytest.raises(MissingError, match="gone"):
        Build(recipe, tmp_path, EXAMPLES, maker, batch=2).run()
    assert not maker.made


def test_money_needs_a_price(tmp_path: Path) -> None:
    free = Asked(purpose="x", prompt_sha256="0" * 16, reply="x")
    with pytest.raises(ConfigError, match=r"--max-cost 1 needs the cost of every call.*labeller\.price"):
        build(tmp_path, Maker(lambda stage, id: {"asked": (free,)}), budget=Budget(max_cost=1))
    assert build(tmp_path, Maker(lambda stage, id: {"asked": (free,)}))["cost"] is None


def test_time_and_a_stop_from_outside(tmp_path: Path) -> None:
    maker, stop = Maker(), threading.Event()
    summary = build(tmp_path, maker, budget=Budget(max_seconds=1e-9))
    assert (
        summary["ended"] == "max_hours" and summary["stages"]["direct"]["missing"] == 8 and maker.made == []
    )
    summary = build(tmp_path, maker, stop=stop, on_row=lambda row, tally: stop.set())
    assert summary["ended"] == "stopped" and maker.made == [("direct", "a"), ("direct", "b")]
    assert summary["stages"]["direct"]["missing"] == 6 and summary["files"]["examples.jsonl"] == 0
    assert build(tmp_path, maker)["ended"] == "done" and len(maker.made) == 16


def test_rows_of_other_items_do_not_count(tmp_path: Path) -> None:
    build(tmp_path, Maker())
    fewer = Build(RECIPE, tmp_path, EXAMPLES[:3], Maker(), batch=2).run()
    assert fewer["stages"]["direct"]["items"] == 3 and fewer["stages"]["ground"]["handed_on"] == 3


def test_episodes_that_a_later_stage_replaced_are_counted(tmp_path: Path) -> None:
    def make(stage: str, id: str) -> dict[str, Any]:
        example = Example(id=id, video=f"{id}.mp4", question="?")
        turn = Turn(generation=Generation(text=stage))
        episode = Trajectory(
            example=example, policy="x", protocol="small", turns=(turn,), stop=StopReason.ANSWERED
        )
        return {"trajectory": episode, "kept": stage == "direct" or id in "abc"}

    summary = build(tmp_path, Maker(make))
    assert (summary["files"]["trajectories.jsonl"], summary["made_twice"]) == (8, 3)
    once = Maker(lambda stage, id: make(stage, id) if stage == "direct" else {"kept": False, "reason": "no"})
    assert "made_twice" not in build(tmp_path / "once", once)


def test_progress_says_why_calls_fail_and_a_rate_that_counts_the_first_batch() -> None:
    said = io.StringIO()
    show = _Progress(Console(file=said, width=300))
    now = show.last
    show.clock = lambda: now
    for stage, seconds in (("direct", 60), ("ground", 30)):
        now += seconds  # one batch: its rows come all at once
        for done, example in enumerate(EXAMPLES, 1):
            row = BuiltRow(
                stage=stage, id=example.id, example=example, kept=False, reason=FAULT, labeller="x",
                detail="connection [red]refused",
            )  # fmt: skip
            show(row, Tally(stage, len(EXAMPLES), done, faults=done))
    assert said.getvalue().splitlines() == [
        "direct: the calls for 'a' failed: connection [red]refused",
        "direct: 8 of 8, 0 kept, 8 failed, 8/min",
        "ground: 8 of 8, 0 kept, 8 failed, 16/min",
    ]
