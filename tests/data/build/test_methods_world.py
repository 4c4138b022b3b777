"""The stages for other methods in one build of a world: what comes out is true, and the methods' readers take it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from timeloupe.cli.main import main
from timeloupe.data.build.record import BuiltRow
from timeloupe.grounding import box_iou, tiou
from timeloupe.runs import read_appended
from timeloupe.train.exploration import read_captions
from timeloupe.trajectory import read_examples, read_trajectories
from timeloupe.world.encode import make_videos, write_world
from timeloupe.world.labeller import read_truth
from timeloupe.world.script import ScriptSettings, WorldScript
from timeloupe.world.teach_evidence import asked_event

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "data" / "world-methods.toml"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world of three videos, and the build of the recipe from it in ``build``."""
    folder = tmp_path_factory.mktemp("methods")
    settings = ScriptSettings(min_seconds=60, max_seconds=70, fps=4.0, return_rate=0.7)
    made = make_videos(
        folder,
        seed=21,
        num_videos=3,
        settings=settings,
        tasks=("multi_segment", "what_when_where"),
        per_task=2,
    )
    write_world(folder, made)
    words = ["data", "build", str(RECIPE), "--out", str(folder / "build")]
    assert main([*words, "--set", f"source.path={folder / 'examples.jsonl'}"]) == 0
    return folder


def rows(built: Path, stage: str) -> list[BuiltRow]:
    return list(read_appended(built / "build" / stage / "rows.jsonl", BuiltRow))


def with_scripts(built: Path, stage: str) -> Iterator[tuple[WorldScript, BuiltRow]]:
    scripts = read_truth(built / "truth.jsonl")
    for row in rows(built, stage):
        if row.kept:
            yield scripts[Path(row.example.video).name], row


def converted(built: Path, to: str) -> list[dict[str, Any]]:
    out = built / f"{to}.rows"
    source = built / "build" / "trajectories.jsonl"
    assert main(["data", "convert", str(source), str(out), "--to", to, "--skip-bad"]) == 0
    text = out.read_text(encoding="utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def test_captions_are_near_the_truth_and_taro_reads_them(built: Path) -> None:
    found = right = true = 0
    for script, row in with_scripts(built, "caption"):
        assert row.figures["windows"] == 2 == len(row.asked)
        assert [one.round for one in row.asked] == [0, 1]
        truth = [(segment, text) for segment, text in script.captions()]
        found += len(row.captions)
        true += len(truth)
        for one in row.captions:
            right += any(one.text == text and tiou(one.segment, segment) > 0.4 for segment, text in truth)
    assert true and right / found > 0.7 and right / true > 0.6
    examples = list(read_examples(built / "examples.jsonl"))
    captions = read_captions(built / "build" / "captions.jsonl", examples)
    assert set(captions) == {one.id for one in examples}
    assert all(
        sentences and all(one.startswith("From ") for one in sentences) for sentences in captions.values()
    )


def test_marked_boxes_are_true_and_open_o3_rows_hold_them(built: Path) -> None:
    sources = {one.id: one for one in read_examples(built / "examples.jsonl")}
    ious: list[float] = []
    for script, row in with_scripts(built, "evidence"):
        event = asked_event(script, sources[row.id])
        ious += [box_iou(box, event.box(box.at_seconds)) for box in row.example.boxes]
        assert row.trajectory is not None and row.trajectory.answer is not None
        assert len(row.trajectory.answer.boxes) == len(row.example.boxes) == row.figures["verified"]
    assert len(ious) >= 4 and sum(one > 0.4 for one in ious) / len(ious) > 0.8
    assert sum(row.figures.get("refused", 0) for row in rows(built, "evidence")) > 0
    assert {row.reason for row in rows(built, "evidence") if row.example.task == "multi_segment"} == {
        "other_task"
    }

    spatial = [one for one in converted(built, "openo3") if one["task"].startswith("temporal-spatial")]
    kept = [row for _, row in with_scripts(built, "evidence")]
    assert len(spatial) == len(kept)
    for record, row in zip(spatial, kept, strict=True):
        boxes = [
            box for objects in record["key_items"].values() for corners in objects.values() for box in corners
        ]
        assert len(boxes) == len(row.example.boxes) == record["reasoning_process"].count("<box>")


def test_segments_that_were_kept_are_nearer_to_the_truth_and_museg_rows_hold_them(built: Path) -> None:
    labelled = [row for row in rows(built, "multiseg") if "set_iou" in row.figures]
    assert len(labelled) >= 5
    kept = [row for row in labelled if row.kept]
    assert kept and sum(row.figures["precision"] for row in kept) / len(kept) > 0.7
    assert sum(row.figures["dropped"] for row in labelled) > 0
    assert sum(row.figures["recall"] for row in kept) / len(kept) > 0.7
    records = [one for one in converted(built, "museg") if one["task"] == "tal"]
    assert [one["solution"] for one in records] == [
        [[segment.start_seconds, segment.end_seconds] for segment in row.example.segments] for row in kept
    ]


def test_episodes_are_of_verified_rows_and_examples_hold_nothing_unchecked(built: Path) -> None:
    episodes = list(read_trajectories(built / "build" / "trajectories.jsonl"))
    made = {row.id: row for stage in ("evidence", "multiseg") for row in rows(built, stage) if row.kept}
    assert {one.example.id: one.example for one in episodes} == {id: row.example for id, row in made.items()}
    assert (built / "build" / "examples.jsonl").read_text(encoding="utf-8") == ""
