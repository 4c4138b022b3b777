"""TaRO's constructive exploration: for a while, roll-outs start from a thought that is built from dense captions.

A policy that never writes a time into its thoughts cannot be rewarded for it. So in the warm-up of a run a roll-out's
reply begins with ``<think>`` and a random part of the captions of its video, in order, and the policy goes on from
there. Constructed and generated tokens are learnt alike, by advantage-weighted behaviour cloning: the roll-out is
marked off-policy. After the warm-up the policy speaks for itself.

A file of captions has one JSON object a line, by the id of an example or by its video (relative to the file)::

    {"id": "charades-17", "captions": ["From 5.3s to 8.1s, the person opens the box.", "..."]}
    {"video": "videos/KWZSA.mp4", "captions": [{"segment": [5.3, 8.1], "text": "The person opens the box."}, "..."]}

so that a world's ``truth.jsonl`` is one. Captions must be in the order of the video. A row with none is always played
freely; a row without a line is an error.

Source: TaRO (arXiv 2606.09248), oceanflowlab/TaRO@143a234f. Deviation: the warm-up is a share of the run by default,
since a run of a few steps has no epochs.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timeloupe.environment.rollout import derive_seed
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import ConfigError, MissingError, RecordError
from timeloupe.reward.taro_sensitivity import construct_thought
from timeloupe.train.grpo_recipe import ExplorationPart, GrpoRecipe
from timeloupe.trajectory import Example, Trajectory
from timeloupe.video.sampling import skim_times
from timeloupe.world.encode import plan_videos
from timeloupe.world.teacher import question_of
from timeloupe.world.timeline import timeline

Captions = Mapping[str, tuple[str, ...]]
"""Example id to sentences with their times, in the order of the video."""


@dataclass(frozen=True)
class Explorer:
    """Begins replies.

    Attributes:
        part: What the recipe says.
        captions: Of every example.
        seed: Root seed of the run.
        num_steps: Steps of the warm-up.
    """

    part: ExplorationPart
    captions: Captions
    seed: int
    num_steps: int

    def probability(self, step: int) -> float:
        """Return the probability of a roll-out of ``step`` to be constructed, in [0, 1]."""
        if step >= self.num_steps:
            return 0.0
        share = 1 - step / self.num_steps if self.part.linear else 1.0
        return self.part.probability * share

    def prefixes(self, chosen: Sequence[tuple[Example, int]], step: int) -> list[str]:
        """Return how each reply begins, empty = freely; ``chosen`` are examples with the number of the roll-out."""
        probability = self.probability(step)
        found: list[str] = []
        for example, index in chosen:
            randomness = random.Random(derive_seed(self.seed, f"explore {example.id}", index, step))
            constructed = randomness.random() < probability
            thought = construct_thought(
                self.captions[example.id], example.question, randomness, opening=self.part.opening
            )
            found.append((thought or "") if constructed else "")
        return found


def make_explorer(
    recipe: GrpoRecipe, examples: Sequence[Example], settings: EpisodeSettings
) -> Explorer | None:
    """Return what begins the replies of a run; ``None`` where the recipe wants none.

    Raises:
        MissingError: There is no file of captions.
        RecordError: A line of it is none of those above.
        ConfigError: An example has no captions.
    """
    part = recipe.exploration
    if part is None:
        return None
    if part.captions is not None:
        captions = read_captions(part.captions, examples)
    else:
        assert recipe.data.world is not None, "the recipe checks it"
        captions = world_captions(recipe.data.world.plan(recipe.data.tasks), settings)
    steps = part.until * recipe.steps
    if part.epochs is not None:
        steps = part.epochs * len(examples) / recipe.prompts
    return Explorer(part, captions, recipe.seed, max(1, math.ceil(steps - 1e-9)))


def is_constructed(trajectory: Trajectory) -> bool:
    """Whether the first reply of a roll-out was begun for the policy."""
    return bool(trajectory.settings.get("reply_prefix"))


_TIME = re.compile(r"\d\s*s(?:ec(?:ond)?s?)?\b|\d:\d\d\b", re.IGNORECASE)


def names_times(thought: str) -> bool:
    """Whether a thought names a time: a number with seconds (``5.3s``, ``12 seconds``), or ``1:05``."""
    return _TIME.search(thought) is not None


def thought_figures(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return the shares of roll-outs that were constructed, and, of the others, whose first thought names a time."""
    constructed = [is_constructed(one) for one in trajectories]
    figures = {"constructed": sum(constructed) / max(len(constructed), 1)}
    free = [
        names_times(one.turns[0].thought)
        for one, begun in zip(trajectories, constructed, strict=True)
        if one.turns and not begun
    ]
    return figures | ({"timed_thoughts": sum(free) / len(free)} if free else {})


def read_captions(path: str | Path, examples: Sequence[Example]) -> dict[str, tuple[str, ...]]:
    """Return the captions of every example from a JSONL file; a line of its id goes before one of its video.

    Raises:
        MissingError: There is no such file.
        RecordError: A line is no object with ``captions`` and one of ``id`` and ``video``.
        ConfigError: An example has no line.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"no captions at {str(path)!r}, expected a JSONL file; set exploration.captions")
    by_id: dict[str, tuple[str, ...]] = {}
    by_video: dict[Path, tuple[str, ...]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row["captions"], list):  # a bare string would be a caption per character
                raise TypeError(f"captions must be a list, got {row['captions']!r}")
            sentences = tuple(_sentence(one) for one in row["captions"])
            if "id" in row:
                by_id[str(row["id"])] = sentences
            else:
                by_video[(path.parent / row["video"]).resolve()] = sentences
        except (ValueError, KeyError, TypeError) as error:
            raise RecordError(
                f"{path}:{number} is no line of captions: {type(error).__name__}: {error}; expected "
                '{"id" or "video": ..., "captions": [sentence or {"segment": [start, end], "text": ...}, ...]}'
            ) from error
    found: dict[str, tuple[str, ...]] = {}
    for example in examples:
        sentences = by_id.get(example.id, by_video.get(Path(example.video).resolve()))
        if sentences is None:
            raise ConfigError(
                f"no captions of an example, got {example.id!r} of video {example.video!r}, allowed: ids and videos of "
                f"the {len(by_id) + len(by_video)} lines of {str(path)!r}, add a line for it ([] = none)"
            )
        found[example.id] = sentences
    return found


def world_captions(plan: Mapping[str, Any], settings: EpisodeSettings) -> dict[str, tuple[str, ...]]:
    """Return captions of the first view for every example of a world, in the words of the small model.

    They are the lines of the timeline that are about the asked scene and event.

    Args:
        plan: Arguments of ``plan_videos`` but for the folder.
        settings: Say which frames are seen.
    """
    found: dict[str, tuple[str, ...]] = {}
    for video in plan_videos(".", **plan):
        script, start = video.script, settings.skim_start_seconds
        end = min(settings.skim_end_seconds or math.inf, script.duration_seconds)
        wanted = skim_times(end - start, fps=settings.skim_fps, max_frames=settings.skim_frames)
        # As the reader has it: what is displayed at a time is the frame that began last.
        shown = [math.floor((start + time) * script.fps + 1e-6) / script.fps for time in wanted]
        for example in video.examples:
            found[example.id] = tuple(timeline(script, shown, question_of(script, example)))
    return found


def _sentence(caption: Any) -> str:
    """A caption in words: as it stands, or ``From 5.3s to 8.1s, ...``."""
    if isinstance(caption, str):
        return caption
    start, end = (float(second) for second in caption["segment"])
    text = str(caption["text"])
    return f"From {start:.1f}s to {end:.1f}s, {text[:1].lower()}{text[1:]}"
