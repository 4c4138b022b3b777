"""What the page of a run shows of each episode, as plain JSON data. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from timeloupe.grounding import set_iou
from timeloupe.runs import training_step
from timeloupe.serve.thumbnails import Gallery, box_times, views_of
from timeloupe.trajectory import Box, FrameRef, Message, Segment, StopReason, Text, Trajectory, Turn

HIT_TIOU = 0.5
"""A grounding answer counts as right on the page from this overlap on."""


MOST_LIST_TEXT = 240
"""Characters of a question or an answer that a line of the list holds."""

MOST_SEARCH_TEXT = 2000
"""Characters of an episode that the list's filter by words looks at."""


def run_data(trajectories: Sequence[Trajectory], gallery: Gallery, title: str) -> dict[str, Any]:
    """Return all of a run for a page that holds everything itself, episodes in the order given."""
    return {
        **list_data([entry_data(trajectory, gallery) for trajectory in trajectories], title),
        "pictures": list(gallery.pictures),
        "left_out": gallery.left_out,
        "episodes": [episode_data(trajectory, gallery) for trajectory in trajectories],
    }


def list_data(entries: list[dict[str, Any]], title: str) -> dict[str, Any]:
    """Return what the list of episodes shows of a run."""
    return {"title": title, "hit_tiou": HIT_TIOU, "entries": entries}


def entry_data(trajectory: Trajectory, gallery: Gallery) -> dict[str, Any]:
    """Return an episode's line in the list: what can be filtered and sorted by, and no more."""
    example, answer, problem = trajectory.example, trajectory.answer, trajectory.problem
    overlap = overlap_of(trajectory)
    usages = [turn.generation.usage for turn in trajectory.turns]
    counts = [n for usage in usages for n in (usage.prompt_tokens, usage.completion_tokens) if n is not None]
    said = "" if answer is None else answer.text
    words = [example.question, example.id, example.video, example.source, said, example.answer or ""]
    words += [*example.options, problem.message if problem else ""]
    return {
        "id": example.id,
        "rollout": trajectory.rollout_index,
        "step": training_step(trajectory),
        "task": example.task,
        "question": cut(example.question, MOST_LIST_TEXT),
        "words": " ".join(cut(word, MOST_SEARCH_TEXT // 4) for word in words).lower()[:MOST_SEARCH_TEXT],
        "answer": None if answer is None else cut(answer.option or said, MOST_LIST_TEXT),
        "outcome": outcome_of(trajectory, overlap),
        "stop": trajectory.stop.value,
        "problem": None if problem is None else cut(problem.reason, MOST_LIST_TEXT),
        "overlap": overlap,
        "score": dict(trajectory.score.parts),
        "evidence": pairs(trajectory.evidence)[:8],
        "truth": pairs(example.segments)[:8],
        "duration": duration_of(trajectory, gallery) if views_of(trajectory) or example.segments else None,
        "turns": len(trajectory.turns),
        "looks": len(trajectory.crops),
        "tokens": sum(counts) if counts else None,
        "seconds": trajectory.seconds,
        "single_pass": trajectory.settings.get("tools") is False,
    }


def cut(text: str, most: int) -> str:
    """Return at most ``most`` characters of a text, the last one an ellipsis if any are left out."""
    return text if len(text) <= most else text[: most - 1] + "…"


def episode_data(trajectory: Trajectory, gallery: Gallery) -> dict[str, Any]:
    """Return one episode's data. Times are seconds, segments ``[start, end]`` pairs, ``None`` = unknown."""
    example, answer = trajectory.example, trajectory.answer
    overlap = overlap_of(trajectory)
    return {
        "id": example.id,
        "rollout": trajectory.rollout_index,
        "step": training_step(trajectory),
        "task": example.task,
        "source": example.source,
        "question": example.question,
        "options": list(example.options),
        "truth": {
            "answer": example.answer,
            "segments": pairs(example.segments),
            "boxes": boxes_data(example.boxes),
        },
        "answer": None
        if answer is None
        else {
            "text": answer.text,
            "option": answer.option,
            "segments": pairs(answer.segments),
            "boxes": boxes_data(answer.boxes),
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
        "prompt": [message_data(message) for message in trajectory.prompt],
        "skims": [view_data(view) for view in trajectory.skims],
        "turns": [turn_data(turn) for turn in trajectory.turns],
        "score": [
            {"name": name, "value": value, "reason": trajectory.score.reasons.get(name)}
            for name, value in trajectory.score.parts.items()
        ],
        "frames_decoded": trajectory.frames_decoded,
        "seconds": trajectory.seconds,
        "settings": trajectory.settings,
        **pictures_data(trajectory, gallery),
    }


def pictures_data(trajectory: Trajectory, gallery: Gallery) -> dict[str, Any]:
    """Return what only the video's file can tell of an episode.

    Returns:
        ``note`` (why pictures are missing), ``duration`` in seconds, ``start`` (time of the first frame by the file's
        own clock), ``views``: for each view of the prompt and then
        each crop, in order, ``[time, number of its picture]`` of the frames that have one; ``stills``: the same for
        the times of boxes.
    """

    def numbered(video: str, times: Sequence[float]) -> list[list[float]]:
        found = ((time, gallery.numbers.get((video, time))) for time in times)
        return [[time, number] for time, number in found if number is not None]

    video = trajectory.example.video
    return {
        "note": gallery.notes.get(video),
        "duration": duration_of(trajectory, gallery),
        "start": gallery.starts.get(video, 0.0),
        "views": [numbered(view.video, view.at_seconds) for view in views_of(trajectory)],
        "stills": numbered(video, box_times(trajectory)),
    }


def boxes_data(boxes: Sequence[Box]) -> list[dict[str, Any]]:
    """Return boxes as time, ``[x1, y1, x2, y2]`` in fractions of the frame, and label."""
    return [
        {"at": box.at_seconds, "xyxy": [box.x1, box.y1, box.x2, box.y2], "label": box.label} for box in boxes
    ]


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


def view_data(view: FrameRef) -> dict[str, Any]:
    """Return a view's span, size and frame times."""
    return {
        "kind": view.view,
        "span": [view.start_seconds, view.end_seconds],
        "size_wh": list(view.size_wh),
        "at": [round(time, 3) for time in view.at_seconds],
    }


def turn_data(turn: Turn) -> dict[str, Any]:
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
        "crops": [] if observation is None else [view_data(view) for view in observation.frame_refs],
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
    """Return the length of the episode's time axis in seconds, > 0.

    It is the video's if it could be read, else where the views and the truth end; a model may name any time, so what
    it named counts only when there is nothing else.
    """
    if (known := gallery.durations.get(trajectory.example.video)) is not None and known > 0:
        return known
    ends = [view.end_seconds for view in views_of(trajectory)]
    ends += [segment.end_seconds for segment in trajectory.example.segments]
    named = [segment for turn in trajectory.turns if turn.call for segment in turn.call.segments]
    return (
        max(ends or [segment.end_seconds for segment in (*trajectory.evidence, *named)], default=1.0) or 1.0
    )
