"""World scripts as real H.264 MP4 files, and a folder of them with questions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from timeloupe.errors import ConfigError, boundary
from timeloupe.trajectory import Box, Example, Segment, Task, to_line
from timeloupe.world.multi_segment import every_time_example, shapes_by_count
from timeloupe.world.render import NATIVE_SIZE, WorldRenderer
from timeloupe.world.script import ScriptSettings, WorldScript, make_script
from timeloupe.world.teacher import make_question, to_example

KEYFRAME_SECONDS = 1
TASKS: tuple[Task, ...] = ("grounding", "multiple_choice", "multi_segment", "what_when_where")


def encode_mp4(script: WorldScript, path: str | Path, *, crf: int = 23) -> None:
    """Write a script as H.264 MP4, 128 x 128, constant frame rate, a keyframe every second.

    The file appears under its name only when it is whole.

    Args:
        script: What to draw.
        path: Where to write; parent folders must exist.
        crf: x264 quality, 0 (lossless) to 51.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    rate = round(script.fps)
    if rate != script.fps or rate < 1:
        raise boundary("frames per second of a world video", script.fps, "a whole number >= 1")
    renderer = WorldRenderer(script)
    try:
        with av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate)
            stream.width = stream.height = NATIVE_SIZE
            stream.pix_fmt = "yuv420p"
            stream.gop_size = KEYFRAME_SECONDS * rate
            stream.options = {"crf": str(crf), "preset": "superfast", "threads": "1"}
            for index in range(round(script.duration_seconds * rate)):
                frame = av.VideoFrame.from_ndarray(renderer.frame(index / rate), format="rgb24")
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class WorldVideo:
    """One made video: its script, its file and its questions."""

    script: WorldScript
    path: Path
    examples: tuple[Example, ...]


def world_examples(
    script: WorldScript, *, id: str, video: str, tasks: Sequence[Task], per_task: int = 1
) -> list[Example]:
    """Return the questions of one video, ``per_task`` of each task; fewer if the video holds fewer different ones."""
    examples: list[Example] = []
    for task in tasks:
        seen: set[str] = set()
        for attempt in range(8 * per_task):
            if len(seen) == per_task:
                break
            example = _example(script, task, attempt, id=f"{id}-{task}-{len(seen)}", video=video)
            if example.question not in seen:
                seen.add(example.question)
                examples.append(example)
    return examples


def _example(script: WorldScript, task: Task, attempt: int, *, id: str, video: str) -> Example:
    if task in ("grounding", "multiple_choice"):
        return to_example(make_question(script, task, attempt), id=id, video=video)
    if task == "multi_segment":
        shapes = shapes_by_count(script)
        return every_time_example(script, shapes[attempt % len(shapes)], id=id, video=video)
    if task == "what_when_where":
        event = make_question(script, "grounding", attempt).event
        colour = script.scenes[event.scene_index].colour
        start, end = event.digit_segment.start_seconds, event.digit_segment.end_seconds
        times = np.arange(start, end, 1.0).tolist()
        return Example(
            id=id, video=video,
            question=f"Which digit does the {event.shape} carry in the {colour} scene, when and where?",
            answer=str(event.digit), segments=(event.digit_segment,),
            boxes=tuple(_rounded(event.box(time, event.shape)) for time in times), task=task, source="world",
        )  # fmt: skip
    raise boundary("world task", task, TASKS)


def _rounded(box: Box) -> Box:
    return box.model_copy(
        update={key: round(getattr(box, key), 4) for key in ("at_seconds", "x1", "y1", "x2", "y2")}
    )


def plan_videos(
    folder: str | Path,
    *,
    seed: int,
    num_videos: int,
    settings: ScriptSettings | None = None,
    settings_of: Callable[[int], ScriptSettings] | None = None,
    tasks: Sequence[Task] = ("grounding", "multiple_choice"),
    per_task: int = 1,
) -> Iterator[WorldVideo]:
    """Yield the videos that ``make_videos`` makes with the same arguments, without making any.

    Raises:
        ConfigError: A number is out of its range.
    """
    if num_videos < 1:
        raise boundary("number of videos", num_videos, ">= 1")
    for index in range(num_videos):
        script = make_script(seed, index, settings_of(index) if settings_of else settings)
        name = f"world-{seed}-{index:04d}"
        examples = world_examples(script, id=name, video=f"videos/{name}.mp4", tasks=tasks, per_task=per_task)
        yield WorldVideo(script, Path(folder) / "videos" / f"{name}.mp4", tuple(examples))


def make_videos(
    folder: str | Path,
    *,
    seed: int,
    num_videos: int,
    settings: ScriptSettings | None = None,
    settings_of: Callable[[int], ScriptSettings] | None = None,
    tasks: Sequence[Task] = ("grounding", "multiple_choice"),
    per_task: int = 1,
) -> Iterator[WorldVideo]:
    """Make ``num_videos`` videos under ``folder/videos``, yielding each when its file is whole.

    A file that is already there with the same script is kept, so an interrupted call can be repeated; one with another
    script is made anew.

    Args:
        folder: Output folder, made if missing.
        seed: Root seed; video ``i`` depends on ``(seed, i)`` and its settings only.
        num_videos: How many, >= 1.
        settings: Kind of videos.
        settings_of: Settings by video index instead, such as one duration bin after another.
        tasks: Question kinds.
        per_task: Questions of each kind per video.
    """
    planned = plan_videos(
        folder, seed=seed, num_videos=num_videos, settings=settings, settings_of=settings_of, tasks=tasks,
        per_task=per_task,
    )  # fmt: skip
    for video in planned:
        video.path.parent.mkdir(parents=True, exist_ok=True)
        mark = video.path.with_name(f".{video.path.stem}.json")
        truth = json.dumps(script_truth(video.script))
        if not (video.path.exists() and mark.exists() and mark.read_text(encoding="utf-8") == truth):
            encode_mp4(video.script, video.path)
            mark.write_text(truth, encoding="utf-8")
        yield video


def script_truth(script: WorldScript) -> dict[str, Any]:
    """Return everything true in a video as JSON: scenes, events, captions, and one box a second of each event."""

    def span(segment: Segment) -> list[float]:
        return [segment.start_seconds, segment.end_seconds]

    return {
        "seed": list(script.key), "duration_seconds": script.duration_seconds, "fps": script.fps,
        "scenes": [{"colour": scene.colour, "segment": span(scene.segment)} for scene in script.scenes],
        "events": [
            {
                "scene": event.scene_index, "shape": event.shape, "segment": span(event.segment), "digit": event.digit,
                "digit_segment": span(event.digit_segment), "distractor": event.distractor,
                "path": list(event.path),
                "boxes": [
                    [_rounded(box).at_seconds, _rounded(box).x1, _rounded(box).y1, _rounded(box).x2, _rounded(box).y2]
                    for box in (
                        event.box(time, event.shape)
                        for time in np.arange(event.segment.start_seconds, event.segment.end_seconds, 1.0).tolist()
                    )
                ],
            }
            for event in script.events
        ],
        "captions": [{"segment": span(segment), "text": text} for segment, text in script.captions()],
    }  # fmt: skip


def refuse_other_world(folder: str | Path, videos: Sequence[WorldVideo]) -> None:
    """Do nothing if ``folder`` holds no world yet, or the one that ``videos`` (planned or made) are.

    Raises:
        ConfigError: ``examples.jsonl`` is there and lists other rows.
    """
    target = Path(folder) / "examples.jsonl"
    if target.exists() and target.read_text(encoding="utf-8") != _example_lines(videos):
        raise ConfigError(
            f"{target} lists other examples than these settings make, got other settings; use a new folder"
        )


def write_world(folder: str | Path, videos: Iterator[WorldVideo]) -> tuple[int, int]:
    """Make the videos and write ``examples.jsonl`` and ``truth.jsonl`` beside them; returns (videos, examples).

    Other videos of the same names are replaced on the way: ask ``refuse_other_world`` first.

    Raises:
        ConfigError: ``examples.jsonl`` is there and lists other rows.
    """
    folder = Path(folder)
    made = list(videos)
    refuse_other_world(folder, made)
    truth = "".join(
        json.dumps({"video": f"videos/{v.path.name}", **script_truth(v.script)}) + "\n" for v in made
    )
    (folder / "truth.jsonl").write_text(truth, encoding="utf-8")
    (folder / "examples.jsonl").write_text(_example_lines(made), encoding="utf-8")
    return len(made), sum(len(video.examples) for video in made)


def _example_lines(videos: Sequence[WorldVideo]) -> str:
    return "".join(to_line(example) + "\n" for video in videos for example in video.examples)
