"""What ``rollout_speed.py`` plays and trains: two models, their prompts, and messages for all of them.

Imports the package only inside functions: TRL's process reads the sizes and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GROUP = 8
TURNS = 3
QUESTION = "When is the diamond visible in the green scene?"
SYSTEM = "Look closer, then answer."
"""Words that both tokenizers know."""


@dataclass(frozen=True)
class Case:
    """One model with its prompt.

    Attributes:
        name: For tables.
        frames: Frames of the skim.
        size: Their side in pixels.
        crop_frames: Frames of the crop between turns.
        new_tokens: Tokens of each reply; the single turn of a training step is as long as all replies together.
        images: Pictures in the prompt of a training step: one where nothing stands between pictures, since the
            library's own positions cannot tell them apart then.
        picture_size: Their side in pixels.
        aim: Roll-outs against ``generate``.
    """

    name: str
    frames: int
    size: int
    crop_frames: int
    new_tokens: int
    images: int
    picture_size: int
    aim: float

    @property
    def step_tokens(self) -> int:
        """Tokens of the reply of a training step."""
        return self.new_tokens * TURNS


CASES = {
    "small": Case("small model, 1.2 M", 16, 32, 12, 16, 1, 128, 4.0),
    "random": Case("random Qwen3-VL, 4.7 M", 128, 128, 16, 16, 89, 128, 9.0),
}


def checkpoint_of(case: str, work: Path) -> Path:
    """Return the folder of a case's model, made on first use."""
    if case == "small":
        from timeloupe.policy.small import SMALL_CHECKPOINT

        return SMALL_CHECKPOINT
    folder = work / "random"
    if not (folder / "tokenizer.json").exists():
        from tiny_qwen3_vl import write_tiny_qwen3_vl

        text = {
            "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "head_dim": 64,
            "num_attention_heads": 4, "num_key_value_heads": 2,
        }  # fmt: skip
        write_tiny_qwen3_vl(
            folder, text_sizes=text, vision_sizes={"hidden_size": 104, "intermediate_size": 256}
        )
    return folder


def pixels(number: int, frames: int, size: int) -> np.ndarray:
    """Return random frames (N, size, size, 3) uint8."""
    return np.random.default_rng(number).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)


def view(kind: Any, frames: int, size: int, start: float, spacing: float) -> Any:
    """Return the reference of a view."""
    from timeloupe.trajectory import FrameRef

    times = tuple(start + spacing * index for index in range(frames))
    return FrameRef(
        video="v.mp4", view=kind, start_seconds=start, end_seconds=times[-1] + spacing, at_seconds=times,
        size_wh=(size, size),
    )  # fmt: skip


def message(role: Any, *parts: Any) -> Any:
    """Return a message of texts and views."""
    from timeloupe.trajectory import Message, Text

    return Message(
        role=role, parts=tuple(Text(text=part) if isinstance(part, str) else part for part in parts)
    )


class Group:
    """The members of one group on their way through the turns; members see crops of their own.

    Args:
        case: Sizes.
        number: Which group: frames and seeds.
    """

    def __init__(self, case: Case, number: int) -> None:
        self.case, self.number, self.turn = case, number, 0
        skim = view("skim", case.frames, case.size, 0.0, 0.5)
        start = (message("system", SYSTEM), message("user", f"{QUESTION}\n", skim, f"\n{QUESTION}"))
        clip = pixels(number, case.frames, case.size)
        self.messages = [list(start) for _ in range(GROUP)]
        self.clips = [[clip] for _ in range(GROUP)]
        self.generations: list[list[Any]] = [[] for _ in range(GROUP)]
        self.crops = [
            [pixels(1000 * number + GROUP * turn + row, case.crop_frames, case.size) for row in range(GROUP)]
            for turn in range(TURNS - 1)
        ]

    def go_on(self, generations: list[Any]) -> None:
        """Take the replies of a turn and show the crops that come after it."""
        for row, generation in enumerate(generations):
            self.generations[row].append(generation)
            self.messages[row].append(message("assistant", generation.text))
            if self.turn < TURNS - 1:
                ref = view("crop", self.case.crop_frames, self.case.size, 3.0 + row, 0.25)
                self.messages[row].append(message("user", ref, f"\n{QUESTION}"))
                self.clips[row].append(self.crops[self.turn][row])
        self.turn += 1


def picture_prompt(case: Case, number: int) -> tuple[list[Any], list[np.ndarray]]:
    """Return the messages and pictures of one training step."""
    refs = [view("image", 1, case.picture_size, float(index), 1.0) for index in range(case.images)]
    clips = [frame[None] for frame in pixels(number, case.images, case.picture_size)]
    return [message("system", SYSTEM), message("user", *refs, f"\n{QUESTION}")], clips
