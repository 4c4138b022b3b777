"""Training rows of a model that is to play TaRO in the world: it answers in one pass, and it can caption.

What reinforcement learning starts from there: three kinds of rows, all without a tool, answered by a perfect observer
of the frames.

1. Grounding with a bare thought: ``<think>Found.</think><answer>12s to 40s</answer>``.
2. Grounding with a part of the timeline of the asked scene and event in the thought, rare: the model can reason so,
   and seldom does.
3. Grounding with both lines of that timeline in the thought, where the question asks for it.

Rows of a pool depend on ``(stage seed, pool index)`` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.prompt.build import first_messages
from timeloupe.prompt.protocol import PROTOCOLS, Protocol
from timeloupe.train.rows import TrainRow, assistant
from timeloupe.train.world_rows import QUESTIONS_PER_VIDEO, RenderedReader
from timeloupe.trajectory import FrameRef
from timeloupe.video.sampling import skim_times
from timeloupe.world.script import ScriptSettings, generator, make_script, training_seed
from timeloupe.world.teacher import make_question, to_example
from timeloupe.world.timeline import (
    TIMELINE_QUESTION,
    grounding_reply,
    some_lines,
    timeline,
)


@dataclass
class TimelineRows:
    """Makes rows.

    Attributes:
        seed: Root seed of the training videos; outside the evaluation range.
        settings: Episode settings that the model will be used with.
        captions: Share of rows that ask for the timeline first, in [0, 1].
        timed: Share of the others whose thought holds lines of the timeline, in [0, 1].
        protocol: Prompt protocol.
        script_settings: Kind of videos.
    """

    seed: int
    settings: EpisodeSettings
    captions: float
    timed: float
    protocol: Protocol = PROTOCOLS["small"]
    script_settings: ScriptSettings = field(default_factory=ScriptSettings)

    def __post_init__(self) -> None:
        training_seed(self.seed)

    def pool(self, index: int, size: int) -> list[TrainRow]:
        """Return the ``size`` rows of pool ``index``."""
        rows: list[TrainRow] = []
        random = generator("timeline-rows", self.seed, index)
        while len(rows) < size:
            rows.extend(self._video_rows(random))
        return rows[:size]

    def _video_rows(self, random: np.random.Generator) -> Iterator[TrainRow]:
        script = make_script(self.seed, int(random.integers(1 << 40)), self.script_settings)
        reader = RenderedReader(script, random)
        times = skim_times(
            script.duration_seconds, fps=self.settings.skim_fps, max_frames=self.settings.skim_frames
        )
        size = self.settings.frame_size_wh
        assert size is not None, "world rows need a fixed frame size"
        for number in range(QUESTIONS_PER_VIDEO):
            frames = reader.read(times, size)
            question = make_question(script, "grounding", number)
            lines: Sequence[str] = timeline(script, frames.at_seconds, question)
            asked = random.random() < self.captions
            if not asked:
                lines = some_lines(lines, random) if random.random() < self.timed else ()
            example = to_example(question, id="row", video="world")
            if asked:
                example = example.model_copy(update={"question": f"{TIMELINE_QUESTION}\n{question.text}"})
            reply = grounding_reply(script, question, frames.at_seconds, lines)
            skim = FrameRef(
                video="world", view="skim", start_seconds=0.0, end_seconds=script.duration_seconds,
                at_seconds=frames.at_seconds, size_wh=size,
            )  # fmt: skip
            prompt = first_messages(example, skim, self.protocol, tools=False)
            yield TrainRow((*prompt, assistant(reply)), (frames.pixels,))
