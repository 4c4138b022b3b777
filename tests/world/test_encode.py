"""World videos as files: what the reader gives back is what the script says."""

import json
from pathlib import Path

import numpy as np
import pytest

from timeloupe.errors import ConfigError
from timeloupe.trajectory import read_examples
from timeloupe.video.probe import probe
from timeloupe.video.reader import VideoReader
from timeloupe.world.encode import TASKS, WorldVideo, make_videos, write_world
from timeloupe.world.render import WorldRenderer
from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings

SHORT = ScriptSettings(60, 75)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[WorldVideo]:
    folder = tmp_path_factory.mktemp("world")
    return list(make_videos(folder, seed=EVALUATION_SEEDS[5], num_videos=2, settings=SHORT, tasks=TASKS))


def test_the_file_is_real_h264_of_the_right_length(videos: list[WorldVideo]) -> None:
    for video in videos:
        info = probe(video.path)
        assert info.codec == "h264"
        assert info.duration_seconds == pytest.approx(video.script.duration_seconds, abs=1e-3)
        assert info.fps == pytest.approx(video.script.fps)


def test_decoded_frames_are_the_rendered_ones(videos: list[WorldVideo]) -> None:
    for video in videos:
        renderer = WorldRenderer(video.script)
        times = np.linspace(0, video.script.duration_seconds - 0.01, 40)
        with VideoReader(video.path) as reader:
            frames = reader.read(times.tolist())
        for pixels, at in zip(frames.pixels, frames.at_seconds, strict=True):
            error = np.abs(pixels.astype(int) - renderer.frame(at).astype(int)).mean()
            assert error < 12, f"frame at {at} s differs by {error:.1f} grey levels on average"
            if (event := video.script.event_at(at)) is not None:
                box = event.box(at)
                x, y = int(64 * (box.x1 + box.x2)), int(64 * (box.y1 + box.y2))
                patch = pixels[y - 12 : y + 12, x - 12 : x + 12]
                filled = event.shape != "ring"
                assert not filled or patch.min() < 80, "the shape stands in its box"


def test_every_task_has_true_evidence(videos: list[WorldVideo]) -> None:
    for video in videos:
        by_task = {example.task: example for example in video.examples}
        assert set(by_task) == set(TASKS)
        events = {event.segment for event in video.script.events}
        assert by_task["grounding"].segments[0] in events
        assert set(by_task["multi_segment"].segments) <= events
        boxes = by_task["what_when_where"].boxes
        span = by_task["what_when_where"].segments[0]
        assert boxes and all(span.start_seconds <= box.at_seconds < span.end_seconds for box in boxes)


def test_making_again_keeps_files_and_refuses_other_rows(tmp_path: Path) -> None:
    def make(tasks: tuple[str, ...]) -> tuple[int, int]:
        return write_world(tmp_path, make_videos(tmp_path, seed=3, num_videos=1, settings=SHORT, tasks=tasks))  # type: ignore[arg-type]

    assert make(("grounding",)) == (1, 1)
    path = next((tmp_path / "videos").glob("*.mp4"))
    stamp = path.stat().st_mtime_ns
    assert make(("grounding",)) == (1, 1)
    assert path.stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match="other examples"):
        make(("multiple_choice",))
    (row,) = read_examples(tmp_path / "examples.jsonl")
    assert Path(row.video).is_file()
    truth = json.loads((tmp_path / "truth.jsonl").read_text(encoding="utf-8"))
    assert truth["captions"] and truth["events"][0]["boxes"]
