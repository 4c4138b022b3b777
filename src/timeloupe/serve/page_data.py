"""What the page of a run shows of each episode, as plain JSON data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from timeloupe.grounding import set_iou
from timeloupe.serve.thumbnails import Gallery, views_of
from timeloupe.trajectory import FrameRef, Message, Segment, StopReason, Text, Trajectory, Turn

HIT_TIOU = 0.5
"""A grounding answer counts as right on the page from this overlap on."""


def run_data(trajectories: Sequence[Trajectory], gallery: Gallery, title: str) -> dict[str, Any]:
    """Return the whole page's data: title, pictures, and one entry per episode in the order given."""
    return {
        "title": title,
        "hit_tiou": HIT_TIOU,
        "pictures": list(gallery.pictures),
        "left_out": gallery.left_out,
        "episodes": [episode_data(trajectory, gallery) for trajectory in trajectories],
    }


def episode_data(trajectory: Trajectory, gallery: Gallery) -> dict[str, Any]:
    """Return one episode's data. Times are seconds, segments ``[start, end]`` pairs, ``None`` = unknown."""
    example, answer = trajectory.example, trajectory.answer
    overlap = overlap_of(trajectory)
    return {
        "id": example.id,
        "rollout": trajectory.rollout_index,
        "task": example.task,
        "source": example.source,
        "question": example.question,
        "options": list(example.options),
        "truth": {"answer": example.answer, "segments": pairs(example.segments), "boxes": len(example.boxes)},
        "answer": None
        if answer is None
        else {
            "text": answer.text,
            "option": answer.option,
            "segments": pairs(answer.segments),
            "boxes": len(answer.boxes),
        },
        "evidence": pairs(trajectory.evidence),
        "overlap": overlap,
        "outcome": outcome_of(trajectory, overlap),
        "stop": trajectory.stop.value,
        "problem": problem_data(trajectory),
        "policy": trajectory.policy,
        "protocol": trajectory.protocol,
        "seed": trajectory.seed,
        "single_pass": trajectory.settings.get("tools") is False,
        "video": example.video,
        "video_name": PurePath(example.video).name,
        "note": gallery.notes.get(example.video),
        "duration": duration_of(trajectory, gallery),
        "prompt": [message_data(message) for message in trajectory.prompt],
        "skims": [view_data(view, gallery) for view in trajectory.skims],
        "turns": [turn_data(turn, gallery) for turn in trajectory.turns],
        "score": [
            {"name": name, "value": value, "reason": trajectory.score.reasons.get(name)}
            for name, value in trajectory.score.parts.items()
        ],
        "frames_decoded": trajectory.frames_decoded,
        "seconds": trajectory.seconds,
        "settings": trajectory.settings,
    }


def pairs(segments: Sequence[Segment]) -> list[list[float]]:
    """Return segments as ``[start, end]`` pairs."""
    return [[segment.start_seconds, segment.end_seconds] for segment in segments]


def problem_data(holder: Trajectory | Turn) -> dict[str, str] | None:
    """Return the problem of an episode or turn, if it has one."""
    return None if holder.problem is None else holder.problem.model_dump()


def message_data(message: Message) -> dict[str, Any]:
    """Return a message as text, with a line in brackets where frames stood."""
    parts = [
        part.text if isinstance(part, Text) else f"\n[{len(part.at_seconds)} frames, {part.view}]\n"
        for part in message.parts
    ]
    return {"role": message.role, "text": "".join(parts).strip()}


def view_data(view: FrameRef, gallery: Gallery) -> dict[str, Any]:
    """Return a view with the number of the picture of each frame that has one."""
    found = ((time, gallery.numbers.get((view.video, time))) for time in view.at_seconds)
    return {
        "kind": view.view,
        "span": [view.start_seconds, view.end_seconds],
        "size_wh": list(view.size_wh),
        "at": [round(time, 3) for time in view.at_seconds],
        "pictures": [[time, number] for time, number in found if number is not None],
    }


def turn_data(turn: Turn, gallery: Gallery) -> dict[str, Any]:
    """Return one turn's data."""
    generation, observation = turn.generation, turn.observation
    return {
        "thought": turn.thought,
        "raw": generation.text,
        "finish": generation.finish,
        "error": generation.error,
        "call": None
        if turn.call is None
        else {"name": turn.call.name, "segments": pairs(turn.call.segments)},
        "answer": None if turn.answer is None else turn.answer.text,
        "problem": problem_data(turn),
        "observation": None if observation is None else message_data(observation)["text"],
        "crops": [] if observation is None else [view_data(view, gallery) for view in observation.frame_refs],
        "prompt_tokens": generation.usage.prompt_tokens,
        "completion_tokens": generation.usage.completion_tokens,
        "seconds": turn.seconds,
    }


def overlap_of(trajectory: Trajectory) -> float | None:
    """Return the temporal IoU of what the episode stands on with the truth.

    ``None`` = nothing to compare: the truth is unknown, the machine failed, or the question asks for no segment and
    the episode named none.
    """
    truth = trajectory.example.segments
    if not truth or trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    if not trajectory.evidence:
        return None if trajectory.example.task in ("multiple_choice", "open") else 0.0
    return set_iou(trajectory.evidence, truth)


def outcome_of(trajectory: Trajectory, overlap: float | None) -> str:
    """Return ``right``, ``wrong``, ``unanswered``, ``fault`` (the machine's) or ``unknown`` (no truth to compare)."""
    example, answer = trajectory.example, trajectory.answer
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return "fault"
    if answer is None:
        return "unanswered"
    if example.task == "multiple_choice":
        if example.answer is None:
            return "unknown"
        return "right" if answer.option == example.answer else "wrong"
    if example.task == "open" or overlap is None:
        return "unknown"
    return "right" if overlap >= HIT_TIOU else "wrong"


def duration_of(trajectory: Trajectory, gallery: Gallery) -> float:
    """Return the length of the episode's time axis: the video's if it could be read, else the last time named."""
    if (known := gallery.durations.get(trajectory.example.video)) is not None:
        return known
    ends = [view.end_seconds for view in views_of(trajectory)]
    named = [*trajectory.example.segments, *trajectory.evidence]
    named += [segment for turn in trajectory.turns if turn.call for segment in turn.call.segments]
    return max([*ends, *(segment.end_seconds for segment in named)], default=1.0)
