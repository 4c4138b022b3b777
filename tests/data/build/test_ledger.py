"""The folder of a build: sums that add up, torn lines, rows that are made again, what others read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timeloupe.data.build.ledger import StageLedger, summarise, write_products
from timeloupe.data.build.record import FAULT, VIDEO, Asked, BuiltRow, Caption
from timeloupe.errors import RecordError
from timeloupe.trajectory import Example, Generation, Segment, StopReason, Trajectory, Turn, Usage, to_line

tokens = st.one_of(st.none(), st.integers(0, 10_000))
asked_rows = st.builds(
    Asked,
    purpose=st.sampled_from(["ground", "alone"]), prompt_sha256=st.just("0" * 16), reply=st.just("x"),
    finish=st.sampled_from(["stop", "length", "error"]),
    usage=st.builds(Usage, prompt_tokens=tokens, completion_tokens=tokens),
    cost=st.one_of(st.none(), st.floats(0, 2)), tries=st.integers(1, 5), seconds=st.floats(0, 9),
)  # fmt: skip


def row(id: str, *, kept: bool = True, reason: str = "once", asked: tuple[Asked, ...] = (), **more: object) -> BuiltRow:  # fmt: skip # noqa: E501
    example = Example(id=id, video=f"{id}.mp4", question="Wann? \u4e16 \U0001f600")
    return BuiltRow(
        stage="ground", id=id, example=example, kept=kept, reason=reason, labeller="x", asked=asked, **more
    )  # type: ignore[arg-type]


several = st.lists(asked_rows, max_size=3)
rows_lists = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["once", "twice", "wrong", FAULT, VIDEO]), several)
).map(lambda found: [row(str(at), kept=kept, reason=reason, asked=tuple(asked))
                     for at, (kept, reason, asked) in enumerate(found)])  # fmt: skip


@settings(max_examples=40)
@given(rows_lists)
def test_a_summary_adds_up(rows: list[BuiltRow]) -> None:
    found = summarise(rows)
    asked = [one for row in rows for one in row.asked]
    assert found["items"] == sum(found["reasons"].values()) == len(rows)
    assert found["kept"] == sum(row.kept for row in rows) <= found["items"]
    assert sum(found["asked"].values()) == len(asked)
    failed = sum(one.finish == "error" for one in asked)
    assert found["failed_calls"] == sum(one.tries for one in asked) - len(asked) + failed
    answered = [one.usage for one in asked if one.finish != "error"]
    for name in ("prompt_tokens", "completion_tokens"):
        counts = [getattr(one, name) for one in answered]
        assert found[name] == (None if None in counts else sum(counts))
    known = asked and all(one.cost is not None for one in asked)
    assert found["cost"] == (pytest.approx(sum(one.cost or 0 for one in asked)) if known else None)
    if found["cost_per_kept_row"] is not None:
        assert found["cost_per_kept_row"] * found["kept"] == pytest.approx(found["cost"])
    json.dumps(found, allow_nan=False)


@settings(max_examples=40)
@given(number=st.integers(1, 4), share=st.floats(0, 1))
def test_a_ledger_survives_a_cut_anywhere(
    tmp_path_factory: pytest.TempPathFactory, number: int, share: float
) -> None:
    folder = tmp_path_factory.mktemp("stage")
    rows = [row(f"row-{at}") for at in range(number)]
    whole = b"".join((to_line(one) + "\n").encode() for one in rows)
    cut = round(share * len(whole))
    (folder / "rows.jsonl").write_bytes(whole[:cut])
    ledger = StageLedger(folder)
    there = list(ledger.rows().values())
    ends = [len(b"".join((to_line(one) + "\n").encode() for one in rows[: at + 1])) for at in range(number)]
    assert there == [one for one, end in zip(rows, ends, strict=True) if cut >= end - 1]
    for one in rows:
        if one.id not in ledger.rows():
            ledger.append(one)
    assert (folder / "rows.jsonl").read_bytes() == whole


def test_a_whole_line_that_is_no_row_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"x": 1}\n' + to_line(row("a")) + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"rows\.jsonl:1 is not a valid BuiltRow"):
        StageLedger(tmp_path).rows()


def test_rows_to_be_made_again_are_put_aside(tmp_path: Path) -> None:
    ledger = StageLedger(tmp_path)
    fault, video = row("f", kept=False, reason=FAULT), row("v", kept=False, reason=VIDEO)
    older, good = row("g", reason="once"), row("g", reason="twice")
    for one in (older, fault, video, good):
        ledger.append(one)
    assert ledger.take_out() == 1
    assert list(ledger.rows().values()) == [good, video] and ledger.earlier() == [fault]
    assert ledger.path.read_bytes().count(b"\n") == 2, "older lines of an id are gone"
    before = ledger.path.stat().st_mtime_ns
    assert ledger.take_out() == 0 and ledger.path.stat().st_mtime_ns == before
    assert ledger.take_out(videos=True) == 1
    assert list(ledger.rows()) == ["g"] and ledger.earlier() == [fault, video]


def test_a_kill_between_the_two_files_counts_no_row_twice(tmp_path: Path) -> None:
    ledger = StageLedger(tmp_path)
    fault = row("f", kept=False, reason=FAULT)
    ledger.append(fault)
    (tmp_path / "again.jsonl").write_text(to_line(fault) + "\n" + to_line(fault)[:30], encoding="utf-8")
    assert ledger.take_out() == 1
    assert ledger.earlier() == [fault] and ledger.rows() == {}


def episode(id: str, said: str) -> Trajectory:
    turn = Turn(generation=Generation(text=said))
    return Trajectory(
        example=Example(id=id, video=f"{id}.mp4", question="?"), policy="x", protocol="small", turns=(turn,),
        stop=StopReason.ANSWERED,
    )  # fmt: skip


def test_what_others_read(tmp_path: Path) -> None:
    span = Segment(start_seconds=1, end_seconds=2)
    stages = {
        "direct": [row("a", trajectory=episode("a", "short")), row("b", trajectory=episode("b", "short"))],
        "ground": [row("a", trajectory=episode("a", "long"))],
        "plain": [row("c"), row("d")],
        "caption": [row("e", captions=(Caption(segment=span, text="B\u00e4lle"),))],
    }
    assert write_products(tmp_path, stages) == {
        "trajectories.jsonl": 2,
        "examples.jsonl": 2,
        "captions.jsonl": 1,
    }
    lines = {
        path.name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in tmp_path.iterdir()
    }
    found = [
        (one["example"]["id"], one["turns"][0]["generation"]["text"]) for one in lines["trajectories.jsonl"]
    ]
    assert found == [("b", "short"), ("a", "long")]
    assert [one["id"] for one in lines["examples.jsonl"]] == ["c", "d"]
    assert lines["captions.jsonl"] == [
        {"video": "e.mp4", "captions": [{"segment": [1.0, 2.0], "text": "B\u00e4lle"}]}
    ]


def test_kept_rows_stand_in_the_order_of_the_items(tmp_path: Path) -> None:
    ledger = StageLedger(tmp_path)
    for one in (row("c"), row("x"), row("a"), row("b", kept=False)):
        ledger.append(one)
    items = [row(id).example for id in "abc"]
    assert [one.id for one in ledger.finish(items, list)] == ["a", "c"]
    assert [one.id for one in ledger.finish(items, lambda rows: rows[:1])] == ["a"]
    lines = (tmp_path / "kept.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a"]
