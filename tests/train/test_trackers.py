"""Trackers: what was sent is read back from the packages' own files, and a resumed run sends no step twice."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from timeloupe.errors import ConfigError, MissingError
from timeloupe.train import trackers
from timeloupe.train.trackers import Trackers, check_trackers


def rows(*steps: int) -> list[dict[str, Any]]:
    """Lines as metrics.jsonl has them."""
    return [{"step": step, "reward": step / 4, "stage": "words", "kl": 0.5} for step in steps]


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of every event file below ``folder``: name to (step, value)."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((folder / "tensorboard").glob("events.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tensor.float_val:
                    found.setdefault(value.tag, []).append((event.step, value.tensor.float_val[0]))
    return found


def test_tensorboard_holds_every_figure_of_every_step_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = Trackers(["tensorboard"], tmp_path, {"lr": 1.0})
    for row in rows(0, 1, 2):
        first(row)
    # Killed here, behind a checkpoint at step 1: it is not closed, and steps 1 and 2 are played again.
    second = Trackers(["tensorboard"], tmp_path, {"lr": 1.0})
    for row in rows(1, 2, 3):
        second(row)
    second.close()
    first.close()
    found = tensorboard_scalars(tmp_path)
    assert found == {"reward": [(0, 0.0), (1, 0.25), (2, 0.5), (3, 0.75)], "kl": [(s, 0.5) for s in range(4)]}


def test_without_names_nothing_is_written(tmp_path: Path) -> None:
    nothing = Trackers([], tmp_path, {})
    nothing(rows(0)[0])
    nothing.close()
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_told_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pip install wandb"):
        check_trackers(["wandb"])
    with pytest.raises(ConfigError, match="allowed: tensorboard"):
        check_trackers(["paper"])


def test_a_folder_of_the_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("trackio") is not None:
        pytest.skip("trackio is installed")
    (tmp_path / "trackio").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingError, match="pip install trackio"):
        check_trackers(["trackio"])


def test_each_tracker_is_sent_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, int]] = []

    class Listed:
        def __init__(self, folder: Path, run_id: str, config: Mapping[str, Any], first_step: int) -> None:
            self.name = f"{run_id[:2]}-{first_step}"

        def log(self, step: int, figures: Mapping[str, float]) -> None:
            assert set(figures) == {"reward", "kl"}
            sent.append((self.name, step))

        def close(self) -> None:
            sent.append((self.name, -1))

    monkeypatch.setattr(trackers, "TRACKERS", {"json": Listed, "decimal": Listed})
    one = Trackers(["json"], tmp_path, {})
    one(rows(0)[0])
    run_id = json.loads((tmp_path / "trackers.json").read_text())["run_id"][:2]
    # A tracker that joins a resumed run gets the rows from then on.
    two = Trackers(["json", "decimal"], tmp_path, {})
    two(rows(0)[0])
    two.close()
    assert sent == [(f"{run_id}-0", 0), (f"{run_id}-0", 0), (f"{run_id}-1", -1), (f"{run_id}-0", -1)]


def level_db_records(content: bytes, block: int = 32768) -> Iterator[bytes]:
    """Records of a LevelDB log whose first block is short of its 7 bytes of file header."""
    at, whole = 0, b""
    while at + 7 <= len(content):
        left = block - (at + 7) % block
        if left < 7:  # the rest of a block is filled up
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last piece
            yield whole
            whole = b""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_keeps_one_run_and_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for steps in ((0, 1), (1, 2)):
        opened = Trackers(["wandb"], tmp_path, {"lr": 1.0})
        for row in rows(*steps):
            opened(row)
        opened.close()
    # Its service writes behind our back for a moment after the run is finished.
    expected = [(0, 0.0), (1, 0.25), (2, 0.5)]
    for _ in range(100):
        found, ids = wandb_history(tmp_path)
        if len(found) >= len(expected):
            break
        time.sleep(0.1)
    assert sorted(found) == expected and len(ids) == 1


def wandb_history(folder: Path) -> tuple[list[tuple[int, float]], set[str]]:
    """(step, reward) of all rows in wandb's files, and the ids of their runs."""
    from wandb.proto import wandb_internal_pb2  # type: ignore[import-not-found]

    found: list[tuple[int, float]] = []
    ids: set[str] = set()
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        for data in level_db_records(path.read_bytes()[7:]):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {
                    one.key or one.nested_key[0]: json.loads(one.value_json) for one in record.history.item
                }
                found.append((items["_step"], items["reward"]))
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
    return found, ids


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trackio_keeps_one_run_and_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("trackio is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))  # read when it is first imported
    (tmp_path / "run").mkdir()
    for steps in ((0, 1), (1, 2)):
        opened = Trackers(["trackio"], tmp_path / "run", {"lr": 1.0})
        for row in rows(*steps):
            opened(row)
        opened.close()
    assert capsys.readouterr().out == ""
    with sqlite3.connect(tmp_path / "store" / f"{trackers.PROJECT}.db") as store:
        found = store.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    assert [(step, json.loads(text)["reward"]) for _, step, text in found] == [(0, 0), (1, 0.25), (2, 0.5)]
    assert len({name for name, _, _ in found}) == 1
