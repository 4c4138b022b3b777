"""The scorer of evidence-weighted voting: it looks at each crop that a reply points at and says how relevant it is.

A box becomes a picture: the frame displayed at its time, cut to the box and brought back to the frame's size, as
Open-o3 does. A segment becomes a clip with the frames that a crop of it has. Each is shown alone with the question, at
temperature 0, and the scorer answers with one digit: 2, 1 or 0. What it says is kept, so a vote that was stopped goes
on.

The prompt is our own. A reply that holds no digit, or several, is no score: its crop weighs what 0 weighs, and is
counted; where no crop at all gets a score, there is no vote.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from timeloupe.environment.rollout import derive_seed
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.environment.tools import View, crop_video
from timeloupe.errors import PolicyError, VideoError
from timeloupe.eval.scaling import Pointed, pointed_at
from timeloupe.eval.strict import answer_part
from timeloupe.eval.voting import LOWEST_WEIGHT, MAX_CROPS, evidence_weight
from timeloupe.grounding import Corners
from timeloupe.policy.base import GenerationRequest, Policy
from timeloupe.prompt.build import question_block
from timeloupe.runs import EpisodeKey, episode_key, read_appended, write_atomic
from timeloupe.trajectory import (
    FrameRef,
    Generation,
    Message,
    Problem,
    Record,
    Text,
    Trajectory,
    Usage,
    to_line,
)
from timeloupe.video.cache import FrameCache
from timeloupe.video.reader import VideoReader

SCORES = "relevance.jsonl"

ASK = (
    "\nAbove is a part of a video that somebody points at to answer this question:\n{question}\n\n"
    "Does it help? 2: it shows what the answer depends on. 1: it is about the same thing, but does not show it. "
    "0: it has nothing to do with the question. Reply with that one digit and nothing else."
)

_DIGIT = re.compile(r"\D*([012])\D*")


class Relevance(Record):
    """What the scorer said of one reply's evidence.

    Attributes:
        scorer: Who was asked, hashed: rows of other scorers have another value.
        num_crops: Crops that the reply points at.
        scores: One per crop that was shown; ``None`` = the scorer gave no digit.
        fault: Why it could not be asked; empty where it could.
        num_frames: Frames that it was shown.
        seconds: Wall time of its replies.
    """

    scorer: str
    id: str
    rollout_index: int
    num_crops: int
    scores: tuple[int | None, ...] = ()
    fault: str = ""
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    num_frames: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> EpisodeKey:
        """What tells the row from others of its scorer."""
        return self.id, self.rollout_index

    @property
    def weight(self) -> float:
        """What the reply's vote weighs, in [0.2, 1]."""
        return evidence_weight(self.scores, self.num_crops) if self.scores else LOWEST_WEIGHT


@dataclass(frozen=True)
class Scorer:
    """Asks for the relevance of evidence.

    Attributes:
        name: Name of the scorer, for its rows.
        policy: Who is asked.
        box_scale: What coordinates of boxes count, as in ``Protocol``.
        cache: Decoded frames.
    """

    name: str
    policy: Policy
    box_scale: str
    cache: FrameCache

    def score(self, trajectories: Sequence[Trajectory]) -> list[Relevance]:
        """Return one row per episode, in order; nobody is asked where one points at nothing, or at over ten crops."""
        shown: list[list[View] | str] = []
        rows: list[Relevance] = []
        for one in trajectories:
            pointed = pointed_at(one)
            count = len(pointed.claims) or len(pointed.spans)
            rows.append(
                Relevance(
                    scorer=self.name, id=one.example.id, rollout_index=one.rollout_index, num_crops=count
                )
            )
            try:
                shown.append(self._views(one, pointed) if 0 < count <= MAX_CROPS else [])
            except VideoError as error:
                shown.append(str(error))
        requests = [
            _request(one, view, at)
            for one, views in zip(trajectories, shown, strict=True) if not isinstance(views, str)
            for at, view in enumerate(views)
        ]  # fmt: skip
        generations, seconds = self._ask(requests)
        replies = iter(generations)
        found: list[Relevance] = []
        for row, views in zip(rows, shown, strict=True):
            if isinstance(views, str):
                found.append(row.model_copy(update={"fault": views}))
                continue
            found.append(_read(row, views, [next(replies) for _ in views], seconds))
        return found

    def _ask(self, requests: Sequence[GenerationRequest]) -> tuple[list[Generation], float]:
        """The replies, and the seconds that one took on average."""
        if not requests:
            return [], 0.0
        began = time.perf_counter()
        try:
            found = self.policy.generate(requests)
        except PolicyError as error:
            found = [Generation(text="", finish="error", error=str(error)) for _ in requests]
        return list(found), (time.perf_counter() - began) / len(requests)

    def _views(self, one: Trajectory, pointed: Pointed) -> list[View]:
        """The crops that are shown; a time outside the video, and a box that covers nothing, is left out."""
        settings = settings_of(one)
        with VideoReader(
            one.example.video, self.cache, deadline_seconds=settings.video_deadline_seconds
        ) as reader:
            views: list[View] = []
            for start, end in pointed.spans:
                found = crop_video(reader, max(start, 0.0), end, settings)
                views += [] if isinstance(found, Problem) else [found]
            size_wh = (one.skims or one.crops)[0].size_wh if pointed.claims else (1, 1)
            for claim in pointed.claims:
                if not 0 <= claim.at_seconds < reader.info.duration_seconds:
                    continue
                frames = reader.read([claim.at_seconds], size_wh)
                scale = (1000.0, 1000.0) if self.box_scale == "thousandths" else size_wh
                picture = cut_out(frames.pixels[0], claim.box, scale)
                if picture is None:
                    continue
                at = frames.at_seconds[0]
                ref = FrameRef(
                    video=one.example.video, view="image", start_seconds=at, end_seconds=at, at_seconds=(at,),
                    size_wh=size_wh,
                )  # fmt: skip
                views.append(View(ref, picture[None]))
        return views


def settings_of(trajectory: Trajectory) -> EpisodeSettings:
    """Return the settings that an episode was played with, at temperature 0."""
    known = {
        key: trajectory.settings[key] for key in EpisodeSettings.model_fields if key in trajectory.settings
    }
    return EpisodeSettings.model_validate(known | {"temperature": 0.0})


def cut_out(pixels: np.ndarray, box: Corners, scale_wh: tuple[float, float]) -> np.ndarray | None:
    """Return the part of a frame inside a box, brought to the frame's size; ``None`` if that covers no pixel.

    Args:
        pixels: (H, W, 3) uint8.
        box: Left, top, right and bottom; what reaches out of the frame is cut off.
        scale_wh: Width and height of the frame in the box's coordinates.
    """
    height, width = pixels.shape[:2]
    if not all(np.isfinite(box)):
        return None
    x1, x2 = (min(max(value / scale_wh[0], 0.0), 1.0) * width for value in (box[0], box[2]))
    y1, y2 = (min(max(value / scale_wh[1], 0.0), 1.0) * height for value in (box[1], box[3]))
    left, top, right, bottom = int(x1), int(y1), int(np.ceil(x2)), int(np.ceil(y2))
    if right <= left or bottom <= top:
        return None
    part = Image.fromarray(pixels[top:bottom, left:right])
    return np.asarray(part.resize((width, height), Image.Resampling.BICUBIC))


def read_score(reply: str) -> int | None:
    """Return the one digit 0, 1 or 2 that a reply holds behind its thought; ``None`` for anything else."""
    found = _DIGIT.fullmatch(answer_part(reply))
    return int(found[1]) if found else None


def _request(one: Trajectory, view: View, number: int) -> GenerationRequest:
    text = ASK.format(question=question_block(one.example))
    message = Message(role="user", parts=(view.ref, Text(text=text)))
    return GenerationRequest(
        messages=(message,), clips=(view.pixels,), sampling=settings_of(one).sampling(),
        seed=derive_seed(0, one.example.id, one.rollout_index, number), example_id=one.example.id,
    )  # fmt: skip


def _read(row: Relevance, views: Sequence[View], replies: Sequence[Generation], seconds: float) -> Relevance:
    fault = next((one.error or "the scorer gave no reason" for one in replies if one.finish == "error"), "")
    usages = [one.usage for one in replies]
    return row.model_copy(
        update={
            "fault": fault, "scores": () if fault else tuple(read_score(one.text) for one in replies),
            "prompt_tokens": _total(usages, "prompt_tokens"), "completion_tokens": _total(usages, "completion_tokens"),
            "num_frames": sum(len(view.pixels) for view in views), "seconds": seconds * len(replies),
        }
    )  # fmt: skip


def _total(usages: Sequence[Usage], key: str) -> int | None:
    values = [getattr(usage, key) for usage in usages]
    return None if any(value is None for value in values) else sum(values)


def read_rows(path: Path, scorer: str) -> dict[EpisodeKey, Relevance]:
    """Return what one scorer said, faults left out, by episode.

    Raises:
        RecordError: A whole line is no valid row.
    """
    return {row.key: row for row in read_appended(path, Relevance) if row.scorer == scorer and not row.fault}


def mend(path: Path, scorer: str) -> None:
    """Take a scorer's faults and a torn last line out of the file, so that they are asked again."""
    if path.is_file():
        kept = [row for row in read_appended(path, Relevance) if row.scorer != scorer or not row.fault]
        write_atomic(path, "".join(to_line(row) + "\n" for row in kept).encode())


def evidence_weights(samples: Sequence[Trajectory], known: Mapping[EpisodeKey, Relevance]) -> list[float]:
    """Return the weights of ``evidence``; a reply that the scorer could not be asked about weighs the least."""
    rows = [known.get(episode_key(one)) for one in samples]
    return [LOWEST_WEIGHT if row is None else row.weight for row in rows]


def scorer_cost(rows: Sequence[Relevance]) -> dict[str, Any]:
    """Return what the scorer cost: replies, tokens (``None`` where a server did not count), frames, seconds."""
    prompt, completion = [row.prompt_tokens for row in rows], [row.completion_tokens for row in rows]
    return {
        "crops": sum(len(row.scores) for row in rows),
        "prompt_tokens": None if None in prompt else sum(one or 0 for one in prompt),
        "completion_tokens": None if None in completion else sum(one or 0 for one in completion),
        "frames": sum(row.num_frames for row in rows), "seconds": round(sum(row.seconds for row in rows), 3),
    }  # fmt: skip
