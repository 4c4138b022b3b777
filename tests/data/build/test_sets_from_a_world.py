"""Rows for reinforcement learning and a benchmark, built by the command from a small world, and who reads them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from timeloupe.cli.main import main
from timeloupe.data.build.record import BuiltRow
from timeloupe.data.formats.convert import convert
from timeloupe.reward import accuracy
from timeloupe.runs import read_appended
from timeloupe.trajectory import read_examples
from timeloupe.world.encode import make_videos, write_world
from timeloupe.world.script import ScriptSettings

RECIPES = Path(__file__).resolve().parents[3] / "recipes" / "data"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    settings = ScriptSettings(min_seconds=40, max_seconds=60)
    made = make_videos(
        folder,
        seed=1000321,
        num_videos=4,
        settings=settings,
        tasks=("grounding", "multiple_choice"),
        per_task=2,
    )
    write_world(folder, made)
    return folder


def build(recipe: str, world: Path, out: Path, settings: list[str], **changes: str) -> dict[str, Any]:
    """Build with a shipped recipe, some lines of which are changed, and return the stages of the summary."""
    text = (RECIPES / recipe).read_text(encoding="utf-8")
    for old, new in changes.items():
        assert text.count(f"\n{old} = ") == 1
        text = text.replace(f"\n{old} = ", f"\n{new}\n# {old} = ")
    path = out.with_suffix(".toml")
    path.write_text(text, encoding="utf-8")
    words = [f"source.path={world / 'examples.jsonl'}", *settings]
    assert (
        main(["data", "build", str(path), "--out", str(out), *(w for s in words for w in ("--set", s))]) == 0
    )
    return json.loads((out / "summary.json").read_text(encoding="utf-8"))["stages"]


def rows_of(folder: Path) -> list[BuiltRow]:
    return list(read_appended(folder / "rows.jsonl", BuiltRow))


def test_rows_for_reinforcement_learning(world: Path, tmp_path: Path) -> None:
    """The oracle is a policy that errs in half of its answers; the shipped recipe asks the small model."""
    out = tmp_path / "rl"
    as_policy = ["labeller.policy=oracle", "labeller.oracle.wrong_answer=0.5", "protocol=small"]
    as_policy += ["episode.skim_frames=8", "episode.crop_max_frames=8"]
    summary = build("world-rl.toml", world, out, as_policy, samples="samples = 3")["difficulty"]
    rows = rows_of(out / "difficulty")
    assert summary["items"] == len(rows) == 16 and summary["kept"] > 6
    for row in rows:
        rights = [one.right for one in row.asked if one.right is not None]
        assert len(rights) == 3 and row.figures["pass_rate"] == sum(rights) / 3
        assert row.figures["mean_calls"] == 1 and len(row.asked) == 6  # it looks once, then answers
        assert ("mean_iou" in row.figures) == (row.example.task == "grounding")
        assert row.kept == (0 < sum(rights) < 3) == (row.reason == "kept")
    examples = list(read_examples(out / "examples.jsonl"))
    handed_on = Counter(example.task for example in examples)
    assert handed_on["multiple_choice"] == round(0.4667 * len(examples)) and len(examples) > 4
    split = summary["split"]
    assert (split["qa"]["handed_on"], split["grounding"]["handed_on"]) == (
        handed_on["multiple_choice"],
        handed_on["grounding"],
    )

    swift = tmp_path / "rl.jsonl"
    report = convert(out / "examples.jsonl", swift, source_format="examples", target_format="swift_rl")
    assert (report.written, report.bad) == (len(examples), 0)
    written = [json.loads(line) for line in swift.read_text(encoding="utf-8").splitlines()]
    for record, example in zip(written, examples, strict=True):
        assert record["data_type"] == ("grounding" if example.task == "grounding" else "qa")
        assert record.get("solution") == example.answer and record["videos"] == [example.video]


def test_a_benchmark_is_checked_played_and_scored(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench"
    whole = build("world-bench.toml", world, out, ["episode.skim_frames=4"])
    assert "no question at all: 3-10 min, 10-20 min, >=20 min" in capsys.readouterr().out
    summary, rows = whole["bench"], rows_of(out / "bench")
    assert (
        len(rows)
        == whole["ground"]["handed_on"]
        == 8 - len([row for row in rows_of(out / "ground") if not row.kept])
    )
    for row in rows:
        asked = Counter(one.purpose for one in row.asked)
        right = Counter(one.purpose for one in row.asked if one.right)
        assert asked["blind"] == 5 and asked["whole"] in (0, 5)
        assert (row.reason == "answered_blind") == (right["blind"] > 2)
        assert (row.reason == "answered_whole") == (right["whole"] > 2)
        assert row.kept == (row.reason == "verified") == bool(right["verify"])
    bench = out / "bench" / "bench.jsonl"
    lines = [json.loads(line) for line in bench.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == summary["handed_on"] == summary["videos"] >= 2
    assert max(summary["letters"].values()) - min(summary["letters"].values()) <= 1
    source = {one.id: one for one in read_examples(world / "examples.jsonl")}
    for line in lines:
        true = source[line["id"]]
        letter = accuracy.true_letter(true)
        assert letter is not None
        assert line["answer"][3:] == true.options["ABCD".index(letter)]
        assert line["timestamp"] == [true.segments[0].start_seconds, true.segments[0].end_seconds]
    assert not (out / "examples.jsonl").read_text(encoding="utf-8"), "a benchmark is not to learn from"

    assert main(["data", "check", str(bench), "--videos", str(world / "videos"), "--json"]) == 0
    [checked] = json.loads(capsys.readouterr().out)["sources"]
    assert checked["layout"] == "videotemp_bench_mcq" and checked["findings"] == []

    said = {line["id"]: [f"<think>Seen.</think><answer>{line['answer'][0]}</answer>"] for line in lines}
    assert _score("videotemp_bench_mcq", bench, said, tmp_path, capsys) == 1.0
    said = {line["id"]: [f"<think>Seen.</think><answer>{line['timestamp']}</answer>"] for line in lines}
    assert _score("videotemp_bench_grounding", bench, said, tmp_path, capsys) == 1.0

    again = build(
        "world-bench.toml", world, tmp_path / "again", ["episode.skim_frames=4"],
        controls=f"train = [{json.dumps(str(out))}]",
    )["bench"]  # fmt: skip
    assert again["reasons"] == {"leak_question": again["items"]} and not again["asked"]


def _score(
    benchmark: str,
    bench: Path,
    replies: dict[str, list[str]],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> float:
    """Return the strict main score, from 0 to 1, of a policy that says just this."""
    script = folder / f"{benchmark}.json"
    script.write_text(json.dumps({"replies": replies}), encoding="utf-8")
    words = [
        benchmark,
        "--data",
        str(bench),
        "--policy",
        "scripted",
        "--script",
        str(script),
        "--frames",
        "4",
    ]
    assert main(["eval", *words, "--run", str(folder / benchmark), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["episodes"] == len(replies) and document["lost"] == 0
    [score] = document["scores"]
    strict = next(mode for mode in score["modes"] if mode["mode"] == "strict")
    assert strict["scored"] == strict["total"] == len(replies)
    return strict["figures"]["accuracy" if benchmark.endswith("mcq") else "mIoU"]
